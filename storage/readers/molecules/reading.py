"""From a file's name and bytes to molecules, whatever the format."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import PurePosixPath

from storage.errors import BadInput
from storage.readers.found import Found
from storage.readers.molecules import other
from storage.readers.molecules.arrays import read_hdf5, read_mat, read_npz
from storage.readers.molecules.molecule import Molecule
from storage.readers.molecules.sdf import read_sdf
from storage.readers.molecules.xyz import read_xyz

FORMATS: dict[str, Callable[[bytes], Found[Molecule]]] = {
    ".xyz": read_xyz,
    ".extxyz": partial(read_xyz, extended=True),
    ".sdf": read_sdf,
    ".mol": read_sdf,
    ".npz": read_npz,
    ".mat": read_mat,
    ".h5": read_hdf5,
    ".hdf5": read_hdf5,
}
EXTENSIONS = (*FORMATS, *other.EXTENSIONS)


def through_ase(name: str) -> bool:
    """Say whether ASE reads the energies in a file of this name, which are then in eV."""
    suffix = PurePosixPath(name).suffix.lower()
    return suffix not in FORMATS or suffix in (".xyz", ".extxyz")


def read_molecules(name: str, data: bytes) -> Found[Molecule]:
    """Read the molecules of a file.

    Returns
    -------
    Found
        A list of molecules with names that are unique within the file; bad ones beside good
        ones are in its ``refused``.

    Raises
    ------
    BadInput
        If nothing good is in it; whatever the bytes, no other error is raised.
    """
    suffix = PurePosixPath(name).suffix.lower()
    try:
        if not data:
            raise BadInput("truncated", "is empty")
        reader = FORMATS.get(suffix)
        found = reader(data) if reader is not None else other.read_other(data, suffix)
        if not found and [index for index, _ in found.refused] == [""]:
            raise found.refused[0][1]
    except BadInput as error:
        raise BadInput(error.reason, f"{name}: {error.message}") from error
    except Exception as error:
        # Damaged bytes make the format libraries raise nearly anything, MemoryError included.
        message = f"{name} cannot be read as {suffix} ({type(error).__name__}: {error})"
        raise BadInput("corrupt", message) from error
    if not found and not found.refused:
        raise BadInput("empty", f"{name} holds no molecules")
    return _unique(found)


def _unique(found: Found[Molecule]) -> Found[Molecule]:
    """Refuse the second molecule of a name."""
    seen: Counter[str] = Counter()
    kept: Found[Molecule] = Found(refused=found.refused)
    for item in found:
        seen[item.index] += 1
        if seen[item.index] > 1:
            error = BadInput("duplicate", f"the name {item.index!r} occurs again in its file")
            kept.refused.append((item.index, error))
        else:
            kept.append(item)
    return kept
