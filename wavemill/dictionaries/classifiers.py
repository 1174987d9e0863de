"""Classifiers of feature maps: ridge regression, layers, and sparse codes in a learnt dictionary.

Features are ``(n, channel, y, x)``, classes whole numbers. :class:`Standardisation` and
:class:`RidgeClassifier` learn from batches that they see once, whatever their number.

Source: Zarka, Thiry, Angles and Mallat, *Deep network classification by scattering and homotopy
dictionary learning*, ICLR 2020.
"""

from __future__ import annotations

import itertools
from typing import Self

import torch
from torch import Tensor, nn

from wavemill.dictionaries.blocks import Block
from wavemill.dictionaries.dictionary import Dictionary, homotopy, istc
from wavemill.dictionaries.team import SharedNorm
from wavemill.errors import InvalidParameter, NotFitted, ShapeMismatch
from wavemill.specs.images import ClassifierSpec

ALPHAS = (1e-3, 1e-2, 1e-1, 0.3, 1.0, 3.0)
_LEAST = 1e-2  # of the mean variance: what is added before whitening


class Standardisation:
    """Channels in units of their spread, or their principal components, whitened.

        x -> (x - mean) / deviation,     or     A^T of that,   A = V (E + e)^{-1/2}

    with eigenvectors V and eigenvalues E of the correlation matrix, over samples and positions,
    and e a hundredth of the mean eigenvalue.

    Parameters
    ----------
    components
        How many, those of largest eigenvalue; 0: the channels themselves.
    power
        What x is raised to before: sign(x) |x|^power. Roots make features that are small mostly
        and large now and then more even.
    """

    def __init__(self, components: int = 0, power: float = 1.0) -> None:
        self.components, self.power = components, power
        self._count = 0

    def update(self, x: Tensor) -> Self:
        """Add a batch ``(n, channel, y, x)``; sums are in float64, about the first one's mean."""
        rows = self._raised(x).movedim(1, -1).reshape(-1, x.shape[1])
        if not self._count:
            size = x.shape[1]
            self._origin = rows.mean(0)
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

    with the covariances of features and indicators, and s the mean variance of the features.

    Parameters
    ----------
    classes
        Their number.
    """

    def __init__(self, classes: int) -> None:
        self.classes = classes
        self._count = 0

    def update(self, x: Tensor, y: Tensor) -> Self:
        """Add features ``(n, feature)`` and classes ``(n,)``; sums are in float64."""
        rows, target = x.float(), nn.functional.one_hot(y, self.classes).float()
        if not self._count:
            size = x.shape[1]
            self._gram = rows.new_zeros(size, size, dtype=torch.float64)
            self._product = rows.new_zeros(size, self.classes, dtype=torch.float64)
            self._sums = (self._gram[0].clone(), self._product[0].clone())
        self._count += len(rows)
        self._gram += (rows.T @ rows).double()
        self._product += (rows.T @ target).double()
        for total, part in zip(self._sums, (rows, target), strict=True):
            total += part.double().sum(0)
        return self

    def solve(self, alpha: float) -> Self:
        """Learn ``weights_`` ``(class, feature)`` and ``bias_`` at one penalty."""
        if not self._count:
            raise NotFitted("RidgeClassifier has seen nothing yet: call update first")
        mean_x, mean_y = (total / self._count for total in self._sums)
        gram = self._gram / self._count - torch.outer(mean_x, mean_x)
        product = self._product / self._count - torch.outer(mean_x, mean_y)
        gram.diagonal().add_(alpha * float(gram.diagonal().mean()) + 1e-12)
        solved = torch.cholesky_solve(product, torch.linalg.cholesky(gram))
        self.weights_: Tensor = solved.T.float().contiguous()
        self.bias_: Tensor = (mean_y - mean_x @ solved).float()
        return self

    def choose(self, x: Tensor, y: Tensor) -> float:
        """Solve at the penalty among `ALPHAS` that is right most often on others; return it."""
        right = {}
        for alpha in ALPHAS:
            self.solve(alpha)
            right[alpha] = int((self(x).argmax(1) == y).sum())
        best = max(ALPHAS, key=lambda alpha: right[alpha])
        self.solve(best)
        return best

    def __call__(self, x: Tensor) -> Tensor:
        """Return scores ``(n, class)`` of features ``(n, feature)``."""
        return x.float() @ self.weights_.T.to(x.device) + self.bias_.to(x.device)


class SparseCoding(nn.Module):
    """From feature maps to sparse codes: projection, unit norm at each position, ISTC.

    Parameters
    ----------
    channels
        Of the features.
    spec
        Sizes and thresholds.
    """

    def __init__(self, channels: int, spec: ClassifierSpec) -> None:
        super().__init__()
        self.project = nn.Conv2d(
            channels, spec.channels, spec.kernel, padding=spec.kernel // 2, bias=False
        )
        with torch.no_grad():  # as far as there are channels, they pass unchanged to begin with
            nn.init.dirac_(self.project.weight)
            for extra in range(channels, spec.channels):
                nn.init.normal_(self.project.weight[extra], std=channels**-0.5)
        self.dictionary = Dictionary(spec.channels, spec.atoms, spec.free)
        self.register_buffer(
            "thresholds", homotopy(spec.first, spec.last, spec.iterations).float(), False
        )

    def signals(self, x: Tensor) -> Tensor:
        """Return unit vectors ``(n, y, x, channel)``."""
        projected: Tensor = self.project(x)
        return nn.functional.normalize(projected.movedim(1, -1), dim=-1)

    def atoms(self) -> Tensor:
        """Return the dictionary, taken back by the projection's transpose: ``(channel, atom)``."""
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
    """A classifier by its spec, from standardised features ``(n, channel, y, x)`` to scores.

    Parameters
    ----------
    shape
        Channels and grid of the features.
    classes
        Their number.
    spec
        What it is made of; not ``ridge``.
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
