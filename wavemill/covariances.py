"""Covariances between stacks of real fields on a periodic grid, and their adjoints.

A stack holds real fields, its *planes*, ``(batch, plane, y, x)``; n complex channels are 2n planes, real
parts before imaginary ones. Of two channels a and b with shift tau the covariance is

    c = < a(. + tau) conj b > = <a_r b_r> + <a_i b_i> + i (<a_i b_r> - <a_r b_i>) ,

which three kinds of block compute for many pairs at once, each as cheaply as its channels allow:

- :class:`GramBlock`, no shift: one matrix product of all planes with all planes;
- :class:`ShiftBlock`: the cross-spectra's discrete Fourier transform at few shifts, separable;
- :class:`PowerBlock`, both channels linear in x: sums of |x^|^2 with products of filters.

``evaluate`` returns real and imaginary parts, ``(batch, row, 2)``; ``pull`` adds to the stacks'
gradients those of ``sum(g * c)``. Spectra are half planes of ``torch.fft.rfft2``, columns beyond a
filter's support cut off. A gradient g(w) of a spectrum F is that of ``sum over the whole plane of
Re(conj(g) F)``, so that its inverse transform is the gradient of the planes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

Indices = NDArray[np.int64]
Term = tuple[int, int, int, float]  # part of c, part of a, part of b, sign


@dataclass
class Stack:
    """Channels of one kind: what is known of them, and what has been gathered of their gradient.

    Attributes
    ----------
    planes
        ``(batch, plane, y, x)`` real; None if no block needs them.
    spectrum
        ``(batch, plane, y, column)`` complex: transforms of the planes; None if not needed.
    plane_gradient, spectrum_gradient
        Gradients, None until a block adds to them.
    """

    planes: Tensor | None = None
    spectrum: Tensor | None = None
    plane_gradient: Tensor | None = None
    spectrum_gradient: Tensor | None = None

    def pull_planes(self) -> Tensor:
        """Return the gradient of the planes to add to."""
        if self.plane_gradient is None:
            assert self.planes is not None
            self.plane_gradient = torch.zeros_like(self.planes)
        return self.plane_gradient

    def pull_spectrum(self) -> Tensor:
        """Return the gradient of the spectrum to add to."""
        if self.spectrum_gradient is None:
            assert self.spectrum is not None
            self.spectrum_gradient = torch.zeros_like(self.spectrum)
        return self.spectrum_gradient


@dataclass(frozen=True)
class Pairs:
    """Rows of a block: channels of either stack, and shifts.

    Parameters
    ----------
    first, second
        Number of each row's channel in its stack, ``(row,)``.
    shifts
        (y, x) of each row, ``(row, 2)``.
    channels
        Channels of either stack.
    parts
        Planes a channel: 1 if real, 2 if complex.
    mirrored
        Replace b by its conjugate.
    """

    first: Indices
    second: Indices
    shifts: Indices
    channels: tuple[int, int]
    parts: tuple[int, int]
    mirrored: bool = False

    def terms(self) -> list[Term]:
        """Return the products of planes that make up real (0) and imaginary (1) part."""
        sign = -1.0 if self.mirrored else 1.0
        every = [(0, 0, 0, 1.0), (0, 1, 1, sign), (1, 1, 0, 1.0), (1, 0, 1, -sign)]
        return [t for t in every if t[1] < self.parts[0] and t[2] < self.parts[1]]

    def distinct(self) -> tuple[Indices, Indices, Indices]:
        """Return the distinct pairs of channels, and which of them each row is."""
        both = np.column_stack([self.first, self.second])
        pairs, index = np.unique(both, axis=0, return_inverse=True)
        return pairs[:, 0], pairs[:, 1], index.reshape(-1)


class GramBlock(nn.Module):
    """Covariances without shift, from all products of planes, in space or in frequency.

    Parameters
    ----------
    pairs
        The rows.
    scale
        Factor of the mean: 1 / points in space.
    weight
        Half-plane weights of the columns to use, from :func:`column_weights`; None: in space.
    dtype
        Real precision.
    """

    _map: Tensor
    _weight: Tensor

    def __init__(
        self, pairs: Pairs, scale: float, weight: Tensor | None, dtype: torch.dtype
    ) -> None:
        super().__init__()
        planes = [n * parts for n, parts in zip(pairs.channels, pairs.parts, strict=True)]
        self._spectral, self._planes = weight is not None, planes
        combine = torch.zeros(len(pairs.first), 2, *planes, dtype=torch.float64)
        row = np.arange(len(pairs.first))
        for part, a, b, sign in pairs.terms():
            i, k = pairs.first + a * pairs.channels[0], pairs.second + b * pairs.channels[1]
            combine[row, part, i, k] = sign * scale
        keep_buffer(self, "_map", combine.reshape(2 * len(row), -1).to(dtype))
        keep_buffer(self, "_weight", (torch.ones(1) if weight is None else weight).to(dtype))

    def evaluate(self, a: Stack, b: Stack) -> Tensor:
        """Return the covariances ``(batch, row, 2)``."""
        left, right = self._rows(a), self._rows(b)
        if self._spectral:
            right = (right.unflatten(-1, (-1, len(self._weight), 2)) * self._weight[:, None]).flatten(2)
        gram = left @ right.mT
        return (gram.flatten(1) @ self._map.T).unflatten(-1, (-1, 2))

    def pull(self, g: Tensor, a: Stack, b: Stack) -> None:
        """Add the gradients of ``sum(g * c)`` to those of ``a`` and ``b``."""
        gram = (g.flatten(1) @ self._map).unflatten(-1, self._planes)
        for stack, product in ((a, gram @ self._rows(b)), (b, gram.mT @ self._rows(a))):
            if self._spectral:
                columns = len(self._weight)
                pulled = torch.view_as_complex(product.unflatten(-1, (-1, columns, 2)))
                stack.pull_spectrum()[..., :columns].add_(pulled)
            else:
                into = stack.pull_planes()
                into.add_(product.view_as(into))

    def _rows(self, stack: Stack) -> Tensor:
        """Return the planes, or the spectra as pairs of reals, as rows of a matrix."""
        if self._spectral:
            assert stack.spectrum is not None
            columns = stack.spectrum[..., : len(self._weight)].resolve_conj().contiguous()
            return torch.view_as_real(columns).flatten(2)
        assert stack.planes is not None
        return stack.planes.flatten(2)


class ShiftBlock(nn.Module):
    """Covariances at few shifts: the transform of ``F_a conj F_b`` at these shifts alone.

    Parameters
    ----------
    pairs
        The rows.
    scale
        Factor of the sum over frequencies.
    columns
        Columns of the half plane to use: the others of either stack hold nothing.
    shape
        Grid ``(y, x)``.
    conjugate_first
        Conjugate the first stack's spectra, at the opposite shift, rather than the second's.
    dtype
        Real precision.
    """

    def __init__(
        self,
        pairs: Pairs,
        scale: float,
        columns: int,
        shape: tuple[int, int],
        conjugate_first: bool,
        dtype: torch.dtype,
    ) -> None:
        super().__init__()
        first, second, pair = pairs.distinct()
        self._first, self._second = (
            _choice(index, n) for index, n in zip((first, second), pairs.channels, strict=True)
        )
        self._channels, self._columns, self._terms = pairs.channels, columns, pairs.terms()
        self._swapped = conjugate_first
        shifts = -pairs.shifts if conjugate_first else pairs.shifts
        self.transform = FewShifts(pair, len(first), shifts, shape, columns, scale, dtype)

    def evaluate(self, a: Stack, b: Stack) -> Tensor:
        """Return the covariances ``(batch, row, 2)``."""
        left, right = self._sides(a, b)
        right = [part.conj().resolve_conj() for part in right]
        parts = []
        for part in (0, 1):
            terms = self._products(part)
            if not terms:
                parts.append(torch.zeros_like(parts[0]))
                continue
            cross = _signed_sum([(sign, left[p], right[q]) for p, q, sign in terms])
            parts.append(self.transform.sum(cross).real)
        return torch.stack(parts, dim=-1)

    def pull(self, g: Tensor, a: Stack, b: Stack) -> None:
        """Add the gradients of ``sum(g * c)`` to those of ``a`` and ``b``."""
        left, right = self._sides(a, b)
        into, other = (b, a) if self._swapped else (a, b)
        choose_left, choose_right = self._chosen()
        for part in (0, 1):
            terms = self._products(part)
            if not terms:
                continue
            spread = self.transform.spread(g[..., part])
            conjugate = spread.conj().resolve_conj()
            for p, q, sign in terms:
                self._add(into, choose_left, p, spread, right[q], sign)
                self._add(other, choose_right, q, conjugate, left[p], sign)

    def _products(self, part: int) -> list[tuple[int, int, float]]:
        """Return (part of the left side, part of the right side, sign)."""
        return [
            (b, a, sign) if self._swapped else (a, b, sign)
            for which, a, b, sign in self._terms
            if which == part
        ]

    def _chosen(self) -> tuple[tuple[int, Indices | None], tuple[int, Indices | None]]:
        sides = (self._channels[0], self._first), (self._channels[1], self._second)
        return (sides[1], sides[0]) if self._swapped else sides

    def _sides(self, a: Stack, b: Stack) -> tuple[list[Tensor], list[Tensor]]:
        """Return each side's spectra of the pairs, real and imaginary planes apart."""
        left, right = self._chosen()
        stacks = (b, a) if self._swapped else (a, b)
        return self._parts(stacks[0], *left), self._parts(stacks[1], *right)

    def _parts(self, stack: Stack, channels: int, chosen: Indices | None) -> list[Tensor]:
        assert stack.spectrum is not None
        planes = stack.spectrum[..., : self._columns].split(channels, dim=1)
        return [part if chosen is None else part[:, chosen] for part in planes]

    def _add(
        self,
        stack: Stack,
        side: tuple[int, Indices | None],
        part: int,
        spread: Tensor,
        spectrum: Tensor,
        sign: float,
    ) -> None:
        channels, chosen = side
        into = stack.pull_spectrum()[:, part * channels : (part + 1) * channels, :, : self._columns]
        if chosen is None:
            into.addcmul_(spread, spectrum, value=sign)
        else:
            index = torch.from_numpy(chosen).to(into.device)
            into.index_add_(1, index, spread * spectrum, alpha=sign)


