"""What schedules hold: filters, shared by all of them, and how many numbers a point as they run."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from wavemill.moments.groups import Group, Scale, bands_of, filters_of
from wavemill.moments.pairs import MomentTable


@dataclass(frozen=True)
class Filters:
    """Filters of one scale at some angles, ``(angle, y, x)`` in their box: float64, and complex."""

    angles: list[int]
    exact: Tensor
    filters: Tensor

    def among(self, angles: list[int]) -> slice:
        """Return where contiguous angles are."""
        start = self.angles.index(angles[0])
        return slice(start, start + len(angles))


Bank = dict[Scale, Filters]


def bank_of(table: MomentTable, angles: dict[Group, list[int]], dtype: torch.dtype) -> Bank:
    """Return the filters of each scale, in float64 and in the complex type of a precision."""
    bank = {}
    for scale, found in bands_of(angles).items():
        exact = filters_of(table, scale, found)
        bank[scale] = Filters(found, exact, exact.to(dtype.to_complex()))
    return bank


def points_held(
    angles: dict[Group, list[int]], pairs: set[tuple[Group, Group]], gradient: bool
) -> int:
    """Return how many real numbers a point a schedule holds at most, for one field.

    A scale holds its responses and what is made of them, from its first group to its last pair; a
    group its fields or spectra, and their gradient.
    """
    place = {group: step for step, group in enumerate(angles)}
    end = dict(place)
    for a, b in pairs:
        end[a], end[b] = (max(end[side], place[a], place[b]) for side in (a, b))
    of_scale, of_group, most = (14, 8, 0) if gradient else (8, 4, 0)
    for step, group in enumerate(angles):
        alive = [other for other in angles if place[other] <= step <= end[other]]
        scales: dict[Scale, int] = {}
        for scale, members in bands_of(angles).items():
            own = [other for other in angles if other[:2] == scale]
            if min(place[other] for other in own) <= step <= max(end[other] for other in own):
                scales[scale] = len(members)
        held = of_group * sum(len(angles[other]) for other in alive)
        held += of_scale * sum(scales.values()) + 12 * len(angles[group])
        most = max(most, held)
    return most + 16
