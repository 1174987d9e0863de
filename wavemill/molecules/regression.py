"""Regression of a number on features of molecules: composition, ridge, products of linear forms.

Every estimator follows scikit-learn, whose searches and pipelines take it: ``fit`` returns self,
what it learns ends in ``_``. It takes tensors, arrays and tables. Features ``(sample, feature)``
begin with ``counts`` columns, the numbers of atoms of each element. Sums over
atoms are extensive, and so is a linear form of them without a constant: two molecules far apart
have the sum of their energies. Columns are divided by their root mean square and not centred.
"""

from __future__ import annotations

import abc
import math
from collections.abc import Iterator
from itertools import pairwise
from typing import Any, Self

import torch
from torch import Tensor

from wavemill.errors import InvalidParameter, NotFitted, ShapeMismatch
from wavemill.estimators import Estimator
from wavemill.operators import Numbers, as_tensor
from wavemill.progress import Progress
from wavemill.states import over, under

ALPHAS = tuple(10.0**power for power in range(-13, -2))
BLOCK = 2048  # rows taken into double precision at a time


class Regression(Estimator, abc.ABC):
    """What regressions on features share."""

    @abc.abstractmethod
    def predict(self, x: Numbers) -> Tensor:
        """Return ``(sample,)`` in float64, on the device of x."""

    def score(self, x: Numbers, y: Numbers) -> float:
        """Return R^2, what part of the variance of y ``(sample,)`` is predicted."""
        found, y = self.predict(x).detach(), as_tensor(y)
        check_pairs(found[:, None], y)
        y = y.to(found)
        return float(1 - (y - found).square().sum() / (y - y.mean()).square().sum())

    def __sklearn_tags__(self) -> Any:
        from sklearn.utils import RegressorTags, Tags, TargetTags  # which alone asks for them

        return Tags("regressor", TargetTags(required=True), regressor_tags=RegressorTags())


class Composition(Regression):
    """Least squares on the counts of elements alone, without any geometry.

    Parameters
    ----------
    counts
        Number of leading columns of x that count atoms.
    """

    def __init__(self, counts: int) -> None:
        self.counts = counts

    def fit(self, x: Numbers, y: Numbers, progress: Progress | None = None) -> Self:
        """Learn from x ``(sample, feature)`` and y ``(sample,)``."""
        x, y = learnable(x, y)
        if not 0 <= self.counts <= x.shape[1]:
            raise InvalidParameter(f"counts={self.counts}, but there are {x.shape[1]} features")
        self.weights_: Tensor = torch.linalg.lstsq(
            x[:, : self.counts].double().cpu(), y.double().cpu()[:, None], driver="gelsd"
        ).solution[:, 0]
        return self

    def predict(self, x: Numbers) -> Tensor:
        """Return ``(sample,)`` in float64."""
        learnt(self, "weights_")
        x = features(x)
        counts = features(x[:, : self.counts], len(self.weights_))
        return counts.double() @ self.weights_.to(x.device)

    def state(self) -> dict[str, Tensor]:
        """Return everything learnt."""
        return {"weights": self.weights_}

    def load(self, state: dict[str, Tensor]) -> Self:
        """Take what another has learnt."""
        self.weights_ = state["weights"]
        return self