class PowerBlock(nn.Module):
    """Covariances of channels linear in x: ``sum over w of psi_a psi_b |x^|^2 e^{i w tau}``.

    With psi = e + o, even and odd in w, cosines meet ``e e' + o o'`` and sines ``o e' + e o'``.

    Parameters
    ----------
    pairs
        The rows.
    filters
        Even and odd parts of either stack's filters, real ``(2, channel, y, column)`` float64.
    shape
        Grid ``(y, x)``.
    dtype
        Real precision.
    """

    _weight: Tensor
    _still: Tensor
    _even: Tensor
    _odd: Tensor
    _given: Tensor
    _order: Tensor

    def __init__(
        self, pairs: Pairs, filters: tuple[Tensor, Tensor], shape: tuple[int, int], dtype: torch.dtype
    ) -> None:
        super().__init__()
        first, second, pair = pairs.distinct()
        columns = min(bank.shape[-1] for bank in filters)
        (e, o), (e2, o2) = (
            bank[:, index, :, :columns] for bank, index in zip(filters, (first, second), strict=True)
        )
        sign = -1.0 if pairs.mirrored else 1.0
        even, odd = e * e2 + sign * o * o2, o * e2 + sign * e * o2
        moves = np.zeros(len(first), dtype=bool)
        moves[pair[(pairs.shifts != 0).any(1)]] = True
        moved = moves[pair]
        weight = column_weights(shape[1], columns)
        keep_buffer(self, "_weight", weight.to(dtype))
        keep_buffer(self, "_still", even[pair[~moved]].flatten(1).to(dtype))
        keep_buffer(self, "_even", even[moves].to(dtype))
        keep_buffer(self, "_odd", odd[moves].to(dtype))
        given = np.concatenate([np.flatnonzero(~moved), np.flatnonzero(moved)])
        keep_buffer(self, "_given", torch.from_numpy(given))
        keep_buffer(self, "_order", torch.from_numpy(np.argsort(given)))
        self.transform = FewShifts(
            (np.cumsum(moves) - 1)[pair[moved]],
            int(moves.sum()),
            pairs.shifts[moved],
            shape,
            columns,
            1.0,
            dtype,
        )

    def evaluate(self, power: Tensor) -> Tensor:
        """Return the covariances ``(batch, row, 2)`` from ``|x^|^2 (batch, y, column)``."""
        cut = power[..., : len(self._weight)]
        still = (cut * self._weight).flatten(1) @ self._still.T
        cosines = self.transform.sum(self._even * cut[:, None]).real
        sines = self.transform.sum(self._odd * cut[:, None]).imag
        parts = [torch.cat([still, cosines], -1), torch.cat([torch.zeros_like(still), sines], -1)]
        return torch.stack(parts, dim=-1)[:, self._order]

    def pull(self, g: Tensor, gradient: Tensor) -> None:
        """Add the gradient of ``sum(g * c)`` to that of the power, ``(batch, y, column)``."""
        into, count = gradient[..., : len(self._weight)], len(self._still)
        still, moved = g[:, self._given].split([count, g.shape[1] - count], dim=1)
        into.add_((still[..., 0] @ self._still).view_as(into))
        into.add_((self.transform.spread(moved[..., 0]).real * self._even).sum(1))
        into.sub_((self.transform.spread(moved[..., 1]).imag * self._odd).sum(1))


