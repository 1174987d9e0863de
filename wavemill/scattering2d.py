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
        unit = _unit(fields)
        padded = (fields / unit)[:, self._axis("pad", 0)[:, None], self._axis("pad", 1)]
        orders: tuple[list[Tensor], ...] = ([self._average(padded, 0)[:, None]], [], [])
        if self.max_order:
            spectrum = _interleaved(torch.fft.fft2(padded))
            for j1 in range(self.J):
                bands = [self._filtered(spectrum, 0, j1, q) for q in range(self.L)]
                waves = torch.fft.ifft2(torch.stack(bands, dim=1))
                modulus = _modulus(waves)
                orders[1].append(self._first_order(waves, modulus, j1))
                if self.max_order == 2 and j1 < self.J - 1:
                    orders[2].append(self._second_order(torch.fft.fft2(modulus), j1))
        features = torch.cat([block for blocks in orders for block in blocks], dim=1)
        return (features * unit[:, None]).reshape(*x.shape[:-2], *features.shape[1:])

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
        kept = self.L * (6 + 1.5 * self.L) if gradient and self.max_order else 0
        return int(batch * size * (points * (6 + angles + kept) + outputs))

    def _first_order(self, waves: Tensor, modulus: Tensor, j1: int) -> Tensor:
        if not self.phases:
            return self._average(modulus, j1)
        return self._average(rectify(waves, self.phases).movedim(-1, 2), j1).flatten(1, 2)

    def _second_order(self, spectra: Tensor, j1: int) -> Tensor:
        """Return the coefficients ``(batch, (l1, j2, l2), y', x')`` of the scales j2 > j1."""
        spectra = _interleaved(spectra)
        averages = []
        for j2, l2 in product(range(j1 + 1, self.J), range(self.L)):
            waves = torch.fft.ifft2(self._filtered(spectra, j1, j2, l2))
            averages.append(self._average(_modulus(waves), j2))
        return torch.stack(averages, dim=2).flatten(1, 2)

    def _filtered(self, spectrum: Tensor, level: int, j: int, q: int) -> Tensor:
        """Filter and fold: return spectra ``(..., y, x)`` on the grid of every 2^j points.

        ``spectrum`` is that of every 2^level points, its parts interleaved. Sampling adds up the
        frequencies that alias: blocks of the grid, of which those that psi misses are left out.
        """
        places, filters = self._blocks[level, j][q], self.get_buffer(f"_psi_{level}_{j}_{q}")
        rows, columns = filters.shape[-2:]
        total = None
        for (y, x), psi in zip(places, filters, strict=True):
            block = spectrum.narrow(-2, y * rows, rows).narrow(-1, x * columns, columns)
            total = block * psi if total is None else torch.addcmul(total, block, psi)
        assert total is not None
        return torch.view_as_complex(total.unflatten(-1, (-1, 2)))

    def _average(self, fields: Tensor, level: int) -> Tensor:
        """Return ``fields * phi_J`` at every 2^J points, from fields at every 2^level."""
        rows, columns = self._axis(f"average_{level}", 0), self._axis(f"average_{level}", 1)
        averaged: Tensor = rows @ (fields @ columns.T)
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
        """Hold the blocks of each filter that its values reach, at every resolution needed."""
        self._blocks: dict[tuple[int, int], list[list[tuple[int, int]]]] = {}
        bank = morlet.wavelets(self._grid, self.J, self.L)
        for j in range(self.J):
            for level in range(max(1, j if self.max_order == 2 else 1)):
                factor = 2 ** (j - level)
                blocks = _blocks(_cut(bank[j], 2**level) / factor**2, factor)
                reached = blocks.abs().amax((-2, -1)) > torch.finfo(self.dtype).eps / factor**2
                self._blocks[level, j] = [
                    [(y, x) for y, x in mask.nonzero().tolist()] for mask in reached
                ]
                for q, mask in enumerate(reached):
                    psi = blocks[q][mask].to(self.dtype).repeat_interleave(2, -1)
                    self.register_buffer(f"_psi_{level}_{j}_{q}", psi, False)


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


def _blocks(filters: Tensor, factor: int) -> Tensor:
    """Return ``(l, block y, block x, y, x)``: the grid's frequencies, those that alias apart."""
    y, x = (size // factor for size in filters.shape[-2:])
    return filters.reshape(-1, factor, y, factor, x).transpose(2, 3).contiguous()


def _interleaved(spectrum: Tensor) -> Tensor:
    """Return ``(..., y, 2 x)``: real and imaginary parts side by side.

    A real filter then multiplies real numbers only, which is four times as fast.
    """
    return torch.view_as_real(spectrum).flatten(-2)


def _unit(fields: Tensor) -> Tensor:
    """Return a power of 2 near the largest value of each field, ``(batch, 1, 1)``.

    The transform is homogeneous; in these units no square overflows, nor vanishes unless it is
    negligible.
    """
    largest = fields.detach().abs().amax((-2, -1), keepdim=True)
    return torch.exp2(torch.log2(largest.clamp(min=torch.finfo(fields.dtype).tiny)).floor())


def _modulus(z: Tensor) -> Tensor:
    """Return |z|, with gradient 0 at 0; thrice as fast as ``z.abs()``, and safe in our units."""
    re, im = torch.view_as_real(z).unbind(-1)
    square = re.square() + im.square()
    return square.clamp(min=torch.finfo(square.dtype).tiny).sqrt()