class Ridge(Regression):
    """Linear least squares with a penalty, in closed form, its strength by cross-validation.

    ``w = (X^T X + alpha n I)^-1 X^T y`` on columns of root mean square 1 or, with fewer samples
    than features, ``w = X^T (X X^T + alpha n I)^-1 y``, which is the same. The least-squares fit of
    the ``counts`` first columns is subtracted from y beforehand, so that it bears no penalty.

    Parameters
    ----------
    counts
        Number of leading columns of x that count atoms.
    alpha
        The penalty; None to choose among `ALPHAS` by the mean absolute error of ``folds`` parts.
    folds
        Parts of the cross-validation, each of consecutive samples: give them in random order.
    """

    def __init__(self, counts: int, alpha: float | None = None, folds: int = 3) -> None:
        self.counts, self.alpha, self.folds = counts, alpha, folds

    def fit(self, x: Numbers, y: Numbers, progress: Progress | None = None) -> Self:
        """Learn from x ``(sample, feature)`` and y ``(sample,)``; sums are in float64."""
        x, y = learnable(x, y)
        self.composition_ = Composition(self.counts).fit(x, y)
        target = y.double() - self.composition_.predict(x)
        self.scale_ = root_mean_square(x)
        validated = self.alpha is None and len(x) >= 8 * self.folds
        bounds = torch.linspace(0, len(x), (self.folds if validated else 1) + 1).long().tolist()
        folds = [slice(start, stop) for start, stop in pairwise(bounds)]
        form = _Samples if len(x) < x.shape[1] else _Features
        equations = form(x, target, self.scale_, folds)
        self.alpha_ = 1e-6 if self.alpha is None else self.alpha
        if validated:
            self.alpha_ = self._validated(equations, target, folds, progress)
        self.weights_ = equations.weights(self.alpha_ * len(x))
        return self

    def _validated(
        self,
        equations: _Samples | _Features,
        target: Tensor,
        folds: list[slice],
        progress: Progress | None,
    ) -> float:
        """Return the penalty of least mean absolute error on parts left out in turn."""
        errors = torch.zeros(len(ALPHAS), dtype=torch.float64)
        for number, fold in enumerate(folds):
            for place, alpha in enumerate(ALPHAS):
                found = equations.left_out(number, alpha * len(target))
                errors[place] += (found - target[fold]).abs().sum().cpu() / len(target)
            if progress is not None:
                progress(number + 1, len(folds), {"error": float(errors.min())})
        self.errors_ = errors
        return ALPHAS[int(errors.argmin())]

    def predict(self, x: Numbers) -> Tensor:
        """Return ``(sample,)`` in float64."""
        learnt(self, "weights_")
        x = features(x, len(self.weights_))
        linear = x.double() @ (self.weights_ / self.scale_).to(x.device)
        return self.composition_.predict(x) + linear

    def state(self) -> dict[str, Tensor]:
        """Return everything learnt."""
        linear = {"weights": self.weights_, "scale": self.scale_}
        return over("composition", self.composition_.state()) | linear

    def load(self, state: dict[str, Tensor]) -> Self:
        """Take what another has learnt."""
        self.composition_ = Composition(self.counts).load(under("composition", state))
        self.weights_, self.scale_ = state["weights"], state["scale"]
        return self


class _Features:
    """Normal equations of ridge regression, one a feature; rows are taken block by block."""

    def __init__(self, x: Tensor, target: Tensor, scale: Tensor, folds: list[slice]) -> None:
        self.x, self.target, self.scale, self.folds = x, target, scale, folds
        self.sums = [self._sums(fold) for fold in folds]
        self.gram, self.product = (
            torch.stack(parts).sum(0) for parts in zip(*self.sums, strict=True)
        )

    def _sums(self, rows: slice) -> tuple[Tensor, Tensor]:
        """Return ``X^T X`` and ``X^T y`` of some rows."""
        size = self.x.shape[1]
        gram = torch.zeros(size, size, dtype=torch.float64, device=self.x.device)
        product = gram.new_zeros(size)
        for block, values in blocks(self.x[rows], self.target[rows]):
            scaled = block.double() / self.scale
            gram.addmm_(scaled.T, scaled)
            product += scaled.T @ values
        return gram, product

    def weights(self, penalty: float) -> Tensor:
        """Return w, learnt from all samples."""
        return penalised(self.gram, self.product, penalty)

    def left_out(self, fold: int, penalty: float) -> Tensor:
        """Return predictions for the samples of a fold, learnt from all others."""
        some, part = self.sums[fold]
        weights = penalised(self.gram - some, self.product - part, penalty)
        return (self.x[self.folds[fold]].double() / self.scale) @ weights


class _Samples:
    """The same equations in dual form, one a sample."""

    def __init__(self, x: Tensor, target: Tensor, scale: Tensor, folds: list[slice]) -> None:
        self.scaled, self.target, self.folds = x.double() / scale, target, folds
        self.alike = self.scaled @ self.scaled.T

    def weights(self, penalty: float) -> Tensor:
        """Return w, learnt from all samples."""
        return self.scaled.T @ penalised(self.alike, self.target, penalty)

    def left_out(self, fold: int, penalty: float) -> Tensor:
        """Return predictions for the samples of a fold, learnt from all others."""
        others = torch.ones(len(self.target), dtype=torch.bool, device=self.alike.device)
        others[self.folds[fold]] = False
        rows = self.alike[others]
        found = penalised(rows[:, others], self.target[others], penalty)
        return found @ rows[:, self.folds[fold]]


