"""Responses of a field to the wavelets of one scale, their phase harmonics, and the way back.

    z = x * psi ,   [z]^k = r u^k ,   r = |z| ,   u = z / r ;   d[z]^k = u^k (dr + i k r dphase) .

Everything is kept as real planes, real parts of all angles before imaginary ones: transforms of real
fields cost half, and no multiplication is complex. A gradient A of [z]^k adds Re(A* u^k) to that of r
and -k Im(A* u^k) to that of r dphase; these two are all that a scale gathers, whatever its harmonics,
and become the gradient ``u (a_r + i a_t)`` of z once, in :meth:`Response.pulled`.
"""

from __future__ import annotations

from functools import cached_property

import torch
from torch import Tensor

from wavemill.harmonics import phase_harmonic


class Response:
    """What one scale's filters answer to a batch of fields.

    Parameters
    ----------
    spectrum
        Transforms of ``x * psi`` divided by the number of points, ``(batch, plane, y, column)``.
    shape
        Grid ``(y, x)``.
    low_pass
        The filters are low passes: real responses, one plane each.
    """

    def __init__(self, spectrum: Tensor, shape: tuple[int, int], low_pass: bool) -> None:
        self.spectrum, self.shape, self.low_pass = spectrum, shape, low_pass
        self._power = (1, spectrum)  # exponent k and u^k, once there is any
        self._plane_gradient: Tensor | None = None
        self._radial: Tensor | None = None
        self._angular: Tensor | None = None

    @cached_property
    def planes(self) -> Tensor:
        """The responses, ``(batch, plane, y, x)``."""
        return inverse(self.spectrum, self.shape)

    @cached_property
    def modulus(self) -> Tensor:
        """Of each angle, ``(batch, angle, y, x)``."""
        return self._squared * self._inverse_modulus

    @cached_property
    def _squared(self) -> Tensor:
        real, imaginary = self.planes.chunk(2, dim=1)
        return torch.addcmul(real * real, imaginary, imaginary)

    @cached_property
    def _inverse_modulus(self) -> Tensor:
        return self._squared.clamp_min(torch.finfo(self._squared.dtype).tiny).rsqrt_()

    @cached_property
    def _unit(self) -> Tensor:
        """Real and imaginary parts of u, ``(batch, 2, angle, y, x)``; 0 where z is."""
        return self.planes.unflatten(1, (2, -1)) * self._inverse_modulus[:, None]

    def harmonic(self, k: int) -> Tensor:
        """Return the planes of [z]^k, k >= 0; of low passes, y for k = 1 and abs(y) for k = 0."""
        if self.low_pass:
            return self.planes if k else self.planes.abs()
        if k == 1:
            return self.planes
        if self.planes.requires_grad:
            harmonic = phase_harmonic(torch.complex(*self.planes.chunk(2, dim=1)), k)
            return torch.cat([harmonic.real, harmonic.imag], dim=1) if k else harmonic
        if k == 0:
            return self.modulus
        return (self._unit_power(k) * self.modulus[:, None]).flatten(1, 2)

    def pull(self, k: int, gradient: Tensor) -> None:
        """Take in a gradient of the planes of [z]^k."""
        if self.low_pass:
            self._add_planes(gradient if k else gradient * self.planes.sign())
        elif k == 1:
            self._add_planes(gradient)
        elif k == 0:
            self._polar()[0].add_(gradient)
        else:
            (ur, ui), (ar, ai) = self._unit_power(k).unbind(1), gradient.chunk(2, dim=1)
            radial, angular = self._polar()
            radial.addcmul_(ar, ur).addcmul_(ai, ui)
            angular.addcmul_(ar, ui, value=-k).addcmul_(ai, ur, value=k)

    def pulled(self) -> Tensor | None:
        """Return the gradient of the spectrum from all that was taken in; None if nothing was."""
        gradient = self._plane_gradient
        if self._radial is not None and self._angular is not None:
            ur, ui = self._unit.unbind(1)
            real = (ur * self._radial).addcmul_(ui, self._angular, value=-1)
            imaginary = (ui * self._radial).addcmul_(ur, self._angular)
            both = torch.cat([real, imaginary], dim=1)
            gradient = both if gradient is None else gradient + both
        return None if gradient is None else forward(gradient, self.spectrum.shape[-1])

    def _add_planes(self, gradient: Tensor) -> None:
        known = self._plane_gradient
        self._plane_gradient = gradient if known is None else known + gradient

    def _polar(self) -> tuple[Tensor, Tensor]:
        if self._radial is None or self._angular is None:
            self._radial = torch.zeros_like(self.modulus)
            self._angular = torch.zeros_like(self.modulus)
        return self._radial, self._angular

    def _unit_power(self, k: int) -> Tensor:
        """Return u^k: squared from the last one asked for where that is half of it."""
        if k == 1:
            return self._unit
        if self._power[0] != k:
            half = self._power[1] if 2 * self._power[0] == k > 2 else self._unit_power(k // 2)
            square = _square(half)
            self._power = (k, _product(square, self._unit) if k % 2 else square)
        return self._power[1]


def inverse(spectrum: Tensor, shape: tuple[int, int]) -> Tensor:
    """Return the real fields of half planes ``(..., y, column)``; missing columns are 0."""
    rows = torch.fft.ifft(spectrum, dim=-2, norm="forward")
    fields: Tensor = torch.fft.irfft(rows, n=shape[1], norm="forward")
    return fields


def forward(fields: Tensor, columns: int) -> Tensor:
    """Return the first columns of the half planes of real fields, unnormalised."""
    rows = torch.fft.rfft(fields)
    spectrum: Tensor = torch.fft.fft(rows[..., :columns], dim=-2)
    return spectrum


def _square(u: Tensor) -> Tensor:
    """Return u^2 of unit numbers, ``2 u_r^2 - 1 + 2 i u_r u_i``, parts on axis 1."""
    ur, ui = u.unbind(1)
    square = torch.empty_like(u)
    torch.mul(ur, ur, out=square[:, 0])
    square[:, 0].addcmul_(ui, ui, value=-1)
    torch.mul(ur, ui, out=square[:, 1])
    square[:, 1].mul_(2)
    return square


def _product(u: Tensor, v: Tensor) -> Tensor:
    (ur, ui), (vr, vi) = u.unbind(1), v.unbind(1)
    return torch.stack([ur * vr - ui * vi, ur * vi + ui * vr], dim=1)
