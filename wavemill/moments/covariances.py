"""Covariances between stacks of channels on a periodic grid, and their gradients.

    c = mean over u of a(u + tau) conj b(u) = sum over w of a^ conj b^ e^{i w tau} / points^2

Three kinds of block compute it for many pairs of channels at once, as cheaply as these allow:

- :class:`GramBlock`, no shift: one matrix product of all fields, or spectra, with all others;
- :class:`ShiftBlock`: the discrete Fourier transform of cross-spectra at few shifts, separable;
- :class:`PowerBlock`, both linear in x, no shift: |x^|^2 against products of filters.

:class:`wavemill.moments.loops.Loops` stands in for the first two where compiled loops can run, and
:class:`wavemill.moments.products.Products` for the first where most channels meet most others.

``evaluate`` returns ``(batch, row)`` complex; ``pull`` takes g with d(loss) = Re sum conj(g) dc and
adds to the stacks' gradients; ``differentiate`` does both. Spectra live in boxes of frequencies
(:mod:`wavemill.moments.boxes`); channels *linear* in x fill small ones.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from wavemill.moments.boxes import Box, crop_half, folded
from wavemill.moments.shifts import FewShifts, Indices
from wavemill.moments.slopes import Slopes
from wavemill.moments.stacks import WHOLE, Pairs, Power, Stack, Window
from wavemill.operators import keep_buffer, mirror


class Block(nn.Module):
    """Covariances of stacks, and their gradients."""

    def evaluate(self, *stacks: Any) -> Tensor:
        """Return the covariances ``(batch, row)``."""
        raise NotImplementedError

    def pull(self, g: Tensor, *stacks: Any) -> None:
        """Add the gradient to those of the stacks."""
        raise NotImplementedError

    def differentiate(self, slopes: Slopes, *stacks: Any) -> Tensor:
        """Return the covariances, and add the gradient that follows from them."""
        c = self.evaluate(*stacks)
        self.pull(slopes.of(c), *stacks)
        return c


class GramBlock(Block):
    """Covariances without shift: the products of all of a with all of b, or of a few with a few.

    Parameters
    ----------
    pairs
        The rows.
    scale
        Factor of the sum over points or frequencies.
    box
        Frequencies to sum over; None: in space, as pairs with conjugates must be.
    windows
        Points of a and of b to sum over, in space.

    Attributes
    ----------
    aligned
        Whether each channel is in a single pair, so that only these products are computed.
    dense
        Whether at least a quarter of all pairs of channels is wanted.
    """

    _pick: Tensor

    def __init__(
        self,
        pairs: Pairs,
        scale: float,
        box: Box | None,
        windows: tuple[Window, Window] = (WHOLE, WHOLE),
    ) -> None:
        super().__init__()
        self._scale, self._box, self._mirrored = scale, box, pairs.mirrored
        self._first, self._second = _span(pairs.first), _span(pairs.second)
        self._windows = windows
        first, second, pair = pairs.distinct()
        self.aligned = bool(_contiguous(first) and _contiguous(second))
        self._products = [span.stop - span.start for span in (self._first, self._second)]
        self.dense = 4 * len(pair) >= math.prod(pairs.channels)
        flat = (pairs.first - self._first.start) * self._products[1]
        flat = flat + pairs.second - self._second.start
        keep_buffer(self, "_pick", torch.from_numpy(pair if self.aligned else flat))

    def evaluate(self, a: Stack, b: Stack) -> Tensor:
        """Return the covariances ``(batch, row)``."""
        left, right = self._sides(a, b)
        if self.aligned:
            dot = torch.dot if self._mirrored else torch.vdot  # conj(first) times second
            pairs = zip(right.flatten(0, 1), left.flatten(0, 1), strict=True)
            gram = torch.stack([dot(b, a) for b, a in pairs]).view(len(left), -1)
        else:
            right = right.mT if self._mirrored else right.mH
            gram = torch.stack([a @ b for a, b in zip(left, right, strict=True)]).flatten(1)
        return as_complex(gram[:, self._pick] * self._scale)

    def pull(self, g: Tensor, a: Stack, b: Stack) -> None:
        """Add the gradient to those of ``a`` and ``b``."""
        left, right = self._sides(a, b)
        g = g * self._scale if left.is_complex() else g.real * self._scale
        count = left.shape[1] if self.aligned else math.prod(self._products)
        gram = g.new_zeros(len(g), count).index_add_(1, self._pick, g)
        if self._mirrored:
            left, right = left.conj(), right.conj()
        there, here = self._windows
        if self.aligned:
            gram = gram[..., None]
            self._add(a, self._first, there, gram * right)
            self._add(b, self._second, here, (gram if self._mirrored else gram.conj()) * left)
            return
        gram = gram.view(len(gram), *self._products)
        self._add(a, self._first, there, gram @ right)
        self._add(b, self._second, here, (gram.mT if self._mirrored else gram.mH) @ left)

    def _sides(self, a: Stack, b: Stack) -> tuple[Tensor, Tensor]:
        there, here = self._windows
        left, right = self._matrix(a, self._first, there), self._matrix(b, self._second, here)
        if left.is_complex() != right.is_complex():
            left, right = as_complex(left), as_complex(right)
        return left, right

    def _matrix(self, stack: Stack, channels: slice, window: Window) -> Tensor:
        if self._box is not None:
            return stack.within(self._box)[:, channels].flatten(2)
        assert stack.field is not None
        return stack.field[:, channels, *window].flatten(2)

    def _add(self, stack: Stack, channels: slice, window: Window, gradient: Tensor) -> None:
        if self._box is not None:
            gradient = gradient.view(*gradient.shape[:2], *self._box)
            gradient = gradient if stack.linear else gradient.conj().resolve_conj()
            stack.pull_spectrum(gradient, channels)
        else:
            assert stack.field is not None
            gradient = gradient.view_as(stack.field[:, channels, *window])
            gradient = gradient if stack.field.is_complex() else gradient.real
            stack.pull_field(gradient, channels, window)


class ShiftBlock(Block):
    """Covariances at few shifts: the transform of ``a^ conj b^`` at these alone.

    If only one side is linear, it is taken as b. If it is a, that gives ``conj c``, at the opposite
    shift.

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
        Which of a and b are linear.
    auto
        Whether each channel meets itself, so that cross-spectra are real.
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
        self._swapped = swapped = linear[0] and not linear[1]
        self._box, self._auto, self._mirrored = box, auto, pairs.mirrored
        self._spans = _contiguous(first), _contiguous(second)
        keep_buffer(self, "_first", torch.from_numpy(first))
        keep_buffer(self, "_second", torch.from_numpy(second))
        shifts = -pairs.shifts if swapped else pairs.shifts
        self.transform = FewShifts(pair, len(first), shifts, shape, box, scale, dtype)

    def evaluate(self, a: Stack, b: Stack) -> Tensor:
        """Return the covariances ``(batch, row)``."""
        left, right = self._sides(a, b)
        if self._auto:
            return self.transform.sum(left.real.square() + left.imag.square())
        c = self.transform.sum(left * right)
        return c.conj() if self._swapped and not self._mirrored else c

    def pull(self, g: Tensor, a: Stack, b: Stack) -> None:
        """Add the gradient to those of ``a`` and ``b``."""
        left, right = self._sides(a, b)
        spread = self.transform.spread(g if self._swapped and not self._mirrored else g.conj())
        stacks, chosen = (a, b), self._chosen()
        if self._swapped:
            stacks, chosen = (b, a), chosen[::-1]
        if self._auto:
            same = left if stacks[0].linear else right
            stacks[0].pull_spectrum(same * (2 * spread.real), chosen[0])
            return
        one = spread * right
        stacks[0].pull_spectrum(one.conj().resolve_conj() if stacks[0].linear else one, chosen[0])
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


