"""Exact gradients and Laplacians of phase-harmonic moments, one for each real moment.

A moment is ``C = mean over u of a(u + shift) conj b(u)``, where a is a function of the complex
response ``z = x * psi``: a = ([z]^k - m) / s. With the channels' Wirtinger derivatives

    a_z = (1 + k)/2 [z]^k / z / s ,   a_z* = (1 - k)/2 [z]^k / z* / s ,

its gradient with respect to x is a sum of filtered products, and its Laplacian in a metric K,

    tr(K d2C) = mean of  (D a)(u + shift) conj b(u) + a(u + shift) conj (D b)(u)
                + 2 <grad a(u + shift), grad conj b(u)>_K ,

needs only numbers besides the channels: with ``p = <psi, psi>``, ``n = <psi, psi*>`` in the metric,
``D a = a_zz p + 2 a_zz* n + a_z*z* p*``. For moduli it has a factor 1/|z|, which is
integrable in the plane and is left out where z is 0.

Transforms have sign ``-i w u``, unnormalised forward; K is diagonal in frequency.

Source: Hyvarinen, *Estimation of non-normalized statistical models by score matching*, JMLR 6, 695
(2005), which needs them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from wavemill.errors import InvalidParameter
from wavemill.filters import bump_steerable
from wavemill.harmonics import phase_harmonic
from wavemill.moments.pairs import LOW_PASS, MomentTable, canonical
from wavemill.operators import mirror

Key = tuple[int, int, int]  # scale j, angle l (or the low pass), harmonic k


@dataclass(frozen=True)
class Channel:
    """A channel of one field, ``(y, x)`` each: value, Wirtinger derivatives, Laplacian.

    ``filter`` is the transform of its wavelet.
    """

    filter: Tensor
    value: Tensor
    by_z: Tensor
    by_conjugate: Tensor
    laplacian: Tensor


class MomentDerivatives:
    """Gradients and Laplacians of the moments of a table, standardised by given statistics.

    Parameters
    ----------
    table
        Rows of wavelets in any harmonic, and of the low pass in k = 1: |y| of a real y has no
        Laplacian.
    mean, scale
        Frozen normalisation of each channel, by its key ``(j, l, k)``.
    metric
        K(w) ``(y, x)``, real and even; 1 everywhere for the plain Laplacian.

    Raises
    ------
    InvalidParameter
        If the table holds |y| of a low pass.
    """

    def __init__(
        self, table: MomentTable, mean: dict[Key, complex], scale: dict[Key, float], metric: Tensor
    ) -> None:
        for side in "12":
            low = table.rows["l" + side] == LOW_PASS
            if (table.rows["k" + side][low] % 2 == 0).any():
                raise InvalidParameter(
                    "moments of |x * phi| have no Laplacian: choose the set A0, A, B or C"
                )
        self.table, self.metric, self._mean, self._scale = table, metric.double(), mean, scale
        self._points = math.prod(table.shape)
        self._real = canonical(table).real
        self._filters = filters(table)

    def gradients(self, x: Tensor) -> Iterator[Tensor]:
        """Yield the gradient ``(y, x)`` of each real moment of a field, in the table's order."""
        channels = self._channels(x)
        for row, real in zip(self.table.rows, self._real, strict=True):
            a, b, shift = self._sides(row, channels)
            # C changes by the mean of (a_z dz + a_z* dz*)(u + shift) b*(u), and likewise by b*.
            other = b.value.conj().roll(shift, (0, 1))
            moved = a.value.roll((-shift[0], -shift[1]), (0, 1))
            by_z = self._back(a.filter, a.by_z * other) + self._back(
                b.filter, b.by_conjugate.conj() * moved
            )
            by_conjugate = self._back(a.filter, (a.by_conjugate * other).conj()) + self._back(
                b.filter, (b.by_z.conj() * moved).conj()
            )
            gradient = (by_z + by_conjugate.conj()) / self._points
            yield gradient.real
            if not real:
                yield gradient.imag

    def laplacians(self, x: Tensor) -> Tensor:
        """Return tr(K d2C) ``(moment,)`` of a field, in the order of :meth:`gradients`."""
        channels, values = self._channels(x), []
        for row, real in zip(self.table.rows, self._real, strict=True):
            a, b, shift = self._sides(row, channels)
            back = (-shift[0], -shift[1])
            moved = [t.roll(back, (0, 1)) for t in (a.value, a.by_z, a.by_conjugate, a.laplacian)]
            value, by_z, by_conjugate, laplacian = moved
            total = laplacian * b.value.conj() + value * b.laplacian.conj()
            # conj b has the derivatives conj(b_z*) by z and conj(b_z) by z*.
            p, n = self._inner(a.filter, b.filter, shift)
            total = total + 2 * (
                by_z * (b.by_conjugate.conj() * p + b.by_z.conj() * n)
                + by_conjugate * (b.by_conjugate.conj() * n.conj() + b.by_z.conj() * p.conj())
            )
            mean = total.mean()
            values += [mean.real] if real else [mean.real, mean.imag]
        return torch.stack(values)

    def _sides(
        self, row: np.void, channels: dict[Key, Channel]
    ) -> tuple[Channel, Channel, tuple[int, int]]:
        shift = int(row["shift_y"]), int(row["shift_x"])
        return channels[_key(row, "1")], channels[_key(row, "2")], shift

    def _channels(self, x: Tensor) -> dict[Key, Channel]:
        x_hat, zero = torch.fft.fft2(x.double()), (0, 0)
        channels = {}
        for key, psi in self._filters.items():
            k, scale = key[2], self._scale[key]
            z = torch.fft.ifft2(x_hat * psi)
            value = (phase_harmonic(z, k) - self._mean[key]) / scale
            phase = torch.sgn(z)
            inverse = torch.where(z.abs() > 0, 1 / z.abs().clamp(min=1e-300), 0.0)
            by_z = (1 + k) / 2 * _power(phase, k - 1) / scale
            by_conjugate = (1 - k) / 2 * _power(phase, k + 1) / scale
            p, n = self._inner(psi, psi, zero)
            curved = inverse / scale
            laplacian = (
                (k * k - 1) / 4 * _power(phase, k - 2) * p
                + (1 - k * k) / 2 * _power(phase, k) * n
                + (k * k - 1) / 4 * _power(phase, k + 2) * p.conj()
            ) * curved
            channels[key] = Channel(psi, value + 0j, by_z, by_conjugate, laplacian)
        return channels

    def _inner(self, psi: Tensor, other: Tensor, shift: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Return ``<psi(. + shift), other>`` and ``<psi(. + shift), other*>`` in the metric.

        Filters are real in frequency, so that ``psi(v) -> psi*(v)`` reflects their transforms.
        """
        wave = self._wave(shift) * self.metric * psi / self._points
        return (wave * mirror(other)).sum(), (wave * other).sum()

    def _wave(self, shift: tuple[int, int]) -> Tensor:
        rows, columns = (
            torch.exp(2j * math.pi * torch.arange(size).double() * s / size)
            for size, s in zip(self.table.shape, shift, strict=True)
        )
        return rows[:, None] * columns

    def _back(self, psi: Tensor, weights: Tensor) -> Tensor:
        """Return ``sum over u of weights(u) psi(u - v)``, ``(y, x)`` over v."""
        moved: Tensor = torch.fft.ifft2(torch.fft.fft2(weights) * mirror(psi))
        return moved


def channel_statistics(
    table: MomentTable, x: Tensor
) -> tuple[dict[Key, complex], dict[Key, float]]:
    """Return means and standard deviations of all channels over fields ``(field, y, x)``.

    As :meth:`wavemill.PhaseHarmonicCovariance.statistics`, by the channels' keys. A wavelet's
    response has no mean.
    """
    x_hat = torch.fft.fft2(x.double())
    means: dict[Key, complex] = {}
    scales: dict[Key, float] = {}
    for key, psi in filters(table).items():
        channel = phase_harmonic(torch.fft.ifft2(x_hat * psi), key[2])
        linear = key[2] in (-1, 1) and key[1] != LOW_PASS
        means[key] = 0j if linear else complex(channel.mean())
        scale = float((channel - channel.mean()).abs().square().mean().sqrt())
        scales[key] = scale if scale > 0 else 1.0
    return means, scales


def filters(table: MomentTable) -> dict[Key, Tensor]:
    """Return the transform of each channel's filter, ``(y, x)`` float64."""
    found: dict[Key, Tensor] = {}
    for side, row in ((side, row) for side in "12" for row in table.rows):
        key = _key(row, side)
        if key not in found:
            found[key] = (
                table.low_pass_filter(key[0])
                if key[1] == LOW_PASS
                else bump_steerable.wavelets_at(table.shape, key[0], [key[1]], table.L)[0]
            )
    return found


def _key(row: np.void, side: str) -> Key:
    return int(row["j" + side]), int(row["l" + side]), int(row["k" + side])


def _power(u: Tensor, n: int) -> Tensor:
    return torch.ones_like(u) if n == 0 else (u if n > 0 else u.conj()) ** abs(n)
