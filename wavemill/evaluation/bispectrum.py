"""The binned bispectrum: which triangles of wavenumbers have related phases.

    b(a, c, d) = < x_a x_c x_d > / sqrt(< x_a^2 > < x_c^2 > < x_d^2 >) ,

with x_a the part of x whose wavenumbers lie in shell a. The mean over space of a product of three
parts is the sum of ``x^(k) x^(k') x^(k'')`` over the triangles k + k' + k'' = 0 with sides in those
shells. On average it vanishes for Gaussian fields, and for fields as likely as their negative.

Source: Scoccimarro, *The bispectrum: from theory to observations*, ApJ 544, 597 (2000), section 4.
"""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wavemill.devices import beside_default
from wavemill.errors import InvalidParameter
from wavemill.operators import check_whole, double, power_of_two, transformed


@beside_default
def shell_edges(shape: tuple[int, int], shells: int) -> NDArray[np.float64]:
    """Return edges of shells of equal ratio, in radians a sample, that hold every mode but 0."""
    check_whole(shells=shells)
    if shells < 1:
        raise InvalidParameter(f"wavenumbers go in 1 shell or more, got {shells}")
    lowest = 2 * math.pi / max(shape)
    highest = math.pi * math.sqrt(2)
    return np.geomspace(lowest * (1 - 1e-9), highest * (1 + 1e-9), shells + 1)


@beside_default
def triangles(shells: int) -> NDArray[np.int64]:
    """Return the triples ``(triple, 3)`` of shells a <= c <= d."""
    a, c, d = np.indices((shells,) * 3).reshape(3, -1)
    return np.column_stack([a, c, d])[(a <= c) & (c <= d)]


@beside_default
def bispectrum(x: Tensor, shells: int = 6, normalise: bool = True) -> Tensor:
    """Return b for the :func:`triangles` of shells of equal ratio.

    Parameters
    ----------
    x
        Real ``(..., y, x)`` on a periodic grid.
    shells
        Number of shells, from the lowest wavenumber to the corner of the spectral square.
    normalise
        Divide by the deviations of the parts; a part that holds only rounding error gives 0.

    Returns
    -------
    Tensor
        ``(..., triple)``, float64. Unnormalised values, each counted with its 1, 3 or 6
        permutations, add up to the third central moment. NaN for fields that hold one.

    Raises
    ------
    InvalidParameter
        If there is no shell.
    ShapeMismatch
        If ``x`` is not real.
    """
    field = double(x)
    unit = power_of_two(field.detach().abs().amax((-2, -1), keepdim=True))
    field = field / unit
    field = field - field.mean((-2, -1), keepdim=True)
    shape = (field.shape[-2], field.shape[-1])
    x_hat = transformed(torch.fft.rfft2, field)
    radius = _radius(shape).to(field.device)
    edges = shell_edges(shape, shells)
    masks = [(radius >= low) & (radius < high) for low, high in pairwise(edges)]
    parts = [transformed(torch.fft.irfft2, x_hat * mask, s=shape) for mask in masks]
    deviations = [part.square().mean((-2, -1)).sqrt() for part in parts]
    floor = 1e-12 * field.square().mean((-2, -1)).sqrt()
    values = []
    for a, c, d in triangles(shells).tolist():
        value = (parts[a] * parts[c] * parts[d]).mean((-2, -1))
        if normalise:
            size = deviations[a] * deviations[c] * deviations[d]
            least = torch.stack([deviations[i] for i in (a, c, d)]).amin(0)
            value = torch.where(least <= floor, 0.0, value / size.clamp(min=1e-300))
        values.append(value)
    if not normalise:
        values = [value * unit[..., 0, 0] ** 3 for value in values]
    return torch.stack(values, dim=-1)


def _radius(shape: tuple[int, int]) -> Tensor:
    ky = 2 * math.pi * torch.fft.fftfreq(shape[0], dtype=torch.float64)
    kx = 2 * math.pi * torch.fft.rfftfreq(shape[1], dtype=torch.float64)
    return torch.hypot(ky[:, None], kx)
