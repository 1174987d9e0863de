"""Units of measure, however files spell them: ``m s-1``, ``m/s`` and ``meters per second``."""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pint import UnitRegistry


def same_unit(one: str, other: str) -> bool:
    """Say whether two texts name one unit; an unknown unit may be any."""
    if one.strip().casefold() == other.strip().casefold():
        return True
    first, second = _unit(one), _unit(other)
    if first is None or second is None:
        return True
    return _factor(first, second) == 1.0


def metres(unit: str) -> float | None:
    """Return how many metres a unit is, None if it is not a length."""
    found = _unit(unit) if unit.strip() else None
    return None if found is None else _factor(found, _registry().metre)


def _factor(one: Any, other: Any) -> float | None:
    """Return how many of another unit make one, None if they are not proportional."""
    import pint

    try:
        zero, unit = (_registry().Quantity(n, one).to(other).magnitude for n in (0.0, 1.0))
    except pint.PintError:
        return None
    return float(f"{unit:.9g}") if abs(zero) < 1e-9 * abs(unit) else None


@cache
def _unit(text: str) -> Any:
    """Return the unit, as written or else in lower case; None if it is unknown."""
    for spelling in (text.strip(), text.strip().lower()):
        try:
            return _registry().parse_units(spelling)
        except Exception:
            continue
    return None


@cache
def _registry() -> UnitRegistry[Any]:
    from pint import UnitRegistry  # half a second, which most commands need not wait for

    return UnitRegistry(preprocessors=[_powers])


def _powers(text: str) -> str:
    """Write the powers of the CF conventions, ``s-1`` and ``m2``, as Python does."""
    return re.sub(r"(?<![\w.])([A-Za-z]+)\^?(?=[-+]?\d)", r"\1**", text)
