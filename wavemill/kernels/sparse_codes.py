"""What ``sparse_codes.c`` does: sparse codes by thresholding, and their gradients."""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from wavemill.kernels.loading import call, numbers


class Coding(ctypes.Structure):
    """Sizes of sparse codes."""

    _fields_ = numbers("rows", "channels", "atoms", "iterations", "positive")


def istc(analysed: Tensor, M: Tensor, thresholds: Tensor, sizes: Coding) -> Tensor:
    """Return codes ``(row, atom)`` from ``W^T beta``, ``M = I - D^T W`` and the thresholds."""
    if sizes.iterations != thresholds.numel() or not thresholds.numel():
        raise ValueError(f"{sizes.iterations} iterations by {thresholds.numel()} thresholds")
    codes = torch.zeros_like(analysed)
    if not call("istc", analysed.dtype, analysed, M, thresholds, sizes, codes):
        raise MemoryError("no memory for sparse codes")
    return codes


def istc_gradients(
    analysed: Tensor, tables: tuple[Tensor, ...], gradient: Tensor, sizes: Coding
) -> tuple[Tensor, ...]:
    """Return gradients of beta, W and D ``(atom, channel)``, and the thresholds.

    ``tables`` are beta, M, D and W by atoms, and the thresholds. Every thread has sums of its own,
    which are added in a fixed order.
    """
    beta, threads = tables[0], torch.get_num_threads()
    whole = (threads, sizes.atoms, sizes.channels)
    made = [torch.zeros_like(beta), *(beta.new_zeros(whole) for _ in "WD")]
    made.append(beta.new_zeros(threads, sizes.iterations))
    dtype = analysed.dtype
    if not call("istc_gradients", dtype, analysed, *tables, gradient, sizes, *made):
        raise MemoryError("no memory for the gradients of sparse codes")
    return made[0], *(value.sum(0) for value in made[1:])
