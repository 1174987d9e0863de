"""Whatever else ASE reads: extended xyz, CIF, PDB, POSCAR, trajectories, its databases and more."""

from __future__ import annotations

import io
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from storage.errors import BadInput
from storage.readers.found import Found
from storage.readers.molecules.molecule import Molecule, molecule

# not .json, though ASE writes it too: files that describe molecules have that ending
EXTENSIONS = (".cif", ".pdb", ".traj", ".gjf", ".vasp", ".cml", ".con", ".db")
VACUUM = 4.0  # Angstrom between periodic images of a molecule that does not feel them


def read_other(data: bytes, suffix: str) -> Found[Molecule]:
    """Read every frame of a file through ASE; energies become the property ``energy`` (eV).

    Raises
    ------
    BadInput
        If ASE knows no format of this name or finds no atoms.
    """
    import ase.io
    from ase.io.formats import UnknownFileTypeError

    with tempfile.TemporaryDirectory() as folder:  # several of ASE's readers want a name
        path = Path(folder) / f"molecule{suffix}"
        path.write_bytes(data)
        try:
            frames: Any = ase.io.read(path, index=":")
        except UnknownFileTypeError as error:
            raise BadInput("format", f"ASE knows no format {suffix!r}: {error}") from error
    found: Found[Molecule] = Found()
    for place, atoms in enumerate(frames):
        index = "" if len(frames) == 1 else str(place)
        try:
            found.append(_molecule(index, atoms))
        except BadInput as error:
            found.refused.append((index, error))
    return found


def read_extended(index: str, comment: str, atoms: list[str], rest: list[str]) -> Molecule:
    """Read one molecule of extended xyz through ASE.

    Raises
    ------
    BadInput
        If ASE cannot read it.
    """
    import ase.io

    text = "\n".join([str(len(atoms)), comment, *atoms, *rest, ""])
    try:
        read: Any = ase.io.read(io.StringIO(text), format="extxyz")
    except Exception as error:  # of any kind, depending on the text
        raise BadInput(
            "corrupt", f"is not an extended xyz ({type(error).__name__}: {error})"
        ) from error
    return _molecule(index, read)


def _molecule(index: str, atoms: Any) -> Molecule:
    _check_isolated(atoms)
    info = {**atoms.info, **atoms.info.get("key_value_pairs", {})}  # of a database
    numbers = {
        str(name): float(value)
        for name, value in info.items()
        if isinstance(value, int | float | np.number) and not isinstance(value, bool)
    }
    results = getattr(atoms.calc, "results", {})
    numbers |= {k: float(v) for k, v in results.items() if np.ndim(v) == 0}
    texts = {str(k): v for k, v in info.items() if isinstance(v, str)}
    return molecule(index, atoms.numbers, atoms.positions, numbers, texts)


def _check_isolated(atoms: Any) -> None:
    """Refuse crystals and liquids, whose surroundings would be those of a cluster.

    A molecule alone in a periodic box is none, unless its box leaves no room or cuts it in two.
    """
    cell = atoms.cell.complete().array
    for axis in np.flatnonzero(atoms.pbc & (atoms.cell.lengths() > 1)):  # PDB writes 1 for no cell
        normal = np.cross(cell[axis - 1], cell[axis - 2])
        normal /= np.linalg.norm(normal)
        gap = abs(normal @ cell[axis]) - np.ptp(atoms.positions @ normal)
        if gap < VACUUM:
            raise BadInput(
                "periodic",
                f"repeats along axis {axis} with {max(gap, 0):.1f} Angstrom between its images; "
                f"a molecule needs {VACUUM:g}: cut it out, or write it without a cell",
            )