class FewShifts(nn.Module):
    """The inverse Fourier transform of half-plane spectra at few shifts, and its adjoint.

        sum over w of F(w) e^{i w tau} = sum_y e^{i w_y tau_y} sum_x weight F e^{i w_x tau_x}

    Parameters
    ----------
    spectrum
        Which spectrum each row transforms, ``(row,)``.
    count
        Number of spectra.
    shifts
        (y, x) of each row, ``(row, 2)``.
    shape
        Grid ``(y, x)``.
    columns
        Columns of the half plane.
    scale
        Factor of the sum.
    dtype
        Real precision.
    """

    _rows: Tensor
    _columns: Tensor
    _weighted: Tensor
    _pick: Tensor

    def __init__(
        self,
        spectrum: Indices,
        count: int,
        shifts: Indices,
        shape: tuple[int, int],
        columns: int,
        scale: float,
        dtype: torch.dtype,
    ) -> None:
        super().__init__()
        (across_y, y), (across_x, x) = (
            np.unique(shifts[:, axis], return_inverse=True) for axis in (0, 1)
        )
        self._grid = (count, len(across_y), len(across_x))
        flat = (spectrum * len(across_y) + y.reshape(-1)) * len(across_x) + x.reshape(-1)
        keep_buffer(self, "_pick", torch.from_numpy(flat))
        along_x = scale * _waves(across_x, shape[1])[:, :columns].T
        weighted = along_x * column_weights(shape[1], columns)[:, None]
        complex_dtype = dtype.to_complex()
        keep_buffer(self, "_rows", _waves(across_y, shape[0]).to(complex_dtype))
        keep_buffer(self, "_columns", along_x.to(complex_dtype))
        keep_buffer(self, "_weighted", weighted.to(complex_dtype))

    def sum(self, spectra: Tensor) -> Tensor:
        """Return the complex sums ``(batch, row)`` of ``(batch, spectrum, y, column)``.

        Over half the plane: the sum over all of it is the real part, if the other half is the
        conjugate mirror image.
        """
        if spectra.is_complex():
            across = spectra @ self._weighted
        else:
            across = torch.view_as_complex(
                (spectra @ torch.view_as_real(self._weighted).flatten(1)).unflatten(-1, (-1, 2))
            )
        return (self._rows @ across).flatten(1)[:, self._pick]

    def spread(self, values: Tensor) -> Tensor:
        """Return ``sum over rows of value e^{-i w tau}``, ``(batch, spectrum, y, column)``."""
        grid = values.new_zeros(len(values), math.prod(self._grid))
        grid.index_add_(1, self._pick, values)
        across = self._rows.mH @ grid.unflatten(1, self._grid).to(self._rows.dtype)
        spread: Tensor = across @ self._columns.mH
        return spread


