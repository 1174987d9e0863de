"""``.xyz``: plain, QM9's own with properties around, and several molecules in one file.

A plain file has the number of atoms, a comment, and a line ``symbol x y z`` an atom. QM9 writes
``gdb <id>`` and fifteen values as the comment, Mulliken charges as a fifth column, then a line of
frequencies, of SMILES and of InChI strings. The extended form, with ``Lattice=`` or
``Properties=`` in its comment, is ASE's to read.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from storage.errors import BadInput
from storage.readers.found import Found
from storage.readers.molecules import qm9
from storage.readers.molecules.molecule import Molecule, molecule, nuclear_charge, number

EXTENDED = re.compile(r"\b(Lattice|Properties)\s*=", re.IGNORECASE)


def read_xyz(data: bytes) -> Found[Molecule]:
    """Read every molecule of a file.

    Raises
    ------
    BadInput
        If it is not such a file, or ends early.
    """
    lines = data.decode("utf-8", "replace").replace("\r", "\n").split("\n")
    found: Found[Molecule] = Found()
    seen = 0
    for frame in _frames(lines):
        index = "" if not seen else str(seen)
        seen += 1
        try:
            found.append(_molecule(index, *frame))
        except BadInput as error:
            found.refused.append((index, error))
    if seen > 1:  # then the first has a number, too
        for item in [*found][:1]:
            item.index = item.index or "0"
        found.refused = [(index or "0", error) for index, error in found.refused]
    if not found and found.refused and seen == 1:
        raise found.refused[0][1]
    return found


def _frames(lines: list[str]) -> Iterator[tuple[str, list[str], list[str]]]:
    """Yield comment, lines of atoms, and the lines behind them that begin no other molecule."""
    at = 0
    while at < len(lines):
        if not lines[at].strip():
            at += 1
            continue
        count = _count(lines[at])
        atoms = lines[at + 2 : at + 2 + count]
        if len(atoms) < count or not all(line.strip() for line in atoms):
            present = sum(bool(line.strip()) for line in atoms)
            raise BadInput("truncated", f"announces {count} atoms and has {present}")
        stop = at + 2 + count
        end = stop
        while end < len(lines) and not lines[end].strip().isdigit():
            end += 1
        rest = [line for line in lines[stop:end] if line.strip()]
        yield lines[at + 1], atoms, rest
        at = end


def _count(line: str) -> int:
    text = line.strip()
    if not text.isdigit():
        raise BadInput("format", f"{text[:40]!r} is not the number of atoms that begins an .xyz")
    if not int(text):
        raise BadInput("empty", "has no atoms")
    return int(text)


def _molecule(index: str, comment: str, atoms: list[str], rest: list[str]) -> Molecule:
    rows = [line.split() for line in atoms]
    if short := [line for line, row in zip(atoms, rows, strict=True) if len(row) < 4]:
        raise BadInput("format", f"{short[0]!r} is not symbol x y z")
    charges = [nuclear_charge(row[0]) for row in rows]
    positions = [[number(text) for text in row[1:4]] for row in rows]
    if qm9.is_comment(comment):
        properties, labels = qm9.read_around(comment, rest, len(charges))
        return molecule(index, charges, positions, properties, labels)
    if rest:
        raise BadInput("format", f"{rest[0][:40]!r} follows the {len(charges)} atoms announced")
    return molecule(index, charges, positions)
