"""Judging: sets of fields described in the same way, and how far they are from a test set.

Everything is compared with real fields that no model was fitted to, and beside every number stands
what real fields score. There are as many of them as samples of the model, and they are compared
with the same other real fields, since few fields are farther from any others than many are.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from wavemill.devices import BesideDefault
from wavemill.errors import InvalidParameter, ShapeMismatch
from wavemill.evaluation.bispectrum import bispectrum
from wavemill.evaluation.diversity import best_correlation, pair_correlations
from wavemill.evaluation.foveal import Covariances, FovealCorrelation, largest_scale
from wavemill.evaluation.minkowski import minkowski_functionals
from wavemill.evaluation.portrait import Portrait, distances, mean, scatter
from wavemill.operators import check_whole, must_be_tensor
from wavemill.spectra import PowerSpectrum, flatness, skewness, structure_functions, tapered

THRESHOLDS = tuple(np.linspace(-3, 3, 25).tolist())  # in standard deviations of the test set
ORDERS = (1, 2, 3, 4, 5)
QUANTILES = 1023
SMALLEST = {True: 4, False: 9}  # side of the grid on which J = 1 fits, if fields wrap or not
FAR = 1e6  # deviations of the test set, beyond which fourth powers may leave single precision
ONE_MAP = 2  # real fields that take turns as the only sample of a model
TURNS = 3  # groups of real fields that take turns as the samples of a model
Follow = Callable[[str], None]
Rows = dict[str, dict[str, float]]

METRICS = {
    "eps": "|R_test - R_model| / |R_test| on the foveal phase-harmonic correlation matrix",
    "spectrum": "root mean square of ln(model / test) over octaves of the power spectrum",
    "pdf": "Wasserstein distance of the distributions of values, by 1,023 quantiles, in standard "
    "deviations",
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


DISTANCES = ("eps", "spectrum", "pdf", "structure", "bispectrum", "area", "perimeter", "euler")


@dataclass(frozen=True)
class Turn:
    """Real and drawn fields, by number, that are compared with the same other real fields."""

    real: list[int]
    drawn: list[int]
    others: list[int]


def turns(real: int, drawn: int) -> list[Turn]:
    """Return what is compared with what, for so many real and drawn fields.

    Each turn takes a third of the real fields, but no more than are drawn. They are consecutive, so
    that fields that are alike, such as snapshots of one run, stand on one side.
    """
    count, times = max(1, min(drawn, real // TURNS)), min(TURNS, real)
    found = []
    for turn in range(times):
        chosen = [turn * real // times + i for i in range(count)]
        others = [i for i in range(real) if i not in chosen]
        found.append(Turn(chosen, [(turn * count + i) % drawn for i in range(count)], others))
    return found


@dataclass(frozen=True)
class _Side:
    """A set of fields as it is compared."""

    covariances: Covariances
    portrait: Portrait


class Judge(BesideDefault):
    """Scores sets of fields against a test set.

    Parameters
    ----------
    test
        Real fields ``(n, y, x)`` that no model was fitted to, at least two.
    J, L
        Scales and angles of the foveal matrix; J is lowered to what fits, see :attr:`J`.
    periodic
        Whether fields wrap around. If not, the foveal matrix leaves out borders (a smaller J fits),
        spectra are those of tapered fields, and no increment or neighbour crosses a border.
        Diversity and memory take the best of all cyclic shifts either way.

    Raises
    ------
    InvalidParameter
        If there are fewer than two test fields, all their values are equal or some are not finite,
        or no scale fits on the grid.
    ShapeMismatch
        If the fields are not on one grid.
    """

    def __init__(
        self,
        test: Tensor,
        J: int = 5,
        L: int = 8,
        periodic: bool = True,
        follow: Follow | None = None,
    ) -> None:
        must_be_tensor(test)
        check_whole(J=J, L=L)
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
        self._held: dict[int, tuple[list[_Side], Rows]] = {}
        self.portrait = self.describe(test)

    def describe(self, x: Tensor) -> Portrait:
        """Return the portrait of real fields ``(n, y, x)``.

        Raises
        ------
        ShapeMismatch
            If there are no fields, or they are not on the grid.
        InvalidParameter
            If a value is not finite.
        """
        self._check(x)
        self._follow("describe")
        field = (x.to(torch.float64) - self.mean) / self.std
        waves = field if self.periodic else tapered(field)
        lags = [2**j for j in range(int(math.log2(min(self.shape))))]
        state = {
            "spectrum": PowerSpectrum(self.shape, dtype=torch.float64)(waves)[:, 1:],
            "quantiles": self._quantiles(x),
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

        ``training`` are the fields fitted to, ``(m, y, x)``. A metric is NaN if what it needs is
        missing: a second sample, or the fields fitted to.
        """
        portrait = self.describe(x)
        together = self.foveal.together(self._halves)
        scores = {"eps": self.foveal.distance(self._measured(x), together)}
        scores |= distances(portrait, self.portrait)
        return scores | {"memory": memory(x, training)}, portrait

    def compare(self, x: Tensor, training: Tensor | None = None) -> tuple[Rows, Portrait]:
        """Return comparable rows of real fields and of a model's samples; the samples' portrait.

        Distances are means over :func:`turns`: in each, equal numbers of samples and of real fields
        are compared with the same other real fields; ``_scatter`` is their deviation over turns.
        All other metrics are of all samples, as in :meth:`score`. The rows are ``real, one map``;
        ``real, K against M``, if K is more than 1; and ``model``.
        """
        portrait, plan = self.describe(x), turns(len(self._test), len(x))
        count = len(plan[0].real)
        if count not in self._held:
            self._held = {count: self._real_rows(plan)}
        others, rows = self._held[count]
        made = [self._side(x, portrait, turn.drawn) for turn in plan]
        row = self._row(portrait, made, others) | {"memory": memory(x, training)}
        return {**rows, "model": row}, portrait

    @cached_property
    def _halves(self) -> list[Covariances]:
        half = len(self._test) // 2
        return [self._measured(part) for part in (self._test[:half], self._test[half:])]

    def _real_rows(self, plan: Sequence[Turn]) -> tuple[list[_Side], Rows]:
        """Return the other fields of each turn, and the rows of real fields."""
        test, whole = self._test, self.portrait
        stood = [self._side(test, whole, turn.real) for turn in plan]
        measured = [side.covariances for side in stood]
        taken = {i for turn in plan for i in turn.real}
        if left := [i for i in range(len(test)) if i not in taken]:
            measured.append(self._measured(test[left]))
        others = [
            _Side(
                self.foveal.together(measured[:number] + measured[number + 1 :]),
                self._part(test, whole, turn.others),
            )
            for number, turn in enumerate(plan)
        ]
        firsts = [turn.real[0] for turn in plan]
        alone = stood if len(plan[0].real) == 1 else [self._side(test, whole, [i]) for i in firsts]
        rows = {"real, one map": self._row(self._part(test, whole, firsts), alone, others)}
        if alone is not stood:
            name = f"real, {len(plan[0].real)} against {len(plan[0].others)}"
            rows[name] = self._row(whole, stood, others)
        return others, rows

    def _side(self, x: Tensor, portrait: Portrait, chosen: list[int]) -> _Side:
        return _Side(self._measured(x[chosen]), self._part(x, portrait, chosen))

    def _part(self, x: Tensor, portrait: Portrait, chosen: list[int]) -> Portrait:
        """Return the portrait of the chosen ones of a portrait's fields, without their pairs."""
        each = {
            name: value[chosen]
            for name, value in portrait.state().items()
            if name not in ("quantiles", "pairs")
        }
        none = portrait.pairs[:0]
        return Portrait(quantiles=self._quantiles(x[chosen]), pairs=none, **each)

    def _row(
        self, portrait: Portrait, sides: Sequence[_Side], others: Sequence[_Side]
    ) -> dict[str, float]:
        apart = [
            {"eps": self.foveal.distance(one.covariances, other.covariances)}
            | distances(one.portrait, other.portrait)
            for one, other in zip(sides, others, strict=True)
        ]
        row = {"eps": math.nan} | distances(portrait, self.portrait)
        for name in DISTANCES:
            values = torch.tensor([scores[name] for scores in apart], dtype=torch.float64)
            own = values if len(values) == TURNS else values[:1]  # two turns mirror each other
            row |= {name: mean(values), f"{name}_scatter": scatter(own)}
        return row

    def _quantiles(self, x: Tensor) -> Tensor:
        """Return the quantiles of all values together, standardised by the test set."""
        levels = (np.arange(QUANTILES) + 1) / (QUANTILES + 1)
        values = (x.to(torch.float64).cpu().numpy() - self.mean) / self.std
        return torch.from_numpy(np.quantile(values, levels))

    @cached_property
    def floors(self) -> Rows:
        """What real fields score: one of them as a model, and one half against the other.

        The first is the mean over a few real fields, each against the half it is not in; the second
        is left out where it is the same. :meth:`compare` gives the rows to hold a model's against.
        """
        half = len(self._test) // 2
        names = [name for name in METRICS if name not in ("memory", "coherence")]
        first, second = self._test[:half], self._test[half:]
        other = self.describe(second)
        alone = []
        for one in torch.split(first[:ONE_MAP], 1):
            eps = self.foveal.distance(self._measured(one), self._halves[1])
            alone.append({"eps": eps} | distances(self.describe(one), other))
        rows = {
            "real, one map": {name: float(np.mean([row[name] for row in alone])) for name in names}
        }
        if half > 1:
            eps = self.foveal.distance(self._halves[0], self._halves[1])
            scores = {"eps": eps} | distances(self.describe(first), other)
            rows[f"real, {half} against {len(second)}"] = scores
        return rows

    def _check(self, x: Tensor) -> None:
        must_be_tensor(x)
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
        # In units of about their deviation, since fourth powers might leave single precision. A
        # power of two causes no rounding.
        scaled = x * 2.0 ** -round(math.log2(self.std))
        if float(x.double().abs().max()) < FAR * self.std:
            return self.foveal.measure(scaled)
        J, L = self.foveal.J, self.foveal.L
        return FovealCorrelation(self.shape, J, L, torch.float64, self.periodic).measure(scaled)


def memory(x: Tensor, training: Tensor | None) -> float:
    """Return the mean correlation of fields with those fitted to, each at the best shift."""
    if training is None or not len(training):
        return math.nan
    return float(torch.stack([best_correlation(x, one) for one in training]).mean())
