"""Regression on products of the invariants of each atom.

Let x be the normalised invariants of an atom of element e, in the principal components of that
element, whose variances are lambda_i. The polynomial kernel is a sum over monomials F of at most
``degree`` factors,

    (1 + <x, y> / spread)^degree = sum over F of  c_F^2  prod over i in F of x_i  prod of y_i,

so that ridge regression on the features ``c_F prod x_i`` is kernel regression. The ``products``
features of greatest expected square, ``c_F^2 prod lambda_i`` times the share of the element, are
kept. They are nearly orthogonal, whereas likenesses to random atoms are all alike: the same number
of them says far more. Bilinear and trilinear forms of *sums* over atoms are not extensive; these
are.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wavemill.errors import InvalidParameter
from wavemill.molecules.atomic_harmonics import AtomicHarmonics
from wavemill.molecules.atomic_regression import AtomicRegression
from wavemill.molecules.atoms import Molecules

SPREAD = 2.0  # for invariants of norm 1: about 1 + the square of their mean
ATOMS = 2000  # of an element at most, for its principal components
COMPONENTS = 400
OVERSAMPLED = 32
NEGLIGIBLE = 1e-10  # part of the variance; single precision resolves no less
SMALLEST = 1e-4  # variance, of rows of norm 1: 1e-10 of it is single precision's rounding


class AtomicProducts(AtomicRegression):
    """Regression on monomials of the principal components of an atom's invariants.

    Parameters
    ----------
    transform
        Gives the invariants of each atom.
    products
        How many monomials are kept, of all elements.
    degree
        Most factors of a monomial.
    alpha
        The penalty; None to choose among `ALPHAS` by a tenth of the molecules.
    seed
        Seed of the search for principal components.
    """

    ALPHAS = tuple(10.0**power for power in range(-13, -4))
    NAMES = ("means", "axes", "kinds", "factors", "strengths", "weights")

    def __init__(
        self,
        transform: AtomicHarmonics,
        products: int = 12000,
        degree: int = 2,
        alpha: float | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(transform, alpha, seed)
        if products < 1 or degree < 1:
            raise InvalidParameter(f"products: {products=} and {degree=} must be above 0")
        self.products, self.degree = products, degree

    def choose(self, molecules: Molecules) -> None:
        """Find the principal components of each element, and the monomials to keep."""
        kinds = self.kinds(molecules).cpu()
        generator = torch.Generator().manual_seed(self.seed)
        weight = self.transform.metric
        self.means_ = weight.new_zeros(len(self.transform.elements), len(weight))
        found, components = [], {}
        for kind in range(len(self.means_)):
            atoms = (kinds == kind).nonzero()[:, 0]
            if len(atoms) < 2:  # of a single atom the composition says all there is to say
                continue
            rows = self.seen(molecules, atoms[:ATOMS]).double()
            self.means_[kind] = rows.mean(0)
            axes, variances = principal(rows - rows.mean(0), COMPONENTS, generator)
            components[kind] = (axes / math.sqrt(SPREAD)).to(weight)
            kept = monomials(variances.cpu().numpy() / SPREAD, self.degree, self.products)
            share = len(atoms) / len(kinds)
            found.append((np.full(len(kept[0]), kind), *kept[:2], share * kept[2]))
        if not sum(len(owners) for owners, *_ in found):
            raise InvalidParameter("products: no two atoms of an element differ; add molecules")
        most = max(axes.shape[1] for axes in components.values())
        self.axes_ = weight.new_zeros(*self.means_.shape, most)
        for kind, axes in components.items():
            self.axes_[kind, :, : axes.shape[1]] = axes
        owners, factors, multiple, square = map(np.concatenate, zip(*found, strict=True))
        best = np.sort(np.argsort(-square, kind="stable")[: self.products])
        self.kinds_ = torch.from_numpy(owners[best]).to(weight.device)
        self.factors_ = torch.from_numpy(factors[best]).to(weight.device)
        self.strengths_ = torch.from_numpy(np.sqrt(multiple[best])).to(weight)

    @property
    def size(self) -> int:
        """Number of monomials kept."""
        return len(self.kinds_)

    def features(self, atoms: Tensor, kind: int) -> Tensor:
        """Return the monomials of the element."""
        theirs = self.kinds_ == kind
        components = (atoms - self.means_[kind]) @ self.axes_[kind]
        return self._products(components, self.factors_[theirs]) * self.strengths_[theirs]

    def _products(self, components: Tensor, factors: Tensor) -> Tensor:
        """Return products of the components that ``factors`` lists, counted from 1; 0 is none."""
        x = torch.cat([components.new_ones(len(components), 1), components], 1)
        values = x.index_select(1, factors[:, 0])
        for column in factors.T[1:]:
            values *= x.index_select(1, column)
        return values

    def penalty(self) -> None:
        """Return None, which stands for the unit matrix."""


def principal(rows: Tensor, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return the principal axes ``(column, axis)`` of centred rows of norm 1 and their variances.

    By subspace iteration from random vectors (N. Halko, P. G. Martinsson, J. A. Tropp, SIAM Review
    53, 2011); axes of negligible variance are left out.
    """
    guess = torch.randn(
        rows.shape[1], min(count + OVERSAMPLED, *rows.shape), generator=generator, dtype=rows.dtype
    )
    basis = torch.linalg.qr(rows @ guess.to(rows.device)).Q
    for _ in range(2):
        basis = torch.linalg.qr(rows @ (rows.T @ basis)).Q
    _, values, axes = torch.linalg.svd(basis.T @ rows, full_matrices=False)
    variances = values.square() / len(rows)
    least = NEGLIGIBLE * variances.sum().clamp(min=SMALLEST)
    kept = int((variances > least).sum().clamp(max=count))
    return axes[:kept].T, variances[:kept]


