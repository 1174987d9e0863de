"""Derivatives of gridded fields: spectral on periodic grids, finite differences elsewhere.

Axes end in ``(y, x)``; row index increases with y and column index with x. Vectors put their
component before them, ``(..., 2, y, x)``, ordered (along x, along y). Grid spacing is one number,
or ``(dy, dx)``. Everything is computed in float64 and returned in the input's dtype.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from wavemill.devices import beside_default
from wavemill.errors import InvalidParameter, ShapeMismatch
from wavemill.operators import must_be_tensor, transformed

Spacing = float | tuple[float, float]


@beside_default
def gradient(field: Tensor, spacing: Spacing = 1.0, periodic: bool = True) -> Tensor:
    """Differentiate a scalar along x and along y.

    Parameters
    ----------
    field
        Real, ``(..., y, x)``.
    spacing
        Distance between neighbours, one number or ``(dy, dx)``.
    periodic
        Whether the grid closes on itself, with period size times spacing.

    Returns
    -------
    Tensor
        ``(..., 2, y, x)``: (d/dx, d/dy), in units of the field over those of the spacing.

    Raises
    ------
    ShapeMismatch
        If the field is not a real array of two axes or more, or an axis has fewer than
        3 points and is not periodic.
    InvalidParameter
        If a spacing is not positive and finite.

    Notes
    -----
    Periodic: multiplication by ``i k`` of the discrete Fourier transform, exact for
    band-limited fields; the Nyquist wavenumber of an even size, whose derivative is not defined
    on the grid, gives 0 (Canuto, Hussaini, Quarteroni and Zang, *Spectral Methods*, 2006,
    section 2.1). Otherwise second-order centred differences, one-sided of second order at the
    edges (Fornberg, Math. Comp. 51, 699, 1988, tables 1 and 3).
    """
    dy, dx = _steps(spacing)
    along_x = _derivative(field, -1, dx, periodic)
    along_y = _derivative(field, -2, dy, periodic)
    return torch.stack([along_x, along_y], dim=-3).to(field.dtype)


@beside_default
def vorticity(velocity: Tensor, spacing: Spacing = 1.0, periodic: bool = True) -> Tensor:
    """Return dv/dx - du/dy of a plane velocity, positive when turning from x to y.

    Parameters
    ----------
    velocity
        Real, ``(..., 2, y, x)``: (u along x, v along y).
    spacing, periodic
        As in :func:`gradient`, whose methods and errors these are.

    Returns
    -------
    Tensor
        ``(..., y, x)``, in units of velocity over those of the spacing.
    """
    dy, dx = _steps(spacing)
    u, v = _components(velocity)
    turning = _derivative(v, -1, dx, periodic) - _derivative(u, -2, dy, periodic)
    return turning.to(velocity.dtype)


@beside_default
def divergence(vector: Tensor, spacing: Spacing = 1.0, periodic: bool = True) -> Tensor:
    """Return du/dx + dv/dy of a plane vector field.

    Parameters
    ----------
    vector
        Real, ``(..., 2, y, x)``: (along x, along y).
    spacing, periodic
        As in :func:`gradient`, whose methods and errors these are.

    Returns
    -------
    Tensor
        ``(..., y, x)``, in units of the vector over those of the spacing.
    """
    dy, dx = _steps(spacing)
    u, v = _components(vector)
    outflow = _derivative(u, -1, dx, periodic) + _derivative(v, -2, dy, periodic)
    return outflow.to(vector.dtype)


def _steps(spacing: Spacing) -> tuple[float, float]:
    dy, dx = spacing if isinstance(spacing, tuple) else (spacing, spacing)
    if not all(math.isfinite(step) and step > 0 for step in (dy, dx)):
        raise InvalidParameter(f"grid spacing (dy, dx) = {(dy, dx)} must be positive and finite")
    return dy, dx


def _components(vector: Tensor) -> tuple[Tensor, Tensor]:
    must_be_tensor(vector)
    if vector.ndim < 3 or vector.shape[-3] != 2:
        raise ShapeMismatch(
            f"a plane vector field is (..., 2, y, x), got {tuple(vector.shape)}; "
            "move its component axis before the two of the grid"
        )
    return vector[..., 0, :, :], vector[..., 1, :, :]


def _derivative(field: Tensor, axis: int, step: float, periodic: bool) -> Tensor:
    must_be_tensor(field)
    if field.ndim < 2 or not field.is_floating_point():
        raise ShapeMismatch(
            f"expected a real floating-point field (..., y, x), got {field.dtype} "
            f"of shape {tuple(field.shape)}"
        )
    field = field.to(torch.float64)
    return _spectral(field, axis, step) if periodic else _centred(field, axis, step)


def _spectral(field: Tensor, axis: int, step: float) -> Tensor:
    size = field.shape[axis]
    wavenumber = torch.fft.rfftfreq(size, step, dtype=torch.float64, device=field.device)
    if size % 2 == 0:
        wavenumber[-1] = 0  # the sine of the Nyquist wave vanishes at every point of the grid
    factor = (2j * math.pi * wavenumber).unflatten(0, (-1,) + (1,) * (-axis - 1))
    spectrum = factor * transformed(torch.fft.rfft, field, dim=axis)
    return transformed(torch.fft.irfft, spectrum, n=size, dim=axis)


def _centred(field: Tensor, axis: int, step: float) -> Tensor:
    if field.shape[axis] < 3:
        raise ShapeMismatch(
            f"finite differences need 3 points on an axis, got shape {tuple(field.shape)}"
        )
    return torch.gradient(field, spacing=step, dim=axis, edge_order=2)[0]
