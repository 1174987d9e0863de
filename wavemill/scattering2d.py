"""Scattering transform of planar fields: averages of moduli of wavelet coefficients, twice.

    S0 x = x * phi_J ,   S1 x = |x * psi_1| * phi_J ,   S2 x = ||x * psi_1| * psi_2| * phi_J ,

for Morlet wavelets psi_{j,l} (:mod:`wavemill.filters.morlet`) of scales j2 > j1, sampled every
2^J points. Rectifiers ``rho(Re(e^{i alpha_a} z))`` at phases ``alpha_a = 2 pi a / A`` may stand for
the modulus, at order 1 or at both:

    "modulus"           | x * psi_1 |               | |x * psi_1| * psi_2 |
    "rectifier"         rho(x * psi_1, a1)          | |x * psi_1| * psi_2 |
    "fully-rectified"   rho(x * psi_1, a1)          rho(rho(x * psi_1, a1) * psi_2, a2)

After the wavelet of scale j a field is sampled every 2^j points, by folding its spectrum. Filters
at those resolutions are the full ones cut to the coarser grid's frequencies (its positive Nyquist
frequency left out), as in Kymatio, whose numbers and order of channels these are. Without averages
nothing is sampled or cut.

Source: Bruna and Mallat, *Invariant scattering convolution networks*, IEEE TPAMI 35, 1872 (2013);
Andreux et al., *Kymatio*, JMLR 21, 60 (2020); for the rectifier Zarka, Thiry, Angles and Mallat,
*Deep network classification by scattering and homotopy dictionary learning*, ICLR 2020; fully
rectified: Mallat, *Mathematical mysteries of deep neural networks* (lecture, 2019).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import product
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wavemill import kernels, sampling
from wavemill.errors import InvalidParameter
from wavemill.filters import morlet
from wavemill.folding import FoldedBank, modulus
from wavemill.harmonics import rectify
from wavemill.operators import FieldOperator, check_whole, keep_buffer, power_of_two
from wavemill.sampling import Padding
from wavemill.scattering_paths import Paths, Task, Window, usable

Nonlinearity = Literal["modulus", "rectifier", "fully-rectified"]
COLUMNS = ("order", "j1", "l1", "alpha1", "j2", "l2", "alpha2")
_CACHED = 3 << 20  # bytes of one array on a CPU that still fit its caches
_LAUNCHED = 1 << 30  # bytes of one array on other devices, where few large kernels are best


class Scattering2D(FieldOperator):
    """Scattering coefficients of real fields.

    ``op(x)`` maps real ``(..., y, x)`` to ``(..., coefficient, y', x')`` with ``y' = y // 2^J``;
    ``op.coefficients`` says what each is. There are ``1 + A1 J L + A2 L^2 J (J - 1) / 2`` at order
    2, A1 and A2 being 1 for moduli; A for a rectifier at order 1, and A^2 at order 2.

    Parameters
    ----------
    shape
        Grid ``(y, x)``; with reflection any sizes of at least 2^J, periodic ones multiples of 2^J.
        Sides whose prime factors, after padding, are small are fastest: 37 costs twice, 107 five
        times as much as 2.
    J, L
        Scales, and angles in a half turn.
    max_order
        0, 1 or 2.
    nonlinearity
        ``"modulus"``, ``"rectifier"`` (order 1; order 2 follows the modulus) or
        ``"fully-rectified"``.
    A
        Phases of the rectifiers.
    padding
        ``"reflect"``: mirror the field about its outermost samples, by 2^J / 2 or more a side.
        ``"periodic"``: none.
    average
        Whether to average; if not, ``op(x)`` is ``(..., coefficient, y, x)``, the fields
        ``U = x, |x * psi_1|, ||x * psi_1| * psi_2|`` at every point.
    dtype
        Real precision computed and returned; the input's is converted.

    Raises
    ------
    InvalidParameter
        If the grid does not fit J, or a parameter is out of range.

    Notes
    -----
    The gradient of a modulus or rectifier is 0 where that is 0. A NaN or an infinity makes every
    coefficient of its own field NaN.
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
        average: bool = True,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__(shape, dtype)
        check_whole(J=J, L=L, max_order=max_order, A=A)
        _check(self.shape, J, L, max_order, nonlinearity, A, padding)
        self.J, self.L, self.max_order, self.average = J, L, max_order, average
        self.nonlinearity, self.padding = nonlinearity, padding
        self.phases = (
            A if nonlinearity != "modulus" else 0,
            A if nonlinearity == "fully-rectified" else 0,
        )
        self.coefficients = _coefficients(J, L, max_order, self.phases)
        self._prepare()

    def forward(self, x: Tensor) -> Tensor:
        """Return ``(..., coefficient, y', x')`` of real fields ``(..., y, x)``.

        Raises
        ------
        ShapeMismatch
            If ``x`` is not real or not on the operator's grid.
        """
        fields = self._checked(x).reshape(math.prod(x.shape[:-2]), *self.shape)
        if not len(fields):
            size = [n >> self.J for n in self.shape] if self.average else self.shape
            return fields.new_zeros((*x.shape[:-2], len(self.coefficients["order"]), *size))
        unit = power_of_two(fields.detach().abs().amax((-2, -1), keepdim=True))
        if self.fused:
            features = self._transform(fields / unit)
        else:
            parts = self._parts(fields / unit, self.L * math.prod(self.grid))
            features = torch.cat([self._transform(part) for part in parts])
        scaled = torch.mul if torch.is_grad_enabled() else Tensor.mul_  # nothing else holds them
        return scaled(features, unit[:, None]).reshape(*x.shape[:-2], *features.shape[1:])

    def memory(self, batch: int, gradient: bool = False) -> int:
        """Return an upper bound in bytes of what a call allocates for ``batch`` fields.

        Parameters
        ----------
        batch
            Fields at once.
        gradient
            Whether the result is differentiated, for which every intermediate field is kept.
        """
        points, count = math.prod(self.grid), len(self.coefficients["order"])
        outputs = count / 4**self.J if self.average else count * math.prod(self.shape) / points
        if self.fused:
            threads = torch.get_num_threads()
            numbers = batch * (5 + 2 * outputs + gradient * (3 + 2 * threads + 2 * outputs))
            work = Task(self, batch).bytes(self.dtype, gradient)
            return int(self.dtype.itemsize * points * numbers) + work
        together = min(batch, self._most(self.L * points))
        numbers = batch * (6 + 2 * outputs) + together * self._working()
        if gradient and self.max_order:
            numbers += batch * self._kept_for_gradients()
        return int(self.dtype.itemsize * points * numbers)

    def _working(self) -> float:
        """Return how many numbers for each point exist at once in one field's transform."""
        A1, A2 = self.phases
        first = self.L * (4 + 2 * A1)  # waves before and after a transform, and their fields
        if self.max_order < 2:
            return self.max_order * first
        coarser = 0.25 if self.average else 1.0
        second = self.L * max(1, A2) * (2 + self.L * coarser * (4 + 2 * (A2 or 1)))
        return max(first, self.L * (2 + max(1, A1)) + second)

    def _kept_for_gradients(self) -> float:
        """Return how many numbers for each point of one field are kept for the gradient."""
        A1, A2 = self.phases
        share = [0.25**j if self.average else 1.0 for j in range(self.J)]
        pairs = sum(j * part for j, part in enumerate(share)) if self.max_order == 2 else 0
        both = 3 if self.nonlinearity == "rectifier" and self.max_order == 2 else 0
        first = self.L * sum(share) * ((A1 or 3) + both)  # 3: a complex wave and its modulus
        return first + self.L**2 * max(1, A2) * pairs * (A2 or 3)

    def _transform(self, fields: Tensor) -> Tensor:
        """Return the coefficients ``(batch, coefficient, y', x')``."""
        for axis in (0, 1):
            fields = fields.index_select(axis - 2, self._axis("pad", axis))
        average = self._pooled(fields, 0)
        if not self.max_order:
            return average[:, None]
        spectra = _spectrum(fields)
        del fields
        if usable(self, spectra):
            whole: Tensor = Paths.apply(average, spectra, self)  # type: ignore[no-untyped-call]
            return whole
        return torch.cat([average[:, None], self.paths_by_formulas(spectra)], dim=1)

    def paths_by_formulas(self, spectra: Tensor) -> Tensor:
        """Return coefficients of orders 1 and 2 from spectra ``(batch, y, x)``, by torch alone."""
        first, second = [], []
        for j1 in range(self.J):
            waves = torch.fft.ifft2(self.bank(0, j1)(spectra))
            fields = _nonlinear(waves, self.phases[0])
            first.append(self._pooled(fields, j1).flatten(1, -3))
            if self.max_order < 2 or j1 == self.J - 1:
                continue
            if self.nonlinearity == "rectifier":
                fields = modulus(waves, overwrite=True)
            del waves
            second.append(self._second_order(fields, j1))
        return torch.cat(first + second, dim=1)

    def _second_order(self, fields: Tensor, j1: int) -> Tensor:
        """Return ``(batch, coefficient, y', x')`` from first-order fields, at scales j2 > j1."""
        batch, layers = len(fields), fields.flatten(0, -3)
        parts = []
        for part in self._parts(layers, self.L * math.prod(layers.shape[-2:]) // 4):
            spectra, scales = _spectrum(part), []
            for j2 in range(j1 + 1, self.J):
                waves = torch.fft.ifft2(self.bank(j1, j2)(spectra))
                fields = _nonlinear(waves, self.phases[1])
                scales.append(self._pooled(fields, j2).flatten(1, -3))
            parts.append(torch.cat(scales, dim=1))
        second = torch.cat(parts)
        return second.reshape(batch, -1, *second.shape[-2:])

    def _pooled(self, fields: Tensor, level: int) -> Tensor:
        """Return ``fields * phi_J`` at every 2^J points, from fields at every 2^level.

        Without averages, return the fields at the points that are not padding.
        """
        if not self.average:
            (top, bottom), (left, right) = self._kept
            return fields[..., top:bottom, left:right]
        rows, columns = self._axis(f"average_{level}", 0), self._axis(f"average_{level}", 1)
        averaged: Tensor = (rows @ fields) @ columns.T
        return averaged

    def _parts(self, fields: Tensor, points: int) -> Sequence[Tensor]:
        """Split a batch evenly, so that ``points`` complex numbers for each stay in the caches."""
        parts = max(1, math.ceil(len(fields) / self._most(points)))
        return torch.split(fields, max(1, math.ceil(len(fields) / parts)))

    def _most(self, points: int) -> int:
        budget = _CACHED if self.device.type == "cpu" else _LAUNCHED
        return max(1, budget // (2 * self.dtype.itemsize * points))

    def bank(self, level: int, j: int) -> FoldedBank:
        """Return the filters of scale j for fields that are sampled every 2^level points."""
        bank = self.get_submodule(f"_psi_{level if self.average else 0}_{j}")
        assert isinstance(bank, FoldedBank)
        return bank

    def _axis(self, name: str, axis: int) -> Tensor:
        return self.get_buffer(f"_{name}_{'yx'[axis]}")

    def _prepare(self) -> None:
        pads = [sampling.padding(size, self.J, self.padding) for size in self.shape]
        self.grid = (len(pads[0][0]), len(pads[1][0]))
        self._kept = tuple((pad[1], pad[1] + n) for pad, n in zip(pads, self.shape, strict=True))
        for axis, (source, _) in enumerate(pads):
            keep_buffer(self, f"_pad_{'yx'[axis]}", source)
            for level in range(self.J if self.average else 0):
                keep_buffer(self, f"_average_{level}_{'yx'[axis]}", self._low_pass(axis, level))
        if self.max_order:
            self._prepare_wavelets()
        self._prepare_loop()

    def _low_pass(self, axis: int, level: int) -> Tensor:
        """Return the matrix that averages and samples along one axis, without its margins."""
        matrix = sampling.averaging(self.grid[axis], self.J, level)
        margin = 1 if self.padding == "reflect" else 0
        return matrix[margin : len(matrix) - margin].to(self.dtype).contiguous()

    def _prepare_wavelets(self) -> None:
        """Hold the filters at every resolution needed."""
        for j in range(self.J):
            psi = morlet.wavelets_at(self.grid, j, self.L)
            coarsest = j if self.average and self.max_order == 2 else 1
            for level in range(max(1, coarsest)):
                factor = 2 ** (j - level) if self.average else 1
                bank = FoldedBank(sampling.cut(psi, 2**level), factor, self.dtype)
                self.add_module(f"_psi_{level}_{j}", bank)

    def _prepare_loop(self) -> None:
        """Describe the averages to the compiled loop, if it knows this transform."""
        margin, levels = int(self.padding == "reflect"), range(self.J)
        known = self.average and self.max_order and self.nonlinearity != "fully-rectified"
        self.windows, self._looped = [], False
        if known and kernels.available():
            self.windows = [
                Window.of(self._axis(f"average_{level}", axis), 2 ** (self.J - level), margin)
                for level, axis in product(levels, (0, 1))
            ]
            self._looped = Task(self, 1).bytes(self.dtype, gradient=False) >= 0

    @property
    def fused(self) -> bool:
        """Whether the compiled loop computes the paths, unless a graph or a trace prevents it."""
        return self._looped and kernels.available() and self.device.type == "cpu"


def _check(
    shape: tuple[int, int],
    J: int,
    L: int,
    max_order: int,
    nonlinearity: str,
    A: int,
    padding: str,
) -> None:
    if J < 1 or L < 1 or A < 1 or max_order not in (0, 1, 2):
        raise InvalidParameter(
            f"scattering needs J, L and A of 1 or more and max_order of 0, 1 or 2, "
            f"got J={J}, L={L}, A={A}, max_order={max_order}"
        )
    for name, value, known in (
        ("nonlinearity", nonlinearity, get_args(Nonlinearity)),
        ("padding", padding, get_args(Padding)),
    ):
        if value not in known:
            raise InvalidParameter(f"{name} must be one of {', '.join(known)}, got {value!r}")
    if min(shape) < 2**J:
        fits = min(shape).bit_length() - 1
        raise InvalidParameter(
            f"J={J} averages over {2**J} points, more than a side of {shape[0]} x {shape[1]}: "
            + (f"use J={fits} or less" if fits else "scattering needs 2 points a side")
        )
    if padding == "periodic" and any(size % 2**J for size in shape):
        raise InvalidParameter(
            f"periodic scattering of {shape[0]} x {shape[1]} at J={J} needs sides that are "
            f"multiples of {2**J}: use a smaller J or padding='reflect'"
        )


def _coefficients(
    J: int, L: int, max_order: int, phases: tuple[int, int]
) -> dict[str, NDArray[np.generic]]:
    """Return the table of coefficients, -1 where an index does not apply."""
    rows: list[tuple[int, ...]] = [(0,) + 6 * (-1,)]
    paths, alphas = list(product(range(J), range(L))), [range(A) if A else [-1] for A in phases]
    if max_order:
        rows += [(1, j, q, alpha, -1, -1, -1) for (j, q), alpha in product(paths, alphas[0])]
    if max_order == 2:
        first = product(paths, alphas[0] if phases[1] else [-1])
        for ((j1, l1), a1), (j2, l2), a2 in product(first, paths, alphas[1]):
            rows += [(2, j1, l1, a1, j2, l2, a2)] if j2 > j1 else []
    return dict(zip(COLUMNS, np.array(rows, dtype=np.int64).T, strict=True))


def _spectrum(fields: Tensor) -> Tensor:
    """Return the full transform of real ``(batch, y, x)``: one half computed, the other mirrored.

    ``torch.fft.fft2`` would compute both halves.
    """
    return torch._fft_r2c(fields, (1, 2), 0, False)


def _nonlinear(waves: Tensor, phases: int) -> Tensor:
    """Return ``|z|``, or the rectifier's phases on a new axis before ``(y, x)``."""
    return rectify(waves, phases, dim=-3) if phases else modulus(waves, overwrite=True)
