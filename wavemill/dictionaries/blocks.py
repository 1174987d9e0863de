"""Blocks of a deep scattering network: sparse codes of the channels, then wavelets and moduli.

    z = max(F x - b, 0),     y = (z * phi, |z * psi_1|, ..., |z * psi_L|)(2u)

F, one matrix for all positions, and its thresholds b are learnt (F x is standardised by a batch
norm, whose shift is -b): z is a first iteration of ISTC, with W free. Wavelets are not learnt: they
separate what changes along each direction, and moduli forget where exactly. Stacked, each block
sees twice as far as the one before.

Source: Zarka, Guth and Mallat, *Separation and concentration in deep networks*, ICLR 2021; Guth,
Zarka and Mallat, *Phase collapse in neural networks*, ICLR 2022.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from wavemill.dictionaries.team import SharedNorm

ANGLES = 4
SIDE = 5  # positions that a filter sees: 2.5 standard deviations of its envelope on either side
COARSEST = 4  # positions a side below which a grid is kept as it is
_DENSE = 8  # positions a side up to which a product with the matrix of all filters is faster
_LEAST = 1e-6  # of squared moduli: their roots have gradients at 0


def filters() -> Tensor:
    """Return phi, then the real and imaginary parts of each psi: ``(1 + 2 ANGLES, SIDE, SIDE)``.

    Those of :mod:`.morlet` at j = 0 and L = 4, cut to `SIDE` samples, of mean zero then, and of
    norm 1, as is the Gaussian phi; float64.
    """
    u = torch.arange(SIDE, dtype=torch.float64) - SIDE // 2
    envelope = torch.exp(-(u[:, None].square() + u.square()) / (2 * 0.8**2))
    found = [envelope / envelope.norm()]
    for angle in range(ANGLES):
        theta = (ANGLES // 2 - 1 - angle) * math.pi / ANGLES
        along = u[:, None] * math.cos(theta) + u * math.sin(theta)
        wave = torch.polar(envelope, 0.75 * math.pi * along)
        wave = wave - wave.sum() / envelope.sum() * envelope
        found += torch.view_as_real(wave / wave.norm()).unbind(-1)
    return torch.stack(found)


class Wavelets(nn.Module):
    """Low pass and moduli of each channel, at every second position of each axis if ``step`` is 2.

    Channels are zero beyond their borders. ``(n, c, y, x)`` to ``(n, c (1 + ANGLES), y', x')``, low
    passes first.
    """

    def __init__(self, shape: tuple[int, int], step: int) -> None:
        super().__init__()
        self.step = step
        self.shape = tuple(-(-size // step) for size in shape)
        taps = filters().float()[:, None]
        self.register_buffer("taps", taps, False)
        self.matrix: Tensor | None
        dense = max(shape) <= _DENSE
        self.register_buffer("matrix", self._dense(shape) if dense else None, False)

    def _dense(self, shape: tuple[int, int]) -> Tensor:
        """Return what the filters do to each position: ``(y x, filter y' x')``."""
        size = math.prod(shape)
        return self._filtered(torch.eye(size).view(size, 1, *shape)).flatten(1)

    def _filtered(self, x: Tensor) -> Tensor:
        """Return ``(n, c, filter, y', x')``."""
        channels, taps = x.shape[1], self.get_buffer("taps")
        x = x.contiguous(memory_format=torch.channels_last)  # what oneDNN is fast at, one by one
        parts = [
            nn.functional.conv2d(
                x, tap.expand(channels, 1, -1, -1), None, self.step, SIDE // 2, groups=channels
            )
            for tap in taps
        ]
        return torch.stack(parts, 2)

    def forward(self, x: Tensor) -> Tensor:
        """Return low passes and moduli."""
        if self.matrix is None:
            found = self._filtered(x)
        else:
            found = (x.flatten(2) @ self.matrix).view(*x.shape[:2], -1, *self.shape)
        moduli = (found[:, :, 1::2].square() + found[:, :, 2::2].square() + _LEAST).sqrt()
        return torch.cat([found[:, :, 0], moduli.flatten(1, 2)], 1)


class Block(nn.Module):
    """Sparse codes of the channels at each position, and their wavelets' moduli.

    Parameters
    ----------
    channels, atoms
        Of what it is given, and of the dictionary.
    shape
        Grid of what it is given; of what it makes it is ``wavelets.shape``.
    """

    def __init__(self, channels: int, atoms: int, shape: tuple[int, int]) -> None:
        super().__init__()
        self.project = nn.Conv2d(channels, atoms, 1, bias=False)
        self.norm = SharedNorm(atoms)
        self.wavelets = Wavelets(shape, 2 if min(shape) > COARSEST else 1)
        self.outputs = atoms * (1 + ANGLES)

    def atoms(self) -> Tensor:
        """Return the transpose of F, ``(channel, atom)``."""
        return self.project.weight.detach()[:, :, 0, 0].T

    def codes(self, x: Tensor) -> Tensor:
        """Return ``z``, ``(n, atom, y, x)``."""
        return nn.functional.relu(self.norm(self.project(x)))

    def forward(self, x: Tensor) -> Tensor:
        """Return ``(n, outputs, y', x')``."""
        found: Tensor = self.wavelets(self.codes(x))
        return found
