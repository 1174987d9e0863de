"""The linear inverse that is the same at all points of the grid: what shifts say of R.

Averages y = L U x move with the image, by multiples of 2^J, and so does the best linear inverse if
images are stationary. Then the square of 2^J x 2^J pixels about the point p follows from the
averages at p and the eight points about it, by one matrix for all points,

    x_p ~ mean_p + sum_q K_q^T y_(p + q) ,   q in {-1, 0, 1}^2 ,

which is learnt from every point of every image. In terms of codes it is a matrix S, and a prior of
ridge regression: images are not stationary (the sky is above), and what S leaves tells how.

The grid is periodic, as the wavelets are.
"""

from __future__ import annotations

from itertools import product

import torch
from torch import Tensor

from wavemill.generation.embedding import Embedding
from wavemill.generation.training import Pairs

PENALTY = 3e-4  # relative to unit features
FLAT = 1e-9  # features of a variance below this part of the first are rounding
ROWS = 8192  # points whose neighbours are held at a time


@torch.no_grad()
def shared_inverse(embedding: Embedding, train: Pairs, mean: Tensor) -> Tensor:
    """Return S ``(m, component, y, x)``, with ``x ~ mean + w S``, by least squares.

    Parameters
    ----------
    embedding
        L U, fitted: its whitening says what codes say of averages at each point.
    train
        Codes and images of the embedding's shape.
    mean
        ``(component, y, x)`` of the images.
    """
    features = _features(embedding).to(train.w)
    m, size, points = len(features), 9 * features.shape[1], features[0, 0].numel()
    block = max(1, ROWS // points)
    gram = torch.zeros(size, size, dtype=torch.float64, device=train.w.device)
    sums: Tensor | float = 0.0
    for rows in torch.split(torch.arange(len(train)), block):
        design = _neighbours(train.w[rows], features)
        target = _squares(train.images(rows) - mean, embedding.grid)
        gram += design.T @ design
        sums = sums + (design.T @ target).double()
    gram.diagonal().add_(PENALTY * len(train) * points)
    kernels = torch.linalg.solve(gram, torch.as_tensor(sums)).to(train.w)
    units = torch.split(torch.eye(m, device=train.w.device), block)
    return torch.cat(
        [_laid(_neighbours(w, features) @ kernels, embedding.grid, mean) for w in units]
    )


def _features(embedding: Embedding) -> Tensor:
    """Return ``(m, feature, y, x)``: what codes say of averages, of unit variance over points.

    They are principal components of the channels of a point, which the points share.
    """
    whitening, (gy, gx) = embedding.whitening, embedding.grid
    spread = torch.unflatten(whitening.spread.double(), 0, (-1, gy * gx))  # (channel, point, m)
    covariance = torch.einsum("apm,bpm->ab", spread, spread) / (gy * gx)
    values, vectors = torch.linalg.eigh(covariance)
    kept = values > FLAT * values[-1]
    scaled = vectors[:, kept] / values[kept].sqrt()
    features = torch.einsum("apm,af->mfp", spread, scaled)
    return torch.unflatten(features, -1, (gy, gx)).float()


def _neighbours(w: Tensor, features: Tensor) -> Tensor:
    """Return the features of the nine points about each: ``(n point, 9 feature)``."""
    y = torch.einsum("nm,mfyx->nyxf", w, features)
    around = [y.roll((-i, -j), (1, 2)) for i, j in product((-1, 0, 1), repeat=2)]
    return torch.cat(around, -1).flatten(0, 2)


def _squares(images: Tensor, grid: tuple[int, int]) -> Tensor:
    """Cut images into a square for each point: ``(n point, component y x)``."""
    n, count, y, x = images.shape
    cut = images.reshape(n, count, grid[0], y // grid[0], grid[1], x // grid[1])
    return cut.permute(0, 2, 4, 1, 3, 5).reshape(n * grid[0] * grid[1], -1)


def _laid(squares: Tensor, grid: tuple[int, int], like: Tensor) -> Tensor:
    """Put squares side by side: what :func:`_squares` cut."""
    count, y, x = like.shape
    cut = squares.reshape(-1, *grid, count, y // grid[0], x // grid[1])
    return cut.permute(0, 3, 1, 4, 2, 5).reshape(-1, count, y, x)
