"""Phase-harmonic covariances of periodic real fields, measured and differentiated.

    C(row) = mean over u of a(u + shift) conj b(u) ,   a = ([x * psi_{j1,l1}]^k1 - m_a) / s_a ,

b likewise, for the rows of a table of moments (:mod:`.pairs`). m and s are each field's own
channel means and 1, or are given: the frozen means and standard deviations of a reference.

This takes one transform of x, one inverse transform for each wavelet (angle l + L is the conjugate
of l), and :mod:`.covariances` for the pairs. Transforms have sign ``-i w u``, unnormalised forward.

Source: Zhang and Mallat, *Maximum entropy models from phase harmonic covariances*, ACHA 53, 199
(2021), sections 2 and 3.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd.function import once_differentiable

from wavemill.errors import InvalidParameter, ShapeMismatch
from wavemill.moments.chunks import BUDGET, schedule_of
from wavemill.moments.groups import angles_by_group, groups, spans
from wavemill.moments.pairs import INDICES, Canonical, MomentTable, canonical, model
from wavemill.moments.plan import Planner
from wavemill.moments.schedule import Pull
from wavemill.operators import FieldOperator, keep_buffer, ordinary, own_precision, power_of_two


@dataclass(frozen=True)
class Statistics:
    """Frozen normalisation of channels: ``mean`` complex, ``scale`` real, each ``(channel,)``."""

    mean: Tensor
    scale: Tensor

    @property
    def unit(self) -> Tensor:
        """The power of 2 below the largest scale: squares of fields over it fit any precision."""
        return power_of_two(self.scale.amax())

    def over(self, unit: Tensor) -> Statistics:
        """Return the normalisation of fields that are divided by ``unit``."""
        return Statistics(self.mean / unit, self.scale / unit)


@dataclass(frozen=True)
class Moments:
    """What a model keeps of its references: their normalisation, and ``values (coefficient,)``."""

    statistics: Statistics
    values: Tensor


def fitting(moments: Moments, channels: int, count: int, fields: Tensor) -> Moments:
    """Return moments in the fields' precision, on their device; refuse another operator's."""
    found = len(moments.statistics.scale), len(moments.values)
    if found != (channels, count):
        raise ShapeMismatch(
            f"expected {count} moments of {channels} channels, got {found[1]} of {found[0]}: "
            "measure them with this operator"
        )
    mean = moments.statistics.mean.to(fields.device, fields.dtype.to_complex())
    scale, values = (each.to(fields) for each in (moments.statistics.scale, moments.values))
    return Moments(Statistics(ordinary(mean), ordinary(scale)), ordinary(values))


def floored(scale: Tensor, spread: Tensor) -> Tensor:
    """Return deviations of channels, at least 100 rounding units of the fields' own.

    So a band that holds nothing but rounding error stays small instead of being blown up to 1.
    """
    scale = torch.maximum(scale, 100 * torch.finfo(scale.dtype).eps * spread)
    return torch.where(scale > 0, scale, 1.0)


def some(fields: Tensor) -> Tensor:
    """Refuse to measure no field at all."""
    if not len(fields):
        raise ShapeMismatch(f"there is no field to measure in {tuple(fields.shape)}")
    return fields


class PhaseHarmonicCovariance(FieldOperator):
    """The real vector of phase-harmonic covariances of a field.

    ``op(x)`` maps real ``(..., y, x)`` to ``(..., coefficient)``: covariances of each field about
    its own channel means, not divided by anything. Real and imaginary part are two coefficients,
    told apart by ``op.coefficients["part"]``; parts that vanish by symmetry are absent.

    Parameters
    ----------
    shape
        Grid ``(y, x)``, periodic.
    J, L
        Scales, and angles in a half turn.
    moments
        Name of a set (:func:`.model`), or a table made for this shape, J and L.
    lags
        Reach of the shifts of a named set.
    dtype
        Real precision computed and returned.
    budget
        Bytes that the gradient of one field may take: if it needs more, pairs go in chunks
        (:mod:`.chunks`), which takes longer. One scale's channels are held in any case.

    Raises
    ------
    InvalidParameter
        If the set does not exist or does not fit, or the table was made for something else.
    """

    _planner = Planner
    _index: Tensor
    _sign: Tensor
    _rows: Tensor
    _conjugate: Tensor
    _left: Tensor
    _right: Tensor

    def __init__(
        self,
        shape: tuple[int, int],
        J: int = 5,
        L: int = 4,
        moments: str | MomentTable = "C",
        lags: int = 1,
        dtype: torch.dtype = torch.float32,
        budget: int = BUDGET,
    ) -> None:
        super().__init__(shape, dtype)
        table = model(moments, self.shape, J, L, lags) if isinstance(moments, str) else moments
        if (table.shape, table.J, table.L) != (self.shape, J, L):
            raise InvalidParameter(
                f"the table is for shape {table.shape}, J={table.J}, L={table.L}, "
                f"the operator for {self.shape}, J={J}, L={L}"
            )
        self.table, self._budget, self.J, self.L = table, budget, J, L
        self._prepare()

    @property
    def channels(self) -> int:
        """Number of channels, whose statistics normalise."""
        return sum(map(len, self._angles.values()))

    def forward(self, x: Tensor) -> Tensor:
        """Return the covariances ``(..., coefficient)`` of real fields ``(..., y, x)``."""
        fields = self._checked(x)
        unit = power_of_two(fields.detach().abs().flatten(1).amax(1, keepdim=True))
        values = self._coefficients(self._evaluate(fields / unit[..., None], None))
        return (values * unit * unit).reshape(*x.shape[:-2], len(self._index))

    def covariances(self, x: Tensor, statistics: Statistics | None = None) -> Tensor:
        """Return the complex covariances, one a row of the table.

        Parameters
        ----------
        x
            Real ``(..., y, x)``.
        statistics
            Frozen normalisation, from :meth:`statistics`; None: own means, no division.

        Returns
        -------
        Tensor
            Complex ``(..., row)``.

        Raises
        ------
        ShapeMismatch
            If ``x`` is not real or not on the operator's grid.
        """
        rows = self._evaluate(self._checked(x), statistics)[:, self._rows]
        rows = torch.where(self._conjugate, rows.conj(), rows)
        return rows.reshape(*x.shape[:-2], len(self._rows))

    def statistics(self, x: Tensor) -> Statistics:
        """Return the means and standard deviations of the channels over all of ``x (..., y, x)``.

        A deviation is :func:`floored` at 100 rounding units of the fields' own.
        """
        fields = some(self._checked(x))
        unit = power_of_two(fields.detach().abs().amax())
        fields = fields / unit
        with torch.no_grad(), own_precision(x.device):
            moments = [self.schedule.mean_and_variance(field[None]) for field in fields]
            means, variances = (torch.stack(values) for values in zip(*moments, strict=True))
            spread = fields.var(correction=0).sqrt()
        mean = means.mean(0)
        scale = (variances + (means - mean).abs().square()).mean(0).sqrt()
        return Statistics(mean * unit, floored(scale, spread) * unit)

    def measure(self, x: Tensor, statistics: Statistics | None = None) -> Moments:
        """Return the standardised moments of ``x (..., y, x)``, averaged over its leading axes.

        ``statistics`` is the normalisation to freeze; None: that of ``x``.
        """
        fields = some(self._checked(x))
        frozen = self.statistics(fields) if statistics is None else statistics
        with torch.no_grad():
            values = self._coefficients(self._evaluate(fields, frozen))
        return Moments(frozen, values.mean(0))

    def loss(self, x: Tensor, moments: Moments) -> Tensor:
        """Return ``sum over coefficients of (C(x) - C_ref)^2``, one value a field ``(...)``.

        It is differentiable once: the gradient is computed with the loss, pair by pair, and nothing
        else is kept. For the transforms of ``torch.func`` use ``op(x)``.
        """
        loss: Tensor = _Loss.apply(x, self, moments)  # type: ignore[no-untyped-call]
        return loss

    def loss_and_gradient(self, x: Tensor, moments: Moments) -> tuple[Tensor, Tensor]:
        """Return the loss ``(...)`` and its gradient, of the shape and dtype of ``x``."""
        fields = self._checked(x)
        moments = fitting(moments, self.channels, len(self._index), fields)
        unit = moments.statistics.unit
        moments = Moments(moments.statistics.over(unit), moments.values)
        statistics, fields = moments.statistics, fields / unit
        scale = self._scale(statistics)
        pull = self._residuals(moments, scale)
        with torch.no_grad(), own_precision(x.device):
            results = [fields.new_zeros(0, len(scale), dtype=scale.dtype.to_complex())]
            gradients = [fields.new_zeros(0, *self.shape)]
            for chunk in torch.split(fields, self._chunk(x.device)) if len(fields) else ():
                if self.table.run > 1:
                    pull = self._known_residuals(chunk, moments, scale)
                result, gradient = self.schedule.evaluate(chunk, statistics.mean, pull)
                assert gradient is not None
                results.append(result)
                gradients.append(gradient)
            values = self._coefficients(torch.cat(results) / scale)
            loss = (values - moments.values).square().sum(-1)
        gradient = torch.cat(gradients) / unit
        return loss.reshape(x.shape[:-2]), gradient.reshape(x.shape).to(x.dtype)

    def memory(self, batch: int, gradient: bool = False) -> int:
        """Return an upper bound in bytes of what a call allocates, beyond this module.

        Parameters
        ----------
        batch
            Fields at once.
        gradient
            Whether :meth:`loss` is differentiated.
        """
        chunk = min(batch, self._chunk(torch.device("cpu")))
        return (
            chunk * self.schedule.memory(gradient)
            + batch
            * (4 * math.prod(self.shape) + 16 * len(self._index))
            * torch.finfo(self.dtype).bits
            // 8
        )

    def _residuals(self, moments: Moments, scale: Tensor) -> Pull:
        """Return the gradient of the loss by each result, known as soon as the result is."""
        count = torch.zeros(2 * len(scale), dtype=self.dtype, device=scale.device)
        count.index_add_(0, self._index.flatten(), torch.ones_like(self._sign).flatten())
        factor = 2 * count.view(-1, 2) / scale[:, None] ** 2
        offset = 2 * self._spread(moments.values[None])[0] / scale[:, None]

        def pull(rows: slice, c: Tensor) -> Tensor:
            parts = torch.view_as_real(c.resolve_conj())
            return torch.view_as_complex(parts * factor[rows] - offset[rows])

        return pull

    def _known_residuals(self, fields: Tensor, moments: Moments, scale: Tensor) -> Pull:
        """Return the same where moments are means of results, which takes a pass of its own."""
        results = self.schedule.evaluate(fields, moments.statistics.mean)[0]
        residual = self._coefficients(results / scale) - moments.values
        gradient = 2 * torch.view_as_complex(self._spread(residual)) / scale
        return lambda rows, _: gradient[:, rows]

    def _spread(self, coefficients: Tensor) -> Tensor:
        """Apply the transpose of :meth:`_coefficients` to ``(field, coefficient)``."""
        parts = coefficients.new_zeros(len(coefficients), 2 * len(self._left))
        each = (coefficients[:, :, None] * self._sign / self.table.run).flatten(1)
        parts.index_add_(1, self._index.flatten(), each)
        return parts.view(len(parts), -1, 2)

    def _evaluate(self, fields: Tensor, statistics: Statistics | None) -> Tensor:
        """Return the distinct covariances of all fields, ``(field, distinct)``."""
        if not len(fields):
            return fields.new_zeros(0, len(self._left), dtype=self.dtype.to_complex())
        mean = None
        if statistics is not None:
            unit = statistics.unit
            statistics = statistics.over(unit)
            fields, mean = fields / unit, statistics.mean
        chunks = torch.split(fields, self._chunk(fields.device))
        with own_precision(fields.device):
            results = torch.cat([self.schedule.evaluate(chunk, mean)[0] for chunk in chunks])
        return results if statistics is None else results / self._scale(statistics)

    def _scale(self, statistics: Statistics) -> Tensor:
        return statistics.scale[self._left] * statistics.scale[self._right]

    def _coefficients(self, results: Tensor) -> Tensor:
        """Return parts of rows, or means of runs of rows, ``(field, coefficient)``."""
        parts = torch.view_as_real(results.resolve_conj()).flatten(1)[:, self._index]
        return (parts * self._sign).mean(-1)

    def _chunk(self, device: torch.device) -> int:
        """Return how many fields go together: on a CPU few enough for its caches."""
        points = 2**16 if device.type == "cpu" else 2**20
        return max(1, points // math.prod(self.shape))

    def _checked(self, x: Tensor) -> Tensor:
        """Return ``(field, y, x)`` in the operator's precision, and follow x to its device."""
        return super()._checked(x).reshape(-1, *self.shape)

    def _prepare(self) -> None:
        form = canonical(self.table)
        self.coefficients, parts = coefficient_table(self.table, form.real)
        self._angles = angles_by_group(form.distinct)
        self._channels = spans(self._angles)
        self.schedule = schedule_of(
            self.table, form.distinct, self._angles, self.dtype, self._budget, self._planner
        )
        self._index_results(form, parts)

    def _index_results(self, form: Canonical, parts: NDArray[np.int64]) -> None:
        """Store the places of each row's and coefficient's results, and each result's channels."""
        evaluated = self.schedule.order
        place = np.argsort(evaluated)[form.index]
        keep_buffer(self, "_rows", torch.from_numpy(place))
        keep_buffer(self, "_conjugate", torch.from_numpy(form.conjugate))
        index, sign = coefficient_places(form, parts, self.table.run, place)
        keep_buffer(self, "_index", index)
        keep_buffer(self, "_sign", sign.to(self.dtype))
        for name, side in (("_left", "1"), ("_right", "2")):
            channel = [
                self._channels[group].start + self._angles[group].index(angle)
                for group, angle in zip(
                    groups(form.distinct, side), form.distinct["l" + side], strict=True
                )
            ]
            keep_buffer(self, name, torch.tensor(channel)[torch.from_numpy(evaluated)])


