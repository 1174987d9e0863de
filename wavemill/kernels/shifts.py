"""What ``shifts.c`` does: covariances of spectra or fields at a few shifts, and their gradients."""

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
        *addresses("chosen", "mean", "along", "across"),
    ]


def shifts_bytes(task: Shifts, dtype: torch.dtype, gradient: bool) -> int:
    """Return how many bytes the threads work in."""
    return call("shifts_bytes", dtype, task, gradient)


def means_at_shifts(first: Tensor, second: Tensor, task: Shifts, size: int) -> Tensor:
    """Return means of cross-spectra times waves, complex ``(field, mean)``."""
    out = first.new_empty(task.fields, task.means)
    call("shifts", first.dtype, first, second, task, out, room(size))
    return out


def add_gradients_at_shifts(
    spectra: tuple[Tensor, Tensor],
    task: Shifts,
    values: Tensor,
    gradients: tuple[Tensor, Tensor],
    fresh: tuple[bool, bool],
    size: int,
) -> None:
    """Add both stacks' gradients, from ``values`` of the means; where ``fresh``, overwrite."""
    written = task, values, *gradients, *fresh, room(size)
    call("shifts_gradients", values.dtype, *spectra, *written)
