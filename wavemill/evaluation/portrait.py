"""Portraits: what a set of fields looks like, and how far apart two portraits are."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Self

import torch
from torch import Tensor

from wavemill.devices import BesideDefault


@dataclass(frozen=True)
class Portrait(BesideDefault):
    """Statistics of a set of fields, float64; where there is a field axis, it comes first.

    Attributes
    ----------
    spectrum
        Variance in each shell of wavenumber, ``(field, shell)``, in variances of the test set.
    quantiles
        Of the values of all fields together, standardised by the test set, ``(quantile,)``.
    skewness, flatness
        ``(field,)``.
    structure
        ``(field, lag, order)`` for lags 2^j and orders 1 to 5, of standardised fields.
    bispectrum
        ``(field, triple)``.
    minkowski
        ``(field, 3, threshold)``.
    pairs
        Correlation at the best shift of all pairs of fields, ``(pair,)``.
    """

    spectrum: Tensor
    quantiles: Tensor
    skewness: Tensor
    flatness: Tensor
    structure: Tensor
    bispectrum: Tensor
    minkowski: Tensor
    pairs: Tensor

    def state(self) -> dict[str, Tensor]:
        """Return all as tensors by name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor]) -> Self:
        """Rebuild from :meth:`state`."""
        return cls(**{field.name: state[field.name] for field in fields(cls)})


def distances(model: Portrait, test: Portrait) -> dict[str, float]:
    """Return those :data:`METRICS` that follow from a model's portrait and a test set's."""
    real = 1 - mean(test.pairs)
    return {
        "spectrum": _spectral_distance(model.spectrum.mean(0), test.spectrum.mean(0)),
        "pdf": float((model.quantiles - test.quantiles).abs().mean()),
        "skewness": mean(model.skewness),
        "skewness_scatter": scatter(model.skewness),
        "flatness": mean(model.flatness),
        "flatness_scatter": scatter(model.flatness),
        "structure": _log_distance(model.structure.mean(0), test.structure.mean(0)),
        "bispectrum": _relative(model.bispectrum.mean(0), test.bispectrum.mean(0)),
        "area": _relative(model.minkowski.mean(0)[0], test.minkowski.mean(0)[0]),
        "perimeter": _relative(model.minkowski.mean(0)[1], test.minkowski.mean(0)[1]),
        "euler": _relative(model.minkowski.mean(0)[2], test.minkowski.mean(0)[2]),
        "diversity": (1 - mean(model.pairs)) / real if real > 0 else math.nan,
    }


def _spectral_distance(model: Tensor, test: Tensor) -> float:
    """Return the root mean square of ln(model / test), each octave of wavenumber weighing the same.

    Shells below 1e-10 of the variance do not count: there real fields hold only rounding error.
    """
    weight = 1 / torch.arange(1, len(test) + 1, dtype=torch.float64)
    floor = 1e-10 * float(test.sum())
    ratio = ((model + floor) / (test + floor)).log().square()
    return math.sqrt(float((weight * ratio).sum() / weight.sum()))


def _log_distance(model: Tensor, test: Tensor) -> float:
    tiny = torch.finfo(torch.float64).tiny
    ratio = model.clamp(min=tiny) / test.clamp(min=tiny)
    return math.sqrt(float(ratio.log().square().mean()))


def _relative(model: Tensor, test: Tensor) -> float:
    norm = float(test.norm())
    return float((model - test).norm()) / norm if norm > 0 else math.nan


def mean(values: Tensor) -> float:
    """Return the mean of values, NaN if there are none."""
    return float(values.mean()) if values.numel() else math.nan


def scatter(values: Tensor) -> float:
    """Return the standard deviation of values, NaN if there are fewer than two."""
    return float(values.std()) if len(values) > 1 else math.nan
