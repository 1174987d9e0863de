"""Least squares of overlapping patches: how codes on a grid tell the pixels about its points.

An image is the sum over points of the grid, s pixels apart, of patches of 2s x 2s about them, each
a sum of atoms weighted by a code z(k, point). A pixel lies in the patches of the 2 x 2 points about
it, at a place in each that depends only on its place between the points. So pixels in one half of a
step along y, and one half along x, have 4 K unknowns each and share their normal equations, to
which every point of every image contributes.
"""

from __future__ import annotations

from itertools import product

import torch
from torch import Tensor
from torch.nn.functional import pad

PENALTIES = (1e-4, 3e-3, 0.03, 0.3, 3.0)  # relative to the mean energy of atoms


class System:
    """Normal equations of the pixels in one half of a step along y, and one half along x.

    Pixels of the half h after point a lie in the patches of points a + h - 1 + i, i = 0, 1: in
    their second halves for i = 0.
    """

    def __init__(self, atoms: int, *place: int) -> None:
        self.place, self.atoms = place, atoms
        self.gram = torch.zeros(4 * atoms, 4 * atoms)
        self.product: Tensor | None = None

    def add(self, z: Tensor, left: Tensor, grid: tuple[int, int]) -> None:
        """Take into account the codes of some images, and what is left of these to explain."""
        (gy, gx), (h, k), padded = grid, self.place, pad(z, (1, 1, 1, 1))
        seen = [
            padded[:, :, h + i : h + i + gy, k + j : k + j + gx] for i, j in product((0, 1), (0, 1))
        ]
        design = torch.cat(seen, 1).permute(0, 2, 3, 1).flatten(0, 2)
        halves = torch.unflatten(torch.unflatten(left, -1, (gx, 2, -1)), -4, (gy, 2, -1))
        target = halves[:, :, :, h, :, :, k].permute(0, 2, 4, 1, 3, 5).flatten(0, 2).flatten(1)
        if self.product is None:
            self.gram = self.gram.to(target)
            self.product = target.new_zeros(len(self.gram), target.shape[1])
        self.gram.addmm_(design.T, design)
        self.product.addmm_(design.T, target)

    def write(self, patches: Tensor, step: int, penalty: float) -> None:
        """Solve, and write what is found into patches ``(K, component, 2 step, 2 step)``."""
        half = step // 2
        # (2, 2, K, component, y, x)
        found = torch.unflatten(self._solution(penalty), -1, (-1, half, half))
        for i, j in product((0, 1), (0, 1)):
            y, x = (
                (1 - n) * step + (1 - h) * half for n, h in zip((i, j), self.place, strict=True)
            )
            patches[:, :, y : y + half, x : x + half] = found[i, j]

    def _solution(self, penalty: float) -> Tensor:
        """Return ``(2, 2, K, component y x)``."""
        assert self.product is not None  # images were added
        gram = self.gram.double()
        gram.diagonal().add_(penalty * gram.diagonal().mean().clamp(min=1e-12))
        found = torch.linalg.solve(gram, self.product.double()).float()
        return torch.unflatten(found, 0, (2, 2, self.atoms))
