"""Variables of a file, and the rules that turn them into fields.

A format only says which arrays a file has and how their axes are called. Here they are
chosen, cut to planes and joined to components, the same way for every format.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt

from storage.errors import BadInput
from storage.readers.frames import (
    Frame,
    Frames,
    Header,
    ReadOptions,
    check_shape,
    field_array,
    field_dtype,
)

COMPONENT = "component"
COMPONENT_NAMES = frozenset({COMPONENT, "components", "comp", "channel", "channels", "vector"})
EXPANSION_LIMIT = 1100  # deflate cannot pack more than 1032 bytes into one
SMALL = 64 * 2**20  # bytes; below this no declared size is worth a suspicion
Array = npt.NDArray[Any]
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
        Gives the positions along a named axis, None if the file has none.
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
    coordinate: Callable[[str], Array | None] = lambda name: None
    series: str = ""
    vector: tuple[str, ...] = ("u", "v", "w")

    @property
    def label(self) -> str:
        """What the field is called."""
        return self.series or self.name or "field"

    def describe(self) -> str:
        """Return name and shape for a message."""
        sizes = ", ".join(
            f"{dim}={size}" if dim else str(size)
            for dim, size in zip(self.dims, self.shape, strict=True)
        )
        return f"{self.name or 'the array'} ({sizes})"


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
        Names of the two axes.
    components
        Names along the component axis.
    component_axis
        Its position in what the selector leaves, None if there is none.
    """

    index: str
    selector: Selector
    shape: tuple[int, int]
    axes: tuple[str, str]
    components: tuple[str, ...]
    component_axis: int | None

    def read(self, variable: Variable) -> Array:
        """Return ``(component, y, x)``."""
        values = variable.load(self.selector)
        if self.component_axis is None:
            return values[np.newaxis]
        return np.moveaxis(values, self.component_axis, 0)


