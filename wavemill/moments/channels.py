"""Responses of a field to the wavelets of one scale, their phase harmonics, and the way back.

    z = x * psi ,   [z]^k = r u^k ,   r = |z| ,   u = z / r ;   d[z]^k = u^k (dr + i k r dphase) .

With A the gradient of [z]^k (d(loss) = Re conj(A) d[z]^k), p = conj(A) u^k adds Re p to the
gradient a_r of r and -k Im p to a_phase, that of r dphase. A scale gathers a_r + i a_phase over all
its harmonics, and turns it once into the gradient ``u (a_r + i a_phase)`` of z.
"""

from __future__ import annotations

from functools import cached_property

import torch
from torch import Tensor

from wavemill import kernels
from wavemill.harmonics import phase_harmonic
from wavemill.moments.boxes import Box, to_field, to_spectrum


class Response:
    """The responses of one scale's filters to a batch of fields.

    Parameters
    ----------
    spectrum
        Transforms of ``x * psi`` over the number of points, ``(batch, angle, y, x)`` in a box.
    shape
        Grid ``(y, x)``.
    low_pass
        Whether the filters are low passes, whose responses are real.
    """

    def __init__(self, spectrum: Tensor, shape: Box, low_pass: bool) -> None:
        self.spectrum, self.shape, self.low_pass = spectrum, shape, low_pass
        self._gradient: Tensor | None = None  # of z itself
        self._radial: Tensor | None = None  # of r, from moduli
        self._polar_gradient: Tensor | None = None  # a_r + i a_phase, from harmonics k >= 2
        self._last: tuple[int, slice, Tensor, Tensor] | None = None  # k, angles, u^k, [z]^k

    @cached_property
    def field(self) -> Tensor:
        """The responses, ``(batch, angle, y, x)``: complex, or real for low passes."""
        return to_field(self.spectrum, self.shape, real=self.low_pass)

    @property
    def modulus(self) -> Tensor:
        """Moduli of the responses of wavelets."""
        if self.field.requires_grad:
            return self.field.abs()
        if kernels.usable(self.field):
            return kernels.harmonics(self.field, 0)
        return self._polar[0]

    def harmonic(self, k: int, angles: slice) -> Tensor:
        """Return [z]^k, k >= 0, of some angles; for low passes y if k = 1 and abs(y) if k = 0."""
        if k == 1:
            return self.field[:, angles]
        if self.low_pass:
            return self.field.abs()
        if k == 0:
            return self.modulus[:, angles]
        z = self.field[:, angles]
        if z.requires_grad:
            return phase_harmonic(z, k)
        return kernels.harmonics(z, k) if kernels.usable(z) else self._powers(k, angles)[1]

    def harmonic_spectrum(
        self, k: int, angles: slice, mean: Tensor | None, box: Box
    ) -> Tensor | None:
        """Return the transform of [z]^k - mean within a box, by loops that do not store [z]^k.

        ``mean`` is complex ``(angle,)``, or None for 0. None where the loops cannot do it.
        """
        if k == 1 or self.low_pass:
            return None
        return kernels.harmonic_spectra(self.field[:, angles], k, mean, box)

    def pull_spectrum(self, k: int, angles: slice, spectrum: Tensor) -> bool:
        """Take over the conjugate of a gradient of [z]^k from its spectrum, if loops can do it.

        They do not store the conjugate, ``sum over w of spectrum e^{-i w u}``.
        """
        if k < 2 or self.low_pass:
            return False
        z, known = self.field[:, angles], self._known(angles)
        gathered = kernels.add_polar_spectra(spectrum, z, k, known)
        if known is None:
            self._polar_gradient = gathered
        return gathered is not None

    def pull(self, k: int, angles: slice, conjugate: Tensor) -> None:
        """Take over the conjugate of a gradient of [z]^k; real for k = 0 and low passes."""
        if self.low_pass:
            gradient = conjugate if k else conjugate * self.field.sign()
            self._gradient = self._plus(self._gradient, angles, gradient)
        elif k == 0:
            self._radial = self._plus(self._radial, angles, conjugate)
        elif k == 1:
            gradient = conjugate.conj().resolve_conj()
            self._gradient = self._plus(self._gradient, angles, gradient)
        elif kernels.usable(self.field[:, angles]):
            self._gather_compiled(conjugate, k, angles)
        else:
            power = self._powers(k, angles)[0]
            own = conjugate.is_complex() and not conjugate.is_conj()
            self._gather(conjugate.mul_(power) if own else conjugate * power, k, angles)

    def pulled(self) -> Tensor | None:
        """Return the gradient of the spectrum from all that was taken in; None if nothing was."""
        radial, polar = self._radial, self._polar_gradient
        box = self.spectrum.shape[-2], self.spectrum.shape[-1]
        if kernels.usable(self.field) and (radial is not None or polar is not None):
            more = None if self._gradient is None else self._gradient.contiguous()
            radial = None if radial is None else radial.contiguous()
            compiled = kernels.slope_spectra(self.field, radial, polar, more, box)
            if compiled is not None:
                return compiled
        if radial is not None:
            if polar is None:
                polar = torch.complex(radial, torch.zeros_like(radial))
            else:
                polar.real.add_(radial)
        if polar is not None:
            polar = polar.mul_(self._polar[1])
            self._gradient = polar if self._gradient is None else polar.add_(self._gradient)
        if self._gradient is None:
            return None
        return to_spectrum(self._gradient, box)

    def _plus(self, known: Tensor | None, angles: slice, more: Tensor) -> Tensor:
        """Return ``known`` with ``more`` added at some angles; may keep ``more`` itself."""
        if known is None and more.shape == self.field.shape:
            return more.resolve_conj()
        if known is None:
            known = torch.zeros(self.field.shape, dtype=more.dtype, device=more.device)
        known[:, angles].add_(more)
        return known

    def _gather_compiled(self, conjugate: Tensor, k: int, angles: slice) -> None:
        """Do what :meth:`_gather` does, with ``conjugate`` times u^k."""
        z, known = self.field[:, angles], self._known(angles)
        gathered = kernels.add_polar(z, k, conjugate.to(z.dtype).contiguous(), known)
        if known is None:
            self._polar_gradient = gathered

    def _known(self, angles: slice) -> Tensor | None:
        """Return what is known of some angles' polar gradient; None: they are all, of nothing."""
        known, field = self._polar_gradient, self.field
        if known is None and field[:, angles].shape != field.shape:
            self._polar_gradient = known = torch.zeros_like(field)
        return None if known is None else known[:, angles]

    def _gather(self, p: Tensor, k: int, angles: slice) -> None:
        """Add ``Re p - i k Im p``, one pass over memory with p seen as rows of real numbers."""
        rows = torch.view_as_real(p).flatten(-2)
        weights = rows.new_ones(rows.shape[-1])
        weights[1::2] = -k  # made on the device: a copy to it would wait for all that runs
        if self._polar_gradient is None and p.shape == self.field.shape:
            rows.mul_(weights)
            self._polar_gradient = p
            return
        if self._polar_gradient is None:
            self._polar_gradient = torch.zeros_like(self.field)
        known = torch.view_as_real(self._polar_gradient[:, angles]).flatten(-2)
        known.addcmul_(rows, weights)

    @cached_property
    def _polar(self) -> tuple[Tensor, Tensor]:
        """The modulus r, and u; both 0 where z is."""
        real, imaginary = self.field.real, self.field.imag
        square = (real * real).addcmul_(imaginary, imaginary)
        inverse = square.clamp_min(torch.finfo(square.dtype).tiny).rsqrt_()
        return square.mul_(inverse), self.field * inverse

    def _powers(self, k: int, angles: slice) -> tuple[Tensor, Tensor]:
        """Return u^k and [z]^k, k >= 1, from those of k // 2, often those of the last call."""
        unit = self._polar[1][:, angles]
        if k == 1:
            return unit, self.field[:, angles]
        if self._last is None or self._last[:2] != (k, angles):
            half = self._powers(k // 2, angles)
            power, harmonic = half[0] * half[0], half[1] * half[0]
            if k % 2:
                power, harmonic = power * unit, harmonic * unit
            self._last = (k, angles, power, harmonic)
        return self._last[2:]
