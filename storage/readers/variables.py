"""Variables of a file: what a format has to say about an array before it is read."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from storage.readers.coordinates import Coordinate
from storage.typing import Array

COMPONENT = "component"
COMPONENT_NAMES = frozenset({COMPONENT, "components", "comp", "channel", "channels", "vector"})
Selector = tuple[int | slice, ...]


@dataclass(frozen=True)
class Variable:
    """One array of a file, not read yet.

    Parameters
    ----------
    name
        As in the file; empty if the format has no names.
    shape, dtype
        Of the array, after unpacking.
    load
        Reads the part that an index for each axis selects.
    dims
        A name for each axis, `COMPONENT` for that of the components, ``""`` if unknown.
    units
        As the file gives them.
    coordinate
        Gives the positions along a named axis, whose length is one of those given; None if the
        file has none.
    series
        The name without the number of its time step.
    vector
        What the entries along the component axis are called.
    """

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    load: Callable[[Selector], Array]
    dims: tuple[str, ...]
    units: str | None = None
    coordinate: Callable[[str, Collection[int]], Coordinate | None] = lambda name, lengths: None
    series: str = ""
    vector: tuple[str, ...] = ("u", "v", "w")

    @property
    def label(self) -> str:
        """What the field is called."""
        return self.series or self.name or "field"

    def along(self, axis: str) -> Coordinate | None:
        """Return the positions along an axis, which may be one that the file does not name."""
        named = zip(self.dims, self.shape, strict=True)
        return self.coordinate(axis, {n for dim, n in named if dim == axis} or {*self.shape})

    def describe(self) -> str:
        """Return name and shape for a message."""
        sizes = ", ".join(
            f"{dim}={size}" if dim else str(size)
            for dim, size in zip(self.dims, self.shape, strict=True)
        )
        return f"{self.name or 'the array'} ({sizes})"


def name_axes(shape: tuple[int, ...], components: Sequence[str]) -> tuple[str, ...]:
    """Name the axes of an array without names: only the components' axis can be recognised.

    It is the last or the first axis if it is as long as the list of component names.
    """
    dims = [""] * len(shape)
    if len(shape) > 2 and len(components) > 1:
        axis = next((axis for axis in (-1, 0) if shape[axis] == len(components)), None)
        if axis is not None:
            dims[axis] = COMPONENT
    return tuple(dims)


def mark_components(
    dims: Sequence[str], shape: tuple[int, ...], components: Sequence[str]
) -> tuple[str, ...]:
    """Mark the components' axis among named axes, by its name or else by its length."""
    names = [COMPONENT if dim.lower() in COMPONENT_NAMES else dim for dim in dims]
    if COMPONENT not in names:
        by_length = name_axes(shape, components)
        names = [mark or name for mark, name in zip(by_length, names, strict=True)]
    return tuple(names)
