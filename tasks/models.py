"""Which class fits which model of fields; everything else about models is in `tasks.kinds`."""

from __future__ import annotations

from typing import Any, Protocol, Self

import torch

from storage import InvalidRequest
from tasks.kinds import MODEL_KINDS
from wavemill.maxent import Energy, Gaussian, Microcanonical
from wavemill.progress import Progress
from wavemill.specs import EnergySpec, GaussianSpec, MicrocanonicalSpec, Spec


class Model(Protocol):
    """A model of a stationary field, by scikit-learn's convention."""

    spec: Any
    metrics_: dict[str, float]

    def fit(self, x: torch.Tensor, progress: Progress | None = None) -> Self:
        """Learn from samples ``(n[, component], y, x)``."""
        ...

    def sample(
        self, n: int, seed: int = 0, progress: Progress | None = None, *, first: int = 0
    ) -> torch.Tensor:
        """Draw ``(n[, component], y, x)``: samples ``first``, ``first + 1``, ... of the seed."""
        ...

    def state(self) -> dict[str, torch.Tensor]:
        """Return everything learnt."""
        ...

    @classmethod
    def from_state(cls, spec: Any, state: dict[str, torch.Tensor]) -> Self:
        """Return the model that has learnt this state."""
        ...


MODELS: dict[str, tuple[type[Spec], Any]] = {
    "gaussian": (GaussianSpec, Gaussian),
    "phase-harmonics": (MicrocanonicalSpec, Microcanonical),
    "energy": (EnergySpec, Energy),
}


def model_class(kind: str) -> Any:
    """Return the class of a kind of model.

    Raises
    ------
    InvalidRequest
        If the kind is unknown.
    """
    return _entry(kind)[1]


def model_spec(kind: str, parameters: dict[str, Any]) -> Spec:
    """Return the checked spec of a kind of model."""
    return _entry(kind)[0].from_parameters(parameters)


def _entry(kind: str) -> tuple[type[Spec], Any]:
    if kind not in MODELS:
        raise InvalidRequest(f"no model {kind!r}: choose one of {', '.join(MODEL_KINDS)}")
    return MODELS[kind]
