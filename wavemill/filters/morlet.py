"""Morlet wavelets of the plane, zero-mean oscillations under an elongated Gaussian.

    psi_{j,l}(u) = s / (2 pi sigma^2) exp(-(u_a^2 + s^2 u_b^2) / 2 sigma^2) (e^{i xi u_a} - beta) ,

``u_a = u_y cos theta + u_x sin theta`` along the oscillation and ``u_b`` across it;
sigma = 0.8 2^j, xi = (3 pi / 4) 2^-j, slant s = 4 / L, theta_l = (floor(L/2) - 1 - l) pi / L for
l = 0..L-1 (0 if L = 1), and beta such that the sum over samples is zero. The low pass phi_J is the
isotropic Gaussian of sigma = 0.8 2^(J-1) and unit sum.

Sampling in space makes the transform periodic, so it is the sum of the plane's closed form over all
frequencies that alias onto one another; the grid's periodicity samples that transform. Narrow
wavelets are sampled in space instead, where they have fewer points, and transformed. Both are
exact, to rounding. Everything is real float64 in the Fourier domain, on the unshifted grid
``w = 2 pi (n_y / N_y, n_x / N_x)``, transform of sign ``-i w u``, unnormalised.

Source: Bruna and Mallat, *Invariant scattering convolution networks*, IEEE TPAMI 35, 1872 (2013);
the constants are those of Andreux et al., *Kymatio*, JMLR 21, 60 (2020), whose code writes pi as
3.1415.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from wavemill.devices import beside_default
from wavemill.errors import InvalidParameter

_REACH = 9.0  # standard deviations kept: exp(-9^2 / 2) = 3e-18


@beside_default
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
    return torch.stack([wavelets_at(shape, j, L) for j in range(J)])


@beside_default
def wavelets_at(shape: tuple[int, int], j: int, L: int) -> Tensor:
    """Return the transforms ``(l, y, x)`` at scale j."""
    return torch.stack([_wavelet(shape, j, _angle(q, L), 4 / L) for q in range(L)])


@beside_default
def low_pass(size: int, J: int) -> Tensor:
    """Return the transform ``(size,)`` of one factor of phi_J, which is separable."""
    sigma = 0.8 * 2.0 ** (J - 1)
    index = _window(0.0, _REACH / sigma, size)
    return _fold(torch.exp(-((sigma * 2 * math.pi / size * index) ** 2) / 2), index, size, 0)


def _angle(index: int, L: int) -> float:
    return (max(L // 2 - 1, 0) - index) * math.pi / L  # for L = 1 as in kymatio, which truncates


def _wavelet(shape: tuple[int, int], j: int, theta: float, slant: float) -> Tensor:
    """Return one transform, from whichever domain has fewer points to evaluate."""
    sigma, xi = 0.8 * 2.0**j, 0.75 * math.pi * 2.0**-j
    across = sigma / slant
    reach = _reach(sigma, across, theta), _reach(1 / sigma, 1 / across, theta)
    steps = [2 * math.pi / size for size in shape]
    if math.prod(reach[0]) < math.prod(r / step for r, step in zip(reach[1], steps, strict=True)):
        return _sampled(shape, reach[0], sigma, xi, theta, slant)
    centre = (xi * math.cos(theta), xi * math.sin(theta))
    wave = _gaussian(shape, centre, sigma, theta, slant)
    envelope = _gaussian(shape, (0.0, 0.0), sigma, theta, slant)
    return wave - wave[0, 0] / envelope[0, 0] * envelope


def _sampled(
    shape: tuple[int, int],
    reach: tuple[float, float],
    sigma: float,
    xi: float,
    theta: float,
    slant: float,
) -> Tensor:
    """Return the transform of the samples in space, made periodic."""
    y, x = (torch.arange(-math.ceil(r), math.ceil(r) + 1, dtype=torch.float64) for r in reach)
    a = y[:, None] * math.cos(theta) + x * math.sin(theta)
    b = x * math.cos(theta) - y[:, None] * math.sin(theta)
    envelope = torch.exp(-(a.square() + slant**2 * b.square()) / (2 * sigma**2))
    envelope = slant / (2 * math.pi * sigma**2) * envelope
    wave = torch.polar(envelope, xi * a)
    wave = wave - wave.sum() / envelope.sum() * envelope
    transform: Tensor = torch.fft.fft2(
        _fold(_fold(wave, y, shape[0], 0), x, shape[1], 1)
    ).real.clone()
    transform[0, 0] = 0  # it is 0 up to rounding
    return transform


def _reach(along: float, across: float, theta: float) -> tuple[float, float]:
    """Return how far from its centre, in y and in x, a turned Gaussian is not negligible."""
    cos, sin = math.cos(theta), math.sin(theta)
    return (
        _REACH * math.hypot(along * cos, across * sin),
        _REACH * math.hypot(along * sin, across * cos),
    )


def _gaussian(
    shape: tuple[int, int], centre: tuple[float, float], sigma: float, theta: float, slant: float
) -> Tensor:
    """Return the aliased transform of the envelope, moved to the frequency ``centre``."""
    along, across = 1 / sigma, slant / sigma  # standard deviations in frequency
    cos, sin = math.cos(theta), math.sin(theta)
    reach = _reach(along, across, theta)
    indices = [_window(*window) for window in zip(centre, reach, shape, strict=True)]
    y, x = (
        2 * math.pi / size * index - middle
        for size, index, middle in zip(shape, indices, centre, strict=True)
    )
    a = (y[:, None] * cos + x[None, :] * sin) / along
    b = (x[None, :] * cos - y[:, None] * sin) / across
    density = torch.exp(-(a.square() + b.square()) / 2)
    return _fold(_fold(density, indices[0], shape[0], 0), indices[1], shape[1], 1)


def _window(centre: float, reach: float, size: int) -> Tensor:
    """Return the frequency numbers, beyond one period too, where a Gaussian is not negligible."""
    step = 2 * math.pi / size
    first, last = (centre - reach) / step, (centre + reach) / step
    return torch.arange(math.floor(first), math.ceil(last) + 1, dtype=torch.float64)


def _fold(values: Tensor, index: Tensor, size: int, axis: int) -> Tensor:
    """Add up along ``axis`` what falls on the same frequency of the grid."""
    total = values.new_zeros([size if d == axis else n for d, n in enumerate(values.shape)])
    return total.index_add(axis, index.long() % size, values)
