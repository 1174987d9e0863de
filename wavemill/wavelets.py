"""The wavelet transform of real planar fields, exactly invertible and preserving energy.

    W x = (x * phi_J, x * psi_lambda) ,   |W x|^2 = |x|^2 ,   x = W^T W x ,

for a bank divided, frequency by frequency, by the square root of its Littlewood-Paley sum

    A(w) = |phi^(w)|^2 + sum over lambda of (|psi^_lambda(w)|^2 + |psi^_lambda(-w)|^2) / 2 .

The grid is periodic and nothing is subsampled. Transforms have sign ``-i w u``.

Source: Mallat, *A Wavelet Tour of Signal Processing*, 3rd ed., section 5.2 (translation-invariant
frames).
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from wavemill.errors import InvalidParameter, ShapeMismatch
from wavemill.filters import bump_steerable, morlet
from wavemill.operators import FieldOperator, check_whole, keep_buffer, mirror, transformed

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
    return phi.square() + (energy + mirror(energy)) / 2


class WaveletTransform(FieldOperator):
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

    Raises
    ------
    InvalidParameter
        If J or L is below 1, or the family is unknown.
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
        super().__init__(shape, dtype)
        check_whole(J=J, L=L)
        self.J, self.L, self.family = J, L, family
        self._prepare()

    def _prepare(self) -> None:
        psi, phi = _bank(self.family, self.shape, self.J, self.L)
        norm = littlewood_paley(psi, phi).sqrt()
        keep_buffer(self, "_psi", (psi / norm).to(self.dtype))
        keep_buffer(self, "_phi", (phi / norm).to(self.dtype))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the low pass ``(..., y, x)``, real, and the bands ``(..., j, l, y, x)``, complex.

        Raises
        ------
        ShapeMismatch
            If ``x`` is not real ``(..., y, x)`` on the transform's grid.
        """
        x_hat = transformed(torch.fft.fft2, self._checked(x))
        low = transformed(torch.fft.ifft2, x_hat * self._phi).real
        return low, transformed(torch.fft.ifft2, x_hat[..., None, None, :, :] * self._psi)

    def low_pass(self, x: Tensor) -> Tensor:
        """Return the low pass alone, real ``(..., y, x)``."""
        x_hat = transformed(torch.fft.fft2, self._checked(x))
        return transformed(torch.fft.ifft2, x_hat * self._phi).real

    def inverse(self, low: Tensor, bands: Tensor) -> Tensor:
        """Return ``W^T (low, bands)``, real ``(..., y, x)``: the field whose transform these are.

        Coefficients that no field has are projected onto those of a field.

        Raises
        ------
        ShapeMismatch
            If these are not the shapes that the transform returns.
        """
        if bands.shape[-4:] != self._psi.shape or not bands.is_complex():
            raise ShapeMismatch(
                f"the inverse takes complex bands (..., {', '.join(map(str, self._psi.shape))}), "
                f"got {bands.dtype} of shape {tuple(bands.shape)}"
            )
        x_hat = transformed(torch.fft.fft2, self._checked(low)) * self._phi
        waves = transformed(torch.fft.fft2, bands.to(x_hat.dtype)) * self._psi
        return transformed(torch.fft.ifft2, x_hat + waves.sum((-4, -3))).real


def _bank(family: Family, shape: tuple[int, int], J: int, L: int) -> tuple[Tensor, Tensor]:
    if family not in get_args(Family):
        raise InvalidParameter(
            f"family must be one of {', '.join(get_args(Family))}, got {family!r}"
        )
    if family == "morlet":
        low = [morlet.low_pass(size, J) for size in shape]
        return morlet.wavelets(shape, J, L), low[0][:, None] * low[1][None, :]
    width = bump_steerable.low_pass_width(J)
    return bump_steerable.wavelets(shape, J, L), bump_steerable.low_pass(shape, width)
