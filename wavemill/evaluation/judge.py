"""Judging: sets of fields described in the same way, and how far they are from a test set.

Everything is compared with real fields that no model was fitted to, and beside every number stands
what real fields score against other real fields.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Self

import numpy as np
import torch
from torch import Tensor

from wavemill.errors import InvalidParameter, ShapeMismatch
from wavemill.evaluation.bispectrum import bispectrum
from wavemill.evaluation.diversity import best_correlation, pair_correlations
from wavemill.evaluation.foveal import Covariances, FovealCorrelation, largest_scale
from wavemill.evaluation.minkowski import minkowski_functionals
from wavemill.spectra import PowerSpectrum, flatness, skewness, structure_functions, tapered

THRESHOLDS = tuple(np.linspace(-3, 3, 25).tolist())  # in standard deviations of the test set
ORDERS = (1, 2, 3, 4, 5)
QUANTILES = 1023
SMALLEST = {True: 4, False: 9}  # side of a grid on which J = 1 fits, of fields that wrap or not
ONE_MAP = 2  # real fields that take their turn as the only sample of a model
Follow = Callable[[str], None]

METRICS = {
    "eps": "|R_test - R_model| / |R_test| on the foveal phase-harmonic correlation matrix",
    "spectrum": "root mean square of ln(model / test) over octaves of the power spectrum",
    "pdf": "Wasserstein distance of the distributions of values, in standard deviations",
    "skewness": "mean over samples",
    "skewness_scatter": "standard deviation over samples",
    "flatness": "mean over samples; 3 if Gaussian",
    "flatness_scatter": "standard deviation over samples",
    "structure": "root mean square of ln(model / test) over structure functions S(2^j, q), q <= 5",
    "bispectrum": "relative distance of the normalised bispectra",
    "area": "relative distance of the areas above thresholds",
    "perimeter": "relative distance of their perimeters",
    "euler": "relative distance of their Euler characteristics",
    "diversity": "mean 1 - c over pairs of samples, c their correlation at the best shift, "
    "relative to real pairs",
    "memory": "mean correlation with the fields fitted to, at the best shift",
    "coherence": "relative distance of the correlations between components, octave by octave",
}


@dataclass(frozen=True)
class Portrait:
    """What a set of fields looks like, float64, its first axis the fields where there is one.

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


