"""MATLAB's ``.mat``: version 5 to 7 (its own format) and 7.3 (HDF5 with reversed axes).

MATLAB counts rows first: ``A(i, j)`` is the point ``y = i, x = j`` in both versions.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
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
_TYPES = {
    "double": "f8", "single": "f4", "logical": "u1",
    "int8": "i1", "int16": "i2", "int32": "i4", "int64": "i8",
    "uint8": "u1", "uint16": "u2", "uint32": "u4", "uint64": "u8",
}  # fmt: skip


@contextmanager
def open_mat(data: bytes, size: int, options: ReadOptions) -> Iterator[list[Variable]]:
    """Give the numeric arrays of a MAT file."""
    if is_hdf5(data):
        with open_file(data) as file:
            numeric = [
                (n, d) for n, d in datasets(file) if text(d.attrs.get("MATLAB_class")) in _TYPES
            ]
            yield [_reversed(name, dataset, options) for name, dataset in numeric]
    elif not data.startswith(b"MATLAB 5.0 MAT-file"[: len(data)]):
        raise BadInput("magic", "is no MAT file of version 5 or later; save it with -v7 or -v7.3")
    else:
        _check_complete(data)
        listed = [entry for entry in scipy.io.whosmat(_file(data)) if entry[2] in _TYPES]
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
        name, shape, np.dtype(_TYPES[kind]), load, name_axes(shape, options.components), series=name
    )


def _file(data: bytes) -> Any:
    return io.BytesIO(data)  # SciPy takes files, though its annotations know only paths


def _check_complete(data: bytes) -> None:
    """Walk over the elements of the file: each says how long it is."""
    if len(data) < HEADER_BYTES:
        raise BadInput("truncated", f"{len(data)} of the {HEADER_BYTES} bytes of a header")
    order = "<" if data[126:128] == b"IM" else ">"
    place = HEADER_BYTES
    while place < len(data):
        if place + 8 > len(data):
            raise BadInput("truncated", "ends inside the tag of an element")
        place += 8 + int(struct.unpack_from(f"{order}I", data, place + 4)[0])
    if place > len(data):
        raise BadInput("truncated", f"the last element lacks {place - len(data)} bytes")


def _reversed(name: str, dataset: Any, options: ReadOptions) -> Variable:
    shape = dataset.shape[::-1]
    return Variable(
        name,
        shape,
        dataset.dtype,
        partial(_load_reversed, name, dataset),
        name_axes(shape, options.components),
        series=name,
    )


def _load_reversed(name: str, dataset: Any, selector: Selector) -> Array:
    check_stored(name, dataset)
    return np.asarray(dataset[selector[::-1]]).T
