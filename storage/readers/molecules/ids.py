"""What molecules are called: in files, in tables beside them, and in lists of exclusions."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import PurePosixPath

_SINGLE = (".xyz", ".mol", ".sdf", ".extxyz", ".pdb", ".cif")
_NUMBERED = re.compile(r"(?:([A-Za-z][\w\-]*)[_\-])?(\d+)", re.ASCII)
_FAMILIES = {"dsgdb9nsd": "gdb"}  # QM9's files and QM9's tables
Numbered = tuple[str, int]


def same_id(text: object) -> str:
    """Return an id without folders and the extension of a file of one molecule."""
    path = PurePosixPath(str(text).strip())
    return path.stem if path.suffix.lower() in _SINGLE else path.name


def numbered(text: str) -> Numbered | None:
    """Return what stands before an id's number, "" if nothing does, and the number.

    ``58``, ``0058``, ``gdb_58`` and ``dsgdb9nsd_000058`` have the number 58, ``C6H6`` has none.
    """
    match = _NUMBERED.fullmatch(text)
    if match is None:
        return None
    before = (match[1] or "").lower()
    return _FAMILIES.get(before, before), int(match[2])


def own_name(sample: str, index: str = "", gdb: object = None) -> str:
    """Return a molecule's own name, "" if only its place in a file tells it from others.

    Parameters
    ----------
    sample
        Its id: the name of its file, and ``#`` with its index if it is not alone there.
    index
        Its name or place within the file.
    gdb
        Its number in QM9, if it is known.
    """
    if isinstance(gdb, int | float) and gdb == gdb:
        return f"gdb_{int(gdb)}"
    return sample if not index else "" if index.isdecimal() else index


class Listed:
    """Ids of a list, with which molecules are compared: by the whole id, else by the number."""

    def __init__(self, ids: Iterable[str] = ()) -> None:
        self.ids = {same_id(text) for text in ids}
        self._numbers: dict[int, set[str]] = {}
        for family, number in filter(None, map(numbered, self.ids)):
            self._numbers.setdefault(number, set()).add(family)

    def __len__(self) -> int:
        return len(self.ids)

    def names(self, sample: str, name: str) -> bool:
        """Say whether the molecule with this id and this own name is in the list."""
        return bool({sample, name} & self.ids) or self.numbers(name)

    def numbers(self, name: str) -> bool:
        """Say whether the list has a name's number, and before it the same where both have any."""
        found = numbered(name)
        if found is None:
            return False
        families = self._numbers.get(found[1], set())
        return bool(families) and (not found[0] or not families.isdisjoint({found[0], ""}))


def read_ids(data: bytes) -> set[str]:
    """Return the ids in the first column of a list; lines that do not begin with one are prose.

    An id has a number at its end, alone or after ``_`` or ``-`` such as ``gdb_58``.
    """
    found = set()
    for line in data.decode("utf-8-sig", "replace").splitlines():
        words = re.split(r"[\s,;]+", line.strip())
        if numbered(same_id(words[0])) is not None:
            found.add(same_id(words[0]))
    return found
