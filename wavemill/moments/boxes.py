"""Spectra of which only the low frequencies are kept: boxes about w = 0, in the order of the FFT.

A box of ``(n_y, n_x)`` frequencies is either the whole grid along an axis or an odd number of
frequencies -a..a. It loses nothing of a field whose spectrum fits it.
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

from wavemill import kernels
from wavemill.operators import mirror

Box = tuple[int, int]
WORTHWHILE = 0.6  # of an axis: larger boxes save less than cutting and filling costs


def box_of(spectra: Tensor) -> Box:
    """Return the smallest box that holds all of spectra ``(..., y, x)`` on the whole grid."""
    there = spectra.reshape(-1, *spectra.shape[-2:]).abs().amax(0) > 0
    return _extent(there.any(1)), _extent(there.any(0))


def smaller(a: Box, b: Box) -> Box:
    """Return what two boxes have in common."""
    return min(a[0], b[0]), min(a[1], b[1])


def larger(a: Box, b: Box) -> Box:
    """Return a box that holds both."""
    return max(a[0], b[0]), max(a[1], b[1])


def crop(spectrum: Tensor, box: Box) -> Tensor:
    """Return the frequencies of ``box``."""
    for axis, size in ((-2, box[0]), (-1, box[1])):
        spectrum = _crop(spectrum, axis, size)
    return spectrum


def pad(spectrum: Tensor, box: Box) -> Tensor:
    """Return ``spectrum`` in a larger box, 0 where it has nothing."""
    for axis, size in ((-2, box[0]), (-1, box[1])):
        spectrum = _pad(spectrum, axis, size)
    return spectrum


def add_into(into: Tensor, spectrum: Tensor) -> None:
    """Add ``spectrum`` to a larger box, in place."""
    known, whole = _sizes(spectrum), _sizes(into)
    if known == whole:
        into.add_(spectrum)
        return
    for here, there in itertools.product(*map(_corners, known, whole)):
        into[..., here[1], there[1]].add_(spectrum[..., here[0], there[0]])


def filtered(spectrum: Tensor, filters: Tensor) -> Tensor:
    """Return ``spectrum (batch, y, x)``, in the box of ``filters (angle, y, x)``, times these."""
    if _loops(spectrum, filters):
        return kernels.filtered(spectrum, filters)
    return crop(spectrum, _sizes(filters))[:, None] * filters


def add_filtered_back(spectra: Tensor, filters: Tensor, into: Tensor) -> None:
    """Add the sum over angles of ``spectra (batch, angle, y, x)`` times filters to a larger box."""
    if _loops(spectra, filters) and kernels.usable(into):
        kernels.add_filtered_back(spectra, filters, into)
    else:
        add_into(into, (spectra * filters).sum(1))


def to_spectrum(field: Tensor, box: Box) -> Tensor:
    """Return ``sum over u of field e^{-i w u}`` at the frequencies of ``box``."""
    whole = _sizes(field)
    compiled = kernels.fourier(field, whole, box, inverse=False)
    if compiled is not None:
        return compiled
    if whole == box:
        transform: Tensor = torch.fft.fft2(field)
        return transform
    rows = _crop(torch.fft.fft(field), -1, box[1])
    return _crop(torch.fft.fft(rows, dim=-2), -2, box[0])


def to_field(spectrum: Tensor, shape: Box, real: bool = False) -> Tensor:
    """Return ``sum over w of spectrum e^{i w u}`` on the whole grid, or its real part alone."""
    compiled = kernels.fourier(spectrum, shape, shape, inverse=True, part_real=real)
    if compiled is not None:
        return compiled
    if _sizes(spectrum) == shape:
        field: Tensor = torch.fft.ifft2(spectrum, norm="forward")
    else:
        columns = torch.fft.ifft(_pad(spectrum, -2, shape[0]), dim=-2, norm="forward")
        field = torch.fft.ifft(_pad(columns, -1, shape[1]), norm="forward")
    return field.real.contiguous() if real else field


def to_half_spectrum(field: Tensor, box: Box) -> Tensor:
    """Return columns from 0 on of :func:`to_spectrum` of real fields, which determine the rest."""
    compiled = kernels.fourier(field, _sizes(field), box, inverse=False, half=box)
    if compiled is not None:
        return compiled
    rows = torch.fft.rfft(field)[..., : box[1] // 2 + 1]
    return _crop(torch.fft.fft(rows, dim=-2), -2, box[0])


def from_half_spectrum(half: Tensor, box: Box, shape: Box) -> Tensor:
    """Return the real part of the sum of ``half e^{i w u}``: `to_half_spectrum` transposed."""
    compiled = kernels.fourier(half, shape, shape, inverse=True, part_real=True, half=box)
    if compiled is not None:
        return compiled
    columns = torch.fft.ifft(_pad(half, -2, shape[0]), dim=-2, norm="forward")
    field: Tensor = torch.fft.ifft(columns, n=shape[1], norm="forward").real
    return field


def crop_half(half: Tensor, box: Box) -> Tensor:
    """Return the frequencies of ``box`` of half a spectrum in a larger one."""
    return _crop(half[..., : box[1] // 2 + 1], -2, box[0])


def folded(spectra: Tensor, sign: int = 1) -> Tensor:
    """Return the half plane of spectra, plus or minus the other half: twice the even or odd part.

    Columns that hold both w and -w count once.
    """
    size = spectra.shape[-1]
    both = (spectra + sign * mirror(spectra))[..., : size // 2 + 1]
    alone = [0, size // 2] if size % 2 == 0 else [0]
    both[..., alone] /= 2
    return both


def add_into_half(into: Tensor, half: Tensor) -> None:
    """Add half a spectrum to half of a larger one, in place."""
    add_into(into[..., : half.shape[-1]], half)


def to_conjugate_field(spectrum: Tensor, shape: Box, real: bool = False) -> Tensor:
    """Return ``sum over w of spectrum e^{-i w u}`` on the whole grid, or its real part alone."""
    compiled = kernels.fourier(spectrum, shape, shape, inverse=False, part_real=real)
    if compiled is not None:
        return compiled
    if _sizes(spectrum) == shape:
        field: Tensor = torch.fft.fft2(spectrum)
    else:
        columns = torch.fft.fft(_pad(spectrum, -2, shape[0]), dim=-2)
        field = torch.fft.fft(_pad(columns, -1, shape[1]))
    return field.real if real else field


def _loops(spectra: Tensor, filters: Tensor) -> bool:
    """Say whether compiled loops may multiply them: of one precision, in no graph of autograd."""
    alike = spectra.dtype == filters.dtype.to_complex() and not spectra.requires_grad
    return alike and kernels.usable(spectra, filters)


def _sizes(spectrum: Tensor) -> Box:
    return spectrum.shape[-2], spectrum.shape[-1]


def _corners(known: int, whole: int) -> list[tuple[slice, slice]]:
    """Return where the two ends of an axis lie in a box and in a larger one."""
    if known == whole:
        return [(slice(None), slice(None))]
    reach = known // 2
    low, high = slice(0, reach + 1), slice(reach + 1, known)
    return [(low, low), (high, slice(whole - reach, whole))]


def _extent(there: Tensor) -> int:
    size = len(there)
    frequency = (torch.fft.fftfreq(size) * size).abs().round()
    reach = int(frequency[there].max()) if there.any() else 0
    return 2 * reach + 1 if 2 * reach + 1 <= WORTHWHILE * size else size


def _crop(spectrum: Tensor, axis: int, size: int) -> Tensor:
    whole = spectrum.shape[axis]
    if size == whole:
        return spectrum
    reach = size // 2
    low, high = spectrum.narrow(axis, 0, reach + 1), spectrum.narrow(axis, whole - reach, reach)
    return torch.cat([low, high], dim=axis)


def _pad(spectrum: Tensor, axis: int, size: int) -> Tensor:
    known = spectrum.shape[axis]
    if size == known:
        return spectrum
    reach = known // 2
    shape = list(spectrum.shape)
    shape[axis] = size - known
    low, high = spectrum.narrow(axis, 0, reach + 1), spectrum.narrow(axis, reach + 1, reach)
    return torch.cat([low, spectrum.new_zeros(shape), high], dim=axis)
