"""Moments whose gradient is left to autograd, with the interface of the hand-written ones.

A family of moments says how fields are normalised and what its moments are. Measurement, loss and
gradient are the same for all families: see :class:`wavemill.PhaseHarmonicCovariance`. Several
families can be joined into one (:class:`Joined`).
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from wavemill.devices import BesideDefault
from wavemill.errors import InvalidParameter, ShapeMismatch
from wavemill.moments.statistics import Moments, Statistics, fitting, some
from wavemill.operators import (
    check_whole,
    is_inferred,
    moved,
    must_be_real,
    must_be_tensor,
    ordinary,
    own_precision,
    power_of_two,
    summary,
)

Columns = Mapping[str, NDArray[np.generic]]


class MomentOperator(Protocol):
    """What a model of moments asks of a family."""

    @property
    def dtype(self) -> torch.dtype:
        """Real precision computed and returned."""
        ...

    @property
    def coefficients(self) -> Columns:
        """The table of what each coefficient is; ``family`` is one of its columns."""
        ...

    @property
    def channels(self) -> int:
        """Length of the normalising statistics."""
        ...

    def measure(self, x: Tensor) -> Moments:
        """Return the moments of fields, averaged over them."""
        ...

    def loss_and_gradient(self, x: Tensor, moments: Moments) -> tuple[Tensor, Tensor]:
        """Return the squared distance from moments, one a field, and its gradient."""
        ...


class DifferentiatedMoments(BesideDefault, nn.Module, abc.ABC):
    """Base of families of moments of fields ``(..., y, x)``, or ``(..., component, y, x)``.

    Parameters
    ----------
    shape
        Shape of one field.
    dtype
        Real precision computed and returned.
    """

    coefficients: Columns

    def __init__(self, shape: tuple[int, ...], dtype: torch.dtype) -> None:
        super().__init__()
        if dtype not in (torch.float32, torch.float64):
            raise InvalidParameter(f"dtype must be float32 or float64, got {dtype}")
        self.shape, self.dtype = tuple(map(int, shape)), dtype

    def __repr__(self) -> str:
        return summary(self)

    @property
    @abc.abstractmethod
    def channels(self) -> int:
        """Length of the normalising statistics."""

    @abc.abstractmethod
    def statistics(self, x: Tensor) -> Statistics:
        """Return the normalisation by fields ``(field, *shape)``, to be frozen."""

    @abc.abstractmethod
    def values(self, x: Tensor, statistics: Statistics) -> Tensor:
        """Return the moments ``(field, coefficient)`` of fields, differentiable."""

    def standardised(self, x: Tensor, statistics: Statistics) -> Tensor:
        """Return the moments of fields, computed in a unit in which no square overflows."""
        unit = statistics.unit
        return self.values(x / unit, statistics.over(unit))

    def forward(self, x: Tensor) -> Tensor:
        """Return the moments ``(..., coefficient)`` of fields, each normalised by itself."""
        fields = self._checked(x)
        each = [fields.new_zeros(0, len(self.coefficients["family"]))]
        with own_precision(x.device):
            each += [self.standardised(one, self._frozen(one)) for one in fields[:, None]]
        return torch.cat(each).reshape(*x.shape[: x.ndim - len(self.shape)], each[0].shape[1])

    def measure(self, x: Tensor, statistics: Statistics | None = None) -> Moments:
        """Return the moments of ``x``, averaged over its leading axes.

        ``statistics`` is the normalisation to freeze; None: that of ``x``.
        """
        fields = some(self._checked(x))
        with torch.no_grad(), own_precision(x.device):
            frozen = self._frozen(fields) if statistics is None else statistics
            each = [self.standardised(field, frozen) for field in fields[:, None]]
        return Moments(frozen, torch.cat(each).mean(0))

    def loss(self, x: Tensor, moments: Moments) -> Tensor:
        """Return ``sum over coefficients of (C(x) - C_ref)^2``, one value a field ``(...)``."""
        fields = self._checked(x)
        moments = self._fitting(moments, fields)
        lead = x.shape[: x.ndim - len(self.shape)]
        if not len(fields):
            return fields.sum((-2, -1)).reshape(lead)
        with own_precision(x.device):
            values = self.standardised(fields, moments.statistics)
            loss: Tensor = (values - moments.values).square().sum(-1)
        return loss.reshape(lead)

    def loss_and_gradient(self, x: Tensor, moments: Moments) -> tuple[Tensor, Tensor]:
        """Return the loss ``(...)`` and its gradient, of the shape and dtype of ``x``."""
        with torch.inference_mode(False), torch.enable_grad(), own_precision(x.device):
            field = ordinary(x.detach()).requires_grad_()
            loss = self.loss(field, moments)
            (gradient,) = torch.autograd.grad(loss.sum(), field)
        return loss.detach(), gradient

    @torch.inference_mode(False)  # autograd could never save filters made in it
    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> Self:
        wanted = fn(torch.zeros((), dtype=self.dtype)).dtype
        must_be_real(wanted)
        if wanted != self.dtype:
            raise InvalidParameter(
                f"these moments are of {self.dtype}: make them anew with dtype={wanted}"
            )
        super()._apply(lambda tensor: moved(tensor, fn), recurse)  # type: ignore[no-untyped-call]
        return self

    def _frozen(self, fields: Tensor) -> Statistics:
        """Return :meth:`statistics` of fields in any units."""
        unit = power_of_two(fields.detach().abs().amax())
        found = self.statistics(fields / unit)
        return Statistics(found.mean * unit, found.scale * unit)

    def _fitting(self, moments: Moments, fields: Tensor) -> Moments:
        return fitting(moments, self.channels, len(self.coefficients["family"]), fields)

    def _checked(self, x: Tensor) -> Tensor:
        """Return ``(field, *shape)`` in the operator's precision, and follow x to its device."""
        must_be_tensor(x)
        if not x.is_floating_point() or tuple(x.shape[x.ndim - len(self.shape) :]) != self.shape:
            raise ShapeMismatch(
                f"moments were built for real fields (..., {', '.join(map(str, self.shape))}) of "
                f"floating point, got {x.dtype} of shape {tuple(x.shape)}"
            )
        if any(buffer.device != x.device or is_inferred(buffer) for buffer in self.buffers()):
            self.to(x.device)
        return x.to(self.dtype).reshape(-1, *self.shape)


