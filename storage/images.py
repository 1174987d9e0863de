"""Images of one size in a part, and on request the bytes that they were decoded from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import zarr

from storage.arrays import create_array
from storage.errors import InvalidRequest
from storage.parts import IMAGES, read_rows
from storage.records import Schema
from storage.shards import write_rows

ENCODED = "encoded"
OFFSETS = "offsets"


class _Picture(Protocol):
    array: npt.NDArray[np.uint8]
    encoded: bytes


def write_images(
    group: zarr.Group, rows: int, pictures: Iterator[_Picture], schema: Schema, encoded: bool
) -> None:
    """Write the arrays of a part, images shard by shard.

    Neither photographs nor their encoded bytes are compressed: LZ4 saves a sixth of photographs and
    takes twice as long to write.
    """
    layout = (rows, schema.row_shape, "uint8", schema.dims)
    kept: list[bytes] = []

    def arrays() -> Iterator[npt.NDArray[np.uint8]]:
        for picture in pictures:
            if encoded:
                kept.append(picture.encoded)
            yield picture.array

    write_rows(create_array(group, IMAGES, *layout, compressed=False), arrays())
    if encoded:
        _write_bytes(group, kept)


def _write_bytes(group: zarr.Group, contents: list[bytes]) -> None:
    flat = np.frombuffer(b"".join(contents), np.uint8)
    offsets = np.cumsum([0, *map(len, contents)], dtype=np.int64)
    arrays: dict[str, tuple[npt.NDArray[Any], str]] = {
        ENCODED: (flat, "byte"),
        OFFSETS: (offsets, "bound"),
    }
    for name, (values, axis) in arrays.items():
        layout = (len(values), (), str(values.dtype), (axis,))
        write_rows(create_array(group, name, *layout, compressed=False), values)


def read_encoded(url: str, keys: Iterable[str], rows: Iterable[int]) -> Iterator[bytes]:
    """Yield the original bytes of images by (part, row), in the order asked.

    Raises
    ------
    InvalidRequest
        If they were not kept.
    """
    for key, row in zip(keys, rows, strict=True):
        try:
            start, stop = read_rows(url, key, OFFSETS, range(row, row + 2))
        except KeyError:
            raise InvalidRequest(
                "the encoded images were not kept: ingest with --keep-encoded"
            ) from None
        yield read_rows(url, key, ENCODED, range(start, stop)).tobytes()
