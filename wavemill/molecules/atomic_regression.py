"""Regression of an extensive number of molecules on the surroundings of their atoms.

What is learnt is a sum over atoms, hence extensive,

    f(molecule) = sum over e of beta_e n_e + sum over atoms a of  <w, phi(a)>,

of features phi of an atom's invariants: likenesses to landmarks (:mod:`.atomic_kernel`) or
products (:mod:`.atomic_products`). With F the sums of phi over the atoms of a molecule, w
minimises ``|y - F w|^2 + alpha n w^T P w``. What is held is ``F^T F`` or, with fewer
molecules than features, F itself and ``F F^T``: memory is bounded by the number of features.
"""

from __future__ import annotations

import abc
from collections.abc import Iterator
from typing import ClassVar, Self

import torch
from torch import Tensor

from wavemill.estimators import Estimator
from wavemill.molecules.atomic_harmonics import AtomicHarmonics
from wavemill.molecules.atoms import Molecules
from wavemill.molecules.regression import Composition, learnt, penalised
from wavemill.operators import Numbers, as_tensor
from wavemill.progress import Progress

TOGETHER = 128  # molecules whose atoms are seen at a time
BLOCK = 1024  # molecules whose sums are added at a time
COLUMNS = 1024  # of F, multiplied at a time: F^T F is computed only up to its diagonal