def name_axes(shape: tuple[int, ...], components: Sequence[str]) -> tuple[str, ...]:
    """Name the axes of an array without names: only the components' axis can be told.

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


def read_header(variables: Sequence[Variable], options: ReadOptions, size: int) -> Header:
    """Describe the frames that `read_frames` would give, without reading arrays."""
    groups = list(_groups(variables, options, size))
    parts, planes = groups[0][1], groups[0][2][0]
    return Header(
        planes[0].shape,
        np.result_type(*(field_dtype(part.dtype) for part in parts)).name,
        _components(parts, planes, options),
        _units(parts, planes),
        _spacing(parts[0], planes[0].axes),
        None,
        sum(len(group[2]) for group in groups),
        planes[0].axes,
    )


def read_frames(variables: Sequence[Variable], options: ReadOptions, size: int) -> Frames:
    """Read the fields that the options choose.

    Parameters
    ----------
    variables
        All that the file has.
    options
        Which of them, and which planes.
    size
        Bytes of the file, against which declared shapes are checked.

    Raises
    ------
    BadInput
        If nothing can be chosen or no frame is good.
    """
    frames = Frames()
    for prefix, parts, rows in _groups(variables, options, size):
        for planes in rows:
            index = ",".join(text for text in (prefix, planes[0].index) if text)
            try:
                frames.append(_frame(index, parts, planes, options))
            except BadInput as error:
                frames.refused.append((index, error))
    if not frames:
        raise frames.refused[0][1]
    return frames


def _frame(
    index: str, parts: Sequence[Variable], planes: Sequence[Plane], options: ReadOptions
) -> Frame:
    stacked = np.concatenate([plane.read(part) for part, plane in zip(parts, planes, strict=True)])
    return Frame(
        field_array(stacked),
        index,
        _components(parts, planes, options),
        _units(parts, planes),
        _spacing(parts[0], planes[0].axes),
        None,
        planes[0].axes,
    )


Group = tuple[str, tuple[Variable, ...], list[tuple[Plane, ...]]]


def _groups(variables: Sequence[Variable], options: ReadOptions, size: int) -> Iterator[Group]:
    """Yield for each step of a series its name, its variables and their planes, aligned."""
    chosen = choose(variables, options)
    for step in chosen:
        for variable in step:
            _check_size(variable, size)
        rows = [planes(variable, options) for variable in step]
        if len({tuple((plane.index, plane.shape) for plane in row) for row in rows}) > 1:
            listed = ", ".join(variable.describe() for variable in step)
            raise BadInput("shape", f"variables of one field must have one shape: {listed}")
        for plane in rows[0]:
            check_shape(plane.shape)
        yield step[0].name if len(chosen) > 1 else "", step, list(zip(*rows, strict=True))


def choose(variables: Sequence[Variable], options: ReadOptions) -> list[tuple[Variable, ...]]:
    """Return the variables of each step of a series: one step unless names are numbered.

    Raises
    ------
    BadInput
        If a name is not there, or none is given and there are several to choose from.
    """
    fields = [variable for variable in variables if len(variable.shape) > 1]
    if len(variables) == 1 and not variables[0].name:
        return [(variables[0],)]
    names = options.variables()
    if not names:
        labels = {variable.label for variable in fields}
        if len(labels) != 1:
            what = "has several variables" if labels else "has no array of two or more axes"
            raise BadInput("variable", f"{what}: {_listed(variables)}; choose with --variable")
        return [(variable,) for variable in fields]
    columns = [_named(name, variables) for name in names]
    if len({len(column) for column in columns}) > 1:
        raise BadInput("variable", f"{','.join(names)} do not have equally many time steps")
    return list(zip(*columns, strict=True))


def _named(name: str, variables: Sequence[Variable]) -> list[Variable]:
    for matches in (
        lambda variable: variable.name == name,
        lambda variable: variable.name.rpartition("/")[2] == name,
        lambda variable: variable.series == name,
        lambda variable: fnmatchcase(variable.name, name),
    ):
        found = [variable for variable in variables if matches(variable)]
        if found:
            return found
    raise BadInput("variable", f"there is no {name!r}; there is {_listed(variables) or 'nothing'}")


def _listed(variables: Sequence[Variable]) -> str:
    shown = [variable.describe() for variable in variables[:12]]
    return ", ".join([*shown, *(["..."] if len(variables) > 12 else [])])


def planes(variable: Variable, options: ReadOptions) -> list[Plane]:
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
        (axes[0], axes[1]) if all(axes) else ("y", "x"),
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


def _resolve(variable: Variable, cuts: dict[str, int | None]) -> dict[int, Sequence[int]]:
    """Turn ``{"z": 3}`` into ``{axis: (3,)}``, checked against the shape."""
    resolved: dict[int, Sequence[int]] = {}
    rank = len(variable.shape)
    for name, index in cuts.items():
        number = int(name) if name.lstrip("-").isdigit() else None
        if number is not None and -rank <= number < rank:
            axis = number % rank
        elif name in variable.dims:
            axis = variable.dims.index(name)
        else:
            raise BadInput("slice", f"no axis {name!r} in {variable.describe()}")
        size = variable.shape[axis]
        if index is not None and not -size <= index < size:
            raise BadInput(
                "slice", f"index {index} along {name!r} is outside {variable.describe()}"
            )
        resolved[axis] = range(size) if index is None else (index % size,)
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
        f"--slice {','.join(f'{name}:INDEX' for name in extra)}, or all for an index"
    )
    ends = [end for end in (spatial[-1], spatial[0]) if variable.shape[end] in (2, 3)]
    if vector is None and len(spatial) == 3 and ends:
        names = ",".join(("u", "v", "w")[: variable.shape[ends[0]]])
        message += f", or name the components along axis {ends[0]} with --components {names}"
    return BadInput("needs-slice", message)


def _components(
    parts: Sequence[Variable], planes: Sequence[Plane], options: ReadOptions
) -> tuple[str, ...]:
    names = tuple(name for plane in planes for name in plane.components)
    given = options.components
    if not given and not parts[0].name:
        given = options.variables()
    if given and len(given) != len(names):
        raise BadInput(
            "components",
            f"{parts[0].describe()} gives {len(names)} component(s), not the {len(given)} of "
            f"{','.join(given)}",
        )
    return given or names


def _units(parts: Sequence[Variable], planes: Sequence[Plane]) -> tuple[str | None, ...]:
    return tuple(
        part.units for part, plane in zip(parts, planes, strict=True) for _ in plane.components
    )


def _spacing(variable: Variable, axes: tuple[str, str]) -> tuple[float, float] | None:
    steps = [_step(variable.coordinate(axis)) for axis in axes]
    return (steps[0], steps[1]) if steps[0] is not None and steps[1] is not None else None


def _step(positions: Array | None) -> float | None:
    """Return the signed step of uniform positions, None if there is no such step."""
    if positions is None or positions.ndim != 1 or len(positions) < 2:
        return None
    if positions.dtype.kind not in "iuf":
        return None
    values = positions.astype(np.float64)
    step = float(values[-1] - values[0]) / (len(values) - 1)
    # Positions are often rounded to float32, hence a tolerance well above its precision.
    even = bool(np.allclose(np.diff(values), step, rtol=1e-2, atol=0))
    return step if even and step != 0 else None


def _check_size(variable: Variable, size: int) -> None:
    """Refuse a shape that the bytes of the file cannot hold, before memory is asked for."""
    declared = math.prod(variable.shape) * variable.dtype.itemsize
    if declared == 0:
        raise BadInput("shape", f"{variable.describe()} is empty")
    if declared > max(SMALL, EXPANSION_LIMIT * size):
        raise BadInput(
            "shape", f"{variable.describe()} declares {declared} bytes in a file of {size}"
        )
