"""What ``fields.c`` does: harmonics, their gradients, and products with filters."""

from __future__ import annotations

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


def filtered(x: Tensor, filters: Tensor) -> Tensor:
    """Return spectra ``x (field, y, x)`` times real ``filters (channel, y, x)``, in their box."""
    out = x.new_empty(len(x), *filters.shape)
    call("filtered", x.dtype, x, *x.shape[1:], filters, len(x), *filters.shape, out)
    return out


def add_filtered_back(spectra: Tensor, filters: Tensor, into: Tensor) -> None:
    """Add to ``into (field, y, x)`` the sum of ``spectra (field, channel, y, x)`` times filters."""
    sizes = len(into), *filters.shape
    call("filtered_back", into.dtype, spectra, *into.shape[1:], filters, *sizes, into)
