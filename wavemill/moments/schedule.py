"""The order in which channels are made, compared, differentiated and dropped.

Groups of channels (:mod:`.groups`) are made from fine to coarse; each block of covariances
is computed, and its gradient pulled, as soon as both its groups exist; a group is dropped after its
last block and a scale after its last group. So memory holds the scales that still have pairs to
come, not the whole field's history.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from wavemill.moments.banks import Bank, points_held
from wavemill.moments.boxes import (
    Box,
    add_into,
    crop,
    filtered,
    filtered_back,
    larger,
    smaller,
    to_conjugate_field,
    to_spectrum,
)
from wavemill.moments.channels import Response
from wavemill.moments.covariances import GramBlock, PowerBlock, ShiftBlock, as_complex
from wavemill.moments.groups import Group, Scale, bands_of, groups, is_linear, spans
from wavemill.moments.loops import Loops
from wavemill.moments.pairs import MomentTable, Rows
from wavemill.moments.shifts import keep_buffer
from wavemill.moments.stacks import Pairs, Stack

Pull = Callable[[slice, Tensor], Tensor]  # results' places and values -> gradient of them
Block = GramBlock | ShiftBlock | PowerBlock | Loops


@dataclass
class Step:
    """One group: what is done once it exists."""

    group: Group
    blocks: list[tuple[slice, Group, Group, Block]] = field(default_factory=list)
    last: list[Group] = field(default_factory=list)
    last_scales: list[Scale] = field(default_factory=list)


class Schedule(nn.Module):
    """Covariances of a table's distinct rows, and their gradients, in one pass over scales.

    Parameters
    ----------
    table
        Grid, scales, angles and low passes.
    rows
        Distinct rows in canonical form.
    angles
        Angles of each group, in order.
    dtype
        Real precision.
    bank
        Filters of each scale, with their angles (:func:`.bank_of`): shared, not copied.

    Attributes
    ----------
    order
        ``rows`` index of each result.
    """

    def __init__(
        self,
        table: MomentTable,
        rows: Rows,
        angles: dict[Group, list[int]],
        dtype: torch.dtype,
        bank: Bank,
    ) -> None:
        super().__init__()
        self.shape, self.dtype, self._angles = table.shape, dtype, angles
        self._points = math.prod(table.shape)
        self._bands = bands_of(angles)
        self._channels = spans(angles)
        self._filters = {s: bank[s].exact[bank[s].among(own)] for s, own in self._bands.items()}
        self._boxes: dict[Group, Box] = {}  # of groups whose spectra are needed
        self._spatial: set[Group] = set()  # groups whose fields are needed
        self._centred: set[Group] = set()  # whose mean matters: x * psi has none, nor meets one
        self._blocks = nn.ModuleList()
        self._plan(rows)
        for scale, own in self._bands.items():
            keep_buffer(self, _name(scale), bank[scale].filters[bank[scale].among(own)])
        self._place = {group: self._placed(group) for group in angles}
        del self._filters

    def evaluate(
        self, x: Tensor, means: Tensor | None, pull: Pull | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Return the covariances ``(batch, row)``, complex, and with ``pull`` the gradient.

        Parameters
        ----------
        x
            Real ``(batch, y, x)``.
        means
            Complex means of the channels, None for each field's own.
        pull
            Given the places and values c of some results, returns g: d(loss) = Re sum conj(g) dc.
        """
        pass_ = _Pass(torch.fft.fft2(x, norm="forward"))
        results: list[Tensor] = []
        for step in self.steps:
            pass_.stacks[step.group] = self._stack(pass_, step.group, means)
            results += [_compare(pass_, block, a, b) for _, a, b, block in step.blocks]
            if pull is not None and step.blocks:
                fresh = results[-len(step.blocks) :]
                rows = slice(step.blocks[0][0].start, step.blocks[-1][0].stop)
                g = pull(rows, torch.cat(fresh, dim=1))
                parts = torch.split(g, [c.shape[1] for c in fresh], dim=1)
                for (_, a, b, block), part in zip(step.blocks, parts, strict=True):
                    _pull(pass_, block, a, b, part)
            self._drop(pass_, step, pull is not None)
        return torch.cat(results, dim=1), None if pull is None else pass_.gradient()

    def mean_and_variance(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the means, complex, and variances of all channels of one field, ``(channel,)``.

        In two passes: at the coarsest scales a modulus varies by a thousandth of its mean.
        """
        pass_ = _Pass(torch.fft.fft2(x, norm="forward"))
        means, variances = [], []
        for step in self.steps:
            field = self._harmonic(pass_, step.group)[0].flatten(1)
            means.append(as_complex(field.mean(-1)))
            variances.append((field - field.mean(-1, keepdim=True)).abs().square().mean(-1))
            for scale in step.last_scales:
                pass_.responses.pop(scale, None)
        return torch.cat(means), torch.cat(variances)

    def memory(self, gradient: bool) -> int:
        """Return an upper bound in bytes of :meth:`evaluate` for one field."""
        points = points_held(self._angles, self._pairs, gradient)
        return points * self._points * torch.finfo(self.dtype).bits // 8

    def _response(self, pass_: _Pass, scale: Scale) -> Response:
        if scale not in pass_.responses:
            filters = getattr(self, _name(scale))
            spectrum = filtered(crop(pass_.x_hat, _box(filters)), filters)
            pass_.responses[scale] = Response(spectrum, self.shape, scale[0])
        return pass_.responses[scale]

    def _harmonic(self, pass_: _Pass, group: Group) -> Tensor:
        return self._response(pass_, group[:2]).harmonic(group[2], self._place[group])

    def _stack(self, pass_: _Pass, group: Group, means: Tensor | None) -> Stack:
        """Return what the blocks need of a group, centred."""
        if is_linear(group):
            field = self._harmonic(pass_, group) if group in self._spatial else None
            spectrum = None
            if group in self._boxes:
                spectrum = self._response(pass_, group[:2]).spectrum[:, self._place[group]]
            return Stack(True, field, spectrum)
        field = self._harmonic(pass_, group)
        if group in self._centred:
            field = self._centre(field, group, means)
        box = self._boxes.get(group)
        return Stack(False, field, None if box is None else to_spectrum(field, box))

    def _centre(self, field: Tensor, group: Group, means: Tensor | None) -> Tensor:
        if means is None:
            return field - field.mean((-2, -1), keepdim=True)
        mean = means[self._channels[group], None, None]
        return field - (mean if field.is_complex() else mean.real)

    def _drop(self, pass_: _Pass, step: Step, differentiate: bool) -> None:
        """Forget groups and scales that nothing needs any more, handing on their gradients."""
        for group in step.last:
            stack = pass_.stacks.pop(group)
            if differentiate:
                self._return(pass_, group, stack)
        for scale in step.last_scales:
            response = pass_.responses.pop(scale, None)
            spectral = response.pulled() if differentiate and response is not None else None
            if spectral is not None:
                pass_.pull_field(filtered_back(spectral, getattr(self, _name(scale))))

    def _return(self, pass_: _Pass, group: Group, stack: Stack) -> None:
        """Hand a group's gradient to its scale, or, of a spectrum linear in x, to the field."""
        spectral, place = stack.spectrum_gradient, self._place[group]
        conjugate = None if stack.field_gradient is None else stack.field_gradient.conj()
        if spectral is not None and stack.linear:
            filters = getattr(self, _name(group[:2]))[place]
            pass_.pull_field(filtered_back(spectral, filters))
        elif spectral is not None:
            pulled = to_conjugate_field(spectral, self.shape)
            pulled = pulled if group[2] and not group[0] else pulled.real
            conjugate = pulled if conjugate is None else pulled + conjugate
        if conjugate is not None:
            self._response(pass_, group[:2]).pull(group[2], place, conjugate)

    def _placed(self, group: Group) -> slice:
        """Return where a group's angles are among those of its scale."""
        bands, angles = self._bands[group[:2]], self._angles[group]
        start = bands.index(angles[0])
        return slice(start, start + len(angles))

    def _plan(self, rows: Rows) -> None:
        """Sort rows into blocks, each due with the later of its groups."""
        self.steps = [Step(group) for group in self._angles]
        place = {group: step for step, group in enumerate(self._angles)}
        drafts = list(self._drafts(rows, place))
        self._pairs = {(draft.first, draft.second) for draft in drafts}
        self._centred = {
            group
            for draft in drafts
            for group in (draft.first, draft.second)
            if not is_linear(draft.first) and not is_linear(draft.second)
        }
        self._request_spectra(drafts)
        order, start = [], 0
        for draft in sorted(drafts, key=lambda draft: draft.key):
            block = self._block(rows[draft.members], draft)
            self._blocks.append(block)
            span = slice(start, start + len(draft.members))
            self.steps[draft.due].blocks.append((span, draft.first, draft.second, block))
            order.append(draft.members)
            start = span.stop
        self.order = np.concatenate(order)
        self._plan_ends(place)

    def _drafts(self, rows: Rows, place: dict[Group, int]) -> Iterator[Draft]:
        """Yield the rows of each block: pairs of groups, those with shifts apart unless linear."""
        moved = (rows["shift_y"] != 0) | (rows["shift_x"] != 0)
        names = ("j1", "l1", "k1", "j2", "l2", "k2")
        _, pair = np.unique(np.stack([rows[name] for name in names]), axis=1, return_inverse=True)
        shifted = np.isin(pair.reshape(-1), pair.reshape(-1)[moved])
        members: dict[tuple[Group, Group, bool, bool], list[int]] = {}
        sides = zip(groups(rows, "1"), groups(rows, "2"), shifted, rows["k2"] < 0, strict=True)
        for row, (a, b, shift, mirrored) in enumerate(sides):
            apart = bool(shift) and not (is_linear(a) and is_linear(b))
            members.setdefault((a, b, apart, bool(mirrored)), []).append(row)
        for (a, b, apart, mirrored), chosen in members.items():
            yield Draft(max(place[a], place[b]), a, b, apart, mirrored, np.array(chosen))

    def _request_spectra(self, drafts: list[Draft]) -> None:
        """Decide which groups need spectra, and how much of them."""
        for draft in drafts:
            if draft.shifted:
                self._request(draft)
        for draft in drafts:
            if draft.shifted or (is_linear(draft.first) and is_linear(draft.second)):
                continue
            if self._in_frequency(draft):
                self._request(draft)
            else:
                self._spatial |= {draft.first, draft.second}

    def _request(self, draft: Draft) -> None:
        box = self._common(draft)
        for group in (draft.first, draft.second):
            self._boxes[group] = larger(self._boxes.get(group, box), box)

    def _in_frequency(self, draft: Draft) -> bool:
        """Tell whether products are cheaper there: one linear, the other transformed anyway."""
        a, b = draft.first, draft.second
        linear, other = (a, b) if is_linear(a) else (b, a)
        return is_linear(linear) and other in self._boxes and not draft.mirrored

    def _common(self, draft: Draft) -> Box:
        """Return the frequencies beyond which one of two groups holds nothing."""
        boxes = (
            _box(self._filters[group[:2]]) if is_linear(group) else self.shape
            for group in (draft.first, draft.second)
        )
        return smaller(*boxes)

    def _block(self, rows: Rows, draft: Draft) -> Block:
        a, b = draft.first, draft.second
        pairs = Pairs(
            np.searchsorted(self._angles[a], rows["l1"]),
            np.searchsorted(self._angles[b], rows["l2"]),
            np.column_stack([rows["shift_y"], rows["shift_x"]]),
            (len(self._angles[a]), len(self._angles[b])),
            draft.mirrored,
        )
        box, linear = self._common(draft), (is_linear(a), is_linear(b))
        if all(linear):
            banks = (crop(self._bank(a), box), crop(self._bank(b), box))
            return PowerBlock(pairs, banks, self.shape, self.dtype)
        scale = math.prod(1.0 if is_linear(group) else 1 / self._points for group in (a, b))
        block: GramBlock | ShiftBlock
        within: Box | None = box
        auto, looped = False, not draft.mirrored
        if draft.shifted:
            auto = a == b and looped and bool((pairs.first == pairs.second).all())
            block = ShiftBlock(pairs, scale, box, self.shape, linear[0], auto, self.dtype)
        else:
            if not self._in_frequency(draft):
                scale, within = 1 / self._points, None
            block = GramBlock(pairs, scale, within)
            looped &= within is not None or block.aligned  # else a matrix product is faster
        if not looped:
            return block
        return Loops(block, pairs, scale, self.shape, linear, self.dtype, within, auto)

    def _bank(self, group: Group) -> Tensor:
        return self._filters[group[:2]][self._placed(group)]

    def _plan_ends(self, place: dict[Group, int]) -> None:
        """Note after which step each group and each scale is needed no more."""
        end = dict(place)
        for due, step in enumerate(self.steps):
            for _, a, b, _ in step.blocks:
                end[a], end[b] = max(end[a], due), max(end[b], due)
        for group, due in end.items():
            self.steps[due].last.append(group)
        for scale in self._bands:
            due = max(due for group, due in end.items() if group[:2] == scale)
            self.steps[due].last_scales.append(scale)


@dataclass(frozen=True)
class Draft:
    """A block to be: two groups, and which rows."""

    due: int
    first: Group
    second: Group
    shifted: bool
    mirrored: bool
    members: NDArray[np.int64]

    @property
    def key(self) -> tuple[int, Group, Group, bool, bool]:
        """What blocks are sorted by."""
        return self.due, self.first, self.second, self.shifted, self.mirrored


class _Pass:
    """What exists while one batch of fields goes through."""

    def __init__(self, x_hat: Tensor) -> None:
        self.x_hat = x_hat
        self.stacks: dict[Group, Stack] = {}
        self.responses: dict[Scale, Response] = {}
        self._field_gradient = torch.zeros_like(x_hat.detach())
        self._power_gradient = torch.zeros_like(self._field_gradient.real)

    @cached_property
    def power(self) -> Tensor:
        """|x^|^2."""
        return self.x_hat.real.square() + self.x_hat.imag.square()

    def pull_field(self, gradient: Tensor) -> None:
        """Add to the gradient of x^."""
        add_into(self._field_gradient, gradient)

    def pull_power(self, gradient: Tensor) -> None:
        """Add to the gradient of the power."""
        add_into(self._power_gradient, gradient)

    def gradient(self) -> Tensor:
        """Return the gradient of the fields."""
        whole = self._field_gradient + 2 * self._power_gradient * self.x_hat
        gradient: Tensor = torch.fft.ifft2(whole).real
        return gradient


def _compare(pass_: _Pass, block: Block, first: Group, second: Group) -> Tensor:
    if isinstance(block, PowerBlock):
        return block.evaluate(pass_.power)
    return block.evaluate(pass_.stacks[first], pass_.stacks[second])


def _pull(pass_: _Pass, block: Block, first: Group, second: Group, g: Tensor) -> None:
    if isinstance(block, PowerBlock):
        pass_.pull_power(block.pull(g))
    else:
        block.pull(g, pass_.stacks[first], pass_.stacks[second])


def _box(spectra: Tensor) -> Box:
    return spectra.shape[-2], spectra.shape[-1]


def _name(key: Scale | Group) -> str:
    return "_" + "_".join([("phi" if key[0] else "psi"), *map(str, key[1:])])
