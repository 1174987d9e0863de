"""Sparse inversion: an image from its code through a coupled dictionary.

    w ~ B z ,   x ~ E z ,   B = L D ,   E = U^-1 D ,

for a dictionary D of U x: z is found from w alone by iterated soft thresholding on B, and gives the
image by E. What z leaves of w is inverted by the linear generator R,

    G(w) = E z + R (w - B z) = R w + (E - R B) z = R w + C z ,

so that nothing of w is lost, and without atoms R alone remains. B (columns of one length) and C are
learnt end to end on the loss of images; C is the parameter, from which E = C + R B follows.

**Steps.** Atoms that overlap are coherent, and |B|^2 is far above 2, where unit steps diverge. So
the columns of B have one length s below 1, which is learnt: coding by ``s B`` takes steps of s^2.
It begins such that |s B| <= 1: with many more atoms than numbers in a code, |B|^2 is large.

**Shared atoms.** L U moves with the image, by multiples of 2^J. So does D: an atom is a vector of
averaged coefficients at one point of the grid, which the whitening turns into a column of B, and a
patch of the image about that point. Atoms are the same at all points. A code is z(k, point).

**Coarse to fine.** B is learnt end to end on images averaged over a few points, which is cheap;
then C of whole images follows from least squares, given B (:mod:`wavemill.generation.patches`),
and both are learnt on, end to end.

**Tied rows.** L takes some of w from samples of x * phi_J, which are linear in x. For a dictionary
of U x these rows of B follow from E: with S the samples of the low pass, ``S E = S R B``, that is
``S C = 0``. C z is therefore projected on to the images without low pass: coarse scales are
inverted linearly, which is exact, and atoms carry the details.

Source: Mallat, *Mathematical mysteries of deep neural networks* (lecture, 2019), for the inverse
problem; Zarka, Thiry, Angles and Mallat, *Deep network classification by scattering and homotopy
dictionary learning*, ICLR 2020, for the iteration; Yang, Wright, Huang and Ma, *Image
super-resolution via sparse representation*, IEEE TIP 19, 2861 (2010), for coupled dictionaries.
"""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor, nn
from torch.nn.functional import fold, normalize

from wavemill.dictionaries.dictionary import istc
from wavemill.generation.embedding import Embedding
from wavemill.generation.linear import LinearGenerator
from wavemill.generation.patches import PENALTIES, System
from wavemill.generation.rectified import RectifiedWavelets
from wavemill.generation.samples import BLOCK
from wavemill.generation.training import CodedImages
from wavemill.operators import keep_buffer

FIRST = 4.0  # threshold that few correlations of unit atoms with white codes exceed
LAST, STEP = 0.5, 0.1  # to begin with: the last threshold, and most of the atoms' squared length
REACH = 2  # sides of a patch, in steps of the grid


