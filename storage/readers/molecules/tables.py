"""Tables beside molecules: properties joined by id or by position, and lists of ids."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

import pandas as pd

from storage.errors import BadInput, InvalidRequest

_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eEdD][-+]?\d+)?$")


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
    """Read a table of numbers with or without a line of names, by commas or by space.

    Columns without names are called ``1``, ``2`` and so on.

    Raises
    ------
    BadInput
        If it has no rows.
    """
    text = data.decode("utf-8-sig", "replace")
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    if not lines:
        raise BadInput("empty", f"{name} has no rows")
    separator = next((mark for mark in ",;\t" if mark in lines[0]), r"\s+")
    words = re.split(r"\s+" if separator == r"\s+" else separator, lines[0].strip())
    bare = any(_NUMBER.match(word.strip()) for word in words)
    frame = pd.read_csv(
        io.StringIO("\n".join(lines)),
        sep=separator,
        header=None if bare else 0,
        skipinitialspace=True,
        engine="c",
    )
    frame.columns = [
        str(place) if bare else str(label).strip()
        for place, label in enumerate(frame.columns, start=1)
    ]
    return frame


def same_id(text: object) -> str:
    """Return an id without folders and the extension of a file of one molecule."""
    path = PurePosixPath(str(text).strip())
    known = path.suffix.lower() in (".xyz", ".mol", ".sdf", ".extxyz", ".pdb", ".cif")
    return path.stem if known else path.name


def align(table: pd.DataFrame, ids: Sequence[str], name: str) -> pd.DataFrame:
    """Return the rows of a table for molecules, indexed as ``ids``; NaN where it has none.

    A column that names at least one of them joins by id; it may name others. A table without
    such a column joins by position, and must then have a row for each.

    Raises
    ------
    InvalidRequest
        If it does neither, or has two different rows for one id.
    """
    wanted = {same_id(i): i for i in ids}
    best, matches = "", 0
    for column in table.columns:
        if not pd.api.types.is_float_dtype(table[column]):
            found = table[column].map(same_id).isin(wanted).sum()
            if found > matches and len(set(table[column])) > 0.5 * len(table):
                best, matches = str(column), int(found)
    if not matches:
        if len(table) != len(ids):
            raise InvalidRequest(
                f"--table {name} has {len(table)} rows for {len(ids)} molecules and no column of "
                "their ids: it does not align, so nothing can be told of any molecule"
            )
        return table.set_axis(list(ids), axis=0)
    keyed = table.assign(**{best: table[best].map(same_id)}).drop_duplicates()
    keyed = keyed[keyed[best].isin(wanted)]
    if (again := keyed[best].duplicated()).any():
        raise InvalidRequest(f"--table {name} has several rows for {keyed[best][again].iloc[0]!r}")
    return keyed.set_index(best).reindex([same_id(i) for i in ids]).set_axis(list(ids), axis=0)


def choose(table: pd.DataFrame, targets: Sequence[Target], name: str) -> list[Target]:
    """Return the columns to take: those asked for, else every one of numbers that has a name.

    Raises
    ------
    InvalidRequest
        If a column is not there or holds no numbers.
    """
    numeric = [str(c) for c in table if pd.api.types.is_numeric_dtype(table[c])]
    if not targets:
        return [Target(c, c) for c in numeric if not c.startswith("Unnamed")]
    for target in targets:
        if target.column not in numeric:
            raise InvalidRequest(
                f"--target {target.column}: {name} has the columns of numbers {', '.join(numeric)}"
            )
    return list(targets)


def read_ids(data: bytes) -> set[str]:
    """Return the ids in the first column of a list; lines that do not begin with one are prose.

    An id is a number, or a name that ends in one, such as ``gdb_58``. What is no list of ids,
    such as a heading, has more words or none that end in digits.
    """
    found = set()
    for line in data.decode("utf-8", "replace").splitlines():
        words = line.replace(",", " ").split()
        if words and re.fullmatch(r"[A-Za-z_\-]*\d+(\.\w+)?", words[0]):
            found.add(same_id(words[0]))
    return found


def is_listed(sample: str, ids: set[str]) -> bool:
    """Say whether a sample is in a list, by its whole id or by the number at its end."""
    number = re.search(r"(\d+)$", sample)
    return sample in ids or (number is not None and str(int(number[1])) in ids)
