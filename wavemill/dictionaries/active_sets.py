"""ISTC on a CPU with work in proportion to the supports, forwards and backwards.

    v_n = W^T beta + M^T z_{n-1},   z_n = T(v_n, lambda_n),   M = I - D^T W

A code has far fewer entries than the dictionary has atoms, so ``M^T z`` sums only a few rows of M.
Where supports are wide it costs less to take the residual as a sum of rows of D^T and to multiply
it by W, which is the iteration as written in :mod:`.dictionary`. Backwards, the gradient
``g_n`` lives on the support of z_n; with ``r = beta - D z_{n-1}`` and ``q = W g_n``,

    dW += r g_n^T,   dD -= q z_{n-1}^T,   dbeta += q,   g_{n-1} = (g_n - D^T q) on the support.

Compiled loops (:mod:`wavemill.kernels`) take one signal at a time through all iterations, so that
the rows it needs stay in the caches, and back through them for the gradient. Where the loops are
not built, torch takes many signals together through one iteration after another.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

from wavemill import kernels

_COLUMNS = 256  # columns of a table summed at a time: rows of 1 KiB are read at cache speed
_NARROW = 0.3  # largest support, as a fraction of the channels, for which rows of M cost less


@dataclass(frozen=True)
class Codes:
    """Sparse codes of some positions.

    Attributes
    ----------
    places
        Places of the entries in ``(position, atom)``, flat and ascending.
    atoms
        Atom of each entry.
    starts
        Number of the first entry of each position.
    values
        The entries.
    """

    places: Tensor
    atoms: Tensor
    starts: Tensor
    values: Tensor

    def __len__(self) -> int:
        return len(self.places)

    def carrying(self, values: Tensor) -> Codes:
        """Return the same support with other values."""
        return Codes(self.places, self.atoms, self.starts, values)

    def times(self, table: Tensor) -> Tensor:
        """Return ``z @ table`` for a table ``(atom, column)``."""
        return embedding_bag(
            self.atoms, table, self.starts, mode="sum", per_sample_weights=self.values
        )

    def transposed_times(self, table: Tensor, count: int) -> Tensor:
        """Return ``z^T @ table``, ``(atom, column)``, for a table ``(position, column)``."""
        atoms = self.atoms.numpy()
        order = np.argsort(atoms.astype(_smallest(count)), kind="stable")
        starts = np.searchsorted(atoms[order], np.arange(count))
        positions = np.repeat(
            np.arange(len(self.starts)), np.diff(self.starts.numpy(), append=len(atoms))
        )
        return embedding_bag(
            torch.from_numpy(positions[order]),
            table,
            torch.from_numpy(starts),
            mode="sum",
            per_sample_weights=self.values[torch.from_numpy(order)],
        )

    def dense(self, count: int) -> Tensor:
        """Return ``(position, atom)``."""
        z = self.values.new_zeros(len(self.starts) * count)
        return z.index_copy_(0, self.places, self.values).view(-1, count)


def _smallest(count: int) -> type[np.unsignedinteger[Any]]:
    """Return a type for ``count`` atoms: the one that is sorted by radix, if it is wide enough."""
    return np.uint16 if count <= 1 << 16 else np.uint64


def _thresholded(v: Tensor, threshold: Tensor, positive: bool) -> Codes:
    count = v.shape[1]
    mask = ~(v <= threshold) if positive else ~(v.abs() <= threshold)  # NaN is kept
    places = np.flatnonzero(mask.numpy())  # several times as fast as torch's
    atoms = torch.from_numpy(places - places // count * count)
    starts = torch.from_numpy(np.searchsorted(places, np.arange(0, v.numel(), count)))
    flat = torch.from_numpy(places)
    held = v.reshape(-1)[flat]
    values = held - threshold if positive else held - threshold * held.sign()
    return Codes(flat, atoms, starts, values)


@dataclass(frozen=True)
class Tables:
    """A dictionary laid out to be read atom by atom."""

    D: Tensor
    W: Tensor
    D_rows: Tensor
    W_rows: Tensor
    M: tuple[Tensor, ...]

    @classmethod
    def of(cls, D: Tensor, W: Tensor, columns: int) -> Tables:
        """Lay out the tables, ``M`` in slices of ``columns`` columns; 0: without ``M``."""
        slices: tuple[Tensor, ...] = ()
        if columns:
            M = torch.eye(D.shape[1], dtype=D.dtype) - D.T @ W
            slices = tuple(part.contiguous() for part in torch.split(M, columns, dim=1))
        return cls(D, W, D.T.contiguous(), W.T.contiguous(), slices)


def _preactivations(beta: Tensor, analysed: Tensor, codes: Codes, tables: Tables) -> Tensor:
    """Return ``v = W^T beta + z - W^T D z``, ``(position, atom)``."""
    if tables.M and len(codes) <= _NARROW * beta.numel():
        v = torch.empty_like(analysed)
        for part, table in enumerate(tables.M):
            columns = slice(part * _COLUMNS, part * _COLUMNS + table.shape[1])
            torch.add(analysed[:, columns], codes.times(table), out=v[:, columns])
        return v
    v = (beta - codes.times(tables.D_rows)) @ tables.W
    v.view(-1).index_add_(0, codes.places, codes.values)
    return v


def _refuse_second_derivatives() -> None:
    """Raise if the gradient is itself to be differentiated, which is not implemented here."""
    if torch.is_grad_enabled():
        raise NotImplementedError(
            "istc differentiates once on a CPU: write its iteration with soft_threshold instead"
        )


class _Coded(torch.autograd.Function):
    """ISTC of one block of positions."""

    @staticmethod
    def forward(
        ctx: Any,
        beta: Tensor,
        D: Tensor,
        W: Tensor,
        thresholds: Tensor,
        positive: bool,
        tables: Tables,
    ) -> Tensor:
        analysed = beta @ W
        codes = _thresholded(analysed, thresholds[0], positive)
        path = [codes]
        for threshold in thresholds[1:]:
            v = _preactivations(beta, analysed, codes, tables)
            codes = _thresholded(v, threshold, positive)
            path.append(codes)
        if any(ctx.needs_input_grad):
            ctx.beta, ctx.path, ctx.tables = beta, path, tables
        return codes.dense(D.shape[1])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        _refuse_second_derivatives()
        beta, path, tables = ctx.beta, ctx.path, ctx.tables
        count = gradient.shape[1]
        d_beta, steps = torch.zeros_like(beta), []
        d_W, d_D = torch.zeros_like(tables.W_rows), torch.zeros_like(tables.D_rows)
        flat = gradient.reshape(-1)
        for n in reversed(range(len(path))):
            g = path[n].carrying(flat[path[n].places])
            steps.append(-(g.values * path[n].values.sign()).sum())
            before = path[n - 1] if n else None
            r = beta if before is None else beta - before.times(tables.D_rows)
            d_W += g.transposed_times(r, count)
            q = g.times(tables.W_rows)
            d_beta += q
            if before is not None:
                d_D -= before.transposed_times(q, count)
                flat = (-q @ tables.D).view(-1)
                flat.index_add_(0, g.places, g.values)
        return d_beta, d_D.T, d_W.T, torch.stack(steps[::-1]), None, None


class _Compiled(torch.autograd.Function):
    """The same by compiled loops."""

    @staticmethod
    def forward(
        ctx: Any,
        beta: Tensor,
        D: Tensor,
        W: Tensor,
        thresholds: Tensor,
        positive: bool,
        tables: Tables,
    ) -> Tensor:
        sizes = kernels.Coding(
            rows=len(beta),
            channels=D.shape[0],
            atoms=D.shape[1],
            iterations=len(thresholds),
            positive=positive,
        )
        analysed = beta @ W
        ctx.sizes, ctx.analysed = sizes, analysed
        ctx.tables = (beta, tables.M[0], tables.D_rows, tables.W_rows, thresholds)
        return kernels.istc(analysed, tables.M[0], thresholds, sizes)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        _refuse_second_derivatives()
        found = kernels.istc_gradients(ctx.analysed, ctx.tables, gradient.contiguous(), ctx.sizes)
        d_beta, d_W, d_D, d_thresholds = found
        return d_beta, d_D.T, d_W.T, d_thresholds, None, None


def coded_by_supports(
    blocks: Sequence[Tensor], D: Tensor, W: Tensor, thresholds: Tensor, positive: bool
) -> list[Tensor]:
    """Return ISTC codes ``(position, K)`` of blocks of signals ``(position, C)`` on a CPU.

    ``M`` costs as much as ``W^T beta`` of K positions, so it is made only for K / 4 or more.
    """
    with torch.no_grad():
        enough = sum(len(block) for block in blocks) >= D.shape[1] // 4
        known = D.dtype in (torch.float32, torch.float64)
        compiled = enough and known and kernels.usable(*(block.detach() for block in blocks))
        columns = D.shape[1] if compiled else _COLUMNS if enough else 0
        tables = Tables.of(D.detach(), W.detach(), columns)
    coded: Callable[..., Tensor] = _Compiled.apply if compiled else _Coded.apply
    return [coded(block, D, W, thresholds, positive, tables) for block in blocks]
