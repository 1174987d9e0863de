"""The microcanonical maximum-entropy model: noise moved until its moments are the references'."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import fmin_l_bfgs_b
from torch import Tensor

from wavemill.errors import InvalidParameter, NotFitted, ShapeMismatch
from wavemill.maxent.gaussian import Gaussian
from wavemill.maxent.samples import Progress, as_samples, as_spec, describe, white_noise
from wavemill.phase_harmonics import Moments, PhaseHarmonicCovariance, Statistics
from wavemill.specs import GaussianSpec, MicrocanonicalSpec

MEMORY = 20  # pairs of vectors that L-BFGS keeps


class Microcanonical:
    """Fields whose phase-harmonic moments are those of the references.

    A sample is Gaussian noise, moved by L-BFGS down ``|C(x) - C_ref|^2`` (standardised covariances,
    each distinct one once; see :mod:`wavemill.phase_harmonics`). Means and deviations of the
    channels are frozen at the references', and moments averaged over them. Each sample descends by
    itself: it depends on ``seed`` and its index alone. Descent from noise approximates, and does
    not equal, the uniform law on the set of equal moments (Bruna and Mallat, *Multiscale sparse
    microcanonical models*, Math. Stat. Learn. 1, 257, 2018).

    Parameters
    ----------
    spec
        A :class:`~wavemill.specs.MicrocanonicalSpec`, its parameters, or None for its defaults.

    Attributes
    ----------
    moments_
        :class:`~wavemill.phase_harmonics.Moments` of the references, centred and divided by the
        mean and std of all their values.
    gaussian_
        The :class:`Gaussian` model of the references: it holds mean, std and the starting spectrum.
    metrics_
        Number of real ``moments`` and of samples fitted; mean, std, skewness and flatness.
    losses_
        After :meth:`sample`: one array a sample, the loss at each gradient relative to the first.
    """

    gaussian_: Gaussian
    moments_: Moments
    metrics_: dict[str, float]
    losses_: list[NDArray[np.float64]]

    def __init__(self, spec: MicrocanonicalSpec | Mapping[str, Any] | None = None) -> None:
        self.spec = as_spec(MicrocanonicalSpec, spec)

    def fit(self, x: Tensor, progress: Progress | None = None) -> Self:
        """Measure the moments of ``x``, real ``(sample, y, x)`` or ``(sample, 1, y, x)``.

        Raises
        ------
        ShapeMismatch
            If ``x`` is not an array of real fields, or has several components.
        InvalidParameter
            If all values are equal, or the scales do not fit on the grid.
        """
        fields = as_samples(x)
        if fields.shape[1] != 1:
            raise ShapeMismatch(
                f"phase harmonics model one component, got {fields.shape[1]} in {tuple(x.shape)}: "
                "choose one, x[:, i]"
            )
        self.gaussian_ = Gaussian(GaussianSpec(dtype="float64")).fit(x, progress)
        self._prepare()
        self.moments_ = self.operator.measure((fields[:, 0] - self._mean) / self._std)
        self.metrics_ = describe(fields) | {"moments": float(len(self.moments_.values))}
        return self

    def sample(self, n: int, seed: int = 0, progress: Progress | None = None) -> Tensor:
        """Synthesise ``n`` fields ``(n, y, x)``; sample i does not depend on ``n``.

        ``progress`` gets the gradients taken out of ``n * iterations``, with the current
        ``sample``, its ``loss`` relative to its first, and ``moments_per_second`` differentiated.

        Raises
        ------
        NotFitted
            Before :meth:`fit`.
        InvalidParameter
            If ``n`` is below 1.
        """
        if not hasattr(self, "moments_"):
            raise NotFitted("the phase-harmonic model has no moments yet: call fit first")
        fields, self.losses_ = [], []
        for index, start in enumerate(self._starts(n, seed)):
            descent = _Descent(self.operator, self.moments_, self.spec.iterations)
            if progress is not None:
                descent.follow(progress, index, n)
            fields.append(descent.run(start) * self._std + self._mean)
            self.losses_.append(np.array(descent.losses) / (descent.losses[0] or 1.0))
        result = torch.stack(fields).to(self.operator.dtype)
        return result[:, None] if self.gaussian_.has_components else result

    def state(self) -> dict[str, Tensor]:
        """Return everything learnt, as real tensors."""
        statistics = self.moments_.statistics
        return {
            "moments": self.moments_.values,
            "channel_mean": torch.view_as_real(statistics.mean),
            "channel_scale": statistics.scale,
        } | {f"gaussian.{name}": value for name, value in self.gaussian_.state().items()}

    @classmethod
    def from_state(
        cls, spec: MicrocanonicalSpec | Mapping[str, Any] | None, state: Mapping[str, Tensor]
    ) -> Self:
        """Rebuild a fitted model from :meth:`state`; ``metrics_`` is not part of it."""
        model = cls(spec)
        inner = {name.removeprefix("gaussian."): value for name, value in state.items()}
        model.gaussian_ = Gaussian.from_state(GaussianSpec(dtype="float64"), inner)
        model._prepare()
        mean = torch.view_as_complex(state["channel_mean"].contiguous())
        model.moments_ = Moments(Statistics(mean, state["channel_scale"]), state["moments"])
        return model

    def _prepare(self) -> None:
        """Build the operator, and take mean and deviation from the Gaussian model."""
        self._mean, self._std = float(self.gaussian_.mean_), self.gaussian_.deviation
        if not self._std > 0:
            raise InvalidParameter("all values are equal: there is nothing to model")
        spec, dtype = self.spec, getattr(torch, self.spec.dtype)
        self.operator = PhaseHarmonicCovariance(
            self.gaussian_.shape, spec.J, spec.L, spec.set, spec.lags, dtype
        )

    def _starts(self, n: int, seed: int) -> Tensor:
        """Return standardised noise ``(n, y, x)``, float64."""
        if self.spec.start == "spectrum":
            fields = self.gaussian_.sample(n, seed).reshape(-1, *self.gaussian_.shape)
            return (fields - self._mean) / self._std
        noise = [white_noise(index, self.gaussian_.shape, seed) for index in range(n)]
        return torch.stack(noise).to(self.moments_.values.device)


class _SpentError(Exception):
    """All gradients allowed have been evaluated."""


class _Descent:
    """L-BFGS on one field, at most ``iterations`` gradients, keeping the best field seen."""

    def __init__(
        self, operator: PhaseHarmonicCovariance, moments: Moments, iterations: int
    ) -> None:
        self.operator, self.moments, self.iterations = operator, moments, iterations
        self.losses: list[float] = []
        self._report: Progress | None = None

    def follow(self, progress: Progress, index: int, n: int) -> None:
        """Report each gradient of sample ``index`` of ``n``."""
        self._report, self._index, self._n, self._began = progress, index, n, time.monotonic()

    def run(self, start: Tensor) -> Tensor:
        """Return the best field found from ``start``, or ``start`` where no step improves it."""
        self._best, self._least, self._device = start, float("inf"), start.device
        never = 2 * self.iterations  # scipy checks its limits only between line searches
        with contextlib.suppress(_SpentError):
            fmin_l_bfgs_b(
                self._evaluate,
                start.cpu().numpy().ravel(),
                m=MEMORY,
                factr=0,
                pgtol=0,
                maxfun=never,
                maxiter=never,
            )
        return self._best

    def _evaluate(self, flat: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        if len(self.losses) == self.iterations:
            raise _SpentError
        x = torch.tensor(flat, device=self._device).reshape(self.operator.shape).requires_grad_()
        loss = self.operator.loss(x, self.moments)
        (gradient,) = torch.autograd.grad(loss, x)
        self._note(float(loss.detach()), x.detach())
        return self.losses[-1], gradient.cpu().numpy().ravel()

    def _note(self, loss: float, x: Tensor) -> None:
        self.losses.append(loss)
        if loss < self._least:
            self._least, self._best = loss, x.clone()
        if self._report is not None:
            count, elapsed = len(self.losses), time.monotonic() - self._began
            values = {
                "sample": float(self._index),
                "loss": loss / (self.losses[0] or 1.0),
                "moments_per_second": count * len(self.moments.values) / max(elapsed, 1e-9),
            }
            self._report(self._index * self.iterations + count, self._n * self.iterations, values)
