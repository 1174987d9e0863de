"""The wavelet transform of real planar fields, exactly invertible and preserving energy.

    W x = (x * phi_J, x * psi_lambda) ,   |W x|^2 = |x|^2 ,   x = W^T W x ,

for a bank divided, frequency by frequency, by the square root of its Littlewood-Paley sum

    A(w) = |phi^(w)|^2 + sum over lambda of (|psi^_lambda(w)|^2 + |psi^_lambda(-w)|^2) / 2 .

The grid is periodic and nothing is subsampled. Transforms have sign ``-i w u``.

Source: Mallat, *A Wavelet Tour of Signal Processing*, 3rd ed., section 5.2 (translation-invariant
frames).
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from wavemill.errors import ShapeMismatch
from wavemill.filters import bump_steerable, morlet

Family = Literal["bump-steerable", "morlet"]


def littlewood_paley(psi: Tensor, phi: Tensor) -> Tensor:
    """Return A(w) ``(y, x)`` for real x.

    Parameters
    ----------
    psi
        Real transforms of all wavelets, ``(..., y, x)``.
    phi
        Real transform of the low pass, ``(y, x)``.
    """
    energy = psi.square().flatten(0, -3).sum(0)
    mirrored = energy.flip(-2, -1).roll((1, 1), (-2, -1))  # at -w
    return phi.square() + (energy + mirrored) / 2


class WaveletTransform(nn.Module):
    """A Parseval frame of wavelets: ``W.inverse(*W(x))`` is x.

    Parameters
    ----------
    shape
        Grid ``(y, x)``, periodic; sizes may be odd and unequal.
    J, L
        Scales, and angles in a half turn.
    family
        ``"bump-steerable"``: 2L angles of the circle; ``"morlet"``: L angles of the half turn.
    dtype
        Real precision.
    """

    _psi: Tensor
    _phi: Tensor

    def __init__(
        self,
        shape: tuple[int, int],
        J: int = 4,
        L: int = 8,
        family: Family = "bump-steerable",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        self.shape, self.dtype = shape, dtype
        psi, phi = _bank(family, shape, J, L)
        norm = littlewood_paley(psi, phi).sqrt()
        self.register_buffer("_psi", (psi / norm).to(dtype), False)
        self.register_buffer("_phi", (phi / norm).to(dtype), False)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the low pass ``(..., y, x)``, real, and the bands ``(..., j, l, y, x)``, complex.

        Raises
        ------
        ShapeMismatch
            If ``x`` is not real ``(..., y, x)`` on the transform's grid.
        """
        if x.is_complex() or tuple(x.shape[-2:]) != self.shape:
            raise ShapeMismatch(
                f"the wavelets were built for real fields (..., {self.shape[0]}, "
                f"{self.shape[1]}), got {x.dtype} of shape {tuple(x.shape)}"
            )
        if self._phi.device != x.device:
            self.to(x.device)
        x_hat = torch.fft.fft2(x.to(self.dtype))
        low = torch.fft.ifft2(x_hat * self._phi).real
        return low, torch.fft.ifft2(x_hat[..., None, None, :, :] * self._psi)

    def inverse(self, low: Tensor, bands: Tensor) -> Tensor:
        """Return ``W^T (low, bands)``, real ``(..., y, x)``: the field they are the transform of.

        Coefficients that no field has are projected onto those that one has.
        """
        x_hat = torch.fft.fft2(low) * self._phi
        x_hat = x_hat + (torch.fft.fft2(bands) * self._psi).sum((-4, -3))
        x: Tensor = torch.fft.ifft2(x_hat).real
        return x


def _bank(family: Family, shape: tuple[int, int], J: int, L: int) -> tuple[Tensor, Tensor]:
    if family == "morlet":
        low = [morlet.low_pass(size, J) for size in shape]
        return morlet.wavelets(shape, J, L), low[0][:, None] * low[1][None, :]
    width = bump_steerable.low_pass_width(J)
    return bump_steerable.wavelets(shape, J, L), bump_steerable.low_pass(shape, width)
