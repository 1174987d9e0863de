"""Covariances between stacks of channels on a periodic grid, and their gradients.

    c = mean over u of a(u + tau) conj b(u) = sum over w of a^ conj b^ e^{i w tau} / points^2

Three kinds of block compute it for many pairs of channels at once, each as cheaply as they allow:

- :class:`GramBlock`, no shift: one matrix product of all fields, or spectra, with all others;
- :class:`ShiftBlock`: the discrete Fourier transform of cross-spectra at few shifts, separable;
- :class:`PowerBlock`, both channels linear in x: |x^|^2 against products of filters.

``evaluate`` returns ``(batch, row)`` complex; ``pull`` takes g with d(loss) = Re sum conj(g) dc and
adds to the stacks' gradients. Spectra live in boxes of frequencies (:mod:`wavemill.moments.boxes`);
channels *linear* in x fill small ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from wavemill import kernels
from wavemill.moments.boxes import Box, add_into, crop, mirror, pad
from wavemill.moments.shifts import FewShifts, Indices, few_waves, keep_buffer


class Stack:
    """Channels of one scale and harmonic, and what has been gathered of their gradient.

    Parameters
    ----------
    linear
        The channels are x * psi itself.
    field
        ``(batch, channel, y, x)`` real or complex; None if no block needs it.
    spectrum
        Its transform in a box; None if no block needs it.

    Attributes
    ----------
    field_gradient, spectrum_gradient
        G with d(loss) = Re sum conj(G) d(field or spectrum); for spectra of channels that are not
        linear, conj(G), which blocks come by more cheaply. None until a block adds to it.
    """

    def __init__(self, linear: bool, field: Tensor | None, spectrum: Tensor | None) -> None:
        self.linear, self.field, self.spectrum = linear, field, spectrum
        self.field_gradient: Tensor | None = None
        self.spectrum_gradient: Tensor | None = None
        self._cut: dict[tuple[Box, bool], Tensor] = {}
        self._plain: dict[bool, bool] = {}

    def within(self, box: Box, conjugate: bool = False) -> Tensor:
        """Return the spectrum, or its conjugate, within a box."""
        assert self.spectrum is not None
        if (box, conjugate) not in self._cut:
            cut = crop(self.spectrum, box)
            self._cut[box, conjugate] = cut.conj().resolve_conj() if conjugate else cut
        return self._cut[box, conjugate]

    def pull_field(self, gradient: Tensor, channels: slice) -> None:
        """Add to the gradient of some fields; may keep ``gradient`` itself."""
        assert self.field is not None
        if self.field_gradient is None and gradient.shape == self.field.shape:
            self.field_gradient = gradient
            return
        if self.field_gradient is None:
            self.field_gradient = torch.zeros_like(self.field)
        self.field_gradient[:, channels].add_(gradient)

    def pull_spectrum(self, gradient: Tensor, channels: slice | Tensor) -> None:
        """Add to the gradient of some spectra, from their own box or a smaller one."""
        known, spectrum = self.spectrum_gradient, self.spectrum
        assert spectrum is not None
        if known is None and gradient.shape == spectrum.shape and isinstance(channels, slice):
            self.spectrum_gradient = gradient
            return
        if known is None:
            self.spectrum_gradient = known = torch.zeros_like(spectrum)
        if isinstance(channels, slice):
            add_into(known[:, channels], gradient)
        else:
            known.index_add_(1, channels, pad(gradient, (spectrum.shape[-2], spectrum.shape[-1])))

    def channels(self, space: bool) -> Tensor:
        """Return the fields or the spectra."""
        channels = self.field if space else self.spectrum
        assert channels is not None
        return channels

    def plain(self, space: bool) -> bool:
        """Say whether compiled loops may read them: complex, in memory, in no graph of autograd."""
        if space not in self._plain:
            x = self.channels(space)
            self._plain[space] = x.is_complex() and kernels.usable(x) and not x.requires_grad
        return self._plain[space]

    def begin_gradient(
        self, space: bool, once: bool, sizes: tuple[int, int, int]
    ) -> tuple[Tensor, bool]:
        """Return memory of their gradient, and if it is to be written to, not to be added to.

        It is where nothing is known yet and what comes, channels of these sizes ``once`` each, is
        all of it.
        """
        known = self.field_gradient if space else self.spectrum_gradient
        if known is not None:
            return known, False
        channels = self.channels(space)
        fresh = once and channels.shape[1:] == sizes
        new = torch.empty_like(channels) if fresh else torch.zeros_like(channels)
        if space:
            self.field_gradient = new
        else:
            self.spectrum_gradient = new
        return new, fresh


@dataclass(frozen=True)
class Pairs:
    """Rows of a block.

    Parameters
    ----------
    first, second
        Number of each row's channel in its stack, ``(row,)``.
    shifts
        (y, x) of each row, ``(row, 2)``.
    channels
        Channels of either stack.
    mirrored
        Replace b by its conjugate.
    """

    first: Indices
    second: Indices
    shifts: Indices
    channels: tuple[int, int]
    mirrored: bool = False

    def distinct(self) -> tuple[Indices, Indices, Indices]:
        """Return the distinct pairs of channels, and which of them each row is."""
        both = np.column_stack([self.first, self.second])
        pairs, index = np.unique(both, axis=0, return_inverse=True)
        return pairs[:, 0], pairs[:, 1], index.reshape(-1)


class Loops(nn.Module):
    """Covariances, at few shifts or none, of spectra in compiled loops.

    The same as :class:`GramBlock` and :class:`ShiftBlock`, whose parameters these are; of
    cross-spectra there are a few rows at a time, and boxes are neither cut nor filled.
    """

    _chosen: Tensor
    _means: Tensor
    _along: Tensor
    _across: Tensor

    def __init__(
        self,
        pairs: Pairs,
        scale: float,
        shape: Box,
        linear: tuple[bool, bool],
        dtype: torch.dtype,
        box: Box | None,
        auto: bool = False,
    ) -> None:
        super().__init__()
        self._space, box = box is None, box or shape
        swapped, self._plain = linear[0], (self._space, self._space or any(linear))
        self._box, self._swapped, self._auto = box, swapped, auto
        first, second, pair = pairs.distinct()
        chosen = [second, first] if swapped else [first, second]
        self._once = [np.array_equal(side, np.arange(len(side))) for side in chosen]
        y, x = (-pairs.shifts if swapped else pairs.shifts).T
        sizes, cosine = np.unique(np.abs(y), return_inverse=True)
        across, place = np.unique(x, return_inverse=True)
        along = few_waves(sizes, shape[0], box[0])
        sine = len(sizes) + cosine.reshape(-1) - (sizes[0] == 0)  # of a shift 0 there is none
        means = np.column_stack([pair, cosine.reshape(-1), sine, np.sign(y), place.reshape(-1)])
        keep_buffer(self, "_chosen", torch.from_numpy(np.stack(chosen)))
        keep_buffer(self, "_means", torch.from_numpy(np.ascontiguousarray(means)))
        keep_buffer(self, "_along", torch.cat([along.real, along.imag[sizes != 0]]).to(dtype))
        wide = scale * few_waves(across, shape[1], box[1])
        keep_buffer(self, "_across", wide.to(dtype.to_complex()))
        self._tasks: dict[Hashable, tuple[kernels.Shifts, int, int]] = {}

    def usable(self, a: Stack, b: Stack) -> bool:
        """Say whether the loops can read the channels, which nothing wants to differentiate."""
        alike = a.channels(self._space).dtype == self._across.dtype
        return alike and a.plain(self._space) and b.plain(self._space)

    def evaluate(self, a: Stack, b: Stack) -> Tensor:
        """Return the covariances ``(batch, row)``."""
        first, second = (stack.channels(self._space) for stack in self._ordered(a, b))
        task, room, _ = self._task(first, second)
        c = kernels.shifts(first, second, task, room)
        return c.conj() if self._swapped else c

    def pull(self, g: Tensor, a: Stack, b: Stack) -> None:
        """Add the gradient to those of ``a`` and ``b``."""
        stacks = first, second = self._ordered(a, b)
        channels = first.channels(self._space), second.channels(self._space)
        task, _, room = self._task(*channels)
        apart = first is not second
        once = (apart or self._auto) and self._once[0], apart and self._once[1]
        gradients, fresh = zip(
            *(
                stack.begin_gradient(self._space, alone, (task.pairs, *self._box))
                for stack, alone in zip(stacks, once, strict=True)
            ),
            strict=True,
        )
        values = (g if self._swapped else g.conj()).resolve_conj().contiguous()
        kernels.add_shifts_gradients(channels, task, values, gradients, fresh, room)

    def _ordered(self, a: Stack, b: Stack) -> tuple[Stack, Stack]:
        """Return the stacks, the linear one second."""
        return (b, a) if self._swapped else (a, b)

    def _task(self, first: Tensor, second: Tensor) -> tuple[kernels.Shifts, int, int]:
        """Return what the loops are asked for, and how much they work in, forward and back."""
        key = first.shape, second.shape, torch.get_num_threads()
        if key not in self._tasks:
            (fields, *one), (_, *two) = first.shape, second.shape
            tables = self._chosen, self._means, self._along, self._across
            task = kernels.Shifts(
                *(fields, self._chosen.shape[1], len(self._means), len(self._along), *self._box),
                *(one[0], two[0], *one[1:], *two[1:], self._auto, *self._plain),
                *(table.data_ptr() for table in tables),
            )
            forward, back = (kernels.shifts_room(task, first.dtype, way) for way in (False, True))
            self._tasks[key] = task, forward, back
        return self._tasks[key]

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        self._tasks = {}  # which point to tables that move
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self

    def __getstate__(self) -> dict[str, Any]:
        """Return what can be pickled, in which there are no pointers."""
        return self.__dict__ | {"_tasks": {}}


class GramBlock(nn.Module):
    """Covariances without shift: the products of all of a with all of b, or of a few with a few.

    Parameters
    ----------
    pairs
        The rows.
    scale
        Factor of the sum over points or frequencies.
    shape
        Grid ``(y, x)``.
    linear
        Which of a and b are linear, one at most.
    dtype
        Real precision.
    box
        Frequencies to sum over; None: in space, as pairs with conjugates must be.
    """

    _pick: Tensor

    def __init__(
        self,
        pairs: Pairs,
        scale: float,
        shape: Box,
        linear: tuple[bool, bool],
        dtype: torch.dtype,
        box: Box | None = None,
    ) -> None:
        super().__init__()
        self._scale, self._box, self._mirrored = scale, box, pairs.mirrored
        self._first, self._second = _span(pairs.first), _span(pairs.second)
        first, second, pair = pairs.distinct()
        self._aligned = bool(_contiguous(first) and _contiguous(second))
        looped = not pairs.mirrored and (box is not None or self._aligned)
        self._loops = Loops(pairs, scale, shape, linear, dtype, box) if looped else None
        self._products = [span.stop - span.start for span in (self._first, self._second)]
        flat = (pairs.first - self._first.start) * self._products[1]
        flat = flat + pairs.second - self._second.start
        keep_buffer(self, "_pick", torch.from_numpy(pair if self._aligned else flat))

    def evaluate(self, a: Stack, b: Stack) -> Tensor:
        """Return the covariances ``(batch, row)``."""
        if self._loops is not None and self._loops.usable(a, b):
            return self._loops.evaluate(a, b)
        left, right = self._sides(a, b)
        if self._aligned:
            dot = torch.dot if self._mirrored else torch.vdot  # conj(first) times second
            pairs = zip(right.flatten(0, 1), left.flatten(0, 1), strict=True)
            gram = torch.stack([dot(b, a) for b, a in pairs]).view(len(left), -1)
        else:
            right = right.mT if self._mirrored else right.mH
            gram = torch.stack([a @ b for a, b in zip(left, right, strict=True)]).flatten(1)
        return as_complex(gram[:, self._pick] * self._scale)

    def pull(self, g: Tensor, a: Stack, b: Stack) -> None:
        """Add the gradient to those of ``a`` and ``b``."""
        if self._loops is not None and self._loops.usable(a, b):
            self._loops.pull(g, a, b)
            return
        left, right = self._sides(a, b)
        g = g * self._scale if left.is_complex() else g.real * self._scale
        count = left.shape[1] if self._aligned else math.prod(self._products)
        gram = g.new_zeros(len(g), count).index_add_(1, self._pick, g)
        if self._mirrored:
            left, right = left.conj(), right.conj()
        if self._aligned:
            gram = gram[..., None]
            self._add(a, self._first, gram * right)
            self._add(b, self._second, (gram if self._mirrored else gram.conj()) * left)
            return
        gram = gram.view(len(gram), *self._products)
        self._add(a, self._first, gram @ right)
        self._add(b, self._second, (gram.mT if self._mirrored else gram.mH) @ left)

    def _sides(self, a: Stack, b: Stack) -> tuple[Tensor, Tensor]:
        left, right = self._matrix(a, self._first), self._matrix(b, self._second)
        if left.is_complex() != right.is_complex():
            left, right = as_complex(left), as_complex(right)
        return left, right

    def _matrix(self, stack: Stack, channels: slice) -> Tensor:
        if self._box is not None:
            return stack.within(self._box)[:, channels].flatten(2)
        assert stack.field is not None
        return stack.field[:, channels].flatten(2)

    def _add(self, stack: Stack, channels: slice, gradient: Tensor) -> None:
        if self._box is not None:
            gradient = gradient.view(*gradient.shape[:2], *self._box)
            gradient = gradient if stack.linear else gradient.conj().resolve_conj()
            stack.pull_spectrum(gradient, channels)
        else:
            assert stack.field is not None
            gradient = gradient.view_as(stack.field[:, channels])
            stack.pull_field(gradient if stack.field.is_complex() else gradient.real, channels)


class ShiftBlock(nn.Module):
    """Covariances at few shifts: the transform of ``a^ conj b^`` at these alone.

    Only one of the two may be linear. It is taken as b: of ``conj c``, at the opposite shift, if it
    is a.

    Parameters
    ----------
    pairs
        The rows.
    scale
        Factor of the sum over frequencies.
    box
        Frequencies that both stacks hold.
    shape
        Grid ``(y, x)``.
    linear
        Which of a and b are linear, one at most.
    auto
        Each channel with itself, real.
    dtype
        Real precision.
    """

    _first: Tensor
    _second: Tensor

    def __init__(
        self,
        pairs: Pairs,
        scale: float,
        box: Box,
        shape: Box,
        linear: tuple[bool, bool],
        auto: bool,
        dtype: torch.dtype,
    ) -> None:
        super().__init__()
        first, second, pair = pairs.distinct()
        swapped = linear[0]
        self._box, self._swapped, self._auto, self._mirrored = box, swapped, auto, pairs.mirrored
        self._spans = _contiguous(first), _contiguous(second)
        keep_buffer(self, "_first", torch.from_numpy(first))
        keep_buffer(self, "_second", torch.from_numpy(second))
        shifts = -pairs.shifts if swapped else pairs.shifts
        self.transform = FewShifts(pair, len(first), shifts, shape, box, scale, dtype)
        self._loops = (
            None if pairs.mirrored else Loops(pairs, scale, shape, linear, dtype, box, auto)
        )

    def evaluate(self, a: Stack, b: Stack) -> Tensor:
        """Return the covariances ``(batch, row)``."""
        if self._loops is not None and self._loops.usable(a, b):
            return self._loops.evaluate(a, b)
        left, right = self._sides(a, b)
        if self._auto:
            return self.transform.sum(left.real.square() + left.imag.square())
        c = self.transform.sum(left * right)
        return c.conj() if self._swapped and not self._mirrored else c

    def pull(self, g: Tensor, a: Stack, b: Stack) -> None:
        """Add the gradient to those of ``a`` and ``b``."""
        if self._loops is not None and self._loops.usable(a, b):
            self._loops.pull(g, a, b)
            return
        left, right = self._sides(a, b)
        spread = self.transform.spread(g if self._swapped and not self._mirrored else g.conj())
        stacks, chosen = (a, b), self._chosen()
        if self._swapped:
            stacks, chosen = (b, a), chosen[::-1]
        if self._auto:
            stacks[0].pull_spectrum(right * (2 * spread.real), chosen[0])
            return
        stacks[0].pull_spectrum(spread * right, chosen[0])
        other = spread.mul_(left)
        if self._mirrored:
            other = mirror(other.conj().resolve_conj() if stacks[1].linear else other)
        elif not stacks[1].linear:
            other = other.conj().resolve_conj()
        stacks[1].pull_spectrum(other, chosen[1])

    def _sides(self, a: Stack, b: Stack) -> tuple[Tensor, Tensor]:
        """Return the spectra of each pair: the left one, and the conjugate of the right one's."""
        i, k = self._chosen()
        (left, i), (right, k) = ((b, k), (a, i)) if self._swapped else ((a, i), (b, k))
        if self._mirrored:
            conjugate = mirror(right.within(self._box))
        else:
            conjugate = right.within(self._box, conjugate=True)
        return left.within(self._box)[:, i], conjugate[:, k]

    def _chosen(self) -> tuple[slice | Tensor, slice | Tensor]:
        """Return which channels the pairs take of either stack, without copies if possible."""
        first, second = self._spans
        return first or self._first, second or self._second


