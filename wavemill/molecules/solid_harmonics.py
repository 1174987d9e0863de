"""Solid harmonic scattering of molecules: densities on grids, wavelets, moduli over m, integrals.

A molecule is the density ``rho_c(u) = sum over atoms of w_c(Z) G(u - r)`` in each channel c, with a
Gaussian G of integral 1. With solid harmonic wavelets

    psi_jlm(u) = n_l sigma_j^-3 (r / sigma_j)^l exp(-r^2 / 2 sigma_j^2) Y_lm(u / r),
    sigma_j = sigma 2^j,  j = 0..J,

where n_l makes the integral of ``(sum over m of |psi_jlm|^2)^(1/2)`` 1, the coefficients are

    order 0: integral of rho^q
    order 1: integral of U1^q,  U1[j, l] = (sum over m of |rho * psi_jlm|^2)^(1/2)
    order 2: integral of U2^q,  U2[j1, j2, l] = (sum over m of |U1[j1, l] * psi_j2lm|^2)^(1/2)

for j2 > j1

(Eickenberg et al., J. Chem. Phys. 148, 241732, 2018). They are invariant, to rounding, to
translations by whole samples, quarter turns and reflections, and to other motions as well as the
grid resolves.

Each field has a grid of its own, as wide and as fine as it needs (:mod:`.solid_grids`). Full grids
(``band=None``) are periodic, have one point a sample for all fields, and use Fourier transforms at
both orders: that is Kymatio's transform (:mod:`.solid_filters`). Gradients are those in a fixed
box, although atoms at its sides move it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from wavemill import kernels
from wavemill.devices import BesideDefault
from wavemill.errors import InvalidParameter
from wavemill.molecules.atoms import Molecules
from wavemill.molecules.solid_filters import FullGrids, fast
from wavemill.molecules.solid_gaussians import Shape
from wavemill.molecules.solid_grids import OwnGrids, Placed, counts
from wavemill.operators import keep_buffer, summary

NOBLE = (0, 2, 10, 18, 36, 54, 86, 118)
NOISE = 0.5  # rounding units of the largest value, below which a transform gives only noise
CUSP = 64  # rounding units of nearby values, below which a field's root is taken for a cusp
COARSE = 4  # samples, to which extents are rounded up
MOST = 16 * 2**30  # bytes that the grids of one molecule may take
BATCH = {"cpu": 2**15, "cuda": 2**22}  # points of the grids of a batch; a core has small caches


def valence(charges: Tensor) -> Tensor:
    """Return the electrons outside the closed shells below; all of them for H and He."""
    shells = torch.tensor(NOBLE[1:], device=charges.device)
    below = torch.tensor(NOBLE, device=charges.device)[torch.searchsorted(shells, charges)]
    return charges - below


CHANNELS: dict[str, Callable[[Tensor], Tensor]] = {
    "full": lambda charges: charges,
    "valence": valence,
    "core": lambda charges: charges - valence(charges),
    "atoms": torch.ones_like,
}


class SolidHarmonicScattering(BesideDefault, nn.Module):
    """Solid harmonic scattering coefficients of orders 0 to 2, summed over space.

    Parameters
    ----------
    J, L
        Largest scale j (there are J + 1) and highest degree l.
    powers
        Exponents q of the integrals.
    sigma
        Width of the wavelets of scale 0, samples.
    width
        Width of the Gaussian of an atom, samples.
    resolution
        Samples in an Angstrom: one number for a whole data set.
    channels
        Names in `CHANNELS`; to add one, put a function of nuclear charges there.
    margin
        Empty space beyond the atoms, both sides together, in widths of a field: 10 for 1e-4 at
        q = 1/2. Full grids have the margin of the widest field.
    band
        Spectra are resolved up to ``band / width``; None for full grids.
    dtype
        Precision of fields; integrals are summed in float64 and returned in this precision.

    Raises
    ------
    InvalidParameter
        If a number is outside its range or a channel is unknown.
    """

    def __init__(
        self,
        J: int = 2,
        L: int = 3,
        powers: tuple[float, ...] = (0.5, 1.0, 2.0, 3.0),
        sigma: float = 1.0,
        width: float = 2.0,
        resolution: float = 8.0,
        channels: tuple[str, ...] = ("full", "valence", "core"),
        margin: float = 10.0,
        band: float | None = 5.0,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        lengths = (sigma, width, resolution, margin, *powers)
        if min(J, L) < 0 or not powers or not min(lengths) > 0 or not channels:
            raise InvalidParameter(
                f"solid harmonics: J={J} and L={L} must not be below 0, {powers=}, {sigma=}, "
                f"{width=}, {resolution=} and {margin=} must be above 0"
            )
        if unknown := set(channels) - set(CHANNELS):
            raise InvalidParameter(
                f"no channels {sorted(unknown)}: there are {', '.join(CHANNELS)}"
            )
        self.J, self.L, self.powers, self.channels = J, L, powers, channels
        self.sigmas = [sigma * 2**j for j in range(J + 1)]
        self.width, self.resolution, self.margin = width, resolution, margin
        self.band, self.dtype = band, dtype
        keep_buffer(self, "_here", torch.zeros(0, dtype=dtype))

    _here: Tensor

    @property
    def paths(self) -> list[tuple[int, ...]]:
        """Scales of each coefficient: (), (j1), (j1, j2)."""
        scales = range(self.J + 1)
        return [(), *((j,) for j in scales), *((i, j) for i in scales for j in scales if j > i)]

    @property
    def coefficients(self) -> dict[str, NDArray[np.generic]]:
        """What each column is; -1 does not apply."""
        rows = [
            (len(path), channel, *(*path, -1, -1)[:2], degree, power)
            for channel in self.channels
            for path in self.paths
            for degree in (range(self.L + 1) if path else (-1,))
            for power in self.powers
        ]
        names = ("order", "channel", "j1", "j2", "l", "power")
        columns = zip(*rows, strict=True)
        return {name: np.array(column) for name, column in zip(names, columns, strict=True)}

    def memory(self, molecules: int, extent: float = 80.0) -> int:
        """Return a bound on the bytes that a batch of molecules of ``extent`` samples takes."""
        points = math.prod(self.finest(self.box([extent] * 3)))
        return self._bytes(max(points, min(molecules * points, self._most)))

    def _bytes(self, points: int) -> int:
        itemsize, degrees = torch.finfo(self.dtype).bits // 8, self.L + 1
        each = 2 * degrees * (degrees + 1) + 4 * degrees  # three times monomials, lines, fields
        return itemsize * len(self.channels) * each * points

    @property
    def _most(self) -> int:
        """Points of the grids of a batch."""
        return BATCH.get(self._here.device.type, BATCH["cpu"])

    def __repr__(self) -> str:
        return summary(self, "channels")

    def forward(self, molecules: Molecules) -> Tensor:
        """Return ``(molecule, coefficient)``; see `coefficients`.

        Raises
        ------
        InvalidParameter
            If two atoms coincide, or a molecule is so wide that its grids take too much memory.
        """
        molecules = molecules.to(self._here.device, self.dtype)
        molecules.separations()  # refuses coincident atoms
        weights = torch.stack([CHANNELS[name](molecules.charges) for name in self.channels], 1)
        places, extents = self._centred(molecules)
        boxes = [self.box(extent) for extent in extents.tolist()]
        found = [self._here.new_zeros(0, len(self.coefficients["order"]))]
        order: list[int] = []
        for rows in self._batches(boxes):
            placed = Placed.of(molecules, places, weights.to(places), rows)
            found.append(self.integrals(placed, [boxes[row] for row in rows]).flatten(1))
            order += rows
        return torch.cat(found)[torch.argsort(torch.tensor(order, dtype=torch.long))]

    def _centred(self, molecules: Molecules) -> tuple[Tensor, Tensor]:
        """Return places in samples about each molecule's middle, and extents ``(molecule, 3)``.

        The longest axis comes last, so that boxes have few shapes.
        """
        owner, held = molecules.owner[:, None].expand(-1, 3), molecules.positions.detach()
        room = held.new_zeros(len(molecules), 3)
        high = room.scatter_reduce(0, owner, held, "amax", include_self=False)
        low = room.scatter_reduce(0, owner, held, "amin", include_self=False)
        axes = torch.argsort(high - low, stable=True)[molecules.owner]
        middle = ((high + low) / 2)[molecules.owner]
        places = ((molecules.positions - middle) * self.resolution).gather(1, axes)
        reach = room.scatter_reduce(0, owner, places.detach().abs(), "amax", include_self=False)
        return places, 2 * reach

    def _batches(self, boxes: list[Shape]) -> Iterator[list[int]]:
        """Yield the molecules of each batch: of about one size or, on full grids, of one box.

        Raises
        ------
        InvalidParameter
            If the grids of a molecule would take too much memory.
        """
        shapes = [self.finest(box) for box in boxes]
        for row, (box, shape) in enumerate(zip(boxes, shapes, strict=True)):
            if (needed := self._bytes(math.prod(shape))) > MOST:
                angstrom = " x ".join(f"{side / self.resolution:.0f}" for side in box)
                raise InvalidParameter(
                    f"molecule {row} needs a box of {angstrom} Angstrom, whose grids take "
                    f"{needed / 2**30:.0f} GiB, of {MOST / 2**30:.0f} at most: leave it out, lower "
                    "the resolution, or choose atomic harmonics, which have no grids"
                )
        batch: list[int] = []
        sides: list[int] = []
        for row in sorted(range(len(boxes)), key=lambda row: shapes[row][::-1], reverse=True):
            wider = list(map(max, sides or shapes[row], shapes[row]))
            fits = (len(batch) + 1) * math.prod(wider) <= self._most
            alike = self.band is not None or not batch or shapes[row] == shapes[batch[0]]
            if batch and not (fits and alike):
                yield batch
                batch, wider = [], list(shapes[row])
            batch, sides = [*batch, row], wider
        if batch:
            yield batch

    def box(self, extent: list[float]) -> Shape:
        """Return an extent, rounded up to be shared, or the sides of a periodic box; in samples."""
        if self.band is not None:
            z, y, x = (COARSE * math.ceil(length / COARSE) for length in extent)
        else:
            margin = self.margin * math.hypot(self.width, self.sigmas[-1])
            z, y, x = (fast(math.ceil(length + margin)) for length in extent)
        return z, y, x

    def finest(self, box: Shape) -> Shape:
        """Return how many points the finest grid of a box has along each axis."""
        if self.band is None:
            return box
        return counts(box, self.width, self.width, self.margin, self.band)

    def integrals(self, placed: Placed, boxes: list[Shape]) -> Tensor:
        """Return ``(molecule, channel, coefficient)`` of a batch.

        Parameters
        ----------
        placed
            The molecules.
        boxes
            See `box`; on full grids all the same.
        """
        fields = self.fields(placed, boxes)
        density = self._roots_and_integrals(*fields.first(None, 0))[1]
        found: dict[tuple[int, ...], list[Tensor]] = {(): [density]}
        for j, sigma in enumerate(self.sigmas):
            for degree in range(self.L + 1):
                square, cell = fields.first(sigma, degree)
                square = self._without_noisy_gradients(square)
                modulus, sums = self._roots_and_integrals(square, cell)
                found.setdefault((j,), []).append(sums)
                for wider, second, coarse in fields.second(modulus, sigma, degree):
                    path = (j, self.sigmas.index(wider))
                    second = self._without_noisy_gradients(second)
                    sums = self._roots_and_integrals(second, coarse)[1]
                    found.setdefault(path, []).append(sums)
        return torch.cat([torch.cat(found[path], -1) for path in self.paths], -1)

    def fields(self, placed: Placed, boxes: list[Shape]) -> OwnGrids | FullGrids:
        """Return what computes the fields of a batch."""
        if self.band is None:
            return FullGrids(placed, boxes[0], self.width, self.sigmas, self.L)
        return OwnGrids(placed, boxes, self.width, self.sigmas, self.L, self.margin, self.band)

    def _without_noisy_gradients(self, square: Tensor) -> Tensor:
        """Return the same squares, whose gradient is 0 where their root is a cusp.

        In symmetric molecules fields vanish at single points and on lines and planes, but for
        rounding. Gradients of roots grow towards 0: there they would be those of rounding errors.
        """
        if not square.requires_grad:
            return square
        held = square.detach()
        near = (
            held.amax((-3, -2, -1), keepdim=True)  # rounding of a transform is everywhere
            if self.band is None
            else nn.functional.max_pool3d(held, 3, stride=1, padding=1)
        )
        noise = held <= (CUSP * torch.finfo(held.dtype).eps) ** 2 * near
        return torch.where(noise, held, square)

    def _roots_and_integrals(self, square: Tensor, cell: float) -> tuple[Tensor, Tensor]:
        """Return the roots, and the integrals of their powers, ``(..., power)``, summed in float64.

        On full grids, values below `NOISE` units of the largest count as 0: they are noise of the
        transforms, and their roots would add up over empty space.
        """
        if self.band is None:
            floor = NOISE * torch.finfo(square.dtype).eps
            least = floor**2 * square.detach().amax((-3, -2, -1), keepdim=True)
            square = square * (square > least)
        if (made := kernels.integrals(square, self.powers)) is not None:
            roots, sums = made
        else:
            roots = _root(square)
            sheets = [_power(roots, square, q).flatten(-2).sum(-1) for q in self.powers]
            sums = torch.stack([sheet.sum(-1, dtype=torch.float64) for sheet in sheets], -1)
        return roots, (sums * cell).to(self.dtype)


def _power(modulus: Tensor, square: Tensor, q: float) -> Tensor:
    """Return the power of a modulus whose square is known; ``pow`` is slow."""
    match q:
        case 0.5:
            return modulus.sqrt()
        case 1.0:
            return modulus
        case 2.0:
            return square
        case 3.0:
            return modulus * square
    return torch.pow(modulus, q) * (square > 0)  # a low power of nearly 0 is not


def _root(square: Tensor) -> Tensor:
    """Return the root; its gradient at 0 is 0."""
    return square.clamp(min=torch.finfo(square.dtype).tiny).sqrt()
