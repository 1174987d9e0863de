"""Tables of the moments that phase-harmonic models hold: enumerated once, here.

A row (j1, l1, k1, j2, l2, k2, shift) stands for the covariance

    mean over u of a(u + shift) conj b(u) ,  a = [x * psi_{j1,l1}]^k1 ,  b = [x * psi_{j2,l2}]^k2 ,

of a periodic real field x, each side centred. Angle indices l = 0..2L-1 cover the circle; l = -1 is
a low pass phi of scale index j, whose response y is real: [y]^k is y for odd k, |y| for even k.

For real x, ``x * psi_{j,l+L}`` is the conjugate of ``x * psi_{j,l}``, [z]^-k that of [z]^k, and
swapping the sides of a covariance conjugates it at the opposite shift. :func:`canonical` brings a
row to the one form that all its mirror images share; model tables hold each form once.

Sources: Zhang and Mallat, *Maximum entropy models from phase harmonic covariances*, ACHA 53, 199
(2021); Allys et al., *New interpretable statistics for large-scale structure analysis and
generation*, Phys. Rev. D 102, 103506 (2020); Regaldo-Saint Blancard et al., *A new approach for
the statistical denoising of Planck interstellar dust polarization data*, A&A 649, L18 (2021), and
its code pywph.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import product

import numpy as np
from numpy.typing import NDArray

from wavemill.errors import InvalidParameter
from wavemill.filters.bump_steerable import CENTRE, low_pass_width

LOW_PASS = -1  # the "angle" of a low pass
INDICES = ("j1", "l1", "k1", "j2", "l2", "k2", "shift_y", "shift_x")
ROW = np.dtype([(name, np.int64) for name in INDICES] + [("class", "U16")])
SETS = ("A0", "A", "B", "C", "C+L", "pywph")

Rows = NDArray[np.void]
Row = tuple[int, int, int, int, int, int, int, int, str]
Shift = tuple[int, int]


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
    """

    shape: tuple[int, int]
    J: int
    L: int
    rows: Rows
    low_pass: Mapping[int, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse rows that name no filter."""
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

    @property
    def real_count(self) -> int:
        """Number of real moments: complex ones count twice."""
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


def model(
    name: str, shape: tuple[int, int], J: int, L: int, lags: int = 2, angles: int | None = None
) -> MomentTable:
    """Return the moments of a named model, each distinct one once.

    Parameters
    ----------
    name
        ``A0``: energies of the bands and of phi_J. ``A``: with lags, all second order. ``B``: adds
        moduli with lags, and pairs of angles at one scale in (k1, k2) = (1, 0), (1, 1), (0, 0).
        ``C``: adds pairs of neighbouring scales in (0, 0), (0, 1), (0, 2), (1, 2).
        ``C+L``: adds low passes phi_1 to phi_J in (0, 0), (0, 1), (1, 1), for the distribution of
        values. ``pywph``: classes S11, S00, S01, C01, Cphase and L (:func:`pywph_classes`).
    shape, J, L
        Grid ``(y, x)``, scales, and angles in a half turn.
    lags
        Shifts are ``2^j (n_y, n_x)``, each of n_y, n_x within ``lags``.
    angles
        Largest distance between two angle indices; None: L // 2, which is pi / 2.

    Returns
    -------
    MomentTable
        For a grid of 256^2 with J = 5, L = 8, lags = 2: 41, 1,013, 2,473 and 4,329 real moments
        for A0, A, B, C. (Counted with their mirror images and zeros, B has 6,895, C 10,927.)

    Raises
    ------
    InvalidParameter
        If the name is unknown or the coarsest wavelet does not fit on the grid.
    """
    _check(name, shape, J, L, lags)
    if name == "pywph":
        return pywph_classes(shape, J, L, lags)
    reach = L // 2 if angles is None else angles
    rows = list(_zhang_mallat(name, J, L, 0 if name == "A0" else lags, reach))
    widths = {j: low_pass_width(j) for j in range(1, J + 1)}
    table = MomentTable(shape, J, L, np.array(rows, dtype=ROW), widths)
    return _once(table)


def pywph_classes(
    shape: tuple[int, int], J: int, L: int, lags: int = 2, directions: int = 4
) -> MomentTable:
    """Return the moments of the pywph classes, in that package's order.

    Shifts have length 2^n, n = 1..``lags``, whatever the scale, along ``directions`` angles in a
    half turn, counted from the second wavelet's angle downwards. S11, S00 and S01: one wavelet,
    (k1, k2) = (1, 1), (0, 0), (0, 1). C01: scales j1 < j2 in (0, 1). Cphase: same angle, in
    (1, 2^(j2-j1)), with n <= J - 1 - j2. L: low passes phi_j in (0, 0), (0, 1), (1, 1).

    Parameters
    ----------
    shape, J, L
        Grid ``(y, x)``, scales, and angles in a half turn; only these L angles are used.
    lags
        Largest n; 0 for no shifts.
    directions
        Directions in a half turn.

    Returns
    -------
    MomentTable
        Low pass ``phi_j`` has the scale index of phi_J at J = j, pywph's own index plus 2.
    """
    bands = [(j, q) for j in range(J) for q in range(L)]
    scales = range(1, J // 4 + 3)
    maker = _Pywph(L, lags, directions)
    rows = [
        *(row for j, q in bands for row in maker.rows("S11", (j, q, 1), (j, q, 1), 1)),
        *(row for j, q in bands for row in maker.rows("S00", (j, q, 0), (j, q, 0), 1)),
        *((j, q, 0, j, q, 1, 0, 0, "S01") for j, q in bands),
        *maker.c01(J),
        *maker.cphase(J),
        *((j, -1, k1, j, -1, k2, 0, 0, "L") for j in scales for k1, k2 in ((0, 0), (0, 1), (1, 1))),
    ]
    widths = {j: 2.0 ** (j - 2) / (0.496 * 2.0**-0.55 * CENTRE) for j in scales}
    return MomentTable(shape, J, L, np.array(rows, dtype=ROW), widths)


def _check(name: str, shape: tuple[int, int], J: int, L: int, lags: int) -> None:
    if name not in SETS:
        raise InvalidParameter(f"no set of moments {name!r}; choose one of {', '.join(SETS)}")
    if J < 1 or L < 2 or lags < 0:
        raise InvalidParameter(f"moments need J >= 1, L >= 2, lags >= 0; got {J}, {L}, {lags}")
    if min(shape) < 2**J:
        raise InvalidParameter(
            f"J={J} scales need a grid of {2**J} points a side, got {shape}: lower J"
        )


def _half_plane(reach: int) -> list[Shift]:
    """Return one of each pair +-(n_y, n_x), without (0, 0)."""
    span = range(-reach, reach + 1)
    return [(ny, nx) for ny in range(reach + 1) for nx in span if ny > 0 or nx > 0]


def _zhang_mallat(name: str, J: int, L: int, lags: int, reach: int) -> Iterator[Row]:
    """Yield the rows of A0, A, B or C; some are mirror images of others."""
    shifts = [(0, 0), *_half_plane(lags)]
    for j in range(J):
        harmonics = (1,) if name in ("A0", "A") else (0, 1)
        for q, k, (ny, nx) in product(range(L), harmonics, shifts):
            yield (j, q, k, j, q, k, ny << j, nx << j, f"S{k}{k}")
        if name in ("B", "C", "C+L"):
            yield from _angular(j, j, L, reach, ((1, 0), (1, 1), (0, 0)))
        if name in ("C", "C+L") and j + 1 < J:
            yield from _angular(j, j + 1, L, reach, ((0, 0), (0, 1), (0, 2), (1, 2)))
    for ny, nx in shifts:
        yield (J, LOW_PASS, 1, J, LOW_PASS, 1, ny << (J - 1), nx << (J - 1), "L11")
    if name == "C+L":
        yield from _scaling(range(1, J + 1))


def _scaling(scales: range) -> Iterator[Row]:
    for j, (k1, k2) in product(scales, ((0, 0), (0, 1), (1, 1))):
        yield (j, LOW_PASS, k1, j, LOW_PASS, k2, 0, 0, f"L{k1}{k2}")


def _angular(
    j1: int, j2: int, L: int, reach: int, harmonics: tuple[tuple[int, int], ...]
) -> Iterator[Row]:
    for (k1, k2), q, step in product(harmonics, range(L), range(-reach, reach + 1)):
        yield (j1, q, k1, j2, (q + step) % (2 * L), k2, 0, 0, f"C{k1}{k2}")


@dataclass(frozen=True)
class _Pywph:
    L: int
    lags: int
    directions: int

    def rows(
        self,
        name: str,
        first: tuple[int, int, int],
        second: tuple[int, int, int],
        turns: int,
        lags: int | None = None,
    ) -> Iterator[Row]:
        """Yield a pair at zero and at each shift, over ``turns`` half turns of directions."""
        yield (*first, *second, 0, 0, name)
        for n in range(1, (self.lags if lags is None else lags) + 1):
            for a in range(turns * self.directions):
                angle = np.pi * (second[1] / self.L - a / self.directions)
                dy, dx = (round(2**n * float(part)) for part in (np.sin(angle), np.cos(angle)))
                yield (*first, *second, dy, dx, name)

    def c01(self, J: int) -> Iterator[Row]:
        for j1, j2 in _scales(J):
            for q, step in product(range(self.L), range(-(self.L // 2), self.L - self.L // 2)):
                lags = self.lags if step == 0 else 0
                second = (j2, (q + step) % self.L, 1)
                yield from self.rows("C01", (j1, q, 0), second, 2, lags)

    def cphase(self, J: int) -> Iterator[Row]:
        for (j1, j2), q in product(_scales(J), range(self.L)):
            lags = min(self.lags, J - 1 - j2)
            yield from self.rows("Cphase", (j1, q, 1), (j2, q, 2 ** (j2 - j1)), 2, lags)


def _scales(J: int) -> Iterator[tuple[int, int]]:
    return ((j1, j2) for j1 in range(J) for j2 in range(j1 + 1, J))


def _once(table: MomentTable) -> MomentTable:
    """Keep the first of the rows that are mirror images, in canonical form."""
    form = canonical(table)
    _, first = np.unique(form.index, return_index=True)
    kept = np.sort(first)
    rows = form.distinct[form.index[kept]]
    rows["class"] = table.rows["class"][kept]
    return MomentTable(table.shape, table.J, table.L, rows, table.low_pass)


def _fold(columns: NDArray[np.int64], L: int) -> NDArray[np.int64]:
    """Bring angles to 0..L-1, flipping the sign of k; low passes to k = 0 or 1."""
    folded = columns.copy()
    for angle, k in ((1, 2), (4, 5)):
        low_pass = columns[:, angle] == LOW_PASS
        folded[:, angle] = np.where(low_pass, LOW_PASS, columns[:, angle] % L)
        turned = np.where(columns[:, angle] >= L, -columns[:, k], columns[:, k])
        folded[:, k] = np.where(low_pass, columns[:, k] % 2, turned)
    return folded


def _swap(columns: NDArray[np.int64]) -> NDArray[np.int64]:
    """Exchange the sides, which conjugates at the opposite shift."""
    swapped = columns[:, [3, 4, 5, 0, 1, 2, 6, 7]]
    swapped[:, 6:] *= -1
    return swapped


def _orient(
    columns: NDArray[np.int64], shape: tuple[int, int]
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Make the first non-zero k of a wavelet positive, by conjugation; shifts nearest to 0."""
    k1 = np.where(columns[:, 1] == LOW_PASS, 0, columns[:, 2])
    k2 = np.where(columns[:, 4] == LOW_PASS, 0, columns[:, 5])
    flip = (k1 < 0) | ((k1 == 0) & (k2 < 0))
    oriented = columns.copy()
    oriented[:, 2] = np.where(flip & (columns[:, 1] != LOW_PASS), -columns[:, 2], columns[:, 2])
    oriented[:, 5] = np.where(flip & (columns[:, 4] != LOW_PASS), -columns[:, 5], columns[:, 5])
    for axis, size in ((6, shape[0]), (7, shape[1])):
        wrapped = columns[:, axis] % size
        oriented[:, axis] = np.where(wrapped > size // 2, wrapped - size, wrapped)
    return oriented, flip


def _sort_key(columns: NDArray[np.int64]) -> NDArray[np.int64]:
    """Order sides by scale, harmonic, angle: moduli first, so that few kinds of pairs remain."""
    j1, l1, k1 = columns[:, 0], columns[:, 1], columns[:, 2]
    return np.column_stack([j1, np.abs(k1), l1, columns[:, [3, 5, 4, 2, 6, 7]]])


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

    Both sides real; or a row whose mirror image is itself, conjugated; or both sides linear in x
    at a shift that is its own opposite, since the filters' transforms are real.
    """
    l1, k1, l2, k2 = (first[:, column] for column in (1, 2, 4, 5))
    real_sides = ((l1 == LOW_PASS) | (k1 == 0)) & ((l2 == LOW_PASS) | (k2 == 0))
    itself = (first == second).all(axis=1) & same_parity
    linear = (np.abs(k1) == 1) & (np.abs(k2) == 1)
    symmetric = (2 * first[:, 6:] % np.array(shape) == 0).all(axis=1)
    return np.asarray(real_sides | itself | (linear & symmetric))


def _structured(columns: NDArray[np.int64]) -> Rows:
    rows = np.zeros(len(columns), dtype=ROW)
    for position, name in enumerate(INDICES):
        rows[name] = columns[:, position]
    return rows
