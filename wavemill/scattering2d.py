"""Scattering transform of planar fields: averages of moduli of wavelet coefficients, twice.

    S0 x = x * phi_J ,   S1 x = |x * psi_1| * phi_J ,   S2 x = ||x * psi_1| * psi_2| * phi_J ,

for Morlet wavelets psi_{j,l} (:mod:`wavemill.filters.morlet`) of scales j2 > j1, sampled every
2^J points. With ``nonlinearity="rectifier"`` order 1 keeps the A phases
``rho(Re(e^{i alpha_a} x * psi_1)) * phi_J``, ``alpha_a = 2 pi a / A``, instead of the modulus.

After the wavelet of scale j a field is sampled every 2^j points, by folding its spectrum. Filters
at those resolutions are the full ones cut to the coarser grid's frequencies (its positive Nyquist
frequency left out), as in Kymatio, whose numbers and order of channels these are.

Source: Bruna and Mallat, *Invariant scattering convolution networks*, IEEE TPAMI 35, 1872 (2013);
Andreux et al., *Kymatio*, JMLR 21, 60 (2020); for the rectifier Zarka, Thiry, Angles and Mallat,
*Deep network classification by scattering and homotopy dictionary learning*, ICLR 2020.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import product
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from wavemill.errors import InvalidParameter, ShapeMismatch
from wavemill.filters import morlet
from wavemill.harmonics import rectify

Nonlinearity = Literal["modulus", "rectifier"]
Padding = Literal["reflect", "periodic"]
COLUMNS = ("order", "j1", "l1", "j2", "l2", "alpha")


class Scattering2D(nn.Module):
    """Scattering coefficients of real fields.

    ``op(x)`` maps real ``(..., y, x)`` to ``(..., coefficient, y', x')`` with ``y' = y // 2^J``;
    ``op.coefficients`` says what each is: 1 + J L + L^2 J (J - 1) / 2 rows at order 2.

    Parameters
    ----------
    shape
        Grid ``(y, x)``; with reflection any sizes of at least 2^J, periodic ones multiples of 2^J.
    J, L
        Scales, and angles in a half turn.
    max_order
        0, 1 or 2.
    nonlinearity
        ``"modulus"``, or ``"rectifier"`` at order 1 (order 2 always follows the modulus).
    A
        Phases of the rectifier.
    padding
        ``"reflect"``: mirror the field about its outermost samples, by 2^J / 2 or more a side.
        ``"periodic"``: none.
    dtype
        Real precision computed and returned; the input's is converted.

    Raises
    ------
    InvalidParameter
        If the grid does not fit J, or a parameter is out of range.
    """

    def __init__(
        self,
        shape: tuple[int, int],
        J: int = 4,
        L: int = 8,
        *,
        max_order: int = 2,
        nonlinearity: Nonlinearity = "modulus",
        A: int = 4,
        padding: Padding = "reflect",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        _check(shape, J, L, max_order, A, padding)
        self.shape, self.J, self.L, self.max_order = shape, J, L, max_order
        self.phases = A if nonlinearity == "rectifier" else 0
        self.padding, self.dtype = padding, dtype
        self.coefficients = _coefficients(J, L, max_order, self.phases)
        for axis, size in enumerate(shape):
            self._prepare_axis(axis, size)
        self._grid = (len(self._axis("pad", 0)), len(self._axis("pad", 1)))
        if max_order:
            self._prepare_wavelets()

    def forward(self, x: Tensor) -> Tensor:
        """Return ``(..., coefficient, y', x')`` of real fields ``(..., y, x)``.

        Raises
        ------
        ShapeMismatch
            If ``x`` is not real or not on the operator's grid.
        """
        fields = self._checked(x).reshape(-1, *self.shape)
        padded = fields[:, self._axis("pad", 0)[:, None], self._axis("pad", 1)]
        orders: tuple[list[Tensor], ...] = ([self._average(padded, 0)[:, None]], [], [])
        if self.max_order:
            spectrum = torch.fft.fft2(padded)[:, None]
            for j1 in range(self.J):
                waves = self._filtered(spectrum, 0, j1)
                modulus = waves.abs()
                orders[1].append(self._first_order(waves, modulus, j1))
                if self.max_order == 2 and j1 < self.J - 1:
                    orders[2].extend(self._second_order(torch.fft.fft2(modulus), j1))
        features = torch.cat([block for blocks in orders for block in blocks], dim=1)
        return features.reshape(*x.shape[:-2], *features.shape[1:])

    def memory(self, batch: int, gradient: bool = False) -> int:
        """Return an upper bound in bytes of what a call allocates for ``batch`` fields.

        Parameters
        ----------
        batch
            Fields at once.
        gradient
            Whether the result is differentiated, for which every field on the way is kept.
        """
        points, size = math.prod(self._grid), torch.finfo(self.dtype).bits // 8
        outputs = 2 * len(self.coefficients["order"]) * (points >> 2 * self.J)
        angles = self.L * (10 + 2 * self.phases) if self.max_order else 0
        kept = self.L * (4 + self.L) if gradient and self.max_order else 0
        return batch * size * (points * (6 + angles + kept) + outputs)

    def _first_order(self, waves: Tensor, modulus: Tensor, j1: int) -> Tensor:
        if not self.phases:
            return self._average(modulus, j1)
        return self._average(rectify(waves, self.phases).movedim(-1, 2), j1).flatten(1, 2)

    def _second_order(self, spectra: Tensor, j1: int) -> Iterator[Tensor]:
        """Yield the coefficients ``(batch, l2, y', x')`` for each l1, then each j2 > j1."""
        for l1, j2 in product(range(self.L), range(j1 + 1, self.J)):
            yield self._average(self._filtered(spectra[:, l1, None], j1, j2).abs(), j2)

    def _filtered(self, spectrum: Tensor, level: int, j: int) -> Tensor:
        """Return fields ``(batch, l, y, x)`` at every 2^j points, from spectra at 2^level."""
        filtered = spectrum * self.get_buffer(f"_psi_{level}_{j}")
        waves: Tensor = torch.fft.ifft2(_fold(filtered, 2 ** (j - level)))
        return waves

    def _average(self, fields: Tensor, level: int) -> Tensor:
        """Return ``fields * phi_J`` at every 2^J points, from fields at every 2^level."""
        rows, columns = self._axis(f"average_{level}", 0), self._axis(f"average_{level}", 1)
        averaged: Tensor = rows @ fields @ columns.T
        return averaged

    def _axis(self, name: str, axis: int) -> Tensor:
        return self.get_buffer(f"_{name}_{'yx'[axis]}")

    def _checked(self, x: Tensor) -> Tensor:
        if x.is_complex() or x.ndim < 2 or tuple(x.shape[-2:]) != self.shape:
            raise ShapeMismatch(
                f"scattering was built for real fields (..., {self.shape[0]}, {self.shape[1]}), "
                f"got {x.dtype} of shape {tuple(x.shape)}"
            )
        if self._axis("pad", 0).device != x.device:
            self.to(x.device)
        return x.to(self.dtype)

    def _prepare_axis(self, axis: int, size: int) -> None:
        """Hold what padding reads, and the matrices that average and sample, along one axis."""
        source, margin = _padding(size, self.J, self.padding)
        self.register_buffer(f"_pad_{'yx'[axis]}", source, False)
        for level in range(self.J):
            matrix = _averaging(len(source), self.J, level)
            kept = matrix[margin : len(matrix) - margin].to(self.dtype)
            self.register_buffer(f"_average_{level}_{'yx'[axis]}", kept.contiguous(), False)

    def _prepare_wavelets(self) -> None:
        bank = morlet.wavelets(self._grid, self.J, self.L)
        for j in range(self.J):
            for level in range(max(1, j if self.max_order == 2 else 1)):
                cut = _cut(bank[j], 2**level) if level else bank[j]
                self.register_buffer(f"_psi_{level}_{j}", cut.to(self.dtype), False)


def _check(
    shape: tuple[int, int], J: int, L: int, max_order: int, A: int, padding: Padding
) -> None:
    if J < 1 or L < 1 or A < 1 or max_order not in (0, 1, 2):
        raise InvalidParameter(
            f"scattering needs J, L and A of 1 or more and max_order of 0, 1 or 2, "
            f"got J={J}, L={L}, A={A}, max_order={max_order}"
        )
    if min(shape) < 2**J:
        raise InvalidParameter(
            f"J={J} averages over {2**J} points, more than a side of {shape[0]} x {shape[1]}: "
            f"use J={int(math.log2(max(min(shape), 2)))} or less"
        )
    if padding == "periodic" and any(size % 2**J for size in shape):
        raise InvalidParameter(
            f"periodic scattering of {shape[0]} x {shape[1]} at J={J} needs sides that are "
            f"multiples of {2**J}: use a smaller J or padding='reflect'"
        )


def _coefficients(J: int, L: int, max_order: int, phases: int) -> dict[str, NDArray[np.generic]]:
    """Return the table of coefficients, -1 where an index does not apply."""
    rows = [(0, -1, -1, -1, -1, -1)]
    first = list(product(range(J), range(L)))
    if max_order:
        alphas = range(phases) if phases else [-1]
        rows += [(1, j, q, -1, -1, alpha) for (j, q), alpha in product(first, alphas)]
    if max_order == 2:
        rows += [(2, *a, *b, -1) for a, b in product(first, first) if b[0] > a[0]]
    return dict(zip(COLUMNS, np.array(rows, dtype=np.int64).T, strict=True))


def _padding(size: int, J: int, mode: Padding) -> tuple[Tensor, int]:
    """Return the sample each padded point repeats, and the outputs to drop on each side."""
    if mode == "periodic":
        return torch.arange(size), 0
    padded = ((size + 2**J) // 2**J + 1) * 2**J
    before = (padded - size) // 2
    period = max(2 * (size - 1), 1)
    place = (torch.arange(padded) - before) % period
    return torch.minimum(place, period - place), 1


def _averaging(size: int, J: int, level: int) -> Tensor:
    """Return the matrix that convolves with phi_J and samples every 2^J points of the whole.

    It maps the ``size / 2^level`` samples of an axis at that resolution to ``size / 2^J``.
    """
    transform = morlet.low_pass(size, J)
    if level:
        transform = torch.cat(_halves(transform, 2**level, 0))
    kernel = torch.fft.ifft(transform).real
    outputs = torch.arange(0, len(kernel), 2 ** (J - level))
    matrix: Tensor = kernel[(outputs[:, None] - torch.arange(len(kernel))) % len(kernel)]
    return matrix


def _cut(spectrum: Tensor, factor: int) -> Tensor:
    """Return the low frequencies of ``(..., y, x)`` that a grid coarser by ``factor`` holds."""
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


def _fold(spectrum: Tensor, factor: int) -> Tensor:
    """Sample every ``factor`` points, in the Fourier domain: average the frequencies that alias."""
    if factor == 1:
        return spectrum
    y, x = (size // factor for size in spectrum.shape[-2:])
    return spectrum.reshape(*spectrum.shape[:-2], factor, y, factor, x).mean((-4, -2))
