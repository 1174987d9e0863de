"""Rows of tables of moments, and which of them are mirror images of each other.

A row (j1, l1, k1, j2, l2, k2, shift) stands for the covariance

    mean over u of a(u + shift) conj b(u) ,  a = [x * psi_{j1,l1}]^k1 ,  b = [x * psi_{j2,l2}]^k2 ,

of a periodic real field x, each side centred. Angle indices l = 0..2L-1 cover the circle; l = -1 is
a low pass phi of scale index j, whose response y is real: [y]^k is y for odd k, |y| for even k.

For real x, ``x * psi_{j,l+L}`` is the conjugate of ``x * psi_{j,l}``, [z]^-k that of [z]^k, and
swapping the sides of a covariance conjugates it at the opposite shift. :func:`canonical` brings a
row to the one form that all its mirror images share; model tables hold each form once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from wavemill.errors import InvalidParameter
from wavemill.filters import bump_steerable

LOW_PASS = -1  # the "angle" of a low pass
INDICES = ("j1", "l1", "k1", "j2", "l2", "k2", "shift_y", "shift_x")
J1, L1, K1, J2, L2, K2, Y, X = range(len(INDICES))  # columns of whole numbers
SIDES = ((L1, K1), (L2, K2))
ROW = np.dtype([(name, np.int64) for name in INDICES] + [("class", "U16")])

Rows = NDArray[np.void]


@dataclass(frozen=True)
class MomentTable:
    """Moments of fields on one grid.

    Parameters
    ----------
    shape
        Grid ``(y, x)``, periodic.
    J, L
        Scales and angles in a half turn of the bump steerable wavelets.
    rows
        Structured array of dtype ``ROW``, any order, repeats allowed.
    low_pass
        Width in samples of each low pass, by its scale index j.
    run
        A moment is the real part of the mean of so many consecutive rows, if more than 1.
    centred
        Whether low passes leave out the field's mean.
    """

    shape: tuple[int, int]
    J: int
    L: int
    rows: Rows
    low_pass: Mapping[int, float] = field(default_factory=dict)
    run: int = 1
    centred: bool = False

    def __post_init__(self) -> None:
        """Refuse rows of filters that do not exist."""
        for side in "12":
            j, angle = self.rows["j" + side], self.rows["l" + side]
            wavelet = (j >= 0) & (j < self.J) & (angle >= 0) & (angle < 2 * self.L)
            low_pass = (angle == LOW_PASS) & np.isin(j, list(self.low_pass))
            bad = self.rows[~(wavelet | low_pass)]
            if len(bad):
                raise InvalidParameter(
                    f"the moment {bad[0]} names no filter of J={self.J}, L={self.L} "
                    f"and low passes {sorted(self.low_pass)}"
                )

    def low_pass_filter(self, j: int) -> Tensor:
        """Return the transform of phi_j, ``(y, x)`` float64."""
        phi = bump_steerable.low_pass(self.shape, self.low_pass[j])
        if self.centred:
            phi[0, 0] = 0
        return phi

    @property
    def real_count(self) -> int:
        """Number of real moments: complex ones count twice, means of rows once."""
        if self.run > 1:
            return len(self.rows) // self.run
        return int(2 * len(self.rows) - canonical(self).real.sum())


@dataclass(frozen=True)
class Canonical:
    """Rows in canonical form: the distinct ones, and how each given row is one of them.

    Given row i equals ``distinct[index[i]]``, conjugated where ``conjugate[i]``; its imaginary part
    vanishes by symmetry where ``real[i]``.
    """

    distinct: Rows
    index: NDArray[np.int64]
    conjugate: NDArray[np.bool_]
    real: NDArray[np.bool_]


def canonical(table: MomentTable) -> Canonical:
    """Bring every row to the form that its mirror images share, 0 <= l < L and k1 >= 0."""
    columns = np.stack([table.rows[name] for name in INDICES], axis=1)
    folded = _fold(columns, table.L)
    first, flip = _orient(folded, table.shape)
    second, swap_flip = _orient(_swap(folded), table.shape)
    swap = _lexicographically_less(_sort_key(second), _sort_key(first))
    chosen = np.where(swap[:, None], second, first)
    distinct, index = np.unique(chosen, axis=0, return_inverse=True)
    return Canonical(
        distinct=_structured(distinct),
        index=index.reshape(-1).astype(np.int64),
        conjugate=np.where(swap, ~swap_flip, flip),
        real=_is_real(first, second, flip == swap_flip, table.shape),
    )


def _fold(columns: NDArray[np.int64], L: int) -> NDArray[np.int64]:
    """Bring angles to 0..L-1, flipping the sign of k; low passes to k = 0 or 1."""
    folded = columns.copy()
    for angle, k in SIDES:
        low_pass = columns[:, angle] == LOW_PASS
        folded[:, angle] = np.where(low_pass, LOW_PASS, columns[:, angle] % L)
        turned = np.where(columns[:, angle] >= L, -columns[:, k], columns[:, k])
        folded[:, k] = np.where(low_pass, columns[:, k] % 2, turned)
    return folded


def _swap(columns: NDArray[np.int64]) -> NDArray[np.int64]:
    """Exchange the sides, which conjugates at the opposite shift."""
    swapped = columns[:, [J2, L2, K2, J1, L1, K1, Y, X]]
    swapped[:, [Y, X]] *= -1
    return swapped


def _orient(
    columns: NDArray[np.int64], shape: tuple[int, int]
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Make the first non-zero k of a wavelet positive, by conjugation; shifts nearest to 0."""
    k1, k2 = (np.where(columns[:, a] == LOW_PASS, 0, columns[:, k]) for a, k in SIDES)
    flip = (k1 < 0) | ((k1 == 0) & (k2 < 0))
    oriented = columns.copy()
    for angle, k in SIDES:
        turned = flip & (columns[:, angle] != LOW_PASS)
        oriented[:, k] = np.where(turned, -columns[:, k], columns[:, k])
    for axis, size in ((Y, shape[0]), (X, shape[1])):
        wrapped = columns[:, axis] % size
        oriented[:, axis] = np.where(wrapped > size // 2, wrapped - size, wrapped)
    return oriented, flip


def _sort_key(columns: NDArray[np.int64]) -> NDArray[np.int64]:
    """Order sides by scale, harmonic, angle: moduli first, so that few kinds of pairs remain."""
    k1 = np.abs(columns[:, K1])
    return np.column_stack([columns[:, J1], k1, columns[:, [L1, J2, K2, L2, K1, Y, X]]])


def _lexicographically_less(a: NDArray[np.int64], b: NDArray[np.int64]) -> NDArray[np.bool_]:
    differs = a != b
    first = differs.argmax(axis=1)
    row = np.arange(len(a))
    return np.asarray(differs.any(axis=1) & (a[row, first] < b[row, first]))


def _is_real(
    first: NDArray[np.int64],
    second: NDArray[np.int64],
    same_parity: NDArray[np.bool_],
    shape: tuple[int, int],
) -> NDArray[np.bool_]:
    """Tell which covariances equal their own conjugate.

    Those with both sides real; those whose mirror image is the row itself, conjugated; and those
    with both sides linear in x at a shift that is its own opposite: filters' transforms are real.
    """
    l1, k1, l2, k2 = (first[:, column] for column in (L1, K1, L2, K2))
    real_sides = ((l1 == LOW_PASS) | (k1 == 0)) & ((l2 == LOW_PASS) | (k2 == 0))
    itself = (first == second).all(axis=1) & same_parity
    linear = (np.abs(k1) == 1) & (np.abs(k2) == 1)
    symmetric = (2 * first[:, [Y, X]] % np.array(shape) == 0).all(axis=1)
    return np.asarray(real_sides | itself | (linear & symmetric))


def _structured(columns: NDArray[np.int64]) -> Rows:
    rows = np.zeros(len(columns), dtype=ROW)
    for position, name in enumerate(INDICES):
        rows[name] = columns[:, position]
    return rows
