"""Compiled loops of transforms, of covariances and of sparse codes, where they could be built.

The sources, in C, need a compiler and nothing else; ``build.py`` runs it when the package is
installed. Where there is none, and wherever a tensor is not plain memory of a processor, callers
compute the same with torch. ``WAVEMILL_KERNELS=0`` in the environment does so everywhere.
"""

from __future__ import annotations

import ctypes
import math
import os
import warnings
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from wavemill.kernels.sources import fingerprint

LIBRARY = "_kernels.so"
_LINE = 64  # bytes of a cache's line
_SUFFIX = {torch.float32: "float", torch.float64: "double"}
_KINDS = {"p": ctypes.c_void_p, "n": ctypes.c_int64}
_ARGUMENTS = {  # pointers and numbers; threads come last
    "boxes_bytes": "p",
    "boxes": "pppp",
    "harmonics": "pnnp",
    "polar": "ppnnnp",
    "slopes": "ppppnp",
    "filtered": "ppnnnp",
    "filtered_back": "ppnnnp",
    "shifts_room": "pn",
    "shifts": "ppppp",
    "shifts_gradients": "ppppppnnp",
    "scattering_bytes": "pn",
    "scattering": "ppppp",
    "istc": "ppppp",
    "istc_gradients": "pppppppppppp",
}


def load(path: Path) -> ctypes.CDLL | None:
    """Return the library, None where there is none for this machine and of these sources."""
    if os.environ.get("WAVEMILL_KERNELS") == "0" or not path.exists():
        return None
    try:
        library = ctypes.CDLL(str(path))
    except OSError:  # built for another machine
        return None
    if not (expected := fingerprint(Path(__file__).parent)) or _built_from(library) == expected:
        return library
    warnings.warn(
        f"{path} was compiled from other sources: torch computes, slower, until the package is "
        "installed again (`make .venv/.installed`, or `pip install -e .`)",
        stacklevel=2,
    )
    return None


def _built_from(library: ctypes.CDLL) -> str:
    if not hasattr(library, "kernels_sources"):
        return "unknown"
    library.kernels_sources.restype = ctypes.c_char_p
    return cast(bytes, library.kernels_sources()).decode()


_library = load(Path(__file__).with_name(LIBRARY))


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
    """Fields and boxes of their frequencies: ``Boxes`` in ``fields.c``."""

    _fields_ = [
        (name, ctypes.c_int64)
        for name in (
            *("fields", "height", "width", "from_y", "from_x", "to_y", "to_x"),
            *("complex", "inverse"),
        )
    ]


def fourier(
    x: Tensor, shape: tuple[int, int], box: tuple[int, int], inverse: bool
) -> Tensor | None:
    """Return the frequencies in ``box`` of the transform on a grid ``shape``, not normalised.

    ``x`` is ``(..., y, x)``, all of the grid or the box of frequencies that are not 0, which lie in
    the order of the FFT; either it or what is returned is all of the grid. None where the loops
    cannot do it: on other devices, for sides with a prime factor above 67, in a graph of autograd.
    """
    real = x.dtype.to_real()
    if not usable(x) or real not in _SUFFIX or (x.requires_grad and torch.is_grad_enabled()):
        return None
    fields, before = math.prod(x.shape[:-2]), (x.shape[-2], x.shape[-1])
    sizes = (fields, *shape, *before, *box, int(x.is_complex()), int(inverse))
    size = _fourier_bytes(sizes, real, torch.get_num_threads())
    if size < 0:
        return None
    out = torch.empty(*x.shape[:-2], *box, dtype=real.to_complex())
    _call("boxes", x, ctypes.byref(Boxes(*sizes)), out, _room(size))
    return out


@lru_cache(maxsize=256)
def _fourier_bytes(sizes: tuple[int, ...], dtype: torch.dtype, threads: int) -> int:
    return int(_function("boxes_bytes", dtype)(ctypes.byref(Boxes(*sizes)), threads))


def harmonics(z: Tensor, k: int) -> Tensor:
    """Return ``abs(z) (z / abs(z))^k``, k >= 1, or, of k = 0, the real modulus."""
    out = torch.empty_like(z, dtype=z.dtype if k else z.dtype.to_real())
    _call("harmonics", z, z.numel(), k, out)
    return out


def add_polar(z: Tensor, k: int, conjugate: Tensor, known: Tensor | None) -> Tensor:
    """Return ``known + Re p - i k Im p`` of ``p = conjugate (z / abs(z))^k``, known or none."""
    out = torch.empty_like(z) if known is None else known
    _call("polar", z, conjugate, z.numel(), k, known is None, out)
    return out