class SparseInversion(nn.Module):
    """``G(w) = R w + C z(w)`` with z by iterated soft thresholding on B.

    Parameters
    ----------
    linear
        R, fitted; it stays as it is.
    embedding
        L U, fitted: it gives the grid, and B from D.
    atoms
        K, atoms at each point of the grid.
    iterations
        Iterations of the thresholding; thresholds fall geometrically from `FIRST` to a last one,
        which is learnt.
    signed
        Two-sided soft thresholding, or else its non-negative half.
    seed
        Seed of the first atoms.
    """

    features: Tensor
    low: Tensor | None
    back: Tensor | None

    def __init__(
        self,
        linear: LinearGenerator,
        embedding: Embedding,
        atoms: int = 128,
        iterations: int = 3,
        signed: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.linear, self.iterations, self.signed = linear, iterations, signed
        self.embedding = (embedding,)  # not a submodule: it has learnt already
        self.grid = embedding.grid
        self.step = linear.image_shape[1] // self.grid[0]  # points of the image
        keep_buffer(self, "features", _at_points(embedding).cpu())  # where parameters begin
        generator, side = torch.Generator().manual_seed(seed), REACH * self.step
        size = self.features.shape[-1], atoms
        first = torch.randn(size, generator=generator, dtype=torch.float32)
        self.directions = nn.Parameter(normalize(first, dim=0))
        patches = torch.zeros(atoms, linear.image_shape[0], side, side, dtype=torch.float32)
        self.patches = nn.Parameter(patches)
        self.log_threshold = nn.Parameter(torch.tensor(LAST, dtype=torch.float32).log())
        self.log_step = nn.Parameter(torch.zeros((), dtype=torch.float32))
        whole = linear.image_shape[1:] == embedding.shape
        low, back = _low_pass(embedding.rectified if whole else None)
        keep_buffer(self, "low", low)
        keep_buffer(self, "back", back)
        with torch.no_grad():
            unit = self.atoms
            largest = float(torch.linalg.eigvalsh(unit @ unit.T)[-1])
            self.log_step.copy_(torch.tensor(min(STEP, 1 / largest), dtype=torch.float32).log())

    @property
    def atoms(self) -> Tensor:
        """B ``(m, K points)``: each atom at each point, whitened, of length exp(log_step / 2)."""
        moved = (self.features @ self.directions).mT  # (m, K, points)
        return (self.log_step / 2).exp() * normalize(moved.flatten(1), dim=0)

    @property
    def thresholds(self) -> Tensor:
        """``lambda_1 .. lambda_N``, in units of the atoms' length.

        They fall geometrically from `FIRST` to the last, which is learnt.
        """
        n = torch.arange(1, self.iterations + 1).to(self.log_threshold)
        ratio = self.log_threshold.exp() / FIRST
        return (self.log_step / 2).exp() * FIRST * ratio ** (n / self.iterations)

    def codes(self, w: Tensor) -> Tensor:
        """Return z ``(n, K, y, x)`` on the grid."""
        z = istc(w, self.atoms, self.thresholds, positive=not self.signed)
        return torch.unflatten(z, 1, (-1, *self.grid))

    def forward(self, w: Tensor) -> Tensor:
        """Return images ``(n, component, y, x)`` in standard units."""
        details = self.laid(self.codes(w))
        coarse: Tensor = self.linear(w)
        return coarse + self.without_low_pass(details)

    def laid(self, z: Tensor) -> Tensor:
        """Return the sum of patches about points of the grid, weighted by z ``(n, K, y, x)``."""
        patches = torch.einsum("nkp,kd->ndp", z.flatten(2), self.patches.flatten(1))
        side, margin = REACH * self.step, (REACH - 1) * self.step // 2
        return fold(patches, self.linear.image_shape[1:], side, padding=margin, stride=self.step)

    @torch.no_grad()
    def solve(self, train: CodedImages, held: CodedImages) -> Self:
        """Set C to the least-squares fit of what R leaves of ``train``, given B.

        The penalty, or no atoms at all, is chosen by the squared error on ``held``.
        """
        systems = [System(len(self.patches), y, x) for y in (0, 1) for x in (0, 1)]
        for rows in torch.split(torch.arange(len(train)), BLOCK):
            w = train.w[rows]
            z, left = self.codes(w), train.images(rows) - self.linear(w)
            for system in systems:
                system.add(z, left, self.grid)
        best = torch.zeros_like(self.patches)
        self.patches.copy_(best)
        least = self._error(held)
        for penalty in PENALTIES:
            for system in systems:
                system.write(self.patches, self.step, penalty)
            if (error := self._error(held)) < least:
                least, best = error, self.patches.clone()
        self.patches.copy_(best)
        return self

    def _error(self, held: CodedImages) -> float:
        """Return the squared error of the images of codes."""
        blocks = torch.split(torch.arange(len(held)), BLOCK)
        return sum(
            float((self(held.w[rows]) - held.images(rows)).square().sum()) for rows in blocks
        )

    def pooled(self, side: int, seed: int = 0) -> SparseInversion:
        """Return an untrained inversion, to images averaged over squares of this side."""
        atoms = self.directions.shape[1]
        (embedding,) = self.embedding
        made = SparseInversion(
            self.linear.pooled(side), embedding, atoms, self.iterations, self.signed, seed
        )
        return made.to(self.patches.device)

    @torch.no_grad()
    def take_atoms(self, other: SparseInversion) -> Self:
        """Take B and the thresholds of another inversion, to images of any size."""
        for name in ("directions", "log_threshold", "log_step"):
            self.get_parameter(name).copy_(other.get_parameter(name))
        return self

    def without_low_pass(self, images: Tensor) -> Tensor:
        """Return images less the smallest ones that have the same samples of x * phi_J."""
        if self.low is None or self.back is None:
            return images
        fields = images.flatten(-2)
        rest = fields - (fields @ self.low.T) @ self.back.T
        return rest.reshape(images.shape)


def _at_points(embedding: Embedding) -> Tensor:
    """Return the codes ``(m, point, channel)`` of vectors of channels at each point of the grid.

    Vectors are in units of the root of their covariance, so that random ones, and steps along
    gradients, look like coefficients of images; in the white metric of codes most would be noise.
    """
    spread, values, vectors = embedding.at_points()
    root = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
    projection = torch.unflatten(embedding.whitening.projection, 0, spread.shape[:2])
    return torch.einsum("apm,ab->mpb", projection, root.float()).contiguous()


def _low_pass(rectified: RectifiedWavelets | None) -> tuple[Tensor | None, Tensor | None]:
    """Return S ``(samples, y x)`` and its pseudo-inverse: the filter is its own mirror image."""
    if rectified is None:
        return None, None
    points = torch.zeros(rectified.shape, dtype=torch.float64)
    rectified.sample(points).fill_(1)
    places = points.flatten().nonzero()[:, 0]
    deltas = torch.zeros(len(places), points.numel(), dtype=rectified.dtype)
    deltas[torch.arange(len(places)), places] = 1
    low = rectified.W.low_pass(deltas.reshape(-1, *rectified.shape)).flatten(1)
    return low, torch.linalg.pinv(low.double()).to(low.dtype)