class Judge:
    """Scores sets of fields against a test set.

    Parameters
    ----------
    test
        Real fields ``(n, y, x)`` that no model was fitted to, two at least.
    J, L
        Scales and angles of the foveal matrix; J is lowered to what fits, see :attr:`J`.
    periodic
        Whether fields wrap around. If not, the foveal matrix and J leave out borders, spectra are
        those of tapered fields, and no increment or neighbour crosses a border. Diversity and
        memory take the best of all cyclic shifts either way.

    Raises
    ------
    InvalidParameter
        If there are fewer than two test fields, all their values are equal or some not finite, or
        no scale fits on the grid.
    ShapeMismatch
        If the fields are not of one grid.
    """

    def __init__(
        self,
        test: Tensor,
        J: int = 5,
        L: int = 8,
        periodic: bool = True,
        follow: Follow | None = None,
    ) -> None:
        if test.ndim != 3 or len(test) < 2:
            raise InvalidParameter(
                f"judging needs two real fields (n, y, x) or more, got {tuple(test.shape)}"
            )
        self.shape = (test.shape[-2], test.shape[-1])
        self._check(test)
        self.J, self.periodic = min(J, largest_scale(self.shape, periodic)), periodic
        if self.J < 1:
            points = f"{SMALLEST[periodic]} x {SMALLEST[periodic]}"
            raise InvalidParameter(
                f"J={J} on a grid of {self.shape}: judging takes J >= 1 and "
                + (
                    f"{points} points"
                    if periodic
                    else f"{points} of fields that do not wrap around"
                )
            )
        self.mean, self.std = float(test.double().mean()), float(test.double().std(correction=0))
        if not 0 < self.std < math.inf:
            raise InvalidParameter(
                f"nothing to judge by: the standard deviation of the real fields is {self.std}"
            )
        self._test, self._follow = test, follow or (lambda what: None)
        self.foveal = FovealCorrelation(self.shape, self.J, L, periodic=periodic)
        half = len(test) // 2
        self._halves = [self._measured(part) for part in (test[:half], test[half:])]
        self._covariances = self.foveal.together(self._halves)
        self.portrait = self.describe(test)

    def describe(self, x: Tensor) -> Portrait:
        """Return the portrait of real fields ``(n, y, x)``.

        Raises
        ------
        ShapeMismatch
            If there is none, or they are not on the grid.
        InvalidParameter
            If a value is not finite.
        """
        self._check(x)
        self._follow("describe")
        field = (x.to(torch.float64) - self.mean) / self.std
        waves = field if self.periodic else tapered(field)
        levels = (np.arange(QUANTILES) + 1) / (QUANTILES + 1)
        values = np.quantile(field.cpu().numpy(), levels)
        lags = [2**j for j in range(int(math.log2(min(self.shape))))]
        state = {
            "spectrum": PowerSpectrum(self.shape, dtype=torch.float64)(waves)[:, 1:],
            "quantiles": torch.from_numpy(values),
            "skewness": skewness(field),
            "flatness": flatness(field),
            "structure": structure_functions(field, lags, ORDERS, self.periodic),
            "bispectrum": bispectrum(waves),
            "minkowski": minkowski_functionals(field, THRESHOLDS, self.periodic),
            "pairs": pair_correlations(x),
        }
        return Portrait.from_state(
            {name: value.cpu().contiguous() for name, value in state.items()}
        )

    def score(self, x: Tensor, training: Tensor | None = None) -> tuple[dict[str, float], Portrait]:
        """Return the :data:`METRICS` of a model's samples ``(n, y, x)``, and their portrait.

        ``training`` are the fields fitted to, ``(m, y, x)``. A metric that needs more than is there
        (pairs of a single sample, fields fitted to) is NaN.
        """
        portrait = self.describe(x)
        scores = {"eps": self.foveal.distance(self._measured(x), self._covariances)}
        scores |= distances(portrait, self.portrait)
        return scores | {"memory": memory(x, training)}, portrait

    @cached_property
    def floors(self) -> dict[str, dict[str, float]]:
        """What real fields score: one of them as a model, and half of them against half.

        The first is the mean over a few real fields, each against the half it is not in.
        """
        half = len(self._test) // 2
        names = [name for name in METRICS if name not in ("memory", "coherence")]
        first, second = self._test[:half], self._test[half:]
        other = self.describe(second)
        alone = []
        for one in torch.split(first[:ONE_MAP], 1):
            eps = self.foveal.distance(self._measured(one), self._halves[1])
            alone.append({"eps": eps} | distances(self.describe(one), other))
        eps = self.foveal.distance(self._halves[0], self._halves[1])
        return {
            "real, one map": {name: float(np.mean([row[name] for row in alone])) for name in names},
            f"real, {half} against {len(second)}": {"eps": eps}
            | distances(self.describe(first), other),
        }

    def _check(self, x: Tensor) -> None:
        if x.ndim != 3 or not len(x) or tuple(x.shape[-2:]) != self.shape:
            raise ShapeMismatch(f"expected fields (n, {self.shape}), got {tuple(x.shape)}")
        finite = x.isfinite().all((-2, -1))
        if not finite.all():
            raise InvalidParameter(
                f"{int((~finite).sum())} of {len(x)} fields hold values that are not finite: "
                "leave them out, or draw others"
            )

    def _measured(self, x: Tensor) -> Covariances:
        self._follow("correlate")
        # In units of about their deviation: fourth powers of others leave single precision. Powers
        # of two round nothing.
        return self.foveal.measure(x * 2.0 ** -round(math.log2(self.std)))


def distances(model: Portrait, test: Portrait) -> dict[str, float]:
    """Return the :data:`METRICS` that portraits hold of one against another."""
    real = 1 - _mean(test.pairs)
    return {
        "spectrum": _spectral_distance(model.spectrum.mean(0), test.spectrum.mean(0)),
        "pdf": float((model.quantiles - test.quantiles).abs().mean()),
        "skewness": _mean(model.skewness),
        "skewness_scatter": _scatter(model.skewness),
        "flatness": _mean(model.flatness),
        "flatness_scatter": _scatter(model.flatness),
        "structure": _log_distance(model.structure.mean(0), test.structure.mean(0)),
        "bispectrum": _relative(model.bispectrum.mean(0), test.bispectrum.mean(0)),
        "area": _relative(model.minkowski.mean(0)[0], test.minkowski.mean(0)[0]),
        "perimeter": _relative(model.minkowski.mean(0)[1], test.minkowski.mean(0)[1]),
        "euler": _relative(model.minkowski.mean(0)[2], test.minkowski.mean(0)[2]),
        "diversity": (1 - _mean(model.pairs)) / real if real > 0 else math.nan,
    }


def memory(x: Tensor, training: Tensor | None) -> float:
    """Return the mean correlation at the best shift of fields with those fitted to."""
    if training is None or not len(training):
        return math.nan
    return float(torch.stack([best_correlation(x, one) for one in training]).mean())


def _spectral_distance(model: Tensor, test: Tensor) -> float:
    """Return the root mean square of ln(model / test), octaves of wavenumber weighing the same.

    Shells below 1e-10 of the variance do not count: there real fields are rounding error.
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


def _mean(values: Tensor) -> float:
    return float(values.mean()) if values.numel() else math.nan


def _scatter(values: Tensor) -> float:
    return float(values.std()) if len(values) > 1 else math.nan
