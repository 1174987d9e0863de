"""The order in which channels are made, compared, differentiated and dropped.

Groups of channels (:mod:`.groups`) are made from fine to coarse; each block of covariances
is computed, and its gradient pulled, as soon as both its groups exist; a group is dropped after its
last block and a scale after its last group. So memory holds the scales that still have pairs to
come, not the whole field's history.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from wavemill.moments.banks import Filters, points_held
from wavemill.moments.boxes import (
    add_filtered_back,
    filtered,
    to_conjugate_field,
    to_spectrum,
)
from wavemill.moments.channels import Response
from wavemill.moments.covariances import PowerBlock, as_complex
from wavemill.moments.groups import Group, Scale, Source, among, bands_of, spans
from wavemill.moments.pairs import MomentTable, Rows
from wavemill.moments.plan import Due, Planner, Step
from wavemill.moments.slopes import Slopes
from wavemill.moments.stacks import WHOLE, Power, Stack
from wavemill.operators import keep_buffer


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
    planner
        What decides on blocks and their order.

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
        bank: Mapping[Scale, Filters],
        planner: type[Planner] = Planner,
    ) -> None:
        super().__init__()
        self.shape, self.dtype, self._angles = table.shape, dtype, angles
        bands = bands_of(angles)
        self._plan = planner(angles, bank, table.shape, dtype).plan(rows)
        self.order = self._plan.order
        self._blocks = nn.ModuleList(due.block for due in self._plan.due)
        self._counts = [due.results.stop - due.results.start for due in self._plan.due]
        for scale, own in bands.items():
            keep_buffer(self, scale.buffer, bank[scale].at(own).filters)
        self._channels = spans(angles)
        self._place = {group: among(own, bands[group.scale]) for group, own in angles.items()}

    def evaluate(
        self, x: Tensor, means: Tensor | None, slopes: Slopes | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Return the covariances ``(batch, row)``, complex, and with ``slopes`` the gradient.

        Parameters
        ----------
        x
            Real ``(batch, component, y, x)``.
        means
            Complex means of the channels, None for each field's own.
        slopes
            What the results' gradient is.
        """
        pass_ = _Pass(x)
        each = iter([] if slopes is None else slopes.split(self._counts))
        results = []
        for step in self._plan.steps:
            pass_.stacks[step.group] = self._stack(pass_, step.group, means)
            for due in step.due:
                sides = pass_.sides(due)
                if slopes is None:
                    results.append(due.block.evaluate(*sides))
                else:
                    results.append(due.block.differentiate(next(each), *sides))
            self._drop(pass_, step, slopes is not None)
        return torch.cat(results, dim=1), None if slopes is None else pass_.gradient()

    def mean_and_variance(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the means, complex, and variances of all channels of one field, ``(channel,)``.

        ``x`` is real ``(component, y, x)``. The mean of x * psi itself is 0. Variances take two
        passes: at the coarsest scales a modulus varies by a thousandth of its mean.
        """
        pass_ = _Pass(x[None])
        means, variances = [], []
        for step in self._plan.steps:
            field = self._inside(step.group, self._harmonic(pass_, step.group)[0]).flatten(1)
            mean = torch.zeros_like(field[:, :1]) if step.group.linear else field.mean(-1, True)
            means.append(as_complex(mean[:, 0]))
            variances.append((field - mean).abs().square().mean(-1))
            for source in step.last_sources:
                pass_.responses.pop(source, None)
        return torch.cat(means), torch.cat(variances)

    def memory(self, gradient: bool) -> int:
        """Return an upper bound in bytes of :meth:`evaluate` for one field."""
        pairs = {(group, due.groups[-1]) for due in self._plan.due for group in due.groups}
        points = points_held(self._angles, pairs, gradient) * math.prod(self.shape)
        return points * torch.finfo(self.dtype).bits // 8

    def _response(self, pass_: _Pass, source: Source) -> Response:
        if source not in pass_.responses:
            filters: Tensor = getattr(self, source.scale.buffer)
            spectrum = filtered(pass_.x_hat[source.component], filters)
            pass_.responses[source] = Response(spectrum, self.shape, source.scale.low_pass)
        return pass_.responses[source]

    def _inside(self, group: Group, field: Tensor) -> Tensor:
        """Return the points that means of a group are taken over."""
        return field[(..., *self._plan.inside.get(group.scale, WHOLE))]

    def _harmonic(self, pass_: _Pass, group: Group) -> Tensor:
        return self._response(pass_, group.source).harmonic(group.k, self._place[group])

    def _stack(self, pass_: _Pass, group: Group, means: Tensor | None) -> Stack:
        """Return what the blocks need of a group, centred."""
        if group.linear:
            field = self._harmonic(pass_, group) if group in self._plan.spatial else None
            spectrum = None
            if group in self._plan.boxes:
                spectrum = self._response(pass_, group.source).spectrum[:, self._place[group]]
            return Stack(True, field, spectrum)
        box, centred = self._plan.boxes.get(group), group in self._plan.centred
        mean = means[self._channels[group]] if centred and means is not None else None
        if box is not None and group not in self._plan.spatial and not (centred and means is None):
            response, place = self._response(pass_, group.source), self._place[group]
            spectrum = response.harmonic_spectrum(group.k, place, mean, box)
            if spectrum is not None:
                return Stack(False, None, spectrum)
        field = self._harmonic(pass_, group)
        if mean is not None:
            field = field - (mean if field.is_complex() else mean.real)[:, None, None]
        elif centred:
            field = field - self._inside(group, field).mean((-2, -1), keepdim=True)
        return Stack(False, field, None if box is None else to_spectrum(field, box))

    def _drop(self, pass_: _Pass, step: Step, differentiate: bool) -> None:
        """Forget groups and sources that nothing needs any more, handing on their gradients."""
        for group in step.last:
            stack = pass_.stacks.pop(group)
            if differentiate:
                self._return(pass_, group, stack)
        for source in step.last_sources:
            response = pass_.responses.pop(source, None)
            spectral = response.pulled() if differentiate and response is not None else None
            if spectral is not None:
                pass_.pull_field(source.component, spectral, getattr(self, source.scale.buffer))

    def _return(self, pass_: _Pass, group: Group, stack: Stack) -> None:
        """Hand a group's gradient to its scale or, if its spectrum is linear in x, to the field."""
        spectral, place = stack.spectrum_gradient, self._place[group]
        conjugate = None if stack.field_gradient is None else stack.field_gradient.conj()
        if spectral is not None and stack.linear:
            filters = getattr(self, group.scale.buffer)[place]
            pass_.pull_field(group.component, spectral, filters)
            spectral = None
        if spectral is None and conjugate is None:
            return
        response = self._response(pass_, group.source)
        if spectral is not None:
            if conjugate is None and response.pull_spectrum(group.k, place, spectral):
                return
            pulled = to_conjugate_field(spectral, self.shape, real=group.real)
            conjugate = pulled if conjugate is None else pulled + conjugate
        if conjugate is not None:
            response.pull(group.k, place, conjugate)


class _Pass:
    """What exists while one batch of fields ``(batch, component, y, x)`` goes through."""

    def __init__(self, x: Tensor) -> None:
        self.x_hat = torch.fft.fft2(x.movedim(1, 0).contiguous(), norm="forward")
        self.stacks: dict[Group, Stack] = {}
        self.responses: dict[Source, Response] = {}
        self._gradient = torch.zeros_like(self.x_hat.detach())
        self._powers: dict[tuple[int, int], Power] = {}

    def sides(self, due: Due) -> list[Any]:
        """Return what a block compares: stacks or, if linear in x, the power of its components."""
        if isinstance(due.block, PowerBlock):
            a, b = (group.component for group in due.groups)
            if (a, b) not in self._powers:
                one = self.x_hat[a]
                self._powers[a, b] = Power(one, one if a == b else self.x_hat[b])
            return [self._powers[a, b]]
        return [self.stacks[group] for group in due.groups]

    def pull_field(self, component: int, spectra: Tensor, filters: Tensor) -> None:
        """Add to the gradient of a component's transform that of its spectra behind filters."""
        add_filtered_back(spectra, filters, self._gradient[component])

    def gradient(self) -> Tensor:
        """Return the gradient of the fields."""
        for components, power in self._powers.items():
            for component, pulled in zip(components, power.pulled(), strict=False):
                self._gradient[component] += pulled
        gradient: Tensor = torch.fft.ifft2(self._gradient).real
        return gradient.movedim(0, 1)
