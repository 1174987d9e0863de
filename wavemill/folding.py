"""Filter and sample in one step, and the modulus: what a scattering transform is made of.

Sampling every f-th point adds up the f^2 blocks of a spectrum that alias on to one another, so for
a bank of real filters psi_l

    (x * psi_l)^(w) sampled  =  sum over blocks b of  x^(w_b) psi^_l(w_b) .

Most blocks of a filter hold nothing and are left out. Spectra are seen as pairs of real
numbers and filters hold every value twice, so that no multiplication is complex. Both maps have a
written gradient, which derivatives of any order and ``torch.func`` go through. ``torch.compile``,
which traces no function that has a forward derivative, differentiates the formulas instead.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

Place = tuple[int, int, int, int]  # a block's row and column; the first filter and the one past


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
        Real precision. Blocks below its rounding of 1 are left out.
    """

    def __init__(self, psi: Tensor, factor: int, dtype: torch.dtype) -> None:
        super().__init__()
        blocks = _blocks(psi, factor)
        largest = torch.maximum(blocks.amax((-2, -1)), -blocks.amin((-2, -1)))
        reached = largest > torch.finfo(dtype).eps
        self.count, self.places = len(psi), _places(reached)
        for index, (y, x, first, last) in enumerate(self.places):
            values = (blocks[first:last, y, x] / factor**2).to(dtype).repeat_interleave(2, -1)
            self.register_buffer(f"_{index}", values, False)

    def forward(self, x_hat: Tensor) -> Tensor:
        """Return the spectra of the sampled responses, ``(..., l, y / f, x / f)``."""
        pairs = torch.view_as_real(x_hat).flatten(-2)
        filters = [self.get_buffer(f"_{index}") for index in range(len(self.places))]
        fold = _Fold.forward if torch.compiler.is_compiling() else _Fold.apply
        folded: Tensor = fold(pairs, self.count, self.places, *filters)
        return torch.view_as_complex(folded.reshape(*folded.shape[:-1], -1, 2))


def modulus(z: Tensor, overwrite: bool = False) -> Tensor:
    """Return |z|, with gradient 0 at 0, for z whose squares neither overflow nor vanish.

    ``overwrite`` allows z to be destroyed where gradients are off: half the memory to visit.
    """
    if torch.compiler.is_compiling():
        return _Modulus.forward(z)
    if overwrite and not torch.is_grad_enabled():
        return _root(torch.view_as_real(z).square_())
    size: Tensor = _Modulus.apply(z)  # type: ignore[no-untyped-call]
    return size


def _root(squares: Tensor) -> Tensor:
    """Return the root of a sum of two neighbours in memory, at least the smallest normal's."""
    square = squares[..., 0] + squares[..., 1]
    return square.add_(torch.finfo(square.dtype).tiny).sqrt_()


class _Fold(torch.autograd.Function):
    """Sum over blocks of spectrum times filter: ``(..., y, x)`` to ``(..., l, rows, columns)``."""

    @staticmethod
    def forward(spectrum: Tensor, count: int, places: tuple[Place, ...], *psi: Tensor) -> Tensor:
        rows, columns = psi[0].shape[-2:]
        total: Tensor | None = None
        for (y, x, first, last), values in zip(places, psi, strict=True):
            block = _block(spectrum, y, x, rows, columns).contiguous().unsqueeze(-3)
            if total is not None:
                total.narrow(-3, first, last - first).addcmul_(block, values)
            elif last - first == count:
                total = block * values
            else:
                total = spectrum.new_zeros((*spectrum.shape[:-2], count, rows, columns))
                total.narrow(-3, first, last - first).addcmul_(block, values)
        assert total is not None
        return total

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        spectrum, ctx.count, ctx.places, *psi = inputs
        ctx.shape = tuple(spectrum.shape[-2:])
        ctx.save_for_backward(*psi)
        ctx.save_for_forward(*psi)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        psi = ctx.saved_tensors
        unfolded = _Unfold.apply(gradients[0], ctx.shape, ctx.count, ctx.places, *psi)  # type: ignore[no-untyped-call]
        return unfolded, None, None, *(None for _ in psi)

    @staticmethod
    def vmap(
        _: Any, in_dims: tuple[Any, ...], spectrum: Tensor, *others: Any
    ) -> tuple[Tensor, int]:
        return _Fold.apply(spectrum.movedim(in_dims[0], 0), *others), 0  # type: ignore[no-untyped-call]

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, *_: Any) -> Tensor:
        result: Tensor = _Fold.apply(tangent, ctx.count, ctx.places, *ctx.saved_tensors)  # type: ignore[no-untyped-call]
        return result