class PowerBlock(Block):
    """Covariances without shift of channels linear in x.

        c = sum over w of psi_a psi_b x_a^ conj x_b^ ,  of one component or of two

    Parameters
    ----------
    pairs
        The rows.
    filters
        The filters of each stack, real ``(channel, y, x)`` float64, in one box.
    dtype
        Real precision.
    between
        Whether the stacks are of two components; else the sum is over ``|x^|^2``, and real.
    """

    _even: Tensor
    _odd: Tensor

    def __init__(
        self,
        pairs: Pairs,
        filters: tuple[Tensor, Tensor],
        dtype: torch.dtype,
        between: bool = False,
    ) -> None:
        super().__init__()
        other = mirror(filters[1]) if pairs.mirrored else filters[1]
        products = filters[0][pairs.first] * other[pairs.second]
        self._box: Box = (filters[0].shape[-2], filters[0].shape[-1])
        self._between = between
        keep_buffer(self, "_even", folded(products).flatten(1).to(dtype))
        if between:
            keep_buffer(self, "_odd", folded(products, -1).flatten(1).to(dtype))

    def evaluate(self, power: Power) -> Tensor:
        """Return the covariances ``(batch, row)``; at -w the power is its conjugate."""
        half = crop_half(power.value, self._box).flatten(1)
        if self._between:
            return torch.complex(half.real @ self._even.T, half.imag @ self._odd.T)
        return as_complex(half @ self._even.T)

    def pull(self, g: Tensor, power: Power) -> None:
        """Add to the power's gradient, in one half."""
        half = g.real @ self._even
        if self._between:
            half = torch.complex(half, g.imag @ self._odd)
        half = half.view(len(g), self._box[0], -1)
        power.pull(nn.functional.pad(half, (0, self._box[1] - half.shape[-1])))


def as_complex(x: Tensor) -> Tensor:
    """Return ``x`` in the complex type of its precision."""
    return x if x.is_complex() else x.to(x.dtype.to_complex())


def _span(index: Indices) -> slice:
    return slice(int(index.min()), int(index.max()) + 1)


def _contiguous(index: Indices) -> slice | None:
    """Return a slice that picks what ``index`` picks, or None if there is none."""
    span = _span(index)
    return span if np.array_equal(index, np.arange(span.start, span.stop)) else None
