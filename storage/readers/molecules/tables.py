"""Tables of properties beside molecules, joined by id or by position."""

from __future__ import annotations

import io
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from storage.errors import InvalidRequest
from storage.readers.molecules.ids import numbered, same_id
from storage.readers.molecules.molecule import RESERVED, text_of

_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eEdD][-+]?\d+)?$")
_IDS = re.compile(r"(.*[_ ])?(id|ids|name|names|molecule|molecules|mol|gdb|file|filename)", re.I)
Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Target:
    """A column of a table that becomes a property: ``[NAME=]COLUMN[:UNIT]``."""

    name: str
    column: str
    unit: str | None = None

    @classmethod
    def parse(cls, text: str) -> Target:
        """Read the form that the command line takes."""
        left, _, unit = text.partition(":")
        name, separator, column = left.partition("=")
        if not name or (separator and not column):
            raise InvalidRequest(f"--target {text!r} is not [NAME=]COLUMN[:UNIT], as in U0:hartree")
        return cls(name.strip(), (column or name).strip(), unit.strip() or None)


def read_table(data: bytes, name: str) -> pd.DataFrame:
    """Read a table with or without a line of names, separated by commas or by space, as text.

    Columns without names are called ``1``, ``2`` and so on.

    Raises
    ------
    InvalidRequest
        If it has no rows, or rows of more columns than the first.
    """
    lines = [line for line in text_of(data).split("\n") if line.strip()]
    lines = [line for line in lines if not line.startswith("#")]
    if not lines:
        raise InvalidRequest(f"--table {name} has no rows")
    separator = next((mark for mark in ",;\t" if mark in lines[0]), r"\s+")
    try:
        frame: pd.DataFrame = pd.read_csv(
            io.StringIO("\n".join(lines)),
            sep=separator,
            header=None,
            dtype=str,
            skipinitialspace=True,
            engine="c",
        )
    except pd.errors.ParserError as error:
        raise InvalidRequest(f"--table {name} is not a table: {error}") from error
    frame.columns = [str(place) for place in range(1, frame.shape[1] + 1)]
    if not _is_header(frame):
        return frame
    counts: dict[str, int] = {}
    names = []
    for place, label in enumerate(frame.iloc[0].fillna("").str.strip()):
        label = label or f"Unnamed: {place}"
        counts[label] = counts.get(label, 0) + 1
        names.append(label if counts[label] == 1 else f"{label}.{counts[label] - 1}")
    return frame.iloc[1:].set_axis(names, axis=1).reset_index(drop=True)


def _is_header(frame: pd.DataFrame) -> bool:
    """Say whether the first line names columns.

    Names may be whole numbers if another name, which is not a number, stands above numbers.
    """
    first = frame.iloc[0].fillna("").str.strip()
    numbers = [word for word in first if _NUMBER.match(word)]
    if not numbers:
        return True
    columns = zip(first, (frame[column].iloc[1:21].dropna() for column in frame), strict=True)
    above = [
        word
        for word, below in columns
        if word and not _NUMBER.match(word) and len(below) and _numeric(below) is not None
    ]
    return bool(above) and all(word.isdecimal() for word in numbers)


def _numeric(texts: pd.Series) -> pd.Series | None:
    """Return a column as numbers, NaN where one is not finite; None if not all are numbers."""
    values = pd.to_numeric(texts.replace({"True": "1", "False": "0"}), errors="coerce")
    if (values.isna() & texts.notna()).any():
        return None
    return values.astype(float).where(np.isfinite(values.astype(float)))


def numbers(table: pd.DataFrame) -> pd.DataFrame:
    """Return the columns of a table that are numbers."""
    found = {str(column): _numeric(table[column]) for column in table}
    return pd.DataFrame({column: values for column, values in found.items() if values is not None})


def choose(
    whole: pd.DataFrame, values: pd.DataFrame, targets: Sequence[Target], name: str
) -> list[Target]:
    """Return the columns to take: those asked for, else every named column of numbers.

    ``values`` are the columns of ``whole`` that are numbers.

    Raises
    ------
    InvalidRequest
        If a column is not there or holds no numbers, or is named like one that every dataset has.
    """
    names = [str(column) for column in values]
    if not targets:
        plain = (c for c in names if not c.startswith("Unnamed") and c.lower() not in RESERVED)
        return [Target(c, c) for c in plain]
    for target in targets:
        if target.column in whole and target.column not in names:
            texts = whole[target.column].dropna()
            first = texts[pd.to_numeric(texts, errors="coerce").isna()].iloc[0]
            raise InvalidRequest(
                f"--target {target.column}: {name} has text there, such as {first!r}, where "
                "numbers such as -1.5 are expected"
            )
        if target.column not in names:
            raise InvalidRequest(
                f"--target {target.column}: {name} has the columns of numbers {', '.join(names)}"
            )
        if target.name.lower() in RESERVED:
            raise InvalidRequest(
                f"--target {target.name}: every dataset has a column of that name; take it "
                f"under another, as in --target my_{target.name}={target.column}"
            )
    return list(targets)


@dataclass(frozen=True)
class _Join:
    """The molecule that each row of a column names, or -1."""

    column: str
    molecules: Rows
    order: tuple[bool, int]
    """Whether all are numbers, and how unlike that of ids the column's name is: least is best."""


