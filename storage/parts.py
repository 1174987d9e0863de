"""Parts: immutable groups of arrays, named by the derivation that made them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, TypeVar, cast

import numpy as np
import numpy.typing as npt
import pandas as pd

from storage.arrays import shard_rows
from storage.attempts import read_manifest
from storage.backends import open_backend
from storage.errors import Damaged
from storage.shards import Positions, StoredArray, open_array, run
from storage.typing import Array

if TYPE_CHECKING:
    import dask.array as da

Item = TypeVar("Item")
Result = TypeVar("Result")

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


def _opened(url: str, key: str, name: str) -> StoredArray:
    """Open one part's array; KeyError if it has no such array."""
    folder, described = _located(url, key)
    return open_array(url, folder, name, described[name])


def _twice(read: Callable[[], Array]) -> Array:
    """Read what is damaged once more: it may have been made anew since it was opened."""
    try:
        return read()
    except Damaged:
        _located.cache_clear()
        open_array.cache_clear()
        return read()


def read_rows(
    url: str, key: str, name: str, rows: Sequence[int], columns: Sequence[int] | None = None
) -> Array:
    """Read some rows of one part's array: all of their coefficients, or some."""
    wanted = np.asarray(rows, dtype=np.intp)
    return _twice(
        lambda: _gather([_opened(url, key, name)], np.zeros_like(wanted), wanted, columns)
    )


def read_whole(url: str, key: str, name: str) -> Array:
    """Read all of one part's array."""

    def read() -> Array:
        array = _opened(url, key, name)
        rows = np.arange(array.sharding.shape[0])
        return _gather([array], np.zeros_like(rows), rows, None)

    return _twice(read)


def gather(
    url: str,
    name: str,
    keys: pd.Series | Array,
    rows: pd.Series | Array,
    row_shape: Sequence[int],
    dtype: str,
    columns: Sequence[int] | None = None,
) -> Array:
    """Read rows of any parts in the order asked."""
    if not len(keys):
        return np.empty((0, *row_shape), dtype)
    codes, parts = pd.factorize(keys)
    wanted = np.asarray(rows, dtype=np.intp)
    return _twice(
        lambda: _gather(each(lambda k: _opened(url, k, name), list(parts)), codes, wanted, columns)
    )


def _gather(
    arrays: Sequence[StoredArray], codes: Positions, rows: Positions, columns: Sequence[int] | None
) -> Array:
    """Read row ``rows[i]`` of ``arrays[codes[i]]``, each shard once, several at a time."""
    kind = arrays[0].sharding
    row_shape = kind.shape[1:] if columns is None else (len(columns), *kind.shape[2:])
    values = np.empty((len(rows), *row_shape), kind.dtype)
    shard = np.array([array.sharding.shard for array in arrays])[codes]

    def read(at: Positions) -> None:
        first, place = at[0], run(at)
        out = np.empty((len(at), *row_shape), kind.dtype) if place is None else values[place]
        arrays[codes[first]].read(int(rows[first] // shard[first]), rows[at], out, columns)
        if place is None:
            values[at] = out

    each(read, _by_shard(codes, rows, shard))
    return values


def _by_shard(
    codes: Positions, rows: Positions, shard: int | npt.NDArray[np.intp]
) -> list[Positions]:
    """Return, for every shard, the positions of the rows that lie in it, in the order of rows."""
    if not len(rows):
        return []
    order, numbers = np.lexsort((rows, codes)), rows // shard
    ends = (np.diff(codes[order]) != 0) | (np.diff(numbers[order]) != 0)
    return np.split(order, np.flatnonzero(ends) + 1)


def each(function: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
    """Apply a function that waits for a disk or a network to each item, eight at a time."""
    if len(items) < 2:
        return list(map(function, items))
    with ThreadPoolExecutor(min(len(items), 8)) as pool:
        return list(pool.map(function, items))


def shards(keys: pd.Series, rows: pd.Series, shard: int) -> list[Positions]:
    """Return, for every shard of ``shard`` rows, the positions of the rows that lie in it."""
    return _by_shard(pd.factorize(keys)[0], rows.to_numpy(dtype=np.intp), shard)


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
    import dask.array as da
    from dask.delayed import delayed

    selected = row_shape if columns is None else (len(columns), *row_shape[1:])
    shard = shard_rows(row_shape, dtype)
    read = delayed(read_rows, pure=True)
    pieces = [
        da.from_delayed(
            read(url, block.key, name, block.rows, columns), (len(block.rows), *selected), dtype
        )
        for block in blocks(keys, rows, shard)
    ]
    return cast(da.Array, da.concatenate(pieces or [da.zeros((0, *selected), dtype, chunks=-1)]))
