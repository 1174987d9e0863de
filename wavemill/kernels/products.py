"""What ``products.c`` does: products of all channels of stacks with all of another."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

from wavemill.kernels.loading import addresses, call, numbers, room

_BLOCK = 4


class _Products(ctypes.Structure):
    """Stacks that meet the last of them in a box."""

    _fields_ = [*numbers("fields", "rows", "columns", "stacks"), *addresses("stack")]


def parts(channels: int, real: bool) -> int:
    """Return how many rows or columns a stack has among products: its parts, in whole blocks."""
    return -(channels * (1 if real else 2) // -_BLOCK) * _BLOCK


def products(stacks: Sequence[Tensor], box: tuple[int, int]) -> Tensor:
    """Return the sums over a box of products of parts, real ``(field, part, part of the last)``.

    Stacks are ``(field, channel, y, x)``, spectra in the order of the FFT. Parts of a complex
    channel are its real and its imaginary part, one after the other; a real one is its own. Those
    of all stacks but the last follow each other, each stack's being :func:`parts`.
    """
    task, size, _, shape = _task(*_sizes(stacks), box, torch.get_num_threads())
    out = torch.empty(len(stacks[0]), *shape, dtype=stacks[0].dtype.to_real())
    call("products", out.dtype, _pointers(stacks), task, out, room(size))
    return out


def add_gradients_of_products(
    stacks: Sequence[Tensor],
    box: tuple[int, int],
    matrices: tuple[Tensor, Tensor],
    gradients: Sequence[Tensor],
    fresh: Sequence[bool],
) -> None:
    """Add to gradients matrices times parts: of the last stack, and to its own of the others.

    Matrices are like :func:`products`, and, for the last, transposed. Where ``fresh``, the gradient
    is written.
    """
    task, size, _, _ = _task(*_sizes(stacks), box, torch.get_num_threads())
    each = [one.contiguous() for one in matrices]
    written = *each, _pointers(gradients), torch.tensor(fresh, dtype=torch.int64)
    call("products_gradients", each[0].dtype, _pointers(stacks), task, *written, room(size))


def _pointers(tensors: Sequence[Tensor]) -> Tensor:
    return torch.tensor([tensor.data_ptr() for tensor in tensors])


def _sizes(stacks: Sequence[Tensor]) -> tuple[tuple[tuple[torch.Size, bool], ...], torch.dtype]:
    sizes = tuple((stack.shape, stack.is_complex()) for stack in stacks)
    return sizes, stacks[0].dtype.to_real()


@lru_cache(maxsize=256)
def _task(
    sizes: tuple[tuple[torch.Size, bool], ...],
    dtype: torch.dtype,
    box: tuple[int, int],
    threads: int,
) -> tuple[_Products, int, Tensor, tuple[int, int]]:
    """Return the task, how many bytes so many threads work in, what it points to, and its shape."""
    boxes = [(shape[2], shape[3]) for shape, _ in sizes]
    if set(boxes) == {box}:  # all of it, in one line
        box = 1, box[0] * box[1]
        boxes = [box] * len(sizes)
    stack = torch.tensor(
        [(shape[1], kind, *own) for (shape, kind), own in zip(sizes, boxes, strict=True)]
    )
    task = _Products(sizes[0][0][0], *box, len(stack), stack.data_ptr())
    *others, last = (parts(shape[1], not kind) for shape, kind in sizes)
    return task, call("products_bytes", dtype, task), stack, (sum(others), last)
