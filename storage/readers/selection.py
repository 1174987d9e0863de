"""Variables chosen, cut to planes and joined to fields, the same way for every format."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from fnmatch import fnmatchcase
from functools import cache

import numpy as np

from storage.errors import BadInput
from storage.readers.coordinates import Coordinate, Position
from storage.readers.found import Found
from storage.readers.frames import (
    Frame,
    Header,
    ReadOptions,
    check_shape,
    field_array,
    field_dtype,
)
from storage.readers.planes import Plane, planes_of
from storage.readers.variables import Variable
from storage.text import writable

EXPANSION_LIMIT = 1100  # deflate cannot pack more than 1032 bytes into one
SMALL = 64 * 2**20  # bytes; no declared size below this is suspicious


def read_header(variables: Sequence[Variable], options: ReadOptions, size: int) -> Header:
    """Describe the frames that `read_frames` would give, without reading arrays."""
    groups = list(_groups(variables, options, size))
    parts, planes = groups[0][1], groups[0][2][0]
    return Header(
        planes[0].shape,
        np.result_type(*(field_dtype(part.dtype) for part in parts)).name,
        _components(parts, planes, options),
        _units(parts, planes),
        _spacing(parts[0].along, planes[0].axes),
        sum(len(group[2]) for group in groups),
        planes[0].axes,
        _steps(parts[0].along, planes[0].axes),
    )


def read_frames(variables: Sequence[Variable], options: ReadOptions, size: int) -> Found[Frame]:
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
    frames: Found[Frame] = Found()
    for prefix, parts, rows in _groups(variables, options, size):
        along = cache(parts[0].along)
        for planes in rows:
            index = ",".join(text for text in (prefix, planes[0].index) if text)
            try:
                frames.append(_frame(index, parts, planes, along, options))
            except BadInput as error:
                frames.refused.append((index, error))
    if not frames:
        raise frames.refused[0][1]
    return frames


def _frame(
    index: str,
    parts: Sequence[Variable],
    planes: Sequence[Plane],
    along: Along,
    options: ReadOptions,
) -> Frame:
    plane = planes[0]
    places = {name: _place(along, name, index) for name, index in plane.cuts.items()}
    stacked = np.concatenate([plane.read(part) for part, plane in zip(parts, planes, strict=True)])
    array, valid = field_array(stacked, options)
    return Frame(
        array,
        index,
        _components(parts, planes, options),
        _units(parts, planes),
        _spacing(along, plane.axes),
        plane.axes,
        _steps(along, plane.axes),
        {name: place for name, place in places.items() if place is not None},
        valid,
    )


Along = Callable[[str], Coordinate | None]
Group = tuple[str, tuple[Variable, ...], list[tuple[Plane, ...]]]


def _groups(variables: Sequence[Variable], options: ReadOptions, size: int) -> Iterator[Group]:
    """Yield for each step of a series its name, its variables and their planes, aligned."""
    chosen = choose(variables, options)
    for step in chosen:
        for variable in step:
            _check(variable, size)
        rows = [planes_of(variable, options) for variable in step]
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
    planar = [variable for variable in variables if sum(n > 1 for n in variable.shape) > 1]
    fields = planar or [variable for variable in variables if len(variable.shape) > 1]
    if len(variables) == 1 and not variables[0].name:
        return [(variables[0],)]
    names = options.variables()
    if not names:
        labels = {variable.label for variable in fields}
        if not labels:
            raise BadInput("variable", "has no array of numbers with two or more axes")
        if len(labels) > 1:
            listed = _listed(variables)
            raise BadInput("variable", f"has several variables: {listed}; choose with --variable")
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


def _place(along: Along, axis: str, index: int) -> Position | None:
    try:
        found = along(axis)
    except BadInput as error:
        if error.reason != "format":  # a field can do without texts that cannot be read
            raise
        return None
    return found.at(index) if found else None


def _spacing(along: Along, axes: tuple[str, ...]) -> tuple[float, float] | None:
    found = [place.spacing if (place := along(axis)) else None for axis in axes or ("y", "x")]
    return (found[0], found[1]) if found[0] is not None and found[1] is not None else None


def _steps(along: Along, axes: tuple[str, ...]) -> tuple[float | None, ...]:
    """Return the step along each axis, None where it is unknown; empty if all are."""
    found = tuple(place.placed if (place := along(axis)) else None for axis in axes)
    return found if any(found) else ()


def _check(variable: Variable, size: int) -> None:
    """Refuse what is not a field, or more than the file can hold, before memory is asked for."""
    names = "".join((variable.name, variable.units or "", *variable.dims))
    if writable(names) != names:
        raise BadInput("name", f"{variable.describe()}: its names or its unit are not in UTF-8")
    field_dtype(variable.dtype)
    declared = math.prod(variable.shape) * variable.dtype.itemsize
    if declared == 0:
        raise BadInput("shape", f"{variable.describe()} is empty")
    if declared > max(SMALL, EXPANSION_LIMIT * size):
        raise BadInput(
            "shape", f"{variable.describe()} declares {declared} bytes in a file of {size}"
        )