def column_weights(size: int, columns: int) -> Tensor:
    """Return how often each column of a half plane occurs in the plane, float64."""
    weights = torch.full((size // 2 + 1,), 2.0, dtype=torch.float64)
    weights[0] = 1
    if size % 2 == 0:
        weights[-1] = 1
    return weights[:columns]


def keep_buffer(module: nn.Module, name: str, value: Tensor) -> None:
    """Register ``value`` to follow the module's device without entering its state."""
    module.register_buffer(name, value, persistent=False)


def _waves(shifts: Indices, size: int) -> Tensor:
    """Return ``e^{i w shift}``: ``(shift, size)`` complex128."""
    turns = np.outer(shifts, np.arange(size)) % size  # exact: integer turns are dropped
    return torch.from_numpy(np.exp(2j * np.pi * turns / size))


def _choice(index: Indices, channels: int) -> Indices | None:
    """Return None for all channels in order, which need not be copied."""
    everything = len(index) == channels and bool((index == np.arange(channels)).all())
    return None if everything else index


def _signed_sum(terms: list[tuple[float, Tensor, Tensor]]) -> Tensor:
    """Return the sum of ``sign * left * right``."""
    (sign, left, right), *others = terms
    total = left * right if sign > 0 else -left * right
    for sign, left, right in others:
        total = torch.addcmul(total, left, right, value=sign)
    return total
