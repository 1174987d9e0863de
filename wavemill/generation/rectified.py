"""Rectified wavelet coefficients of fields: their exact linear inverse, and their averages.

    U x = (x * phi_J ,  rho(Re(e^{i alpha_a} x * psi_{j,l}))) ,   alpha_a = 2 pi a / A ,

for the Parseval frame W of :mod:`wavemill.wavelets`. A being even, the coefficients are linear in
the phases, ``x * psi = (4 / A) sum_a e^{-i alpha_a} U_a``, and W has the inverse W^T:

    U^-1 (low, U) = W^T (low, (4 / A) sum_a e^{-i alpha_a} U_a) ,   U^-1 U = I .

Averages sample x * phi_J, and the rectified bands blurred by the Gaussian of phi_J, every 2^J
points.

Source: Mallat, *Mathematical mysteries of deep neural networks* (lecture, 2019); Mallat, Zhang and
Rochette, *Phase harmonic correlations and convolutional neural networks*, Information and Inference
9, 721 (2020).
"""

from __future__ import annotations

import torch
from torch import Tensor

from wavemill.errors import InvalidParameter
from wavemill.filters import morlet
from wavemill.harmonics import inverse_rectifier, rectify
from wavemill.operators import FieldOperator, keep_buffer
from wavemill.wavelets import Family, WaveletTransform


class RectifiedWavelets(FieldOperator):
    """U, its inverse, and its averages, of real fields on a periodic grid.

    Parameters
    ----------
    shape
        Grid ``(y, x)``, multiples of 2^J.
    J, L
        Scales, and angles in a half turn.
    A
        Phases, even and at least 4.
    family
        Family of wavelets, as in :class:`~wavemill.wavelets.WaveletTransform`.
    dtype
        Real precision.

    Raises
    ------
    InvalidParameter
        If A is odd or below 4, or the grid is not a multiple of 2^J.
    """

    _rows: Tensor
    _columns: Tensor

    def __init__(
        self,
        shape: tuple[int, int],
        J: int = 4,
        L: int = 4,
        A: int = 4,
        family: Family = "morlet",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__(shape, dtype)
        if A < 4 or A % 2:
            raise InvalidParameter(f"the inverse needs an even number of phases A >= 4, got A={A}")
        check_grid(shape, J)
        self.J, self.A = J, A
        self.W = WaveletTransform(self.shape, J, L, family, dtype)
        self._prepare()

    def _prepare(self) -> None:
        rows, columns = (_blur(size, self.J) for size in self.shape)
        keep_buffer(self, "_rows", rows.to(self.dtype))
        keep_buffer(self, "_columns", columns.to(self.dtype))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the low pass ``(..., y, x)`` and the rectified bands ``(..., j, l, a, y, x)``."""
        low, bands = self.W(self._checked(x))
        return low, rectify(bands, self.A, -3)

    def inverse(self, low: Tensor, rectified: Tensor) -> Tensor:
        """Return ``U^-1``, real ``(..., y, x)``: linear, also in coefficients that no field has."""
        return self.W.inverse(low, inverse_rectifier(rectified.movedim(-3, -1)))

    def averages(self, x: Tensor) -> Tensor:
        """Return ``(..., channel, y / 2^J, x / 2^J)``, x * phi_J first, then ``(j, l, a)``."""
        low, rectified = self(x)
        blurred = self._rows @ (rectified @ self._columns.T)
        return torch.cat([self.sample(low)[..., None, :, :], blurred.flatten(-5, -3)], -3)

    def low_pass(self, x: Tensor) -> Tensor:
        """Return the samples of x * phi_J alone, ``(..., y / 2^J, x / 2^J)``: linear in x."""
        return self.sample(self.W.low_pass(x))

    def sample(self, low: Tensor) -> Tensor:
        """Return every 2^J-th point along both axes."""
        step = 2**self.J
        return low[..., ::step, ::step]


def check_grid(shape: tuple[int, int], J: int) -> None:
    """Refuse a grid that cannot be sampled every 2^J points, and say which can."""
    step = 2**J
    if any(size % step for size in shape):
        even = min((size & -size).bit_length() - 1 for size in shape)
        crop = min(shape) // step * step
        cut = f", cut samples into squares (crop={crop})" if crop else ""
        raise InvalidParameter(
            f"the grid {tuple(shape)} must be of multiples of 2^J={step}: lower J (J={even} is "
            f"possible){cut}, or give images another size when they are read"
        )


def _blur(size: int, J: int) -> Tensor:
    """Return the Gaussian of phi_J about every 2^J-th point, as a matrix ``(size / 2^J, size)``."""
    kernel = torch.fft.ifft(morlet.low_pass(size, J)).real
    step = 2**J
    return torch.stack([kernel.roll(step * place) for place in range(size // step)])