class Joined(nn.Module):
    """Several families of moments of the same fields: their losses add up.

    Parameters
    ----------
    operators
        The families, of one precision.
    """

    def __init__(self, operators: Sequence[MomentOperator]) -> None:
        super().__init__()
        self.operators = operators
        self.dtype = operators[0].dtype
        self._held = nn.ModuleList([op for op in operators if isinstance(op, nn.Module)])
        self.coefficients = _joined([op.coefficients for op in operators])

    @property
    def channels(self) -> int:
        """Length of the normalising statistics."""
        return sum(op.channels for op in self.operators)

    def measure(self, x: Tensor) -> Moments:
        """Return the moments of ``x``, averaged over its leading axes."""
        parts = [op.measure(x) for op in self.operators]
        mean = torch.cat([part.statistics.mean for part in parts])
        scale = torch.cat([part.statistics.scale for part in parts])
        return Moments(Statistics(mean, scale), torch.cat([part.values for part in parts]))

    def loss_and_gradient(self, x: Tensor, moments: Moments) -> tuple[Tensor, Tensor]:
        """Return the sum of the losses and its gradient."""
        parts = zip(self.operators, self._split(moments), strict=True)
        losses, gradients = zip(*(op.loss_and_gradient(x, m) for op, m in parts), strict=True)
        return torch.stack(losses).sum(0), torch.stack(gradients).sum(0)

    def _split(self, moments: Moments) -> list[Moments]:
        channels = [op.channels for op in self.operators]
        counts = [len(op.coefficients["family"]) for op in self.operators]
        means = torch.split(moments.statistics.mean, channels)
        scales = torch.split(moments.statistics.scale, channels)
        values = torch.split(moments.values, counts)
        return [
            Moments(Statistics(mean, scale), value)
            for mean, scale, value in zip(means, scales, values, strict=True)
        ]


def _joined(tables: Sequence[Columns]) -> Columns:
    """Return tables one after the other: -1 where a column does not apply, 0 for shifts."""
    names = dict.fromkeys(name for table in tables for name in table)
    return {
        name: np.concatenate(
            [
                table.get(name, np.full(len(table["family"]), -(not name.startswith("shift"))))
                for table in tables
            ]
        )
        for name in names
    }


def check_fits(shape: tuple[int, int], J: int, L: int, least: int = 1) -> None:
    """Refuse fewer angles than ``least``, and a wavelet that does not fit on the grid."""
    check_whole(J=J, L=L)
    if least > L:
        raise InvalidParameter(f"wavelets of L >= {least} angles are needed, got L={L}")
    if J < 1 or min(shape) < 2**J:
        raise InvalidParameter(
            f"J={J} scales need a grid of {2 ** max(J, 1)} points a side, got {shape}: lower J"
        )
