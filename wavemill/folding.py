"""Filter and sample in one step, and the modulus: what a scattering transform is made of.

Sampling every f-th point adds up the f^2 blocks of a spectrum that alias on to one another, so for
a bank of real filters psi_l

    (x * psi_l)^(w) sampled  =  sum over blocks b of  x^(w_b) psi^_l(w_b) .

Most blocks of a filter hold nothing and are left out. Spectra are seen as pairs of real
numbers and filters hold every value twice, so that no multiplication is complex. Both maps have
hand-written gradients, which admit derivatives of any order and ``torch.func``. ``torch.compile``
cannot trace a function that has a forward derivative, and differentiates the formulas instead.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from wavemill import kernels
from wavemill.operators import keep_buffer

# A block's row and column; the first filter that reaches it and the one past the last; the place of
# their first term among the terms of all sums.
Place = tuple[int, int, int, int, int]


@dataclass(frozen=True)
class Blocks:
    """Which blocks of a spectrum the filters of a bank reach, and the sizes of both."""

    count: int
    places: tuple[Place, ...]
    terms: int
    rows: int
    columns: int  # of real numbers, two for each frequency
    factor: int

    @property
    def grid(self) -> tuple[int, int]:
        """Rows of a spectrum, and real numbers in a row."""
        return self.rows * self.factor, self.columns * self.factor

    @cached_property
    def located(self) -> Tensor:
        """The places as the compiled loops take them."""
        return torch.tensor(self.places).reshape(-1, 5)

    def filters(self, values: Tensor) -> list[Tensor]:
        """Return the filters of each place, ``(last - first, rows, columns)``."""
        return [
            values[:, term : term + last - first].transpose(0, 1)
            for *_, first, last, term in self.places
        ]


class FoldedBank(nn.Module):
    """Filters of one grid whose responses are wanted every ``factor`` points.

    ``bank(x_hat)`` maps spectra ``(..., y, x)`` to the responses' ``(..., l, y / f, x / f)``.

    Parameters
    ----------
    psi
        Real transforms ``(l, y, x)``, float64, on sides that are multiples of ``factor``.
    factor
        Step f of the sampling.
    dtype
        Real precision. Blocks whose values are below its rounding unit are left out.
    """

    def __init__(self, psi: Tensor, factor: int, dtype: torch.dtype) -> None:
        super().__init__()
        aliased = _aliased(psi, factor)
        largest = torch.maximum(aliased.amax((-2, -1)), -aliased.amin((-2, -1)))
        places = _places(largest > torch.finfo(dtype).eps)
        rows, columns = aliased.shape[-2:]
        reached = torch.cat([aliased[first:last, y, x] for y, x, first, last, _ in places])
        values = (reached / factor**2).to(dtype).repeat_interleave(2, -1)
        keep_buffer(self, "_values", values.transpose(0, 1).contiguous())
        self.blocks = Blocks(len(psi), places, len(reached), rows, 2 * columns, factor)

    def described(self) -> kernels.Bank:
        """Return the filters as the compiled loop takes them, by their address."""
        blocks, values = self.blocks, self.get_buffer("_values")
        return kernels.Bank(
            values=values.data_ptr(),
            reached=blocks.located.data_ptr(),
            places=len(blocks.places),
            terms=blocks.terms,
            rows=blocks.rows,
            columns=blocks.columns,
        )

    def forward(self, x_hat: Tensor) -> Tensor:
        """Return the spectra of the sampled responses, ``(..., l, y / f, x / f)``."""
        pairs = torch.view_as_real(x_hat).flatten(-2)
        fold = _Fold.forward if torch.compiler.is_compiling() else _Fold.apply
        folded: Tensor = fold(pairs, self.get_buffer("_values"), self.blocks)
        return torch.view_as_complex(folded.reshape(*folded.shape[:-1], -1, 2))


def modulus(z: Tensor, overwrite: bool = False) -> Tensor:
    """Return |z|, with gradient 0 at 0, for z whose squares neither overflow nor vanish.

    With ``overwrite`` z may be destroyed where gradients are off, which visits half the memory.
    """
    if torch.compiler.is_compiling():
        return _Modulus.forward(z)
    if overwrite and not torch.is_grad_enabled():
        return _root(torch.view_as_real(z).square_())
    size: Tensor = _Modulus.apply(z)  # type: ignore[no-untyped-call]
    return size


def _root(squares: Tensor) -> Tensor:
    """Return roots of sums of two neighbours in memory, at least that of the smallest normal."""
    square = squares[..., 0] + squares[..., 1]
    return square.add_(torch.finfo(square.dtype).tiny).sqrt_()


class _Fold(torch.autograd.Function):
    """Sum over blocks of spectrum times filter: ``(..., y, x)`` to ``(..., l, rows, columns)``."""

    @staticmethod
    def forward(spectrum: Tensor, values: Tensor, blocks: Blocks) -> Tensor:
        shape = (*spectrum.shape[:-2], blocks.count, blocks.rows, blocks.columns)
        total: Tensor | None = None
        for (y, x, first, last, _), psi in zip(blocks.places, blocks.filters(values), strict=True):
            block = _block(spectrum, y, x, blocks).contiguous().unsqueeze(-3)
            if total is None and last - first == blocks.count:
                total = block * psi
                continue
            total = spectrum.new_zeros(shape) if total is None else total
            total.narrow(-3, first, last - first).addcmul_(block, psi)
        return spectrum.new_zeros(shape) if total is None else total

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        _, values, ctx.blocks = inputs
        ctx.save_for_backward(values)
        ctx.save_for_forward(values)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        unfolded = _Unfold.apply(gradients[0], *ctx.saved_tensors, ctx.blocks)  # type: ignore[no-untyped-call]
        return unfolded, None, None

    @staticmethod
    def vmap(
        _: Any, in_dims: tuple[Any, ...], spectrum: Tensor, *others: Any
    ) -> tuple[Tensor, int]:
        return _Fold.apply(spectrum.movedim(in_dims[0], 0), *others), 0  # type: ignore[no-untyped-call]

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, *_: Any) -> Tensor:
        result: Tensor = _Fold.apply(tangent, *ctx.saved_tensors, ctx.blocks)  # type: ignore[no-untyped-call]
        return result


class _Unfold(torch.autograd.Function):
    """The transpose of :class:`_Fold`."""

    @staticmethod
    def forward(folded: Tensor, values: Tensor, blocks: Blocks) -> Tensor:
        total = folded.new_zeros((*folded.shape[:-3], *blocks.grid))
        for (y, x, first, *_), psi in zip(blocks.places, blocks.filters(values), strict=True):
            part = folded.select(-3, first) * psi[0]
            for angle, filtered in enumerate(psi[1:], first + 1):
                part.addcmul_(folded.select(-3, angle), filtered)
            _block(total, y, x, blocks).copy_(part)
        return total

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        _, values, ctx.blocks = inputs
        ctx.save_for_backward(values)
        ctx.save_for_forward(values)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        folded = _Fold.apply(gradients[0], *ctx.saved_tensors, ctx.blocks)  # type: ignore[no-untyped-call]
        return folded, None, None

    @staticmethod
    def vmap(_: Any, in_dims: tuple[Any, ...], folded: Tensor, *others: Any) -> tuple[Tensor, int]:
        return _Unfold.apply(folded.movedim(in_dims[0], 0), *others), 0  # type: ignore[no-untyped-call]

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, *_: Any) -> Tensor:
        result: Tensor = _Unfold.apply(tangent, *ctx.saved_tensors, ctx.blocks)  # type: ignore[no-untyped-call]
        return result


class _Modulus(torch.autograd.Function):
    """|z| by a root of squares, never below the root of the smallest normal number."""

    generate_vmap_rule = True

    @staticmethod
    def forward(z: Tensor) -> Tensor:
        return _root(torch.view_as_real(z).square())

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)  # not |z|, which is quickly computed again
        ctx.save_for_forward(*inputs)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (z,) = ctx.saved_tensors
        size: Tensor = _Modulus.apply(z)  # type: ignore[no-untyped-call]
        largest = torch.finfo(size.dtype).max  # reached only where z is 0 or rounding error
        slope: Tensor = z * (gradients[0] / size).clamp(-largest, largest)
        return slope

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor) -> Tensor:
        (z,) = ctx.saved_tensors
        product = torch.view_as_real(z) * torch.view_as_real(tangent)
        along: Tensor = product.sum(-1) / _Modulus.apply(z)  # type: ignore[no-untyped-call]
        return along


def _block(spectrum: Tensor, y: int, x: int, blocks: Blocks) -> Tensor:
    rows, columns = blocks.rows, blocks.columns
    return spectrum.narrow(-2, y * rows, rows).narrow(-1, x * columns, columns)


def _aliased(filters: Tensor, factor: int) -> Tensor:
    """Return ``(l, block y, block x, y, x)``, in which aliases differ in their block alone."""
    y, x = (size // factor for size in filters.shape[-2:])
    return filters.reshape(-1, factor, y, factor, x).transpose(2, 3)


def _places(reached: Tensor) -> tuple[Place, ...]:
    """Return the blocks that filters reach and the ranges of these filters, the widest first."""
    places = []
    for y, x in reached.any(0).nonzero().tolist():
        angles = reached[:, y, x].nonzero().flatten().tolist()
        places.append((y, x, angles[0], angles[-1] + 1))
    places.sort(key=lambda place: place[2] - place[3])
    ends = itertools.accumulate((last - first for *_, first, last in places), initial=0)
    return tuple((*place, term) for place, term in zip(places, ends, strict=False))
