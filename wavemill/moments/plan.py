"""In which blocks covariances are computed, when each is due, and what it needs of each group.

Groups of channels (:mod:`.groups`) are made from fine to coarse; a block is due with the later of
its two groups. What :class:`.Schedule` runs is decided here, once.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wavemill.moments.banks import Filters
from wavemill.moments.boxes import Box, crop, larger, smaller
from wavemill.moments.covariances import Block, GramBlock, PowerBlock, ShiftBlock
from wavemill.moments.groups import Group, Scale, Source, groups
from wavemill.moments.loops import Loops
from wavemill.moments.pairs import Rows
from wavemill.moments.products import Meeting, Products
from wavemill.moments.stacks import Pairs, Window


@dataclass(frozen=True)
class Due:
    """A block, its groups, of which all others meet the last, and which results are its own."""

    results: slice
    groups: tuple[Group, ...]
    block: Block


@dataclass
class Step:
    """One group: what is done once it exists, and what is no longer needed after that."""

    group: Group
    due: list[Due] = field(default_factory=list)
    last: list[Group] = field(default_factory=list)
    last_sources: list[Source] = field(default_factory=list)


@dataclass(frozen=True)
class Plan:
    """What a schedule does.

    Attributes
    ----------
    steps
        One for each group, in the order of groups.
    order
        Which row each result is.
    boxes
        The groups whose spectra are needed, and the box of these.
    spatial
        The groups whose fields are needed.
    centred
        The groups whose means matter: x * psi has mean 0, so the other side's has no effect.
    inside
        The points that a scale's means are taken over; all where it has no entry.
    """

    steps: list[Step]
    order: NDArray[np.int64]
    boxes: dict[Group, Box]
    spatial: set[Group]
    centred: set[Group]
    inside: dict[Scale, Window] = field(default_factory=dict)

    @property
    def due(self) -> list[Due]:
        """All blocks, in order."""
        return [due for step in self.steps for due in step.due]


@dataclass(frozen=True)
class Draft:
    """A block to be: two groups, and which rows."""

    step: int
    first: Group
    second: Group
    shifted: bool
    mirrored: bool
    members: NDArray[np.int64]

    @property
    def groups(self) -> tuple[Group, Group]:
        """Those of a and of b."""
        return self.first, self.second

    @property
    def linear(self) -> tuple[bool, bool]:
        """Which of them are linear in x."""
        return self.first.linear, self.second.linear

    def other(self, group: Group) -> Group:
        """Return the group that meets this one."""
        return self.second if self.first == group else self.first

    @property
    def key(self) -> tuple[int, Group, Group, bool, bool]:
        """What blocks are sorted by."""
        return self.step, self.first, self.second, self.shifted, self.mirrored


class Planner:
    """What decides on blocks and their order.

    Parameters
    ----------
    angles
        Angles of each group, in order.
    bank
        Filters of each scale.
    shape
        Grid ``(y, x)``.
    dtype
        Real precision.
    """

    def __init__(
        self,
        angles: dict[Group, list[int]],
        bank: Mapping[Scale, Filters],
        shape: Box,
        dtype: torch.dtype,
    ) -> None:
        self._angles, self._bank, self._shape, self._dtype = angles, bank, shape, dtype
        self._points = math.prod(shape)
        self._place = {group: step for step, group in enumerate(angles)}
        self._boxes: dict[Group, Box] = {}
        self._spatial: set[Group] = set()

    def plan(self, rows: Rows) -> Plan:
        """Return the plan of a table's distinct rows in canonical form.

        They are sorted into blocks, each due with the later of its groups.
        """
        drafts = sorted(self._drafts(rows), key=lambda draft: draft.key)
        self._request(drafts)
        steps: list[Step] = [Step(group) for group in self._angles]
        order: list[int] = []
        for number, own in itertools.groupby(drafts, key=lambda draft: draft.step):
            step = steps[number]
            for members, together, block in self._blocks(rows, list(own), step.group):
                results = slice(len(order), len(order) + len(members))
                step.due.append(Due(results, together, block))
                order += members
        self._note_ends(steps)
        centred = {group for draft in drafts for group in self._centred(draft)}
        return Plan(steps, np.array(order), self._boxes, self._spatial, centred, self._inside())

    def _drafts(self, rows: Rows) -> Iterator[Draft]:
        """Yield the rows of each block: one pair of groups, with shifts or without."""
        moved = (rows["shift_y"] != 0) | (rows["shift_x"] != 0)
        names = ("j1", "l1", "k1", "j2", "l2", "k2")
        _, pair = np.unique(np.stack([rows[name] for name in names]), axis=1, return_inverse=True)
        shifted = np.isin(pair.reshape(-1), pair.reshape(-1)[moved])
        members: dict[tuple[Group, Group, bool, bool], list[int]] = {}
        sides = zip(groups(rows, "1"), groups(rows, "2"), shifted, rows["k2"] < 0, strict=True)
        for row, (a, b, shift, mirrored) in enumerate(sides):
            members.setdefault((a, b, bool(shift), bool(mirrored)), []).append(row)
        for (a, b, shift, mirrored), chosen in members.items():
            step = max(self._place[a], self._place[b])
            yield Draft(step, a, b, shift, mirrored, np.array(chosen))

    def _centred(self, draft: Draft) -> Iterable[Group]:
        """Return the groups whose means matter to a block."""
        return () if any(draft.linear) else draft.groups

    def _inside(self) -> dict[Scale, Window]:
        """Return the points that each scale's means are taken over, if not all."""
        return {}

    def _request(self, drafts: list[Draft]) -> None:
        """Decide which groups need fields or spectra, and in which box."""
        for draft in drafts:
            if draft.shifted:
                self._request_box(draft)
        for draft in drafts:
            if draft.shifted or all(draft.linear):
                continue
            if self._in_frequency(draft):
                self._request_box(draft)
            else:
                self._spatial |= {*draft.groups}

    def _request_box(self, draft: Draft) -> None:
        box = self._common(draft)
        for group in draft.groups:
            self._boxes[group] = larger(self._boxes.get(group, box), box)

    def _in_frequency(self, draft: Draft) -> bool:
        """Tell whether frequencies cost less: one side is linear, the other transformed anyway."""
        other = draft.second if draft.first.linear else draft.first
        return any(draft.linear) and other in self._boxes and not draft.mirrored

    def _common(self, draft: Draft) -> Box:
        """Return the frequencies beyond which one of two groups holds nothing."""
        return smaller(*(self._box(group) for group in draft.groups))

    def _box(self, group: Group) -> Box:
        if not group.linear:
            return self._shape
        y, x = self._bank[group.scale].exact.shape[-2:]
        return y, x

    def _blocks(
        self, rows: Rows, drafts: list[Draft], last: Group
    ) -> Iterator[tuple[list[int], tuple[Group, ...], Block]]:
        """Yield the blocks of a step, each with its rows and groups.

        Where most channels of other groups meet most of the step's own, one block holds them all.
        """
        dense: dict[Box | None, list[tuple[Draft, GramBlock, Pairs, float]]] = {}
        for draft in drafts:
            block, pairs, scale, within = self._block(rows[draft.members], draft)
            if isinstance(block, GramBlock) and (block.aligned or block.dense):
                dense.setdefault(within, []).append((draft, block, pairs, scale))
            else:
                yield draft.members.tolist(), draft.groups, block
        for box, found in dense.items():
            others = list(dict.fromkeys(draft.other(last) for draft, *_ in found))
            meetings = [
                Meeting(
                    stack=others.index(draft.other(last)),
                    block=block,
                    pairs=pairs,
                    scale=scale,
                    linear=draft.linear,
                    real=(box is None and draft.first.real, box is None and draft.second.real),
                    swapped=draft.second != last,
                )
                for draft, block, pairs, scale in found
            ]
            members = [row for draft, *_ in found for row in draft.members.tolist()]
            yield members, (*others, last), Products(meetings, self._dtype, self._shape, box)

    def _block(self, rows: Rows, draft: Draft) -> tuple[Block, Pairs, float, Box | None]:
        """Return a draft's block, its pairs, their factor, and the box, None in space."""
        (a, b), pairs = draft.groups, self._pairs(rows, draft)
        box = self._common(draft)
        scale = math.prod(1.0 if linear else 1 / self._points for linear in draft.linear)
        within: Box | None = box
        block: Block
        if all(draft.linear) and not draft.shifted:
            banks = (crop(self._filters(a), box), crop(self._filters(b), box))
            block = PowerBlock(pairs, banks, self._dtype, a.component != b.component)
            return block, pairs, scale, within
        auto, looped = False, not draft.mirrored
        if draft.shifted:
            auto = a == b and looped and bool((pairs.first == pairs.second).all())
            block = ShiftBlock(pairs, scale, box, self._shape, draft.linear, auto, self._dtype)
        else:
            if not self._in_frequency(draft):
                scale, within = 1 / self._points, None
            block = GramBlock(pairs, scale, within)
            real = within is None and (a.real or b.real)  # which only products take as they are
            looped &= (block.aligned and not real) or (within is not None and not block.dense)
        if looped:
            block = Loops(block, pairs, scale, self._shape, draft.linear, self._dtype, within, auto)
        return block, pairs, scale, within

    def _pairs(self, rows: Rows, draft: Draft) -> Pairs:
        a, b = (self._angles[group] for group in draft.groups)
        return Pairs(
            np.searchsorted(a, rows["l1"]),
            np.searchsorted(b, rows["l2"]),
            np.column_stack([rows["shift_y"], rows["shift_x"]]),
            (len(a), len(b)),
            draft.mirrored,
        )

    def _filters(self, group: Group) -> Tensor:
        return self._bank[group.scale].at(self._angles[group]).exact

    def _note_ends(self, steps: list[Step]) -> None:
        """Note the step after which each group and each source is no longer needed."""
        end = dict(self._place)
        for number, step in enumerate(steps):
            for due in step.due:
                for group in due.groups:
                    end[group] = max(end[group], number)
        ends_of_sources: dict[Source, int] = {}
        for group, number in end.items():
            steps[number].last.append(group)
            ends_of_sources[group.source] = max(ends_of_sources.get(group.source, 0), number)
        for source, number in ends_of_sources.items():
            steps[number].last_sources.append(source)
