"""Whatever else ASE reads: extended xyz, CIF, PDB, POSCAR, trajectories and more."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from storage.errors import BadInput
from storage.readers.found import Found
from storage.readers.molecules.molecule import Molecule, molecule

EXTENSIONS = (".extxyz", ".cif", ".pdb", ".traj", ".gjf", ".vasp", ".cml", ".con")


def read_other(data: bytes, suffix: str, form: str | None = None) -> Found[Molecule]:
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
            frames: Any = ase.io.read(path, index=":", format=form)
        except UnknownFileTypeError as error:
            raise BadInput("format", f"ASE knows no format {suffix!r}: {error}") from error
    found: Found[Molecule] = Found()
    for place, atoms in enumerate(frames):
        index = "" if len(frames) == 1 else str(place)
        try:
            values = _values(atoms)
            texts = {k: str(v) for k, v in atoms.info.items() if isinstance(v, str)}
            found.append(molecule(index, atoms.numbers, atoms.positions, values, texts))
        except BadInput as error:
            found.refused.append((index, error))
    return found


def _values(atoms: Any) -> dict[str, float]:
    """Return the numbers that ASE found beside the atoms."""
    values = {
        str(name): float(value)
        for name, value in atoms.info.items()
        if isinstance(value, int | float | np.number) and not isinstance(value, bool)
    }
    results = getattr(atoms.calc, "results", {})
    return values | {k: float(v) for k, v in results.items() if np.ndim(v) == 0}
