"""What ``shifts.c`` does: covariances of spectra or fields at a few shifts, and gradients."""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from wavemill.kernels.loading import PAIR, addresses, call, numbers, room


class Shifts(ctypes.Structure):
    """Pairs of spectra, and means at shifts."""

    _fields_ = [
        *numbers("fields", "pairs", "means", "waves", "rows", "columns"),
        ("channels", PAIR),
        ("boxes", 2 * PAIR),
        *numbers("alone"),
        ("plain", PAIR),
        *numbers("swapped"),
        *addresses("chosen", "mean", "along", "across"),
    ]


def shifts_bytes(task: Shifts, dtype: torch.dtype, gradient: bool) -> int:
    """Return how many bytes the threads work in."""
    return call("shifts_bytes", dtype, task, gradient)


def means_at_shifts(first: Tensor, second: Tensor, task: Shifts, size: int) -> Tensor:
    """Return means of cross-spectra times waves, complex ``(field, mean)``."""
    out = first.new_empty(task.fields, task.means)
    nothing = None, None, 0, None, None, False, False
    call("shifts", out.dtype, first, second, task, out, *nothing, room(size))
    return out


def differentiated_at_shifts(
    spectra: tuple[Tensor, Tensor],
    task: Shifts,
    slopes: tuple[Tensor, Tensor],
    gradients: tuple[Tensor, Tensor],
    fresh: tuple[bool, bool],
    size: int,
) -> Tensor:
    """Return the means c, and add both stacks' gradients; where ``fresh``, overwrite.

    They are those of a loss with the gradient ``factor c - offset`` by c, part by part, of slopes
    ``(1, mean, 2)`` and ``(field or 1, mean, 2)``.
    """
    out = spectra[0].new_empty(task.fields, task.means)
    factor, offset = slopes
    step = offset.stride(0) if len(offset) > 1 else 0
    written = factor, offset, step, *gradients, *fresh, room(size)
    call("shifts", out.dtype, *spectra, task, out, *written)
    return out
