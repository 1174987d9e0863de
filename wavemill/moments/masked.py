"""Phase-harmonic covariances of fields that do not wrap around: means over what no border reaches.

    C(row) = mean over u and u + shift in M of a(u + shift) conj b(u) ,

a and b as in :mod:`.phase_harmonics`. Filters still act on the torus, where opposite sides of a
field that does not wrap around meet in a jump. M leaves out the points whose filters reach it: for
a wavelet of scale j, all within 2^(j+1) of a border, which holds 98 % of its energy or more; for a
low pass phi_j those within 2^j, 3.6 of its widths. A pair of scales has the border of the coarser.
So fine scales are measured nearly everywhere, and coarse ones where they can be.

Source: Allys et al., *New interpretable statistics for large-scale structure analysis and
generation*, Phys. Rev. D 102, 103506 (2020), for leaving out borders by scale.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch

from wavemill.errors import InvalidParameter
from wavemill.moments.banks import Filters
from wavemill.moments.boxes import Box
from wavemill.moments.covariances import GramBlock
from wavemill.moments.groups import Group, Scale, groups
from wavemill.moments.pairs import Rows, Shift
from wavemill.moments.phase_harmonics import PhaseHarmonicCovariance
from wavemill.moments.plan import Due, Plan, Planner, Step, note_ends
from wavemill.moments.stacks import Pairs, Window


def masked_plan(
    rows: Rows,
    angles: dict[Group, list[int]],
    bank: Mapping[Scale, Filters],
    shape: Box,
    dtype: torch.dtype,
) -> Plan:
    """Return the plan of a table's distinct rows: a block for each pair of groups and each shift.

    Like :func:`.plan`, but all in space: a window is no product of spectra.
    """
    members: dict[tuple[Group, Group, Shift, bool], list[int]] = {}
    shifts = zip(rows["shift_y"].tolist(), rows["shift_x"].tolist(), strict=True)
    sides = zip(groups(rows, "1"), groups(rows, "2"), shifts, rows["k2"] < 0, strict=True)
    for row, (first, second, shift, mirrored) in enumerate(sides):
        members.setdefault((first, second, shift, bool(mirrored)), []).append(row)
    place = {group: number for number, group in enumerate(angles)}
    steps = [Step(group) for group in angles]
    order: list[int] = []
    for (first, second, shift, mirrored), chosen in sorted(
        members.items(), key=lambda item: max(place[group] for group in item[0][:2])
    ):
        coarser = max((first.scale, second.scale), key=_border)
        here, there = window(coarser, shift, shape), window(coarser, _opposite(shift), shape)
        pairs = Pairs(
            np.searchsorted(angles[first], rows["l1"][chosen]),
            np.searchsorted(angles[second], rows["l2"][chosen]),
            np.tile(shift, (len(chosen), 1)),
            (len(angles[first]), len(angles[second])),
            mirrored,
        )
        points = math.prod(side.stop - side.start for side in here)
        block = GramBlock(pairs, 1 / points, None, (there, here))
        results = slice(len(order), len(order) + len(chosen))
        due = Due(results, (first, second), block)
        steps[max(place[first], place[second])].due.append(due)
        order += chosen
    note_ends(steps, place)
    inside = {group.scale: window(group.scale, (0, 0), shape) for group in angles}
    centred = {group for group in angles if not group.linear}
    return Plan(steps, np.array(order), {}, set(angles), centred, inside)


class MaskedCovariance(PhaseHarmonicCovariance):
    """Phase-harmonic covariances over the points from which no filter reaches around the border.

    All else is as of :class:`~wavemill.PhaseHarmonicCovariance`, which this tends to as grids grow.
    Channel means and deviations, too, are those of points within a scale's own border.

    Raises
    ------
    InvalidParameter
        If a scale's borders leave fewer points along an axis than half a border has.
    """

    @property
    def _planner(self) -> Planner:
        return masked_plan


def window(scale: Scale, shift: Shift, shape: Box) -> Window:
    """Return the points u that have both u and u + shift within the borders of a scale.

    Raises
    ------
    InvalidParameter
        If there are fewer along an axis than half a border has.
    """
    border = _border(scale)
    sides = [
        slice(border + max(0, -step), size - border - max(0, step))
        for size, step in zip(shape, shift, strict=True)
    ]
    if 2 * min(side.stop - side.start for side in sides) < border:
        raise InvalidParameter(
            f"borders of {border} points and a shift by {shift} leave no {border // 2} points of "
            f"{shape} to scale j={scale.j}: lower J or lags, or take larger fields"
        )
    return sides[0], sides[1]


def _opposite(shift: Shift) -> Shift:
    return -shift[0], -shift[1]


def _border(scale: Scale) -> int:
    """Return the number of points from a border within which a scale's filters reach it."""
    return int(2**scale.j if scale.low_pass else 2 ** (scale.j + 1))
