"""A throw-away SQLite index in the user's cache folder: sample id to part and row."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from platformdirs import user_cache_path

from storage.datasets import Dataset
from storage.keys import canonical, digest


def index_path(url: str) -> Path:
    """Return the file that indexes the store at ``url``."""
    return user_cache_path("wavemill", ensure_exists=True) / f"{digest(url.encode())[:16]}.sqlite"


def locate(dataset: Dataset, ids: Sequence[str]) -> pd.DataFrame:
    """Return ``sample_id, part, row`` of the ids that exist, in the order asked.

    The index is filled from the version's tables at first use. If its file is damaged it is
    removed and filled again: it holds nothing that the store does not.
    """
    path = index_path(dataset.store.url)
    try:
        return _locate(path, dataset, ids)
    except sqlite3.DatabaseError:
        path.unlink(missing_ok=True)
        return _locate(path, dataset, ids)


def _locate(path: Path, dataset: Dataset, ids: Sequence[str]) -> pd.DataFrame:
    version = digest(canonical(dataset.version.to_json()))
    with contextlib.closing(sqlite3.connect(path, timeout=30)) as connection, connection:
        connection.execute("CREATE TABLE IF NOT EXISTS versions (version TEXT PRIMARY KEY)")
        connection.execute(
            "CREATE TABLE IF NOT EXISTS samples (version TEXT, id TEXT, part TEXT, row INTEGER, "
            "PRIMARY KEY (version, id)) WITHOUT ROWID"
        )
        known = connection.execute(
            "SELECT 1 FROM versions WHERE version = ?", (version,)
        ).fetchone()
        if not known:
            _fill(connection, version, dataset.samples())
        query = "SELECT part, row FROM samples WHERE version = ? AND id = ?"
        found = [(i, connection.execute(query, (version, i)).fetchone()) for i in ids]
    places = [(i, *place) for i, place in found if place]
    return pd.DataFrame(places, columns=["sample_id", "part", "row"])


def _fill(connection: sqlite3.Connection, version: str, samples: pd.DataFrame) -> None:
    rows = zip(samples["sample_id"], samples["part"], samples["row"].astype(int), strict=True)
    connection.executemany(
        "INSERT OR REPLACE INTO samples VALUES (?, ?, ?, ?)",
        ((version, sample, part, int(row)) for sample, part, row in rows),
    )
    connection.execute("INSERT OR REPLACE INTO versions VALUES (?)", (version,))
