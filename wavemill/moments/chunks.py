"""Large fields: covariances in chunks of pairs, so that memory holds few channels at once.

A covariance needs two channels, and the loss is a sum over covariances. So rows are sorted into
chunks that need few scales, then few angles, each with a :class:`.Schedule` of its own; results are
joined and gradients added. Channels that several chunks need are computed for each of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from wavemill.moments.banks import bank_of, points_held
from wavemill.moments.groups import Group, angles_by_group, groups, spans
from wavemill.moments.pairs import MomentTable, Rows
from wavemill.moments.plan import Planner
from wavemill.moments.schedule import Schedule
from wavemill.moments.slopes import Slopes
from wavemill.operators import keep_buffer

BUDGET = 3 * 2**28  # bytes that the gradient of one chunk may take: 805 MB


class Chunks(nn.Module):
    """Several schedules that act as one.

    Parameters
    ----------
    table
        Grid, scales, angles and low passes.
    rows
        Distinct rows in canonical form.
    angles
        Angles of each group, in order.
    dtype
        Real precision.
    chunks
        Which rows go together.
    planner
        That of schedules.
    """

    def __init__(
        self,
        table: MomentTable,
        rows: Rows,
        angles: dict[Group, list[int]],
        dtype: torch.dtype,
        chunks: list[NDArray[np.int64]],
        planner: type[Planner] = Planner,
    ) -> None:
        super().__init__()
        bank = bank_of(table, angles, dtype)
        every = spans(angles)
        self._parts, start = nn.ModuleList(), 0
        self._rows: list[slice] = []
        order = []
        for number, chunk in enumerate(chunks):
            own = angles_by_group(rows[chunk])
            part = Schedule(table, rows[chunk], own, dtype, bank, planner)
            channels = [
                every[group].start + angles[group].index(angle)
                for group, members in own.items()
                for angle in members
            ]
            keep_buffer(self, f"_channels_{number}", torch.tensor(channels))
            self._parts.append(part)
            self._rows.append(slice(start, start + len(chunk)))
            order.append(chunk[part.order])
            start += len(chunk)
        self.order = np.concatenate(order)
        self._count = sum(map(len, angles.values()))
        self.dtype = dtype

    def evaluate(
        self, x: Tensor, means: Tensor | None, slopes: Slopes | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Return covariances and, with ``slopes``, the gradient: see :meth:`.Schedule.evaluate`."""
        results, gradient = [], None
        for part, channels, rows in self._each():
            mean = None if means is None else means[channels]
            found, more = part.evaluate(x, mean, None if slopes is None else slopes.at(rows))
            results.append(found)
            if more is not None:
                gradient = more if gradient is None else gradient.add_(more)
        return torch.cat(results, dim=1), gradient

    def mean_and_variance(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the means, complex, and variances of all channels of one field."""
        mean = x.new_zeros(self._count, dtype=x.dtype.to_complex())
        variance = x.new_zeros(self._count)
        for part, channels, _ in self._each():
            mean[channels], variance[channels] = part.mean_and_variance(x)
        return mean, variance

    def memory(self, gradient: bool) -> int:
        """Return an upper bound in bytes of :meth:`evaluate` for one field."""
        return max(part.memory(gradient) for part, _, _ in self._each())

    def _each(self) -> Iterator[tuple[Schedule, Tensor, slice]]:
        """Yield each schedule, its channels among all, and its rows among all results."""
        for number, (part, rows) in enumerate(zip(self._parts, self._rows, strict=True)):
            assert isinstance(part, Schedule)
            yield part, getattr(self, f"_channels_{number}"), rows


def schedule_of(
    table: MomentTable,
    rows: Rows,
    angles: dict[Group, list[int]],
    dtype: torch.dtype,
    budget: int,
    planner: type[Planner] = Planner,
) -> Schedule | Chunks:
    """Return one schedule if its gradient fits the budget, else chunks that fit or come nearest."""
    chunks = chunks_of(rows, table, dtype, budget)
    if len(chunks) == 1:
        return Schedule(table, rows, angles, dtype, bank_of(table, angles, dtype), planner)
    return Chunks(table, rows, angles, dtype, chunks, planner)


def chunks_of(
    rows: Rows, table: MomentTable, dtype: torch.dtype, budget: int
) -> list[NDArray[np.int64]]:
    """Return which rows go together: as many as fit, of pairs of scales and of blocks of angles.

    Blocks are the widest that fit or, if none do, those that need least: all angles between two
    that are compared are held, so that one scale is held whole.
    """
    bytes_each = math.prod(table.shape) * torch.finfo(dtype).bits // 8

    def held(chosen: NDArray[np.int64]) -> int:
        part = rows[chosen]
        pairs = set(zip(groups(part, "1"), groups(part, "2"), strict=True))
        return points_held(angles_by_group(part), pairs, True) * bytes_each

    everything = np.arange(len(rows))
    if held(everything) <= budget:
        return [everything]
    widths = [table.L]
    while widths[-1] > 1:
        widths.append((widths[-1] + 1) // 2)
    least = min(max(map(held, _atoms(rows, width))) for width in widths)
    allowed = max(budget, least)
    atoms = next(a for a in (_atoms(rows, w) for w in widths) if max(map(held, a)) <= allowed)
    return list(_packed(atoms, lambda chosen: held(chosen) <= allowed))


def _atoms(rows: Rows, width: int) -> list[NDArray[np.int64]]:
    """Return the rows of each pair of scales and of blocks of ``width`` angles, finest first."""
    blocks = [rows[name] // (width if name[0] == "l" else 1) for name in ("j1", "j2", "l1", "l2")]
    _, atom = np.unique(np.stack(blocks), axis=1, return_inverse=True)
    return [np.flatnonzero(atom.reshape(-1) == number) for number in range(atom.max() + 1)]


def _packed(
    atoms: Iterable[NDArray[np.int64]], fits: Callable[[NDArray[np.int64]], bool]
) -> Iterator[NDArray[np.int64]]:
    """Yield unions of consecutive atoms, as large as fit."""
    held: list[NDArray[np.int64]] = []
    for atom in atoms:
        if held and not fits(np.concatenate([*held, atom])):
            yield np.sort(np.concatenate(held))
            held = []
        held.append(atom)
    yield np.sort(np.concatenate(held))
