"""The best linear generator: ridge regression of images on codes.

    x ~ mean + w R ,   R = S + (W^T W + alpha n I)^-1 W^T (x - mean - W S) .

With S = 0 it is the baseline that any other generator has to beat. With S the inverse that all
points of the grid share (:mod:`wavemill.generation.shared`), less has to be learnt from the same
images. It is also the linear part of the sparse inversion.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

from wavemill.generation.embedding import Embedding
from wavemill.generation.shared import shared_inverses
from wavemill.generation.training import CodedImages

ALPHAS = (0.0, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
BLOCK = 512


class LinearGenerator(nn.Module):
    """``G(w) = mean + w R`` in standard units.

    Parameters
    ----------
    dimension
        m, the size of a code.
    shape
        ``(component, y, x)`` of the images.
    """

    matrix: Tensor
    mean: Tensor

    def __init__(self, dimension: int, shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.image_shape = shape
        size = shape[0] * shape[1] * shape[2]
        self.register_buffer("matrix", torch.zeros(dimension, size, dtype=torch.float32))
        self.register_buffer("mean", torch.zeros(size, dtype=torch.float32))
        self.register_buffer("alpha", torch.zeros((), dtype=torch.float32))

    def forward(self, w: Tensor) -> Tensor:
        """Return images ``(n, component, y, x)``."""
        images = torch.addmm(self.mean, w, self.matrix)
        return torch.unflatten(images, 1, self.image_shape)

    @torch.no_grad()
    def pooled(self, side: int) -> LinearGenerator:
        """Return the generator of images averaged over squares of this side."""
        count, y, x = self.image_shape
        made = LinearGenerator(len(self.matrix), (count, y // side, x // side))
        for name in ("matrix", "mean"):
            whole, few = self.get_buffer(name), made.get_buffer(name)
            few.copy_(avg_pool2d(whole.reshape(-1, count, y, x), side).reshape(few.shape))
        return made.to(self.matrix.device)

    @torch.no_grad()
    def fit(
        self, train: CodedImages, held: CodedImages, embedding: Embedding | None = None
    ) -> LinearGenerator:
        """Learn R from ``train`` in closed form; the squared error on ``held`` chooses penalties.

        Given a fitted embedding, R is drawn to the inverse that all points of its grid share, if
        that lowers this error; else to 0.
        """
        gram, product = self._sums(train)
        values, vectors = torch.linalg.eigh(gram)
        codes = (held.w.double() @ vectors).float()
        targets = held.images(torch.arange(len(held))).flatten(1) - self.mean
        least = math.inf
        for shared in self._priors(train, embedding):
            rotated = (vectors.T @ (product - gram @ shared.double())).float()
            left = targets - held.w @ shared
            for alpha in ALPHAS:
                shrunk = rotated / (values + alpha)[:, None].float()
                if (error := float((codes @ shrunk - left).square().mean())) < least:
                    least = error
                    self.matrix.copy_(shared).add_(vectors.float() @ shrunk)
                    self.get_buffer("alpha").fill_(alpha)
        return self

    def _priors(self, train: CodedImages, embedding: Embedding | None) -> Iterator[Tensor]:
        """Yield the matrices S that R may be drawn to."""
        yield torch.zeros_like(self.matrix)
        if embedding is not None:
            mean = self.mean.reshape(self.image_shape)
            for shared in shared_inverses(embedding, train, mean):
                yield shared.flatten(1)

    def _sums(self, train: CodedImages) -> tuple[Tensor, Tensor]:
        """Return ``W^T W / n`` in float64 and ``W^T (x - mean) / n``; set the mean."""
        blocks = torch.split(torch.arange(len(train)), BLOCK)
        nothing = train.w.new_zeros((), dtype=torch.float64)
        totals = (train.images(rows).flatten(1).double().sum(0) for rows in blocks)
        self.mean.copy_(sum(totals, nothing) / len(train))
        product = torch.zeros_like(self.matrix)
        for rows in blocks:
            product.addmm_(train.w[rows].T, train.images(rows).flatten(1) - self.mean)
        w = train.w.double()
        return w.T @ w / len(train), (product / len(train)).double()
