"""Minkowski functionals of the sets where a field exceeds a threshold: area, length, number.

On the periodic grid, from counts of points, pairs and triangles of neighbours alone:

- area: the fraction of points in the set;
- perimeter a unit of area: Crofton's formula over four directions of lines. A line in direction e
  is crossed where one of two neighbours along e is in the set and the other is not;
- Euler characteristic a unit of area, components less holes: points - edges + triangles of the
  grid with diagonals, averaged over the two ways to draw them.

All are unbiased for isotropic fields that are smooth on the grid. For a Gaussian field of
variance 1 whose derivatives have variance mu (Adler, *The Geometry of Random Fields*, 1981):

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


def minkowski_functionals(x: Tensor, thresholds: Sequence[float]) -> Tensor:
    """Return area fraction, perimeter and Euler characteristic a unit of area.

    Parameters
    ----------
    x
        Real ``(..., y, x)`` on a periodic grid; lengths are in samples.
    thresholds
        In units of ``x``; a point is in the set if it is not below.

    Returns
    -------
    Tensor
        ``(..., 3, threshold)``, float64.
    """
    return torch.stack([_functionals(x >= threshold) for threshold in thresholds], dim=-1)


def _functionals(here: Tensor) -> Tensor:
    """Return the three densities ``(..., 3)`` of a set given by its points."""
    right, below = here.roll(-1, -1), here.roll(-1, -2)
    across = below.roll(-1, -1)
    neighbours = (right, below, across)
    points, horizontal, vertical, falling = (_count(here & other) for other in (here, *neighbours))
    rising = _count(right & below)
    crossings = 2 * points - horizontal - vertical  # each counted on one of two sides
    diagonal = 2 * points - falling - rising
    perimeter = math.pi / 8 * 2 * (crossings + diagonal / math.sqrt(2))
    corners = ((here, right, across), (here, below, across), (here, right, below))
    triangles = sum(_count(a & b & c) for a, b, c in (*corners, (right, below, across)))
    euler = points - horizontal - vertical - (falling + rising) / 2 + triangles / 2
    return torch.stack([points, perimeter, euler], dim=-1)


def _count(members: Tensor) -> Tensor:
    """Return the fraction of the grid's points."""
    return members.sum((-2, -1)).to(torch.float64) / (members.shape[-2] * members.shape[-1])
