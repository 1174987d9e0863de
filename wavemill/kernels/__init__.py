"""Compiled loops of Fourier and scattering transforms and of sparse codes, where they were built.

``boxes.c``, ``scattering.c`` and ``sparse_codes.c`` need a C compiler and nothing else; ``build.py``
runs it when the package is installed. Where there is none, and wherever a tensor is not plain memory of a
processor, callers compute the same with torch. ``WAVEMILL_KERNELS=0`` in the environment does so
everywhere.
"""

from __future__ import annotations

import ctypes
import math
import os
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

LIBRARY = "_kernels.so"
_LINE = 64  # bytes of a cache's line
_SUFFIX = {torch.float32: "float", torch.float64: "double"}


def _load() -> ctypes.CDLL | None:
    path = Path(__file__).with_name(LIBRARY)
    if os.environ.get("WAVEMILL_KERNELS") == "0" or not path.exists():
        return None
    try:
        library = ctypes.CDLL(str(path))
    except OSError:  # built for another machine
        return None
    return library if hasattr(library, "boxes_float") else None  # or from earlier sources


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
        and not tensor.is_conj()
        for tensor in tensors
    )


class Boxes(ctypes.Structure):
    """Fields and boxes of their frequencies: ``Boxes`` in ``boxes.c``."""

    _fields_ = [
        (name, ctypes.c_int64)
        for name in (*"NYX", "from_y", "from_x", "to_y", "to_x", "complex", "inverse")
    ]


def fourier(
    x: Tensor, shape: tuple[int, int], box: tuple[int, int], inverse: bool
) -> Tensor | None:
    """Return the frequencies in ``box`` of the transform on a grid ``shape``, not normalised.

    ``x`` is ``(..., y, x)``, all of the grid or the box of frequencies that are not 0, which lie in
    the order of the FFT; either it or what is returned is all of the grid. None where the loops
    cannot do it: on other devices, for sides with a prime factor above 31, in a graph of autograd.
    """
    real = x.dtype.to_real()
    if not usable(x) or real not in _SUFFIX or (x.requires_grad and torch.is_grad_enabled()):
        return None
    fields, before = math.prod(x.shape[:-2]), (x.shape[-2], x.shape[-1])
    sizes = (fields, *shape, *before, *box, int(x.is_complex()), int(inverse))
    size = _fourier_bytes(sizes, real, torch.get_num_threads())
    if size < 0:
        return None
    memory, start = _room(size)
    out = torch.empty(*x.shape[:-2], *box, dtype=real.to_complex())
    _call("boxes", x, ctypes.byref(Boxes(*sizes)), out, start)
    return out


@lru_cache(maxsize=256)
def _fourier_bytes(sizes: tuple[int, ...], dtype: torch.dtype, threads: int) -> int:
    function = getattr(_library, f"boxes_bytes_{_SUFFIX[dtype]}")
    function.restype = ctypes.c_int64
    return int(function(ctypes.byref(Boxes(*sizes)), ctypes.c_int(threads)))


class Average(ctypes.Structure):
    """An average along one axis: ``Average`` in ``scattering.c``."""

    _fields_ = [(name, ctypes.c_int64) for name in ("first", "step", "count", "length")] + [
        ("weights", ctypes.c_void_p)
    ]


class Bank(ctypes.Structure):
    """Filters and the blocks of a spectrum that they reach: ``Bank`` in ``scattering.c``."""

    _fields_ = [("values", ctypes.c_void_p), ("reached", ctypes.c_void_p)] + [
        (name, ctypes.c_int64) for name in ("places", "terms", "rows", "columns")
    ]


class Scattering(ctypes.Structure):
    """A scattering transform: ``Scattering`` in ``scattering.c``."""

    _fields_ = [
        (name, ctypes.c_int64)
        for name in ("images", "height", "width", "J", "L", "phases", "order", "coefficients")
    ] + [(name, ctypes.c_void_p) for name in ("first", "second", "averages")]


def scattering_bytes(task: Scattering, dtype: torch.dtype, gradient: bool) -> int:
    """Return what the threads work in, or -1 for sides with a prime factor above 31."""
    function = getattr(_library, f"scattering_bytes_{_SUFFIX[dtype]}")
    function.restype = ctypes.c_int64
    threads = torch.get_num_threads()
    return int(function(ctypes.byref(task), ctypes.c_int(gradient), ctypes.c_int(threads)))


def scattering(
    spectra: Tensor, task: Scattering, out: Tensor, gradients: Tensor | None = None
) -> None:
    """Write coefficients into ``out``; or, given ``gradients``, those of spectra from ``out``."""
    size = scattering_bytes(task, out.dtype, gradients is not None)
    memory, start = _room(size)
    written = torch.view_as_real(spectra), ctypes.byref(task), out, gradients
    if not _call("scattering", *written, start):
        raise MemoryError("no memory for a scattering transform")


class Coding(ctypes.Structure):
    """Sizes of sparse codes: ``Coding`` in ``sparse_codes.c``."""

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


def _room(size: int) -> tuple[Tensor, ctypes.c_void_p]:
    """Return memory of so many bytes, and where in it a cache's line begins."""
    memory = torch.empty(size + _LINE, dtype=torch.uint8)
    return memory, ctypes.c_void_p(-(-memory.data_ptr() // _LINE) * _LINE)


def _call(name: str, first: Tensor, *others: object) -> int:
    function = getattr(_library, f"{name}_{_SUFFIX[first.dtype.to_real()]}")
    arguments = [
        ctypes.c_void_p(item.data_ptr()) if isinstance(item, Tensor) else item
        for item in (first, *others)
    ]
    return int(function(*arguments, ctypes.c_int(torch.get_num_threads())))
