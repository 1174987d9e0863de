"""Fourier transforms of solid harmonic wavelets on grids, and the grids themselves."""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor

from wavemill.molecules.solid_gaussians import Shape, planes, polynomials


def fast(side: int) -> int:
    """Return the next even number without prime factors above 5."""
    side += side % 2
    while True:
        rest = side
        for prime in (2, 3, 5):
            while rest % prime == 0:
                rest //= prime
        if rest == 1:
            return side
        side += 2


def frequencies(side: int, kept: int, half: bool) -> Tensor:
    """Return the ``kept`` lowest angular frequencies of ``side`` samples, in the FFT's order."""
    index = torch.arange(kept // 2 + 1) if half else torch.fft.fftfreq(kept, 1 / kept)
    return 2 * math.pi / side * index.double()


def cropped(spectra: Tensor, held: Shape, grid: Shape) -> Tensor:
    """Return the lowest frequencies of half spectra held on a finer grid."""
    if held == grid:
        return spectra
    for axis, side, kept in ((-3, held[0], grid[0]), (-2, held[1], grid[1])):
        if kept < side:
            high = spectra.narrow(axis, side - kept // 2, kept // 2)
            spectra = torch.cat([spectra.narrow(axis, 0, kept - kept // 2), high], axis)
    return spectra.narrow(-1, 0, grid[2] // 2 + 1)


@lru_cache(maxsize=32)
def filters(
    shape: Shape, grid: Shape, sigma: float, L: int, real: bool, dtype: torch.dtype, device: str
) -> Tensor:
    """Return the transforms of psi_jlm but for ``(-i)^l``: ``((L + 1)^2, z, y, x, 2)``, real.

    They are there twice, for the real and the imaginary part of what they multiply: products of
    real and complex arrays are slow.

    That of ``r^l exp(-r^2 / 2) Y_lm`` is ``(2 pi)^(3/2) (-i)^l k^l exp(-k^2 / 2) Y_lm``; the norm
    is ``n_l = 1 / (sqrt(4 pi (2 l + 1)) 2^((l + 1) / 2) Gamma((l + 3) / 2))``.
    """
    sides = enumerate(zip(shape, grid, strict=True))
    waves = [sigma * frequencies(side, kept, real and axis == 2) for axis, (side, kept) in sides]
    lines = [[(k**power * torch.exp(-k * k / 2))[None] for power in range(L + 1)] for k in waves]
    bank = torch.zeros((L + 1) ** 2, *map(len, waves), dtype=torch.float64)
    for degree in range(L + 1):
        moment = 2 ** ((degree + 1) / 2) * math.gamma((degree + 3) / 2)
        norm = (2 * math.pi) ** 1.5 / (math.sqrt(4 * math.pi * (2 * degree + 1)) * moment)
        for m, terms in enumerate(polynomials(degree)):
            long = torch.cat([norm * factor * lines[0][a] for a, _, factor in terms])
            bank[degree**2 + m] = (long.T @ planes(lines, terms, degree)).view(bank.shape[1:])
    if real:  # of an even number of samples -pi has no partner, by which fields would be lopsided
        bank[:, grid[0] // 2], bank[:, :, grid[1] // 2], bank[..., grid[2] // 2] = 0, 0, 0
    return bank.to(device, dtype)[..., None].expand(*bank.shape, 2).contiguous()
