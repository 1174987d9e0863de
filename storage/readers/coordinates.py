"""Positions along an axis of a file, and the moments that the CF conventions make of them."""

from __future__ import annotations

import datetime
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from storage.readers.packing import text, unpack
from storage.typing import Array
from storage.units import metres

_SINCE = re.compile(
    r"\s*(?P<unit>\w+)\s+since\s+(?P<y>-?\d+)-(?P<m>\d+)-(?P<d>\d+)"
    r"(?:[T\s]+(?P<H>\d+)(?::(?P<M>\d+))?(?::(?P<S>\d+(?:\.\d*)?))?)?"
    r"\s*(?:Z|UTC|GMT|(?P<east>[+-]\d{1,2}):?(?P<minutes>\d\d)?)?\s*",
    re.IGNORECASE,
)
_UNITS = {  # microseconds; a month or a year has no one length
    "microsecond": 1,
    "millisecond": 10**3,
    "msec": 10**3,
    "second": 10**6,
    "sec": 10**6,
    "s": 10**6,
    "minute": 60 * 10**6,
    "min": 60 * 10**6,
    "hour": 3600 * 10**6,
    "hr": 3600 * 10**6,
    "h": 3600 * 10**6,
    "day": 86400 * 10**6,
    "d": 86400 * 10**6,
    "week": 7 * 86400 * 10**6,
}
_DAY = _UNITS["day"]
_MIXED = ("standard", "gregorian")  # the Julian calendar before 1582-10-15
_COMMON = (31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
_MONTHS = {  # of the calendars whose years are all of one length
    "noleap": _COMMON,
    "365_day": _COMMON,
    "all_leap": (31, 29, *_COMMON[2:]),
    "366_day": (31, 29, *_COMMON[2:]),
    "360_day": (30,) * 12,
}

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
        """The signed distance of uniform points; degrees are angles and no distance."""
        step = self.step
        if step is None or (text(self.attributes.get("units")) or "").startswith("degree"):
            return None
        # Positions are often rounded to float32, hence a tolerance well above its precision.
        uniform = np.allclose(np.diff(self.values.astype(np.float64)), step, rtol=1e-2, atol=0)
        return step if uniform else None

    def at(self, index: int) -> Position | None:
        """Return a position as a number, a text or a moment, None if there is no such one."""
        if self.values.ndim != 1 or index >= len(self.values):
            return None
        value = self.values[index]
        if self.values.dtype.kind not in "biuf":
            return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
        try:
            moment = self._moment(value)
        except (OverflowError, ValueError):  # not finite, or beyond any calendar
            moment = None
        # 0.1 of float32 is to be found as 0.1
        return moment or (float(str(value)) if self.values.dtype.kind == "f" else int(value))

    def _moment(self, value: Any) -> str | datetime.datetime | None:
        """Return the moment that a number of units since another is; UTC, without a zone."""
        since = _SINCE.fullmatch(text(self.attributes.get("units")) or "")
        calendar = (text(self.attributes.get("calendar")) or "standard").lower()
        unit = since and since["unit"].lower()
        size = _UNITS.get(unit.removesuffix("s") or "s") if unit else None
        if not since or not size or calendar not in (*_MIXED, "proleptic_gregorian", *_MONTHS):
            return None
        elapsed = round(size * (int(value) if self.values.dtype.kind in "iu" else float(value)))
        if self.values.dtype.kind == "f" and size >= 10**6:
            elapsed = round(elapsed, -3)  # a float64 of days is good to about a microsecond
        date = int(since["y"]), int(since["m"]), int(since["d"])
        day, rest = divmod(elapsed + _time_of_day(since), _DAY)
        if calendar in _MONTHS:
            return _of_equal_years(date, day, rest, calendar)
        return _of_leap_years(date, day, rest, calendar in _MIXED)


def coordinate(values: Array, attributes: Mapping[str, Any]) -> Coordinate | None:
    """Return the positions of a variable; a dimension without one is only a number of points."""
    if (text(attributes.get("NAME")) or "").startswith("This is a netCDF dimension"):
        return None
    return Coordinate(unpack(values, attributes), dict(attributes))


def _time_of_day(since: re.Match[str]) -> int:
    """Return the microseconds between midnight UTC and the time that units name."""
    east = int(since["east"] or 0)
    minutes = int(since["minutes"] or 0) * (-1 if (since["east"] or "").startswith("-") else 1)
    hours, past = int(since["H"] or 0) - east, int(since["M"] or 0) - minutes
    return hours * _UNITS["h"] + past * _UNITS["min"] + round(float(since["S"] or 0) * 10**6)


def _of_leap_years(
    date: tuple[int, int, int], day: int, rest: int, mixed: bool
) -> str | datetime.datetime:
    """Return days and microseconds after a date of the Gregorian calendar."""
    year, month, number = date
    if mixed and date < (1582, 10, 15):  # "since 1-1-1" counts days of the Julian calendar
        century = (year - (month < 3)) // 100
        day += century - century // 4 - 2
    start = np.datetime64(f"{year:04d}-{month:02d}-{number:02d}", "us")
    moment = start + np.timedelta64(day * _DAY + rest, "us")
    value = moment.item()
    return value if isinstance(value, datetime.datetime) else str(moment).removesuffix(".000000")


def _of_equal_years(
    date: tuple[int, int, int], day: int, rest: int, calendar: str
) -> str | datetime.datetime:
    """Return days and microseconds after a date of a calendar of models.

    All dates of ``noleap`` are dates of ours; with the 30th of February they are text.
    """
    months = _MONTHS[calendar]
    day += date[0] * sum(months) + sum(months[: date[1] - 1]) + date[2] - 1
    year, day = divmod(day, sum(months))
    month = next(m for m in range(1, 13) if day < sum(months[:m]))
    seconds, micros = divmod(rest, 10**6)
    clock = seconds // 3600, seconds // 60 % 60, seconds % 60
    whole = year, month, day - sum(months[: month - 1]) + 1, *clock
    if months == _COMMON and 1 <= year <= 9999:
        return datetime.datetime(*whole, micros)
    return "{:04d}-{:02d}-{:02d}T{:02d}:{:02d}:{:02d}".format(*whole)
