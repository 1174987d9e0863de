"""Kernel regression on the surroundings of atoms, with landmarks (Nystrom).

Two atoms of one element are compared by the normalised polynomial kernel of their invariants,

    k(a, b) = ((1 + <p_a, p_b> / |p_a| |p_b|) / 2)^zeta,

and the features of an atom are its likenesses to landmarks, atoms of the training set that are
drawn for each element by its frequency; their penalty is the kernel among landmarks (A. P. Bartok
et al., Science Advances 3, 2017; A. J. Smola and B. Schoelkopf, ICML 2000).

All likenesses are near 1, and large weights of both signs tell them apart. So they are computed in
double precision: in single precision a prediction varied by 0.05 kcal/mol with the number of
molecules predicted at once.
"""

from __future__ import annotations

import torch
from torch import Tensor

from wavemill.errors import InvalidParameter
from wavemill.molecules.atomic_harmonics import AtomicHarmonics
from wavemill.molecules.atomic_regression import AtomicRegression
from wavemill.molecules.atoms import Molecules

FEWEST = 32  # landmarks of the rarest element, if it has so many atoms


class AtomicKernel(AtomicRegression):
    """Regression on the likeness of atoms to landmarks.

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
        Seed of the choice of landmarks.
    """

    ALPHAS = tuple(10.0**power for power in range(-12, -4))
    NAMES = ("kinds", "landmarks", "weights")

    def __init__(
        self,
        transform: AtomicHarmonics,
        landmarks: int = 4000,
        zeta: float = 2.0,
        alpha: float | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(transform, alpha, seed)
        if landmarks < 1 or zeta < 1:
            raise InvalidParameter(f"kernel: {landmarks=} must be above 0 and {zeta=} at least 1")
        self.landmarks, self.zeta = landmarks, zeta

    def choose(self, molecules: Molecules) -> None:
        """Draw the landmarks of each element among the atoms of molecules."""
        generator = torch.Generator().manual_seed(self.seed)
        kinds = self.kinds(molecules)
        chosen = []
        for kind in range(len(self.transform.elements)):
            atoms = (kinds == kind).nonzero()[:, 0].cpu()
            count = max(FEWEST, round(self.landmarks * len(atoms) / len(kinds)))
            order = torch.randperm(len(atoms), generator=generator)
            chosen.append(atoms[order[:count]])
        place = torch.tensor([len(atoms) for atoms in chosen], device=kinds.device)
        self.kinds_ = torch.repeat_interleave(place)
        self.landmarks_ = self.seen(molecules, torch.cat(chosen))

    @property
    def size(self) -> int:
        """Number of landmarks drawn."""
        return len(self.kinds_)

    def features(self, atoms: Tensor, kind: int) -> Tensor:
        """Return k of atoms and each landmark of the element, in float64."""
        return self._compared(atoms, self.landmarks_[self.kinds_ == kind])

    def _compared(self, one: Tensor, other: Tensor) -> Tensor:
        """Return k of normalised invariants; rounding must not take its base below 0."""
        cosine = one.double() @ other.double().T
        return cosine.add_(1).clamp_(min=0).mul_(0.5).pow_(self.zeta)

    def penalty(self) -> Tensor:
        """Return the kernel among landmarks, ``(landmark, landmark)`` in float64."""
        alike = self._compared(self.landmarks_, self.landmarks_)
        return alike * (self.kinds_[:, None] == self.kinds_[None, :])
