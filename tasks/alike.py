"""Whether a field has the quantity and the grid that a dataset holds."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from fnmatch import fnmatchcase

from storage import BadInput, Schema
from storage.readers import Frame
from storage.units import same_unit

NAMELESS = re.compile(r"field|component\d+|arr_\d+")  # such names say nothing
_NUMBERED = re.compile(r"(.*?)[\W_]*(\d*)", re.DOTALL)  # a name, and the number at its end
STEP = 1e-2  # relative; positions are often rounded


def check_quantity(found: Frame | Schema, schema: Schema) -> None:
    """Refuse another variable or unit than the dataset's, where both are known.

    Raises
    ------
    BadInput
        If the field has another.
    """
    if len(found.components) != len(schema.components):
        raise BadInput(
            "components",
            f"has {','.join(found.components)} where the dataset has "
            f"{','.join(schema.components)}: choose with --variable or --components",
        )
    for name, wanted in zip(found.components, schema.components, strict=True):
        if not (NAMELESS.fullmatch(name) or NAMELESS.fullmatch(wanted) or _are_one(name, wanted)):
            names = ",".join(schema.components)
            raise BadInput(
                "variable",
                f"is {','.join(found.components)} where the dataset has {names}: choose with "
                f"--variable, or another --name; --components {names} if it is the same "
                "under another name",
            )
    for unit, wanted_unit in zip(found.units, schema.units, strict=False):
        if unit and wanted_unit and not same_unit(unit, wanted_unit):
            raise BadInput(
                "units",
                f"is in {unit} where the dataset is in {wanted_unit}: convert it, or choose "
                "another --name",
            )


def _are_one(name: str, other: str) -> bool:
    """Say whether two names belong to one series: u0 and u7, or u_0008 and u; not z500 and z850.

    Numbers that count begin with a 0; those that say where a quantity is taken do not.
    """
    first, second = _NUMBERED.fullmatch(name), _NUMBERED.fullmatch(other)
    assert first is not None  # any text is a name and a number, which may be empty
    assert second is not None
    counted = first[2].startswith("0") or second[2].startswith("0")
    return name == other or (first[1] == second[1] and counted)


def check_shape(shape: tuple[int, ...], schema: Schema) -> None:
    """Refuse a field of another shape than the dataset's.

    Raises
    ------
    BadInput
        If it is.
    """
    if shape != tuple(schema.shape):
        size, wanted = "x".join(map(str, shape)), "x".join(map(str, schema.shape))
        raise BadInput(
            "shape",
            f"is {size} where the dataset is {wanted}: use --shape {size} and another --name",
        )


def check_axes(frame: Frame, schema: Schema) -> None:
    """Refuse a field that is transposed, or lies in another plane, as far as names of axes tell.

    Raises
    ------
    BadInput
        If it is.
    """
    axes, others = ([_along(axis) for axis in named] for named in (frame.axes, schema.axes))
    transposed = axes != others and axes == others[::-1]
    cuts = {*axes, *others} <= {"x", "y", "z"} and ["y", "x"] not in (axes, others)
    if not transposed and not (cuts and axes != others):
        return
    raise BadInput(
        "axes",
        f"has the axes {','.join(frame.axes)} where the dataset has {','.join(schema.axes)}: "
        "transpose it, or choose another --name",
    )


def _along(axis: str) -> str:
    """Return what an axis is along: latitudes go by many names, as longitudes do."""
    name = axis.lower()
    return "y" if "lat" in name else "x" if "lon" in name else name


def check_steps(frame: Frame, schema: Schema) -> None:
    """Refuse a field whose points are spaced otherwise than the dataset's, where both are known.

    Raises
    ------
    BadInput
        If they do.
    """
    for step, wanted in zip(frame.steps, schema.steps, strict=False):
        if step is None or wanted is None or math.isclose(step, wanted, rel_tol=STEP):
            continue
        steps, others = (
            ",".join("?" if s is None else f"{s:.4g}" for s in both)
            for both in (frame.steps, schema.steps)
        )
        way = "turn the axis round" if math.isclose(step, -wanted, rel_tol=STEP) else "regrid it"
        raise BadInput(
            "spacing",
            f"has the grid steps {steps} where the dataset has {others}: {way}, or choose "
            "another --name",
        )


def may_name(names: Sequence[str], components: Sequence[str]) -> bool:
    """Say whether flags may have given these components: one name may stand for a whole vector."""
    if len(names) != len(components):
        return len(names) < 2
    return all(
        NAMELESS.fullmatch(component)
        or fnmatchcase(component, own := name.rpartition("/")[2])
        or re.fullmatch(rf"{re.escape(component)}_?\d+", own)  # a step of a series
        for name, component in zip(names, components, strict=True)
    )
