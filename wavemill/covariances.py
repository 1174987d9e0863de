"""Covariances between two stacks of fields on a periodic grid, at zero and a few other shifts."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

Indices = NDArray[np.int64]


class CovarianceBlock(nn.Module):
    """Selected covariances ``mean over u of a_i(u + shift) conj b_k(u)`` of two stacks of fields.

    At zero shift they are one matrix product. Elsewhere they are the inverse transform of the
    cross-spectrum ``a^_i conj b^_k`` at few shifts: two thin real matrix products.

    Parameters
    ----------
    first, second
        Index of each covariance's fields in their stacks, ``(row,)``.
    shifts
        (y, x) of each, ``(row, 2)``.
    shape
        Grid ``(y, x)``.
    mirrored
        Replace b by its conjugate.
    auto
        The two stacks are one.
    half
        Both stacks are real, and :meth:`forward` is given half spectra as by ``torch.fft.rfft2``.
    dtype
        Real precision.
    """

    _first: Tensor
    _second: Tensor
    _left: Tensor
    _right: Tensor
    _pick: Tensor
    _rows: Tensor
    _columns: Tensor

    def __init__(
        self,
        first: Indices,
        second: Indices,
        shifts: Indices,
        shape: tuple[int, int],
        *,
        mirrored: bool = False,
        auto: bool = False,
        half: bool = False,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        at_zero = (shifts == 0).all(axis=1)
        self.order = np.concatenate([np.flatnonzero(at_zero), np.flatnonzero(~at_zero)])
        self._points = math.prod(shape)
        self._mirrored, self._half = mirrored, half
        self._zero, self._lagged = bool(at_zero.any()), bool((~at_zero).any())
        keep_buffer(self, "_first", torch.from_numpy(first[at_zero]))
        keep_buffer(self, "_second", torch.from_numpy(second[at_zero]))
        moved = ~at_zero
        pairs, pair = np.unique(
            np.column_stack([first[moved], second[moved]]), axis=0, return_inverse=True
        )
        self._power = auto and not mirrored and bool((pairs[:, 0] == pairs[:, 1]).all())
        keep_buffer(self, "_left", torch.from_numpy(pairs[:, 0]))
        keep_buffer(self, "_right", torch.from_numpy(pairs[:, 1]))
        self._plan_shifts(pair.reshape(-1), shifts[moved], shape, dtype)

    def forward(self, a: Tensor, b: Tensor, a_hat: Tensor | None, b_hat: Tensor | None) -> Tensor:
        """Return the covariances ``(batch, row)``, complex, in the order ``self.order``.

        ``a`` and ``b`` are ``(batch, field, y, x)``, real or complex; ``a_hat`` and ``b_hat`` their
        transforms, needed if any shift is not zero.
        """
        pieces = []
        if self._zero:
            pieces.append(self._at_zero(a.flatten(-2), b.flatten(-2)))
        if self._lagged:
            assert a_hat is not None  # the caller transforms every stack that has shifts
            assert b_hat is not None
            pieces.append(self._at_shifts(a_hat, b_hat))
        return torch.cat(pieces, dim=-1)

    def _at_zero(self, a: Tensor, b: Tensor) -> Tensor:
        other = b if self._mirrored else b.conj()
        common = torch.promote_types(a.dtype, b.dtype)
        gram = a.to(common) @ other.to(common).transpose(-1, -2) / self._points
        return as_complex(gram[..., self._first, self._second])

    def _at_shifts(self, a_hat: Tensor, b_hat: Tensor) -> Tensor:
        if self._power:
            left = a_hat[:, self._left]
            values = self._transform(left.real.square() + left.imag.square())
        else:
            other = _reflected(b_hat).conj() if self._mirrored else b_hat
            cross = a_hat[:, self._left] * other[:, self._right].conj()
            values = self._transform(cross.real) + 1j * self._transform(cross.imag)
        values = values.real + 0j if self._half else values
        return values.flatten(-3)[:, self._pick] / self._points**2

    def _transform(self, spectrum: Tensor) -> Tensor:
        """Return ``sum_w spectrum e^{i w shift}`` for a real spectrum: (.., y shift, x shift)."""
        parts = self._rows @ spectrum @ self._columns
        (cc, cs), (sc, ss) = (half.chunk(2, dim=-1) for half in parts.chunk(2, dim=-2))
        return torch.complex(cc - ss, cs + sc)

    def _plan_shifts(
        self, pair: Indices, shifts: Indices, shape: tuple[int, int], dtype: torch.dtype
    ) -> None:
        across_y, pick_y = np.unique(shifts[:, 0], return_inverse=True)
        across_x, pick_x = np.unique(shifts[:, 1], return_inverse=True)
        flat = (pair * len(across_y) + pick_y.reshape(-1)) * len(across_x) + pick_x.reshape(-1)
        keep_buffer(self, "_pick", torch.from_numpy(flat))
        keep_buffer(self, "_rows", _waves(across_y, shape[0]).to(dtype))
        columns = _waves(across_x, shape[1]).T
        if self._half:  # the other half of the spectrum is its mirror image
            columns = columns[: shape[1] // 2 + 1] * _half_weights(shape[1])[:, None]
        keep_buffer(self, "_columns", columns.to(dtype).contiguous())


def keep_buffer(module: nn.Module, name: str, value: Tensor) -> None:
    """Register ``value`` to follow the module's device without entering its state."""
    module.register_buffer(name, value, persistent=False)


def as_complex(x: Tensor) -> Tensor:
    """Return ``x`` in the complex type of its precision."""
    return x if x.is_complex() else x.to(x.dtype.to_complex())


def _waves(shifts: Indices, size: int) -> Tensor:
    """Return cosines, then sines, of ``w shift``: ``(2 shifts, size)``."""
    turns = np.outer(shifts, np.arange(size)) % size  # exact: integer turns are dropped
    angle = torch.from_numpy(2 * np.pi * turns / size)
    return torch.cat([angle.cos(), angle.sin()])


def _half_weights(size: int) -> Tensor:
    weights = torch.full((size // 2 + 1,), 2.0, dtype=torch.float64)
    weights[0] = 1
    if size % 2 == 0:
        weights[-1] = 1
    return weights


def _reflected(spectrum: Tensor) -> Tensor:
    """Return the spectrum at -w."""
    return spectrum.flip((-2, -1)).roll((1, 1), (-2, -1))
