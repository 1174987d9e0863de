"""What schedules hold: filters, which they share, and numbers for each point while they run."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from wavemill.moments.groups import Group, Scale, Source, among, bands_of, filters_of
from wavemill.moments.pairs import MomentTable


@dataclass(frozen=True)
class Filters:
    """Filters of one scale at some angles, real ``(angle, y, x)`` in a box: float64 and rounded."""

    angles: list[int]
    exact: Tensor
    filters: Tensor

    def at(self, angles: list[int]) -> Filters:
        """Return the filters at some contiguous angles, in the same memory."""
        place = among(angles, self.angles)
        return Filters(angles, self.exact[place], self.filters[place])


def bank_of(
    table: MomentTable, angles: dict[Group, list[int]], dtype: torch.dtype
) -> dict[Scale, Filters]:
    """Return the filters of each scale, in float64 and in ``dtype``."""
    bank = {}
    for scale, found in bands_of(angles).items():
        exact = filters_of(table, scale, found)
        bank[scale] = Filters(found, exact, exact.to(dtype))
    return bank


def points_held(
    angles: dict[Group, list[int]], pairs: set[tuple[Group, Group]], gradient: bool
) -> int:
    """Return the most real numbers for each point that a schedule holds, for one field.

    A component's scale holds its responses and what is made of them, from its first group to its
    last pair; a group holds its fields or spectra, and their gradient.
    """
    place = {group: step for step, group in enumerate(angles)}
    end = dict(place)
    for a, b in pairs:
        end[a], end[b] = (max(end[side], place[a], place[b]) for side in (a, b))
    lives: dict[Source, list[int]] = {}
    for group in angles:
        lives.setdefault(group.source, []).extend((place[group], end[group]))
    bands = bands_of(angles)
    sources = [(min(ends), max(ends), len(bands[one.scale])) for one, ends in lives.items()]
    of_source, of_group, most = (14, 8, 0) if gradient else (8, 4, 0)
    for step, group in enumerate(angles):
        held = 12 * len(angles[group])
        held += of_group * sum(len(angles[g]) for g in angles if place[g] <= step <= end[g])
        held += of_source * sum(count for born, died, count in sources if born <= step <= died)
        most = max(most, held)
    components = len({group.component for group in angles})
    return most + 16 * components
