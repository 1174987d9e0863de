"""Diversity: whether a model's samples differ from one another as real fields do.

Two fields are compared at the shift where they agree best,

    c(x, y) = max over shifts of < x(u + shift) y(u) > ,  x and y centred and of variance 1 ,

so that a shifted copy of a field does not count as a new one. For two independent fields of N
points, c is about sqrt(2 ln N) standard deviations of the mean product of two such fields. Fields
of steep spectra have few independent points, and by how much c exceeds 0 only real fields can tell.
"""

from __future__ import annotations

import torch
from torch import Tensor

from wavemill.devices import beside_default
from wavemill.errors import ShapeMismatch
from wavemill.operators import transformed
from wavemill.spectra import standardised


@beside_default
def best_correlation(x: Tensor, y: Tensor) -> Tensor:
    """Return the largest correlation of real fields ``(..., y, x)`` over all periodic shifts.

    It lies in [-1, 1], and is float64.

    Raises
    ------
    ShapeMismatch
        If they are not real fields on one grid.
    """
    fields = [standardised(field) for field in (x, y)]
    if x.shape[-2:] != y.shape[-2:]:
        raise ShapeMismatch(
            f"expected fields on one grid, got {tuple(x.shape[-2:])} and {tuple(y.shape[-2:])}"
        )
    x_hat, y_hat = (transformed(torch.fft.rfft2, field) for field in fields)
    products = transformed(torch.fft.irfft2, x_hat * y_hat.conj(), s=tuple(x.shape[-2:]))
    return products.amax((-2, -1)) / (x.shape[-2] * x.shape[-1])


def pair_correlations(x: Tensor) -> Tensor:
    """Return c of all pairs of ``(field, y, x)``: ``(pair,)``, in the order of combinations."""
    first, second = torch.triu_indices(len(x), len(x), 1)
    return torch.stack(
        [best_correlation(x[i], x[j]) for i, j in zip(first, second, strict=True)]
        or [torch.zeros((), dtype=torch.float64)]
    )[: len(first)]
