"""The foveal phase-harmonic correlation matrix: the yardstick of models of turbulence.

Channels of a periodic real field x are ``v(u) = [x * psi_{j,q}]^k`` at 25 shifts of u,

    j = 0..J-1 ,  2L angles q ,  k = 0..min(4, 2^j) ,  shifts 2^j (dy, dx) with dy, dx in -2..2 ,

and the low pass phi_J at 25 shifts by 2^(J-1). R is the matrix of their covariances over u and over
the fields of a set, about the set's own channel means, each divided by the standard deviations
of the *test* set's channels. A model is judged by

    eps = |R_test - R_model|_2 / |R_test|_2 .

With J = 5 and L = 8, R is 8,025 x 8,025. It is never formed: covariances depend on the difference
of shifts alone, angles half a turn apart are conjugates, and R is Hermitian. Each distinct value
is held once and weighted by how often it occurs. Covariances at multiples of 2^j need only the
cross-spectrum folded to a grid 2^j times coarser, a small matrix product for each frequency.

For fields that are not periodic, means are over the u for which no filter reaches around the border
at u or u + shift (:mod:`wavemill.moments.masked`). Transforms: ``-i w u``, unscaled forward.

Source: Zhang and Mallat, *Maximum entropy models from phase harmonic covariances*, ACHA 53, 199
(2021), section 4.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wavemill.devices import BesideDefault
from wavemill.errors import InvalidParameter, ShapeMismatch
from wavemill.evaluation.cross_spectra import at_shifts, folded, opposites
from wavemill.filters import bump_steerable
from wavemill.harmonics import phase_harmonic
from wavemill.moments.groups import Scale
from wavemill.moments.masked import window
from wavemill.moments.stacks import Window
from wavemill.operators import check_whole
from wavemill.specs.base import check_bank

REACH = 2  # of the shifts, in units of 2^j
HARMONICS = 4  # the highest k
ZERO = np.zeros(1, dtype=np.int64)
SPECTRA = 2**28  # bytes of the channels' transforms held at once: 3 fields of 256^2


@dataclass(frozen=True)
class ChannelGroup:
    """Channels of one scale and harmonic: L angles of a half turn, or the low pass."""

    scale: int
    k: int
    low_pass: bool
    channels: slice

    @property
    def count(self) -> int:
        """Number of channels."""
        return int(self.channels.stop - self.channels.start)

    @property
    def real(self) -> bool:
        """Whether the channels' fields are real, hence their own mirror images."""
        return self.low_pass or self.k == 0

    @property
    def weight(self) -> int:
        """How many of the 2L angles each channel stands for."""
        return 1 if self.low_pass else 2


@dataclass(frozen=True)
class Covariances:
    """Covariances of a set of fields: those within fields, and what is needed to join the fields.

    Attributes
    ----------
    within
        For each block of channels, covariances about each field's own channel means, averaged over
        fields: complex ``(shift_y, shift_x, channel, channel)``.
    variance
        The same of each channel with itself at shift 0, ``(channel,)`` float64.
    means
        Complex ``(field, channel)``.
    spread
        Standard deviation of the fields' values, by which rounding is measured.
    """

    within: tuple[Tensor, ...]
    variance: Tensor
    means: Tensor
    spread: float


@dataclass(frozen=True)
class _Block:
    """Covariances of the channels of one scale with those of the same or a coarser scale.

    The first side holds each channel of its scale, then the conjugate of each that is not real.
    ``times`` is how many pairs of angles, in either order, each value stands for.
    """

    scale: int
    other: int
    left: slice
    mirrored: slice
    right: slice
    times: Tensor  # (left channel, right channel)


