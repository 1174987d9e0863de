"""What ``boxes.c`` does: transforms of which only a box of frequencies is given or wanted."""

from __future__ import annotations

import ctypes
import math
from functools import lru_cache

import torch
from torch import Tensor

from wavemill.kernels.loading import (
    PAIR,
    addresses,
    call,
    numbers,
    precise,
    room,
    unfollowed,
    usable,
)

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


class Harmonics(ctypes.Structure):
    """What fields become before they are transformed, or transforms after it."""

    _fields_ = [
        *numbers("kind", "k", "channels", "fresh"),
        *addresses("z", "mean", "radial", "polar", "more"),
    ]


_PLAIN = Harmonics()
_HARMONICS, _SLOPES, _POLAR = 1, 2, 3


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
    if not _possible(x):
        return None
    kinds = x.is_complex(), not part_real
    known = half if half and kinds[0] else (x.shape[-2], x.shape[-1])
    columns = box[1] // 2 + 1 if half and kinds[1] else box[1]
    dtype = real if part_real else real.to_complex()
    out = torch.empty(*x.shape[:-2], box[0], columns, dtype=dtype, device="cpu")
    return _run(x, out, (shape, known, box, kinds, inverse, half is not None))


def harmonic_spectra(z: Tensor, k: int, mean: Tensor | None, box: Box) -> Tensor | None:
    """Return :func:`fourier` of :func:`.harmonics` less their means, which are not stored.

    ``z`` is ``(field, channel, y, x)``, ``mean`` complex ``(channel,)``. None where the loops
    cannot do it.
    """
    if not _possible(z):
        return None
    mean = None if mean is None else mean.to(z.dtype).contiguous()
    own = Harmonics(kind=_HARMONICS, k=k, channels=z.shape[1], mean=_address(mean))
    whole = z.shape[-2], z.shape[-1]
    out = z.new_empty(*z.shape[:-2], *box)
    return _run(z, out, (whole, whole, box, (k > 0, True), False, False), own)


def slope_spectra(
    z: Tensor, radial: Tensor | None, polar: Tensor | None, more: Tensor | None, box: Box
) -> Tensor | None:
    """Return :func:`fourier` of ``z / abs(z) (radial + polar) + more``; any of the three may lack.

    None where the loops cannot do it.
    """
    if not _possible(z):
        return None
    given = {"radial": _address(radial), "polar": _address(polar), "more": _address(more)}
    whole = z.shape[-2], z.shape[-1]
    out = z.new_empty(*z.shape[:-2], *box)
    own = Harmonics(kind=_SLOPES, **given)
    return _run(z, out, (whole, whole, box, (True, True), False, False), own)


def add_polar_spectra(spectra: Tensor, z: Tensor, k: int, known: Tensor | None) -> Tensor | None:
    """Return :func:`.add_polar` of ``sum over w of spectra e^{-i w u}``, which is not stored.

    ``spectra`` is ``(field, channel, y, x)`` in a box; ``known`` is changed in place. None where
    the loops cannot do it.
    """
    if not (_possible(spectra) and _possible(z)):
        return None
    box, whole = (spectra.shape[-2], spectra.shape[-1]), (z.shape[-2], z.shape[-1])
    out = torch.empty_like(z) if known is None else known
    own = Harmonics(kind=_POLAR, k=k, fresh=known is None, z=z.data_ptr())
    return _run(spectra, out, (whole, box, whole, (True, True), False, False), own)


def _possible(x: Tensor) -> bool:
    return usable(x) and precise(x.dtype.to_real()) and unfollowed(x)


def _address(x: Tensor | None) -> int | None:
    return None if x is None else x.data_ptr()


def _run(
    x: Tensor,
    out: Tensor,
    sizes: tuple[Box, Box, Box, tuple[bool, bool], bool, bool],
    harmonics: Harmonics = _PLAIN,
) -> Tensor | None:
    """Return ``out``, filled; None if the sides have a large prime factor.

    ``sizes``: the grid, boxes before and after, kinds, and what else :func:`_task` is told.
    """
    real, fields = x.dtype.to_real(), math.prod(x.shape[:-2])
    task, size = _task(fields, *sizes, real, torch.get_num_threads())
    if size < 0:
        return None
    call("boxes", real, x, task, harmonics, out, room(size))
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
