"""Classifiers of feature maps: ridge regression, layers, and sparse codes in a learnt dictionary.

Features are ``(n, channel, y, x)``, classes whole numbers. :class:`Standardisation` and
:class:`RidgeClassifier` learn from any number of batches, and see each of them once.

Source: Zarka, Thiry, Angles and Mallat, *Deep network classification by scattering and homotopy
dictionary learning*, ICLR 2020.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Self

import torch
from torch import Tensor, nn

from wavemill.dictionaries.blocks import Block
from wavemill.dictionaries.dictionary import Dictionary, homotopy, istc
from wavemill.dictionaries.team import SharedNorm
from wavemill.errors import InvalidParameter, NotFitted, ShapeMismatch
from wavemill.operators import keep_buffer, must_be_tensor
from wavemill.specs.images import ClassifierSpec

ALPHAS = (1e-3, 1e-2, 1e-1, 0.3, 1.0, 3.0)
_MOST = 5 * 2**30  # bytes that ridge regression may take
_TOGETHER = 256  # samples multiplied at a time
_WIDTH = 1024  # features multiplied at a time
_LEAST = 1e-2  # part of the mean variance that is added before whitening
_MAPS, _ROWS = ("n", "channel", "y", "x"), ("n", "feature")


class Standardisation:
    """Channels in units of their spread, or their principal components, whitened.

        x -> (x - mean) / deviation,     or     A^T of that,   A = V (E + e)^{-1/2}

    with eigenvectors V and eigenvalues E of the correlation matrix, over samples and positions,
    and e a hundredth of the mean eigenvalue.

    Parameters
    ----------
    components
        Number of components, those of largest eigenvalue; 0: the channels themselves.
    power
        Power that x is raised to first: sign(x) |x|^power. Roots even out features that are mostly
        small and now and then large.
    """

    def __init__(self, components: int = 0, power: float = 1.0) -> None:
        self.components, self.power = components, power
        self._count = 0

    def update(self, x: Tensor) -> Self:
        """Add a batch ``(n, channel, y, x)``; sums are in float64, about the first one's mean.

        Other shapes, or other channels than those of the first, are a `ShapeMismatch`.
        """
        _check(x, _MAPS, len(self._origin) if self._count else None)
        rows = self._raised(x).movedim(1, -1).reshape(-1, x.shape[1])
        if not self._count:
            size = x.shape[1]
            self._origin: Tensor = rows.mean(0)
            self._sum = rows.new_zeros(size, dtype=torch.float64)
            shape = (size, size) if self.components else (size,)
            self._squares = rows.new_zeros(shape, dtype=torch.float64)
        rows = rows - self._origin
        self._count += len(rows)
        self._sum += rows.double().sum(0)
        self._squares += (rows.T @ rows if self.components else rows.square().sum(0)).double()
        return self

    def solve(self) -> Self:
        """Learn ``mean_``, ``deviation_`` and ``axes_`` from what was added.

        Raises
        ------
        NotFitted, InvalidParameter
            If nothing was added, or there are fewer channels than components.
        """
        if not self._count:
            raise NotFitted("Standardisation has seen nothing yet: call update first")
        shift, moments = self._sum / self._count, self._squares / self._count
        variance = (moments.diagonal() if self.components else moments) - shift.square()
        floor = 1e-8 * float(variance.mean()) + 1e-30
        deviation = variance.clamp(min=floor).sqrt()
        self.mean_: Tensor = (self._origin.double() + shift).float()
        self.deviation_: Tensor = deviation.float()
        self.axes_ = self._axes(moments - torch.outer(shift, shift), deviation)
        return self

    def _axes(self, covariance: Tensor, deviation: Tensor) -> Tensor:
        """Return ``A``, ``(channel, component)``; empty without components."""
        if not self.components:
            return torch.zeros(0)
        if self.components > len(deviation):
            raise InvalidParameter(f"{self.components} components of {len(deviation)} channels")
        values, vectors = torch.linalg.eigh(covariance / torch.outer(deviation, deviation))
        order = torch.arange(len(values) - 1, len(values) - 1 - self.components, -1)
        spread = (values[order] + _LEAST * values.mean()).sqrt()
        axes: Tensor = (vectors[:, order] / spread).float()
        return axes

    @torch.no_grad()
    def __call__(self, x: Tensor) -> Tensor:
        """Return float32 ``(n, component or channel, y, x)``."""
        if not hasattr(self, "mean_"):
            raise NotFitted("Standardisation has learnt nothing yet: call solve first")
        _check(x, _MAPS, len(self.mean_))
        mean, deviation = self.mean_.to(x.device), self.deviation_.to(x.device)
        standard = (self._raised(x) - mean[:, None, None]).div_(deviation[:, None, None])
        if not self.components:
            return standard
        return torch.einsum("nchw,cd->ndhw", standard, self.axes_.to(x.device))

    def _raised(self, x: Tensor) -> Tensor:
        x = x.float()
        return x if self.power == 1 else x.abs().pow_(self.power).copysign_(x)

    def state(self) -> dict[str, Tensor]:
        """Return everything learnt, and the power."""
        learnt = {"mean": self.mean_, "deviation": self.deviation_, "axes": self.axes_}
        return {**learnt, "power": torch.tensor(self.power, dtype=torch.float64)}

    def load(self, state: dict[str, Tensor]) -> Self:
        """Take what another has learnt."""
        self.mean_, self.deviation_ = state["mean"], state["deviation"]
        self.axes_, self.power = state["axes"], float(state["power"])
        self.components = self.axes_.shape[1] if self.axes_.ndim == 2 else 0
        return self


class RidgeClassifier:
    """Least squares of the classes' indicators with a penalty, in closed form.

        B = (C_xx + alpha s I)^{-1} C_xy,    scores = (x - mean_x) B + mean_y

    with the covariances of features and indicators, and s the mean variance of the features. With
    fewer samples than features this equals

        B = X^T (X X^T / n + alpha s I)^{-1} Y / n,    X, Y about their means,

    so samples are held until there are as many as features; from then on only sums are.

    Parameters
    ----------
    classes
        Number of classes.
    """

    def __init__(self, classes: int) -> None:
        self.classes = classes
        self._count = 0
        self._held: list[tuple[Tensor, Tensor]] = []

    def update(self, x: Tensor, y: Tensor) -> Self:
        """Add features ``(n, feature)`` and classes ``(n,)``; sums are in float64.

        Raises
        ------
        ShapeMismatch, InvalidParameter
            If there is not a class for each row, or other features than before; as `check_ridge`,
            for all samples added so far.
        """
        _check(x, _ROWS, len(self._sums[0]) if self._count else None)
        must_be_tensor(y)
        if y.shape != x.shape[:1]:
            raise ShapeMismatch(f"{len(x)} rows take as many classes, got {tuple(y.shape)}")
        known = torch.arange(self.classes, device=y.device)
        if y.is_floating_point() or not bool(torch.isin(y, known).all()):
            raise InvalidParameter(f"classes are whole numbers from 0 to {self.classes - 1}")
        rows, target = x.float(), nn.functional.one_hot(y.long(), self.classes).float()
        size = x.shape[1]
        check_ridge(self._count + len(rows), size)
        if not self._count:
            zeros = rows.new_zeros(size + self.classes, dtype=torch.float64)
            self._sums: tuple[Tensor, Tensor] = (zeros[:size], zeros[size:])
        self._count += len(rows)
        for total, part in zip(self._sums, (rows, target), strict=True):
            total += part.double().sum(0)
        pieces = (torch.split(values, _TOGETHER) for values in (rows, target))
        self._held += zip(*pieces, strict=True)
        if self._count >= size:
            self._add_up()
        return self

    def _add_up(self) -> None:
        """Replace the held samples by sums of their products."""
        if not hasattr(self, "_gram"):
            size = len(self._sums[0])
            self._gram = self._sums[0].new_zeros(size, size)
            self._product = self._gram.new_zeros(size, self.classes)
        for rows, target in self._held:
            self._product += rows.T @ target
            for some, columns in zip(
                torch.split(self._gram, _WIDTH), torch.split(rows, _WIDTH, 1), strict=True
            ):
                some += columns.T @ rows  # the whole product would exist in float32 and in float64
        self._held.clear()

    def solve(self, alpha: float) -> Self:
        """Learn ``weights_`` ``(class, feature)`` and ``bias_`` at one penalty."""
        ((self.weights_, self.bias_),) = self._solutions((alpha,))
        return self

    def choose(self, x: Tensor, y: Tensor) -> float:
        """Solve at the penalty of `ALPHAS` that is right most often on ``x``, ``y``; return it."""
        best, most = ALPHAS[0], -1
        for alpha, (weights, bias) in zip(ALPHAS, self._solutions(ALPHAS), strict=True):
            right = int((_linear(x, weights, bias).argmax(1) == y).sum())
            if right > most:
                best, most, self.weights_, self.bias_ = alpha, right, weights, bias
        return best

    def _solutions(self, alphas: tuple[float, ...]) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the weights and the bias at each penalty."""
        if not self._count:
            raise NotFitted("RidgeClassifier has seen nothing yet: call update first")
        n = self._count
        mean_x, mean_y = (total / n for total in self._sums)
        rows = [part for part, _ in self._held]
        if rows:
            products = _products(rows, mean_x)
            right = (torch.cat([target for _, target in self._held]) - mean_y) / n
        else:
            right = self._product / n - torch.outer(mean_x, mean_y)
        for alpha in alphas:  # each factorises a matrix of its own: two exist at a time
            if rows:
                solved = _solved(products / n, alpha, len(mean_x), right)
                B = right.new_zeros(len(mean_x), self.classes)
                pieces = torch.split(solved, list(map(len, rows)))
                for part, some in zip(rows, pieces, strict=True):
                    B += (part.double() - mean_x).T @ some
            else:
                covariance = (self._gram / n).addr_(mean_x, mean_x, alpha=-1)
                B = _solved(covariance, alpha, len(mean_x), right)
            yield B.T.float().contiguous(), (mean_y - mean_x @ B).float()

    def __call__(self, x: Tensor) -> Tensor:
        """Return scores ``(n, class)`` of features ``(n, feature)``."""
        if not hasattr(self, "weights_"):
            raise NotFitted("RidgeClassifier has learnt nothing yet: call solve first")
        _check(x, _ROWS, self.weights_.shape[1])
        return _linear(x, self.weights_, self.bias_)


