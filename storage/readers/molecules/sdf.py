"""``.sdf`` and ``.mol``: atoms of the V2000 and V3000 tables, and the data items after them.

Bonds are not read: features do not depend on them. A record ends with ``$$$$``.
"""

from __future__ import annotations

import re

from storage.errors import BadInput
from storage.readers.found import Found
from storage.readers.molecules.molecule import (
    Molecule,
    molecule,
    nuclear_charge,
    number,
    text_of,
)

ITEM = re.compile(r"^>[^<]*<([^>]+)>")
TITLE, PROGRAM, COUNTS = 0, 1, 3  # lines of a record
CONTINUED = "-\nM  V30 "


def read_sdf(data: bytes) -> Found[Molecule]:
    """Read every record; one that is bad or cut does not affect the others.

    Raises
    ------
    BadInput
        If there is none.
    """
    pieces = re.split(r"^\$\$\$\$.*\n?", text_of(data), flags=re.M)
    records = [piece.split("\n") for piece in pieces if piece.strip()]
    if not records:
        raise BadInput("empty", "has no records")
    titles = [record[TITLE].strip() for record in records]
    named = all(titles) and len(set(titles)) == len(titles)
    found: Found[Molecule] = Found()
    for place, record in enumerate(records):
        index = "" if len(records) == 1 else titles[place] if named else str(place)
        try:
            found.append(_record(index, record))
        except BadInput as error:
            found.refused.append((index, error))
    return found


def _record(index: str, lines: list[str]) -> Molecule:
    if len(lines) <= COUNTS:
        raise BadInput("truncated", f"has {len(lines)} lines; the table begins on the fourth")
    atoms = _v3000(lines) if "V3000" in lines[COUNTS] else _v2000(lines)
    if lines[PROGRAM][20:22].upper() == "2D" and not any(place[2] for _, place in atoms):
        raise BadInput("drawing", "is a drawing (2D), whose positions are none in space")
    charges = [nuclear_charge(symbol) for symbol, _ in atoms]
    properties, texts = _items(lines)
    return molecule(index, charges, [place for _, place in atoms], properties, texts)


def _v2000(lines: list[str]) -> list[tuple[str, list[float]]]:
    try:
        count = int(lines[COUNTS][:3])
    except ValueError:
        raise BadInput("format", f"{lines[COUNTS][:40]!r} is not a line of counts") from None
    rows = lines[COUNTS + 1 : COUNTS + 1 + count]
    if len(rows) < count or any(len(row) < 32 for row in rows):
        raise BadInput("truncated", f"announces {count} atoms and has {len(rows)}")
    widths = ((0, 10), (10, 20), (20, 30))
    return [(row[31:34].strip(), [number(row[a:b].strip()) for a, b in widths]) for row in rows]


def _v3000(lines: list[str]) -> list[tuple[str, list[float]]]:
    whole = "\n".join(lines).replace(CONTINUED, "").split("\n")
    rows = [line.split()[2:] for line in whole if line.startswith("M  V30")]
    counts = [row for row in rows if row[:1] == ["COUNTS"]]
    try:
        count = int(counts[0][1])
        begin, end = rows.index(["BEGIN", "ATOM"]), rows.index(["END", "ATOM"])
    except (IndexError, ValueError):
        raise BadInput("truncated", "has no COUNTS, BEGIN ATOM or END ATOM of V3000") from None
    rows = rows[begin + 1 : end]
    if len(rows) != count or any(len(row) < 5 for row in rows):
        raise BadInput("truncated", f"announces {count} atoms and has {len(rows)}")
    return [(row[1], [number(text) for text in row[2:5]]) for row in rows]


def _items(lines: list[str]) -> tuple[dict[str, float], dict[str, str]]:
    """Return the data items, numbers and words separately."""
    properties: dict[str, float] = {}
    texts: dict[str, str] = {}
    for place, line in enumerate(lines[:-1]):
        if (item := ITEM.match(line)) is not None:
            value = lines[place + 1].strip()
            try:
                properties[item[1].strip()] = number(value)
            except BadInput:
                texts[item[1].strip()] = value
    return properties, texts
