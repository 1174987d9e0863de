"""What ``scattering.c`` does: orders 1 and 2 of a scattering transform, and their gradient."""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from wavemill.kernels.loading import addresses, call, numbers, room


class Average(ctypes.Structure):
    """An average along one axis."""

    _fields_ = [*numbers("first", "step", "count", "length"), *addresses("weights")]


class Bank(ctypes.Structure):
    """Filters and the blocks of a spectrum that they reach: a :class:`.FoldedBank`."""

    _fields_ = [
        *addresses("values", "reached"),
        *numbers("places", "terms", "rows", "columns"),
    ]


class Scattering(ctypes.Structure):
    """A scattering transform."""

    _fields_ = [
        *numbers("images", "height", "width", "J", "L", "phases", "order", "coefficients"),
        *addresses("first", "second", "averages"),
    ]


def scattering_bytes(task: Scattering, dtype: torch.dtype, gradient: bool) -> int:
    """Return how many bytes the threads work in, -1 for sides with a prime factor above 67."""
    return call("scattering_bytes", dtype, task, gradient)


def scatter(
    spectra: Tensor, task: Scattering, out: Tensor, gradients: Tensor | None = None
) -> None:
    """Write coefficients into ``out``; or write ``gradients`` of spectra, from those in ``out``."""
    size = scattering_bytes(task, out.dtype, gradients is not None)
    values = torch.view_as_real(spectra)
    if not call("scattering", out.dtype, values, task, out, gradients, room(size)):
        raise MemoryError("no memory for a scattering transform")