class _Unfold(torch.autograd.Function):
    """The transpose of :class:`_Fold`."""

    @staticmethod
    def forward(
        folded: Tensor, shape: tuple[int, int], count: int, places: tuple[Place, ...], *psi: Tensor
    ) -> Tensor:
        rows, columns = psi[0].shape[-2:]
        total = folded.new_zeros((*folded.shape[:-3], *shape))
        for (y, x, first, _), values in zip(places, psi, strict=True):
            part = folded.select(-3, first) * values[0]
            for place, filtered in enumerate(values[1:], first + 1):
                part.addcmul_(folded.select(-3, place), filtered)
            _block(total, y, x, rows, columns).copy_(part)
        return total

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        _, ctx.shape, ctx.count, ctx.places, *psi = inputs
        ctx.save_for_backward(*psi)
        ctx.save_for_forward(*psi)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        psi = ctx.saved_tensors
        folded = _Fold.apply(gradients[0], ctx.count, ctx.places, *psi)  # type: ignore[no-untyped-call]
        return folded, None, None, None, *(None for _ in psi)

    @staticmethod
    def vmap(_: Any, in_dims: tuple[Any, ...], folded: Tensor, *others: Any) -> tuple[Tensor, int]:
        return _Unfold.apply(folded.movedim(in_dims[0], 0), *others), 0  # type: ignore[no-untyped-call]

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, *_: Any) -> Tensor:
        psi = ctx.saved_tensors
        result: Tensor = _Unfold.apply(tangent, ctx.shape, ctx.count, ctx.places, *psi)  # type: ignore[no-untyped-call]
        return result


class _Modulus(torch.autograd.Function):
    """|z| by a root of squares, never below the root of the smallest normal number."""

    generate_vmap_rule = True

    @staticmethod
    def forward(z: Tensor) -> Tensor:
        return _root(torch.view_as_real(z).square())

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)  # not |z|, which is soon found again
        ctx.save_for_forward(*inputs)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (z,) = ctx.saved_tensors
        size: Tensor = _Modulus.apply(z)  # type: ignore[no-untyped-call]
        largest = torch.finfo(size.dtype).max  # reached only where z is rounding, or 0
        slope: Tensor = z * (gradients[0] / size).clamp(-largest, largest)
        return slope

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor) -> Tensor:
        (z,) = ctx.saved_tensors
        product = torch.view_as_real(z) * torch.view_as_real(tangent)
        along: Tensor = product.sum(-1) / _Modulus.apply(z)  # type: ignore[no-untyped-call]
        return along


def _block(spectrum: Tensor, y: int, x: int, rows: int, columns: int) -> Tensor:
    return spectrum.narrow(-2, y * rows, rows).narrow(-1, x * columns, columns)


def _blocks(filters: Tensor, factor: int) -> Tensor:
    """Return ``(l, block y, block x, y, x)``: the grid's frequencies, those that alias apart."""
    y, x = (size // factor for size in filters.shape[-2:])
    return filters.reshape(-1, factor, y, factor, x).transpose(2, 3)


def _places(reached: Tensor) -> tuple[Place, ...]:
    """Return the blocks that filters reach and the range of those, the widest range first."""
    places = []
    for y, x in reached.any(0).nonzero().tolist():
        angles = reached[:, y, x].nonzero().flatten().tolist()
        places.append((y, x, angles[0], angles[-1] + 1))
    return tuple(sorted(places, key=lambda place: place[2] - place[3]))
