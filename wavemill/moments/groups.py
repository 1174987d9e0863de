"""Groups of channels that are computed together: one scale, one harmonic, all angles in use."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from wavemill.filters import bump_steerable
from wavemill.moments.boxes import box_of, crop
from wavemill.moments.pairs import LOW_PASS, MomentTable, Rows

Scale = tuple[bool, int]  # is a low pass, index j
Group = tuple[bool, int, int]  # and harmonic k >= 0: some channels


def is_linear(group: Group) -> bool:
    """Tell whether a group is x * psi itself, without mean."""
    return group[2] == 1 and not group[0]


def groups(rows: Rows, side: str) -> list[Group]:
    """Return the group of one side of each row; the sign of k2 is the block's business."""
    low_pass = rows["l" + side] == LOW_PASS
    columns = (low_pass, rows["j" + side], np.abs(rows["k" + side]))
    return list(zip(*(column.tolist() for column in columns), strict=True))


def angles_by_group(rows: Rows) -> dict[Group, list[int]]:
    """Return the contiguous angles of each group: fine to coarse, low passes last."""
    angles: dict[Group, set[int]] = {}
    for side in "12":
        for group, angle in zip(groups(rows, side), rows["l" + side].tolist(), strict=True):
            angles.setdefault(group, set()).add(angle)
    return {
        group: list(range(min(members), max(members) + 1))
        for group, members in sorted(angles.items())
    }


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
        return table.low_pass_filter(j)[None]
    bank = bump_steerable.wavelets_at(table.shape, j, angles, table.L)
    return crop(bank, box_of(bank))
