"""Embedding of images and fields into Gaussian white variables.

    w = L U x ,   U x averaged over 2^J, then whitened on m principal components,

with U either rectified Parseval wavelets, which have a linear inverse, or scattering coefficients.
Averages of many nearly independent coefficients are nearly Gaussian; how nearly is reported by
:func:`wavemill.generation.whitening.whiteness`.

Source: Angles and Mallat, *Generative networks as inverse problems with scattering transforms*,
ICLR 2018.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, Self, get_args

import torch
from torch import Tensor, nn

from wavemill.devices import BesideDefault
from wavemill.errors import InvalidParameter, ShapeMismatch
from wavemill.generation.rectified import RectifiedWavelets, check_grid
from wavemill.generation.samples import BLOCK, RealImages
from wavemill.generation.whitening import Whitening
from wavemill.progress import Progress
from wavemill.scattering2d import Scattering2D

Transform = Literal["wavelets", "scattering"]
BATCH, LAUNCHED = 2, 64  # samples at a time: on a CPU few, whose bands its caches hold; else many
Batches = Tensor | RealImages


class Embedding(BesideDefault, nn.Module):
    """``embedding(x)`` maps ``(n, component, y, x)`` to w ``(n, m)``.

    Parameters
    ----------
    shape
        Grid ``(y, x)``.
    dimension
        m, the size of a code.
    transform
        ``"wavelets"`` or ``"scattering"``.
    J, L, A
        Scales, angles in a half turn, and phases of the rectifier.
    max_order
        Order of the scattering.
    dtype
        Precision of the features; w is float32.

    Raises
    ------
    InvalidParameter
        If such a transform cannot be built, or the grid is not a multiple of 2^J.
    """

    def __init__(
        self,
        shape: tuple[int, int],
        dimension: int,
        transform: Transform = "wavelets",
        J: int = 4,
        L: int = 4,
        A: int = 4,
        max_order: int = 1,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        if transform not in get_args(Transform):
            raise InvalidParameter(f"transform must be wavelets or scattering, got {transform!r}")
        check_grid(shape, J)
        self.shape, self.J = shape, J
        self.rectified = (
            RectifiedWavelets(shape, J, L, A, dtype=dtype) if transform == "wavelets" else None
        )
        self.scattering = (
            Scattering2D(
                shape, J, L, max_order=max_order, nonlinearity="rectifier", A=A, dtype=dtype
            )
            if transform == "scattering"
            else None
        )
        self.whitening = Whitening(dimension)

    @property
    def grid(self) -> tuple[int, int]:
        """Numbers of points ``(y, x)`` at which averages are taken."""
        return self.shape[0] >> self.J, self.shape[1] >> self.J

    def at_points(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return what unit codes add to averages ``(channel, point, m)``, and its components.

        These are the principal components of the channels at a point, the same for all points:
        variances, ascending, and axes ``(channel, component)``. All are float64.
        """
        points = self.grid[0] * self.grid[1]
        spread = torch.unflatten(self.whitening.spread.double(), 0, (-1, points))
        covariance = torch.einsum("apm,bpm->ab", spread, spread) / points
        return spread, *torch.linalg.eigh(covariance)

    def features(self, x: Tensor) -> Tensor:
        """Return the averages before whitening: ``(n, feature)``, by component, channel, y, x."""
        if x.ndim != 4:
            raise ShapeMismatch(f"an embedding takes (n, component, y, x), got {tuple(x.shape)}")
        if self.rectified is not None:
            return self.rectified.averages(x).flatten(1)
        assert self.scattering is not None  # one of the two is set, by construction
        y: Tensor = self.scattering(x)
        return y.flatten(1)

    @torch.no_grad()
    def all_features(self, x: Batches) -> Tensor:
        """Return the averages of any number of samples, a few at a time."""
        few = BATCH if x[:1].device.type == "cpu" else LAUNCHED
        parts = [self.features(x[start : start + few]) for start in range(0, len(x), few)]
        return torch.cat(parts)

    def fit(self, x: Batches, progress: Progress | None = None) -> Self:
        """Learn the whitening from samples ``(n, component, y, x)``, one block in memory at a time.

        The averages of all are held while there are fewer samples than an average has numbers.
        """
        for y in self._blocks(x, progress):
            self.whitening.update(y)
        self.whitening.solve()
        return self

    def fit_transform(
        self, x: Batches, progress: Progress | None = None, learnt: Tensor | None = None
    ) -> Tensor:
        """Learn the whitening and return w; holds the averages, which are as large as images.

        ``learnt``, booleans ``(n,)``, says which samples it is learnt from; by default all.
        """
        averages = list(self._blocks(x, progress))
        rows = torch.ones(len(x), dtype=torch.bool) if learnt is None else learnt
        for y, chosen in zip(averages, torch.split(rows, BLOCK), strict=True):
            self.whitening.update(y[chosen])
        self.whitening.solve()
        return torch.cat([self.whitening(y) for y in averages])

    def _blocks(self, x: Batches, progress: Progress | None) -> Iterator[Tensor]:
        for start in range(0, len(x), BLOCK):
            y = self.all_features(x[start : start + BLOCK])
            if progress is not None:
                progress(min(start + BLOCK, len(x)), len(x), {})
            yield y

    def forward(self, x: Batches) -> Tensor:
        """Return w ``(n, m)``, float32."""
        starts = range(0, len(x), BLOCK)
        blocks = (self.all_features(x[start : start + BLOCK]) for start in starts)
        return torch.cat([self.whitening(y) for y in blocks])

    def state(self) -> dict[str, Tensor]:
        """Return everything learnt."""
        return self.whitening.state()

    def load(self, state: dict[str, Tensor]) -> Self:
        """Take what another has learnt."""
        self.whitening.load(state)
        return self
