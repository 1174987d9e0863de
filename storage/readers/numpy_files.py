"""NumPy's ``.npy`` and ``.npz``; arrays of Python objects are pickles and are never loaded."""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy

from storage.errors import BadInput
from storage.readers.frames import ReadOptions
from storage.readers.variables import Selector, Variable, name_axes
from storage.typing import Array


@contextmanager
def open_npy(data: bytes, size: int, options: ReadOptions) -> Iterator[list[Variable]]:
    """Give the one array of an ``.npy`` file of ``size`` bytes; ``data`` may be its beginning."""
    yield [_variable("", io.BytesIO(data), size, lambda: data, options)]


@contextmanager
def open_npz(data: bytes, size: int, options: ReadOptions) -> Iterator[list[Variable]]:
    """Give the arrays of an ``.npz`` archive."""
    if not data.startswith(b"PK"):
        raise BadInput("magic", "does not begin like a zip archive, which .npz is")
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        found: list[Variable] = []
        for info in archive.infolist():
            if info.filename.endswith(".npy"):
                with archive.open(info) as member:
                    name = info.filename.removesuffix(".npy")
                    read = partial(archive.read, info)
                    found.append(_variable(name, member, info.file_size, read, options))
        yield found


def _variable(name: str, file: IO[bytes], size: int, read: Any, options: ReadOptions) -> Variable:
    shape, fortran, dtype = _header(file)
    start = file.tell()
    if not dtype.hasobject:
        _check_length(size - start, shape, dtype)

    def load(selector: Selector) -> Array:
        flat = np.frombuffer(read(), dtype, count=math.prod(shape), offset=start)
        values: Array = flat.reshape(shape, order="F" if fortran else "C")[selector]
        return values

    return Variable(name, shape, dtype, load, name_axes(shape, options.components))


def _header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    magic = file.read(npy.MAGIC_LEN)
    if magic.startswith(b"\x80"):
        raise BadInput(
            "pickle",
            "is a pickle, which is never loaded; save the array with np.save, of a masked one "
            "x.filled(np.nan)",
        )
    if magic[:6] != npy.MAGIC_PREFIX[: len(magic)]:
        raise BadInput("magic", "does not begin like an .npy file (\\x93NUMPY)")
    if len(magic) < npy.MAGIC_LEN:
        raise BadInput("truncated", f"only {len(magic)} bytes of a header")
    match magic[6]:
        case 1:
            shape, fortran, dtype = npy.read_array_header_1_0(file)
        case 2:
            shape, fortran, dtype = npy.read_array_header_2_0(file)
        case version:
            raise BadInput(
                "format", f"version {version} of .npy is for records; store plain numbers"
            )
    return tuple(int(length) for length in shape), bool(fortran), dtype


def _check_length(present: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    declared = math.prod(shape) * dtype.itemsize
    if min(shape, default=1) < 0:
        raise BadInput("shape", f"declares the shape {shape}")
    if present < declared:
        raise BadInput("truncated", f"{present} of the {declared} bytes of a {shape} {dtype} array")
    if present > declared:
        raise BadInput(
            "trailing", f"{present - declared} bytes follow the array; store one array in a file"
        )
