"""``.xyz``: plain, QM9's own with properties around, extended, and several molecules in one file.

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
from storage.readers.molecules.molecule import (
    Molecule,
    molecule,
    nuclear_charge,
    number,
    text_of,
)
from storage.readers.molecules.other import read_extended

EXTENDED = re.compile(r"\b(Lattice|Properties)\s*=", re.IGNORECASE)
Frame = tuple[str, list[str], list[str]]


def read_xyz(data: bytes, extended: bool = False) -> Found[Molecule]:
    """Read every molecule of a file; one that is bad or cut does not affect the others.

    Parameters
    ----------
    data
        Of the file.
    extended
        Whether all are of the extended form, whatever their comments say.
    """
    found: Found[Molecule] = Found()
    frames = list(_frames(text_of(data).split("\n")))
    for place, frame in enumerate(frames):
        index = str(place) if len(frames) > 1 else ""
        try:
            if isinstance(frame, BadInput):
                raise frame
            if extended or EXTENDED.search(frame[0]):
                found.append(read_extended(index, *frame))
            else:
                found.append(_molecule(index, *frame))
        except BadInput as error:
            found.refused.append((index, error))
    return found


def _frames(lines: list[str]) -> Iterator[Frame | BadInput]:
    """Yield each molecule's comment, lines of atoms and lines after them, or what is wrong.

    A molecule ends where a line is a number alone, which begins the next.
    """
    at = 0
    while at < len(lines):
        first = lines[at].strip()
        if not first:
            at += 1
            continue
        counted = first.isdecimal()
        count = int(first) if counted else 0
        end = next(
            (i for i in range(at + 1 + counted, len(lines)) if lines[i].strip().isdecimal()),
            len(lines),
        )
        atoms = lines[at + 2 : min(at + 2 + count, end)]
        present = sum(bool(line.strip()) for line in atoms)
        if not counted:
            yield BadInput("format", f"{first[:40]!r} is not the number of atoms that begins one")
        elif not count:
            yield BadInput("empty", "has no atoms")
        elif present < count:
            yield BadInput("truncated", f"announces {count} atoms and has {present}")
        else:
            rest = [line for line in lines[at + 2 + count : end] if line.strip()]
            yield lines[at + 1], atoms, rest
        at = end


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