def slopes(z: Tensor, radial: Tensor | None, polar: Tensor | None, more: Tensor | None) -> Tensor:
    """Return ``z / abs(z) (radial + polar) + more``, of which any may be absent."""
    out = torch.empty_like(z)
    _call("slopes", z, radial, polar, more, z.numel(), out)
    return out


def filtered(x: Tensor, filters: Tensor, back: bool) -> Tensor:
    """Return ``x (field, ...)`` times the real part of ``filters (channel, ...)``, or go back."""
    channels, *sizes = filters.shape
    out = x.new_empty(len(x), *([] if back else [channels]), *sizes)
    name = "filtered_back" if back else "filtered"
    _call(name, x, filters, len(x), channels, math.prod(sizes), out)
    return out


class Shifts(ctypes.Structure):
    """Pairs of spectra, and means at shifts: ``Shifts`` in ``shifts.c``."""

    _fields_ = [
        (name, ctypes.c_int64)
        for name in (
            *("fields", "pairs", "means", "waves", "rows", "columns", "channels_1", "channels_2"),
            *("rows_1", "columns_1", "rows_2", "columns_2", "alone", "plain_1", "plain_2"),
        )
    ] + [(name, ctypes.c_void_p) for name in ("chosen", "mean", "along", "across")]


def shifts_room(task: Shifts, dtype: torch.dtype, gradient: bool) -> int:
    """Return how many numbers the threads work in."""
    function = _function("shifts_room", dtype)
    return int(function(ctypes.byref(task), gradient, torch.get_num_threads()))


def shifts(first: Tensor, second: Tensor, task: Shifts, room: int) -> Tensor:
    """Return means of cross-spectra times waves, complex ``(field, mean)``."""
    out = first.new_empty(task.fields, task.means)
    memory = torch.empty(room, dtype=first.dtype.to_real())
    _call("shifts", first, second, ctypes.byref(task), out, memory)
    return out


def add_shifts_gradients(
    spectra: tuple[Tensor, Tensor],
    task: Shifts,
    values: Tensor,
    gradients: tuple[Tensor, Tensor],
    fresh: tuple[bool, bool],
    room: int,
) -> None:
    """Add to both stacks' gradients, or write where ``fresh``, those from the means' gradient."""
    memory = torch.empty(room, dtype=values.dtype.to_real())
    written = ctypes.byref(task), values, *gradients, *fresh, memory
    _call("shifts_gradients", *spectra, *written)


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
    """Return what the threads work in, or -1 for sides with a prime factor above 67."""
    function = _function("scattering_bytes", dtype)
    return int(function(ctypes.byref(task), gradient, torch.get_num_threads()))


def scattering(
    spectra: Tensor, task: Scattering, out: Tensor, gradients: Tensor | None = None
) -> None:
    """Write coefficients into ``out``; or, given ``gradients``, those of spectra from ``out``."""
    size = scattering_bytes(task, out.dtype, gradients is not None)
    written = torch.view_as_real(spectra), ctypes.byref(task), out, gradients
    if not _call("scattering", *written, _room(size)):
        raise MemoryError("no memory for a scattering transform")


class Coding(ctypes.Structure):
    """Sizes of sparse codes: ``Coding`` in ``sparse_codes.c``."""

    _fields_ = [
        (name, ctypes.c_int64) for name in ("rows", "channels", "atoms", "iterations", "positive")
    ]


def istc(analysed: Tensor, M: Tensor, thresholds: Tensor, sizes: Coding) -> Tensor:
    """Return codes ``(row, atom)`` from ``W^T beta``, ``M = I - D^T W`` and the thresholds."""
    if sizes.iterations != thresholds.numel() or not thresholds.numel():
        raise ValueError(f"{sizes.iterations} iterations by {thresholds.numel()} thresholds")
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


def _room(size: int) -> Tensor:
    """Return memory of so many bytes that begins with a line of a cache."""
    memory = torch.empty(size + _LINE, dtype=torch.uint8)
    return memory[-memory.data_ptr() % _LINE :]


def _call(name: str, first: Tensor, *others: object) -> int:
    arguments = [item.data_ptr() if isinstance(item, Tensor) else item for item in others]
    function = _function(name, first.dtype)
    return int(function(first.data_ptr(), *arguments, torch.get_num_threads()))


@lru_cache
def _function(name: str, dtype: torch.dtype) -> Callable[..., int]:
    function: Any = getattr(_library, f"{name}_{_SUFFIX[dtype.to_real()]}")
    function.argtypes = [*(_KINDS[kind] for kind in _ARGUMENTS[name]), ctypes.c_int]
    function.restype = ctypes.c_int64 if name.endswith(("_bytes", "_room")) else ctypes.c_int
    return cast(Callable[..., int], function)
