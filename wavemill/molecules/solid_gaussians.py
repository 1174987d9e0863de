"""Gaussians times real solid harmonics: about atoms in closed form, and convolved with fields.

A solid harmonic is a polynomial and a Gaussian is a product over axes, so that about points r

    field_m(u) = sum over r of  w(r) S_lm(u - r) exp(-|u - r|^2 / 2 width^2)
               = sum over a + b + c = l of  C[m, a, b]  sum over r of  w(r) X_a Y_b Z_c,

with ``X_a = (u_x - r_x)^a exp(-(u_x - r_x)^2 / 2 width^2)``, Y and Z alike. Where the points are
atoms this is one matrix product for each monomial; where they are a grid themselves, one for each
monomial and axis. Both are exact on any grid. Their rounding is relative to the field even where it
is small, unlike that of a Fourier transform.
"""

from __future__ import annotations

import math
from functools import cache

import torch
from torch import Tensor

from wavemill import kernels
from wavemill.molecules.atoms import real_solid_harmonics

Shape = tuple[int, int, int]
Powers = list[tuple[int, int]]


def square_about_atoms(weights: Tensor, lines: list[Tensor], degree: int) -> Tensor:
    """Return ``sum over m of field_m^2``, ``(molecule, channel, z, y, x)``.

    Parameters
    ----------
    weights
        ``(molecule, channel, atom)``.
    lines
        `bells` of the distances from atoms along each axis, ``(power, molecule, atom, point)``.
    degree
        l.
    """
    coefficients = matrix(degree, weights.dtype, weights.device)
    if (made := kernels.square_about_atoms(weights, lines, coefficients)) is not None:
        return made
    powers, _ = polynomials(degree)
    long = torch.stack([lines[0][a] for a, _ in powers], 1)  # (molecule, monomial, atom, z)
    wide = planes(lines, powers, degree)
    batch, channels, _ = weights.shape
    total = wide.new_zeros(batch, channels * long.shape[-1], wide.shape[-1])
    for used, factors in terms(degree, wide.dtype, wide.device):
        strength = weights[:, :, None, :, None] * factors[:, None, None]
        left = (strength * long[:, None].index_select(2, used)).flatten(2, 3).mT.flatten(1, 2)
        field = left @ wide.index_select(1, used).flatten(1, 2)
        total.addcmul_(field, field)
    return total.view(batch, channels, *(line.shape[-1] for line in lines))


def square_convolved(field: Tensor, axes: list[Tensor], degree: int, factor: float) -> Tensor:
    """Return ``sum over m of (factor field_m)^2`` of points, ``(molecule, n, z', y', x')``.

    Parameters
    ----------
    field
        w, ``(molecule, n, z, y, x)``.
    axes
        `bells` of the distances between points along each axis, ``(power, molecule, new, old)``.
    degree
        l.
    factor
        Factor of the harmonics.
    """
    coefficients = matrix(degree, field.dtype, field.device, by_a=False)
    if (made := kernels.square_convolved(field, axes, coefficients, factor)) is not None:
        return made
    batch, n, z, y, x = field.shape
    along_z, along_y, along_x = (matrices[: degree + 1].transpose(0, 1) for matrices in axes)
    new_y, new_x = along_y.shape[2], along_x.shape[2]
    lines = field.reshape(batch, n * z * y, x) @ along_x.flatten(1, 2).mT
    lines = lines.view(batch, n * z, y, degree + 1, new_x)
    found = []
    for a in range(degree + 1):
        powers = along_y[:, : degree + 1 - a].flatten(1, 2)
        sheets = powers[:, None] @ lines[:, :, :, a]
        found.append(sheets.view(batch, n, z, -1, new_y * new_x).transpose(2, 3))
    third = torch.stack([along_z[:, degree - a - b] for a, b in polynomials(degree)[0]], 1)
    monomials = (third[:, None] @ torch.cat(found, 2)).flatten(0, 1).flatten(2)
    fields = factor * matrix(degree, field.dtype, field.device) @ monomials
    total = fields[:, 0].square()
    for m in range(1, 2 * degree + 1):
        total.addcmul_(fields[:, m], fields[:, m])
    return total.view(batch, n, -1, new_y, new_x)


def planes(lines: list[Tensor], powers: Powers, degree: int) -> Tensor:
    """Return ``Y_b X_c`` of each monomial, ``(..., monomial, line, y x)``, from lines by axis."""
    found = [lines[1][b][..., None] * lines[2][degree - a - b][..., None, :] for a, b in powers]
    return torch.stack(found, -4).flatten(-2)


def bells(distances: Tensor, width: float, degree: int) -> Tensor:
    """Return ``d^a exp(-d^2 / 2 width^2)``, ``(a, ...)`` for a = 0..l."""
    found = [torch.exp(-distances.square() / (2 * width**2))]
    for _ in range(degree):
        found.append(found[-1] * distances)
    return torch.stack(found)


def wavelet_of_atom(sigma: float | None, width: float, degree: int) -> float:
    """Return the factor by which harmonics give the field of an atom, seen through a wavelet.

    It is ``sigma^l / width^(2 l + 3)`` times the wavelet's norm, with ``width^2`` the sum of
    ``sigma^2`` and that of the Gaussian atom. For a point this gives the wavelet itself. Without a
    wavelet, sigma None, the integral is 1.
    """
    if sigma is None:
        return math.sqrt(4 * math.pi) / (math.sqrt(2 * math.pi) * width) ** 3
    moment: float = 2 ** ((degree + 1) / 2) * math.gamma((degree + 3) / 2)
    norm = 1 / (math.sqrt(4 * math.pi * (2 * degree + 1)) * moment)
    return float(norm * sigma**degree / width ** (2 * degree + 3))


@cache
@torch.inference_mode(False)
def matrix(degree: int, dtype: torch.dtype, device: torch.device, by_a: bool = True) -> Tensor:
    """Return the coefficients of `polynomials` on a device; cached, as it takes a GPU long.

    Monomials are ordered by a, then b, or else by b, then a.
    """
    powers, table = polynomials(degree)
    order = sorted(range(len(powers)), key=lambda k: powers[k] if by_a else powers[k][::-1])
    return table[:, order].to(device, dtype).contiguous()


@cache
@torch.inference_mode(False)
def terms(degree: int, dtype: torch.dtype, device: torch.device) -> list[tuple[Tensor, Tensor]]:
    """Return, for each m, the monomials that it is made of and their coefficients."""
    found = [(row.nonzero()[:, 0], row[row != 0]) for row in polynomials(degree)[1]]
    return [(used.to(device), factors.to(device, dtype)) for used, factors in found]


@cache
@torch.inference_mode(False)
def polynomials(degree: int) -> tuple[Powers, Tensor]:
    """Return ``(a, b)`` of monomials ``x^a y^b z^(l - a - b)``, and C, ``(m, monomial)``."""
    powers = [(a, b) for a in range(degree + 1) for b in range(degree + 1 - a)]
    generator = torch.Generator().manual_seed(0)
    x, y, z = torch.randn(3, 4 * len(powers), generator=generator, dtype=torch.float64)
    table = torch.stack([x**a * y**b * z ** (degree - a - b) for a, b in powers], 1)
    values = real_solid_harmonics(torch.stack([x, y, z], 1), degree)[:, degree**2 :]
    found = torch.linalg.lstsq(table, values).solution.T
    return powers, torch.where(found.abs() > 1e-9, found, 0.0)
