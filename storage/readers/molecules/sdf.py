"""``.sdf`` and ``.mol``: atoms of the V2000 and V3000 tables, and the data items behind them.

Bonds are not read: features are of positions. A record ends with ``$$$$``.
"""

from __future__ import annotations

import re

from storage.errors import BadInput
from storage.readers.found import Found
from storage.readers.molecules.molecule import Molecule, molecule, nuclear_charge, number

ITEM = re.compile(r"^>.*?<([^>]+)>")
TITLE, COUNTS = 0, 3  # lines of a record


def read_sdf(data: bytes) -> Found[Molecule]:
    """Read every record.

    Raises
    ------
    BadInput
        If there is none.
    """
    text = data.decode("utf-8", "replace").replace("\r\n", "\n")
    records = [record for record in re.split(r"^\$\$\$\$.*\n?", text, flags=re.M) if record.strip()]
    if not records:
        raise BadInput("empty", "has no records")
    lines = [record.split("\n") for record in records]
    titles = [record[TITLE].strip() for record in lines]
    named = all(titles) and len(set(titles)) == len(titles)
    found: Found[Molecule] = Found()
    for place, record in enumerate(lines):
        index = "" if len(lines) == 1 else titles[place] if named else str(place)
        try:
            found.append(_record(index, record))
        except BadInput as error:
            found.refused.append((index, error))
    if not found and len(lines) == 1:
        raise found.refused[0][1]
    return found


def _record(index: str, lines: list[str]) -> Molecule:
    if len(lines) <= COUNTS:
        raise BadInput("truncated", f"has {len(lines)} lines; the table begins on the fourth")
    atoms = _v3000(lines) if "V3000" in lines[COUNTS] else _v2000(lines)
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
    rows = [line.split()[2:] for line in lines if line.startswith("M  V30")]
    begin, end = rows.index(["BEGIN", "ATOM"]), rows.index(["END", "ATOM"])
    return [(row[1], [number(text) for text in row[2:5]]) for row in rows[begin + 1 : end]]


def _items(lines: list[str]) -> tuple[dict[str, float], dict[str, str]]:
    """Return the data items, numbers and words apart."""
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
