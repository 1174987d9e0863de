"""Molecules as flat arrays of atoms, and the real solid harmonics of vectors.

Positions are in Angstrom. A batch of molecules of any sizes is one flat array of atoms with the
offsets at which molecules begin, so that no work goes into padding.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from wavemill.devices import BesideDefault, beside_default
from wavemill.errors import InvalidParameter

CLOSEST = 0.1  # Angstrom; half a bond of the lightest elements is 0.3


@dataclass(frozen=True)
class Molecules(BesideDefault):
    """A batch of molecules.

    Parameters
    ----------
    positions
        ``(atom, 3)`` in Angstrom, real; gradients flow into it.
    charges
        ``(atom,)`` nuclear charges, integers from 1.
    offsets
        ``(molecule + 1,)``: molecule i has the atoms ``offsets[i]:offsets[i + 1]``.

    Raises
    ------
    InvalidParameter
        If the arrays do not fit together.
    """

    positions: Tensor
    charges: Tensor
    offsets: Tensor

    def __post_init__(self) -> None:
        atoms = len(self.charges)
        good = self.positions.shape == (atoms, 3) and self.offsets.ndim == 1
        if not good or not len(self.offsets) or int(self.offsets[-1]) != atoms:
            raise InvalidParameter(
                f"molecules: positions {tuple(self.positions.shape)}, charges "
                f"{tuple(self.charges.shape)} and offsets {tuple(self.offsets.shape)} do not fit "
                "together: (atom, 3), (atom,), (molecule + 1,) ending at the number of atoms"
            )

    @classmethod
    def of(cls, molecules: Sequence[tuple[Tensor, Tensor]]) -> Molecules:
        """Join one molecule or more, each ``(positions, charges)``."""
        sizes = torch.tensor([0, *(len(charges) for _, charges in molecules)])
        positions, charges = zip(*molecules, strict=True)
        return cls(torch.cat(positions), torch.cat(charges), sizes.cumsum(0))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, rows: slice) -> Molecules:
        """Return consecutive molecules."""
        if not isinstance(rows, slice):
            raise InvalidParameter(f"molecules: a slice is expected, as in [0:1], not {rows!r}")
        start, stop, step = rows.indices(len(self))
        if step != 1:
            raise InvalidParameter(f"molecules: a slice in steps of {step}; only 1 is flat")
        stop = max(start, stop)
        first, last = int(self.offsets[start]), int(self.offsets[stop])
        offsets = self.offsets[start : stop + 1] - first
        return Molecules(self.positions[first:last], self.charges[first:last], offsets)

    def alone(self) -> tuple[Tensor, Tensor]:
        """Return positions and charges, without the bounds of molecules."""
        return self.positions, self.charges

    def to(self, device: torch.device | str, dtype: torch.dtype) -> Molecules:
        """Return the batch on a device, positions in ``dtype``."""
        return Molecules(
            self.positions.to(device, dtype), self.charges.to(device), self.offsets.to(device)
        )

    @property
    def sizes(self) -> Tensor:
        """Atoms of each molecule."""
        return self.offsets.diff()

    @property
    def owner(self) -> Tensor:
        """The molecule that each atom belongs to."""
        return torch.repeat_interleave(self.sizes)

    def pairs(self) -> tuple[Tensor, Tensor]:
        """Return centres and neighbours ``(pair,)``, each ordered pair of atoms of a molecule."""
        others = self.sizes[self.owner] - 1
        centre = torch.repeat_interleave(others)
        begin = torch.cumsum(others, 0) - others
        rank = torch.arange(len(centre), device=centre.device) - begin[centre]
        start = self.offsets[:-1][self.owner][centre]
        return centre, start + rank + (rank >= centre - start)

    def separations(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return centres, neighbours and vectors from one to the other ``(pair, 3)``.

        Raises
        ------
        InvalidParameter
            If two atoms coincide.
        """
        centre, neighbour = self.pairs()
        vectors = self.positions[neighbour] - self.positions[centre]
        squares = vectors.detach().square().sum(1)
        if len(squares) and not bool(squares.min() > CLOSEST**2):  # NaN is refused, too
            pair = int(squares.nan_to_num(0).argmin())
            molecule = int(self.owner[centre[pair]])
            raise InvalidParameter(
                f"molecule {molecule}: two atoms are {float(squares[pair]) ** 0.5:.3g} Angstrom "
                f"apart, at {self.positions[centre[pair]].tolist()}; below {CLOSEST} they coincide"
            )
        return centre, neighbour, vectors


@beside_default
def real_solid_harmonics(vectors: Tensor, L: int) -> Tensor:
    """Return the real solid harmonics ``r^l Y_lm``, ``(..., (L + 1)^2)``.

    Column ``l^2 + l + m`` holds degree l and order m = -l..l: orthonormal on the sphere, cosine
    for m >= 0 and sine for m < 0. They are polynomials, hence smooth at the origin:
    ``r^l Y_lm = N_lm P_lm(z, r^2) Re or Im (x + i y)^|m|`` with the recursion
    ``(l - m) P_lm = (2 l - 1) z P_(l-1)m - (l + m - 1) r^2 P_(l-2)m``, ``P_mm = (2 m - 1)!!``.

    Parameters
    ----------
    vectors
        ``(..., 3)``: x, y, z.
    L
        Highest degree.
    """
    x, y, z = vectors.unbind(-1)
    square = x * x + y * y + z * z
    columns: list[Tensor] = [x] * (L + 1) ** 2
    cosine, sine = torch.ones_like(x), torch.zeros_like(x)
    for m in range(L + 1):
        if m:
            cosine, sine = x * cosine - y * sine, x * sine + y * cosine
        before, current = torch.zeros_like(x), torch.full_like(x, _double_factorial(2 * m - 1))
        for degree in range(m, L + 1):
            factor = _harmonic_norm(degree, m)
            columns[degree * degree + degree + m] = factor * current * cosine
            if m:
                columns[degree * degree + degree - m] = factor * current * sine
            following = (2 * degree + 1) * z * current - (degree + m) * square * before
            before, current = current, following / (degree + 1 - m)
    return torch.stack(columns, -1)


def _harmonic_norm(degree: int, m: int) -> float:
    ratio = math.factorial(degree - m) / math.factorial(degree + m)
    return math.sqrt((2 * degree + 1) / (4 * math.pi) * ratio * (2 if m else 1))


def _double_factorial(n: int) -> float:
    return float(math.prod(range(n, 0, -2)))
