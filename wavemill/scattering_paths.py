"""Orders 1 and 2 of a scattering transform in one compiled loop, with their gradient.

What :mod:`wavemill.scattering2d` writes as a chain of torch operations, ``kernels/scattering.c``
computes path by path while a wave is in the caches: folded products, inverse transforms, moduli
and averages, of several fields in the lanes of each vector. The gradient computes waves again
rather than keeping them. Filters are the operator's own; both give the same numbers to rounding.

The loop takes plain float32 and float64 memory of a CPU, and grids whose sides have no prime
factor above 67. Under ``torch.func``, forward derivatives and ``torch.compile``, and for
derivatives of the gradient, torch computes the formulas instead.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from wavemill import kernels

if TYPE_CHECKING:
    from wavemill.scattering2d import Scattering2D


@dataclass(frozen=True)
class Window:
    """A circulant average of n points, sampled every ``step``, without its weights that vanish.

    Output i is the sum over k of ``weights[k] x[(first + step i + k) mod n]``.
    """

    first: int
    step: int
    count: int
    weights: Tensor

    @classmethod
    def of(cls, matrix: Tensor, step: int, margin: int) -> Window:
        """Return the window of a matrix ``(output, point)`` whose first output is ``margin``."""
        row, points, centre = matrix[0], matrix.shape[1], margin * step
        distances = torch.arange(points) - points // 2
        weights = row[(centre + distances) % points].abs()
        reach = int(distances[weights > torch.finfo(row.dtype).eps * weights.max()].abs().max())
        length = min(2 * reach + 1, points)
        first = centre - (reach if length < points else points // 2)
        kept = row[(first + torch.arange(length)) % points].contiguous()
        return cls(first, step, len(matrix), kept)

    def described(self) -> kernels.Average:
        """Return the window as the loop takes it."""
        weights = self.weights
        return kernels.Average(
            first=self.first,
            step=self.step,
            count=self.count,
            length=len(weights),
            weights=weights.data_ptr(),
        )


class Task:
    """A transform as the loop takes it, with everything that its addresses point to."""

    def __init__(self, op: Scattering2D, images: int) -> None:
        scales = range(op.J)
        self._first = _array([op.bank(0, j).described() for j in scales])
        self._second = _array(
            [
                op.bank(j1, j2).described() if j1 < j2 and op.max_order == 2 else kernels.Bank()
                for j1 in scales
                for j2 in scales
            ]
        )
        self._averages = _array([window.described() for window in op.windows])
        self.coefficients = len(op.coefficients["order"])
        self.described = kernels.Scattering(
            images=images,
            height=op.grid[0],
            width=2 * op.grid[1],
            J=op.J,
            L=op.L,
            phases=op.phases[0],
            order=op.max_order,
            coefficients=self.coefficients,
            first=ctypes.addressof(self._first),
            second=ctypes.addressof(self._second),
            averages=ctypes.addressof(self._averages),
        )

    def bytes(self, dtype: torch.dtype, gradient: bool) -> int:
        """Return how many bytes the threads work in, -1 for sides that the loop cannot take."""
        return kernels.scattering_bytes(self.described, dtype, gradient)


def _array(items: Sequence[ctypes.Structure]) -> ctypes.Array[Any]:
    return (type(items[0]) * len(items))(*items)


def usable(op: Scattering2D, *tensors: Tensor) -> bool:
    """Say whether the loop can compute the transform of these tensors at this point."""
    return op.fused and kernels.unfollowed() and kernels.usable(*tensors)


class Paths(torch.autograd.Function):
    """Averages ``(batch, y', x')`` and the paths from spectra: ``(batch, coefficient, y', x')``."""

    @staticmethod
    def forward(ctx: Any, average: Tensor, spectra: Tensor, op: Scattering2D) -> Tensor:
        """Return the coefficients."""
        ctx.op = op
        ctx.save_for_backward(spectra)
        task = Task(op, len(spectra))
        out = average.new_empty(len(average), task.coefficients, *average.shape[1:])
        out[:, 0] = average
        kernels.scatter(spectra, task.described, out)
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        """Return the gradients of averages and spectra."""
        (spectra,), gradient = ctx.saved_tensors, gradients[0].contiguous()
        if torch.is_grad_enabled() or not usable(ctx.op, spectra, gradient):
            formulas = _by_formulas(ctx.op, spectra, gradient[:, 1:], torch.is_grad_enabled())
            return gradient[:, 0], formulas, None
        by_thread = spectra.new_zeros(torch.get_num_threads(), *spectra.shape)
        task = Task(ctx.op, len(spectra))
        kernels.scatter(spectra, task.described, gradient, torch.view_as_real(by_thread))
        return gradient[:, 0], by_thread.sum(0), None


def _by_formulas(op: Scattering2D, spectra: Tensor, gradient: Tensor, graph: bool) -> Tensor:
    """Return the gradient by torch, with a ``graph`` of its own or not."""
    with torch.enable_grad():
        leaf = spectra if graph else spectra.detach().requires_grad_()
        paths = op.paths_by_formulas(leaf)
        return torch.autograd.grad(paths, leaf, gradient, create_graph=graph)[0]
