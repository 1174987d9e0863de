"""An explicit maximum-entropy density: its energy fitted by score matching, sampled by MALA.

    p(x) = exp(-beta . phi(x)) / Z ,

phi_0 = |K^{-1/2} x|^2 / 2, which alone makes the Gaussian of the references' isotropic spectrum K,
then the distinct real phase-harmonic moments of a field x, standardised as by the references. In
place of the unknown Z, beta minimises the distance of the gradients of log p from the data's
(Hyvarinen 2005) in the metric K: a linear system,

    E[J K J^T] beta = E[tr(K d2 phi)] ,   J the Jacobian of phi, both exact (maxent/derivatives.py).

Samples come from the Metropolis-adjusted Langevin algorithm (maxent/langevin.py), in coordinates y
with x = K^{1/2} y.

The density exists if its energy grows in every direction. Far out, E(t x) / t^2 tends to the same
form of uncentred moments, and its least value is sought. Where that is too small, growth in the
direction found, which is linear in beta, becomes a constraint on beta, which otherwise stays as
near to the data's score as it can.

Source: Hyvarinen, *Estimation of non-normalized statistical models by score matching*, JMLR 6, 695
(2005).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import fmin_l_bfgs_b, nnls
from torch import Tensor

from wavemill.errors import DivergentModel, InvalidParameter, NotFitted, ShapeMismatch
from wavemill.estimators import Specified, as_spec
from wavemill.maxent.derivatives import MomentDerivatives, channel_statistics
from wavemill.maxent.gaussian import Gaussian
from wavemill.maxent.langevin import Chain, centred
from wavemill.maxent.samples import (
    as_samples,
    describe,
    numbers_of,
)
from wavemill.moments.phase_harmonics import PhaseHarmonicCovariance
from wavemill.moments.statistics import Moments, Statistics
from wavemill.operators import Numbers, as_tensor
from wavemill.progress import Progress
from wavemill.specs import EnergySpec, GaussianSpec
from wavemill.spectra import shell_means
from wavemill.states import over, under

GROWTH = 0.2  # E(t y) / (t^2 |y|^2) asked for in every direction: two fifths of the Gaussian's
ROUNDS = 12  # searches for directions in which it is less
FLOOR = 1e-6  # of the spectrum, relative to its largest shell
DIRECTIONS = 30  # random ones, in which the energy must grow
SEARCHES = 2  # begun from the least of these, for a worse direction
MOST = 2**30  # bytes of a Jacobian


class Energy(Specified):
    """Fields of density ``exp(-beta . phi) / Z``, computed on the CPU.

    Parameters
    ----------
    spec
        An :class:`~wavemill.specs.EnergySpec`, its parameters, or None for its defaults.

    Attributes
    ----------
    beta_
        ``(1 + moment,)`` float64.
    gaussian_
        The :class:`Gaussian` model of the references: it holds their mean and std.
    metrics_
        Number of real ``moments``; ``constraints``, the directions in which growth was imposed, and
        ``score_lost``, the part of the score's explained square that they cost;
        ``gaussian_share``, that of a Gaussian in beta, above 0 if constraints were not enough;
        ``growth_random`` and ``growth_worst``, the least of E(t y) / (t^2 |y|^2) for large t over
        random directions and by search (1/2 for the Gaussian of the references' spectrum); mean,
        std, skewness and flatness of the references.
    acceptance_, steps_, drifts_
        After :meth:`sample`, one for each sample: the rate of acceptance after warming up, the step
        e, and by how many of its deviations the energy still differs between the first and the
        second half of the steps that follow; up to 2, and well below 1 where a chain has arrived.
    """

    beta_: Tensor
    gaussian_: Gaussian
    metrics_: dict[str, float]
    acceptance_: list[float]
    steps_: list[float]
    drifts_: list[float]

    def __init__(self, spec: EnergySpec | Mapping[str, Any] | None = None) -> None:
        self.spec: EnergySpec = as_spec(EnergySpec, spec)

    def fit(self, x: Numbers, progress: Progress | None = None) -> Self:
        """Fit beta to ``x``, real ``(sample, y, x)`` or ``(sample, 1, y, x)``.

        Raises
        ------
        ShapeMismatch
            If ``x`` is not an array of real fields, or has several components.
        InvalidParameter
            If all values are equal, some are not finite, the scales do not fit on the grid, or the
            Jacobian is too large.
        """
        x = as_tensor(x).cpu()
        fields = as_samples(x)
        if fields.shape[1] != 1:
            raise ShapeMismatch(
                f"energies model one component, got {fields.shape[1]} in {tuple(x.shape)}: "
                "choose one, x[:, i]"
            )
        self.gaussian_ = Gaussian(GaussianSpec(dtype="float64")).fit(x)
        self._standard = self.gaussian_.deviation
        samples = (fields[:, 0] - self.gaussian_.mean_) / self._standard
        statistics = self.operator_for(self.gaussian_.shape).statistics(samples)
        self._prepare(statistics, _metric(self.gaussian_))
        gram, curvature = self._score_matching(samples, progress)
        self.metrics_ = describe(fields) | {"moments": float(len(curvature) - 1)}
        self._solve(gram, curvature, len(samples), progress)
        return self

    def energy(self, x: Tensor) -> Tensor:
        """Return ``beta . phi`` of standardised fields ``(..., y, x)``: -log p - log Z."""
        x = x.cpu()
        whitened = self.whiten(x).square().sum((-2, -1))
        return self._form(x, self._statistics) + self.beta_[0] * whitened / 2

    def sample(
        self, n: int, seed: int = 0, progress: Progress | None = None, *, first: int = 0
    ) -> Tensor:
        """Draw ``n`` fields ``(n, y, x)``, numbered from ``first`` on, by one chain each.

        Sample i depends on ``seed`` and i alone.
        ``progress`` gets the steps taken, with the current ``sample`` and its ``acceptance``.

        Raises
        ------
        NotFitted
            Before :meth:`fit`.
        InvalidParameter
            If ``n`` is below 1, or a number is not whole.
        DivergentModel
            If a chain runs off to infinity: the density cannot be normalised.
        """
        if not hasattr(self, "beta_"):
            raise NotFitted("the energy model has no coefficients yet: call fit first")
        numbers, seed = numbers_of(n, seed, first)
        self.acceptance_, self.steps_, self.drifts_, fields = [], [], [], []
        for index, number in enumerate(numbers):
            chain = Chain(self.energy_and_gradient, self.operator.shape, number, seed)
            energies = []
            for step in range(self.spec.steps):
                chain.move(step < self.spec.steps // 2)
                energies.append(chain.energy)
                if progress is not None:
                    values = {"sample": float(number), "acceptance": chain.acceptance}
                    done = index * self.spec.steps + step + 1
                    progress(done, len(numbers) * self.spec.steps, values)
            fields.append(self.colour(chain.y) * self._standard + self.gaussian_.mean_)
            self.acceptance_.append(chain.acceptance)
            self.steps_.append(chain.step)
            self.drifts_.append(_drift(energies[self.spec.steps // 2 :]))
        drawn = torch.stack(fields).to(getattr(torch, self.spec.dtype))
        return drawn[:, None] if self.gaussian_.has_components else drawn

    def state(self) -> dict[str, Tensor]:
        """Return everything learnt, as real tensors."""
        return {
            "beta": self.beta_,
            "channel_mean": torch.view_as_real(self._statistics.mean),
            "channel_scale": self._statistics.scale,
            "metric": self._metric,
        } | over("gaussian", self.gaussian_.state())

    @classmethod
    def from_state(
        cls, spec: EnergySpec | Mapping[str, Any] | None, state: Mapping[str, Tensor]
    ) -> Self:
        """Rebuild a fitted model from :meth:`state`; ``metrics_`` is not part of it."""
        model, state = cls(spec), {name: value.cpu() for name, value in state.items()}
        inner = under("gaussian", state)
        model.gaussian_ = Gaussian.from_state(GaussianSpec(dtype="float64"), inner)
        model._standard = model.gaussian_.deviation
        mean = torch.view_as_complex(state["channel_mean"].contiguous())
        model._prepare(Statistics(mean, state["channel_scale"]), state["metric"])
        model.beta_ = state["beta"]
        return model

    def colour(self, y: Tensor) -> Tensor:
        """Return ``K^{1/2} y``, its own adjoint."""
        coloured: Tensor = torch.fft.ifft2(torch.fft.fft2(y) * self._metric.sqrt()).real
        return coloured

    def whiten(self, x: Tensor) -> Tensor:
        """Return ``K^{-1/2} x`` without its mean."""
        inverse = torch.where(self._metric > 0, self._metric.clamp(min=1e-300).rsqrt(), 0.0)
        whitened: Tensor = torch.fft.ifft2(torch.fft.fft2(x) * inverse).real
        return whitened

    def operator_for(self, shape: tuple[int, int]) -> PhaseHarmonicCovariance:
        """Return the moments on a grid, in double precision."""
        spec = self.spec
        return PhaseHarmonicCovariance(shape, spec.J, spec.L, spec.set, spec.lags, torch.float64)

    def energy_and_gradient(
        self, y: Tensor, statistics: Statistics | None = None
    ) -> tuple[float, Tensor]:
        """Return E at ``K^{1/2} y``, y of mean 0, and its gradient with respect to y.

        ``statistics``, if given, normalise the moments in place of the references'.
        """
        form, gradient = self._form_and_gradient(self.colour(y), statistics or self._statistics)
        base = self.beta_[0]
        return form + float(base * y.square().sum() / 2), self.colour(gradient) + base * y

    def _prepare(self, statistics: Statistics, metric: Tensor) -> None:
        self.operator = self.operator_for(self.gaussian_.shape)
        self._statistics, self._metric = statistics, metric
        zero = torch.zeros_like(statistics.mean)
        self._far_out = Statistics(zero, statistics.scale)  # where means no longer matter

    def _score_matching(self, samples: Tensor, progress: Progress | None) -> tuple[Tensor, Tensor]:
        """Return E[J K J^T] and E[tr(K d2 phi)], holding one field's Jacobian at a time."""
        table = self.operator.table
        mean, scale = channel_statistics(table, samples)
        derivatives = MomentDerivatives(table, mean, scale, self._metric)
        count, points = table.real_count, math.prod(table.shape)
        if 8 * count * points > MOST:
            raise InvalidParameter(
                f"the Jacobian of {count} moments by {points} points is over {MOST >> 20} MiB: "
                "choose a smaller set, J or grid"
            )
        gram = torch.zeros(1 + count, 1 + count).double()
        curvature = torch.zeros(1 + count).double()
        curvature[0] = points - 1  # of |y|^2 / 2
        jacobian = torch.empty(1 + count, points, dtype=torch.float64)
        for step, field in enumerate(samples, 1):
            jacobian[0] = self.whiten(field).flatten()
            for row, gradient in enumerate(derivatives.gradients(field), 1):
                jacobian[row] = self.colour(gradient).flatten()
            gram += jacobian @ jacobian.T / len(samples)
            curvature[1:] += derivatives.laplacians(field) / len(samples)
            if progress is not None:
                progress(step, len(samples) + ROUNDS, {})
        return gram, curvature

    def _solve(self, gram: Tensor, curvature: Tensor, done: int, progress: Progress | None) -> None:
        """Find the beta of least score distance whose energy grows in every direction.

        Growth in one direction is linear in beta. Where a search finds too little, enough is asked
        for as a further constraint, and the quadratic programme is solved again. A share of the
        Gaussian makes up for what is still missing after the last round.
        """
        root = _inverse_root(gram)
        best = root.T @ curvature
        moved, rows = torch.zeros_like(best), torch.zeros(0, len(curvature), dtype=torch.float64)
        tried = self._random_directions()
        far_moments = torch.stack([self._far_moments(y) for y in tried])
        found: list[tuple[float, Tensor]] = []
        for round_ in range(1, ROUNDS + 1):
            self.beta_ = root @ (best + moved)
            least = (far_moments @ self.beta_).argsort()[:SEARCHES]
            starts = [y for _, y in found[:1]] + [*tried[least]]
            found = sorted(map(self._worst_from, starts), key=lambda pair: pair[0])
            if progress is not None:
                progress(done + round_, done + ROUNDS, {"growth": found[0][0]})
            if found[0][0] >= GROWTH / 2:
                break
            asked = [self._far_moments(y) for growth, y in found if growth < GROWTH]
            rows = torch.cat([rows, torch.stack(asked)])
            moved = least_distance(rows @ root, GROWTH - rows @ (root @ best))
        worst, share = found[0][0], 0.0
        if worst < GROWTH / 2:
            gaussian = torch.zeros_like(curvature)
            gaussian[0] = curvature[0] / gram[0, 0]
            share = (GROWTH / 2 - worst) / (float(gaussian[0]) / 2 - worst)
            self.beta_, worst = torch.lerp(self.beta_, gaussian, share), GROWTH / 2
        if progress is not None:
            progress(done + ROUNDS, done + ROUNDS, {"growth": worst})
        lost = self.beta_ - root @ best
        self.metrics_ |= {
            "constraints": float(len(rows)),
            "score_lost": float(lost @ gram @ lost / best.square().sum()),
            "gaussian_share": share,
            "growth_random": float((far_moments @ self.beta_).min()),
            "growth_worst": worst,
        }

    def _random_directions(self) -> Tensor:
        generator = torch.Generator().manual_seed(0)
        shape = (DIRECTIONS, *self.operator.shape)
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    def _far(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Return the form far out over |y|^2, and its gradient, for y without its mean."""
        y = centred(y)
        square = y.square().sum()
        form, gradient = self.energy_and_gradient(y, self._far_out)
        quotient = form / square
        return quotient, (gradient - 2 * quotient * y) / square

    def _far_moments(self, y: Tensor) -> Tensor:
        """Return the numbers whose product with beta is the value of :meth:`_far`."""
        y = centred(y)
        square = y.square().sum()
        values = self.operator.measure(self.colour(y)[None], self._far_out).values
        return torch.cat([square[None] / 2, values.flatten()]) / square

    def _worst_from(self, y: Tensor) -> tuple[float, Tensor]:
        """Return the least growth that a descent from y finds, and where."""

        def objective(flat: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
            value, gradient = self._far(torch.from_numpy(flat).reshape(self.operator.shape))
            return float(value), gradient.numpy().ravel()

        start = y.numpy().ravel()
        flat, least, _ = fmin_l_bfgs_b(objective, start, maxiter=40, maxfun=50)
        return float(least), torch.from_numpy(flat).reshape(self.operator.shape)

    def _form(self, x: Tensor, statistics: Statistics) -> Tensor:
        """Return ``beta . phi`` with channels normalised by ``statistics``."""
        size = float(self.beta_[1:].norm())
        unit = self.beta_[1:] / size
        zero, moments = Moments(statistics, 0 * unit), Moments(statistics, unit)
        # 2 beta . phi = |phi|^2 + |beta|^2 - |phi - beta|^2: operators compute such losses.
        loss = self.operator.loss(x, zero) - self.operator.loss(x, moments)
        return size * (loss + 1) / 2

    def _form_and_gradient(self, x: Tensor, statistics: Statistics) -> tuple[float, Tensor]:
        """Return ``beta . phi`` of one field and its gradient, half that of ``|phi - c|^2``.

        There ``c = phi - beta`` is held fixed.
        """
        beta = self.beta_[1:]
        size = float(beta.norm())
        phi = self.operator.measure(x[None], statistics).values
        held = Moments(statistics, phi - beta / size)
        gradient = self.operator.loss_and_gradient(x, held)[1]
        return float(beta @ phi), size * gradient / 2


def _drift(energies: list[float]) -> float:
    """Return how far means of the first and the second half are apart, in deviations of all."""
    first, second = np.array_split(np.array(energies), 2)
    deviation = float(np.std(energies))
    apart = abs(float(np.mean(second) - np.mean(first))) if len(second) else 0.0
    return apart / deviation if deviation > 0 else 0.0


def _inverse_root(gram: Tensor) -> Tensor:
    """Return R with ``R R^T`` the inverse of a Gram matrix, without moments that repeat others."""
    scale = gram.diagonal().clamp(min=1e-300).sqrt()
    values, vectors = torch.linalg.eigh(gram / (scale * scale[:, None]))
    kept = values > 1e-12 * values[-1]
    root: Tensor = vectors[:, kept] / values[kept].sqrt() / scale[:, None]
    return root


def least_distance(rows: Tensor, asked: Tensor) -> Tensor:
    """Return the u of least ``|u|`` for which ``rows u >= asked``.

    Source: Lawson and Hanson, *Solving Least Squares Problems* (1974), chapter 23.

    Raises
    ------
    DivergentModel
        If there is no such u.
    """
    system = torch.cat([rows.T, asked[None]]).numpy()
    target = np.zeros(len(system))
    target[-1] = 1
    weights, _ = nnls(system, target)
    residual = system @ weights - target
    if -residual[-1] < np.finfo(float).eps:
        raise DivergentModel(
            "no energy of these moments grows: choose fewer, or fit to more fields"
        )
    return torch.from_numpy(-residual[:-1] / residual[-1])


def _metric(gaussian: Gaussian) -> Tensor:
    """Return K ``(y, x)``, the isotropic spectrum of standardised fields, floored; no mean."""
    half = shell_means(gaussian.spectrum_[0, 0].real, gaussian.shape) / gaussian.deviation**2
    columns = torch.arange(gaussian.shape[1])
    metric = half[:, torch.minimum(columns, gaussian.shape[1] - columns)]
    metric = metric.clamp(min=FLOOR * float(metric.max()))
    metric[0, 0] = 0
    return metric
