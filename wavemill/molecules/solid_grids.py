"""Fields of molecules on grids that are just wide and fine enough for each of them.

A field of Gaussians of width w about atoms reaches ``margin w / 2`` beyond them, which gives the
size of its box, and its spectrum reaches ``band / w``, which gives the spacing of its points.
Nothing is periodic. Fields of the first order are sums over atoms; those of the second are sums
over the points of the first, by one matrix for each axis, from one grid to the other
(:mod:`.solid_gaussians`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Self

import torch
from torch import Tensor

from wavemill.molecules.atoms import Molecules
from wavemill.molecules.solid_gaussians import (
    Shape,
    bells,
    square_about_atoms,
    square_convolved,
    wavelet_of_atom,
)

INNER = 0.8  # part of a margin that the second order is computed from: the rest hardly counts


@dataclass(frozen=True)
class Placed:
    """Molecules side by side.

    Attributes
    ----------
    positions
        ``(molecule, atom, 3)`` in samples, about the middle of each molecule's box.
    weights
        ``(molecule, channel, atom)``; 0 where a molecule has fewer atoms than others.
    """

    positions: Tensor
    weights: Tensor

    @classmethod
    def of(cls, molecules: Molecules, places: Tensor, weights: Tensor, rows: list[int]) -> Self:
        """Return some of the molecules, from places ``(atom, 3)`` and weights ``(atom, channel)``.

        Where a molecule has fewer atoms than others, its first one fills up, with weight 0.
        """
        chosen = torch.tensor(rows, device=places.device)
        first, size = molecules.offsets[chosen, None], molecules.sizes[chosen, None]
        rank = torch.arange(int(size.max()), device=places.device)
        there = rank < size
        atoms = first + rank * there
        return cls(places[atoms], (weights[atoms] * there[..., None]).mT)


@dataclass(frozen=True)
class _Points:
    """Points along an axis of the grids of several molecules.

    Attributes
    ----------
    places
        Their coordinates ``(molecule, point)``, in float64.
    there
        1 where a molecule has a point, 0 where only others have one; None if all have all.
    span
        Which points of the axis these are.
    """

    places: Tensor
    there: Tensor | None
    span: slice

    def only(self, values: Tensor) -> Tensor:
        """Return values ``(..., molecule, other, point)``, 0 where there is no point."""
        return values if self.there is None else values * self.there.to(values)[:, None]


@dataclass(frozen=True)
class Grid:
    """Points about the origin of each molecule: how many along each axis, and how far apart."""

    shapes: list[Shape]
    step: float

    def axis(self, number: int, device: torch.device, inner: Grid | None = None) -> _Points:
        """Return the points along an axis; with ``inner``, only as many in the middle as it has."""
        counts = [shape[number] for shape in self.shapes]
        kept = counts if inner is None else [shape[number] for shape in inner.shapes]
        bounds = [
            ((count - needed) // 2, count - (count - needed) // 2, (count - 1) / 2)
            for count, needed in zip(counts, kept, strict=True)
        ]
        starts, stops, _ = zip(*bounds, strict=True)
        span = slice(min(starts), max(stops))
        first, last, middle = torch.tensor(bounds, dtype=torch.float64, device=device).mT[..., None]
        place = torch.arange(span.start, span.stop, dtype=torch.float64, device=device)
        there = None
        if len({*bounds}) > 1:
            there = ((place >= first) & (place < last)).double()
        return _Points((place - middle) * self.step, there, span)


def counts(extent: Shape, wide: float, narrow: float, margin: float, band: float) -> Shape:
    """Return how many points a grid has along each axis; see `OwnGrids.grid`."""
    step = math.pi * narrow / band
    z, y, x = (math.ceil((length + margin * wide) / step) for length in extent)
    return z, y, x


@dataclass(frozen=True)
class OwnGrids:
    """Fields of molecules, each in a box of its own, and 0 beyond it where others are wider.

    Parameters
    ----------
    placed
        The molecules.
    extents
        How far each of them reaches along each axis.
    width, sigmas
        Of atoms and wavelets.
    L
        Highest degree.
    margin, band
        Space about the atoms, and reach of spectra, for a width of 1.
    """

    placed: Placed
    extents: list[Shape]
    width: float
    sigmas: list[float]
    L: int
    margin: float
    band: float
    _lines: dict[float, tuple[float, list[Tensor]]] = field(default_factory=dict)
    _coarser: dict[tuple[float, float], _Coarse] = field(default_factory=dict)

    def grid(self, wide: float, narrow: float) -> Grid:
        """Return points for a field that reaches as far as Gaussians of the width ``wide``.

        Its spectrum reaches as far as that of Gaussians of the width ``narrow``.
        """
        shapes = [counts(extent, wide, narrow, self.margin, self.band) for extent in self.extents]
        return Grid(shapes, math.pi * narrow / self.band)

    def first(self, sigma: float | None, degree: int) -> tuple[Tensor, float]:
        """Return ``sum over m of |rho * psi_lm|^2``, and the volume of a point; rho^2 if None."""
        width = math.hypot(self.width, sigma or 0.0)
        step, lines = self._about_atoms(width)
        weights = self.placed.weights * wavelet_of_atom(sigma, width, degree)
        return square_about_atoms(weights, lines, degree), step**3

    def second(
        self, modulus: Tensor, sigma: float, degree: int
    ) -> Iterator[tuple[float, Tensor, float]]:
        """Yield each wider wavelet, ``sum over m of |U1 * psi_lm|^2`` and the volume of a point."""
        for wider in self.sigmas[self.sigmas.index(sigma) + 1 :]:
            coarse = self._coarse(sigma, wider)
            inner, factor = _cut(modulus, coarse.spans), wavelet_of_atom(wider, wider, degree)
            square = square_convolved(inner, coarse.axes, degree, factor * coarse.fine_cell)
            yield wider, square, coarse.cell

    def _about_atoms(self, width: float) -> tuple[float, list[Tensor]]:
        """Return the step of a grid, and `bells` of atoms at its points along each axis."""
        if width not in self._lines:
            grid, lines = self.grid(width, width), []
            for number, places in enumerate(self.placed.positions.unbind(-1)):
                points = grid.axis(number, places.device)
                line = bells(points.places.to(places)[:, None] - places[..., None], width, self.L)
                lines.append(points.only(line))
            self._lines[width] = grid.step, lines
        return self._lines[width]

    def _coarse(self, sigma: float, wider: float) -> _Coarse:
        """Return what takes moduli of one scale to the grid of another."""
        if (sigma, wider) not in self._coarser:
            blurred = math.hypot(self.width, sigma)
            fine, inner = self.grid(blurred, blurred), self.grid(INNER * blurred, blurred)
            # a modulus has about the spectrum of the field's square, which is narrower by sqrt(2)
            narrow = math.hypot(wider, blurred / math.sqrt(2))
            grid = self.grid(math.hypot(wider, blurred), narrow)
            axes, spans = [], []
            for number in range(3):
                old = fine.axis(number, self.placed.positions.device, inner)
                new = grid.axis(number, self.placed.positions.device)
                axis = bells(new.places[:, :, None] - old.places[:, None], wider, self.L)
                axis = new.only(old.only(axis).mT).mT
                axes.append(axis.to(self.placed.positions.dtype).contiguous())
                spans.append(old.span)
            self._coarser[sigma, wider] = _Coarse(spans, axes, fine.step**3, grid.step**3)
        return self._coarser[sigma, wider]


@dataclass(frozen=True)
class _Coarse:
    """From the grid of a modulus to that of a wider wavelet.

    Attributes
    ----------
    spans
        The points of each axis that are convolved.
    axes
        `bells` of the distances along each axis, ``(power, molecule, new, old)``.
    fine_cell, cell
        The volume of a point before and after.
    """

    spans: list[slice]
    axes: list[Tensor]
    fine_cell: float
    cell: float


def _cut(modulus: Tensor, spans: list[slice]) -> Tensor:
    z, y, x = spans
    return modulus[..., z, y, x]
