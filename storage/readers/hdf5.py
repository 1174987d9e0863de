"""HDF5, with the layouts of turbulence databases.

Older cut-outs of the Johns Hopkins Turbulence Databases name ``u01000`` (z, y, x, 3) and
``p01000`` (z, y, x, 1) beside ``_start`` and ``_size``; newer ones ``Velocity_0001``,
``Pressure_0001`` beside ``xcoor``, ``ycoor``, ``zcoor``. Others put the components first:
``u00000`` (3, z, y, x).
"""

from __future__ import annotations

import io
import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import h5py
import numpy as np

from storage.errors import BadInput
from storage.readers.coordinates import Coordinate, coordinate
from storage.readers.frames import ReadOptions
from storage.readers.packing import helpers, text, unpack, unpacked_dtype
from storage.readers.variables import COMPONENT, Selector, Variable, mark_components, name_axes
from storage.typing import Array

SIGNATURE = b"\x89HDF\r\n\x1a\n"
_HEAP = b"GCOL\x01\x00\x00\x00"
_NUMBERED = re.compile(r"(?P<series>.*?[A-Za-z])_?\d{4,}")
_VECTORS = re.compile(r"(vel|mag|vec).*", re.IGNORECASE)
_SPATIAL = {2: ("y", "x"), 3: ("z", "y", "x")}


def is_hdf5(data: bytes) -> bool:
    """Tell whether the signature stands where the format allows: at 0, 512, 1024, 2048 ..."""
    place = 0
    while place < len(data):
        if data.startswith(SIGNATURE, place):
            return True
        place = max(512, 2 * place)
    return False


@contextmanager
def open_hdf5(data: bytes, size: int, options: ReadOptions) -> Iterator[list[Variable]]:
    """Give the numeric datasets of an HDF5 file."""
    with open_file(data) as file:
        found = datasets(file, axes=1)  # bounds are named by positions along one
        aside = helpers((name, dataset.attrs) for name, dataset in found)
        yield [
            _variable(name, dataset, file, options)
            for name, dataset in found
            if len(dataset.shape) > 1 and name not in aside and not dataset.is_scale
        ]


@contextmanager
def open_file(data: bytes) -> Iterator[Any]:
    """Open bytes as an HDF5 file."""
    if not is_hdf5(data):
        raise BadInput("magic", "there is no HDF5 signature (\\x89HDF)")
    _check_heaps(data)
    with h5py.File(io.BytesIO(data), "r") as file:
        yield file