class _Loss(torch.autograd.Function):
    """The loss, whose gradient is computed with it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, operator: PhaseHarmonicCovariance, moments: Moments) -> Tensor:
        if not ctx.needs_input_grad[0]:
            fields = operator._checked(x)
            moments = fitting(moments, operator.channels, len(operator._index), fields)
            values = operator._coefficients(operator._evaluate(fields, moments.statistics))
            return (values - moments.values).square().sum(-1).reshape(x.shape[:-2])
        loss, gradient = operator.loss_and_gradient(x, moments)
        ctx.save_for_backward(gradient)
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = ctx.saved_tensors
        return gradients[0][..., None, None] * gradient, None, None


def coefficient_table(
    table: MomentTable, real: NDArray[np.bool_]
) -> tuple[dict[str, NDArray[np.generic]], NDArray[np.int64]]:
    """Return what each coefficient is, by its first row, and its places among (re, im)."""
    rows, run = table.rows, table.run
    wanted = np.column_stack([np.ones_like(real), ~real & (run == 1)]).reshape(-1)
    places = np.flatnonzero(wanted)
    place = places[::run]
    columns: dict[str, NDArray[np.generic]] = {"order": np.full(len(place), 2)}
    columns |= {name: rows[name][place // 2] for name in INDICES}
    columns |= {"part": np.where(place % 2, "im", "re"), "family": rows["class"][place // 2]}
    return columns, places


def coefficient_places(
    form: Canonical, parts: NDArray[np.int64], run: int, place: NDArray[np.int64]
) -> tuple[Tensor, Tensor]:
    """Return which of (re, im) of all covariances a coefficient is the mean of, and their signs.

    ``place`` is the place of each given row's covariance; results are ``(coefficient, run)``.
    """
    flips = form.conjugate[parts // 2] & (parts % 2 == 1)
    index = (2 * place[parts // 2] + parts % 2).reshape(-1, run)
    sign = np.where(flips, -1.0, 1.0).reshape(-1, run)
    return torch.from_numpy(index), torch.from_numpy(sign)
