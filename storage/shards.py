"""Shards: the bytes of Zarr's sharding, written and read without a task and copies for each chunk.

A shard is its chunks one after another, then an index of where each lies (offset and length,
``<u8``) and the index's CRC-32C. A chunk holds whole rows, with zeros after the last, compressed or
not, and ends with a CRC-32C (in older parts it may have none).
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from typing import Any, Self, cast

import google_crc32c
import numpy as np
import numpy.typing as npt
import zarr
from numcodecs.blosc import MAX_OVERHEAD, Blosc

from storage.arrays import FolderStore
from storage.backends import Backend, open_backend
from storage.documents import read_checked
from storage.errors import Damaged
from storage.typing import Array

Positions = npt.NDArray[np.intp]
Rows = Sequence[Array] | Array

_CRC = 4
_ABSENT = 2**64 - 1  # as offset and as length
_SHUFFLES = {"noshuffle": Blosc.NOSHUFFLE, "shuffle": Blosc.SHUFFLE, "bitshuffle": Blosc.BITSHUFFLE}


@dataclass(frozen=True)
class Sharding:
    """How the rows of an array are laid out in shards.

    Attributes
    ----------
    shape, dtype
        Of the whole array, rows first.
    chunk, shard
        Rows in each.
    blosc
        What compresses a chunk; None where it is stored as in memory.
    checked
        Whether a chunk ends with its checksum.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    chunk: int
    shard: int
    blosc: Blosc | None
    checked: bool

    @classmethod
    def of(cls, description: Mapping[str, Any]) -> Self:
        """Read it from what ``zarr.json`` holds."""
        inner = description["codecs"][0]["configuration"]
        codecs = {codec["name"]: codec.get("configuration", {}) for codec in inner["codecs"]}
        if options := codecs.get("blosc"):
            options = {**options, "shuffle": _SHUFFLES[options["shuffle"]]}
        return cls(
            tuple(description["shape"]),
            np.dtype(description["data_type"]),
            inner["chunk_shape"][0],
            description["chunk_grid"]["configuration"]["chunk_shape"][0],
            Blosc(**options) if options else None,
            "crc32c" in codecs,
        )

    @property
    def content(self) -> int:
        """Bytes of a chunk in memory."""
        return self.chunk * math.prod(self.shape[1:]) * self.dtype.itemsize

    @property
    def index_bytes(self) -> int:
        """Bytes at the end of a shard that say where its chunks lie."""
        return 16 * (self.shard // self.chunk) + _CRC

    def rows(self, number: int) -> int:
        """Return how many rows a shard has."""
        return min(self.shard, self.shape[0] - number * self.shard)

    def key(self, number: int) -> str:
        """Return where a shard lies, below its array."""
        return "/".join(["c", str(number), *"0" * (len(self.shape) - 1)])

    def encode(self, rows: Rows) -> memoryview:
        """Return the bytes of a shard of these rows.

        Raises
        ------
        ValueError, TypeError
            If rows have another shape, or another type.
        """
        used = math.ceil(len(rows) / self.chunk)
        index = np.full((self.shard // self.chunk, 2), _ABSENT, "<u8")
        data = np.empty(used * (self.content + MAX_OVERHEAD + _CRC) + self.index_bytes, np.uint8)
        end = 0
        for place in range(used):
            chunk = rows[place * self.chunk : (place + 1) * self.chunk]
            length = self._encode_chunk(chunk, data[end:])
            index[place] = end, length
            end += length
        end += _put(data[end:], index.tobytes())
        return data[:end].data

    def _encode_chunk(self, rows: Rows, room: Array) -> int:
        """Write a chunk with its checksum; return their length."""
        content = room[: self.content] if self.blosc is None else np.empty(self.content, np.uint8)
        values = content.view(self.dtype).reshape(self.chunk, *self.shape[1:])
        _fill(values[: len(rows)], rows)
        values[len(rows) :] = 0
        if self.blosc is None:
            return _close(room, self.content)
        return _put(room, self.blosc.encode(values))

    def decode(self, data: Array, room: Array) -> Array:
        """Return the values of a chunk: ``room``, which has their shape, or a view of ``data``.

        Raises
        ------
        ValueError, RuntimeError
            If they are not what was written.
        """
        if self.checked:
            data = _verified(data)
        if self.blosc is None:
            return data.view(self.dtype).reshape(room.shape)
        said = int.from_bytes(data[4:8].tobytes(), "little")  # as Blosc's header has it
        if said != self.content:
            raise ValueError(f"a chunk of {said} bytes instead of {self.content}")
        self.blosc.decode(data, room)
        return room

    def index(self, data: Array) -> list[list[int]]:
        """Return where the chunks of a shard begin and end, from the bytes at its own end.

        Raises
        ------
        ValueError
            If they are not what was written.
        """
        if len(data) != self.index_bytes:
            raise ValueError("a shard without an index")
        places = _verified(data).view("<u8").reshape(-1, 2)
        starts, lengths = np.where(places == _ABSENT, 0, places).T
        bounds: list[list[int]] = np.stack([starts, starts + lengths], axis=1).tolist()
        return bounds


def _fill(values: Array, rows: Rows) -> None:
    """Copy rows, without changing their shape or type."""
    if not isinstance(rows, np.ndarray):
        np.stack(rows, out=values, casting="no")
    elif rows.shape == values.shape:
        np.copyto(values, rows, casting="no")
    else:
        raise ValueError(f"rows have shape {rows.shape[1:]}, and {values.shape[1:]} is expected")


def _put(room: Array, data: bytes) -> int:
    """Copy bytes into ``room`` and add their checksum; return where it ends."""
    room[: len(data)] = _bytes(data)
    return _close(room, len(data))


def _close(room: Array, length: int) -> int:
    """Put the checksum of the first bytes after them; return where it ends."""
    end = length + _CRC
    room[length:end] = _checksum(room[:length])
    return end


def _verified(data: Array) -> Array:
    """Return what is before a checksum that it matches."""
    if not np.array_equal(_checksum(data[:-_CRC]), data[-_CRC:]):
        raise ValueError("its checksum differs")
    return data[:-_CRC]


def _bytes(data: bytes) -> Array:
    return np.frombuffer(data, np.uint8)


def _checksum(data: Array) -> Array:
    value: int = google_crc32c.value(cast(bytes, data))  # it takes arrays, not memoryviews
    return _bytes(value.to_bytes(_CRC, "little"))


class StoredArray:
    """An array of a part, read by rows; where its chunks lie is kept, since it never changes."""

    def __init__(self, backend: Backend, folder: str, sharding: Sharding) -> None:
        self.backend = backend
        self.folder = folder
        self.sharding = sharding
        self._indices: dict[int, list[list[int]]] = {}

    def read(
        self, number: int, rows: Positions, out: Array, columns: Sequence[int] | None = None
    ) -> None:
        """Read rows of one shard, ascending: all of their columns, or some.

        Chunks are read one by one, or the shard as a whole where a quarter of it is wanted.

        Raises
        ------
        Damaged
            If they are not there, or not what was written.
        """
        path = f"{self.folder}/{self.sharding.key(number)}"
        try:
            self._read(path, number, rows - number * self.sharding.shard, out, columns)
        except FileNotFoundError:
            raise Damaged(f"{path} is missing: run `wavemill verify`") from None
        except (ValueError, RuntimeError) as error:  # RuntimeError: Blosc's
            raise Damaged(f"{path} cannot be decoded ({error}): run `wavemill verify`") from error

    def _read(
        self, path: str, number: int, rows: Positions, out: Array, columns: Sequence[int] | None
    ) -> None:
        sharding, chunk = self.sharding, self.sharding.chunk
        places, starts = np.unique(rows // chunk, return_index=True)
        chunks = self._chunks(path, number, places.tolist())
        every = np.arange(chunk)
        scratch = np.empty((chunk, *sharding.shape[1:]), sharding.dtype)
        for data, place, start, stop in zip(
            chunks, places, starts, [*starts[1:], len(rows)], strict=True
        ):
            inside = rows[start:stop] - place * chunk
            if columns is None and np.array_equal(inside, every):
                room = out[start:stop]
                if (values := sharding.decode(data, room)) is not room:
                    room[:] = values
                continue
            values = sharding.decode(data, scratch)[run(inside) or inside]
            out[start:stop] = values if columns is None else values[:, columns]

    def _chunks(self, path: str, number: int, places: list[int]) -> Iterator[Array]:
        """Yield the bytes of chunks, read one by one, or all at once where a quarter is wanted."""
        kind = self.sharding
        if 4 * len(places) * kind.chunk > kind.rows(number):
            shard = _bytes(self.backend.read(path))
            index = kind.index(shard[-kind.index_bytes :])
            yield from (shard[slice(*index[place])] for place in places)
            return
        if number not in self._indices:
            self._indices[number] = kind.index(_bytes(self.backend.read(path, -kind.index_bytes)))
        for place in places:
            yield _bytes(self.backend.read(path, *self._indices[number][place]))


def run(positions: Positions) -> slice | None:
    """Return consecutive positions as a slice; None if they are not consecutive."""
    first, count = int(positions[0]), len(positions)
    consecutive = positions[-1] == first + count - 1 and (np.diff(positions) == 1).all()
    return slice(first, first + count) if consecutive else None


@lru_cache(maxsize=256)
def open_array(url: str, folder: str, name: str, sha256: str) -> StoredArray:
    """Open an array for reading.

    Raises
    ------
    Damaged
        If its description, which has this checksum, is missing or its bytes changed.
    """
    backend, home = open_backend(url), f"{folder}/{name}"
    description = json.loads(read_checked(backend, f"{home}/zarr.json", sha256))
    return StoredArray(backend, home, Sharding.of(description))


def write_shard(array: zarr.Array[Any], number: int, rows: Rows) -> None:
    """Write one shard of an array that `create_array` made: the bytes that Zarr would write.

    Parameters
    ----------
    number
        Of the shard; it begins at row ``number * array.shards[0]``.
    rows
        Its rows.

    Raises
    ------
    ValueError
        If they are not as many as the array has there, or of another shape.
    TypeError
        If they are of another type.
    """
    sharding = Sharding.of(array.metadata.to_dict())
    if len(rows) != sharding.rows(number):
        raise ValueError(f"{len(rows)} rows are not shard {number} of {array.shape}")
    store = cast(FolderStore, array.store)
    store.put(f"{array.path}/{sharding.key(number)}", sharding.encode(rows))


def write_rows(array: zarr.Array[Any], rows: Array | Iterator[Array]) -> None:
    """Write all rows of an array, shard by shard; see `write_shard`."""
    shard = cast("tuple[int, ...]", array.shards)[0]
    for number in range(math.ceil(array.shape[0] / shard)):
        if isinstance(rows, np.ndarray):
            write_shard(array, number, rows[number * shard : (number + 1) * shard])
        else:
            write_shard(array, number, list(islice(rows, shard)))