def _check_heaps(data: bytes) -> None:
    """Walk over the global heaps, on which HDF5 loops for ever if an object's size is wrong.

    A heap is ``GCOL``, version, 3 bytes, its size in 8 bytes, and objects; an object is a
    2-byte index, 6 bytes, its size in 8 bytes, and data padded to 8. Index 0 is the free
    space, whose size counts its header (HDF5 file format specification, III.E).
    """
    start = data.find(_HEAP)
    while start >= 0:
        place = start + 16
        end = start + int.from_bytes(data[start + 8 : place], "little")
        while place + 16 <= end:
            index = int.from_bytes(data[place : place + 2], "little")
            size = int.from_bytes(data[place + 8 : place + 16], "little")
            step = 16 + -(-size // 8) * 8 if index else size
            if step == 0 or place + step > min(end, len(data)):
                raise BadInput("corrupt", f"the heap at byte {start} is inconsistent")
            place += step
        start = data.find(_HEAP, start + 16)


def datasets(file: Any, axes: int = 2) -> list[tuple[str, Any]]:
    """Return the datasets that hold numbers along at least so many axes.

    Links are not followed, and names with a leading underscore or ``#`` are bookkeeping.
    """
    found: list[tuple[str, Any]] = []

    def visit(name: str, item: Any) -> None:
        hidden = any(part.startswith(("_", "#")) for part in name.split("/"))
        if isinstance(item, h5py.Dataset) and not hidden and len(item.shape or ()) >= axes:
            found.append((name, item))

    file.visititems(visit)
    return found


def check_stored(name: str, dataset: Any) -> None:
    """Refuse a dataset whose numbers do not all lie in this file.

    Raises
    ------
    BadInput
        If it refers to other files, or was declared but not written, in which case HDF5
        would give fill values as if they were data.
    """
    if dataset.external is not None or dataset.is_virtual:
        raise BadInput("external", f"{name} refers to other files; copy the data into this one")
    stored = dataset.id.get_storage_size()
    if dataset.chunks is None:
        complete = stored >= dataset.nbytes
    else:
        counts = (-(-n // chunk) for n, chunk in zip(dataset.shape, dataset.chunks, strict=True))
        complete = dataset.id.get_num_chunks() >= np.prod([*counts], dtype=object)
    if not complete:
        raise BadInput("truncated", f"{name} is declared but not fully written ({stored} bytes)")


def _variable(name: str, dataset: Any, file: Any, options: ReadOptions) -> Variable:
    attributes = dict(dataset.attrs)
    base = name.rpartition("/")[2]
    numbered = _NUMBERED.fullmatch(base)
    series = numbered["series"] if numbered else base

    def load(selector: Selector) -> Array:
        check_stored(name, dataset)
        return unpack(np.asarray(dataset[selector]), attributes)

    magnetic = series.lower() in {"b", "magnetic", "magneticfield"}
    return Variable(
        name,
        dataset.shape,
        unpacked_dtype(dataset.dtype, attributes),
        load,
        _axes(dataset, numbered is not None, series, options),
        text(attributes.get("units")),
        partial(_coordinate, file, dataset),
        series,
        ("bx", "by", "bz") if magnetic else ("u", "v", "w"),
    )


def _axes(dataset: Any, numbered: bool, series: str, options: ReadOptions) -> tuple[str, ...]:
    names = tuple(_dimension_name(dimension) for dimension in dataset.dims)
    if any(names):
        return mark_components(names, dataset.shape, options.components)
    dims = list(name_axes(dataset.shape, options.components))
    if COMPONENT not in dims and len(dims) > 2:
        vector = numbered or _VECTORS.fullmatch(series) or len(dims) > 3
        axis = _vector_axis(dataset.shape) if vector else None
        if axis is not None:
            dims[axis] = COMPONENT
    spatial = [axis for axis, name in enumerate(dims) if name != COMPONENT]
    for axis, name in zip(spatial, _SPATIAL.get(len(spatial), ()), strict=False):
        dims[axis] = name
    return tuple(dims)


def _vector_axis(shape: tuple[int, ...]) -> int | None:
    """Return the last axis if it has 1 to 3 entries, else the first if it has 2 or 3."""
    if shape[-1] == 1 and len(shape) > 3:
        return -1
    return next((axis for axis in (-1, 0) if shape[axis] in (2, 3)), None)


def _dimension_name(dimension: Any) -> str:
    if len(dimension):
        return str(dimension[0].name or "").rpartition("/")[2]
    return str(dimension.label)


def _coordinate(file: Any, dataset: Any, axis: str, lengths: Collection[int]) -> Coordinate | None:
    """Return positions from an attached scale, or from ``x`` or ``xcoor`` beside the dataset."""
    for values in _scales(file, dataset, axis):

        def read(values: Any = values) -> Array:
            check_stored(axis, values)
            return np.asarray(values[()])

        if found := coordinate(values.shape or (), lengths, read, values.attrs):
            return found
    return None


def _scales(file: Any, dataset: Any, axis: str) -> Iterator[Any]:
    """Yield what may hold the positions along an axis; links are not followed."""
    for dimension in dataset.dims:
        if len(dimension) and _dimension_name(dimension) == axis:
            yield dimension[0]
    for name in (axis, f"{axis}coor"):
        for group in (dataset.parent, file):
            own = "/" not in name and isinstance(group.get(name, getlink=True), h5py.HardLink)
            if own and isinstance(group[name], h5py.Dataset):
                yield group[name]
