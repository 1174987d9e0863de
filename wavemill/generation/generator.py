"""Generators of images and fields: codes by an embedding, images from codes by a learnt inverse.

    w = L U x ,   x ~ G(w) ,   draws G(w) of Gaussian white w,

The embedding is fixed but for its whitening; G is ridge regression, a convolutional network or a
sparse inversion, learnt in standard units, in which each component has mean 0 and deviation 1 over
all samples.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Self

import torch
from torch import Tensor, nn

from wavemill.errors import InvalidParameter, NotFitted, ShapeMismatch
from wavemill.estimators import Specified, as_spec
from wavemill.generation.convolutional import ConvolutionalGenerator
from wavemill.generation.embedding import Embedding
from wavemill.generation.linear import LinearGenerator
from wavemill.generation.metrics import WINDOW, mean_of_finite, psnr, relative_distance, ssim
from wavemill.generation.refinement import refined
from wavemill.generation.samples import BLOCK, RealImages
from wavemill.generation.sparse import SparseInversion
from wavemill.generation.training import CodedImages, EarlyStopping, Epoch, Trainer
from wavemill.generation.whitening import whiteness
from wavemill.operators import check_whole
from wavemill.progress import Progress
from wavemill.specs.generation import GeneratorSpec
from wavemill.states import State, over, under

FINE = 0.1  # factor of the rate for whole images, after averaged ones
FAR = 2.0  # images between 0 and 1 stay below this, whatever was added to them


class Generator(Specified):
    """An embedding and its inverse, by scikit-learn's convention.

    Samples are images uint8 ``(n, y, x, rgb)`` or fields ``(n[, component], y, x)``; what is
    generated is real ``(n, component, y, x)``, images between 0 and 1.

    Parameters
    ----------
    spec
        A :class:`~wavemill.specs.GeneratorSpec`, its parameters, or None for its defaults.

    Attributes
    ----------
    follow
        Called during refinement, as ``progress`` is during :meth:`fit`.
    """

    follow: Progress | None = None

    def __init__(self, spec: GeneratorSpec | Mapping[str, Any] | None = None) -> None:
        self.spec: GeneratorSpec = as_spec(GeneratorSpec, spec)
        self.metrics_: dict[str, float] = {}
        self.curve_: list[Epoch] = []

    def fit(
        self,
        x: Tensor,
        progress: Progress | None = None,
        seed: int = 0,
        resume: State | None = None,
        checkpoint: Callable[[State], None] | None = None,
    ) -> Self:
        """Learn the whitening and the inverse.

        Parameters
        ----------
        x
            Samples; the part ``spec.validation`` of them says when to stop and chooses penalties.
            Apart from the standard units, nothing else is learnt from it.
        progress
            Called with what is done, what there is to do, and scores.
        seed
            Seed of the first weights and of the order of samples.
        resume, checkpoint
            ``checkpoint`` is given a state at the end of each epoch, and every minute. Resumed from
            any of these, with the same samples, spec and seed, the outcome is the same to the bit.
            ``embedding.*`` and ``codes`` of a state are enough to begin at the first step.

        Raises
        ------
        InvalidParameter
            If no more samples are left to learn from than a code has numbers, or samples hold
            values that are not finite, or do not vary.
        """
        samples = RealImages(x)
        order = torch.randperm(len(samples), generator=torch.Generator().manual_seed(seed))
        held = max(1, round(self.spec.validation * len(samples)))
        if len(samples) - held <= self.spec.dimension:
            raise InvalidParameter(
                f"{len(samples)} samples are too few for codes of {self.spec.dimension} numbers, "
                f"with {held} held back for validation: lower dimension, or learn from more"
            )
        resume = {name: value.to(x.device) for name, value in (resume or {}).items()}
        self._build(samples.shape, samples.are_images, samples.range())
        self.mean_, self.deviation_ = samples.moments()
        if resume:
            self.embedding_.load(under("embedding", resume))
            codes = resume["codes"]
        else:
            learnt = torch.ones(len(samples), dtype=torch.bool)
            learnt[order[:held]] = False
            codes = self.embedding_.fit_transform(samples, progress, learnt)
        train, valid = (self._pairs(codes, samples, o) for o in (order[held:], order[:held]))
        self.metrics_ = {f"code_{name}": value for name, value in whiteness(train.w).items()}
        self.network_ = self.built(seed).to(codes.device)
        linear = self._linear(self.network_)
        if linear is not None and "linear.matrix" in resume:
            linear.load_state_dict(under("linear", resume))
        elif linear is not None:
            linear.fit(train, valid, self.embedding_ if self.spec.shared else None)
        if linear is self.network_:
            self.metrics_["validation_psnr"] = self._validate(linear, valid)
            return self
        fixed = over("embedding", self.embedding_.state()) | {"codes": codes}
        if linear is not None:
            fixed |= over("linear", linear.state_dict())
        keep = None if checkpoint is None else lambda state: checkpoint(fixed | state)
        _Run(self, train, valid, seed, progress, resume, keep).learn()
        return self

    def _build(self, shape: tuple[int, int, int], are_images: bool, peak: float) -> None:
        spec = self.spec
        self.shape_, self.are_images_, self.peak_ = shape, are_images, peak
        self.embedding_ = Embedding(
            shape[1:], spec.dimension, spec.transform, spec.J, spec.L, spec.A, spec.max_order
        )

    def built(self, seed: int = 0) -> nn.Module:
        """Return an inverse that has learnt nothing yet."""
        with torch.random.fork_rng([]):
            torch.default_generator.manual_seed(seed)
            return self._new(seed)

    def _new(self, seed: int) -> nn.Module:
        spec, shape = self.spec, self.shape_
        if spec.model == "convolutional":
            grid = self.embedding_.grid
            return ConvolutionalGenerator(spec.dimension, shape[0], shape[1:], grid, spec.width)
        linear = LinearGenerator(spec.dimension, shape)
        if spec.model == "linear":
            return linear
        return SparseInversion(
            linear, self.embedding_, spec.atoms, spec.iterations, spec.signed, seed
        )

    def _linear(self, network: nn.Module) -> LinearGenerator | None:
        """Return the linear generator that a network is, or is built on."""
        match network:
            case LinearGenerator():
                return network
            case SparseInversion():
                return network.linear
            case _:
                return None

    def _pairs(self, codes: Tensor, samples: RealImages, rows: Tensor) -> CodedImages:
        mean, deviation = self.mean_[:, None, None], self.deviation_[:, None, None]
        return CodedImages(codes[rows], lambda places: (samples[rows[places]] - mean) / deviation)

    def _twin(self, seed: int) -> nn.Module:
        """Return a second network, for averages, that shares the first's fixed linear part."""
        twin = self.built(seed).to(self.mean_.device)
        if isinstance(twin, SparseInversion) and isinstance(self.network_, SparseInversion):
            twin.linear = self.network_.linear
        return twin

    def take_best(self, state: State) -> None:
        """Take the best network so far from a state that :meth:`fit` gave to ``checkpoint``."""
        self.network_.load_state_dict(under("best", state))
        self.curve_ = [Epoch(int(e), loss, db) for e, loss, db in state["trainer.curve"].tolist()]
        self.metrics_["validation_psnr"] = max(point.psnr for point in self.curve_)

    def _validate(self, network: nn.Module, pairs: CodedImages) -> float:
        """Return the mean PSNR of a network's images of held-out codes, where it is defined."""
        scores = []
        for rows in torch.split(torch.arange(len(pairs)), BLOCK):
            real = self._physical(pairs.images(rows))
            scores.append(psnr(real, self._decoded(network, pairs.w[rows]), self.peak_))
        return mean_of_finite(torch.cat(scores))

    @torch.no_grad()
    def _decoded(self, network: nn.Module, codes: Tensor) -> Tensor:
        network.eval()
        images = self._physical(network(codes))
        return images.clamp(0, 1) if self.are_images_ else images

    def _physical(self, standard: Tensor) -> Tensor:
        return standard * self.deviation_[:, None, None] + self.mean_[:, None, None]

    def encode(self, x: Tensor) -> Tensor:
        """Return codes w ``(n, m)`` of samples."""
        self._learnt()
        codes: Tensor = self.embedding_(self._alike(x))
        return codes

    def _alike(self, x: Tensor) -> RealImages:
        """Return samples, or refuse those unlike the ones learnt from."""
        self._learnt()
        samples, learnt = RealImages(x), "images" if self.are_images_ else "real fields"
        if samples.shape != self.shape_:
            raise ShapeMismatch(f"learnt from samples {self.shape_}, got {samples.shape}")
        if samples.are_images and not self.are_images_:
            raise InvalidParameter(f"learnt from {learnt}, got images uint8: give the same units")
        if self.are_images_ and not samples.are_images and float(x.abs().max()) > FAR:
            raise InvalidParameter(
                f"learnt from {learnt}: real ones lie between 0 and 1, got up to "
                f"{float(x.abs().max()):.4g}: divide by 255, or give uint8 (n, y, x, rgb)"
            )
        return samples

    def decode(self, w: Tensor, refine: int = 0) -> Tensor:
        """Return G(w) ``(n, component, y, x)``.

        ``refine`` gradients bring each image's code nearer to w (:mod:`.refinement`), which
        restores texture, though with invented phases.
        """
        self._learnt()
        if w.ndim != 2 or w.shape[1] != self.spec.dimension:
            raise ShapeMismatch(f"codes are (n, {self.spec.dimension}), got {tuple(w.shape)}")
        check_whole(refine=refine)
        if refine < 0:
            raise InvalidParameter(f"refine={refine} gradients: 0 for none, or more")
        w = w.float()
        blocks = torch.split(w, BLOCK)
        made = torch.cat([self._decoded(self.network_, codes) for codes in blocks])
        near = refined(self.embedding_, w, made, refine, self.follow)
        return near.clamp(0, 1) if self.are_images_ else near

    def reconstruct(self, x: Tensor, refine: int = 0) -> Tensor:
        """Return samples as they are reconstructed from their codes."""
        return self.decode(self.encode(x), refine)

    def interpolate(self, x: Tensor, steps: int = 8, refine: int = 0) -> Tensor:
        """Return strips ``(n - 1, steps, component, y, x)`` from each sample to the next.

        G((1 - t) w0 + t w1) for t from 0 to 1.
        """
        w = self.encode(x)
        t = torch.linspace(0, 1, steps, device=w.device, dtype=w.dtype)[:, None]
        mixed = (1 - t) * w[:-1, None] + t * w[1:, None]
        return torch.unflatten(self.decode(mixed.flatten(0, 1), refine), 0, (len(w) - 1, steps))

    def sample(self, n: int, seed: int = 0, refine: int = 0) -> Tensor:
        """Draw ``(n, component, y, x)``: G of Gaussian white noise."""
        self._learnt()
        return self.decode(self._noise(n, seed), refine)

    def vary(self, x: Tensor, n: int, seed: int = 0, part: float = 0.5, refine: int = 0) -> Tensor:
        """Return variants ``(len(x), n, component, y, x)`` of samples.

        A part ``part`` of a code's variance is drawn anew, ``sqrt(1 - part) w + sqrt(part) noise``,
        which leaves it Gaussian white.
        """
        if not 0 <= part <= 1:
            raise InvalidParameter(f"part={part} of a code's variance must lie between 0 and 1")
        w = self.encode(x)
        noise = torch.unflatten(self._noise(len(w) * n, seed), 0, (len(w), n))
        mixed = (1 - part) ** 0.5 * w[:, None] + part**0.5 * noise
        return torch.unflatten(self.decode(mixed.flatten(0, 1), refine), 0, (len(w), n))

    def _noise(self, n: int, seed: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        noise = torch.randn(n, self.spec.dimension, generator=generator, dtype=torch.float32)
        return noise.to(self.mean_.device)

    def judge(self, x: Tensor, refine: int = 0) -> dict[str, Tensor]:
        """Return how near reconstructions are, one number for each sample.

        ``psnr`` (dB, infinite if equal), ``ssim``; ``features``: relative distance of averaged
        coefficients before whitening (NaN if they are 0); ``code``: ``|encode(G(w)) - w| / |w|``.
        """
        scores: dict[str, list[Tensor]] = {}
        for real in self._alike(x).blocks():
            for name, values in self._judged(real, refine).items():
                scores.setdefault(name, []).append(values)
        return {name: torch.cat(parts) for name, parts in scores.items()}

    def _judged(self, real: Tensor, refine: int) -> dict[str, Tensor]:
        features = self.embedding_.all_features(real)
        w = self.embedding_.whitening(features)
        made = self.decode(w, refine)
        again = self.embedding_.all_features(made)
        large = min(self.shape_[1:]) >= WINDOW  # enough for SSIM to be defined
        return {
            "psnr": psnr(real, made, self.peak_),
            **({"ssim": ssim(real, made, self.peak_)} if large else {}),
            "features": relative_distance(features, again),
            "code": relative_distance(w, self.embedding_.whitening(again)),
        }

    def state(self) -> State:
        """Return everything learnt."""
        self._learnt()
        sizes = torch.tensor([*self.shape_, int(self.are_images_)])
        points = [[p.epoch, p.loss, p.psnr] for p in self.curve_]
        return {
            "shape": sizes,
            "peak": torch.tensor(self.peak_, dtype=torch.float64),
            "mean": self.mean_,
            "deviation": self.deviation_,
            "curve": torch.tensor(points, dtype=torch.float64).reshape(-1, 3),
            **over("embedding", self.embedding_.state()),
            **over("network", self.network_.state_dict()),
        }

    @classmethod
    def from_state(cls, spec: GeneratorSpec, state: State) -> Self:
        """Build from what another has learnt."""
        made = cls(spec)
        *shape, are_images = map(int, state["shape"])
        made._build((shape[0], shape[1], shape[2]), bool(are_images), float(state["peak"]))
        made.mean_, made.deviation_ = state["mean"], state["deviation"]
        made.embedding_.load(under("embedding", state))
        made.network_ = made.built().to(made.mean_.device)
        made.network_.load_state_dict(under("network", state))
        made.curve_ = [Epoch(int(e), loss, score) for e, loss, score in state["curve"].tolist()]
        return made

    def _learnt(self) -> None:
        if not hasattr(self, "network_"):
            raise NotFitted("this generator has learnt nothing yet: call fit")


@dataclass(frozen=True)
class _Run:
    """The epochs of one call of :meth:`Generator.fit`, with what they learn from and report to."""

    model: Generator
    train: CodedImages
    valid: CodedImages
    seed: int
    progress: Progress | None
    resume: State
    checkpoint: Callable[[State], None] | None

    def learn(self) -> None:
        """Train until validation gains no more; keep the average that validated best."""
        model, network, rate = self.model, self.model.network_, self.model.spec.step
        loss = None
        if isinstance(network, SparseInversion) and model.spec.pooling > 1:
            rate *= FINE
            loss = None if self._begun else self._coarse(network)
        descent = self._descent(network, model._twin(self.seed), rate)
        if loss is not None:
            descent.begin(loss)
            if self.checkpoint is not None:
                self.checkpoint(descent.state())
        descent.run(model.spec.epochs, self.progress, self.checkpoint)
        model.take_best(descent.state())

    def _coarse(self, network: SparseInversion) -> float:
        """Learn B on images averaged over a few points, then C on whole ones; return the loss."""
        pooling, keep = self.model.spec.pooling, self.checkpoint
        run = replace(
            self,
            train=self.train.pooled(pooling),
            valid=self.valid.pooled(pooling),
            resume=under("coarse", self.resume),
            checkpoint=None if keep is None else lambda state: keep(over("coarse", state)),
        )
        small, average = (network.pooled(pooling, self.seed) for _ in range(2))
        if not run._begun:
            small.solve(run.train, run.valid)
        descent = run._descent(small, average, self.model.spec.step)
        descent.run(self.model.spec.epochs, run.progress, run.checkpoint)
        average.load_state_dict(descent.best)
        network.take_atoms(average).solve(self.train, self.valid)
        return descent.trainer.curve[-1].loss

    @property
    def _begun(self) -> bool:
        """Whether there are steps to continue from."""
        return "trainer.curve" in self.resume

    def _descent(self, network: nn.Module, average: nn.Module, rate: float) -> EarlyStopping:
        """Return a descent, which continues from ``resume`` if that holds any steps."""
        spec = self.model.spec
        trainer = Trainer(network, self.train, spec.loss, rate, spec.batch, seed=self.seed)
        score = partial(self.model._validate, pairs=self.valid)
        descent = EarlyStopping(trainer, average, score)
        return descent.load(self.resume) if self._begun else descent
