"""Solid harmonics of each atom's surroundings: features of a molecule without a grid.

The neighbours of atom i that are of element e are seen through solid harmonic wavelets about i,

    A[i, e, j, l, m] = sum over k != i, Z_k = e of  w(r_ik) g_jl(r_ik) Y_lm(r_ik / |r_ik|),
    g_jl(r) = n_l sigma_j^(-3/2) (r / sigma_j)^l exp(-r^2 / 2 sigma_j^2),
    w(r) = 1 / (1 + (r / reach)^steepness),  sigma_j = sigma 2^(octave j),

with n_l such that the integral of g^2 r^2 is 1; or, with ``radial="shell"``, through shells

    g_j(r) = exp(-(log r - log sigma_j)^2 / 2 s^2),  s = octave log 2,

which tell bonds of 1.3 and 1.5 Angstrom apart, where the widest solid harmonics are all alike. This
pays from some thousand molecules on. The weight w makes near neighbours count most: chemistry
is local, and what is learnt from few molecules depends on that more than on anything else. Sums
over m of products are invariant to rotations and reflections,

    B[i, (e, j), (e', j'), l] = sum over m of  A[i, e, j, l, m] A[i, e', j', l, m],

and so are the A of l = 0 themselves. Their sums over the atoms of each element, and the number of
atoms of each, are extensive: molecules far apart add up. Everything is smooth in
the positions.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from wavemill.devices import BesideDefault
from wavemill.errors import InvalidParameter
from wavemill.molecules.atoms import Molecules, real_solid_harmonics
from wavemill.operators import keep_buffer, summary

Radial = Literal["solid", "shell"]
FIRST = {"solid": 3.0, "shell": 1.0}  # weight of the A themselves in kernels, by validation
SYMBOLS = {1: "H", 6: "C", 7: "N", 8: "O", 9: "F", 16: "S", 17: "Cl"}


class AtomicHarmonics(BesideDefault, nn.Module):
    """Invariants of atom-centred solid harmonics.

    Parameters
    ----------
    elements
        Nuclear charges that may occur, in ascending order.
    sigma
        Width of the narrowest wavelet, or radius of the innermost shell, Angstrom.
    J
        Number of widths: 0.6 to 3.4 Angstrom by default.
    L
        Highest degree l.
    across
        Products are taken of widths at most so many steps apart.
    reach
        Distance, Angstrom, at which a neighbour counts half; infinity for equal weights.
    radial
        ``solid``, the wavelets, or ``shell``.
    octave
        Octaves from one width to the next.
    steepness
        How fast neighbours farther than ``reach`` cease to count.
    dtype
        Precision computed and returned.

    Raises
    ------
    InvalidParameter
        If nothing would be computed.
    """

    _norms: Tensor
    _charges: Tensor
    _place: Tensor

    def __init__(
        self,
        elements: tuple[int, ...] = (1, 6, 7, 8, 9),
        sigma: float = 0.6,
        J: int = 6,
        L: int = 3,
        across: int = 1,
        reach: float = 2.0,
        radial: Radial = "solid",
        octave: float = 0.5,
        steepness: float = 4.0,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        ascending = list(elements) == sorted(set(elements)) and len(elements) > 0
        positive = min(sigma, reach, octave, steepness) > 0
        if not ascending or min(J, L + 1, across + 1) < 1 or not positive:
            raise InvalidParameter(
                f"atomic harmonics: elements {elements} must ascend, {sigma=}, {reach=}, "
                f"{octave=} and {steepness=} be above 0, J={J} at least 1, L={L} and "
                f"across={across} at least 0"
            )
        self.elements, self.L, self.reach, self.dtype = elements, L, reach, dtype
        self.radial, self.octave, self.steepness = radial, octave, steepness
        self.widths: NDArray[np.float64] = sigma * np.exp2(octave * np.arange(J))
        one, other = _products(len(elements), J, across)
        self.pairs = (one, other)
        place = torch.from_numpy(one * len(elements) * J + other)
        keep_buffer(self, "_place", place)
        norms = np.stack([_norms(self.widths, degree) for degree in range(L + 1)])
        norms = np.ones_like(norms) if radial == "shell" else norms
        keep_buffer(self, "_norms", torch.from_numpy(norms).to(dtype))
        keep_buffer(self, "_charges", torch.tensor(elements))

    @property
    def local_size(self) -> int:
        """Number of invariants of one atom."""
        return len(self.elements) * len(self.widths) + (self.L + 1) * len(self._place)

    @property
    def device(self) -> torch.device:
        """The device that it computes on."""
        return self._norms.device

    def kinds(self, charges: Tensor) -> Tensor:
        """Return the place of each charge in ``elements``.

        Raises
        ------
        InvalidParameter
            If a charge is not one of them.
        """
        place = torch.searchsorted(self._charges, charges.contiguous()).clamp(
            max=len(self.elements) - 1
        )
        if bool((strange := self._charges[place] != charges).any()):
            found = sorted(set(charges[strange].tolist()))
            raise InvalidParameter(
                f"atomic harmonics of elements {self.elements} cannot see {found}: name all "
                "elements, as in --set elements=1,6,7,8,9,16"
            )
        return place

    def harmonics(self, molecules: Molecules) -> list[Tensor]:
        """Return A for each degree l: ``(atom, element * J + j, 2 l + 1)``."""
        centre, neighbour, vectors = molecules.separations()
        kind = self.kinds(molecules.charges)
        square = vectors.square().sum(1, keepdim=True)
        widths = torch.from_numpy(self.widths).to(vectors)
        if self.radial == "shell":
            vectors = vectors / square.sqrt()
            steps = torch.log(square / widths**2) / (2 * self.octave * math.log(2))
            decay = torch.exp(-steps.square() / 2)
        else:
            decay = torch.exp(-square / (2 * widths**2))
        decay = decay / (1 + (square / self.reach**2) ** (self.steepness / 2))
        angular = real_solid_harmonics(vectors, self.L)
        place = centre * len(self.elements) + kind[neighbour]
        atoms, E, J = len(kind), len(self.elements), len(self.widths)
        found = []
        for degree in range(self.L + 1):
            radial = decay * self._norms[degree]  # w g_jl / r^l
            block = angular[:, degree**2 : (degree + 1) ** 2]
            values = (radial[:, :, None] * block[:, None, :]).flatten(1)
            sums = values.new_zeros(atoms * E, values.shape[1]).index_add(0, place, values)
            found.append(sums.view(atoms, E * J, 2 * degree + 1))
        return found

    def local(self, molecules: Molecules) -> Tensor:
        """Return the invariants of each atom, ``(atom, local_size)``: A of l = 0, then B by l.

        Raises
        ------
        InvalidParameter
            If two atoms coincide, or the element of one is not in ``elements``.
        """
        sums = self.harmonics(molecules.to(self._norms.device, self.dtype))
        found = [sums[0][:, :, 0]]
        place = self._place
        for harmonics in sums:
            found.append((harmonics @ harmonics.mT).flatten(1).index_select(1, place))
        return torch.cat(found, 1)

    def __repr__(self) -> str:
        return summary(self)

    def forward(self, molecules: Molecules) -> Tensor:
        """Return ``(molecule, coefficient)``: counts, then sums over the atoms of each element."""
        local = self.local(molecules)
        E = len(self.elements)
        kind = self.kinds(molecules.charges.to(local.device))
        place = molecules.owner.to(local.device) * E + kind
        sums = local.new_zeros(len(molecules) * E, local.shape[1]).index_add(0, place, local)
        counts = torch.bincount(place, minlength=len(sums)).view(len(molecules), E)
        return torch.cat([counts.to(local), sums.view(len(molecules), E * local.shape[1])], 1)

    @property
    def metric(self) -> Tensor:
        """Weight of each invariant of an atom in a kernel, ``(local_size,)``.

        A product of two channels stands for both its orders, hence sqrt(2); degrees count by
        their mean over m, and the A themselves `FIRST` times.
        """
        one, other = self.pairs
        twice = np.where(one == other, 1.0, math.sqrt(2))
        first = np.full(len(self.elements) * len(self.widths), FIRST[self.radial])
        products = [twice / math.sqrt(2 * degree + 1) for degree in range(self.L + 1)]
        return torch.from_numpy(np.concatenate([first, *products])).to(self._norms)

    @property
    def coefficients(self) -> dict[str, NDArray[np.generic]]:
        """What each column is: ``order`` 0 counts, 1 sums of A, 2 of B; -1 and "" do not apply."""
        symbols = [_symbol(charge) for charge in self.elements]
        rows: list[tuple[Any, ...]] = [(0, name, "", -1, "", -1, -1) for name in symbols]
        for centre in symbols:
            rows += [(order, centre, *rest) for order, *rest in self._local_rows(symbols)]
        names = ("order", "centre", "element1", "j1", "element2", "j2", "l")
        columns = zip(*rows, strict=True)
        return {name: np.array(column) for name, column in zip(names, columns, strict=True)}

    def _local_rows(self, symbols: list[str]) -> list[tuple[Any, ...]]:
        channels = [(symbol, j) for symbol in symbols for j in range(len(self.widths))]
        rows: list[tuple[Any, ...]] = [(1, *channel, "", -1, 0) for channel in channels]
        couples = list(zip(*self.pairs, strict=True))
        for degree in range(self.L + 1):
            rows += [(2, *channels[a], *channels[b], degree) for a, b in couples]
        return rows

    def memory(self, molecules: int, atoms: int = 30) -> int:
        """Return a bound on the bytes that so many molecules of so many atoms take."""
        itemsize = torch.finfo(self.dtype).bits // 8
        J, E, harmonics = len(self.widths), len(self.elements), (self.L + 1) ** 2
        pairs = molecules * atoms * (atoms - 1) * (harmonics * (J + 2) + 3 * J + 16)
        each = E * J * harmonics + (E * J) ** 2 + 3 * self.local_size
        return itemsize * (pairs + molecules * (atoms * each + E * self.local_size))


def _symbol(charge: int) -> str:
    return SYMBOLS.get(charge, str(charge))


def _norms(widths: NDArray[np.float64], degree: int) -> NDArray[np.float64]:
    """Return ``n_l sigma^(-3/2 - l)``, which makes the integral of ``g^2 r^2`` 1.

    That of ``(r^l exp(-r^2 / 2 sigma^2))^2 r^2`` is ``sigma^(2 l + 3) Gamma(l + 3/2) / 2``.
    """
    return math.sqrt(2 / math.gamma(degree + 1.5)) * widths ** -(degree + 1.5)


def _products(elements: int, J: int, across: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the pairs of channels ``element * J + j`` whose product is taken, each once."""
    channels = elements * J
    one, other = np.triu_indices(channels)
    near = np.abs(one % J - other % J) <= across
    return one[near], other[near]
