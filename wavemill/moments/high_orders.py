"""Families of moments beyond covariances of phase harmonics: third and fourth orders, rectifiers.

Sources: Mallat, *Mathematical mysteries of deep neural networks* (2019), for moments of high order
as a model to improve on; Brochard, Zhang and Mallat, *Generalized rectifier wavelet covariance
models for texture synthesis*, ICLR 2022, for the rectifiers.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from wavemill.errors import InvalidParameter
from wavemill.filters import bump_steerable
from wavemill.harmonics import rectify
from wavemill.moments.differentiated import DifferentiatedMoments, check_fits
from wavemill.moments.statistics import Statistics, floored
from wavemill.operators import check_whole, keep_buffer


class SkewnessFlatness(DifferentiatedMoments):
    """Third and fourth moments of a field's octaves, ``<y^3> / s^3`` and ``<y^4> / s^4``.

    ``y_j = x * sum over angles of psi_j``, j = 0..J-1, is real and takes all directions alike;
    ``y_J = x * phi_J`` about its mean. s^2 is the variance of y, frozen at a reference's: 2 (J + 1)
    numbers.

    Parameters
    ----------
    shape
        Grid ``(y, x)``, periodic.
    J, L
        Scales, and angles in a half turn, of bump steerable wavelets.
    dtype
        Real precision computed and returned.
    """

    _bands: Tensor

    def __init__(
        self, shape: tuple[int, int], J: int, L: int, dtype: torch.dtype = torch.float32
    ) -> None:
        super().__init__(shape, dtype)
        check_fits(shape, J, L)
        self.J, self.L = J, L
        octaves = [bump_steerable.wavelets_at(shape, j, range(2 * L), L).sum(0) for j in range(J)]
        low = bump_steerable.low_pass(shape, bump_steerable.low_pass_width(J))
        low[0, 0] = 0  # so that y_J has no mean either
        half = shape[-1] // 2 + 1
        keep_buffer(self, "_bands", torch.stack([*octaves, low])[..., :half].to(dtype))
        scale = np.repeat(np.arange(J + 1), 2)
        order = np.tile([3, 4], J + 1)
        family = np.where(order == 3, "skewness", "flatness")
        part = np.full(len(scale), "re")
        self.coefficients = {"order": order, "j1": scale, "part": part, "family": family}

    @property
    def channels(self) -> int:
        """Octaves and the low pass."""
        return len(self._bands)

    def statistics(self, x: Tensor) -> Statistics:
        """Return the deviation of each octave over all fields."""
        scale = self._octaves(x).square().mean((0, -2, -1)).sqrt()
        scale = floored(scale, x.std(correction=0))
        return Statistics(torch.zeros_like(scale).to(self.dtype.to_complex()), scale)

    def values(self, x: Tensor, statistics: Statistics) -> Tensor:
        """Return third and fourth moment of each octave, ``(field, coefficient)``."""
        y = self._octaves(x) / statistics.scale[:, None, None]
        powers = [y.pow(order).mean((-2, -1)) for order in (3, 4)]
        return torch.stack(powers, dim=-1).flatten(1)

    def _octaves(self, x: Tensor) -> Tensor:
        x_hat = torch.fft.rfft2(x)[:, None]
        octaves: Tensor = torch.fft.irfft2(x_hat * self._bands, s=tuple(self.shape))
        return octaves


class RectifierCovariance(DifferentiatedMoments):
    """Covariances of rectified wavelet coefficients, within a scale and with the next.

    ``U = rho(Re(e^{i alpha} x * psi_{j,l}))`` at A phases alpha = 2 pi a / A, less its mean and
    divided by its deviation, both frozen at a reference's. They are taken for all distinct pairs of
    angles and phases of one scale, and for all pairs of scales j and j + 1; the variance of
    x * phi_J is added. There are no shifts: phases stand for small ones.
    J LA (LA + 1) / 2 + (J - 1) (LA)^2 + 1 numbers.

    Parameters
    ----------
    shape
        Grid ``(y, x)``, periodic.
    J, L
        Scales, and angles in a half turn, of bump steerable wavelets.
    A
        Number of phases.
    dtype
        Real precision computed and returned.
    """

    _psi: Tensor
    _phi: Tensor
    _triangle: Tensor

    def __init__(
        self,
        shape: tuple[int, int],
        J: int,
        L: int,
        A: int = 4,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__(shape, dtype)
        check_fits(shape, J, L)
        check_whole(A=A)
        if A < 1:
            raise InvalidParameter(f"a rectifier has A >= 1 phases, got {A}")
        self.J, self.L, self.A = J, L, A
        bank = [bump_steerable.wavelets_at(shape, j, range(L), L) for j in range(J)]
        keep_buffer(self, "_psi", torch.stack(bank).to(dtype))
        low = bump_steerable.low_pass(shape, bump_steerable.low_pass_width(J))
        low[0, 0] = 0
        keep_buffer(self, "_phi", low.to(dtype))
        keep_buffer(self, "_triangle", torch.triu_indices(L * A, L * A))
        self.coefficients = self._describe(L * A)

    @property
    def channels(self) -> int:
        """Rectified bands and the low pass."""
        return self._psi.shape[0] * self._psi.shape[1] * self.A + 1

    def statistics(self, x: Tensor) -> Statistics:
        """Return mean and deviation of each U, and the deviation of the low pass."""
        x_hat = torch.fft.fft2(x)
        scales = [self._rectified(x_hat, j).transpose(0, 1).flatten(1) for j in range(self.J)]
        mean = torch.cat([scale.mean(1) for scale in scales])
        deviation = torch.cat([scale.std(1, correction=0) for scale in scales])
        low = self._low(x_hat).square().mean().sqrt()
        scale = floored(torch.cat([deviation, low.reshape(1)]), x.std(correction=0))
        mean = torch.cat([mean, torch.zeros_like(low).reshape(1)])
        return Statistics(mean.to(self.dtype.to_complex()), scale)

    def values(self, x: Tensor, statistics: Statistics) -> Tensor:
        """Return the covariances ``(field, coefficient)``."""
        x_hat, points = torch.fft.fft2(x), x.shape[-2] * x.shape[-1]
        means = statistics.mean.real[:-1].view(self.J, -1)
        deviations = statistics.scale[:-1].view(self.J, -1)
        results, finer = [], None
        for j, (mean, deviation) in enumerate(zip(means, deviations, strict=True)):
            channels = (self._rectified(x_hat, j) - mean[:, None]) / deviation[:, None]
            gram = channels @ channels.mT / points
            results.append(gram[:, self._triangle[0], self._triangle[1]])
            if finer is not None:
                results.append((finer @ channels.mT / points).flatten(1))
            finer = channels
        low = self._low(x_hat).square().mean((-2, -1)) / statistics.scale[-1] ** 2
        return torch.cat([*results, low[:, None]], dim=1)

    def _rectified(self, x_hat: Tensor, j: int) -> Tensor:
        """Return U of one scale, ``(field, angle and phase, point)``."""
        z = torch.fft.ifft2(x_hat[:, None] * self._psi[j])
        return rectify(z, self.A, dim=2).flatten(1, 2).flatten(2)

    def _low(self, x_hat: Tensor) -> Tensor:
        low: Tensor = torch.fft.ifft2(x_hat * self._phi).real
        return low

    def _describe(self, count: int) -> dict[str, np.ndarray[tuple[int, ...], np.dtype[np.generic]]]:
        """Return what each coefficient is: scales, angles, phases."""
        first, second = self._triangle.numpy()
        every = np.indices((count, count)).reshape(2, -1)
        rows = []
        for j in range(self.J):
            rows.append(np.stack([np.full(len(first), j), first, np.full(len(first), j), second]))
            if j:
                both = np.full(count**2, j - 1), every[0], np.full(count**2, j), every[1]
                rows.append(np.stack(both))
        j1, channel1, j2, channel2 = np.concatenate([*rows, np.full((4, 1), -1)], axis=1)
        columns = {"order": np.full(len(j1), 2), "j1": j1, "j2": j2}
        for side, channel in (("1", channel1), ("2", channel2)):
            columns |= {"l" + side: channel // self.A, "phase" + side: channel % self.A}
        columns["part"] = np.full(len(j1), "re")
        columns["family"] = np.where(j1 < 0, "L", np.where(j1 == j2, "R0", "R1"))
        return columns