def check_ridge(samples: int, features: int) -> None:
    """Refuse ridge regression whose matrices would take more than 5 GiB.

    Raises
    ------
    InvalidParameter
        If there are too many features, unless there are few samples.
    """
    least = min(samples, features)
    needed = 4 * least * (features + 4 * least)  # samples held; two matrices in float64
    if needed > _MOST:
        raise InvalidParameter(
            f"ridge regression of {samples:,} samples with {features:,} features takes "
            f"{needed / 2**30:.1f} GiB, more than {_MOST // 2**30}: take fewer features "
            "(components, a larger J of the view), or model=linear, which learns from batches"
        )


def _check(x: Tensor, axes: tuple[str, ...], size: int | None) -> None:
    """Refuse features of other axes, or of another size along the second if that is known."""
    must_be_tensor(x)
    if x.ndim != len(axes) or size not in (None, x.shape[1]):
        shape = ", ".join(axes if size is None else (axes[0], str(size), *axes[2:]))
        raise ShapeMismatch(f"features are ({shape}), got {tuple(x.shape)}")


def _linear(x: Tensor, weights: Tensor, bias: Tensor) -> Tensor:
    return x.float() @ weights.T.to(x.device) + bias.to(x.device)


def _products(rows: list[Tensor], mean: Tensor) -> Tensor:
    """Return the products of all samples about their mean, in float64."""
    found = [
        torch.cat([(one.double() - mean) @ (other.double() - mean).T for other in rows], 1)
        for one in rows
    ]
    return torch.cat(found)


