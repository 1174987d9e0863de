"""Cross-spectra of many channels at once, and their transforms at a few shifts.

    c(a, b; s) = sum over w of a^(w) conj b^(w) e^{i w s} , s a multiple of 2^j ,

is a sum over the frequencies of a grid 2^j times coarser, once those that coincide there, the
*aliases*, are contracted like fields: one matrix product for each frequency. Channels come last, so
that it needs no copies, and folding to a coarser grid moves whole rows of channels.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

PRODUCTS = 2**17  # of two channels at one frequency, held at once: 1 MiB, which fits the caches
SUMS = 2**21  # of such products along x, held at once: 8 MiB


def folded(spectra: Tensor, ratio: list[int]) -> Tensor:
    """Return spectra ``(y, x, alias and field, channel)`` on a grid coarser by ``ratio`` (y, x).

    Frequencies that coincide on the coarser grid are aliases of one another.
    """
    rows, columns, _, channels = spectra.shape
    height, width = rows // ratio[0], columns // ratio[1]
    split = spectra.view(ratio[0], height, ratio[1], width, -1, channels)
    return split.permute(1, 3, 0, 2, 4, 5).reshape(height, width, -1, channels)


def opposites(frequency: Tensor, shape: tuple[int, int]) -> Tensor:
    """Return the place of -w for each w in a list of a grid's frequencies, numbered along rows."""
    y, x = frequency // shape[1], frequency % shape[1]
    return torch.argsort(frequency)[(-y) % shape[0] * shape[1] + (-x) % shape[1]]


def at_shifts(
    left: Tensor, right: Tensor, shifts: NDArray[np.int64], shape: tuple[int, int]
) -> Tensor:
    """Return ``sum over w of left(w) conj right(w) e^{i w shift}`` for all pairs of channels.

    ``left`` and ``right`` are folded; the result is ``(shift_y, shift_x, left, right)``. Products
    of a few rows of frequencies are held at once. They are transformed by the cosines and sines of
    each abs(shift), which are real and half as many.
    """
    height, width, _, count = left.shape
    pairs = count * right.shape[-1]
    sizes, place = np.unique(np.abs(shifts), return_inverse=True)
    down, across = (
        _waves(sizes, size, kept).to(left.real)
        for size, kept in zip(shape, (height, width), strict=True)
    )
    total = down.new_zeros(len(down), len(across) * 2 * pairs)
    step = max(1, PRODUCTS // (pairs * width))
    most = max(step, SUMS // total.shape[1])
    for rows in torch.split(torch.arange(height), most):
        narrow = []
        for part in torch.split(rows, step):
            span = slice(int(part[0]), int(part[-1]) + 1)
            cross = torch.view_as_real(right[span].mH @ left[span])
            narrow.append(across @ cross.reshape(-1, width, 2 * pairs))
        total += down[:, rows[0] : rows[-1] + 1] @ torch.cat(narrow).view(len(rows), -1)
    halves = torch.view_as_complex(total.view(len(down), len(across), pairs, 2))
    signs = _signs(shifts, place, len(sizes)).to(halves)
    result = signs @ (signs @ halves).flatten(1)
    return result.view(len(shifts), len(shifts), -1, count).mT


def _waves(sizes: NDArray[np.int64], size: int, frequencies: int) -> Tensor:
    """Return the cosines of w times each of ``sizes``, then the sines, ``(wave, frequency)``."""
    turns = np.outer(sizes, np.arange(frequencies)) % size  # exact: integer turns are dropped
    angles = 2 * np.pi * turns / size
    return torch.from_numpy(np.concatenate([np.cos(angles), np.sin(angles)]))


def _signs(shifts: NDArray[np.int64], place: NDArray[np.int64], count: int) -> Tensor:
    """Return the matrix that combines the waves of each abs(shift) into e^{i w shift}."""
    each = np.arange(len(shifts))
    matrix = np.zeros((len(shifts), 2 * count), dtype=np.complex128)
    matrix[each, place.reshape(-1)] = 1
    matrix[each, count + place.reshape(-1)] = 1j * np.sign(shifts)
    return torch.from_numpy(matrix)