def monomials(
    variances: NDArray[np.float64], degree: int, limit: int
) -> tuple[NDArray[np.intp], NDArray[np.float64], NDArray[np.float64]]:
    """Return the monomials of greatest expected square, ``limit`` of each degree at most.

    Returns
    -------
    factors
        ``(monomial, degree)``: the components multiplied, counted from 1; 0 is none.
    multiple
        How often the monomial occurs in ``(1 + sum of x_i)^degree``.
    square
        That, times the product of variances.
    """
    grown, square, found = np.zeros((1, 0), np.intp), np.ones(1), []
    for factors in range(1, degree + 1):
        first = grown[:, -1] if factors > 1 else np.zeros(1, np.intp)
        rows = np.repeat(np.arange(len(grown)), len(variances) - first)
        last = _from_each(first, len(variances))
        square = square[rows] * variances[last]
        kept = np.argsort(-square, kind="stable")[: limit * math.factorial(factors)]
        grown, square = np.column_stack([grown[rows[kept]], last[kept]]), square[kept]
        multiple = _multiple(grown, degree)
        best = np.argsort(-multiple * square, kind="stable")[:limit]
        padded = np.pad(grown[best] + 1, ((0, 0), (0, degree - factors)))
        found.append((padded, multiple[best], multiple[best] * square[best]))
    names, multiples, squares = zip(*found, strict=True)
    return np.concatenate(names), np.concatenate(multiples), np.concatenate(squares)


def _from_each(first: NDArray[np.intp], stop: int) -> NDArray[np.intp]:
    """Return ``first[0] .. stop - 1``, then ``first[1] .. stop - 1``, and so on."""
    counts = stop - first
    begin = np.cumsum(counts) - counts
    places: NDArray[np.intp] = np.arange(counts.sum()) + np.repeat(first - begin, counts)
    return places


def _multiple(grown: NDArray[np.intp], degree: int) -> NDArray[np.float64]:
    """Return ``degree! / (degree - d)! / product of the factorials of equal factors``."""
    factors = grown.shape[1]
    run, repeats = np.ones(len(grown)), np.ones(len(grown))
    for place in range(1, factors):
        run = np.where(grown[:, place] == grown[:, place - 1], run + 1, 1)
        repeats *= run
    ways: NDArray[np.float64] = math.perm(degree, factors) / repeats
    return ways