def _solved(matrix: Tensor, alpha: float, features: int, right: Tensor) -> Tensor:
    """Return ``(matrix + alpha s I)^{-1} right``; the matrix is overwritten."""
    spread = float(matrix.diagonal().sum()) / features
    matrix.diagonal().add_(alpha * spread + 1e-12)
    # In this order of rows and columns neither cholesky nor solve_triangular copies the matrix.
    factor = torch.linalg.cholesky(matrix.mT, upper=True, out=matrix.mT)
    half = torch.linalg.solve_triangular(factor.mT, right, upper=False)
    solved: Tensor = torch.linalg.solve_triangular(factor, half, upper=True)
    return solved


class SparseCoding(nn.Module):
    """From feature maps to sparse codes: projection, unit norm at each position, ISTC.

    Parameters
    ----------
    channels
        Number of channels of the features.
    spec
        Sizes and thresholds.
    """

    def __init__(self, channels: int, spec: ClassifierSpec) -> None:
        super().__init__()
        self.project = nn.Conv2d(
            channels, spec.channels, spec.kernel, padding=spec.kernel // 2, bias=False
        )
        with torch.no_grad():  # to begin with, as many channels as possible pass unchanged
            nn.init.dirac_(self.project.weight)
            for extra in range(channels, spec.channels):
                nn.init.normal_(self.project.weight[extra], std=channels**-0.5)
        self.dictionary = Dictionary(spec.channels, spec.atoms, spec.free)
        keep_buffer(self, "thresholds", homotopy(spec.first, spec.last, spec.iterations).float())

    def signals(self, x: Tensor) -> Tensor:
        """Return unit vectors ``(n, y, x, channel)``."""
        projected: Tensor = self.project(x)
        return nn.functional.normalize(projected.movedim(1, -1), dim=-1)

    def atoms(self) -> Tensor:
        """Return ``(channel, atom)``, the dictionary times the transpose of the projection."""
        return self.project.weight.detach().sum((2, 3)).T @ self.dictionary.D().detach()

    def codes(self, x: Tensor, iterations: int | None = None) -> Tensor:
        """Return codes ``(n, atom, y, x)``, after fewer iterations if asked."""
        D = self.dictionary.D()
        thresholds = self.get_buffer("thresholds")[:iterations]
        return istc(self.signals(x), D, thresholds, self.dictionary.W(D)).movedim(-1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return codes ``(n, atom, y, x)``."""
        return self.codes(x)


class Network(nn.Module):
    """The classifier of a spec, from standardised features ``(n, channel, y, x)`` to scores.

    Parameters
    ----------
    shape
        Channels and grid of the features.
    classes
        Number of classes.
    spec
        What it is made of; its model is not ``ridge``.
    """

    def __init__(self, shape: tuple[int, int, int], classes: int, spec: ClassifierSpec) -> None:
        super().__init__()
        channels, height, width = shape
        blocks: list[Block] = []
        for atoms, following in itertools.zip_longest(spec.blocks, spec.blocks[1:], fillvalue=0):
            block = Block(channels, atoms, 2 if following > atoms else 1)
            channels, (height, width) = block.outputs, block.wavelets.shape((height, width))
            blocks.append(block)
        self.blocks = nn.Sequential(*blocks)
        if min(height, width) < spec.pool:
            raise ShapeMismatch(f"pool={spec.pool} does not fit maps of {height} x {width}")
        coded = spec.model.startswith("istc")
        self.coding = SparseCoding(channels, spec) if coded else None
        outputs = spec.atoms if coded else channels
        self.norm = SharedNorm(outputs) if coded or blocks else nn.Identity()
        self.pool = nn.AvgPool2d(spec.pool)
        self.thin = nn.Dropout(spec.thin)
        size = outputs * (height // spec.pool) * (width // spec.pool)
        layers: list[nn.Module] = []
        for units in spec.hidden if spec.model.endswith("mlp") else ():
            layers += [nn.Linear(size, units), nn.ReLU(), nn.Dropout(spec.dropout)]
            size = units
        self.layers = nn.Sequential(*layers)
        self.last = nn.Linear(size, classes)

    @property
    def first(self) -> Block | SparseCoding | None:
        """The dictionary that sees the features themselves, if there is one."""
        for block in self.blocks:
            assert isinstance(block, Block)
            return block
        return self.coding

    def features(self, x: Tensor) -> Tensor:
        """Return what the last linear form sees, ``(n, feature)``."""
        maps = self.blocks(x)
        codes = maps if self.coding is None else self.coding(maps)
        found: Tensor = self.layers(self.thin(self.pool(self.norm(codes))).flatten(1))
        return found

    def forward(self, x: Tensor) -> Tensor:
        """Return scores ``(n, class)``."""
        scores: Tensor = self.last(self.features(x))
        return scores
