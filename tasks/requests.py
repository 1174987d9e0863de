"""What a fit is asked to make, and which samples it learns from."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from storage import Dataset, InvalidRequest
from storage.artifacts import short
from storage.keys import canonical, digest
from storage.typing import Array


@dataclass(frozen=True)
class FitRequest:
    """What is to be fitted: a model, and the samples it learns from.

    Attributes
    ----------
    kind, parameters
        The model and the fields of its spec.
    where, split
        A DuckDB expression over sample metadata, and ``COLUMN=VALUE``; both select.
    seed
        The seed of everything random.
    device
        Where it is computed; not part of the key.
    view, target
        The features, and the column that a regression or a classifier learns.
    """

    kind: str
    parameters: dict[str, Any] = field(default_factory=dict)
    where: str | None = None
    split: str | None = None
    seed: int = 0
    device: str = "cpu"
    view: str | None = None
    target: str | None = None

    @property
    def selection(self) -> str | None:
        """Both conditions as one expression."""
        conditions = [f"({self.where})"] if self.where else []
        if self.split:
            column, separator, value = self.split.partition("=")
            if not separator:
                raise InvalidRequest(
                    f"--split {self.split!r}: write COLUMN=VALUE, as in split=train"
                )
            name, text = column.replace('"', '""'), value.replace("'", "''")
            conditions.append(f"CAST(\"{name}\" AS VARCHAR) = '{text}'")
        return " AND ".join(conditions) or None


def check_split(dataset: Dataset, split: str | None) -> None:
    """Refuse a ``--split`` of a column that samples do not have.

    Raises
    ------
    InvalidRequest
        If there is none.
    """
    column = (split or "").partition("=")[0]
    if split is not None and column not in (rows := dataset.samples()):
        columns = ", ".join(map(str, rows))
        raise InvalidRequest(f"--split {split!r}: no column {column!r}; columns: {columns}")


@dataclass(frozen=True)
class FitOutcome:
    """The artifact that a request names, and whether it was computed now."""

    kind: str
    key: str
    written: bool
    metrics: dict[str, float]

    def __str__(self) -> str:
        return f"{self.short} {'fitted' if self.written else 'kept'}"

    @property
    def short(self) -> str:
        """What people call the artifact."""
        return short(self.kind, self.key)


def rows_digest(rows: pd.DataFrame) -> str:
    """Return a digest that distinguishes these rows, in this order, from any others."""
    return digest(canonical(places(rows)))


def places(rows: pd.DataFrame) -> list[list[Any]]:
    """Return where rows lie: their part and their number in it."""
    return [[part, int(row)] for part, row in zip(rows["part"], rows["row"], strict=True)]


def by_hash(rows: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Return rows in the order of a hash of seed and id, which ignores that of the source."""
    marks = [hashlib.sha256(f"{seed}:{i}".encode()).hexdigest() for i in rows["sample_id"]]
    rows = rows.assign(__mark=marks).sort_values("__mark").drop(columns="__mark")
    return rows.reset_index(drop=True)


def spread(count: int, most: int) -> Array:
    """Return at most so many positions below ``count``, evenly spaced.

    The first samples are often alike: of one class, or of one moment of a run.
    """
    return np.linspace(0, count - 1, min(count, most)).astype(int)
