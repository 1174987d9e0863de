"""What ``products.c`` does: covariances of stacks with one other, and their gradients."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

from wavemill.kernels.loading import Argument, addresses, call, numbers, room

_BLOCK = 4


class Covariances(ctypes.Structure):
    """What is made of products: tables that must outlive this."""

    _fields_ = [*numbers("count"), *addresses("places", "weights", "signs", "last_signs")]


class _Products(ctypes.Structure):
    """Stacks that meet the last of them in a box."""

    _fields_ = [*numbers("fields", "rows", "columns", "stacks"), *addresses("stack")]


def parts(channels: int, real: bool) -> int:
    """Return how many rows or columns a stack has among products: its parts, in whole blocks."""
    return -(channels * (1 if real else 2) // -_BLOCK) * _BLOCK


def products(
    stacks: Sequence[Tensor],
    box: tuple[int, int],
    wanted: Covariances,
    slopes: tuple[Tensor, Tensor] | None = None,
    gradients: Sequence[Tensor] = (),
    fresh: Sequence[bool] = (),
) -> Tensor:
    """Return covariances ``(field, row)`` made of sums, over a box, of products of parts.

    With slopes, add the gradients of the stacks; where ``fresh``, overwrite. They are those of a
    loss with the gradient ``factor c - offset`` by c, of ``(1, row, 2)`` and ``(field or 1, row,
    2)``.

    Stacks are ``(field, channel, y, x)``, spectra in the order of the FFT. Parts of a complex
    channel are its real and its imaginary part, one after the other; a real one is its own. Those
    of all stacks but the last follow each other, each stack's being :func:`parts`, and each meets
    those of the last.
    """
    task, size, _ = _task(*_sizes(stacks), box, torch.get_num_threads())
    kind = stacks[0].dtype.to_complex()
    out = stacks[0].new_empty(len(stacks[0]), wanted.count, dtype=kind)
    given: tuple[Argument, ...] = None, None, 0, None, None
    if slopes is not None:
        factor, offset = slopes
        step = offset.stride(0) if len(offset) > 1 else 0
        written = _pointers(gradients), torch.tensor(fresh, dtype=torch.int64, device="cpu")
        given = factor, offset, step, *written
    call("products", out.dtype, _pointers(stacks), task, wanted, out, *given, room(size))
    return out


def _pointers(tensors: Sequence[Tensor]) -> Tensor:
    return torch.tensor([tensor.data_ptr() for tensor in tensors], device="cpu")


def _sizes(stacks: Sequence[Tensor]) -> tuple[tuple[tuple[torch.Size, bool], ...], torch.dtype]:
    sizes = tuple((stack.shape, stack.is_complex()) for stack in stacks)
    return sizes, stacks[0].dtype.to_real()


@lru_cache(maxsize=256)
def _task(
    sizes: tuple[tuple[torch.Size, bool], ...],
    dtype: torch.dtype,
    box: tuple[int, int],
    threads: int,
) -> tuple[_Products, int, Tensor]:
    """Return the task, how many bytes so many threads work in, and what it points to."""
    boxes = [(shape[2], shape[3]) for shape, _ in sizes]
    if set(boxes) == {box}:  # all of it, in one line
        box = 1, box[0] * box[1]
        boxes = [box] * len(sizes)
    stack = torch.tensor(
        [(shape[1], kind, *own) for (shape, kind), own in zip(sizes, boxes, strict=True)],
        device="cpu",
    )
    task = _Products(sizes[0][0][0], *box, len(stack), stack.data_ptr())
    return task, call("products_bytes", dtype, task), stack