class AtomicRegression(Estimator, abc.ABC):
    """What regressions on sums over atoms share.

    Parameters
    ----------
    transform
        Gives the invariants of each atom, on its device.
    alpha
        The penalty; None to choose among `ALPHAS` by a tenth of the molecules.
    seed
        Seed of what is drawn.
    """

    ALPHAS: ClassVar[tuple[float, ...]]
    NAMES: ClassVar[tuple[str, ...]]
    """What is learnt, beside the composition; `weights` are among it."""

    def __init__(self, transform: AtomicHarmonics, alpha: float | None, seed: int) -> None:
        self.transform, self.alpha, self.seed = transform, alpha, seed

    @abc.abstractmethod
    def choose(self, molecules: Molecules) -> None:
        """Fix the features, given the molecules to learn from."""

    @property
    @abc.abstractmethod
    def size(self) -> int:
        """Number of features."""

    @abc.abstractmethod
    def features(self, atoms: Tensor, kind: int) -> Tensor:
        """Return phi of one element's atoms from normalised invariants ``(atom, local_size)``.

        ``(atom, some)``: only those features that can differ from 0 for the element. Those of all
        elements, one after the other, are `size` features.
        """

    @abc.abstractmethod
    def penalty(self) -> Tensor | None:
        """Return P, ``(size, size)`` in float64; None if it is the unit matrix."""

    def fit(self, molecules: Molecules, y: Numbers, progress: Progress | None = None) -> Self:
        """Learn from molecules in random order and y ``(molecule,)``."""
        self.choose(molecules)
        counts, y = self.counts(molecules), as_tensor(y)
        self.composition_ = Composition(counts.shape[1]).fit(counts, y)
        rest = y.to(counts) - self.composition_.predict(counts)
        count = len(molecules) - max(1, len(molecules) // 10)
        learning: Equations
        if (penalty := self.penalty()) is None and len(molecules) < self.size:
            learning = DualEquations()
        else:
            learning = NormalEquations(self.size, penalty)
        for rows, part in self.blocks(molecules[:count]):
            learning.add(part, rest[rows])
            if progress is not None:
                progress(rows.stop, len(molecules), {})
        validating = torch.cat([part for _, part in self.blocks(molecules[count:])])
        self.alpha_ = (
            self.validated(learning, validating, rest[count:], progress)
            if self.alpha is None
            else self.alpha
        )
        learning.add(validating, rest[count:])
        self.weights_ = learning.weights(self.alpha_)
        return self

    def validated(
        self, learning: Equations, rows: Tensor, rest: Tensor, progress: Progress | None = None
    ) -> float:
        """Return the penalty of least mean absolute error on molecules that ``learning`` lacks.

        It is sought from the middle of `ALPHAS` while errors fall, since each costs a solution.
        """
        exact = rows.double()
        errors: dict[int, float] = {}

        def error(place: int) -> float:
            if place not in errors:
                found = exact @ learning.weights(self.ALPHAS[place])
                errors[place] = float((found - rest).abs().mean())
                if progress is not None:
                    progress(learning.count, learning.count + len(rest), {"error": errors[place]})
            return errors[place]

        best = len(self.ALPHAS) // 2
        for step in (-1, 1):
            while 0 <= best + step < len(self.ALPHAS) and error(best + step) < error(best):
                best += step
        return self.ALPHAS[best]

    def blocks(self, molecules: Molecules) -> Iterator[tuple[slice, Tensor]]:
        """Yield F of up to `BLOCK` molecules at a time."""
        for start in range(0, len(molecules), BLOCK):
            rows = slice(start, min(start + BLOCK, len(molecules)))
            bounds = range(rows.start, rows.stop, TOGETHER)
            parts = [molecules[at : min(at + TOGETHER, rows.stop)] for at in bounds]
            yield rows, torch.cat([self.sums(part) for part in parts])

    def sums(self, molecules: Molecules) -> Tensor:
        """Return F, the sums over atoms of their features, ``(molecule, size)``."""
        atoms, kinds = self.normalised(molecules), self.kinds(molecules)
        owner = molecules.owner.to(kinds.device)
        found = []
        for kind in range(len(self.transform.elements)):
            mine = kinds == kind
            values = self.features(atoms[mine], kind)
            sums = values.new_zeros(len(molecules), values.shape[1])
            found.append(sums.index_add_(0, owner[mine], values))
        return torch.cat(found, 1)

    def predict(self, molecules: Molecules) -> Tensor:
        """Return ``(molecule,)`` in float64."""
        learnt(self, "weights_")
        found = self.composition_.predict(self.counts(molecules))
        for rows, part in self.blocks(molecules):
            found[rows] += part.double() @ self.weights_
        return found

    def kinds(self, molecules: Molecules) -> Tensor:
        """Return the place of each atom's element, on the transform's device."""
        return self.transform.kinds(molecules.charges.to(self.transform.device))

    def counts(self, molecules: Molecules) -> Tensor:
        """Return how many atoms of each element there are, ``(molecule, element)``."""
        E, kinds = len(self.transform.elements), self.kinds(molecules)
        place = molecules.owner.to(kinds.device) * E + kinds
        return torch.bincount(place, minlength=len(molecules) * E).view(-1, E).double()

    def normalised(self, molecules: Molecules) -> Tensor:
        """Return the invariants of each atom in units of their norm, ``(atom, local_size)``."""
        local = self.transform.local(molecules) * self.transform.metric
        return torch.nn.functional.normalize(local, dim=1)

    def seen(self, molecules: Molecules, atoms: Tensor) -> Tensor:
        """Return the normalised invariants of some atoms, computing those of their molecules."""
        owners, place = torch.unique(molecules.owner[atoms], return_inverse=True)
        found = self.transform.metric.new_empty(len(atoms), self.transform.local_size)
        for start in range(0, len(owners), TOGETHER):
            some = owners[start : start + TOGETHER].tolist()
            part = Molecules.of([molecules[i : i + 1].alone() for i in some])
            wanted = ((place >= start) & (place < start + TOGETHER)).nonzero()[:, 0]
            within = atoms[wanted] - molecules.offsets[owners[place[wanted]]]
            rows = part.offsets[place[wanted] - start] + within
            found[wanted.to(found.device)] = self.normalised(part)[rows.to(found.device)]
        return found

    def state(self) -> dict[str, Tensor]:
        """Return everything learnt."""
        learnt_values = {name: getattr(self, f"{name}_").cpu() for name in self.NAMES}
        return {**learnt_values, "composition": self.composition_.weights_}

    def load(self, state: dict[str, Tensor]) -> Self:
        """Take what another has learnt."""
        for name in self.NAMES:
            setattr(self, f"{name}_", state[name].to(self.transform.device))
        E = len(self.transform.elements)
        self.composition_ = Composition(E).load({"weights": state["composition"]})
        return self


class Equations(abc.ABC):
    """What is known of w from the molecules seen so far, in float64."""

    count = 0
    """Molecules seen."""

    @abc.abstractmethod
    def add(self, features: Tensor, rest: Tensor) -> None:
        """Add molecules, ``(molecule, size)`` and ``(molecule,)``."""

    @abc.abstractmethod
    def weights(self, alpha: float) -> Tensor:
        """Return the w of least ``|y - F w|^2 + alpha n w^T P w``, with n molecules seen."""


class NormalEquations(Equations):
    """The normal equations: ``F^T F``, of which only the lower triangle is used, and ``F^T y``.

    Parameters
    ----------
    size
        Number of features.
    penalty
        P, ``(size, size)``; None for the unit matrix.
    """

    def __init__(self, size: int, penalty: Tensor | None = None) -> None:
        self.penalty = penalty
        self.gram = torch.zeros(size, size, dtype=torch.float64)
        self.product = torch.zeros(size, dtype=torch.float64)

    def add(self, features: Tensor, rest: Tensor) -> None:
        """Add molecules."""
        rows = features.double()
        self.gram, self.product = self.gram.to(rows.device), self.product.to(rows.device)
        for start in range(0, rows.shape[1], COLUMNS):
            stop = start + COLUMNS
            self.gram[start:stop, :stop].addmm_(rows[:, start:stop].T, rows[:, :stop])
        self.product += rows.T @ rest
        self.count += len(rows)

    def weights(self, alpha: float) -> Tensor:
        """Return ``(F^T F + alpha n P)^-1 F^T y``."""
        strength = alpha * self.count
        if self.penalty is None:
            return penalised(self.gram, self.product, strength)
        return penalised(self.gram + strength * self.penalty, self.product, 0.0)


class DualEquations(Equations):
    """Equations for fewer molecules than features: F, and the lower triangle of ``F F^T``."""

    def __init__(self) -> None:
        self.rows: list[Tensor] = []
        self.gram = torch.zeros(0, 0, dtype=torch.float64)
        self.rest = torch.zeros(0, dtype=torch.float64)

    def add(self, features: Tensor, rest: Tensor) -> None:
        """Add molecules."""
        more, exact = len(features), features.double()
        self.rows.append(features)
        self.gram = torch.nn.functional.pad(self.gram.to(exact.device), (0, more, 0, more))
        self.gram[-more:] = torch.cat([exact @ rows.double().T for rows in self.rows], 1)
        self.rest = torch.cat([self.rest.to(exact.device), rest])
        self.count += more

    def weights(self, alpha: float) -> Tensor:
        """Return ``F^T (F F^T + alpha n)^-1 y``."""
        found = penalised(self.gram, self.rest, alpha * self.count)
        total, start = found.new_zeros(self.rows[0].shape[1]), 0
        for rows in self.rows:
            stop = start + len(rows)
            total += rows.double().T @ found[start:stop]
            start = stop
        return total
