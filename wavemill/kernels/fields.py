"""What ``fields.c`` does: harmonics, their gradients, and products with filters."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from wavemill.kernels.loading import call


def harmonics(z: Tensor, k: int) -> Tensor:
    """Return ``abs(z) (z / abs(z))^k`` for k >= 1, or the real modulus for k = 0."""
    out = torch.empty_like(z, dtype=z.dtype if k else z.dtype.to_real())
    call("harmonics", z.dtype, z, z.numel(), k, out)
    return out


def add_polar(z: Tensor, k: int, a: Tensor, known: Tensor | None) -> Tensor:
    """Return ``known + Re p - i k Im p`` of ``p = a (z / abs(z))^k``, known or none.

    ``a`` may be a tensor whose conjugation torch has put off.
    """
    out = torch.empty_like(z) if known is None else known
    call("polar", z.dtype, z, a, a.is_conj(), z.numel(), k, known is None, out)
    return out


def filtered(x: Tensor, filters: Tensor, back: bool) -> Tensor:
    """Return ``x (field, ...)`` times real ``filters (channel, ...)``; ``back``: the transpose."""
    channels, *sizes = filters.shape
    out = x.new_empty(len(x), *([] if back else [channels]), *sizes)
    name = "filtered_back" if back else "filtered"
    call(name, x.dtype, x, filters, len(x), channels, math.prod(sizes), out)
    return out
