"""How a scattering transform extends, averages and coarsens the axes of its grid."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from wavemill.filters import morlet

Padding = Literal["reflect", "periodic"]


def padding(size: int, J: int, mode: Padding) -> tuple[Tensor, int]:
    """Return the sample that each point repeats, and how many padded points come first."""
    if mode == "periodic":
        return torch.arange(size), 0
    padded = ((size + 2**J) // 2**J + 1) * 2**J
    before = (padded - size) // 2
    period = max(2 * (size - 1), 1)
    place = (torch.arange(padded) - before) % period
    return torch.minimum(place, period - place), before


def averaging(size: int, J: int, level: int) -> Tensor:
    """Return the matrix that convolves with phi_J and samples every 2^J points of the full grid.

    It maps the ``size / 2^level`` samples of an axis at that level to ``size / 2^J``.
    """
    transform = morlet.low_pass(size, J)
    if level:
        transform = torch.cat(_halves(transform, 2**level, 0))
    kernel = torch.fft.ifft(transform).real
    outputs = torch.arange(0, len(kernel), 2 ** (J - level))
    matrix: Tensor = kernel[(outputs[:, None] - torch.arange(len(kernel))) % len(kernel)]
    return matrix


def cut(spectrum: Tensor, factor: int) -> Tensor:
    """Return the low frequencies of ``(..., y, x)`` that a grid coarser by ``factor`` holds."""
    if factor == 1:
        return spectrum
    for axis in (-2, -1):
        spectrum = torch.cat(_halves(spectrum, factor, axis), axis)
    return spectrum


def _halves(spectrum: Tensor, factor: int, axis: int) -> tuple[Tensor, Tensor]:
    """Return frequencies 0..m/2-1 and -m/2..-1 along ``axis``, of m = size / factor."""
    size = spectrum.shape[axis]
    kept = size // factor
    positive = kept // 2
    return (
        spectrum.narrow(axis, 0, positive),
        spectrum.narrow(axis, size - (kept - positive), kept - positive),
    )
