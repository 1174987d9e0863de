"""Gaussians about atoms times real solid harmonics, on a grid, in closed form.

A solid harmonic is a polynomial and a Gaussian is a product over axes, so that

    field_m(u) = sum over atoms of  w S_lm(u - r) exp(-|u - r|^2 / 2 width^2)
               = sum over a + b + c = l of  C[m, a, b]  sum over atoms of  w X_a Y_b Z_c,

with ``X_a(x) = (x - r_x)^a exp(-(x - r_x)^2 / 2 width^2)``, Y and Z alike, is one matrix product
for each m. It is exact on any grid, and its rounding is relative to the field where it is small,
which that of a Fourier transform is not.
"""

from __future__ import annotations

import math
from functools import cache

import torch
from torch import Tensor

from wavemill.molecules.atoms import real_solid_harmonics

Shape = tuple[int, int, int]
Term = tuple[int, int, float]


def gaussian_square(
    positions: Tensor, weights: Tensor, shape: Shape, grid: Shape, width: float, degree: int
) -> Tensor:
    """Return ``sum over m of field_m^2`` on a grid, ``(channel, z, y, x)``, in a periodic box.

    Parameters
    ----------
    positions
        ``(atom, 3)``, samples from the first point of the grid, in the order of its axes.
    weights
        ``(channel, atom)``.
    shape, grid
        Sides of the box in samples, and numbers of points along them.
    width
        Of the Gaussians, samples.
    degree
        l.
    """
    sides = enumerate(zip(shape, grid, strict=True))
    lines = [_lines(positions[:, axis], *both, width, degree) for axis, both in sides]
    strength = weights.to(positions)[:, :, None]
    total = positions.new_zeros(len(weights), *grid)
    for terms in polynomials(degree):
        long = torch.cat([factor * strength * lines[0][a] for a, _, factor in terms], 1)
        field = (long.mT @ planes(lines, terms, degree)).view(total.shape)
        total = total.addcmul(field, field)
    return total


def planes(lines: list[list[Tensor]], terms: list[Term], degree: int) -> Tensor:
    """Return ``Y_b Z_c`` of each term, ``(term x line, y x z)``, of lines by axis and power."""
    found = [lines[1][b][:, :, None] * lines[2][degree - a - b][:, None, :] for a, b, _ in terms]
    return torch.cat(found).flatten(1)


def _lines(places: Tensor, side: int, points: int, width: float, degree: int) -> list[Tensor]:
    """Return ``d^a exp(-d^2 / 2 width^2)`` along a periodic axis, ``(atom, point)``, a = 0..l."""
    along = torch.arange(points, device=places.device, dtype=places.dtype) * (side / points)
    distance = along - places[:, None]
    distance = distance - side * torch.round(distance.detach() / side)
    images = torch.stack([distance - side, distance, distance + side])
    decay = torch.exp(-images.square() / (2 * width**2))
    return [(images**power * decay).sum(0) for power in range(degree + 1)]


def wavelet_of_atom(sigma: float | None, width: float, degree: int) -> float:
    """Return the factor that makes a field that of a Gaussian atom, seen through a wavelet.

    With ``width^2 = sigma^2 +`` that of the atom it is ``sigma^l / width^(2 l + 3)`` times the
    wavelet's norm; without a wavelet the integral is 1.
    """
    if sigma is None:
        return math.sqrt(4 * math.pi) / (math.sqrt(2 * math.pi) * width) ** 3
    moment: float = 2 ** ((degree + 1) / 2) * math.gamma((degree + 3) / 2)
    norm = 1 / (math.sqrt(4 * math.pi * (2 * degree + 1)) * moment)
    return float(norm * sigma**degree / width ** (2 * degree + 3))


@cache
def polynomials(degree: int) -> list[list[Term]]:
    """Return S_lm for each m as terms ``(a, b, C)``: ``C x^a y^b z^(l - a - b)``."""
    powers = [(a, b) for a in range(degree + 1) for b in range(degree + 1 - a)]
    generator = torch.Generator().manual_seed(0)
    x, y, z = torch.randn(3, 4 * len(powers), generator=generator, dtype=torch.float64)
    table = torch.stack([x**a * y**b * z ** (degree - a - b) for a, b in powers], 1)
    values = real_solid_harmonics(torch.stack([x, y, z], 1), degree)[:, degree**2 :]
    found = torch.linalg.lstsq(table, values).solution.T.tolist()
    return [
        [(*power, factor) for power, factor in zip(powers, row, strict=True) if abs(factor) > 1e-9]
        for row in found
    ]
