"""NetCDF: version 3 through SciPy; version 4 is HDF5 with named dimensions."""

from __future__ import annotations

import io
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
from scipy.io import netcdf_file

from storage.errors import BadInput
from storage.readers.coordinates import Coordinate, coordinate
from storage.readers.frames import ReadOptions
from storage.readers.hdf5 import is_hdf5, open_hdf5
from storage.readers.packing import helpers, text, unpack, unpacked_dtype
from storage.readers.variables import Selector, Variable, mark_components
from storage.typing import Array


@contextmanager
def open_netcdf(data: bytes, size: int, options: ReadOptions) -> Iterator[list[Variable]]:
    """Give the data variables of a NetCDF file."""
    if is_hdf5(data):
        with open_hdf5(data, size, options) as variables:
            yield variables
        return
    if data[:3] != b"CDF"[: len(data)]:
        raise BadInput("magic", "begins neither like NetCDF 3 (CDF) nor like NetCDF 4 (HDF5)")
    if data[3:4] not in (b"", b"\x01", b"\x02"):
        raise BadInput("format", "is the CDF-5 variant; convert it with nccopy -k nc4")
    with netcdf_file(io.BytesIO(data), mode="r", mmap=False, maskandscale=False) as file:
        aside = helpers((name, _attributes(each)) for name, each in file.variables.items())
        yield [
            _variable(name, variable, file.variables, options)
            for name, variable in file.variables.items()
            if len(variable.dimensions) > 1 and name not in aside
        ]


def _variable(name: str, variable: Any, every: dict[str, Any], options: ReadOptions) -> Variable:
    attributes = _attributes(variable)
    values = np.asarray(variable.data)

    def load(selector: Selector) -> Array:
        return unpack(values[selector], attributes)

    return Variable(
        name,
        values.shape,
        unpacked_dtype(values.dtype, attributes),
        load,
        mark_components(variable.dimensions, values.shape, options.components),
        text(attributes.get("units")),
        partial(_coordinate, every),
        name,
    )


def _coordinate(every: dict[str, Any], axis: str, lengths: Collection[int]) -> Coordinate | None:
    if (found := every.get(axis)) is None:
        return None
    return coordinate(found.data.shape, lengths, lambda: np.array(found.data), _attributes(found))


def _attributes(variable: Any) -> dict[str, Any]:
    return dict(variable._attributes)