class PowerBlock(nn.Module):
    """Covariances of channels linear in x: ``sum over w of psi_a psi_b |x^|^2 e^{i w tau}``.

    Parameters
    ----------
    pairs
        The rows.
    filters
        Either stack's filters, real ``(channel, y, x)`` float64, in one box.
    shape
        Grid ``(y, x)``.
    dtype
        Real precision.
    """

    _products: Tensor
    _still: Tensor
    _given: Tensor
    _order: Tensor

    def __init__(
        self, pairs: Pairs, filters: tuple[Tensor, Tensor], shape: Box, dtype: torch.dtype
    ) -> None:
        super().__init__()
        first, second, pair = pairs.distinct()
        other = mirror(filters[1]) if pairs.mirrored else filters[1]
        products = filters[0][first] * other[second]
        self._box: Box = (products.shape[-2], products.shape[-1])
        moves = np.zeros(len(first), dtype=bool)
        moves[pair[(pairs.shifts != 0).any(1)]] = True
        moved = moves[pair]
        keep_buffer(self, "_products", products[moves].to(dtype))
        self._half = self._box[1] // 2 + 1
        keep_buffer(self, "_still", _folded(products[pair[~moved]]).flatten(1).to(dtype))
        given = np.concatenate([np.flatnonzero(~moved), np.flatnonzero(moved)])
        keep_buffer(self, "_given", torch.from_numpy(given))
        keep_buffer(self, "_order", torch.from_numpy(np.argsort(given)))
        among = (np.cumsum(moves) - 1)[pair[moved]]
        self.transform = FewShifts(
            among, int(moves.sum()), pairs.shifts[moved], shape, self._box, 1.0, dtype
        )

    def evaluate(self, power: Tensor) -> Tensor:
        """Return the covariances ``(batch, row)`` from ``|x^|^2 (batch, y, x)``, even in w."""
        cut = crop(power, self._box)
        still = cut[..., : self._half].flatten(1) @ self._still.T
        moved = self.transform.sum(self._products * cut[:, None])
        return torch.cat([as_complex(still), moved], dim=-1)[:, self._order]

    def pull(self, g: Tensor) -> Tensor:
        """Return the gradient of the power, ``(batch, y, x)`` in the block's box."""
        count = len(self._still)
        still, moved = torch.split(g[:, self._given], [count, g.shape[1] - count], dim=1)
        gradient = (self.transform.spread(moved.conj()).real * self._products).sum(1)
        half = gradient[..., : self._half]
        half.add_((still.real @ self._still).view_as(half))
        return gradient


def as_complex(x: Tensor) -> Tensor:
    """Return ``x`` in the complex type of its precision."""
    return x if x.is_complex() else x.to(x.dtype.to_complex())


def _span(index: Indices) -> slice:
    return slice(int(index.min()), int(index.max()) + 1)


def _contiguous(index: Indices) -> slice | None:
    """Return a slice that picks what ``index`` picks, or None if there is none."""
    span = _span(index)
    return span if np.array_equal(index, np.arange(span.start, span.stop)) else None


def _folded(spectra: Tensor) -> Tensor:
    """Return the half plane of spectra, the other half added, to sum what is even in w."""
    size = spectra.shape[-1]
    half = size // 2 + 1
    both = (spectra + mirror(spectra))[..., :half]
    alone = [0, half - 1] if size % 2 == 0 else [0]  # columns that are their own mirror images
    both[..., alone] /= 2
    return both
