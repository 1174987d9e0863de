"""Morlet wavelets of the plane, zero-mean oscillations under an elongated Gaussian.

    psi_{j,l}(u) = s / (2 pi sigma^2) exp(-(u_a^2 + s^2 u_b^2) / 2 sigma^2) (e^{i xi u_a} - beta) ,

``u_a = u_y cos theta + u_x sin theta`` along the oscillation and ``u_b`` across it;
sigma = 0.8 2^j, xi = (3 pi / 4) 2^-j, slant s = 4 / L, theta_l = (floor(L/2) - 1 - l) pi / L for
l = 0..L-1, and beta such that the sum over samples is zero. The low pass phi_J is the isotropic
Gaussian of sigma = 0.8 2^(J-1) and unit sum.

Sampling in space makes the transform periodic, so it is the sum of the plane's closed form over all
frequencies that alias onto one another; the grid's periodicity samples that transform. Both are
exact here, to a relative 1e-17. Everything is real float64 in the Fourier domain, on the unshifted
grid ``w = 2 pi (n_y / N_y, n_x / N_x)``, transform of sign ``-i w u``, unnormalised.

Source: Bruna and Mallat, *Invariant scattering convolution networks*, IEEE TPAMI 35, 1872 (2013);
the constants are those of Andreux et al., *Kymatio*, JMLR 21, 60 (2020), whose code writes pi as
3.1415.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from wavemill.errors import InvalidParameter

_REACH = 9.0  # standard deviations kept: exp(-9^2 / 2) = 3e-18


def wavelets(shape: tuple[int, int], J: int, L: int) -> Tensor:
    """Return the transforms of all wavelets.

    Parameters
    ----------
    shape
        Grid ``(y, x)``; sizes may be odd and unequal.
    J
        Scales ``j = 0..J-1``, one an octave.
    L
        Angles in a half turn.

    Returns
    -------
    Tensor
        ``(J, L, y, x)``, real float64.

    Raises
    ------
    InvalidParameter
        If J or L is below 1.
    """
    if J < 1 or L < 1:
        raise InvalidParameter(f"Morlet wavelets need J >= 1 and L >= 1, got J={J}, L={L}")
    bank = [_wavelet(shape, j, _angle(q, L), 4 / L) for j in range(J) for q in range(L)]
    return torch.stack(bank).reshape(J, L, *shape)


def low_pass(size: int, J: int) -> Tensor:
    """Return the transform ``(size,)`` of one factor of phi_J, which is separable."""
    sigma = 0.8 * 2.0 ** (J - 1)
    index = _window(0.0, 1 / sigma, size)
    return _fold(torch.exp(-((sigma * 2 * math.pi / size * index) ** 2) / 2), index, size, 0)


def _angle(index: int, L: int) -> float:
    return (L // 2 - 1 - index) * math.pi / L


def _wavelet(shape: tuple[int, int], j: int, theta: float, slant: float) -> Tensor:
    sigma, xi = 0.8 * 2.0**j, 0.75 * math.pi * 2.0**-j
    centre = (xi * math.cos(theta), xi * math.sin(theta))
    wave = _gaussian(shape, centre, sigma, theta, slant)
    envelope = _gaussian(shape, (0.0, 0.0), sigma, theta, slant)
    return wave - wave[0, 0] / envelope[0, 0] * envelope


def _gaussian(
    shape: tuple[int, int], centre: tuple[float, float], sigma: float, theta: float, slant: float
) -> Tensor:
    """Return the aliased transform of the envelope, moved to the frequency ``centre``."""
    along, across = 1 / sigma, slant / sigma  # standard deviations in frequency
    cos, sin = math.cos(theta), math.sin(theta)
    spreads = math.hypot(along * cos, across * sin), math.hypot(along * sin, across * cos)
    indices = [_window(*window) for window in zip(centre, spreads, shape, strict=True)]
    y, x = (
        2 * math.pi / size * index - middle
        for size, index, middle in zip(shape, indices, centre, strict=True)
    )
    a = (y[:, None] * cos + x[None, :] * sin) / along
    b = (x[None, :] * cos - y[:, None] * sin) / across
    density = torch.exp(-(a.square() + b.square()) / 2)
    return _fold(_fold(density, indices[0], shape[0], 0), indices[1], shape[1], 1)


def _window(centre: float, spread: float, size: int) -> Tensor:
    """Return the frequency numbers, beyond one period too, where a Gaussian is not negligible."""
    step = 2 * math.pi / size
    first, last = (centre - _REACH * spread) / step, (centre + _REACH * spread) / step
    return torch.arange(math.floor(first), math.ceil(last) + 1, dtype=torch.float64)


def _fold(values: Tensor, index: Tensor, size: int, axis: int) -> Tensor:
    """Add up along ``axis`` what falls on the same frequency of the grid."""
    total = values.new_zeros([size if d == axis else n for d, n in enumerate(values.shape)])
    return total.index_add(axis, index.long() % size, values)
