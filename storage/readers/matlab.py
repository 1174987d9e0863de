"""MATLAB's ``.mat``: version 5 to 7 (its own format) and 7.3 (HDF5 with reversed axes).

MATLAB counts rows first: ``A(i, j)`` is the point ``y = i, x = j`` in both versions.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import scipy.io

from storage.errors import BadInput
from storage.readers.frames import ReadOptions
from storage.readers.hdf5 import check_stored, datasets, is_hdf5, open_file
from storage.readers.packing import text
from storage.readers.variables import Selector, Variable, name_axes
from storage.typing import Array

HEADER_BYTES = 128
_MATRIX, _COMPRESSED, _COMPLEX = 14, 15, 0x800
_CHECKED = {4, *range(6, 16)}  # classes of arrays: char, double to uint64
_STORED = {1, 2, 3, 4, 5, 6, 7, 9, 12, 13}  # types that numbers are stored as
_TEXTS = {16, 17, 18}  # and texts, in UTF-8, 16 and 32
TYPES = {
    "double": "f8", "single": "f4", "logical": "u1",
    "int8": "i1", "int16": "i2", "int32": "i4", "int64": "i8",
    "uint8": "u1", "uint16": "u2", "uint32": "u4", "uint64": "u8",
}  # fmt: skip


@contextmanager
def open_mat(data: bytes, size: int, options: ReadOptions) -> Iterator[list[Variable]]:
    """Give the numeric arrays of a MAT file."""
    if is_hdf5(data):
        with open_file(data) as file:
            # Writers other than MATLAB may leave the class out.
            numeric = [
                (name, dataset)
                for name, dataset in datasets(file)
                if text(dataset.attrs.get("MATLAB_class", "double")) in TYPES
            ]
            yield [_reversed(name, dataset, options) for name, dataset in numeric]
    elif not data.startswith(b"MATLAB 5.0 MAT-file"[: len(data)]):
        raise BadInput(
            "magic", "is not a MAT file of version 5 or later; save it with -v7 or -v7.3"
        )
    else:
        check_elements(data)
        listed = [entry for entry in scipy.io.whosmat(_file(data)) if entry[2] in TYPES]
        yield [_version5(name, shape, kind, data, options) for name, shape, kind in listed]


def _version5(
    name: str, shape: tuple[int, ...], kind: str, data: bytes, options: ReadOptions
) -> Variable:
    def load(selector: Selector) -> Array:
        values = scipy.io.loadmat(_file(data), variable_names=[name])[name]
        if values.shape != shape:
            raise BadInput("corrupt", f"{name} has shape {values.shape} but declares {shape}")
        chosen: Array = values[selector]
        return chosen

    return Variable(
        name, shape, np.dtype(TYPES[kind]), load, name_axes(shape, options.components), series=name
    )


def _file(data: bytes) -> Any:
    return io.BytesIO(data)  # SciPy takes files, though its annotations know only paths


def check_elements(data: bytes) -> None:
    """Walk over the elements of the file: each says how long it is, and of what type.

    Raises
    ------
    BadInput
        If bytes are lacking, or numbers have an unknown type, at which SciPy would end the process.
    """
    if len(data) < HEADER_BYTES:
        raise BadInput("truncated", f"{len(data)} of the {HEADER_BYTES} bytes of a header")
    order = "<" if data[126:128] == b"IM" else ">"
    place = HEADER_BYTES
    while place < len(data):
        if place + 8 > len(data):
            raise BadInput("truncated", "ends inside the tag of an element")
        kind, size = struct.unpack_from(f"{order}II", data, place)
        if place + 8 + size <= len(data):
            _check_types(kind, data[place + 8 : place + 8 + size], order)
        place += 8 + size
    if place > len(data):
        raise BadInput("truncated", f"the last element lacks {place - len(data)} bytes")


def _check_types(kind: int, body: bytes, order: str) -> None:
    """Check the types of an array's numbers, real and imaginary, after its flags and its name."""
    packed = kind == _COMPRESSED
    if not packed and kind != _MATRIX:
        raise BadInput("corrupt", f"an element is of type {kind}, not an array")

    def tag(place: int) -> tuple[int, int]:
        """Return the type of a part of the array, and where the next one begins."""
        most = place + 8
        whole = zlib.decompressobj().decompress(body, most) if packed else body[:most]
        first, size = struct.unpack_from(f"{order}II", whole, place)
        if first >> 16:  # up to four bytes lie within the tag
            return first & 0xFFFF, place + 8
        return first, place + 8 + -(-size // 8) * 8

    place = 8 if packed else 0
    head = zlib.decompressobj().decompress(body, place + 16) if packed else body[:16]
    (flags,) = struct.unpack_from(f"{order}I", head, place + 8)
    if (group := flags & 0xFF) not in _CHECKED:
        return
    for _ in ("flags", "shape", "name"):
        place = tag(place)[1]
    for _ in ("real", "imaginary") if flags & _COMPLEX else ("real",):
        found, place = tag(place)
        if found not in _STORED and (group != 4 or found not in _TEXTS):
            raise BadInput("corrupt", f"an array holds values of the unknown type {found}")


def _reversed(name: str, dataset: Any, options: ReadOptions) -> Variable:
    def load(selector: Selector) -> Array:
        check_stored(name, dataset)
        return np.asarray(dataset[selector[::-1]]).T

    shape = dataset.shape[::-1]
    axes = name_axes(shape, options.components)
    return Variable(name, shape, dataset.dtype, load, axes, series=name)
