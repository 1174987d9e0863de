"""The microcanonical maximum-entropy model: noise moved until its moments are the references'."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wavemill.errors import InvalidParameter, NotFitted
from wavemill.estimators import Specified, as_spec
from wavemill.maxent.coordinates import Coordinates
from wavemill.maxent.descent import MEMORY, Descent, descend
from wavemill.maxent.families import moments_of
from wavemill.maxent.gaussian import Gaussian
from wavemill.maxent.samples import (
    as_samples,
    describe,
    numbers_of,
    white_noise,
)
from wavemill.moments.statistics import Moments, Statistics
from wavemill.operators import Numbers, as_tensor, ordinary, own_precision
from wavemill.progress import Progress
from wavemill.replay import Replayed
from wavemill.specs import GaussianSpec, MicrocanonicalSpec
from wavemill.states import over, under

REMEMBERED = 2**28  # bytes of past steps held at once
ASKED = "asked"  # name under which a run's state records what it draws


class Microcanonical(Specified):
    """Fields whose wavelet moments are those of the references.

    A sample is Gaussian noise, moved by L-BFGS down ``|C(x) - C_ref|^2`` (standardised moments,
    each distinct one once; see :mod:`wavemill.moments.phase_harmonics` and, for other families,
    :mod:`wavemill.maxent.families`). Means and deviations of the channels are frozen at those of
    the references, over which moments are averaged. Components are standardised one by one. Each
    sample descends by itself, so that it depends on ``seed`` and its index alone; if it begins with
    the references' spectrum, its coordinates follow from that (:mod:`wavemill.maxent.coordinates`).
    Descent from noise approximates, and does not equal, the uniform law on the set of equal
    moments (Bruna and Mallat, *Multiscale sparse microcanonical models*, Math. Stat. Learn. 1, 257,
    2018).

    Parameters
    ----------
    spec
        A :class:`~wavemill.specs.MicrocanonicalSpec`, its parameters, or None for its defaults.

    Attributes
    ----------
    moments_
        :class:`.Moments` of the references, standardised by the mean and std of all their values.
    gaussian_
        The :class:`Gaussian` model of the references: it holds mean, std and the starting spectrum.
    metrics_
        Number of real ``moments`` and of samples fitted; mean, std, skewness and flatness.
    losses_
        After :meth:`sample`: for each sample, the loss at each gradient relative to the first.
    """

    gaussian_: Gaussian
    moments_: Moments
    metrics_: dict[str, float]
    losses_: list[NDArray[np.float64]]

    def __init__(self, spec: MicrocanonicalSpec | Mapping[str, Any] | None = None) -> None:
        self.spec: MicrocanonicalSpec = as_spec(MicrocanonicalSpec, spec)

    @torch.inference_mode(False)
    def fit(self, x: Numbers, progress: Progress | None = None) -> Self:
        """Measure the moments of ``x``, real ``(sample, y, x)`` or ``(sample, component, y, x)``.

        Raises
        ------
        ShapeMismatch
            If ``x`` is not an array of real fields.
        InvalidParameter
            If all values are equal, some are not finite, or the scales do not fit on the grid.
        """
        x = as_tensor(x)
        fields = as_samples(x)
        start = GaussianSpec(dtype="float64", borders=self.spec.borders)
        self.gaussian_ = Gaussian(start).fit(x, progress)
        self._prepare()
        self.moments_ = self.operator.measure(self._standardised(fields))
        self.metrics_ = describe(fields) | {"moments": float(len(self.moments_.values))}
        return self

    @torch.inference_mode(False)
    def sample(
        self,
        n: int,
        seed: int = 0,
        progress: Progress | None = None,
        *,
        first: int = 0,
        checkpoint: Callable[[dict[str, Tensor]], None] | None = None,
        every: float = 0.0,
        resume: Mapping[str, Tensor] | None = None,
    ) -> Tensor:
        """Synthesise ``n`` fields ``(n, y, x)``; sample i depends on ``seed`` and i alone.

        Samples descend together, as many as can remember their steps in 256 MiB, each with its own
        memory and steps.

        Parameters
        ----------
        n, seed
            How many, and of which family.
        progress
            Gets the gradients taken out of ``n * iterations``, with the current ``sample``, its
            ``loss`` relative to its first, and ``moments_per_second`` differentiated.
        first
            Number of the first sample.
        checkpoint
            Gets, after each batch of gradients, a state that ``resume`` continues from: real
            tensors that later gradients do not touch.
        every
            Seconds between such states, at least.
        resume
            Such a state, of the same model, ``n``, ``seed`` and ``first``.

        Raises
        ------
        NotFitted
            Before :meth:`fit`.
        InvalidParameter
            If ``n`` is below 1, a number is not whole, ``resume`` is of something else, or the loss
            is not finite where a sample begins.
        """
        if not hasattr(self, "moments_"):
            raise NotFitted("the phase-harmonic model has no moments yet: call fit first")
        numbers, seed = numbers_of(n, seed, first)
        run = _Synthesis(self, numbers, seed, progress, checkpoint, every)
        run.resume(resume or {})
        with own_precision(self.moments_.values.device):
            fields = run.fields().view(-1, *self.shape) * self._std + self._mean
        self.losses_ = [np.array(losses) / (losses[0] or 1.0) for losses in run.losses]
        result: Tensor = fields.to(self.operator.dtype)
        return result if self.gaussian_.has_components else result[:, 0]

    def state(self) -> dict[str, Tensor]:
        """Return everything learnt, as real tensors."""
        statistics = self.moments_.statistics
        return {
            "moments": self.moments_.values,
            "channel_mean": torch.view_as_real(statistics.mean),
            "channel_scale": statistics.scale,
        } | over("gaussian", self.gaussian_.state())

    @classmethod
    @torch.inference_mode(False)
    def from_state(
        cls, spec: MicrocanonicalSpec | Mapping[str, Any] | None, state: Mapping[str, Tensor]
    ) -> Self:
        """Rebuild a fitted model from :meth:`state`; ``metrics_`` is not part of it."""
        model = cls(spec)
        state = {name: ordinary(value) for name, value in state.items()}
        inner = under("gaussian", state)
        model.gaussian_ = Gaussian.from_state(GaussianSpec(dtype="float64"), inner)
        model._prepare()
        mean = torch.view_as_complex(state["channel_mean"].contiguous())
        model.moments_ = Moments(Statistics(mean, state["channel_scale"]), state["moments"])
        return model

    def _prepare(self) -> None:
        """Build the operator, and take means and deviations from the Gaussian model."""
        self._mean = self.gaussian_.mean_[:, None, None]
        self._std = self.gaussian_.deviations[:, None, None]
        self.shape = (len(self._mean), *self.gaussian_.shape)
        self.operator = moments_of(self.spec, self.gaussian_.shape, len(self._mean))
        power = self.gaussian_.spectrum_.diagonal().permute(2, 0, 1).real / self._std**2
        steep = self.spec.start == "spectrum"  # white noise has power where references have none
        self.coordinates = Coordinates(
            power if steep else None, self.gaussian_.shape, self.operator.dtype
        )

    def _standardised(self, fields: Tensor) -> Tensor:
        """Return what the operator takes: ``(n, y, x)``, or ``(n, component, y, x)`` of several."""
        standard = (fields - self._mean) / self._std
        return standard[:, 0] if len(self._mean) == 1 else standard

    def starts(self, numbers: range, seed: int) -> Tensor:
        """Return the standardised noise of samples, float64, as the operator takes it."""
        if self.spec.start == "spectrum":
            return self._standardised(self.gaussian_.draw(numbers, seed))
        shape = self.shape[1:] if self.shape[0] == 1 else self.shape
        noise = [white_noise(number, shape, seed) for number in numbers]
        return torch.stack(noise).to(self.moments_.values.device)


class _Synthesis:
    """One call of :meth:`Microcanonical.sample`: groups of descents, one after the other."""

    def __init__(
        self,
        model: Microcanonical,
        numbers: range,
        seed: int,
        progress: Progress | None,
        checkpoint: Callable[[dict[str, Tensor]], None] | None,
        every: float,
    ) -> None:
        self.model, self.numbers, self.seed = model, numbers, seed
        self.progress, self.checkpoint, self.every = progress, checkpoint, every
        self.finished: list[Tensor] = []
        self.losses: list[list[float]] = []
        self.descents: list[Descent] = []
        self.began = self.saved = time.monotonic()
        self.taken = 0
        self._replayed = Replayed(self._loss_and_gradient)

    def fields(self) -> Tensor:
        """Return the best standardised fields."""
        while len(self.finished) < len(self.numbers):
            self.descents = self.descents or self._begin()
            iterations = self.model.spec.iterations
            descend(self.descents, self._evaluate, iterations, self._report)
            best = torch.stack([descent.best for descent in self.descents])
            self.finished += self.model.coordinates.field(best)
            self.losses += [descent.losses for descent in self.descents]
            self.descents = []
        return torch.stack(self.finished)

    def resume(self, state: Mapping[str, Tensor]) -> None:
        """Continue from a state of :meth:`_state`."""
        if not state:
            return
        asked = state.get(ASKED, self._asked()).tolist()  # older states do not record it
        if asked != self._asked().tolist():
            raise InvalidParameter(
                f"resume continues samples of (seed, first, n, shape) {asked}, asked were "
                f"{self._asked().tolist()}: ask for the same, or begin without it"
            )
        self.finished = list(state["finished"])
        self.losses = [losses[~losses.isnan()].tolist() for losses in state["losses"]]
        names = {name.split(".")[0] for name in state if "." in name}
        for number in sorted(names, key=int):
            descent = Descent.from_state(under(number, state), **self._tolerances())
            self.descents.append(descent)

    def _state(self) -> dict[str, Tensor]:
        device = self.model.moments_.values.device
        losses = torch.full((len(self.losses), self.model.spec.iterations), torch.nan)
        losses = losses.to(torch.float64)
        for row, values in zip(losses, self.losses, strict=True):
            row[: len(values)] = torch.tensor(values)
        empty = torch.zeros(0, *self.model.shape[1:], dtype=torch.float64, device=device)
        state = {"losses": losses, ASKED: self._asked()}
        state["finished"] = torch.stack(self.finished) if self.finished else empty
        for number, descent in enumerate(self.descents):
            kept = {name: value.clone() for name, value in descent.state().items()}
            state |= over(str(number), kept)
        return state

    def _asked(self) -> Tensor:
        """Return seed, first number, number of samples and shape of one, as states record them."""
        numbers = self.seed % 2**63, self.numbers[0], len(self.numbers)
        return torch.tensor([*numbers, *self.model.shape])

    def _begin(self) -> list[Descent]:
        """Return the next descents, at their starts."""
        dtype = self.model.operator.dtype
        points = math.prod(self.model.shape)
        each = 2 * MEMORY * points * torch.finfo(dtype).bits // 8
        first = len(self.finished)
        numbers = self.numbers[first : first + max(1, REMEMBERED // each)]
        starts = self.model.coordinates.of(self.model.starts(numbers, self.seed))
        return [Descent(start, dtype, **self._tolerances()) for start in starts]

    def _tolerances(self) -> dict[str, float]:
        spec = self.model.spec
        return {"tolerance": spec.tolerance, "gradient_tolerance": spec.gradient_tolerance}

    def _evaluate(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Return losses and gradients; on a CPU field by field.

        So no field's rounding depends on the others: descent would magnify the difference.
        """
        batches = [y] if y.is_cuda else torch.split(y, 1)
        losses, gradients = zip(*(self._replayed(batch) for batch in batches), strict=True)
        return torch.cat(losses), torch.cat(gradients)

    def _loss_and_gradient(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Return the losses of a batch, and their gradients by y."""
        model, coordinates = self.model, self.model.coordinates
        losses, gradients = model.operator.loss_and_gradient(coordinates.field(y), model.moments_)
        return losses, coordinates.field(gradients)

    def _report(self, active: list[int]) -> None:
        before = sum(map(len, self.losses)) + sum(len(d.losses) for d in self.descents)
        elapsed = max(time.monotonic() - self.began, 1e-9)
        self.taken += len(active)
        moments = len(self.model.moments_.values)
        for place, number in enumerate(active, 1):
            losses, sample = self.descents[number].losses, self.numbers[len(self.finished) + number]
            if not math.isfinite(losses[0]):
                raise InvalidParameter(
                    f"sample {sample} begins with a loss of {losses[0]}: its moments leave "
                    f"{self.model.spec.dtype}, in bands where references have next to no power; "
                    "choose start='spectrum' or dtype='float64'"
                )
            values = {
                "sample": float(sample),
                "loss": losses[-1] / (losses[0] or 1.0),
                "moments_per_second": self.taken * moments / elapsed,
            }
            if self.progress is not None:
                done = before - len(active) + place
                self.progress(done, len(self.numbers) * self.model.spec.iterations, values)
        if self.checkpoint is not None and time.monotonic() - self.saved >= self.every:
            self.saved = time.monotonic()
            self.checkpoint(self._state())
