"""Groups of channels that are computed together: one scale, one harmonic, some or all angles."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from wavemill.boxes import box_of, crop
from wavemill.filters import bump_steerable
from wavemill.pairs import LOW_PASS, MomentTable, Rows

Scale = tuple[bool, int]  # is a low pass, index j
Group = tuple[bool, int, int, int]  # and harmonic k >= 0, and the first angle: some channels


def is_linear(group: Group) -> bool:
    """Tell whether a group is x * psi itself, without mean."""
    return group[2] == 1 and not group[0]


def groups(rows: Rows, side: str) -> list[Group]:
    """Return the group of one side of each row; the sign of k2 is the block's business.

    Of harmonics k >= 2 that are shifted each angle is a group by itself: they are numerous, and
    what is at work at a time then fits into caches. Otherwise all angles of a scale and harmonic,
    from the first to the last in use, are one group.
    """
    low_pass = rows["l" + side] == LOW_PASS
    k = np.abs(rows["k" + side])
    alone = (k >= 2) & ~low_pass & np.isin(k, _shifted_harmonics(rows))
    angle = np.where(alone, rows["l" + side], LOW_PASS)
    columns = (low_pass, rows["j" + side], k, angle)
    return list(zip(*(column.tolist() for column in columns), strict=True))


def _shifted_harmonics(rows: Rows) -> NDArray[np.int64]:
    moved = rows[(rows["shift_y"] != 0) | (rows["shift_x"] != 0)]
    return np.unique(np.abs(np.concatenate([moved["k1"], moved["k2"]])))


def angles_by_group(rows: Rows) -> dict[Group, list[int]]:
    """Return the contiguous angles of each group: fine to coarse, low passes last."""
    angles: dict[Group, set[int]] = {}
    for side in "12":
        for group, angle in zip(groups(rows, side), rows["l" + side].tolist(), strict=True):
            angles.setdefault(group, set()).add(angle)
    order = sorted(angles, key=lambda group: (group[:2], group[3], group[2]))
    return {group: list(range(min(angles[group]), max(angles[group]) + 1)) for group in order}


def spans(angles: dict[Group, list[int]]) -> dict[Group, slice]:
    """Return the numbers of each group's channels, counted group after group."""
    stops = np.cumsum([len(members) for members in angles.values()]).tolist()
    pairs = zip(angles.items(), stops, strict=True)
    return {group: slice(stop - len(members), stop) for (group, members), stop in pairs}


def bands_of(angles: dict[Group, list[int]]) -> dict[Scale, list[int]]:
    """Return the contiguous angles of each scale."""
    bands: dict[Scale, set[int]] = {}
    for group, members in angles.items():
        bands.setdefault(group[:2], set()).update(members)
    return {s: list(range(min(members), max(members) + 1)) for s, members in bands.items()}


def filters_of(table: MomentTable, scale: Scale, angles: list[int]) -> Tensor:
    """Return a scale's filters in their box, ``(angle, y, x)`` float64."""
    low_pass, j = scale
    if low_pass:
        return bump_steerable.low_pass(table.shape, table.low_pass[j])[None]
    bank = bump_steerable.wavelets_at(table.shape, j, angles, table.L)
    return crop(bank, box_of(bank))
