"""Blocks of a deep scattering network: sparse codes of the channels, then wavelets and moduli.

    z = max(F x - b, 0),     y = (z * phi, |z * psi_1|, ..., |z * psi_L|)(2u)

F, one matrix for all positions, and its thresholds b are learnt (F x is standardised by a batch
norm, whose shift is -b): z is a first iteration of ISTC, with W free. Wavelets are not learnt: they
separate changes along different directions, and moduli forget exactly where these occur.

Source: Zarka, Guth and Mallat, *Separation and concentration in deep networks*, ICLR 2021; Guth,
Zarka and Mallat, *Phase collapse in neural networks*, ICLR 2022.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from wavemill.dictionaries.team import SharedNorm
from wavemill.operators import keep_buffer

ANGLES = 4
SIDE = 5  # positions that a filter sees: 2.5 standard deviations of its envelope on either side
_LEAST = 1e-30  # added to squared moduli, so that roots have the gradient 0 where these are 0


def filters() -> Tensor:
    """Return phi, then the real and imaginary parts of each psi: ``(1 + 2 ANGLES, SIDE, SIDE)``.

    The psi are those of :mod:`.morlet` at j = 0 and L = 4, cut to `SIDE` samples and then made to
    have mean 0 and norm 1. The Gaussian phi has norm 1, too. All are float64.
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


class _Modulus(torch.autograd.Function):
    """The root of a sum of two squares; its gradient takes one pass over memory.

    Autograd takes six for squares and roots. Complex numbers (:func:`.folding.modulus`) would
    first have to be made of their parts, and a step of training would take a third longer.
    """

    @staticmethod
    def forward(ctx: Any, re: Tensor, im: Tensor) -> Tensor:
        size = torch.addcmul(re * re, im, im).add_(_LEAST).sqrt_()
        ctx.save_for_backward(re, im, size)
        return size

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        re, im, size = ctx.saved_tensors
        slope = gradients[0] / size
        return slope * re, slope * im


class Wavelets(nn.Module):
    """Low pass and moduli of each channel, at every ``step``-th position along each axis.

    Channels count as 0 beyond their borders. Maps ``(n, c, y, x)`` to
    ``(n, (1 + ANGLES) c, y', x')``: low passes, then moduli angle by angle.
    """

    def __init__(self, step: int) -> None:
        super().__init__()
        self.step = step
        keep_buffer(self, "taps", filters().float()[:, None])

    def shape(self, shape: tuple[int, int]) -> tuple[int, int]:
        """Return the grid of the output for inputs on the grid ``shape``."""
        y, x = shape
        return -(-y // self.step), -(-x // self.step)

    def forward(self, x: Tensor) -> Tensor:
        """Return low passes and moduli."""
        count = x.shape[1]
        low, *parts = (
            nn.functional.conv2d(
                x, tap.expand(count, -1, -1, -1), None, self.step, SIDE // 2, groups=count
            )
            for tap in self.get_buffer("taps")  # oneDNN would take longer over all at once
        )
        pairs = zip(parts[::2], parts[1::2], strict=True)
        return torch.cat([low, *(_modulus(re, im) for re, im in pairs)], 1)


def _modulus(re: Tensor, im: Tensor) -> Tensor:
    size: Tensor = _Modulus.apply(re, im)  # type: ignore[no-untyped-call]
    return size


class Block(nn.Module):
    """Sparse codes of the channels at each position, and their wavelets' moduli.

    Parameters
    ----------
    channels, atoms
        Channels of the input, and atoms of the dictionary.
    step
        2 to keep every second position along each axis, 1 to keep all.
    """

    def __init__(self, channels: int, atoms: int, step: int) -> None:
        super().__init__()
        self.project = nn.Conv2d(channels, atoms, 1, bias=False)
        self.norm = SharedNorm(atoms)
        self.wavelets = Wavelets(step)
        self.outputs = atoms * (1 + ANGLES)

    def atoms(self) -> Tensor:
        """Return the transpose of F, ``(channel, atom)``."""
        return self.project.weight.detach()[:, :, 0, 0].T

    def codes(self, x: Tensor) -> Tensor:
        """Return ``z``, ``(n, atom, y, x)``."""
        x = x.contiguous(memory_format=torch.channels_last)  # the layout in which oneDNN is fast
        return nn.functional.relu(self.norm(self.project(x)))

    def forward(self, x: Tensor) -> Tensor:
        """Return ``(n, outputs, y', x')``."""
        found: Tensor = self.wavelets(self.codes(x))
        return found
