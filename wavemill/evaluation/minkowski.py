"""Minkowski functionals of the sets where a field exceeds a threshold: area, length, number.

They are computed on the grid from counts of points, pairs and triangles of neighbours alone:

- area: the fraction of points in the set;
- perimeter per unit of area: Crofton's formula over four directions of lines. A line in direction e
  crosses the border where one of two neighbours along e is in the set and the other is not;
- Euler characteristic per unit of area, components less holes: points - edges + triangles of the
  grid with diagonals, averaged over the two ways to draw them.

All are unbiased for isotropic fields that are smooth on the grid. For a Gaussian field of variance
1 whose derivatives have variance mu they are (Adler, *The Geometry of Random Fields*, 1981):

    area (1/2) erfc(t / sqrt 2) ,  perimeter (1/2) sqrt(mu) e^{-t^2/2} ,
    Euler characteristic (2 pi)^{-3/2} mu t e^{-t^2/2} .

Source: Ohser and Muecklich, *Statistical Analysis of Microstructures in Materials Science* (2000),
chapter 3; Schmalzing and Buchert, ApJ 482, L1 (1997).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from wavemill.devices import beside_default
from wavemill.errors import InvalidParameter
from wavemill.operators import double


@beside_default
def minkowski_functionals(x: Tensor, thresholds: Sequence[float], periodic: bool = True) -> Tensor:
    """Return area fraction, and perimeter and Euler characteristic per unit of area.

    Parameters
    ----------
    x
        Real ``(..., y, x)``; lengths are in samples.
    thresholds
        In units of ``x``; a point is in the set unless it is below the threshold.
    periodic
        Whether the points of one border are neighbours of those of the opposite one.

    Returns
    -------
    Tensor
        ``(..., 3, threshold)``, float64; NaN for fields that hold one.

    Raises
    ------
    InvalidParameter
        If there is no threshold.
    ShapeMismatch
        If ``x`` is not real.
    """
    if not len(thresholds):
        raise InvalidParameter("sets of points are above one threshold or more, got none")
    field = cells = double(x)
    if periodic:
        cells = torch.cat([cells, cells[..., :1, :]], dim=-2)
        cells = torch.cat([cells, cells[..., :1]], dim=-1)
    rows = [
        torch.cat([_count(field >= threshold)[..., None], _lengths(cells >= threshold)], dim=-1)
        for threshold in thresholds
    ]
    unknown = field.isnan().any((-2, -1))[..., None, None]
    return torch.where(unknown, torch.nan, torch.stack(rows, dim=-1))


def _lengths(members: Tensor) -> Tensor:
    """Return perimeter and Euler characteristic ``(..., 2)`` of a set, per cell of the grid."""
    here, right = members[..., :-1, :-1], members[..., :-1, 1:]
    below, across = members[..., 1:, :-1], members[..., 1:, 1:]
    pairs = ((here, right), (here, below), (here, across), (right, below))
    horizontal, vertical, falling, rising = (_count(a & b) for a, b in pairs)
    crossings = [_count(a ^ b) for a, b in pairs]
    straight, diagonal = crossings[0] + crossings[1], crossings[2] + crossings[3]
    perimeter = math.pi / 8 * (straight + diagonal / math.sqrt(2))
    corners = ((here, right, across), (here, below, across), (here, right, below))
    triangles = sum(_count(a & b & c) for a, b, c in (*corners, (right, below, across)))
    points = _count(here)
    euler = points - horizontal - vertical - (falling + rising) / 2 + triangles / 2
    return torch.stack([perimeter, euler], dim=-1)


def _count(members: Tensor) -> Tensor:
    """Return the fraction of points that are members."""
    return members.sum((-2, -1)).to(torch.float64) / (members.shape[-2] * members.shape[-1])
