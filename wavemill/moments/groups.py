"""Groups of channels that are computed together: one scale, one harmonic, all angles in use."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from torch import Tensor

from wavemill.filters import bump_steerable
from wavemill.moments.boxes import box_of, crop
from wavemill.moments.pairs import LOW_PASS, MomentTable, Rows


class Scale(NamedTuple):
    """Filters of one size: wavelets, or a low pass. They sort fine to coarse, low passes last."""

    low_pass: bool
    j: int

    @property
    def buffer(self) -> str:
        """Name of the tensor that holds the filters in a module."""
        return f"_{'phi' if self.low_pass else 'psi'}_{self.j}"


class Source(NamedTuple):
    """What channels are made of: the filters of a scale, and a component of the field."""

    scale: Scale
    component: int


class Group(NamedTuple):
    """Some channels: a scale, a harmonic k >= 0, and a component of the field."""

    low_pass: bool
    j: int
    k: int
    component: int = 0

    @property
    def scale(self) -> Scale:
        """The scale of all its channels."""
        return Scale(self.low_pass, self.j)

    @property
    def source(self) -> Source:
        """What its channels are made of."""
        return Source(self.scale, self.component)

    @property
    def linear(self) -> bool:
        """Whether it is x * psi itself, whose mean is 0; y of a low pass has a mean to subtract."""
        return self.k == 1 and not self.low_pass

    @property
    def real(self) -> bool:
        """Whether its fields are real."""
        return self.low_pass or self.k == 0


def groups(rows: Rows, side: str) -> list[Group]:
    """Return the group of one side of each row; the sign of k2 is the block's business."""
    low_pass = rows["l" + side] == LOW_PASS
    columns = [low_pass, rows["j" + side], np.abs(rows["k" + side])]
    if "component" + side in (rows.dtype.names or ()):
        columns.append(rows["component" + side])
    found = list(zip(*(column.tolist() for column in columns), strict=True))
    known = {values: Group(*values) for values in set(found)}  # few for many rows
    return [known[values] for values in found]


def angles_by_group(rows: Rows) -> dict[Group, list[int]]:
    """Return the contiguous angles of each group: fine to coarse, low passes last."""
    angles: dict[Group, set[int]] = {}
    for side in "12":
        for group, angle in zip(groups(rows, side), rows["l" + side].tolist(), strict=True):
            angles.setdefault(group, set()).add(angle)
    return {group: _contiguous(members) for group, members in sorted(angles.items())}


def spans(angles: dict[Group, list[int]]) -> dict[Group, slice]:
    """Return the numbers of each group's channels, counted group after group."""
    stops = np.cumsum([len(members) for members in angles.values()]).tolist()
    pairs = zip(angles.items(), stops, strict=True)
    return {group: slice(stop - len(members), stop) for (group, members), stop in pairs}


def bands_of(angles: dict[Group, list[int]]) -> dict[Scale, list[int]]:
    """Return the contiguous angles of each scale."""
    bands: dict[Scale, set[int]] = {}
    for group, members in angles.items():
        bands.setdefault(group.scale, set()).update(members)
    return {scale: _contiguous(members) for scale, members in bands.items()}


def among(angles: list[int], band: list[int]) -> slice:
    """Return where contiguous angles are among others."""
    start = band.index(angles[0])
    return slice(start, start + len(angles))


def filters_of(table: MomentTable, scale: Scale, angles: list[int]) -> Tensor:
    """Return a scale's filters in their box, ``(angle, y, x)`` float64."""
    if scale.low_pass:
        return table.low_pass_filter(scale.j)[None]
    bank = bump_steerable.wavelets_at(table.shape, scale.j, angles, table.L)
    return crop(bank, box_of(bank))


def _contiguous(angles: set[int]) -> list[int]:
    return list(range(min(angles), max(angles) + 1))
