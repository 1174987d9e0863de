"""What a reader gives: frames, their header, and the options that choose them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from storage.errors import BadInput, InvalidRequest
from storage.readers.coordinates import Position

_INDEX = re.compile(r"all|(?P<first>-?\d+)(?:-(?P<last>\d+))?")
MINIMUM_SIDE = 4  # points; neither a wavelet nor a difference scheme fits on fewer


@dataclass(frozen=True)
class ReadOptions:
    """Which arrays of a file become samples.

    Parameters
    ----------
    variable
        Name in the file (``u10``), or several that become the components of one field
        (``u,v`` or a tuple). ``Velocity`` also names the numbered ``Velocity_0001`` ...,
        each of which becomes a frame. Formats without names take it as the name to give.
    components
        Names of the components, in order: those of an array's component axis, of several
        variables, or of the files that are stacked.
    slice
        ``AXIS:INDEX``, ``AXIS:FIRST-LAST`` or ``AXIS:all``, several joined by commas. An axis is
        a number in the file's own order or a name that the file gives (``z:12``, ``level:all``).

    fill
        ``mean``, of the field's other values, or a number to put where values are missing; without
        it such a field is refused.

    Raises
    ------
    storage.errors.InvalidRequest
        If ``slice`` or ``fill`` cannot be read.
    """

    variable: str | tuple[str, ...] | None = None
    components: tuple[str, ...] = ()
    slice: str | None = None
    fill: str | None = None

    def __post_init__(self) -> None:
        if self.variable is not None and not isinstance(self.variable, str):
            object.__setattr__(self, "variable", tuple(self.variable))
        object.__setattr__(self, "components", tuple(self.components))
        self.cuts()
        self.filling()

    def filling(self) -> float | None:
        """Return the number to put where values are missing; None for the mean or for none."""
        if self.fill in (None, "mean"):
            return None
        try:
            value = float(str(self.fill))
        except ValueError:
            value = np.nan
        if not np.isfinite(value):
            raise InvalidRequest(f"fill {self.fill!r} is neither a number nor mean")
        return value

    def variables(self) -> tuple[str, ...]:
        """Return the names asked for, none if the file is to have only one variable."""
        if isinstance(self.variable, tuple):
            return self.variable
        return tuple(name.strip() for name in (self.variable or "").split(",") if name.strip())

    def cuts(self) -> dict[str, tuple[int, int] | None]:
        """Return the first and the last index along each sliced axis, None for all of them."""
        cuts: dict[str, tuple[int, int] | None] = {}
        for part in (self.slice or "").split(",") if self.slice else ():
            axis, _, index = (text.strip() for text in part.partition(":"))
            found = _INDEX.fullmatch(index)
            if not axis or axis in cuts or not found:
                raise InvalidRequest(
                    f"slice {self.slice!r} is not AXIS:INDEX, AXIS:FIRST-LAST or AXIS:all, one for "
                    "an axis, joined by commas; for example 0:all, z:12 or month:0-5,level:all"
                )
            first = found["first"]
            cuts[axis] = None if first is None else (int(first), int(found["last"] or first))
        return cuts

    def to_dict(self) -> dict[str, Any]:
        """Return the options that differ from their default, ready for JSON."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in values.items()
            if value not in (None, ())
        }


@dataclass(frozen=True)
class Header:
    """What the frames of a file will be.

    Parameters
    ----------
    shape
        Points ``(y, x)`` of a frame.
    dtype
        Of the frames, such as ``float32``.
    components, units
        Name and unit of each component; None where the file gives no unit.
    spacing
        Signed distance ``(dy, dx)`` between points where coordinates are uniform, else None.
    frames
        How many frames there are.
    axes
        Names of the two axes, ``("z", "x")`` for a cut across y; none where they have no names.
    steps
        Signed mean step along each axis where its positions are known: metres, or degrees.
    """

    shape: tuple[int, int]
    dtype: str
    components: tuple[str, ...]
    units: tuple[str | None, ...]
    spacing: tuple[float, float] | None = None
    frames: int = 1
    axes: tuple[str, ...] = ()
    steps: tuple[float | None, ...] = ()


@dataclass
class Frame:
    """One field as it is in a file.

    Parameters
    ----------
    array
        ``(component, y, x)`` in native byte order, finite, float32 or float64.
    index
        Which frame of its file, such as ``z=12``; empty if it is the only one.
    components, units, spacing, axes, steps
        As in `Header`.
    positions
        Where it was cut out, by name of the axis: a number, a text or a moment.
    valid
        Share of the values that were not missing, before these were filled.
    """

    array: npt.NDArray[np.floating[Any]]
    index: str
    components: tuple[str, ...]
    units: tuple[str | None, ...]
    spacing: tuple[float, float] | None = None
    axes: tuple[str, ...] = ()
    steps: tuple[float | None, ...] = ()
    positions: Mapping[str, Position] = field(default_factory=dict)
    valid: float = 1.0


def field_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return the float type that holds values of ``dtype`` exactly, or as well as float64 can.

    Raises
    ------
    BadInput
        If the values are complex or not numbers at all.
    """
    if dtype.kind == "c":
        raise BadInput(
            "dtype",
            f"complex values ({dtype}); store real and imaginary part as two components, "
            "or the modulus",
        )
    if dtype.hasobject:
        raise BadInput("pickle", "holds Python objects, which are never loaded; store numbers")
    if dtype.kind not in "biuf":
        raise BadInput("dtype", f"values of type {dtype}; only integers and floats are fields")
    small = dtype.itemsize <= (4 if dtype.kind == "f" else 2)
    return np.dtype(np.float32 if small else np.float64)


def field_array(
    values: npt.NDArray[Any], options: ReadOptions
) -> tuple[npt.NDArray[np.floating[Any]], float]:
    """Return a writable, contiguous, native copy as floats, and the share that was not filled.

    Raises
    ------
    BadInput
        If a value is infinite, or missing and not to be filled, or a component has none at all.
    """
    array = np.array(values, dtype=field_dtype(values.dtype), order="C", copy=True)
    finite = np.isfinite(array)
    if finite.all():
        return array, 1.0
    missing = f"{array.size - finite.sum()} of {array.size} values are not finite"
    if np.isinf(array).any():
        raise BadInput("nan", f"{missing}, some of them infinite")
    if options.fill is None:
        raise BadInput("nan", f"{missing}: fill them with --fill mean or --fill NUMBER")
    for component, there in zip(array, finite, strict=True):
        if not there.any():
            raise BadInput("nan", f"{missing}: a component has no value at all")
        value = options.filling()
        component[~there] = component[there].mean(dtype=float) if value is None else value
    return array, float(finite.mean())


def check_shape(shape: tuple[int, int]) -> None:
    """Raise `BadInput` if a field has too few points."""
    if min(shape) < MINIMUM_SIDE:
        raise BadInput(
            "shape",
            f"a field of {shape[0]} x {shape[1]} points; at least {MINIMUM_SIDE} are needed "
            "along each axis",
        )