def align(table: pd.DataFrame, ids: Sequence[str], names: Sequence[str], title: str) -> Rows:
    """Return the row of a table for each molecule, -1 where it has none.

    A column that names at least one of the molecules joins, by whole ids or else by the numbers at
    their ends; it may name others as well. A table without ids joins by position, and must then
    have a row for each molecule.

    Parameters
    ----------
    table
        As text.
    ids, names
        Of the molecules, and what they themselves are called: see `ids.own_name`.
    title
        What the table is called.

    Raises
    ------
    InvalidRequest
        If it does neither, has two different rows for one id, or two columns that join differently.
    """
    once = Counter(names)
    whole = {name: place for place, name in enumerate(names) if name and once[name] == 1}
    whole |= {same_id(name): place for place, name in enumerate(ids)}
    columns = [str(column) for column in table if not _fractions(table[column])]
    found = [_join(table, column, whole, names) for column in columns]
    joins = [join for join in found if join is not None]
    best = min(joins, key=lambda join: join.order, default=None)
    others = [c for c in columns if (best is None or c != best.column) and _are_ids(table, c)]
    if others and (best is None or best.order > (True, 0)):
        raise InvalidRequest(
            f"--table {title}: column {others[0]!r} holds ids such as "
            f"{table[others[0]].iloc[0]!r}, and none is of the molecules, such as {ids[0]!r}: "
            "correct it, or take it out to join by position"
        )
    if best is not None:
        for other in joins:
            if other.order == best.order and (other.molecules != best.molecules).any():
                raise InvalidRequest(
                    f"--table {title}: columns {best.column!r} and {other.column!r} identify "
                    "molecules differently: call the right one 'id', or take the other out"
                )
        return _unrepeated(table, best, ids, title)
    if len(table) != len(ids):
        raise InvalidRequest(
            f"--table {title} has {len(table)} rows for {len(ids)} molecules and no column of "
            "their ids: its rows cannot be assigned to molecules"
        )
    return np.arange(len(ids))


def _fractions(texts: pd.Series) -> bool:
    """Say whether a column holds numbers that are not all whole and positive: never ids."""
    known = texts.dropna().str.strip()
    return _numeric(known) is not None and not bool(known.str.isdecimal().all())


def _join(
    table: pd.DataFrame, column: str, whole: Mapping[str, int], names: Sequence[str]
) -> _Join | None:
    """Return how a column names molecules, if it does."""
    texts = list(table[column].fillna("").map(same_id))
    molecules = np.array([whole.get(text, -1) for text in texts], dtype=np.int64)
    if _coverage(molecules) < len(names):
        molecules = max(molecules, _by_number(texts, names), key=_coverage)
    if not (covered := _coverage(molecules)):
        return None
    bare = all(text.isdecimal() for text in texts if text)
    called = 0 if _IDS.fullmatch(column) else 1 if column.lower() == "index" else 2
    if bare and called:  # it may count atoms or rows, or be a property
        counts = len(set(texts)) <= 0.5 * len(texts) or table.shape[1] == 1
        some = covered < len(names) and (_counter(texts) or column != table.columns[0])
        if counts or some:
            return None
    return _Join(column, molecules, (bare, called))


def _coverage(molecules: Rows) -> int:
    return len(np.unique(molecules[molecules >= 0]))


def _by_number(texts: Sequence[str], names: Sequence[str]) -> Rows:
    """Return the molecule of each row by the number at the end of its id.

    All ids of the table must have one, and what stands before it, where anything does, must be the
    same everywhere.
    """
    nobody = np.full(len(texts), -1, dtype=np.int64)
    if numbered(texts[0]) is None:
        return nobody
    theirs, ours = [numbered(text) for text in texts], [numbered(name) for name in names]
    families = {found[0] for found in (*theirs, *ours) if found is not None} - {""}
    places = {found[1]: place for place, found in enumerate(ours) if found is not None}
    if None in theirs or len(families) > 1 or len(places) < sum(f is not None for f in ours):
        return nobody
    return np.array([places.get(f[1], -1) for f in theirs if f is not None], dtype=np.int64)


def _counter(texts: Sequence[str]) -> bool:
    """Say whether a column only counts its rows."""
    return any(list(texts) == [str(i + first) for i in range(len(texts))] for first in (0, 1))


def _are_ids(table: pd.DataFrame, column: str) -> bool:
    """Say whether a column holds ids, even of other molecules."""
    known = list(table[column].dropna().str.strip())
    if len(set(known)) < len(table) or _counter(known):
        return False
    called = _IDS.fullmatch(column) is not None
    alike = all(numbered(same_id(text)) is not None for text in known)
    return called or (alike and not all(text.isdecimal() for text in known))


def _unrepeated(table: pd.DataFrame, join: _Join, ids: Sequence[str], title: str) -> Rows:
    keyed = table.assign(**{join.column: join.molecules}).drop_duplicates()
    keyed = keyed[keyed[join.column] >= 0]
    if (again := keyed[join.column].duplicated()).any():
        twice = ids[int(keyed[join.column][again].iloc[0])]
        raise InvalidRequest(f"--table {title} has several rows for {twice!r}")
    rows = np.full(len(ids), -1, dtype=np.int64)
    rows[keyed[join.column].to_numpy(np.int64)] = keyed.index.to_numpy(np.int64)
    return rows
