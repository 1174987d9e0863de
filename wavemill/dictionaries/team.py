"""Processes that train one network together: each takes its share of every batch.

With n_r of the n samples of a batch, member r computes the gradient of its part of the mean loss,
``(n_r / n) mean_r``; the sum over members is the gradient of one process. Batch norms use the sums
of all members' values, and gradients go back through those sums. What differs from one process is
the order of additions, and what dropout leaves out.

Members meet through ``torch.distributed``: gloo on CPUs, NCCL on GPUs.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

PATIENCE = timedelta(minutes=30)  # how long members wait for each other, as when the first writes


@dataclass(frozen=True)
class Team:
    """A member's place among ``size`` members; by default it is alone."""

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        """Whether this member writes what all have computed."""
        return self.rank == 0

    @property
    def share(self) -> slice:
        """Which samples of a batch are this member's."""
        return slice(self.rank, None, self.size)

    def total(self, x: Tensor) -> Tensor:
        """Return the sum over members, the same on each."""
        found = x.clone()
        if self.size > 1:
            dist.all_reduce(found)
        return found

    def add_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace gradients by their sums over members, in one message."""
        if self.size == 1:
            return
        held = [value for value in parameters if value.requires_grad]
        flat = [torch.zeros_like(v) if v.grad is None else v.grad for v in held]
        summed = self.total(torch.cat([gradient.flatten() for gradient in flat]))
        parts = torch.split(summed, [value.numel() for value in held])
        for value, part in zip(held, parts, strict=True):
            value.grad = part.view_as(value).clone()

    def gather(self, x: list[Tensor]) -> list[Tensor]:
        """Return, in order, what members computed for items 0, 1, 2, ..., taken in turns."""
        if self.size == 1:
            return x
        parts: list[list[Tensor]] = [[] for _ in range(self.size)]
        dist.all_gather_object(parts, x)
        count = sum(map(len, parts))
        return [parts[item % self.size][item // self.size] for item in range(count)]

    def wait(self) -> None:
        """Return when all members are here."""
        if self.size > 1:
            dist.barrier()


@contextlib.contextmanager
def joined(rank: int, size: int, meeting: str, device: str = "cpu") -> Iterator[Team]:
    """Join the members that meet at ``host:port``, where the first one listens."""
    backend = "nccl" if device == "cuda" else "gloo"
    dist.init_process_group(backend, f"tcp://{meeting}", PATIENCE, size, rank)
    try:
        yield Team(rank, size)
    finally:
        dist.destroy_process_group()


class _Sum(torch.autograd.Function):
    """The sum over members; the gradient of the sum of their losses is the sum of gradients."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, team: Team) -> Tensor:
        ctx.team = team
        return team.total(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return ctx.team.total(gradient), None


class SharedNorm(nn.BatchNorm2d):
    """Batch norm by the statistics of the whole batch, whichever members hold it.

    Attributes
    ----------
    team
        The team that trains the network, which sets it.
    """

    team = Team()

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x`` in units of the batch's spread, or of the population's."""
        if self.team.size == 1 or not self.training:
            return super().forward(x)
        rows = x.movedim(1, -1).flatten(0, -2)
        count = rows.new_full((1,), len(rows))
        own = torch.cat([rows.sum(0), rows.square().sum(0), count])
        sums: Tensor = _Sum.apply(own, self.team)  # type: ignore[no-untyped-call]
        total, squares, count = torch.split(sums, [x.shape[1], x.shape[1], 1])
        mean = total / count
        variance = (squares / count - mean.square()).clamp(min=0)
        self._follow(mean.detach(), variance.detach() * count.detach() / (count.detach() - 1))
        y: Tensor = (x - mean[:, None, None]) / (variance + self.eps).sqrt()[:, None, None]
        return y * self.weight[:, None, None] + self.bias[:, None, None]

    @torch.no_grad()
    def _follow(self, mean: Tensor, variance: Tensor) -> None:
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        self.num_batches_tracked += 1
        weight = self.momentum or 1 / int(self.num_batches_tracked)
        self.running_mean.lerp_(mean, weight)
        self.running_var.lerp_(variance, weight)
