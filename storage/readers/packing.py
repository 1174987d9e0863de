"""Packed numbers and missing values of the CF conventions (section 8.1 and 2.5.1).

A value is ``raw * scale_factor + add_offset``; a raw value equal to ``_FillValue`` or
``missing_value``, or outside of ``valid_min``, ``valid_max`` or ``valid_range``, is missing and
becomes NaN. Unpacked here rather than by xarray, which warns about, and then drops, a fill value
that the packed type cannot hold.
"""

from __future__ import annotations

import base64
import struct
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from storage.errors import BadInput
from storage.typing import Array

# What netCDF leaves where nothing was written and no _FillValue is set.
UNWRITTEN = 9.969209968386869e36


def unpacked_dtype(dtype: np.dtype[Any], attributes: Mapping[str, Any]) -> np.dtype[Any]:
    """Return the type that `unpack` gives."""
    integer = dtype.kind in "iu"
    packed = "scale_factor" in attributes or "add_offset" in attributes
    gaps = integer and (_fills(dtype, attributes).size or _limits(attributes))
    if dtype.kind in "iuf" and (packed or gaps):
        return np.dtype(np.float64)
    return dtype


def unpack(raw: Array, attributes: Mapping[str, Any]) -> Array:
    """Return values with missing ones as NaN; packed ones as float64."""
    if raw.dtype.kind not in "iuf":
        return raw
    missing = np.isin(raw, _fills(raw.dtype, attributes))
    unsigned = raw.dtype.kind == "i" and (text(attributes.get("_Unsigned")) or "").lower() == "true"
    if unsigned:
        raw = raw.view(np.dtype(f"{raw.dtype.byteorder}u{raw.dtype.itemsize}"))
        missing |= np.isin(raw, _fills(raw.dtype, attributes))  # a fill may be given signed or not
    values = raw.astype(unpacked_dtype(raw.dtype, attributes))
    if "scale_factor" in attributes:
        values *= values.dtype.type(_one("scale_factor", attributes))
    if "add_offset" in attributes:
        values += values.dtype.type(_one("add_offset", attributes))
    for compare, limit in _limits(attributes):
        # of the type of what is stored, signed for unsigned too, or of floats where it is packed
        same = (
            limit.astype(raw.dtype) if (raw.dtype.kind, limit.dtype.kind) == ("u", "i") else limit
        )
        missing |= compare(values if limit.dtype.kind == "f" else raw, same)
    return np.where(missing, np.nan, values) if missing.any() else values


def _limits(attributes: Mapping[str, Any]) -> list[tuple[Callable[[Array, Any], Array], Any]]:
    """Return the valid numbers at either end, with what says which are beyond them."""
    least, most = attributes.get("valid_min", ()), attributes.get("valid_max", ())
    found = attributes.get("valid_range", ())
    if np.size(found) == 2:
        least, most = np.ravel(found)
    ends = [(np.less, np.ravel(least)), (np.greater, np.ravel(most))]
    return [(beyond, end[0]) for beyond, end in ends if end.size == 1 and end.dtype.kind in "iuf"]


def _one(name: str, attributes: Mapping[str, Any]) -> Any:
    found = np.ravel(attributes[name])
    if found.size != 1 or found.dtype.kind not in "biuf":
        raise BadInput(
            "attributes", f"{name} must be one number, not {found.size} of type {found.dtype}"
        )
    return found[0]


def _fills(dtype: np.dtype[Any], attributes: Mapping[str, Any]) -> Array:
    """Return the raw values that mean missing, as far as ``dtype`` can hold them."""
    found: list[Any] = [UNWRITTEN] if dtype.kind == "f" else []
    for name in ("_FillValue", "missing_value"):
        value = attributes.get(name, ())
        found.extend(np.ravel(_decoded(value) if isinstance(value, str) else value))
    exact = [np.asarray(value).astype(dtype) for value in found if _holds(dtype, value)]
    return np.array(exact, dtype)


def _holds(dtype: np.dtype[Any], value: Any) -> bool:
    if not np.isreal(value) or not np.isfinite(value):
        return False  # NaN in floats needs no mask, and integers have none
    if dtype.kind == "f":
        return bool(abs(float(value)) <= float(np.finfo(dtype).max))
    limits = np.iinfo(dtype)
    return bool(limits.min <= value <= limits.max and float(value).is_integer())


def _decoded(text: str) -> tuple[float, ...]:
    """Read the base64 of a little-endian double, which is how xarray writes fills to Zarr."""
    try:
        return struct.unpack("<d", base64.b64decode(text, validate=True))
    except (ValueError, struct.error):
        return ()


def text(value: Any) -> str | None:
    """Return an attribute as text, None if it is not text."""
    if isinstance(value, np.ndarray) and value.size == 1:
        value = value.reshape(())[()]
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return str(value) if isinstance(value, str) else None


def helpers(attributes: Iterable[tuple[str, Mapping[str, Any]]]) -> set[str]:
    """Return the names of variables that only locate or qualify others, by names and attributes.

    They lie in the group of what names them, or in one that this is in.
    """
    roles = ("coordinates", "bounds", "grid_mapping", "ancillary_variables")
    found = set()
    for place, one in attributes:
        groups = place.split("/")[:-1]
        for name in (word for role in roles for word in (text(one.get(role)) or "").split()):
            found |= {"/".join([*groups[:depth], name]) for depth in range(len(groups) + 1)}
    return found