class FovealCorrelation(BesideDefault):
    """Measures sets of fields and tells how far apart their correlation matrices are.

    Parameters
    ----------
    shape
        Grid ``(y, x)``.
    J, L
        Scales, and angles in a half turn.
    dtype
        Real precision.
    periodic
        Whether fields wrap around.

    Raises
    ------
    InvalidParameter
        If the coarsest wavelet does not fit on the grid, or leaves too little within its borders.
    """

    def __init__(
        self,
        shape: tuple[int, int],
        J: int = 5,
        L: int = 8,
        dtype: torch.dtype = torch.float32,
        periodic: bool = True,
    ) -> None:
        check_whole(J=J, L=L)
        check_bank("foveal matrix", J, L, 0)
        if min(shape) < 2**J:
            raise InvalidParameter(f"J={J} needs {2**J} points a side, got {shape}: lower J")
        self.shape, self.J, self.L, self.dtype, self.periodic = shape, J, L, dtype, periodic
        self._inside: list[Window] = []
        if not periodic:
            longest = REACH * 2**J
            window(Scale(True, J), (longest, longest), shape)  # refuses a grid that is too small
            self._inside = [window(Scale(False, scale), (0, 0), shape) for scale in range(J)]
        psi = [bump_steerable.wavelets_at(shape, j, range(L), L) for j in range(J)]
        self._psi = torch.stack(psi).to(dtype)
        self._phi = bump_steerable.low_pass(shape, bump_steerable.low_pass_width(J)).to(dtype)
        self.groups = _groups(J, L)
        self.channels = self.groups[-1].channels.stop
        self._blocks = [self._block(s, t) for s in range(J) for t in range(s, J)]

    @property
    def size(self) -> int:
        """Number of rows of R."""
        return sum(g.weight * g.count for g in self.groups) * (2 * REACH + 1) ** 2

    def measure(self, x: Tensor) -> Covariances:
        """Return the covariances of a set of real fields ``(..., y, x)``.

        Half of the time goes to sums over frequencies, which are taken once for about three fields
        of 256^2: measure several together.

        Raises
        ------
        ShapeMismatch
            If ``x`` is not real or not on the grid.
        """
        if x.is_complex() or x.ndim < 2 or tuple(x.shape[-2:]) != self.shape:
            raise ShapeMismatch(f"expected real fields (..., {self.shape}), got {tuple(x.shape)}")
        fields = x.reshape(-1, *self.shape)
        totals = [torch.zeros(())] * len(self._blocks)
        variances, means = [], []
        bytes_each = self.channels * math.prod(self.shape) * torch.finfo(self.dtype).bits // 4
        for chunk in torch.split(fields, max(1, SPECTRA // bytes_each)):
            spectra, mean, variance = self._spectra(chunk.to(self.dtype))
            for index, value in enumerate(self._covariances(spectra)):
                totals[index] = totals[index].to(value.device) + value
            means.append(mean)
            variances.append(variance)
        return Covariances(
            tuple(total / len(fields) for total in totals),
            torch.cat(variances).mean(0),
            torch.cat(means),
            float(fields.double().std(correction=0)),
        )

    def together(self, sets: Sequence[Covariances]) -> Covariances:
        """Return the covariances of the union of sets measured apart."""
        counts = [len(part.means) for part in sets]
        weights = [count / sum(counts) for count in counts]
        within = zip(*(part.within for part in sets), strict=True)
        return Covariances(
            tuple(_weighted(values, weights) for values in within),
            _weighted([part.variance for part in sets], weights),
            torch.cat([part.means for part in sets]),
            max(part.spread for part in sets),
        )

    def distance(self, model: Covariances, test: Covariances) -> float:
        """Return eps of a model's covariances against those of a test set; NaN if these are 0."""
        deviation = self.deviation(test)
        apart, norm = 0.0, 0.0
        for index, block in enumerate(self._blocks):
            left = torch.cat([deviation[block.left], deviation[block.mirrored]])
            scale = left[:, None] * deviation[block.right]
            occurrences = torch.from_numpy(_shifts(2**block.scale, 2**block.other)[1])
            repeats = torch.outer(occurrences, occurrences).to(scale)[..., None, None]
            weight = repeats * (block.times.to(scale) / scale.square())
            expected, found = (self._about_common_mean(index, side) for side in (test, model))
            apart += float((weight * (expected - found).abs().square()).sum(dtype=torch.float64))
            norm += float((weight * expected.abs().square()).sum(dtype=torch.float64))
        return math.sqrt(apart / norm) if norm > 0 else math.nan

    def deviation(self, covariances: Covariances) -> Tensor:
        """Return the standard deviation of each channel over all fields together.

        It is at least 100 rounding units of the fields' own deviation, so that a band that holds
        nothing but rounding error is not blown up to 1.
        """
        between = covariances.means.to(torch.complex128)
        between = (between - between.mean(0)).abs().square().mean(0)
        floor = 100 * torch.finfo(self.dtype).eps * covariances.spread
        deviation = (covariances.variance + between).sqrt().clamp(min=max(floor, 1e-300))
        return deviation.to(self.dtype)

    def _about_common_mean(self, index: int, covariances: Covariances) -> Tensor:
        """Return the covariances within fields plus those of the fields' channel means."""
        block = self._blocks[index]
        means = covariances.means - covariances.means.mean(0)
        left = torch.cat([means[:, block.left], means[:, block.mirrored].conj()], dim=1)
        between = left.mT @ means[:, block.right].conj() / len(means)
        return covariances.within[index] + between

    def _spectra(self, x: Tensor) -> tuple[list[Tensor], Tensor, Tensor]:
        """Return each scale's centred channels transformed, ``(y, x, field, channel)``; statistics.

        The statistics are means and variances, ``(field, channel)``. Fields are taken one by one,
        so that the transforms of only one of them exist twice.
        """
        complex_ = self.dtype.to_complex()
        means = torch.zeros((len(x), self.channels), dtype=complex_, device=x.device)
        variances = torch.zeros(means.shape, dtype=torch.float64, device=x.device)
        counts = [sum(group.count for group in self._groups_at(scale)) for scale in range(self.J)]
        spectra = [means.new_empty(*self.shape, len(x), count) for count in counts]
        for number, field in enumerate(x):
            x_hat, start = torch.fft.fft2(field - field.mean()), 0
            for scale, count in enumerate(counts):
                parts = [self._transformed(x_hat, g, means[number]) for g in self._groups_at(scale)]
                matrix = torch.cat(parts).flatten(1)
                spectra[scale][:, :, number] = matrix.T.contiguous().view(*self.shape, count)
                power = torch.stack([_power(channel) for channel in matrix])
                points = self._products(scale, scale).to(power)
                variances[number, start : start + count] = power / points
                start += count
            means[number, -1] += field.mean() * self._phi[0, 0].to(x.device)
        return spectra, means, variances

    def _transformed(self, x_hat: Tensor, group: ChannelGroup, means: Tensor) -> Tensor:
        """Return the transforms of a group's channels, and put their means into ``means``."""
        filters = self._phi[None] if group.low_pass else self._psi[group.scale]
        response = x_hat * filters.to(x_hat.device)
        if group.k == 1 and self.periodic:
            return response
        harmonic = phase_harmonic(torch.fft.ifft2(response), group.k)
        kept = harmonic if self.periodic else harmonic[(..., *self._inside[group.scale])]
        mean = kept.mean((-2, -1), keepdim=True)
        means[group.channels] = mean[..., 0, 0].to(means.dtype)
        centred = kept - mean
        if not self.periodic:
            borders = torch.zeros_like(harmonic)
            borders[(..., *self._inside[group.scale])] = centred
            centred = borders
        transformed: Tensor = torch.fft.fft2(centred)
        return transformed

    def _groups_at(self, scale: int) -> list[ChannelGroup]:
        return [group for group in self.groups if group.scale == scale]

    def _covariances(self, spectra: list[Tensor]) -> Iterator[Tensor]:
        """Yield each block's covariances, summed over fields; ``spectra`` is used up."""
        points = math.prod(self.shape)
        frequency = torch.arange(points, device=spectra[0].device).view(*self.shape, 1, 1)
        folds = [[math.gcd(2**scale, size) for size in self.shape] for scale in range(self.J)]
        for scale in range(self.J):
            if scale:
                ratio = [a // b for a, b in zip(folds[scale], folds[scale - 1], strict=True)]
                frequency = folded(frequency, ratio)
                for other in range(scale, self.J):
                    spectra[other] = folded(spectra[other], ratio)
            members = [block for block in self._blocks if block.scale == scale]
            opposite = opposites(frequency.flatten(), self.shape)
            left = _with_conjugates(spectra[scale], members[0], opposite)
            for block in members:
                shifts = _shifts(2**scale, 2**block.other)[0]
                totals = at_shifts(left, spectra[block.other], shifts, self.shape)
                products = self._products(block.scale, block.other, shifts).to(totals.real)
                yield totals / products[..., None, None]
            spectra[scale] = torch.empty(0)  # of no further use

    def _products(self, scale: int, other: int, shifts: NDArray[np.int64] = ZERO) -> Tensor:
        """Return the divisors of sums over frequencies, ``(shift_y, shift_x)`` float64.

        The number of frequencies, times that of points u for which u lies within the borders of one
        scale and u + shift within those of the other.
        """
        counts = [np.full(len(shifts), size) for size in self.shape]
        if not self.periodic:
            sides = zip(self._inside[scale], self._inside[other], strict=True)
            counts = [
                np.minimum(left.stop - shifts, right.stop)
                - np.maximum(left.start - shifts, right.start)
                for left, right in sides
            ]
        return torch.from_numpy(np.outer(*counts) * float(math.prod(self.shape)))

    def _block(self, scale: int, other: int) -> _Block:
        lefts, rights = ([g for g in self.groups if g.scale == s] for s in (scale, other))
        complex_ = [group for group in lefts if not group.real]
        times = [[_times(left, right, False) for right in rights] for left in lefts]
        times += [[_times(left, right, True) for right in rights] for left in complex_]
        across = torch.tensor([group.count for group in rights])
        expanded = torch.tensor(times).repeat_interleave(across, 1)
        down = torch.tensor([group.count for group in (*lefts, *complex_)])
        return _Block(
            scale,
            other,
            _span(lefts),
            _span(complex_),
            _span(rights),
            # R is Hermitian: a covariance between two scales occurs twice.
            expanded.repeat_interleave(down, 0) * (1 if scale == other else 2),
        )


def largest_scale(shape: tuple[int, int], periodic: bool) -> int:
    """Return the largest J of a matrix on a grid, 0 if none fits."""
    side = min(shape)
    # Borders of 2^J on either side, shifts by 2^(J + 1), and half a border: 4.5 x 2^J.
    return max(0, int(math.log2(side / (2 if periodic else 4.5)))) if side > 1 else 0


def _span(groups: Sequence[ChannelGroup]) -> slice:
    return slice(groups[0].channels.start, groups[-1].channels.stop)


def _with_conjugates(spectra: Tensor, block: _Block, opposite: Tensor) -> Tensor:
    """Return the first side of a block, ``(y, x, alias and field, channel)``.

    The transform of a conjugate is the conjugate of the transform at -w.
    """
    *grid, count, channels = spectra.shape
    first, last = (end - block.left.start for end in (block.mirrored.start, block.mirrored.stop))
    both = spectra.new_empty(*grid, count, channels + last - first)
    both[..., :channels] = spectra
    turned = spectra.view(len(opposite), -1, channels)[opposite].view(spectra.shape)
    both[..., channels:] = turned[..., first:last].conj()
    return both


def _times(left: ChannelGroup, right: ChannelGroup, mirrored: bool) -> int:
    """Return how many pairs of angles a pair of channels stands for."""
    times = left.weight * right.weight
    if mirrored:
        return 0 if right.real else times // 2
    return times if left.real or right.real else times // 2


def _power(spectrum: Tensor) -> Tensor:
    return torch.view_as_real(spectrum).square().sum(dtype=torch.float64)


def _weighted(values: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    total = weights[0] * values[0]
    for value, weight in zip(values[1:], weights[1:], strict=True):
        total = total + weight * value
    return total


def _groups(J: int, L: int) -> list[ChannelGroup]:
    """Return all groups, scale after scale; the low pass comes last, with the coarsest."""
    kinds = [(j, k) for j in range(J) for k in range(min(HARMONICS, 2**j) + 1)]
    spans = [slice(start, start + L) for start in range(0, len(kinds) * L, L)]
    groups = [ChannelGroup(j, k, False, s) for (j, k), s in zip(kinds, spans, strict=True)]
    return [*groups, ChannelGroup(J - 1, 1, True, slice(len(kinds) * L, len(kinds) * L + 1))]


def _shifts(step: int, other: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return ``step d - other d'``, d and d' in -2..2, and how often each occurs."""
    reach = np.arange(-REACH, REACH + 1)
    values, counts = np.unique(step * reach[:, None] - other * reach, return_counts=True)
    return values.astype(np.int64), counts.astype(np.float64)