class Multilinear(Regression):
    """A linear form and products of linear forms (Eickenberg et al., J. Chem. Phys. 148, 2018).

        f(x) = ridge(x) + sum over i of  nu_i  prod over s <= order of (<w_i^s, x> + c_i^s)

    with x centred and divided by its root mean square. The products are learnt by Adam on what
    ridge regression leaves, and those of the epoch of least validation error are kept. Products of
    sums are not extensive, so this is for molecules of the sizes learnt from.

    Parameters
    ----------
    counts
        Number of leading columns of x that count atoms.
    order
        Factors of a product: 1, 2 (bilinear) or 3.
    terms
        Number of products.
    epochs, batch, rate
        Passes over the samples, samples in a step, and the first step length, which falls to 0
        as half a cosine.
    seed
        Seed of the first weights and of the order of samples.
    """

    def __init__(
        self,
        counts: int,
        order: int = 2,
        terms: int = 64,
        epochs: int = 60,
        batch: int = 256,
        rate: float = 2e-3,
        seed: int = 0,
    ) -> None:
        if order not in (1, 2, 3) or min(terms, epochs, batch) < 1:
            raise InvalidParameter(
                f"multilinear: {order=} must be 1, 2 or 3, {terms=}, {epochs=} and {batch=} above 0"
            )
        self.counts, self.order, self.terms = counts, order, terms
        self.epochs, self.batch, self.rate, self.seed = epochs, batch, rate, seed

    def fit(self, x: Numbers, y: Numbers, progress: Progress | None = None) -> Self:
        """Learn from x ``(sample, feature)`` and y ``(sample,)``; the last tenth validates."""
        x, y = learnable(x, y)
        held = max(1, len(x) // 10)
        self.ridge_ = Ridge(self.counts).fit(x[:-held], y[:-held], progress)
        rest = (y.double() - self.ridge_.predict(x)).float()
        self.mean_, self.scale_ = x.double().mean(0).float(), root_mean_square(x).float()
        self.spread_ = rest.std().clamp(min=1e-12)
        generator = torch.Generator().manual_seed(self.seed)
        self._begin(x.shape[1], generator, x.device)
        parameters = [value.requires_grad_() for value in self._parameters()]
        optimizer = torch.optim.Adam(parameters, self.rate)
        steps = self.epochs * max(1, (len(x) - held) // self.batch)
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: 0.5 * (1 + math.cos(math.pi * min(step / steps, 1)))
        )
        best, kept = (rest[-held:] / self.spread_).abs().mean(), None
        for epoch in range(self.epochs):
            order = torch.randperm(len(x) - held, generator=generator)
            for start in range(0, max(1, len(order) - self.batch + 1), self.batch):
                rows = order[start : start + self.batch]
                optimizer.zero_grad()
                loss = (self._products(x[rows]) - rest[rows] / self.spread_).abs().mean()
                torch.autograd.backward(loss)
                optimizer.step()
                schedule.step()
            with torch.no_grad():
                error = (self._products(x[-held:]) - rest[-held:] / self.spread_).abs().mean()
            if error < best:
                best, kept = error, [value.detach().clone() for value in parameters]
            if progress is not None:
                progress(epoch + 1, self.epochs, {"error": float(best * self.spread_)})
        learnt_values = kept or [torch.zeros_like(value) for value in parameters]
        self.factors_, self.offsets_, self.outer_ = (v.detach() for v in learnt_values)
        return self

    def _begin(self, features: int, generator: torch.Generator, device: torch.device) -> None:
        shape = (self.order, self.terms)
        given: Any = {"generator": generator, "dtype": torch.float32}
        draw = torch.randn(*shape, features, **given)
        self.factors_ = (draw / math.sqrt(features)).to(device)
        self.offsets_ = torch.randn(shape, **given).to(device)
        self.outer_ = (torch.randn(self.terms, **given) / self.terms).to(device)

    def _parameters(self) -> list[Tensor]:
        return [self.factors_, self.offsets_, self.outer_]

    def _products(self, x: Tensor) -> Tensor:
        scaled = (x.float() - self.mean_) / self.scale_
        forms = torch.einsum("nf,stf->nst", scaled, self.factors_) + self.offsets_
        return forms.prod(1) @ self.outer_

    def predict(self, x: Numbers) -> Tensor:
        """Return ``(sample,)`` in float64."""
        learnt(self, "ridge_")
        x = features(x, len(self.mean_))
        return self.ridge_.predict(x) + (self._products(x) * self.spread_).double()

    def state(self) -> dict[str, Tensor]:
        """Return everything learnt."""
        names = ("factors", "offsets", "outer", "mean", "scale", "spread")
        products = {name: getattr(self, f"{name}_") for name in names}
        return over("ridge", self.ridge_.state()) | products

    def load(self, state: dict[str, Tensor]) -> Self:
        """Take what another has learnt."""
        self.ridge_ = Ridge(self.counts).load(under("ridge", state))
        for name in ("factors", "offsets", "outer", "mean", "scale", "spread"):
            setattr(self, f"{name}_", state[name])
        return self


def penalised(gram: Tensor, product: Tensor, penalty: float) -> Tensor:
    """Return ``(G + penalty I)^-1 b``; the penalty grows where rounding has made G indefinite.

    Only the lower triangle of G, with its diagonal, is read.
    """
    for attempt in range(12):
        strength = max(penalty, 1e-15 * float(gram.diagonal().max())) * 10.0**attempt
        regular = gram.clone().mT  # LAPACK's order: the factor overwrites it, as G is large
        regular.diagonal().add_(strength)
        failed = torch.zeros((), dtype=torch.int32, device=gram.device)
        torch.linalg.cholesky_ex(regular, upper=True, out=(regular, failed))
        if not int(failed):
            inner = torch.linalg.solve_triangular(regular.mT, product[:, None], upper=False)
            found: Tensor = torch.linalg.solve_triangular(regular, inner, upper=True)
            return found[:, 0]
    raise InvalidParameter("the features are not finite: no penalty makes them regular")


def root_mean_square(x: Tensor) -> Tensor:
    """Return the root mean square of each column in float64.

    It is at least a hundredth of that of all columns, so that a column that is hardly ever
    different from 0 is not blown up.
    """
    total = sum((block.double().square().sum(0) for block, _ in blocks(x, x)), torch.tensor(0.0))
    scale = (total / max(len(x), 1)).sqrt()
    least = 0.01 * float(scale.square().mean().sqrt())
    return scale.clamp(min=least if least > 0 else 1.0)


def blocks(x: Tensor, y: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield consecutive rows of both."""
    for start in range(0, len(x), BLOCK):
        yield x[start : start + BLOCK], y[start : start + BLOCK]


def features(x: Numbers, size: int | None = None) -> Tensor:
    """Return features as a tensor, or refuse other axes, and other numbers than those learnt."""
    x = x if isinstance(x, Tensor) else as_tensor(x)
    if x.is_complex() or x.ndim != 2 or size not in (None, x.shape[1]):
        shape = f"(sample, {'feature' if size is None else size})"
        raise ShapeMismatch(f"features are real {shape}, got {x.dtype} of shape {tuple(x.shape)}")
    return x


def learnable(x: Numbers, y: Numbers) -> tuple[Tensor, Tensor]:
    """Return features and targets as tensors, or refuse what nothing can be learnt from."""
    x, y = as_tensor(x), as_tensor(y)
    check_pairs(features(x), y)
    if not all(bool(block.isfinite().all()) for block, _ in blocks(x, y)):
        raise InvalidParameter("features are not finite: leave such samples out, or fill them")
    return x, y


def check_pairs(x: Tensor, y: Tensor) -> None:
    """Refuse targets unless there is one for each row of features, and all are finite."""
    if x.ndim != 2 or y.shape != x.shape[:1] or not len(y):
        raise ShapeMismatch(
            f"features {tuple(x.shape)} and targets {tuple(y.shape)}: give (sample, feature) and "
            "(sample,)"
        )
    if unknown := int((~torch.isfinite(y)).sum()):
        raise InvalidParameter(f"{unknown} of {len(y)} targets are not finite: leave them out")


def learnt(model: object, name: str) -> None:
    """Raise `NotFitted` unless a model has learnt ``name``."""
    if not hasattr(model, name):
        raise NotFitted(f"{type(model).__name__} has learnt nothing yet: call fit first")
