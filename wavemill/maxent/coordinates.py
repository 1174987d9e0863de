"""Coordinates in which fields descend: octaves of little power move as readily as the others.

    x^(w) = K(w)^{1/2} y^(w) ,   K = P^{1/4} P / (P + f) ,

with P the references' isotropic spectrum. Moments are divided by each octave's power, so the
curvature of the loss goes as 1 / P, over many orders of magnitude for turbulence. L-BFGS, which
begins from one scale for all frequencies, needs many gradients to find that out. K = P would level
it, but slows whatever couples octaves; the exponent was chosen by experiment
(docs/design/003-maximum-entropy.md).

f is the power of thirty rounding units of the largest amplitude. Below it gradients are rounding
error, and the noise that descent begins from, which has the spectrum wanted, stays as it is.
"""

from __future__ import annotations

import torch
from torch import Tensor

from wavemill.spectra import shell_means

EXPONENT = 1 / 4
ROUNDINGS = 30.0  # of the largest amplitude
LEAST = 1e-10  # K^{1/2} at least, relative to its largest: references may have no power at all


class Coordinates:
    """The linear map from y to x and back, one for each component.

    Parameters
    ----------
    power
        ``(component, y, x/2 + 1)`` on the half plane of ``torch.fft.rfft2``, or None: y is x.
    shape
        Grid ``(y, x)``.
    dtype
        Precision of gradients.
    """

    def __init__(self, power: Tensor | None, shape: tuple[int, int], dtype: torch.dtype) -> None:
        self.shape, self.root = shape, None
        if power is not None:
            P = shell_means(power, shape)
            P[:, 0, 0] = P[:, 0, 1]  # the mean, which has no power, moves as its neighbours do
            largest = P.amax((-2, -1), keepdim=True)
            f = (ROUNDINGS * torch.finfo(dtype).eps) ** 2 * largest
            root = (P**EXPONENT * P / (P + f)).sqrt()
            self.root = root.clamp(min=LEAST * root.amax((-2, -1), keepdim=True))

    def field(self, y: Tensor) -> Tensor:
        """Return x ``(n, [component,] y, x)`` float64; or, from a gradient by x, the one by y."""
        return y if self.root is None else self._filtered(y, self.root)

    def of(self, x: Tensor) -> Tensor:
        """Return y."""
        return x if self.root is None else self._filtered(x, 1 / self.root)

    def _filtered(self, x: Tensor, response: Tensor) -> Tensor:
        if x.ndim == 3:
            response = response[0]
        # On a CPU field by field: no field's rounding depends on the others.
        parts = [x] if x.is_cuda else torch.split(x, 1)
        spectra = (torch.fft.rfft2(part.double()) * response for part in parts)
        return torch.cat([torch.fft.irfft2(spectrum, self.shape) for spectrum in spectra])
