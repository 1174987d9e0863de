"""Gaussians times real solid harmonics: about atoms in closed form, and convolved with fields.

A solid harmonic is a polynomial and a Gaussian is a product over axes, so that about points r

    field_m(u) = sum over r of  w(r) S_lm(u - r) exp(-|u - r|^2 / 2 width^2)
               = sum over a + b + c = l of  C[m, a, b]  sum over r of  w(r) X_a Y_b Z_c,

with ``X_a = (u_x - r_x)^a exp(-(u_x - r_x)^2 / 2 width^2)``, Y and Z alike. Where the points are
the atoms that is one matrix product a monomial; where they are a grid themselves, one a monomial
and axis. Either is exact on any grid, and its rounding is relative to the field where it is small,
which that of a Fourier transform is not.
"""

from __future__ import annotations

import math
from functools import cache

import torch
from torch import Tensor

from wavemill.molecules.atoms import real_solid_harmonics

Shape = tuple[int, int, int]
Powers = list[tuple[int, int]]


def square_about_atoms(
    positions: Tensor, weights: Tensor, axes: list[Tensor], width: float, degree: int
) -> Tensor:
    """Return ``sum over m of field_m^2``, ``(channel, z, y, x)``.

    Parameters
    ----------
    positions
        ``(atom, 3)``, in the order of the axes.
    weights
        ``(channel, atom)``.
    axes
        Coordinates of the points along each axis.
    width
        Of the Gaussians.
    degree
        l.
    """
    lines = [
        bells(axis - positions[:, place, None], width, degree) for place, axis in enumerate(axes)
    ]
    powers, table = polynomials(degree)
    long = torch.stack([lines[0][a] for a, _ in powers])  # (monomial, atom, z)
    wide = planes(lines, powers, degree)
    total = wide.new_zeros(len(weights) * len(axes[0]), wide.shape[2])
    for row in table.to(positions):
        (used,) = row.nonzero(as_tuple=True)
        strength = weights.to(positions)[:, None, :, None] * row[used, None, None]
        left = (strength * long[used]).flatten(1, 2).mT.flatten(0, 1)
        field = left @ wide[used].flatten(0, 1)
        total.addcmul_(field, field)
    return total.view(len(weights), *map(len, axes))


def square_convolved(field: Tensor, axes: list[Tensor], degree: int) -> Tensor:
    """Return ``sum over m of field_m^2`` of the points of a grid, ``(n, z', y', x')``.

    Parameters
    ----------
    field
        w, ``(n, z, y, x)``.
    axes
        `bells` of the distances between points along each axis, ``(power, new, old)``.
    degree
        l.
    """
    n, z, y, x = field.shape
    along_z, along_y, along_x = (matrices[: degree + 1] for matrices in axes)
    _, new_y, new_x = (matrices.shape[1] for matrices in axes)
    lines = torch.bmm(field.reshape(n, z * y, x), along_x.flatten(0, 1).T.expand(n, -1, -1))
    lines = lines.view(n * z, y, degree + 1, new_x)
    found = []
    for a in range(degree + 1):
        powers = along_y[: degree + 1 - a].flatten(0, 1).expand(n * z, -1, -1)
        sheets = torch.bmm(powers, lines[:, :, a])
        found.append(sheets.view(n, z, degree + 1 - a, new_y * new_x).transpose(1, 2))
    third = along_z[[degree - a - b for a, b in polynomials(degree)[0]]]
    total = squared((third @ torch.cat(found, 1)).flatten(2), degree)
    return total.view(n, -1, new_y, new_x)


def squared(monomials: Tensor, degree: int) -> Tensor:
    """Return ``sum over m of (sum over monomials of C F)^2`` of F ``(n, monomial, point)``."""
    fields = polynomials(degree)[1].to(monomials) @ monomials
    total = fields[:, 0].square()
    for m in range(1, 2 * degree + 1):
        total.addcmul_(fields[:, m], fields[:, m])
    return total


def planes(lines: list[Tensor], powers: Powers, degree: int) -> Tensor:
    """Return ``Y_b Z_c`` of each monomial, ``(monomial, line, y x z)``, of lines by axis."""
    found = [lines[1][b][:, :, None] * lines[2][degree - a - b][:, None, :] for a, b in powers]
    return torch.stack(found).flatten(2)


def bells(distances: Tensor, width: float, degree: int) -> Tensor:
    """Return ``d^a exp(-d^2 / 2 width^2)``, ``(a, ...)`` for a = 0..l."""
    decay = torch.exp(-distances.square() / (2 * width**2))
    return torch.stack([distances**power * decay for power in range(degree + 1)])


def wavelet_of_atom(sigma: float | None, width: float, degree: int) -> float:
    """Return the factor that makes a field that of a Gaussian atom, seen through a wavelet.

    With ``width^2 = sigma^2 +`` that of the atom it is ``sigma^l / width^(2 l + 3)`` times the
    wavelet's norm, which is the wavelet itself for a point; without one the integral is 1.
    """
    if sigma is None:
        return math.sqrt(4 * math.pi) / (math.sqrt(2 * math.pi) * width) ** 3
    moment: float = 2 ** ((degree + 1) / 2) * math.gamma((degree + 3) / 2)
    norm = 1 / (math.sqrt(4 * math.pi * (2 * degree + 1)) * moment)
    return float(norm * sigma**degree / width ** (2 * degree + 3))


@cache
def polynomials(degree: int) -> tuple[Powers, Tensor]:
    """Return ``(a, b)`` of monomials ``x^a y^b z^(l - a - b)``, and C, ``(m, monomial)``."""
    powers = [(a, b) for a in range(degree + 1) for b in range(degree + 1 - a)]
    generator = torch.Generator().manual_seed(0)
    x, y, z = torch.randn(3, 4 * len(powers), generator=generator, dtype=torch.float64)
    table = torch.stack([x**a * y**b * z ** (degree - a - b) for a, b in powers], 1)
    values = real_solid_harmonics(torch.stack([x, y, z], 1), degree)[:, degree**2 :]
    found = torch.linalg.lstsq(table, values).solution.T
    return powers, torch.where(found.abs() > 1e-9, found, 0.0)
