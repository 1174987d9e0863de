"""Embedding of images and fields into Gaussian white variables.

    w = L U x ,   U x averaged over 2^J, then whitened on m principal components,

with U either rectified Parseval wavelets, which have a linear inverse, or scattering coefficients.
Averages of many nearly independent coefficients are nearly Gaussian; how nearly is reported by
:func:`wavemill.generation.whitening.whiteness`.

Source: Angles and Mallat, *Generative networks as inverse problems with scattering transforms*,
ICLR 2018.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Literal, Self, get_args

import torch
from torch import Tensor, nn

from wavemill.errors import InvalidParameter, ShapeMismatch
from wavemill.generation.rectified import RectifiedWavelets
from wavemill.generation.samples import Samples
from wavemill.generation.whitening import Whitening
from wavemill.scattering2d import Scattering2D

Transform = Literal["wavelets", "scattering"]
Progress = Callable[[int, int, dict[str, float]], None]
BATCH = 2  # samples transformed at a time on a processor: their bands stay within its caches
Batches = Tensor | Samples


class Embedding(nn.Module):
    """``embedding(x)`` maps ``(n, component, y, x)`` to w ``(n, m)``.

    Parameters
    ----------
    shape
        Grid ``(y, x)``.
    dimension
        m.
    transform
        ``"wavelets"`` or ``"scattering"``.
    J, L, A
        Scales, angles in a half turn, and phases of the rectifier.
    max_order
        Of the scattering.
    dtype
        Precision of the features; w is float32.

    Raises
    ------
    InvalidParameter
        If such a transform cannot be built.
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
        """Points ``(y, x)`` that averages are taken at."""
        return self.shape[0] >> self.J, self.shape[1] >> self.J

    def features(self, x: Tensor) -> Tensor:
        """Return the averages before whitening: ``(n, feature)``, by component, channel, y, x."""
        if x.ndim != 4:
            raise ShapeMismatch(f"an embedding takes (n, component, y, x), got {tuple(x.shape)}")
        if self.rectified is not None:
            return self.rectified.averages(x).flatten(1)
        assert self.scattering is not None  # one of the two, by construction
        y: Tensor = self.scattering(x)
        return y.flatten(1)

    @torch.no_grad()
    def all_features(self, x: Batches) -> Tensor:
        """Return the averages of any number of samples, a batch at a time."""
        return torch.cat([self.features(batch) for _, batch in _batches(x)])

    @torch.no_grad()
    def fit(self, x: Batches, progress: Progress | None = None) -> Self:
        """Learn the whitening from samples ``(n, component, y, x)``, a batch at a time."""
        for start, batch in _batches(x):
            self.whitening.update(self.features(batch))
            if progress is not None:
                progress(min(start + BATCH, len(x)), len(x), {})
        self.whitening.solve()
        return self

    @torch.no_grad()
    def forward(self, x: Batches) -> Tensor:
        """Return w ``(n, m)``, float32."""
        return torch.cat([self.whitening(self.features(batch)) for _, batch in _batches(x)])

    def state(self) -> dict[str, Tensor]:
        """Return everything learnt."""
        return self.whitening.state()

    def load(self, state: dict[str, Tensor]) -> Self:
        """Take what another has learnt."""
        self.whitening.load(state)
        return self


def _batches(x: Batches) -> Iterator[tuple[int, Tensor]]:
    for start in range(0, len(x), BATCH):
        yield start, x[start : start + BATCH]
