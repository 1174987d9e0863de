"""Typed, frozen descriptions of every transform and model.

A spec is stable under serialisation: fields at their default are dropped, so that adding an
option keeps the keys of everything computed before it. A published default never changes
its meaning: that takes a new field or a higher ``algorithm``.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from wavemill.errors import InvalidParameter


@dataclass(frozen=True)
class Spec:
    """Base of all specs: ``kind`` names the idea, ``algorithm`` the version of its numbers."""

    kind: ClassVar[str]
    algorithm: ClassVar[int] = 1
    aliases: ClassVar[Mapping[str, str]] = {}  # other names that parameters may be given by

    def __post_init__(self) -> None:
        """Refuse what is none of a parameter's choices, which else would be taken for another."""
        hints = typing.get_type_hints(type(self))
        for field in dataclasses.fields(self):
            value, hint = getattr(self, field.name), hints[field.name]
            good = not (choices := _choices(hint)) or value in choices
            check(good, f"{self.kind}: {field.name}={value!r} is not {_expected(hint)}")

    def parameters(self) -> dict[str, Any]:
        """Return the fields that differ from their default, ready for JSON."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        defaults = {field.name: field.default for field in dataclasses.fields(self)}
        return {name: _plain(value) for name, value in values.items() if value != defaults[name]}

    def to_dict(self) -> dict[str, Any]:
        """Return ``{kind, parameters, algorithm}``, the form that storage keeps and hashes."""
        return {"kind": self.kind, "parameters": self.parameters(), "algorithm": self.algorithm}

    @classmethod
    def from_parameters(cls, parameters: Mapping[str, Any]) -> Self:
        """Build from JSON values or from command-line text such as ``{"J": "4"}``.

        Raises
        ------
        InvalidParameter
            If a name is unknown or a text cannot be read as the field's type.
        """
        hints = typing.get_type_hints(cls)
        known = {field.name for field in dataclasses.fields(cls)}
        named = {cls.aliases.get(name, name): value for name, value in parameters.items()}
        if len(named) < len(parameters):
            raise InvalidParameter(
                f"{cls.kind}: a parameter is given twice: {', '.join(parameters)}"
            )
        for name in named:
            if name not in known:
                raise InvalidParameter(
                    f"{cls.kind} has no parameter {name!r}; it has {', '.join(sorted(known))}"
                )
        return cls(
            **{name: _read(cls.kind, name, hints[name], value) for name, value in named.items()}
        )


def _plain(value: Any) -> Any:
    return [_plain(item) for item in value] if isinstance(value, tuple) else value


def _read(kind: str, name: str, hint: Any, value: Any) -> Any:
    """Turn ``value`` (JSON or text) into the type ``hint``, or say what was expected."""
    try:
        return _convert(hint, value)
    except (TypeError, ValueError) as error:
        raise InvalidParameter(f"{kind}: {name}={value!r} is not {_expected(hint)}") from error


def _expected(hint: Any) -> str:
    if choices := _choices(hint):
        return f"one of {', '.join(str(choice) for choice in choices if choice is not None)}"
    return f"a valid {getattr(hint, '__name__', str(hint))}"


def _choices(hint: Any) -> tuple[Any, ...]:
    """Return the values that a ``Literal`` allows, with None where that is; else nothing."""
    inner = [hint, *typing.get_args(hint)]
    choices = [typing.get_args(h) for h in inner if typing.get_origin(h) is typing.Literal]
    return (*choices[0], *([None] if type(None) in inner else [])) if choices else ()


def _convert(hint: Any, value: Any) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if value is None or (isinstance(value, str) and value.lower() == "none"):
            return None
        return _convert(next(a for a in arguments if a is not type(None)), value)
    if origin is typing.Literal:
        if value not in arguments:
            raise ValueError(value)
        return value
    if origin is tuple:
        items = _listed(value) if isinstance(value, str) else value
        return tuple(_convert(arguments[0], item) for item in items)
    if hint is bool:
        return _boolean(value)
    if hint is int and (isinstance(value, bool) or (isinstance(value, float) and value % 1)):
        raise ValueError(value)
    if hint is int and abs(int(value)) >= 2**53:  # keys are made of JSON, whose integers end here
        raise ValueError(value)
    return hint(value)


def _listed(text: str) -> list[str]:
    """Return the items of ``1,2``, or of ``[1, 2]`` as lists are printed."""
    return [item.strip(" '\"") for item in text.strip("[]() ").split(",") if item.strip()]


def _boolean(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    words = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
    return words[str(value).lower()] if str(value).lower() in words else _refuse(value)


def _refuse(value: Any) -> bool:
    raise ValueError(value)


def check(condition: bool, message: str) -> None:
    """Raise :class:`InvalidParameter` with ``message`` unless ``condition`` holds."""
    if not condition:
        raise InvalidParameter(message)


def check_least(spec: Spec, least: float, *names: str) -> None:
    """Refuse a spec if one of these parameters is below ``least``."""
    for name in names:
        value = getattr(spec, name)
        check(value >= least, f"{spec.kind}: {name}={value} must be {least} or more")


def check_above(spec: Spec, *names: str) -> None:
    """Refuse a spec if one of these parameters is not above 0; None is allowed."""
    for name in names:
        value = getattr(spec, name)
        good = value is None or value > 0
        check(good, f"{spec.kind}: {name}={value} must be above 0")


def check_part(spec: Spec, *names: str) -> None:
    """Refuse a spec if one of these is neither a part below 1 nor a whole number."""
    for name in names:
        value = getattr(spec, name)
        good = 0 < value < 1 or (value >= 1 and value % 1 == 0)
        message = f"must be a part between 0 and 1, or a whole number of samples: {value}"
        check(good, f"{spec.kind}: {name} {message}")


Precision = typing.Literal["float32", "float64"]
MomentSet = typing.Literal["A0", "A", "B", "C", "C+L", "C+moduli", "D", "pywph"]
ModelSet = typing.Literal[
    "A0",
    "A",
    "B",
    "C",
    "C+L",
    "C+moduli",
    "D",
    "pywph",
    "H",
    "rectifier",
    "scattering",
    "scattering-isotropic",
]


def check_bank(kind: str, J: int, L: int, lags: int) -> None:
    """Refuse a bank of wavelets that cannot be built."""
    check(1 <= J < 64, f"{kind}: J={J} must be 1 to 63")
    check(L >= 2, f"{kind}: L={L} must be 2 or more")
    check(lags >= 0, f"{kind}: lags={lags} must not be below 0")
