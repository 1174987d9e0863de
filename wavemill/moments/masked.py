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
from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np

from wavemill.errors import InvalidParameter
from wavemill.moments.boxes import Box
from wavemill.moments.covariances import Block, GramBlock
from wavemill.moments.groups import Group, Scale
from wavemill.moments.pairs import Rows, Shift
from wavemill.moments.phase_harmonics import PhaseHarmonicCovariance
from wavemill.moments.plan import Draft, Planner
from wavemill.moments.stacks import Window


class MaskedPlanner(Planner):
    """Plans of blocks that are all in space, since a window is no product of spectra."""

    def _drafts(self, rows: Rows) -> Iterator[Draft]:
        """Yield rows of one shift at a time, which have a window of their own."""
        for draft in super()._drafts(rows):
            own = rows[draft.members]
            for shift in np.unique(own[["shift_y", "shift_x"]]):
                yield replace(draft, members=draft.members[own[["shift_y", "shift_x"]] == shift])

    def _request(self, drafts: list[Draft]) -> None:
        self._spatial = {*self._angles}

    def _centred(self, draft: Draft) -> Iterable[Group]:
        """Return all but x * psi itself, whose mean over a window is not 0."""
        return (group for group in draft.groups if not group.linear)

    def _inside(self) -> dict[Scale, Window]:
        return {group.scale: window(group.scale, (0, 0), self._shape) for group in self._angles}

    def _blocks(
        self, rows: Rows, drafts: list[Draft], last: Group
    ) -> Iterator[tuple[list[int], tuple[Group, ...], Block]]:
        for draft in drafts:
            pairs = self._pairs(rows[draft.members], draft)
            y, x = pairs.shifts[0].tolist()
            coarser = max((group.scale for group in draft.groups), key=_border)
            here, there = (window(coarser, shift, self._shape) for shift in ((y, x), (-y, -x)))
            points = math.prod(side.stop - side.start for side in here)
            block = GramBlock(pairs, 1 / points, None, (there, here))
            yield draft.members.tolist(), draft.groups, block


class MaskedCovariance(PhaseHarmonicCovariance):
    """Phase-harmonic covariances over the points from which no filter reaches around the border.

    All else is as of :class:`~wavemill.PhaseHarmonicCovariance`, which this tends to as grids grow.
    Channel means and deviations, too, are those of points within a scale's own border.

    Raises
    ------
    InvalidParameter
        If a scale's borders leave fewer points along an axis than half a border has.
    """

    _planner = MaskedPlanner


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


def _border(scale: Scale) -> int:
    """Return the number of points from a border within which a scale's filters reach it."""
    return int(2**scale.j if scale.low_pass else 2 ** (scale.j + 1))
