"""Compiled loops of :mod:`wavemill.folding` and `.active_sets`, where they could be built.

``kernels.c`` needs a C compiler and nothing else; ``build.py`` runs it when the package is
installed. Where there is none, and wherever a tensor is not plain memory of a processor, callers
compute the same with torch. ``WAVEMILL_KERNELS=0`` in the environment does so everywhere.
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

import torch
from torch import Tensor

LIBRARY = "_kernels.so"
_SUFFIX = {torch.float32: "float", torch.float64: "double"}


def _load() -> ctypes.CDLL | None:
    path = Path(__file__).with_name(LIBRARY)
    if os.environ.get("WAVEMILL_KERNELS") == "0" or not path.exists():
        return None
    try:
        return ctypes.CDLL(str(path))
    except OSError:  # built for another machine
        return None


_library = _load()


def available() -> bool:
    """Say whether the compiled loops are in use."""
    return _library is not None


def usable(*tensors: Tensor) -> bool:
    """Say whether the loops can run on the memory of these tensors."""
    return _library is not None and all(
        type(tensor) is Tensor  # not of a trace
        and torch._C._has_storage(tensor)  # not of a vmap
        and tensor.device.type == "cpu"
        and tensor.is_contiguous()
        for tensor in tensors
    )


class Layout(ctypes.Structure):
    """Sizes of a fold: ``Shape`` in ``kernels.c``."""

    _fields_ = [
        (name, ctypes.c_int64)
        for name in ("fields", "count", "places", "terms", "rows", "columns", "height", "width")
    ]


def fold(x: Tensor, filters: Tensor, places: Tensor, layout: Layout, out: Tensor) -> None:
    """Write sums of spectrum times filter into ``out``: ``fold_tile`` in ``kernels.c``."""
    _call("fold", x, filters, places, ctypes.byref(layout), out)


def unfold(y: Tensor, filters: Tensor, places: Tensor, layout: Layout, out: Tensor) -> None:
    """Write the transpose into the blocks of ``out`` that filters reach."""
    _call("unfold", y, filters, places, ctypes.byref(layout), out)


def modulus(z: Tensor) -> Tensor:
    """Return ``sqrt(|z|^2 + tiny)`` of complex numbers."""
    size = torch.empty(z.shape, dtype=z.real.dtype)
    _call("modulus", torch.view_as_real(z), size, ctypes.c_int64(size.numel()))
    return size


def modulus_slope(z: Tensor, gradient: Tensor) -> Tensor:
    """Return ``z gradient / |z|``."""
    slope = torch.empty_like(z)
    pairs = torch.view_as_real(z)
    _call("modulus_slope", pairs, gradient, slope, ctypes.c_int64(gradient.numel()))
    return slope


class Coding(ctypes.Structure):
    """Sizes of sparse codes: ``Coding`` in ``kernels.c``."""

    _fields_ = [
        (name, ctypes.c_int64) for name in ("rows", "channels", "atoms", "iterations", "positive")
    ]


def istc(analysed: Tensor, M: Tensor, thresholds: Tensor, sizes: Coding) -> Tensor:
    """Return codes ``(row, atom)`` from ``W^T beta``, ``M = I - D^T W`` and the thresholds."""
    codes = torch.zeros_like(analysed)
    if not _call("istc", analysed, M, thresholds, ctypes.byref(sizes), codes):
        raise MemoryError("no memory for sparse codes")
    return codes


def istc_gradients(
    analysed: Tensor, tables: tuple[Tensor, ...], gradient: Tensor, sizes: Coding
) -> tuple[Tensor, ...]:
    """Return gradients of beta, W and D ``(atom, channel)``, and the thresholds.

    ``tables`` are beta, M, D and W by atoms, and the thresholds. Every thread has sums of its own,
    which are added in one order.
    """
    beta, threads = tables[0], torch.get_num_threads()
    whole = (threads, sizes.atoms, sizes.channels)
    made = [torch.zeros_like(beta), *(beta.new_zeros(whole) for _ in "WD")]
    made.append(beta.new_zeros(threads, sizes.iterations))
    if not _call("istc_gradients", analysed, *tables, gradient, ctypes.byref(sizes), *made):
        raise MemoryError("no memory for the gradients of sparse codes")
    return made[0], *(value.sum(0) for value in made[1:])


def _call(name: str, first: Tensor, *others: object) -> int:
    function = getattr(_library, f"{name}_{_SUFFIX[first.dtype]}")
    arguments = [
        ctypes.c_void_p(item.data_ptr()) if isinstance(item, Tensor) else item
        for item in (first, *others)
    ]
    return int(function(*arguments, ctypes.c_int(torch.get_num_threads())))
