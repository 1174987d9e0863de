"""Parts: immutable groups of arrays, named by the derivation that made them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, cast

import dask.array as da
import numpy as np
import numpy.typing as npt
import pandas as pd
import zarr
from dask.delayed import delayed

from storage.arrays import layout, open_array
from storage.attempts import read_manifest
from storage.backends import open_backend
from storage.errors import Damaged

FIELDS = "fields"
IMAGES = "image"
FEATURES = "features"


def part_home(key: str) -> str:
    """Return the folder of a part."""
    return f"parts/{key[:2]}/{key}"


@lru_cache(maxsize=4096)
def _located(url: str, key: str) -> tuple[str, dict[str, str]]:
    """Return where the arrays of a part lie, and the checksum of the description of each."""
    home = part_home(key)
    manifest = read_manifest(open_backend(url), home)
    described = {
        path.removeprefix("data.zarr/").removesuffix("/zarr.json"): entry["sha256"]
        for path, entry in manifest["objects"].items()
        if path.endswith("/zarr.json")
    }
    return f"{home}/{manifest['attempt']}/data.zarr", described


def _read(url: str, key: str, name: str, select: Callable[[zarr.Array[Any]], Any]) -> Any:
    """Return what is selected of one part's array; KeyError if it has no such array.

    A part that is damaged is looked for once more: it may have been made anew since it was opened.
    """
    for last in (False, True):
        folder, described = _located(url, key)
        try:
            return select(open_array(url, folder, name, described[name]))
        except (Damaged, ValueError, RuntimeError) as error:  # the latter two by decoders
            _located.cache_clear()
            open_array.cache_clear()
            if last and isinstance(error, Damaged):
                raise
            if last:
                problem = f"cannot be decoded ({error}): run `wavemill verify`"
                raise Damaged(f"{folder}/{name} {problem}") from error
    raise AssertionError("unreachable")


def read_rows(
    url: str, key: str, name: str, rows: Sequence[int], columns: Sequence[int] | None = None
) -> np.ndarray[Any, Any]:
    """Read some rows of one part's array, and of those some coefficients.

    Only the chunks that hold the rows are read: a run of rows in one slice, scattered rows
    one chunk at a time.
    """
    wanted = np.asarray(rows, dtype=np.intp)
    if len(wanted) and np.array_equal(wanted, np.arange(wanted[0], wanted[0] + len(wanted))):
        run = slice(int(wanted[0]), int(wanted[-1]) + 1)
        data: np.ndarray[Any, Any] = _read(url, key, name, lambda array: array[run])
    else:
        ordered, inverse = np.unique(wanted, return_inverse=True)
        data = _read(url, key, name, lambda array: array.oindex[ordered])[inverse]
    return data if columns is None else data[:, list(columns)]


def gather(
    url: str,
    name: str,
    keys: pd.Series,
    rows: pd.Series,
    row_shape: Sequence[int],
    dtype: str,
    columns: Sequence[int] | None = None,
) -> np.ndarray[Any, Any]:
    """Read rows of any parts in the order asked, of each part all at once."""
    values = np.empty((len(keys), *row_shape), dtype=dtype)
    frame = pd.DataFrame({"key": keys.to_numpy(), "row": rows.to_numpy()})
    for key, group in frame.groupby("key", sort=False):
        ordered = group.sort_values("row", kind="stable")
        found = read_rows(url, str(key), name, ordered["row"].tolist(), columns)
        values[ordered.index.to_numpy()] = found
    return values


def shards(keys: pd.Series, rows: pd.Series, row_bytes: int) -> list[npt.NDArray[np.intp]]:
    """Return the positions of the rows that lie in one shard, for every shard."""
    shard = rows.to_numpy() // layout(2**62, row_bytes)[1]
    frame = pd.DataFrame({"key": keys.to_numpy(), "shard": shard})
    return [np.asarray(at) for at in frame.groupby(["key", "shard"], sort=False).indices.values()]


def read_whole(url: str, key: str, name: str) -> np.ndarray[Any, Any]:
    """Read all of one part's array."""
    return cast("np.ndarray[Any, Any]", _read(url, key, name, lambda array: array[:]))


@dataclass(frozen=True)
class Block:
    """Rows of one part, to be read together."""

    key: str
    rows: tuple[int, ...]


def blocks(keys: Iterable[str], rows: Iterable[int], shard: int) -> list[Block]:
    """Group (part, row) pairs, kept in order, into reads of at most one shard each."""
    found: list[tuple[str, list[int]]] = []
    previous: tuple[str, int] | None = None
    for key, row in zip(keys, rows, strict=True):
        place = (key, row // shard)
        if place != previous:
            found.append((key, []))
        found[-1][1].append(int(row))
        previous = place
    return [Block(key, tuple(group)) for key, group in found]


def lazy_rows(
    url: str,
    name: str,
    keys: Iterable[str],
    rows: Iterable[int],
    row_shape: tuple[int, ...],
    dtype: str,
    columns: Sequence[int] | None = None,
) -> da.Array:
    """Return a Dask array of the rows, which opens a part only when it is computed."""
    selected = row_shape if columns is None else (len(columns), *row_shape[1:])
    row_bytes = np.dtype(dtype).itemsize * int(np.prod(row_shape))
    shard = layout(2**62, row_bytes)[1]
    read = delayed(read_rows, pure=True)
    pieces = [
        da.from_delayed(
            read(url, block.key, name, block.rows, columns), (len(block.rows), *selected), dtype
        )
        for block in blocks(keys, rows, shard)
    ]
    return cast(da.Array, da.concatenate(pieces or [da.zeros((0, *selected), dtype, chunks=-1)]))
