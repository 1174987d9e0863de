"""FITS, the format of astronomy: images of any number of axes, one in each header-data unit.

The first axis of FITS is the last here. Names of axes come from ``CTYPEn``; positions along them,
in degrees or SI units, from the world coordinates unless an axis is turned. An axis ``STOKES``
holds components. Physical values are ``BZERO + BSCALE`` times what is stored, and
integers equal to ``BLANK`` are missing (FITS standard 4.0, sections 4.4 and 8).
"""

from __future__ import annotations

import io
import warnings
import zlib
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from functools import cache, partial
from typing import Any

import numpy as np

from storage.errors import BadInput
from storage.readers.coordinates import Coordinate
from storage.readers.frames import ReadOptions
from storage.readers.packing import unpack, unpacked_dtype
from storage.readers.selection import EXPANSION_LIMIT, SMALL
from storage.readers.variables import COMPONENT, Selector, Variable, mark_components
from storage.typing import Array

_SIGNATURE = b"SIMPLE  ="
_STOKES = {1: "I", 2: "Q", 3: "U", 4: "V"}
_TYPES = {8: ">u1", 16: ">i2", 32: ">i4", 64: ">i8", -32: ">f4", -64: ">f8"}


@contextmanager
def open_fits(data: bytes, size: int, options: ReadOptions) -> Iterator[list[Variable]]:
    """Give the images of a FITS file, which may be packed by gzip."""
    if data.startswith(b"\x1f\x8b"):
        data = _unpacked(data)
    if not data.startswith(_SIGNATURE[: len(data)]):
        raise BadInput("magic", "does not begin like a FITS file (SIMPLE  =)")
    with _opened(data, do_not_scale_image_data=True) as file:
        found = [
            _variable(number, unit, data, options)
            for number, unit in enumerate(file)
            if unit.is_image and len(unit.shape) > 1
        ]
        if not found:
            raise BadInput(
                "variable",
                "has no image of two or more axes; maps in tables, as of HEALPix, are to be "
                "projected on a plane first (healpy.gnomview, or the package reproject)",
            )
        yield found


def _opened(data: bytes, **options: Any) -> Any:
    from astropy.io import fits  # takes a third of a second
    from astropy.utils.exceptions import AstropyWarning

    warnings.simplefilter("ignore", AstropyWarning)  # what is wrong is refused, not told
    return fits.open(io.BytesIO(data), **options)


def _unpacked(data: bytes) -> bytes:
    limit = max(SMALL, EXPANSION_LIMIT * len(data))
    unpacker = zlib.decompressobj(wbits=31)
    found = unpacker.decompress(data, limit)
    if not unpacker.eof:
        raise BadInput("truncated", "the gzip stream ends early")
    return found


def _variable(number: int, unit: Any, data: bytes, options: ReadOptions) -> Variable:
    header = unit.header
    dims = [_axis(header, axis) for axis in range(len(unit.shape), 0, -1)]
    dims = [dim if dims.count(dim) == 1 else "" for dim in dims]
    attributes = {
        name: np.asarray(header[key])
        for name, key in (("scale_factor", "BSCALE"), ("add_offset", "BZERO"))
        if key in header
    }
    raw = np.dtype(_TYPES[header["BITPIX"]])
    if raw.kind != "f" and "BLANK" in header:
        attributes["_FillValue"] = np.asarray(header["BLANK"])
    name = str(header.get("EXTNAME", "")) or (f"HDU{number}" if number else "")

    checked = cache(partial(_check, number, data))  # once for all planes of a cube

    def load(selector: Selector) -> Array:
        checked()
        return unpack(np.asarray(unit.data[selector]), attributes)

    return Variable(
        name,
        unit.shape,
        unpacked_dtype(raw, attributes),
        load,
        mark_components(dims, unit.shape, options.components),
        str(header["BUNIT"]) if "BUNIT" in header else None,
        partial(_coordinate, header, dims, unit.shape),
        name,
        _stokes(header, dims, unit.shape),
    )


def _check(number: int, data: bytes) -> None:
    """Refuse an image that the file does not hold as it was written."""
    with _opened(data, disable_image_compression=True) as file:
        stored = file[number]  # of a compressed image, the table that holds it
        present = len(data) - stored.fileinfo()["datLoc"]
        if present < stored.size:
            raise BadInput("truncated", f"{present} of the {stored.size} bytes of an image")
        if stored.verify_datasum() == 0:
            raise BadInput("corrupt", "an image differs from the DATASUM in its header")


def _axis(header: Any, number: int) -> str:
    """Return the name of an axis without its projection, ``ra`` of ``RA---TAN``."""
    name = str(header.get(f"CTYPE{number}", "")).partition("-")[0].strip().lower()
    return COMPONENT if name == "stokes" else name


def _stokes(header: Any, dims: list[str], shape: tuple[int, ...]) -> tuple[str, ...]:
    """Return what the entries along the components' axis are called."""
    place = _coordinate(header, dims, shape, COMPONENT, shape)
    if place is None:
        return "u", "v", "w"
    return tuple(_STOKES.get(round(float(value)), f"stokes{value:g}") for value in place.values)


def _coordinate(
    header: Any, dims: list[str], shape: tuple[int, ...], axis: str, lengths: Collection[int]
) -> Coordinate | None:
    """Return the positions along a named axis; None if it is turned, or they are not given."""
    if not axis or axis not in dims or shape[dims.index(axis)] not in lengths:
        return None
    place = dims.index(axis)
    number = len(dims) - 1 - place
    if f"CRVAL{number + 1}" not in header:
        return None
    from astropy.wcs import WCS, WcsError

    try:
        world = WCS(header)
    except WcsError:
        return None
    matrix, count = world.pixel_scale_matrix, shape[place]
    if np.delete(matrix[number], number).any() or np.delete(matrix[:, number], number).any():
        return None
    points = np.arange(1, count + 1) - world.wcs.crpix[number]
    unit = str(world.wcs.cunit[number])
    return Coordinate(
        world.wcs.crval[number] + matrix[number, number] * points,
        {"units": "degrees" if unit == "deg" else unit},
    )
