"""The discrete Fourier transform at few shifts, which is two thin matrix products."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from wavemill.moments.boxes import Box
from wavemill.operators import keep_buffer

Indices = NDArray[np.int64]


class FewShifts(nn.Module):
    """The inverse Fourier transform at few shifts, and its transpose.

        sum over w of F(w) e^{i w tau} = sum_x e^{i w_x tau_x} sum_y e^{i w_y tau_y} F

    Along y, where F is large, products are real: with cosines and sines of each abs(tau_y).

    Parameters
    ----------
    spectrum
        Which spectrum each row transforms, ``(row,)``.
    count
        Number of spectra.
    shifts
        (y, x) of each row, ``(row, 2)``.
    shape
        Grid ``(y, x)``.
    box
        Frequencies of the spectra.
    scale
        Factor of the sum.
    dtype
        Real precision.
    """

    _rows: Tensor
    _signs: Tensor
    _columns: Tensor
    _pick: Tensor

    def __init__(
        self,
        spectrum: Indices,
        count: int,
        shifts: Indices,
        shape: Box,
        box: Box,
        scale: float,
        dtype: torch.dtype,
    ) -> None:
        super().__init__()
        (across_y, y), (across_x, x) = (
            np.unique(shifts[:, axis], return_inverse=True) for axis in (0, 1)
        )
        self._grid = (count, len(across_y), len(across_x))
        flat = (spectrum * len(across_y) + y.reshape(-1)) * len(across_x) + x.reshape(-1)
        keep_buffer(self, "_pick", torch.from_numpy(flat))
        sizes, y_sizes = np.unique(np.abs(across_y), return_inverse=True)
        rows = few_waves(sizes, shape[0], box[0])
        columns = scale * few_waves(across_x, shape[1], box[1]).T
        keep_buffer(self, "_rows", torch.cat([rows.real, rows.imag]).to(dtype))
        keep_buffer(
            self,
            "_signs",
            _signs(y_sizes.reshape(-1), len(sizes), np.sign(across_y)).to(dtype.to_complex()),
        )
        keep_buffer(self, "_columns", columns.to(dtype.to_complex()).contiguous())

    def sum(self, spectra: Tensor) -> Tensor:
        """Return the sums ``(batch, row)`` over ``(batch, spectrum, y, x)``, real or complex."""
        along = self._rows @ (_as_rows(spectra) if spectra.is_complex() else spectra)
        narrow = _as_complex(along) if spectra.is_complex() else along.to(self._signs.dtype)
        return (self._signs @ (narrow @ self._columns)).flatten(1)[:, self._pick]

    def spread(self, values: Tensor) -> Tensor:
        """Return ``sum over rows of value e^{i w tau}``, ``(batch, spectrum, y, x)``."""
        grid = values.new_zeros(len(values), math.prod(self._grid))
        grid.index_add_(1, self._pick, values)
        narrow = (self._signs.T @ grid.view(len(grid), *self._grid)) @ self._columns.T
        return _as_complex(self._rows.T @ _as_rows(narrow))


def _as_rows(spectra: Tensor) -> Tensor:
    """Return complex spectra as real ones of twice the width."""
    return torch.view_as_real(spectra).flatten(-2)


def _as_complex(rows: Tensor) -> Tensor:
    return torch.view_as_complex(rows.view(*rows.shape[:-1], rows.shape[-1] // 2, 2))


def _signs(size: Indices, count: int, sign: Indices) -> Tensor:
    """Return the matrix that combines cos(w abs(s)), sin(w abs(s)) into e^{i w s}, complex128."""
    shift = np.arange(len(size))
    matrix = np.zeros((len(size), 2 * count), dtype=np.complex128)
    matrix[shift, size] = 1
    matrix[shift, count + size] = 1j * sign
    return torch.from_numpy(matrix)


def few_waves(shifts: Indices, size: int, kept: int) -> Tensor:
    """Return ``e^{i w shift}`` at the frequencies kept on an axis: ``(shift, kept)`` complex128."""
    frequency = np.rint(np.fft.fftfreq(kept, 1 / kept)).astype(np.int64)
    turns = np.outer(shifts, frequency) % size  # exact: integer turns are dropped
    return torch.from_numpy(np.exp(2j * np.pi * turns / size))
