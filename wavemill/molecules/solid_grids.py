"""Fields of molecules on grids that are just wide and fine enough for each of them.

A field of Gaussians of width w about atoms reaches ``margin w / 2`` beyond them, and its spectrum
``band / w``: so wide is its box, so near are its points. Nothing is periodic. Of the first order
fields are sums over atoms; those of the second are sums over the points of the first, one matrix
an axis from one grid to the other (:mod:`.solid_gaussians`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from wavemill.molecules.solid_gaussians import (
    Shape,
    bells,
    square_about_atoms,
    square_convolved,
    wavelet_of_atom,
)

Placed = list[tuple[Tensor, Tensor]]
INNER = 0.8  # of a margin: what is beyond hardly reaches where fields of the second order end
COARSE = 4  # samples; molecules whose extents are alike but for that share grids


@dataclass(frozen=True)
class Grid:
    """Points about the origin: how many along each axis, and the step from one to the next."""

    counts: Shape
    step: float

    @property
    def axes(self) -> list[Tensor]:
        """Coordinates along each axis, in float64."""
        ranges = [torch.arange(count, dtype=torch.float64) for count in self.counts]
        return [(along - (len(along) - 1) / 2) * self.step for along in ranges]


@dataclass(frozen=True)
class OwnGrids:
    """Fields of molecules of one extent.

    Parameters
    ----------
    placed
        Of each molecule, positions ``(atom, 3)`` about the origin and weights ``(channel, atom)``.
    extent
        How far all of them reach along each axis.
    width, sigmas
        Of atoms and wavelets.
    margin, band
        Space about the atoms, and reach of spectra, for a width of 1.
    """

    placed: Placed
    extent: Shape
    width: float
    sigmas: list[float]
    margin: float
    band: float

    def grid(self, wide: float, narrow: float) -> Grid:
        """Return points for a field that reaches as far as Gaussians of one width.

        Its spectrum is that of Gaussians of another.
        """
        step = math.pi * narrow / self.band
        z, y, x = (math.ceil((length + self.margin * wide) / step) for length in self.extent)
        return Grid((z, y, x), step)

    def first(self, sigma: float | None, degree: int) -> tuple[Tensor, float]:
        """Return ``sum over m of |rho * psi_lm|^2``, and the volume of a point; rho^2 for None."""
        width = math.hypot(self.width, sigma or 0.0)
        grid, factor = self.grid(width, width), wavelet_of_atom(sigma, width, degree)
        axes = [axis.to(self.placed[0][0]) for axis in grid.axes]
        squares = [square_about_atoms(*atoms, axes, width, degree) for atoms in self.placed]
        return torch.stack(squares) * factor**2, grid.step**3

    def second(
        self, modulus: Tensor, sigma: float, degree: int
    ) -> Iterator[tuple[float, Tensor, float]]:
        """Yield each wider wavelet, ``sum over m of |U1 * psi_lm|^2`` and the volume of a point."""
        blurred = math.hypot(self.width, sigma)
        modulus, held = _inner(modulus, self.grid(INNER * blurred, blurred))
        for wider in self.sigmas[self.sigmas.index(sigma) + 1 :]:
            # a modulus has about the spectrum of the field's square, narrower by sqrt(2)
            narrow = math.hypot(wider, blurred / math.sqrt(2))
            grid = self.grid(math.hypot(wider, blurred), narrow)
            pairs = zip(grid.axes, held.axes, strict=True)
            axes = [bells(new[:, None] - old, wider, degree).to(modulus) for new, old in pairs]
            square = square_convolved(modulus.flatten(0, 1), axes, degree)
            factor = wavelet_of_atom(wider, wider, degree) * held.step**3
            yield wider, square.view(*modulus.shape[:2], *grid.counts) * factor**2, grid.step**3


def _inner(field: Tensor, grid: Grid) -> tuple[Tensor, Grid]:
    """Return the points of a field that a grid about its middle needs, and their grid."""
    sides = enumerate(zip(field.shape[-3:], grid.counts, strict=True), -3)
    for axis, (count, needed) in sides:
        beyond = (count - needed) // 2
        field = field.narrow(axis, beyond, count - 2 * beyond)
    z, y, x = field.shape[-3:]
    return field, Grid((z, y, x), grid.step)
