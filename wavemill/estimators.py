"""What models share with scikit-learn's estimators: parameters to be asked for and changed."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, Self, TypeVar

from wavemill.devices import BesideDefault
from wavemill.errors import InvalidParameter
from wavemill.specs import Spec

AnySpec = TypeVar("AnySpec", bound=Spec)


def as_spec(kind: type[AnySpec], spec: AnySpec | Mapping[str, Any] | None) -> AnySpec:
    """Return ``spec`` itself, one made from its parameters, or the default."""
    if isinstance(spec, Mapping) or spec is None:
        return kind.from_parameters(spec or {})
    if not isinstance(spec, kind):
        raise InvalidParameter(f"expected a {kind.__name__}, its parameters or None, got {spec!r}")
    return spec


class Estimator(BesideDefault):
    """What is made from parameters kept under their names.

    scikit-learn's ``clone`` makes another from the same, which has learnt nothing.
    """

    def __repr__(self) -> str:
        parameters = (f"{name}={value!r}" for name, value in self.get_params().items())
        return f"{type(self).__name__}({', '.join(parameters)})"

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return what another is made from, by name."""
        return {name: getattr(self, name) for name in inspect.signature(type(self)).parameters}

    def set_params(self, **changes: Any) -> Self:
        """Change parameters; what is learnt stays as it is.

        Raises
        ------
        InvalidParameter
            If there is no such parameter, or it cannot have that value.
        """
        known = self.get_params()
        if unknown := sorted(changes.keys() - known.keys()):
            has = ", ".join(known)
            raise InvalidParameter(
                f"{type(self).__name__} has no parameter {unknown[0]!r}; it has {has}"
            )
        made = type(self)(**known | changes)
        vars(self).update(made.get_params())
        return self


class Specified(Estimator):
    """An estimator whose one parameter is a spec, in which ``set_params`` finds all others."""

    spec: Any

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.spec!r})"

    def set_params(self, *, spec: Any = None, **changes: Any) -> Self:
        """Take another spec, or the same with changed parameters; see `Estimator`."""
        kind = type(self.spec)
        chosen = self.spec if spec is None else as_spec(kind, spec)
        self.spec = kind.from_parameters(chosen.parameters() | changes) if changes else chosen
        return self
