"""Planes within a variable: which index to take along the axes that a field does not have."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from storage.errors import BadInput
from storage.readers.frames import ReadOptions
from storage.readers.variables import COMPONENT, Selector, Variable
from storage.typing import Array


@dataclass(frozen=True)
class Plane:
    """One field within a variable: what to load and how its axes lie.

    Parameters
    ----------
    index
        Name among the planes of the variable, such as ``z=12``.
    selector
        Index for each axis of the variable.
    shape
        Points ``(y, x)``.
    axes
        Names of the two axes, none where they have none.
    cuts
        Index along each of the other axes that have a name.
    components
        Names along the component axis.
    component_axis
        Its position in what the selector leaves, None if there is none.
    """

    index: str
    selector: Selector
    shape: tuple[int, int]
    axes: tuple[str, ...]
    cuts: dict[str, int]
    components: tuple[str, ...]
    component_axis: int | None

    def read(self, variable: Variable) -> Array:
        """Return ``(component, y, x)``."""
        values = variable.load(self.selector)
        if self.component_axis is None:
            return values[np.newaxis]
        return np.moveaxis(values, self.component_axis, 0)


def planes_of(variable: Variable, options: ReadOptions) -> list[Plane]:
    """Return the fields within a variable: the last two axes left after slicing are (y, x).

    Raises
    ------
    BadInput
        If an axis or index is not there, or if more than two axes are left
        (``needs-slice``) or fewer (``shape``).
    """
    cuts = _resolve(variable, options.cuts())
    kept = [axis for axis in range(len(variable.shape)) if axis not in cuts]
    vector = next((axis for axis in kept if variable.dims[axis] == COMPONENT), None)
    spatial = _without_singletons([axis for axis in kept if axis != vector], variable.shape)
    if len(spatial) != 2:
        raise _cannot_be_planes(variable, spatial, vector)
    return [
        _plane(variable, dict(zip(cuts, indices, strict=True)), spatial, vector)
        for indices in product(*cuts.values())
    ]


def _plane(
    variable: Variable, cuts: dict[int, int], spatial: list[int], vector: int | None
) -> Plane:
    left = sorted([*spatial, *([] if vector is None else [vector])])
    selector = tuple(
        slice(None) if axis in left else cuts.get(axis, 0) for axis in range(len(variable.shape))
    )
    axes = tuple(variable.dims[axis] for axis in spatial)
    return Plane(
        ",".join(f"{variable.dims[axis] or f'axis{axis}'}={cuts[axis]}" for axis in sorted(cuts)),
        selector,
        (variable.shape[spatial[0]], variable.shape[spatial[1]]),
        axes if all(axes) else (),
        {
            variable.dims[axis]: cuts.get(axis, 0)
            for axis in range(len(variable.shape))
            if axis not in left and variable.dims[axis] not in ("", COMPONENT)
        },
        _names_along(variable, cuts, vector),
        None if vector is None else left.index(vector),
    )


def _names_along(variable: Variable, cuts: dict[int, int], vector: int | None) -> tuple[str, ...]:
    cut = next((axis for axis in cuts if variable.dims[axis] == COMPONENT), None)
    axis = cut if vector is None else vector
    if axis is None or variable.shape[axis] == 1:
        return (variable.label,)
    count = variable.shape[axis]
    names = variable.vector if count <= len(variable.vector) else ()
    names = names or tuple(f"component{number}" for number in range(count))
    return (names[cuts[axis]],) if vector is None else names[:count]


def _resolve(
    variable: Variable, cuts: dict[str, tuple[int, int] | None]
) -> dict[int, Sequence[int]]:
    """Turn ``{"z": 3}`` into ``{axis: (3,)}``, checked against the shape."""
    resolved: dict[int, Sequence[int]] = {}
    rank = len(variable.shape)
    for name, ends in cuts.items():
        number = int(name) if name.lstrip("-").isdigit() else None
        if number is not None and -rank <= number < rank:
            axis = number % rank
        elif name in variable.dims:
            axis = variable.dims.index(name)
        else:
            raise BadInput("slice", f"no axis {name!r} in {variable.describe()}")
        size = variable.shape[axis]
        if ends is None:
            resolved[axis] = range(size)
            continue
        outside = [index for index in ends if not -size <= index < size]
        if outside:
            raise BadInput(
                "slice", f"index {outside[0]} along {name!r} is outside {variable.describe()}"
            )
        first, last = (index % size for index in ends)
        if first > last:
            raise BadInput("slice", f"{ends[0]}-{ends[1]} along {name!r} holds no index")
        resolved[axis] = range(first, last + 1)
    return resolved


def _without_singletons(axes: list[int], shape: tuple[int, ...]) -> list[int]:
    """Drop axes of length 1 that cannot be y or x: a last one, and any before the last two."""
    while len(axes) > 2:
        single = [axis for axis in (axes[-1], *axes[:-2]) if shape[axis] == 1]
        if not single:
            break
        axes = [axis for axis in axes if axis != single[0]]
    return axes


def _cannot_be_planes(variable: Variable, spatial: list[int], vector: int | None) -> BadInput:
    if len(spatial) < 2:
        return BadInput("shape", f"{variable.describe()} leaves no plane; a field has two axes")
    extra = [variable.dims[axis] or str(axis) for axis in spatial[:-2]]
    message = (
        f"{variable.describe()} has more than two axes: choose planes with "
        f"--slice {','.join(f'{name}:INDEX' for name in extra)}, or `all` instead of an INDEX"
    )
    ends = [end for end in (spatial[-1], spatial[0]) if variable.shape[end] in (2, 3)]
    if vector is None and len(spatial) == 3 and ends:
        names = ",".join(("u", "v", "w")[: variable.shape[ends[0]]])
        message += f", or name the components along axis {ends[0]} with --components {names}"
    return BadInput("needs-slice", message)
