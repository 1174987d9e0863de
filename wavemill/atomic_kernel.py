"""Kernel regression on the surroundings of atoms, with landmarks (Nystrom).

Two atoms of one element are compared by the normalised polynomial kernel of their invariants,

    k(a, b) = ((1 + <p_a, p_b> / |p_a| |p_b|) / 2)^zeta,

two molecules by the sum over all pairs of their atoms, so that what is learnt is a sum over atoms,

    f(molecule) = sum over e of beta_e n_e + sum over atoms a, landmarks m of  w_m k(a, m),

hence extensive. Landmarks are atoms of the training set, drawn for each element by its frequency;
w minimises ``|y - K w|^2 + alpha n w^T K_mm w`` (A. P. Bartok et al., Science Advances 3, 2017;
A. J. Smola and B. Schoelkopf, ICML 2000).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Self

import torch
from torch import Tensor

from wavemill.atomic_harmonics import AtomicHarmonics
from wavemill.errors import InvalidParameter
from wavemill.molecules import Molecules
from wavemill.regression import Composition, Progress, learnt, penalised

ALPHAS = tuple(10.0**power for power in range(-11, -4))
NOISE = 1e-12  # of the mean square of K's columns: about the rounding of sums of single precision
FEWEST = 32  # landmarks of the rarest element, if it has so many atoms
TOGETHER = 128  # molecules of a batch


class AtomicKernel:
    """Regression of an extensive number of molecules on the surroundings of their atoms.

    Parameters
    ----------
    transform
        Gives the invariants of each atom.
    landmarks
        How many atoms others are compared with.
    zeta
        Power of the kernel.
    alpha
        The penalty; None to choose among `ALPHAS` by a tenth of the molecules.
    seed
        Of the choice of landmarks.
    """

    def __init__(
        self,
        transform: AtomicHarmonics,
        landmarks: int = 4000,
        zeta: float = 2.0,
        alpha: float | None = None,
        seed: int = 0,
    ) -> None:
        if landmarks < 1 or zeta < 1:
            raise InvalidParameter(f"kernel: {landmarks=} must be above 0 and {zeta=} at least 1")
        self.transform, self.landmarks, self.zeta = transform, landmarks, zeta
        self.alpha, self.seed = alpha, seed

    def fit(self, molecules: Molecules, y: Tensor, progress: Progress | None = None) -> Self:
        """Learn from molecules in random order and y ``(molecule,)``."""
        self.choose(molecules)
        counts = self.counts(molecules)
        self.composition_ = Composition(counts.shape[1]).fit(counts, y)
        rest = y.double() - self.composition_.predict(counts)
        learning, count = Sums(self.size), len(molecules) - max(1, len(molecules) // 10)
        for rows, kernel in self.kernels(molecules[:count]):
            learning.add(kernel, rest[rows])
            if progress is not None:
                progress(rows.stop, len(molecules), {})
        validating = [kernel for _, kernel in self.kernels(molecules[count:])]
        self.solve(learning, torch.cat(validating), rest[count:])
        return self

    def solve(self, learning: Sums, kernel: Tensor, rest: Tensor) -> None:
        """Choose the penalty by molecules that ``learning`` lacks, then learn from them, too."""
        among = self.among()
        alphas = ALPHAS if self.alpha is None else (self.alpha,)
        candidates = [learning.weights(among, alpha) for alpha in alphas]
        exact = kernel.double()
        self.errors_ = [float((exact @ weights - rest).abs().mean()) for weights in candidates]
        self.alpha_ = alphas[self.errors_.index(min(self.errors_))]
        learning.add(kernel, rest)
        self.weights_ = learning.weights(among, self.alpha_)

    def choose(self, molecules: Molecules) -> None:
        """Draw the landmarks of each element among the atoms of molecules."""
        generator = torch.Generator().manual_seed(self.seed)
        kinds = self.transform.kinds(molecules.charges)
        chosen = []
        for kind in range(len(self.transform.elements)):
            atoms = (kinds == kind).nonzero()[:, 0]
            count = max(FEWEST, round(self.landmarks * len(atoms) / len(kinds)))
            order = torch.randperm(len(atoms), generator=generator)
            chosen.append(atoms[order[:count]])
        self.kinds_ = torch.repeat_interleave(torch.tensor([len(atoms) for atoms in chosen]))
        self.landmarks_ = self._seen(molecules, torch.cat(chosen))

    def _seen(self, molecules: Molecules, atoms: Tensor) -> Tensor:
        """Return the normalised invariants of some atoms, computing those of their molecules."""
        owners, place = torch.unique(molecules.owner[atoms], return_inverse=True)
        found = torch.empty(len(atoms), self.transform.local_size, dtype=self.transform.dtype)
        for start in range(0, len(owners), TOGETHER):
            some = owners[start : start + TOGETHER].tolist()
            part = Molecules.of([molecules[i : i + 1].alone() for i in some])
            wanted = ((place >= start) & (place < start + TOGETHER)).nonzero()[:, 0]
            within = atoms[wanted] - molecules.offsets[owners[place[wanted]]]
            rows = part.offsets[place[wanted] - start] + within
            found[wanted] = self._normalised(part)[rows]
        return found

    def _normalised(self, molecules: Molecules) -> Tensor:
        local = self.transform.local(molecules) * self.transform.metric
        return torch.nn.functional.normalize(local, dim=1)

    @property
    def size(self) -> int:
        """Number of landmarks there are."""
        return len(self.kinds_)

    def kernels(self, molecules: Molecules) -> Iterator[tuple[slice, Tensor]]:
        """Yield the sums over atoms of k with each landmark, ``(molecule, landmark)``, in parts."""
        for start in range(0, len(molecules), TOGETHER):
            rows = slice(start, min(start + TOGETHER, len(molecules)))
            yield rows, self.kernel(molecules[rows])

    def kernel(self, molecules: Molecules) -> Tensor:
        """Return the sums over atoms of k with each landmark, ``(molecule, landmark)``."""
        atoms, kinds = self._normalised(molecules), self.transform.kinds(molecules.charges)
        sums = atoms.new_zeros(len(molecules), self.size)
        for kind in range(len(self.transform.elements)):
            mine, theirs = kinds == kind, self.kinds_ == kind
            alike = self._compared(atoms[mine], self.landmarks_[theirs])
            part = sums.new_zeros(len(molecules), alike.shape[1])
            sums[:, theirs] = part.index_add_(0, molecules.owner[mine], alike)
        return sums

    def _compared(self, one: Tensor, other: Tensor) -> Tensor:
        """Return k of normalised invariants; rounding must not take its base below 0."""
        return (one @ other.T).add_(1).clamp_(min=0).mul_(0.5).pow_(self.zeta)

    def among(self) -> Tensor:
        """Return the kernel among landmarks, ``(landmark, landmark)`` in float64."""
        alike = self._compared(self.landmarks_.double(), self.landmarks_.double())
        return alike * (self.kinds_[:, None] == self.kinds_[None, :])

    def counts(self, molecules: Molecules) -> Tensor:
        """Return how many atoms of each element there are, ``(molecule, element)``."""
        E = len(self.transform.elements)
        place = molecules.owner * E + self.transform.kinds(molecules.charges)
        return torch.bincount(place, minlength=len(molecules) * E).view(-1, E).double()

    def predict(self, molecules: Molecules) -> Tensor:
        """Return ``(molecule,)`` in float64."""
        learnt(self, "weights_")
        found = self.composition_.predict(self.counts(molecules))
        for rows, kernel in self.kernels(molecules):
            found[rows] += kernel.double() @ self.weights_
        return found

    def state(self) -> dict[str, Tensor]:
        """Return everything learnt."""
        names = ("kinds", "landmarks", "weights")
        learnt_values = {name: getattr(self, f"{name}_") for name in names}
        return {**learnt_values, "composition": self.composition_.weights_}

    def load(self, state: dict[str, Tensor]) -> Self:
        """Take what another has learnt."""
        for name in ("kinds", "landmarks", "weights"):
            setattr(self, f"{name}_", state[name])
        E = len(self.transform.elements)
        self.composition_ = Composition(E).load({"weights": state["composition"]})
        return self


class Sums:
    """``K^T K`` and ``K^T y`` of the molecules seen so far, in float64."""

    def __init__(self, size: int) -> None:
        self.gram = torch.zeros(size, size, dtype=torch.float64)
        self.product = torch.zeros(size, dtype=torch.float64)
        self.count = 0

    def add(self, kernel: Tensor, rest: Tensor) -> None:
        """Take more molecules, ``(molecule, landmark)`` and ``(molecule,)``."""
        rows = kernel.double()
        self.gram.addmm_(rows.T, rows)
        self.product += rows.T @ rest
        self.count += len(rows)

    def weights(self, among: Tensor, alpha: float) -> Tensor:
        """Return the minimum of ``|y - K w|^2 + alpha n w^T K_mm w``.

        A little of ``|w|^2`` is added: single precision makes K uncertain, and w amplifies that.
        """
        regular = self.gram + alpha * self.count * among
        return penalised(regular, self.product, NOISE * float(regular.diagonal().mean()))
