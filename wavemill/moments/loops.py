"""Covariances in the compiled loops of ``wavemill/kernels/shifts.c``."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from wavemill import kernels
from wavemill.moments.boxes import Box
from wavemill.moments.covariances import Block, GramBlock, ShiftBlock
from wavemill.moments.shifts import few_waves
from wavemill.moments.slopes import Slopes
from wavemill.moments.stacks import Pairs, Stack
from wavemill.operators import keep_buffer


class Loops(Block):
    """Covariances at few shifts or none in compiled loops, or by a block where these cannot run.

    Only a few rows of a cross-spectrum exist at a time, and boxes are neither cut nor filled.

    Parameters
    ----------
    block
        The block that computes the same with torch.
    pairs
        The rows, none mirrored.
    scale
        Factor of the sum over points or frequencies.
    shape
        Grid ``(y, x)``.
    linear
        Which of a and b are linear.
    dtype
        Real precision.
    box
        Frequencies to sum over; None: in space.
    auto
        Whether each channel meets itself, so that cross-spectra are real.
    """

    _chosen: Tensor
    _means: Tensor
    _along: Tensor
    _across: Tensor

    def __init__(
        self,
        block: GramBlock | ShiftBlock,
        pairs: Pairs,
        scale: float,
        shape: Box,
        linear: tuple[bool, bool],
        dtype: torch.dtype,
        box: Box | None,
        auto: bool = False,
    ) -> None:
        super().__init__()
        self.block = block
        self._space, box = box is None, box or shape
        swapped = linear[0] and not linear[1]
        self._plain = self._space or all(linear), self._space or any(linear)
        self._box, self._swapped, self._auto = box, swapped, auto
        first, second, pair = pairs.distinct()
        chosen = [second, first] if swapped else [first, second]
        self._once = [np.array_equal(side, np.arange(len(side))) for side in chosen]
        y, x = (-pairs.shifts if swapped else pairs.shifts).T
        sizes, cosine = np.unique(np.abs(y), return_inverse=True)
        across, place = np.unique(x, return_inverse=True)
        along = few_waves(sizes, shape[0], box[0])
        sine = len(sizes) + cosine.reshape(-1) - (sizes[0] == 0)  # a shift of 0 has no sine
        means = np.column_stack([pair, cosine.reshape(-1), sine, np.sign(y), place.reshape(-1)])
        keep_buffer(self, "_chosen", torch.from_numpy(np.stack(chosen)))
        keep_buffer(self, "_means", torch.from_numpy(np.ascontiguousarray(means)))
        keep_buffer(self, "_along", torch.cat([along.real, along.imag[sizes != 0]]).to(dtype))
        wide = scale * few_waves(across, shape[1], box[1])
        keep_buffer(self, "_across", wide.to(dtype.to_complex()))
        self._tasks: dict[Hashable, tuple[kernels.Shifts, int, int]] = {}

    def evaluate(self, a: Stack, b: Stack) -> Tensor:
        """Return the covariances ``(batch, row)``."""
        if not self._usable(a, b):
            return self.block.evaluate(a, b)
        first, second = (stack.channels(self._space) for stack in self._ordered(a, b))
        task, room, _ = self._task(first, second)
        return kernels.means_at_shifts(first, second, task, room)

    def differentiate(self, slopes: Slopes, a: Stack, b: Stack) -> Tensor:
        """Return the covariances, and add the gradient that follows from them."""
        if not self._usable(a, b):
            return self.block.differentiate(slopes, a, b)
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
        own = slopes.factor, slopes.offset
        return kernels.differentiated_at_shifts(channels, task, own, gradients, fresh, room)

    def _usable(self, a: Stack, b: Stack) -> bool:
        """Say whether the loops can read the channels, and no graph of autograd needs them."""
        alike = a.channels(self._space).dtype == self._across.dtype
        return alike and a.plain(self._space) and b.plain(self._space)

    def _ordered(self, a: Stack, b: Stack) -> tuple[Stack, Stack]:
        """Return the stacks, the linear one second."""
        return (b, a) if self._swapped else (a, b)

    def _task(self, first: Tensor, second: Tensor) -> tuple[kernels.Shifts, int, int]:
        """Return the loops' task, and how many bytes they work in, forward and back."""
        key = first.shape, second.shape, torch.get_num_threads()
        if key not in self._tasks:
            task = kernels.Shifts(
                fields=len(first),
                pairs=self._chosen.shape[1],
                means=len(self._means),
                waves=len(self._along),
                rows=self._box[0],
                columns=self._box[1],
                channels=(first.shape[1], second.shape[1]),
                boxes=(first.shape[2:], second.shape[2:]),
                alone=self._auto,
                plain=self._plain,
                swapped=self._swapped,
                chosen=self._chosen.data_ptr(),
                mean=self._means.data_ptr(),
                along=self._along.data_ptr(),
                across=self._across.data_ptr(),
            )
            forward, back = (kernels.shifts_bytes(task, first.dtype, way) for way in (False, True))
            self._tasks[key] = task, forward, back
        return self._tasks[key]

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        self._tasks = {}  # they point to tables that move
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self

    def __getstate__(self) -> dict[str, Any]:
        """Return what can be pickled, in which there are no pointers."""
        return self.__dict__ | {"_tasks": {}}
