"""Convolutional generator: from a white vector to an image, by doubling a small grid.

    w -> linear to (width, y0, x0) -> [bilinear x2 -> 5x5 convolution -> batch norm -> ReLU]* ->
    5x5 convolution to the components .

The grid y0 times x0 is doubled until the image's is reached; the width is halved with each
doubling, down to `NARROWEST`. Convolutions before a batch norm have no bias, which the norm would
remove. The last layer is linear: targets are standardised, and images are clipped where they are
shown.

Source: Angles and Mallat, *Generative networks as inverse problems with scattering transforms*,
ICLR 2018, section 4, whose last layer is a tanh.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from wavemill.errors import InvalidParameter

NARROWEST = 8
RADIUS = 2  # of the 5x5 convolutions
SIDE = 2 * RADIUS + 1
SINGLE: Any = {"dtype": torch.float32}  # whatever the default
ESTIMATED_FROM = 2048  # codes that population statistics are taken from


class ConvolutionalGenerator(nn.Module):
    """``G(w)``: ``(n, m)`` to ``(n, component, y, x)``.

    Parameters
    ----------
    dimension
        m, the size of a code.
    components
        Number of components of the images.
    shape, grid
        ``(y, x)`` of the images, and of the first layer: a power of 2 times smaller.
    width
        Channels of the first layer.

    Raises
    ------
    InvalidParameter
        If the image's sides are not the grid's times one power of 2.
    """

    def __init__(
        self,
        dimension: int,
        components: int,
        shape: tuple[int, int],
        grid: tuple[int, int],
        width: int = 128,
    ) -> None:
        super().__init__()
        ratio = shape[0] // grid[0]
        doublings = ratio.bit_length() - 1
        if (grid[0] << doublings, grid[1] << doublings) != tuple(shape):
            raise InvalidParameter(f"a grid {tuple(grid)} does not double to {tuple(shape)}")
        widths = [max(NARROWEST, width >> level) for level in range(doublings + 1)]
        self.grid, self.width = grid, widths[0]
        self.linear = nn.Linear(dimension, widths[0] * grid[0] * grid[1], bias=False, **SINGLE)
        self.first = nn.BatchNorm2d(widths[0], **SINGLE)
        self.blocks = nn.ModuleList(_Doubling(wide, narrow) for wide, narrow in pairwise(widths))
        self.last = nn.Conv2d(widths[-1], components, SIDE, padding=RADIUS, **SINGLE)

    def forward(self, w: Tensor) -> Tensor:
        """Return images ``(n, component, y, x)`` in standardised units."""
        x = self.linear(w).unflatten(1, (self.width, *self.grid))
        x = torch.relu(self.first(x))
        for block in self.blocks:
            x = block(x)
        image: Tensor = self.last(x)
        return image


class _Doubling(nn.Module):
    """Twice the points, fewer channels."""

    def __init__(self, wide: int, narrow: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(wide, narrow, SIDE, padding=RADIUS, bias=False, **SINGLE)
        self.norm = nn.BatchNorm2d(narrow, **SINGLE)

    def forward(self, x: Tensor) -> Tensor:
        finer = interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
        return torch.relu(self.norm(self.convolution(finer)))


@torch.no_grad()
def estimate_population(network: nn.Module, w: Tensor, batch: int) -> None:
    """Set the batch norms' means and variances to those of the codes, for the present weights.

    Running averages belong to past weights, and averaged weights have none at all. So statistics
    are computed anew whenever weights are to be used, and each batch counts the same.
    """
    norms = list(_norms(network))
    if not norms:
        return
    training, momenta = network.training, [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the mean over batches
    network.train()
    for codes in torch.split(w[:ESTIMATED_FROM], batch):
        if len(codes) > 1:
            network(codes)
    network.train(training)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


def _norms(network: nn.Module) -> Iterator[nn.BatchNorm2d]:
    return (module for module in network.modules() if isinstance(module, nn.BatchNorm2d))
