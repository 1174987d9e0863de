"""Products of all channels of some stacks with all of another, in compiled loops."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from wavemill import kernels
from wavemill.moments.boxes import Box
from wavemill.moments.covariances import Block, GramBlock
from wavemill.moments.slopes import Slopes
from wavemill.moments.stacks import Pairs, Stack
from wavemill.operators import keep_buffer

# Of a conj b, by the parts of a and of b: what each product of parts adds to (re, im).
_WEIGHTS = torch.tensor([[[1, 0], [0, -1]], [[0, 1], [1, 0]]], dtype=torch.float64)


@dataclass(frozen=True)
class Meeting:
    """Rows between a stack and the last one.

    Parameters
    ----------
    stack
        Number of the stack.
    block
        The block that computes the same with torch.
    pairs
        The rows.
    scale
        Factor of the sum over points or frequencies.
    linear, real
        Whether the channels of each stack are linear, and whether they are real.
    swapped
        Whether the last stack is a.
    """

    stack: int
    block: GramBlock
    pairs: Pairs
    scale: float
    linear: tuple[bool, bool]
    real: tuple[bool, bool]
    swapped: bool

    @property
    def _order(self) -> slice:
        """What puts the stack first, and the last one second."""
        return slice(None, None, -1 if self.swapped else 1)

    def signs(self, space: bool) -> list[Tensor]:
        """Return signs of both stacks' parts: of spectra, the gradient's conjugate is gathered."""
        found = []
        for count, real, linear in zip(self.pairs.channels, self.real, self.linear, strict=True):
            signs = torch.ones(kernels.parts(count, real), 1)
            if not (space or linear):
                signs[1::2] = -1
            found.append(signs)
        return found[self._order]

    def terms(self, start: int, columns: int) -> tuple[Tensor, Tensor]:
        """Return which products each row is made of, and what each adds to (re, im).

        They are ``(row, 4)``, among products of parts from ``start`` on with as many parts of the
        last stack as there are ``columns``, and ``(row, 4, 2)``.
        """
        index = [torch.from_numpy(i) for i in (self.pairs.first, self.pairs.second)][self._order]
        each = [torch.arange(1 if real else 2) for real in self.real][self._order]
        row, column = (i[:, None] * len(n) + n for i, n in zip(index, each, strict=True))
        places = ((start + row[:, :, None]) * columns + column[:, None]).flatten(1)
        weights = self.scale * _WEIGHTS
        weights[:, 1] *= -1 if self.pairs.mirrored else 1
        weights = weights.transpose(0, 1) if self.swapped else weights
        weights = weights[: len(each[0]), : len(each[1])].reshape(-1, 2).expand(len(row), -1, -1)
        room = 4 - places.shape[1]  # real channels have fewer parts
        return nn.functional.pad(places, (0, room)), nn.functional.pad(weights, (0, 0, 0, room))


class Products(Block):
    """Covariances without shift of stacks with one other, in the loops of ``kernels/products.c``.

    Real and imaginary parts of ``a conj b`` and ``a b`` are sums of real products of parts, and so
    are their gradients: moduli need no complex copy, and nothing is conjugated. Where loops cannot
    run, the blocks do it, pair after pair.

    Parameters
    ----------
    meetings
        What rows there are, in order of their stacks.
    dtype
        Real precision.
    shape
        Grid ``(y, x)``.
    box
        Frequencies to sum over; None: in space.
    """

    _places: Tensor
    _weights: Tensor
    _signs: Tensor
    _last_signs: Tensor

    def __init__(
        self, meetings: Sequence[Meeting], dtype: torch.dtype, shape: Box, box: Box | None
    ) -> None:
        super().__init__()
        self._blocks = [meeting.block for meeting in meetings]
        self._held = nn.ModuleList(self._blocks)  # which moves with this module
        self._sides = [(meeting.stack, meeting.swapped) for meeting in meetings]
        self._counts = [len(meeting.pairs.first) for meeting in meetings]
        self._space, self._box, self._dtype = box is None, box or shape, dtype
        starts: dict[int, int] = {}
        signs: list[Tensor] = []
        places, weights = [], []
        for meeting in meetings:
            own, last = meeting.signs(self._space)
            if meeting.stack not in starts:
                starts[meeting.stack] = sum(len(one) for one in signs)
                signs.append(own)
            place, weight = meeting.terms(starts[meeting.stack], len(last))
            places.append(place)
            weights.append(weight)
        keep_buffer(self, "_places", torch.cat(places))
        keep_buffer(self, "_weights", torch.cat(weights).to(dtype))
        keep_buffer(self, "_signs", torch.cat(signs).to(dtype))
        keep_buffer(self, "_last_signs", last.to(dtype))

    def evaluate(self, *stacks: Stack) -> Tensor:
        """Return the covariances ``(batch, row)``."""
        channels = self._channels(stacks)
        if not self._usable(channels):
            return torch.cat(
                [block.evaluate(*sides) for block, sides in self._sided(stacks)], dim=1
            )
        return kernels.products(channels, self._box, self._wanted())

    def differentiate(self, slopes: Slopes, *stacks: Stack) -> Tensor:
        """Return the covariances, and add the gradient that follows from them."""
        channels = self._channels(stacks)
        if not self._usable(channels):
            each = zip(slopes.split(self._counts), self._sided(stacks), strict=True)
            return torch.cat(
                [block.differentiate(part, *sides) for part, (block, sides) in each], dim=1
            )
        gradients, fresh = zip(
            *(
                stack.begin_gradient(self._space, True, (own.shape[1], *self._box))
                for stack, own in zip(stacks, channels, strict=True)
            ),
            strict=True,
        )
        own = slopes.factor, slopes.offset
        return kernels.products(channels, self._box, self._wanted(), own, gradients, fresh)

    def _wanted(self) -> kernels.Covariances:
        tables = self._places, self._weights, self._signs, self._last_signs
        return kernels.Covariances(len(self._places), *(table.data_ptr() for table in tables))

    def _channels(self, stacks: Sequence[Stack]) -> list[Tensor]:
        return [stack.channels(self._space) for stack in stacks]

    def _sided(self, stacks: Sequence[Stack]) -> Iterator[tuple[GramBlock, tuple[Stack, Stack]]]:
        """Yield each block with its a and b."""
        last = stacks[-1]
        for block, (number, swapped) in zip(self._blocks, self._sides, strict=True):
            yield block, (last, stacks[number]) if swapped else (stacks[number], last)

    def _usable(self, channels: Sequence[Tensor]) -> bool:
        """Say whether the loops can read the channels, and no graph of autograd needs them."""
        alike = all(x.dtype.to_real() == self._dtype and not x.requires_grad for x in channels)
        return alike and kernels.usable(*channels)
