"""Positions along an axis of a file, and the moments that the CF conventions make of them."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import cftime
import numpy as np

from storage.readers.packing import text, unpack
from storage.typing import Array
from storage.units import metres

_OURS = {"standard", "proleptic_gregorian", "noleap"}  # calendars whose dates exist in ours
_GREGORIAN = 1583  # the first whole year that the standard calendar counts as we do
_FINE = ("milli", "micro", "msec", "us")

Position = float | int | str | datetime.datetime


@dataclass(frozen=True)
class Coordinate:
    """A variable that gives the positions along an axis, its values unpacked."""

    values: Array
    attributes: Mapping[str, Any]

    @property
    def step(self) -> float | None:
        """The mean signed step of positions that only rise or only fall, else None."""
        values = self.values
        if values.ndim != 1 or len(values) < 2 or values.dtype.kind not in "iuf":
            return None
        steps = np.diff(values.astype(np.float64))
        if not ((steps > 0).all() or (steps < 0).all()):
            return None
        return float(values[-1] - np.float64(values[0])) / (len(values) - 1)

    @property
    def placed(self) -> float | None:
        """The step in metres where positions are lengths, None where they only count points."""
        step, unit = self.step, text(self.attributes.get("units")) or ""
        counted = not unit and self.values.dtype.kind in "iu" and step is not None
        if step is None or (counted and abs(step) == 1):
            return None
        return step * (metres(unit) or 1.0)

    @property
    def spacing(self) -> float | None:
        """The signed distance between uniform points; None for degrees, which are angles."""
        step = self.step
        if step is None or (text(self.attributes.get("units")) or "").startswith("degree"):
            return None
        # Positions are often rounded to float32, hence a tolerance well above its precision.
        uniform = np.allclose(np.diff(self.values.astype(np.float64)), step, rtol=1e-2, atol=0)
        return step if uniform else None

    def at(self, index: int) -> Position | None:
        """Return a position as a number, a text or a moment."""
        value = self.values[index]
        if self.values.dtype.kind not in "biuf":
            return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
        try:
            moment = self._moment(value)
        except (OverflowError, ValueError):  # units of varying length, as months, or no such date
            moment = None
        # 0.1 in float32 should be found as 0.1
        return moment or (float(str(value)) if self.values.dtype.kind == "f" else int(value))

    def _moment(self, value: Any) -> str | datetime.datetime | None:
        """Return the moment that is a number of units after another, in UTC and without a zone."""
        units = text(self.attributes.get("units")) or ""
        calendar = (text(self.attributes.get("calendar")) or "standard").lower()
        if " since " not in units or not np.isfinite(value):
            return None
        found = cftime.num2date(value, units, calendar)
        if self.values.dtype.kind == "f" and not units.startswith(_FINE):
            found += datetime.timedelta(microseconds=500)  # days are good to about a microsecond
            found = found.replace(microsecond=found.microsecond // 1000 * 1000)
        first = _GREGORIAN if found.calendar == "standard" else 1
        if found.calendar in _OURS and first <= found.year <= 9999:
            return datetime.datetime.fromisoformat(found.isoformat())
        return str(found.isoformat())


def coordinate(
    shape: tuple[int, ...],
    lengths: Collection[int],
    read: Callable[[], Array],
    attributes: Mapping[str, Any],
) -> Coordinate | None:
    """Return the positions that a variable gives; it is read only if it is as long as its axis.

    A NetCDF dimension without a variable only counts points, and gives no positions.
    """
    if len(shape) != 1 or shape[0] not in lengths:
        return None
    if (text(attributes.get("NAME")) or "").startswith("This is a netCDF dimension"):
        return None
    return Coordinate(unpack(read(), attributes), dict(attributes))
