"""Units however files spell them."""

from __future__ import annotations

import pytest

from storage.units import metres, same_unit

SPELLINGS = [
    ("m s-1", "m/s", "m s**-1", "m s^-1", "meters per second", " m  s-1 "),
    ("K", "kelvin", "Kelvin", "degK"),
    ("degC", "celsius", "Celsius", "degree_Celsius"),
    ("hPa", "mbar", "millibar"),
    ("kg m-2 s-1", "kg/m^2/s"),
    ("m2 s-2", "m**2 s**-2", "J kg-1"),
    ("psu", "PSU"),
]


@pytest.mark.parametrize("spellings", SPELLINGS, ids=lambda spellings: spellings[0])
def test_spellings_of_one_unit_are_the_same(spellings: tuple[str, ...]) -> None:
    assert all(same_unit(spellings[0], other) for other in spellings)


@pytest.mark.parametrize(
    ("one", "other"),
    [("degC", "K"), ("m", "km"), ("m s-1", "km h-1"), ("Pa", "hPa"), ("g kg-1", "kg kg-1")],
)
def test_other_units_are_told_apart(one: str, other: str) -> None:
    assert not same_unit(one, other)


@pytest.mark.parametrize(
    "unknown", ["psu", "1e-3", "log10(K)", "()", "] [", "degrees_C", "x" * 999]
)
def test_what_is_no_known_unit_may_be_any(unknown: str) -> None:
    assert same_unit(unknown, "K")


@pytest.mark.parametrize(
    ("unit", "size"),
    [("km", 1000.0), ("meters", 1.0), ("cm", 0.01), ("degrees_north", None), ("", None)],
)
def test_lengths_are_metres(unit: str, size: float | None) -> None:
    assert metres(unit) == size
