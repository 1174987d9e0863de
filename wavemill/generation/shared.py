"""The linear inverse that is the same at all points of the grid: a prior for R from shifts.

Averages y = L U x move with the image, by multiples of 2^J, and so does the best linear inverse if
images are stationary. Then the pixels about the point p follow from the averages at p and the eight
points about it, by one matrix for all points, which is learnt from every point of every image:

    x(u) ~ mean(u) + sum_q K_q(u - 2^J p)^T y_(p + q) ,   q in {-1, 0, 1}^2 ,

for pixels u of the four squares of 2^J x 2^J that have p as a corner. So each square is predicted
from its four corners, which are weighted bilinearly: nothing jumps from square to square.

The grid is periodic, as the wavelets are, but images are not: averages on the border see both sides
of it, and points there have matrices of their own (a single matrix would put edges between squares
everywhere, since there is one on the border).

In terms of codes this is a matrix S, which ridge regression takes as its prior: images are not
stationary (the sky is above), and what S leaves shows how.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import torch
from torch import Tensor

from wavemill.generation.embedding import Embedding
from wavemill.generation.training import CodedImages

PENALTIES = (3e-4, 0.03, 1.0, 30.0)  # relative to the mean energy of features
FLAT = 1e-9  # features whose variance is below this part of the largest are rounding error
ROWS = 8192  # points whose neighbours are held at a time
CORNERS = tuple(product((0, 1), repeat=2))  # of a square, from the point that numbers it


@torch.no_grad()
def shared_inverses(embedding: Embedding, train: CodedImages, mean: Tensor) -> Iterator[Tensor]:
    """Yield the least-squares S ``(m, component, y, x)`` of ``x ~ mean + w S`` for each penalty.

    Parameters
    ----------
    embedding
        L U, fitted: its whitening gives the averages of a code at each point.
    train
        Codes and images of the embedding's shape.
    mean
        ``(component, y, x)`` of the images.
    """
    features = _features(embedding).to(train.w)
    equations = _equations(embedding.grid, features, train, mean)
    for penalty in PENALTIES:
        kernels = [_solved(gram, known, penalty) for gram, known in equations]
        yield _inverse(embedding.grid, features, kernels, mean)


def _equations(
    grid: tuple[int, int], features: Tensor, train: CodedImages, mean: Tensor
) -> list[tuple[Tensor, Tensor]]:
    """Return the normal equations of each kind of points, float64."""
    size, block = 9 * features.shape[1], _block(grid)
    kinds, device = _kinds(grid), train.w.device
    grams = torch.zeros(len(kinds), size, size, dtype=torch.float64, device=device)
    sums = [grams.new_zeros(())] * len(kinds)
    for rows in torch.split(torch.arange(len(train)), block):
        design = _neighbours(train.w[rows], features)
        squares = _squares(train.images(rows) - mean, grid)
        # at p the squares that have p as a corner
        targets = torch.stack([squares.roll(corner, (1, 2)) for corner in CORNERS], 3)
        for kind, (i, j) in enumerate(kinds):
            known, wanted = (each[:, i, j].flatten(0, 2).flatten(1) for each in (design, targets))
            grams[kind] += known.T @ known
            sums[kind] = sums[kind] + (known.T @ wanted).double()
    return list(zip(grams, sums, strict=True))


def _solved(gram: Tensor, known: Tensor, penalty: float) -> Tensor:
    """Return the solution of penalised least squares, float32."""
    penalties = (penalty * gram.diagonal().mean()).expand(len(gram)).diag()
    found: Tensor = torch.linalg.solve(gram + penalties, known)
    return found.float()


def _inverse(
    grid: tuple[int, int], features: Tensor, kernels: list[Tensor], mean: Tensor
) -> Tensor:
    """Return the images of unit codes, block by block."""
    weights = _weights(mean.shape[1] // grid[0], mean.shape[2] // grid[1]).to(mean)

    def images(w: Tensor) -> Tensor:
        design = _neighbours(w, features)
        opinions = design.new_zeros(*design.shape[:3], kernels[0].shape[1])
        for (i, j), kernel in zip(_kinds(grid), kernels, strict=True):
            opinions[:, i, j] = design[:, i, j] @ kernel
        opinions = torch.unflatten(opinions, 3, (len(CORNERS), len(mean), -1))
        weighted = torch.unbind(opinions * weights, 3)
        found = [
            part.roll((-y, -x), (1, 2)) for part, (y, x) in zip(weighted, CORNERS, strict=True)
        ]
        return _laid(torch.stack(found).sum(0), mean)

    units = torch.eye(len(features)).to(features)
    return torch.cat([images(w) for w in torch.split(units, _block(grid))])


def _block(grid: tuple[int, int]) -> int:
    return max(1, ROWS // (grid[0] * grid[1]))


def _kinds(grid: tuple[int, int]) -> list[tuple[slice, slice]]:
    """Return the points on the border along both sides, along one, and the others."""
    y, x = ([slice(0, 1), slice(1, None)] if size > 1 else [slice(None)] for size in grid)
    return list(product(y, x))


def _weights(y: int, x: int) -> Tensor:
    """Return the weights of a square's corners at each of its pixels: ``(corner, 1, y x)``."""
    down, right = (torch.arange(size) / size for size in (y, x))
    each = [
        torch.outer(down if i else 1 - down, right if j else 1 - right).flatten()
        for i, j in CORNERS
    ]
    return torch.stack(each)[:, None]


def _features(embedding: Embedding) -> Tensor:
    """Return ``(m, feature, y, x)``: what unit codes add to features of unit variance over points.

    Features are principal components of the channels at a point, the same for all points.
    """
    spread, values, vectors = embedding.at_points()
    kept = values > FLAT * values[-1]
    scaled = vectors[:, kept] / values[kept].sqrt()
    features = torch.einsum("apm,af->mfp", spread, scaled)
    return torch.unflatten(features, -1, embedding.grid).float()


def _neighbours(w: Tensor, features: Tensor) -> Tensor:
    """Return the features of the nine points about each: ``(n, y, x, 9 feature)``."""
    y = torch.einsum("nm,mfyx->nyxf", w, features)
    return torch.cat([y.roll((-i, -j), (1, 2)) for i, j in product((-1, 0, 1), repeat=2)], -1)


def _squares(images: Tensor, grid: tuple[int, int]) -> Tensor:
    """Cut images into the squares right of and below the points: ``(n, y, x, component pixel)``."""
    n, count, y, x = images.shape
    cut = images.reshape(n, count, grid[0], y // grid[0], grid[1], x // grid[1])
    return cut.permute(0, 2, 4, 1, 3, 5).flatten(3)


def _laid(squares: Tensor, like: Tensor) -> Tensor:
    """Put squares ``(n, y, x, component, pixel)`` side by side, as :func:`_squares` cut."""
    n, gy, gx, count, _ = squares.shape
    cut = squares.reshape(n, gy, gx, count, like.shape[1] // gy, like.shape[2] // gx)
    return cut.permute(0, 3, 1, 4, 2, 5).reshape(n, *like.shape)
