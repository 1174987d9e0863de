"""Tables of the moments that phase-harmonic models hold: enumerated once, here.

What a row is, and which rows are mirror images of each other, is in :mod:`.mirrors`.

Sources: Zhang and Mallat, *Maximum entropy models from phase harmonic covariances*, ACHA 53, 199
(2021); Allys et al., *New interpretable statistics for large-scale structure analysis and
generation*, Phys. Rev. D 102, 103506 (2020); Regaldo-Saint Blancard et al., *A new approach for
the statistical denoising of Planck interstellar dust polarization data*, A&A 649, L18 (2021), and
its code pywph.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np

from wavemill.errors import InvalidParameter
from wavemill.filters.bump_steerable import CENTRE, low_pass_width
from wavemill.moments.mirrors import INDICES, LOW_PASS, ROW, Canonical, MomentTable, Rows, canonical
from wavemill.operators import check_whole

__all__ = [
    "INDICES",
    "LOW_PASS",
    "ROW",
    "SETS",
    "Canonical",
    "MomentTable",
    "Rows",
    "canonical",
    "model",
    "nominal_count",
    "pywph_classes",
]

SETS = ("A0", "A", "B", "C", "C+L", "C+moduli", "D", "pywph")
_DIRECTIONS = 4  # of pywph's shifts in a half turn
_NEIGHBOURS = ((0, 0), (0, 1), (0, 2), (1, 2))  # harmonics (k1, k2) of scales j, j + 1

Row = tuple[int, int, int, int, int, int, int, int, str]
Shift = tuple[int, int]


def model(name: str, shape: tuple[int, int], J: int, L: int, lags: int = 2) -> MomentTable:
    """Return the moments of a named model, each distinct one once.

    Parameters
    ----------
    name
        ``A0``: energies of the bands and of phi_J. ``A``: with lags, all second order. ``B``: adds
        moduli with lags, and pairs of angles at one scale, at most pi / 2 apart, in (k1, k2) =
        (1, 0), (1, 1), (0, 0).
        ``C``: adds pairs of neighbouring scales in (0, 0), (0, 1), (0, 2), (1, 2).
        ``C+L``: adds low passes phi_1 to phi_J in (0, 0), (0, 1), (1, 1), for the distribution of
        values. ``C+moduli``: adds moduli of all pairs of scales and angles with lags of the coarser
        scale, and (0, 1) of scales that are not neighbours, for roughness in the same places.
        ``D``: no shifts, the pairs of C at every distance of angles, averaged over directions.
        ``pywph``: classes S11, S00, S01, C01, Cphase and L (:func:`pywph_classes`).
    shape, J, L
        Grid ``(y, x)``, scales, and angles in a half turn.
    lags
        Shifts are ``2^j (n_y, n_x)``, each of n_y, n_x within ``lags``.

    Returns
    -------
    MomentTable
        For a grid of 256^2 with J = 5, L = 8, lags = 2: 41, 1,013, 2,473, 4,329 and 266 real
        moments for A0, A, B, C, D; with L = 4, lags = 1: 2,803 for C+moduli.
        :func:`nominal_count` counts mirror images and zeros too.

    Raises
    ------
    InvalidParameter
        If the name is unknown or the coarsest wavelet does not fit on the grid.
    """
    _check(name, shape, J, L, lags)
    if name == "pywph":
        return pywph_classes(shape, J, L, lags)
    widths = {j: low_pass_width(j) for j in range(1, J + 1)}
    if name == "D":
        rows = list(_isotropic(J, L))
        return MomentTable(shape, J, L, np.array(rows, dtype=ROW), widths, run=L)
    rows = list(_zhang_mallat(name, J, L, 0 if name == "A0" else lags, L // 2))
    table = MomentTable(shape, J, L, np.array(rows, dtype=ROW), widths)
    return _once(table)


def nominal_count(name: str, J: int, L: int, lags: int = 2) -> int:
    """Return how many real numbers a model of Zhang and Mallat is said to hold.

    Over all 2L angles, complex covariances count twice, and mirror images and zeros are included; a
    covariance in two classes counts once. D: real and imaginary parts over angular frequencies.

    Raises
    ------
    InvalidParameter
        If the name is not one of A0, A, B, C, D.
    """
    bands, shifts, near = 2 * L * J, len(_half_plane(lags)) + lags, 2 * (L // 2) + 1
    second = bands * (1 + 2 * shifts) + 1 + shifts
    angular = bands * ((near - 1) * 2 + near * (2 + 1))
    counts = {
        "A0": bands + 1,
        "A": second,
        "B": second + bands * shifts + angular,
        "C": second + bands * shifts + angular + 2 * L * (J - 1) * near * (1 + 2 + 2 + 2),
        "D": 2 * L * (J * (1 + 1 + 2) + (J - 1) * (1 + 2 + 2 + 2)) + 1,
    }
    if name not in counts:
        raise InvalidParameter(f"no nominal count of {name!r}; choose one of {', '.join(counts)}")
    return counts[name]


def pywph_classes(shape: tuple[int, int], J: int, L: int, lags: int = 2) -> MomentTable:
    """Return the moments of the pywph classes, in that package's order.

    Shifts have length 2^n, n = 1..``lags``, whatever the scale, along 4 directions in a half
    turn, counted from the second wavelet's angle downwards. S11, S00 and S01: one wavelet,
    (k1, k2) = (1, 1), (0, 0), (0, 1). C01: scales j1 < j2 in (0, 1). Cphase: same angle, in
    (1, 2^(j2-j1)), with n <= J - 1 - j2. L: low passes phi_j, without the field's mean, in (0, 0),
    (0, 1), (1, 1).

    Parameters
    ----------
    shape, J, L
        Grid ``(y, x)``, scales, and angles in a half turn; only these L angles are used.
    lags
        Largest n; 0 for no shifts.

    Returns
    -------
    MomentTable
        Low pass ``phi_j`` has the scale index of phi_J at J = j, pywph's own index plus 2.
    """
    bands = [(j, q) for j in range(J) for q in range(L)]
    scales = range(1, J // 4 + 3)
    maker = _Pywph(L, lags)
    rows = [
        *(row for j, q in bands for row in maker.rows("S11", (j, q, 1), (j, q, 1), 1)),
        *(row for j, q in bands for row in maker.rows("S00", (j, q, 0), (j, q, 0), 1)),
        *((j, q, 0, j, q, 1, 0, 0, "S01") for j, q in bands),
        *maker.c01(J),
        *maker.cphase(J),
        *((j, -1, k1, j, -1, k2, 0, 0, "L") for j in scales for k1, k2 in ((0, 0), (0, 1), (1, 1))),
    ]
    widths = {j: 2.0 ** (j - 2) / (0.496 * 2.0**-0.55 * CENTRE) for j in scales}
    return MomentTable(shape, J, L, np.array(rows, dtype=ROW), widths, centred=True)


def _check(name: str, shape: tuple[int, int], J: int, L: int, lags: int) -> None:
    if name not in SETS:
        raise InvalidParameter(f"no set of moments {name!r}; choose one of {', '.join(SETS)}")
    check_whole(J=J, L=L, lags=lags)
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
        if name not in ("A0", "A"):
            yield from _angular(j, j, L, reach, ((1, 0), (1, 1), (0, 0)))
        if name.startswith("C") and j + 1 < J:
            yield from _angular(j, j + 1, L, reach, _NEIGHBOURS)
    for ny, nx in shifts:
        yield (J, LOW_PASS, 1, J, LOW_PASS, 1, ny << (J - 1), nx << (J - 1), "L11")
    if name == "C+L":
        yield from _scaling(range(1, J + 1))
    if name == "C+moduli":
        yield from _moduli(J, L, lags, reach)


def _scaling(scales: range) -> Iterator[Row]:
    for j, (k1, k2) in product(scales, ((0, 0), (0, 1), (1, 1))):
        yield (j, LOW_PASS, k1, j, LOW_PASS, k2, 0, 0, f"L{k1}{k2}")


def _moduli(J: int, L: int, lags: int, reach: int) -> Iterator[Row]:
    """Yield the moduli that C lacks: every pair of scales and angles, at shifts of both signs."""
    span, steps = range(-lags, lags + 1), range(-reach, reach + 1)
    for j1, j2 in itertools.combinations_with_replacement(range(J), 2):
        for q, step, ny, nx in product(range(L), steps, span, span):
            second = (j2, (q + step) % (2 * L), 0)
            yield (j1, q, 0, *second, ny << j2, nx << j2, "C00")
        if j2 > j1 + 1:
            yield from _angular(j1, j2, L, reach, ((0, 1),))


def _angular(
    j1: int, j2: int, L: int, reach: int, harmonics: tuple[tuple[int, int], ...]
) -> Iterator[Row]:
    for (k1, k2), q, step in product(harmonics, range(L), range(-reach, reach + 1)):
        yield (j1, q, k1, j2, (q + step) % (2 * L), k2, 0, 0, f"C{k1}{k2}")


def _isotropic(J: int, L: int) -> Iterator[Row]:
    """Yield D: for each pair of scales and harmonics and each distance of angles, all directions.

    Of distances that give equal means for real x, it takes only the first: k = 0 does not tell d
    from d + L, nor do equal sides tell d from -d; opposite wavelets share no frequency.
    """
    for j in range(J):
        kinds = [(j, 0, 0, L // 2 + 1), (j, 1, 1, L), (j, 0, 1, L)]
        if j + 1 < J:
            kinds += [(j + 1, k1, k2, 2 * L if k1 else L) for k1, k2 in _NEIGHBOURS]
        for j2, k1, k2, distances in kinds:
            for distance, q in product(range(distances), range(L)):
                yield (j, q, k1, j2, (q + distance) % (2 * L), k2, 0, 0, f"D{k1}{k2}")
    for _ in range(L):
        yield (J, LOW_PASS, 1, J, LOW_PASS, 1, 0, 0, "L11")


@dataclass(frozen=True)
class _Pywph:
    L: int
    lags: int

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
            for a in range(turns * _DIRECTIONS):
                angle = np.pi * (second[1] / self.L - a / _DIRECTIONS)
                dy, dx = (round(2**n * float(part)) for part in (np.sin(angle), np.cos(angle)))
                yield (*first, *second, dy, dx, name)

    def c01(self, J: int) -> Iterator[Row]:
        for j1, j2 in _scales(J):
            for q, step in product(range(self.L), range(-(self.L // 2), self.L // 2)):
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
