"""Sparse inversion: an image from its code through a coupled dictionary.

    w ~ B z ,   x ~ E z ,   B = L D ,   E = U^-1 D ,

for a dictionary D of U x: z is found from w alone by iterated soft thresholding on B, and gives the
image by E. What z leaves of w is inverted by the linear generator R,

    G(w) = E z + R (w - B z) = R w + (E - R B) z = R w + C z ,

so that nothing of w is lost, and no atom means R alone. B (unit columns) and C are learnt end to
end on the loss of images; C is the parameter, E = C + R B follows.

**Tied rows.** L takes some of w from samples of x * phi_J, which are linear in x. For a dictionary of
U x these rows of B follow from E: with S the samples of the low pass, ``S E = S R B``, that is ``S C
= 0``. C is therefore projected on to the images without low pass: coarse scales are inverted
linearly, which is exact, and atoms carry the details.

Source: Mallat, *Mathematical mysteries of deep neural networks* (lecture, 2019), for the inverse
problem; Zarka, Thiry, Angles and Mallat, *Deep network classification by scattering and homotopy
dictionary learning*, ICLR 2020, for the iteration; Yang, Wright, Huang and Ma, *Image
super-resolution via sparse representation*, IEEE TIP 19, 2861 (2010), for coupled dictionaries.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from wavemill.generation.linear import LinearGenerator
from wavemill.generation.rectified import RectifiedWavelets


class SparseInversion(nn.Module):
    """``G(w) = R w + C z(w)`` with z by iterated soft thresholding on B.

    Parameters
    ----------
    linear
        R, fitted; it stays as it is.
    atoms
        K, columns of B and C.
    iterations
        Of the thresholding; thresholds fall geometrically from the largest correlation to a last
        one, which is learnt.
    signed
        Two-sided soft thresholding, or else its non-negative half.
    rectified
        The transform that codes are averages of, whose low pass C is to lack; None if it has none.
    seed
        Of the first atoms.
    """

    def __init__(
        self,
        linear: LinearGenerator,
        atoms: int = 2048,
        iterations: int = 8,
        signed: bool = False,
        rectified: RectifiedWavelets | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.linear, self.iterations, self.signed = linear, iterations, signed
        m, size = linear.matrix.shape
        generator = torch.Generator().manual_seed(seed)
        self.directions = nn.Parameter(torch.randn(m, atoms, generator=generator) / math.sqrt(m))
        self.details = nn.Parameter(torch.zeros(atoms, size))
        self.log_threshold = nn.Parameter(torch.tensor(0.0))
        low, back = _low_pass(rectified)
        self.register_buffer("low", low, False)
        self.register_buffer("back", back, False)

    @property
    def atoms(self) -> Tensor:
        """B ``(m, K)``, of unit columns."""
        return self.directions / self.directions.norm(dim=0)

    def codes(self, w: Tensor) -> Tensor:
        """Return z ``(n, K)``."""
        return istc(w, self.atoms, self.log_threshold.exp(), self.iterations, self.signed)

    def forward(self, w: Tensor) -> Tensor:
        """Return images ``(n, component, y, x)`` in standard units."""
        details = (self.codes(w) @ self.details).unflatten(1, self.linear.image_shape)
        coarse: Tensor = self.linear(w)
        return coarse + self.without_low_pass(details)

    def without_low_pass(self, images: Tensor) -> Tensor:
        """Return images less the smallest ones that have the same samples of x * phi_J."""
        if self.low is None:
            return images
        fields = images.flatten(-2)
        return (fields - (fields @ self.low.T) @ self.back.T).unflatten(-1, images.shape[-2:])


def _low_pass(rectified: RectifiedWavelets | None) -> tuple[Tensor | None, Tensor | None]:
    """Return S ``(samples, y x)`` and its pseudo-inverse: the filter is its own mirror image."""
    if rectified is None:
        return None, None
    points = torch.zeros(rectified.shape, dtype=torch.float64)
    rectified.sample(points).fill_(1)
    places = points.flatten().nonzero()[:, 0]
    deltas = torch.zeros(len(places), points.numel(), dtype=rectified.dtype)
    deltas[torch.arange(len(places)), places] = 1
    low = rectified.W.low_pass(deltas.unflatten(1, rectified.shape)).flatten(1)
    return low, torch.linalg.pinv(low.double()).to(low.dtype)


def istc(w: Tensor, atoms: Tensor, last: Tensor, iterations: int, signed: bool) -> Tensor:
    correlation = w @ atoms
    first = correlation.detach().abs().amax(1, keepdim=True)
    z = torch.zeros_like(correlation)
    for n in range(1, iterations + 1):
        threshold = first * (last / first) ** (n / iterations)
        moved = z + (w - z @ atoms.T) @ atoms
        z = torch.relu(moved - threshold)
        if signed:
            z = z - torch.relu(-moved - threshold)
    return z
