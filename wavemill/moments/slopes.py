"""Gradients of a loss by covariances, known as soon as the covariances are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Slopes:
    """The gradient of a loss by covariances c, ``g = factor c - offset`` in each part.

    d(loss) = Re sum conj(g) dc. So covariances are differentiated where they are computed, while
    what they were made of is still in a cache.

    Parameters
    ----------
    factor
        Real ``(1, row, 2)``, of real and imaginary part.
    offset
        Real ``(field, row, 2)``, or ``(1, row, 2)`` for the same of all fields.
    """

    factor: Tensor
    offset: Tensor

    def of(self, c: Tensor) -> Tensor:
        """Return g for covariances ``(field, row)``, complex."""
        parts = torch.view_as_real(c.resolve_conj())
        return torch.view_as_complex(parts * self.factor - self.offset)

    def at(self, rows: slice) -> Slopes:
        """Return those of some rows."""
        return Slopes(self.factor[:, rows], self.offset[:, rows])

    def split(self, counts: Sequence[int]) -> list[Slopes]:
        """Return those of so many rows after so many."""
        parts = (torch.split(each, list(counts), dim=1) for each in (self.factor, self.offset))
        return [Slopes(*both) for both in zip(*parts, strict=True)]
