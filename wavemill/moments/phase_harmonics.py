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
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd.function import once_differentiable

from wavemill.errors import InvalidParameter
from wavemill.moments.chunks import BUDGET, schedule_of
from wavemill.moments.groups import angles_by_group
from wavemill.moments.pairs import INDICES, Canonical, MomentTable, canonical, model
from wavemill.moments.plan import Planner
from wavemill.moments.readout import Readout, at_once, channels_of
from wavemill.moments.statistics import Moments, Statistics, fitting, floored, some
from wavemill.operators import FieldOperator, keep_buffer, own_precision, power_of_two


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
    _rows: Tensor
    _conjugate: Tensor

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
        results = self._readout.covariances(fields / unit[..., None, None], None)
        values = self._readout.coefficients(results) * unit * unit
        return values.reshape(*x.shape[:-2], len(self._readout))

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
        rows = self._readout.covariances(self._checked(x), statistics)[:, self._rows]
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
            mean, variance = self._readout.mean_and_variance(fields)
            scale = floored(variance.sqrt(), fields.var(correction=0).sqrt())
        return Statistics(mean * unit, scale * unit)

    def measure(self, x: Tensor, statistics: Statistics | None = None) -> Moments:
        """Return the standardised moments of ``x (..., y, x)``, averaged over its leading axes.

        ``statistics`` is the normalisation to freeze; None: that of ``x``.
        """
        fields = some(self._checked(x))
        frozen = self.statistics(fields) if statistics is None else statistics
        return Moments(frozen, self._values(fields, frozen).mean(0))

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
        loss, gradient = self._readout.loss_and_gradient(fields, self._fitting(moments, fields))
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
        points = math.prod(self.shape)
        together = min(batch, at_once(points, torch.device("cpu")))
        return (
            together * self._readout.schedule.memory(gradient)
            + batch * (4 * points + 16 * len(self._readout)) * torch.finfo(self.dtype).bits // 8
        )

    def _values(self, fields: Tensor, statistics: Statistics) -> Tensor:
        """Return the standardised moments of fields, no graph of autograd, ``(field, moment)``."""
        with torch.no_grad():
            return self._readout.coefficients(self._readout.covariances(fields, statistics))

    def _fitting(self, moments: Moments, fields: Tensor) -> Moments:
        return fitting(moments, self.channels, len(self._readout), fields)

    def _checked(self, x: Tensor) -> Tensor:
        """Return ``(field, 1, y, x)`` in the operator's precision, and follow x to its device."""
        return super()._checked(x).reshape(-1, 1, *self.shape)

    def _prepare(self) -> None:
        form = canonical(self.table)
        self.coefficients, parts = coefficient_table(self.table, form.real)
        self._angles = angles_by_group(form.distinct)
        schedule = schedule_of(
            self.table, form.distinct, self._angles, self.dtype, self._budget, self._planner
        )
        place = np.argsort(schedule.order)[form.index]
        keep_buffer(self, "_rows", torch.from_numpy(place))
        keep_buffer(self, "_conjugate", torch.from_numpy(form.conjugate))
        index, sign = coefficient_places(form, parts, self.table.run, place)
        channels = channels_of(form.distinct[schedule.order], self._angles)
        self._readout = Readout(schedule, index, sign, channels)


class _Loss(torch.autograd.Function):
    """The loss, whose gradient is computed with it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, operator: PhaseHarmonicCovariance, moments: Moments) -> Tensor:
        if not ctx.needs_input_grad[0]:
            fields = operator._checked(x)
            moments = operator._fitting(moments, fields)
            values = operator._values(fields, moments.statistics)
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
