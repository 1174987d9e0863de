"""What ``boxes.c`` does: transforms of which only a box of frequencies is given or wanted."""

from __future__ import annotations

import ctypes
import math
from functools import lru_cache

import torch
from torch import Tensor

from wavemill.kernels.loading import PAIR, call, numbers, precise, room, usable

Box = tuple[int, int]


class Boxes(ctypes.Structure):
    """Fields and boxes of their frequencies."""

    _fields_ = [
        *numbers("fields", "height", "width"),
        ("known", PAIR),
        ("kept", PAIR),
        ("complex", PAIR),
        *numbers("inverse", "half"),
    ]


def fourier(
    x: Tensor,
    shape: Box,
    box: Box,
    inverse: bool,
    part_real: bool = False,
    half: Box | None = None,
) -> Tensor | None:
    """Return the frequencies in ``box`` of the transform on a grid ``shape``, not normalised.

    ``x`` is ``(..., y, x)``: the whole grid, or a box outside which frequencies are 0, in the order
    of the FFT. Either ``x`` or the result is the whole grid. ``part_real`` gives only the real part
    of the transform of a complex ``x``, on the whole grid, at half the cost. For real fields,
    ``half`` is the box whose columns from 0 on are given or wanted. None where the loops cannot do
    it: on other devices, for sides with a prime factor above 67, in a graph of autograd.
    """
    real = x.dtype.to_real()
    if not usable(x) or not precise(real) or (x.requires_grad and torch.is_grad_enabled()):
        return None
    kinds = x.is_complex(), not part_real
    known = half if half and kinds[0] else (x.shape[-2], x.shape[-1])
    fields, threads = math.prod(x.shape[:-2]), torch.get_num_threads()
    task, size = _task(fields, shape, known, box, kinds, inverse, half is not None, real, threads)
    if size < 0:
        return None
    columns = box[1] // 2 + 1 if half and kinds[1] else box[1]
    dtype = real if part_real else real.to_complex()
    out = torch.empty(*x.shape[:-2], box[0], columns, dtype=dtype)
    call("boxes", real, x, task, out, room(size))
    return out


@lru_cache(maxsize=256)
def _task(
    fields: int,
    shape: Box,
    known: Box,
    kept: Box,
    kinds: tuple[bool, bool],
    inverse: bool,
    half: bool,
    dtype: torch.dtype,
    threads: int,
) -> tuple[Boxes, int]:
    """Return the loops' task, and how many bytes so many threads work in.

    ``kinds``: whether the fields before and after are complex.
    """
    task = Boxes(
        fields=fields,
        height=shape[0],
        width=shape[1],
        known=known,
        kept=kept,
        complex=kinds,
        inverse=inverse,
        half=half,
    )
    return task, call("boxes_bytes", dtype, task)
