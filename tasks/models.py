"""Which model is fitted by which class."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, Self

import torch
from wavemill.maxent import Gaussian, Microcanonical

from storage import InvalidRequest
from wavemill.specs import Spec

Progress = Callable[[int, int, dict[str, float]], None]


class Model(Protocol):
    """A model of a stationary field, by scikit-learn's convention."""

    spec: Any
    metrics_: dict[str, float]

    def fit(self, x: torch.Tensor, progress: Progress | None = None) -> Self:
        """Learn from samples ``(n[, component], y, x)``."""
        ...

    def sample(self, n: int, seed: int = 0, progress: Progress | None = None) -> torch.Tensor:
        """Draw ``(n[, component], y, x)``."""
        ...

    def state(self) -> dict[str, torch.Tensor]:
        """Return everything learnt."""
        ...


MODELS: dict[str, Any] = {"gaussian": Gaussian, "phase-harmonics": Microcanonical}


def model_class(kind: str) -> Any:
    """Return the class of a kind of model.

    Raises
    ------
    InvalidRequest
        If the kind is unknown.
    """
    if kind not in MODELS:
        raise InvalidRequest(f"no model {kind!r}: choose one of {', '.join(MODELS)}")
    return MODELS[kind]


def model_spec(kind: str, parameters: dict[str, Any]) -> Spec:
    """Return the checked spec of a model."""
    spec: Spec = model_class(kind).spec_class.from_parameters(parameters)
    return spec
