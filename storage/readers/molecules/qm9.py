"""QM9: its properties, the lines around the atoms in its files, and energies of free atoms.

R. Ramakrishnan, P. O. Dral, M. Rupp and O. A. von Lilienfeld, "Quantum chemistry structures and
properties of 134 kilo molecules", Scientific Data 1, 140022 (2014), table 3 and its ``atomref``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from storage.errors import BadInput
from storage.readers.molecules.molecule import nuclear_charge, number

UNITS: Mapping[str, str] = {
    "A": "GHz", "B": "GHz", "C": "GHz", "mu": "debye", "alpha": "bohr^3", "homo": "hartree",
    "lumo": "hartree", "gap": "hartree", "r2": "bohr^2", "zpve": "hartree", "u0": "hartree",
    "u298": "hartree", "h298": "hartree", "g298": "hartree", "cv": "cal/(mol K)",
}  # fmt: skip
KCAL = 627.5095  # kcal/mol in a hartree, as QM9's own tables have it
ENERGIES = ("u0", "u298", "h298", "g298")  # columns of atomref after the zero-point energy
FREE_ATOMS: Mapping[int, tuple[float, ...]] = {  # B3LYP/6-31G(2df,p), hartree: u0 u298 h298 g298
    1: (-0.500273, -0.498857, -0.497912, -0.510927),
    6: (-37.846772, -37.845355, -37.844411, -37.861317),
    7: (-54.583861, -54.582445, -54.581501, -54.598897),
    8: (-75.064579, -75.063163, -75.062219, -75.079532),
    9: (-99.718730, -99.717314, -99.716370, -99.733544),
}


def is_comment(line: str) -> bool:
    """Say whether the second line of a file is QM9's: ``gdb <id>`` and fifteen values."""
    words = line.split()
    return len(words) >= 2 and words[0] == "gdb" and words[1].isdigit()


def read_around(
    comment: str, rest: list[str], atoms: int
) -> tuple[dict[str, float], dict[str, Any]]:
    """Return the properties of the second line, and SMILES and InChI of the last two.

    ``smiles`` is GDB-17's, ``smiles_relaxed`` and ``inchi`` are read off the relaxed geometry. A
    few files list frequencies twice.

    Raises
    ------
    BadInput
        If values or a line are missing.
    """
    words = comment.split()
    if len(words) != 2 + len(UNITS):
        raise BadInput("truncated", f"has {len(words) - 2} of {len(UNITS)} properties")
    if len(rest) != 3:
        raise BadInput("truncated", f"has {len(rest)} of 3 lines behind its atoms")
    values = [number(word) for word in words[2:]]
    if not np.isfinite(values).all():
        raise BadInput("nan", "a property is not finite")
    _check_frequencies(rest[0], atoms)
    smiles, inchi = rest[1].split(), rest[2].split()
    labels = {"gdb": int(words[1]), "smiles": smiles[0], "smiles_relaxed": smiles[-1]}
    return dict(zip(UNITS, values, strict=True)), {**labels, "inchi": inchi[-1]}


def _check_frequencies(line: str, atoms: int) -> None:
    """Accept 3 n - 6 frequencies, 3 n - 5 of a linear molecule, or either twice over."""
    count = len([number(word) for word in line.split()])
    once = {max(3 * atoms - 6, 1), max(3 * atoms - 5, 1)}
    if count not in once | {2 * number for number in once}:
        raise BadInput("frequencies", f"has {count} frequencies for {atoms} atoms")


def read_atomref(text: str) -> dict[int, tuple[float, ...]]:
    """Return the energies of free atoms that a table like QM9's ``atomref.txt`` holds, hartree.

    Raises
    ------
    BadInput
        If no line is an element with five numbers: zero-point energy, u0, u298, h298, g298.
    """
    found: dict[int, tuple[float, ...]] = {}
    for line in text.splitlines():
        words = line.split()
        if len(words) >= 6 and words[0].isalpha() and len(words[0]) <= 2:
            found[nuclear_charge(words[0])] = tuple(number(word) for word in words[2:6])
    if not found:
        raise BadInput("format", "no line reads: element, zero-point energy, U0, U, H, G")
    return found
