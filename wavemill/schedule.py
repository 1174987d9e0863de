"""The order in which channels are made, compared, differentiated and dropped.

Channels come in *groups*: one scale, one harmonic, all angles. Groups are made from fine to coarse;
each block of covariances is computed, and its gradient pulled, as soon as both its groups exist; a group
is dropped after its last block and a scale after its last group. So memory holds the scales that
still have pairs to come, not the whole field's history.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from wavemill.channels import Response, forward, inverse
from wavemill.covariances import (
    GramBlock,
    Pairs,
    PowerBlock,
    ShiftBlock,
    Stack,
    column_weights,
    keep_buffer,
)
from wavemill.filters import bump_steerable
from wavemill.pairs import LOW_PASS, MomentTable, Rows

Scale = tuple[bool, int]  # is a low pass, index j
Group = tuple[bool, int, int]  # and harmonic k >= 0: channels of all angles
Pull = Callable[[slice, Tensor], Tensor]  # results' places and values -> gradient of them
Block = GramBlock | ShiftBlock | PowerBlock


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

    Attributes
    ----------
    order
        ``rows`` index of each result.
    """

    def __init__(
        self, table: MomentTable, rows: Rows, angles: dict[Group, list[int]], dtype: torch.dtype
    ) -> None:
        super().__init__()
        self.shape, self.dtype, self._angles = table.shape, dtype, angles
        self._points = math.prod(table.shape)
        self._bands = _bands(angles)
        self._halves = {s: _half_planes(table, s, found) for s, found in self._bands.items()}
        for scale, halves in self._halves.items():
            keep_buffer(self, _name(scale), _as_filters(halves, scale[0]).to(dtype.to_complex()))
        self._columns: dict[Group, int] = {}  # of the spectra of groups that need one
        self._spatial: set[Group] = set()  # groups whose planes are needed
        self._blocks = nn.ModuleList()
        self._plan(rows)
        del self._halves

    def evaluate(
        self, x: Tensor, means: Tensor | None, pull: Pull | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Return the covariances ``(batch, row, 2)`` and, with ``pull``, the gradient.

        Parameters
        ----------
        x
            Real ``(batch, y, x)``.
        means
            Complex means of the channels, None for each field's own.
        pull
            Given the places and values of some results, returns d(sum over fields)/d(results).
        """
        x_hat = torch.fft.rfft2(x, norm="forward")
        power = x_hat.real.square() + x_hat.imag.square()
        pass_ = _Pass(x_hat, power, pull is not None)
        results = []
        for step in self.steps:
            pass_.stacks[step.group] = self._stack(pass_, step.group, means)
            for rows, first, second, block in step.blocks:
                results.append(self._compare(pass_, block, first, second))
                if pull is not None:
                    self._pull(pass_, block, first, second, pull(rows, results[-1]))
            self._drop(pass_, step)
        return torch.cat(results, dim=1), pass_.gradient(x.shape[-2:])

    def mean_and_variance(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the means, complex, and variances of all channels of one field, ``(channel,)``.

        In two passes: at the coarsest scales a modulus varies by a thousandth of its mean.
        """
        pass_ = _Pass(torch.fft.rfft2(x, norm="forward"), torch.empty(0), False)
        means, variances = [], []
        for step in self.steps:
            planes = self._planes(pass_, step.group)[0].flatten(1)
            mean = planes.mean(-1, keepdim=True)
            variance = (planes - mean).square().mean(-1)
            means.append(_join(mean[:, 0], step.group))
            variances.append(_join(variance, step.group))
            for scale in step.last_scales:
                pass_.responses.pop(scale)
        return torch.cat(means), torch.cat([v.real + v.imag for v in variances])

    def memory(self, gradient: bool) -> int:
        """Return an upper bound in bytes for one field."""
        item = torch.finfo(self.dtype).bits // 8 * self._points
        alive: dict[Group, float] = {}
        scales: dict[Scale, float] = {}
        most = 0.0
        for step in self.steps:
            group, parts = step.group, len(self._angles[step.group]) * parts_of(step.group)
            scales[group[:2]] = 5.5 * len(self._bands[group[:2]]) * (2 if gradient else 1)
            alive[group] = parts * (1 + 1.1 * (group in self._columns)) * (2 if gradient else 1)
            working = 4 * parts if gradient else 2 * parts
            most = max(most, sum(alive.values()) + sum(scales.values()) + working)
            for old in step.last:
                alive.pop(old)
            for old_scale in step.last_scales:
                scales.pop(old_scale)
        return int((most + 8) * item)

    def _response(self, pass_: _Pass, scale: Scale) -> Response:
        if scale not in pass_.responses:
            filters = getattr(self, _name(scale))
            spectrum = pass_.x_hat[:, None, :, : filters.shape[-1]] * filters
            pass_.responses[scale] = Response(spectrum, self.shape, scale[0])
        return pass_.responses[scale]

    def _planes(self, pass_: _Pass, group: Group) -> Tensor:
        planes = self._response(pass_, group[:2]).harmonic(group[2])
        chosen = self._chosen(group)
        return planes if chosen is None else planes[:, chosen]

    def _stack(self, pass_: _Pass, group: Group, means: Tensor | None) -> Stack:
        """Return what the blocks need of a group, centred."""
        if is_linear(group):
            spatial, chosen = group in self._spatial, self._chosen(group)
            if not spatial and group not in self._columns:
                return Stack()
            spectrum = self._response(pass_, group[:2]).spectrum
            spectrum = spectrum if chosen is None else spectrum[:, chosen]
            return Stack(self._planes(pass_, group) if spatial else None, spectrum)
        planes = self._planes(pass_, group)
        centred = planes - (
            planes.mean((-2, -1), keepdim=True) if means is None else self._mean(means, group)
        )
        columns = self._columns.get(group)
        return Stack(centred, None if columns is None else forward(centred, columns))

    def _mean(self, means: Tensor, group: Group) -> Tensor:
        mean = means[self._channels[group]]
        parts = [mean.real, mean.imag][: parts_of(group)]
        return torch.cat(parts)[:, None, None]

    def _compare(self, pass_: _Pass, block: Block, first: Group, second: Group) -> Tensor:
        if isinstance(block, PowerBlock):
            return block.evaluate(pass_.power)
        return block.evaluate(pass_.stacks[first], pass_.stacks[second])

    def _pull(
        self, pass_: _Pass, block: Block, first: Group, second: Group, gradient: Tensor
    ) -> None:
        if isinstance(block, PowerBlock):
            block.pull(gradient, pass_.power_gradient)
        else:
            block.pull(gradient, pass_.stacks[first], pass_.stacks[second])

    def _drop(self, pass_: _Pass, step: Step) -> None:
        """Forget groups and scales that nothing needs any more, handing on their gradients."""
        for group in step.last:
            stack = pass_.stacks.pop(group)
            if pass_.differentiate:
                self._return(pass_, group, stack)
        for scale in step.last_scales:
            response = pass_.responses.pop(scale, None)
            if pass_.differentiate and response is not None:
                self._add_to_field(pass_, scale, response.pulled())

    def _return(self, pass_: _Pass, group: Group, stack: Stack) -> None:
        """Hand a group's gradient to its scale, or, of a spectrum linear in x, to the field."""
        spectral, planes = stack.spectrum_gradient, stack.plane_gradient
        chosen = self._chosen(group)
        if spectral is not None:
            if is_linear(group):
                self._add_to_field(pass_, group[:2], spectral, chosen)
            else:
                pulled = inverse(spectral, self.shape)
                planes = pulled if planes is None else planes.add_(pulled)
        if planes is not None:
            response = self._response(pass_, group[:2])
            if chosen is not None:
                whole = planes.new_zeros(len(planes), *response.harmonic(group[2]).shape[1:])
                planes = whole.index_copy_(1, chosen, planes)
            response.pull(group[2], planes)

    def _add_to_field(
        self, pass_: _Pass, scale: Scale, spectral: Tensor | None, chosen: Tensor | None = None
    ) -> None:
        """Add a gradient of ``x^ psi`` to that of x^: even filters are real, odd ones imaginary."""
        if spectral is None:
            return
        filters = getattr(self, _name(scale))
        filters = filters if chosen is None else filters[chosen]
        into = pass_.field_gradient[..., : filters.shape[-1]]
        planes = len(filters) if scale[0] else len(filters) // 2
        into.add_((filters[:planes] * spectral[:, :planes]).sum(1))
        if not scale[0]:
            into.sub_((filters[planes:] * spectral[:, planes:]).sum(1))

    def _chosen(self, group: Group) -> Tensor | None:
        """Return which of its scale's planes a group takes; None for all."""
        bands, angles = self._bands[group[:2]], self._angles[group]
        if angles == bands:
            return None
        index = [bands.index(angle) for angle in angles]
        both = index + [len(bands) + i for i in index] if parts_of(group) == 2 else index
        return torch.tensor(both, device=getattr(self, _name(group[:2])).device)

    def _plan(self, rows: Rows) -> None:
        """Sort rows into blocks, each due with the later of its groups."""
        self.steps = [Step(group) for group in self._angles]
        self._channels = spans(self._angles)
        place = {group: step for step, group in enumerate(self._angles)}
        drafts = list(self._drafts(rows, place))
        self._request_spectra(drafts)
        order, start = [], 0
        for due, (a, b), members, shifted, mirrored in sorted(drafts, key=lambda d: (d[0], d[1])):
            block = self._block(rows[members], a, b, shifted, mirrored)
            self._blocks.append(block)
            span = slice(start, start + len(members))
            self.steps[due].blocks.append((span, a, b, block))
            order.append(members)
            start += len(members)
        self.order = np.concatenate(order)
        self._plan_ends(place)

    def _drafts(self, rows: Rows, place: dict[Group, int]) -> Iterator[Draft]:
        """Yield the rows of each block: pairs of groups, those with shifts apart unless linear."""
        moved = (rows["shift_y"] != 0) | (rows["shift_x"] != 0)
        names = ("j1", "l1", "k1", "j2", "l2", "k2")
        _, pair = np.unique(np.stack([rows[name] for name in names]), axis=1, return_inverse=True)
        pair = pair.reshape(-1)
        shifted = np.isin(pair, pair[moved])
        sides = zip(groups(rows, "1"), groups(rows, "2"), strict=True)
        keys = [
            (a, b, bool(shift) and not (is_linear(a) and is_linear(b)), bool(mirror))
            for (a, b), shift, mirror in zip(sides, shifted, rows["k2"] < 0, strict=True)
        ]
        for key in set(keys):
            a, b, shift, mirror = key
            members = np.array([row for row, other in enumerate(keys) if other == key])
            yield max(place[a], place[b]), (a, b), members, shift, mirror

    def _request_spectra(self, drafts: list[Draft]) -> None:
        """Decide which groups need spectra, and how many columns of them."""
        for _, (a, b), _, shifted, _ in drafts:
            if shifted:
                self._request(a, b)
        for _, (a, b), _, shifted, _ in drafts:
            if shifted or (is_linear(a) and is_linear(b)):
                continue
            if self._in_frequency(a, b):
                self._request(a, b)
            else:
                self._spatial |= {a, b}

    def _request(self, a: Group, b: Group) -> None:
        for group in (a, b):
            self._columns[group] = max(self._columns.get(group, 0), self._common(a, b))

    def _in_frequency(self, a: Group, b: Group) -> bool:
        """Tell whether products are cheaper there: one linear, the other transformed anyway."""
        linear, other = (a, b) if is_linear(a) else (b, a)
        return is_linear(linear) and other in self._columns

    def _common(self, a: Group, b: Group) -> int:
        """Return the columns beyond which one of two groups holds nothing."""
        return min(
            self._halves[g[:2]].shape[-1] if is_linear(g) else self.shape[1] // 2 + 1
            for g in (a, b)
        )

    def _block(self, rows: Rows, a: Group, b: Group, shifted: bool, mirrored: bool) -> Block:
        pairs = Pairs(
            np.searchsorted(self._angles[a], rows["l1"]),
            np.searchsorted(self._angles[b], rows["l2"]),
            np.column_stack([rows["shift_y"], rows["shift_x"]]),
            (len(self._angles[a]), len(self._angles[b])),
            (parts_of(a), parts_of(b)),
            mirrored,
        )
        if is_linear(a) and is_linear(b):
            return PowerBlock(pairs, (self._bank(a), self._bank(b)), self.shape, self.dtype)
        scale = math.prod(1.0 if is_linear(group) else 1 / self._points for group in (a, b))
        if shifted:
            return ShiftBlock(
                pairs, scale, self._common(a, b), self.shape, not is_linear(b), self.dtype
            )
        if self._in_frequency(a, b):
            weight = column_weights(self.shape[1], self._common(a, b))
            return GramBlock(pairs, scale, weight, self.dtype)
        return GramBlock(pairs, 1 / self._points, None, self.dtype)

    def _bank(self, group: Group) -> Tensor:
        bands = self._bands[group[:2]]
        return self._halves[group[:2]][:, [bands.index(angle) for angle in self._angles[group]]]

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


Draft = tuple[int, tuple[Group, Group], NDArray[np.int64], bool, bool]


class _Pass:
    """What exists while one batch of fields goes through."""

    def __init__(self, x_hat: Tensor, power: Tensor, differentiate: bool) -> None:
        self.x_hat, self.power, self.differentiate = x_hat, power, differentiate
        self.stacks: dict[Group, Stack] = {}
        self.responses: dict[Scale, Response] = {}
        if differentiate:
            self.field_gradient = torch.zeros_like(x_hat)
            self.power_gradient = torch.zeros_like(power)

    def gradient(self, shape: torch.Size) -> Tensor | None:
        """Return the gradient of the fields."""
        if not self.differentiate:
            return None
        whole = self.field_gradient.addcmul_(self.x_hat, self.power_gradient, value=2)
        gradient: Tensor = torch.fft.irfft2(whole, s=shape, norm="forward") / math.prod(shape)
        return gradient


def is_linear(group: Group) -> bool:
    """Tell whether a group is x * psi itself, without mean."""
    return group[2] == 1 and not group[0]


def parts_of(group: Group) -> int:
    """Return the planes a channel: 1 for real, 2 for complex fields."""
    return 1 if group[0] or group[2] == 0 else 2


def groups(rows: Rows, side: str) -> list[Group]:
    """Return the group of one side of each row; the sign of k2 is the block's business."""
    low_pass = rows["l" + side] == LOW_PASS
    columns = (low_pass, rows["j" + side], np.abs(rows["k" + side]))
    return list(zip(*(column.tolist() for column in columns), strict=True))


def angles_by_group(rows: Rows) -> dict[Group, list[int]]:
    """Return the angles needed of each group, wavelets from fine to coarse, then low passes."""
    angles: dict[Group, set[int]] = {}
    for side in "12":
        for group, angle in zip(groups(rows, side), rows["l" + side].tolist(), strict=True):
            angles.setdefault(group, set()).add(angle)
    return {group: sorted(angles[group]) for group in sorted(angles)}


def spans(angles: dict[Group, list[int]]) -> dict[Group, slice]:
    """Return the numbers of each group's channels, counted group after group."""
    stops = np.cumsum([len(members) for members in angles.values()]).tolist()
    pairs = zip(angles.items(), stops, strict=True)
    return {group: slice(stop - len(members), stop) for (group, members), stop in pairs}


def _bands(angles: dict[Group, list[int]]) -> dict[Scale, list[int]]:
    bands: dict[Scale, set[int]] = {}
    for group, members in angles.items():
        bands.setdefault(group[:2], set()).update(members)
    return {scale: sorted(members) for scale, members in bands.items()}


def _half_planes(table: MomentTable, scale: Scale, angles: list[int]) -> Tensor:
    """Return even and odd parts of a scale's filters, ``(2, angle, y, column)`` float64."""
    low_pass, j = scale
    if low_pass:
        bank = bump_steerable.low_pass(table.shape, table.low_pass[j])[None]
    else:
        bank = bump_steerable.wavelets_at(table.shape, j, angles, table.L)
    mirrored = bank.flip((-2, -1)).roll((1, 1), (-2, -1))
    halves = torch.stack([bank + mirrored, bank - mirrored])[..., : table.shape[1] // 2 + 1] / 2
    columns = int(torch.nonzero(halves.abs().amax((0, 1, 2))).max()) + 1
    return halves[..., :columns]


def _as_filters(halves: Tensor, low_pass: bool) -> Tensor:
    """Return the filters of real and imaginary planes, ``e`` and ``-i o``; low passes are even."""
    even, odd = halves
    return even + 0j if low_pass else torch.cat([even + 0j, -1j * odd])


def _name(scale: Scale) -> str:
    return f"_filters_{'phi' if scale[0] else 'psi'}_{scale[1]}"


def _join(values: Tensor, group: Group) -> Tensor:
    """Return one complex number a channel from one real number a plane."""
    parts = (*values.chunk(parts_of(group)), torch.zeros_like(values))
    return torch.complex(parts[0], parts[1])
