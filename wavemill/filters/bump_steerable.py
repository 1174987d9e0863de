"""Bump steerable wavelets of the plane, compact in frequency and exact partitions in angle.

    psi^_{j,q}(w) = c exp(1 - 1/(1 - v^2)) [|v| < 1] cos^{L-1}(arg w - pi q / L)_+ ,
    v = 2^j |w| / xi0 - 1 ,   xi0 = 0.85 pi ,   c = (L-1)! 2^{L-1} / (1.29 sqrt(L (2L-2)!)) ,

made 2 pi periodic in both components of w by a sum over one period on each side. Angles
``q = 0..2L-1`` cover the circle: ``psi_{j,q+L}`` is ``psi_{j,q}`` turned by pi, so that for a real
field the two responses are conjugate. The low pass is a Gaussian of the plane.

Everything is in the Fourier domain, real float64, on the unshifted frequency grid
``w = 2 pi (n_y / N_y, n_x / N_x)``; arg w = atan2(w_y, w_x): q = 0 is along +x, q = L/2 along +y.

Source: Mallat, Zhang and Rochette, *Phase harmonic correlations and convolutional neural
networks*, Information and Inference 9, 721 (2020), appendix; Zhang and Mallat, *Maximum entropy
models from phase harmonic covariances*, ACHA 53, 199 (2021).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from wavemill.devices import beside_default
from wavemill.errors import InvalidParameter

CENTRE = 0.85 * math.pi  # xi0, radians a sample: central wavenumber of the finest scale
_PERIODS = (-1, 0, 1)  # the support of psi_0 reaches 1.7 pi, within the neighbouring periods


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
        ``(J, 2L, y, x)``, real float64.

    Raises
    ------
    InvalidParameter
        If J or L is below 1 or an axis is shorter than 2.
    """
    check_bank(shape, J, L)
    return torch.stack([wavelets_at(shape, j, range(2 * L), L) for j in range(J)])


@beside_default
def wavelets_at(shape: tuple[int, int], j: int, angles: range | list[int], L: int) -> Tensor:
    """Return the transforms ``(angle, y, x)`` at scale j for the angle indices q in ``angles``."""
    total = torch.zeros((len(angles), *shape), dtype=torch.float64)
    for period_y in _PERIODS:
        for period_x in _PERIODS:
            radius, direction = _polar(shape, period_y, period_x)
            radial = _bump(radius * 2.0**j / CENTRE - 1)
            if not radial.any():
                continue
            for row, q in enumerate(angles):
                lobe = torch.cos(direction - math.pi * q / L)
                total[row] += radial * torch.where(lobe > 0, lobe, 0.0).pow(L - 1)
    return _amplitude(L) * total


@beside_default
def low_pass(shape: tuple[int, int], sigma: float) -> Tensor:
    """Return the transform ``(y, x)`` of the Gaussian of the plane of width ``sigma`` samples.

    exp(-|u|^2 / 2 sigma^2) / (2 pi sigma^2) is sampled and summed over one spatial period on each
    side, without renormalisation: its transform at w = 0 is 1 up to sampling and truncation.
    """
    profiles = [_gaussian_profile(size, sigma) for size in shape]
    density = profiles[0][:, None] * profiles[1][None, :] / (2 * math.pi * sigma**2)
    transform: Tensor = torch.fft.fft2(density).real.clone()
    return transform


def low_pass_width(J: int) -> float:
    """Return the width in samples of phi_J, ``2^(J-1) / (0.702 2^-0.55 sqrt(2) xi0)``."""
    return float(2.0 ** (J - 1) / (0.702 * 2.0**-0.55 * math.sqrt(2) * CENTRE))


def check_bank(shape: tuple[int, int], J: int, L: int) -> None:
    """Refuse a bank that cannot be built."""
    if J < 1 or L < 1:
        raise InvalidParameter(f"bump steerable wavelets need J >= 1 and L >= 1, got J={J}, L={L}")
    if min(shape) < 2:
        raise InvalidParameter(f"bump steerable wavelets need 2 points an axis, got shape {shape}")


def _polar(shape: tuple[int, int], period_y: int, period_x: int) -> tuple[Tensor, Tensor]:
    """Return |w| and arg w of the frequency grid moved by whole periods."""
    wy, wx = (
        2 * math.pi * (torch.fft.fftfreq(size, dtype=torch.float64) + period)
        for size, period in zip(shape, (period_y, period_x), strict=True)
    )
    grid_y, grid_x = torch.meshgrid(wy, wx, indexing="ij")
    return torch.hypot(grid_y, grid_x), torch.atan2(grid_y, grid_x)


def _bump(v: Tensor) -> Tensor:
    inside = v.abs() < 1
    return torch.where(inside, torch.exp(1 - 1 / (1 - torch.where(inside, v, 0.0) ** 2)), 0.0)


def _amplitude(L: int) -> float:
    angular = math.sqrt(L * math.comb(2 * L - 2, L - 1)) / 2.0 ** (L - 1)
    return 1 / (1.29 * angular)


def _gaussian_profile(size: int, sigma: float) -> Tensor:
    index = torch.fft.fftfreq(size, 1 / size, dtype=torch.float64)  # -N/2 .. N/2, unshifted
    terms = [torch.exp(-((index + size * period) ** 2) / (2 * sigma**2)) for period in _PERIODS]
    return torch.stack(terms).sum(0)
