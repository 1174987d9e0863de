"""Refinement: images are moved until they have the codes that they were made from.

    minimise over x  |w - encode(x)|^2 / 2 ,   from x = G(w) ,

by L-BFGS. G is learnt to be near on average, and the average over all images of one code is smooth,
so it has the code of a smooth image. Averaged coefficients hold the energy of texture: descent
restores it, with an invented phase. Each image descends by itself.

Source: Bruna and Mallat, *Multiscale sparse microcanonical models*, Math. Stat. Learn. 1, 257
(2018), for descents on coefficients; Mahendran and Vedaldi, *Understanding deep image
representations by inverting them*, CVPR 2015, for those of images.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from wavemill.generation.embedding import Embedding
from wavemill.maxent.descent import Descent, descend, pending

TOGETHER = 16  # images that descend side by side


def refined(
    embedding: Embedding,
    w: Tensor,
    x: Tensor,
    gradients: int,
    progress: Callable[[int, int, dict[str, float]], None] | None = None,
) -> Tensor:
    """Return images ``(n, component, y, x)`` nearer to their codes.

    Parameters
    ----------
    embedding
        Fitted.
    w
        Codes ``(n, m)``.
    x
        Where to begin, ``(n, component, y, x)``.
    gradients
        Most gradients for each image; 0 returns ``x``.
    progress
        Called with the gradients taken and their number in all.
    """
    if not gradients:
        return x
    taken = 0

    def after(active: list[int]) -> None:
        nonlocal taken
        taken += len(active)
        if progress is not None:
            progress(taken, len(x) * gradients, {})

    blocks = zip(torch.split(w, TOGETHER), torch.split(x, TOGETHER), strict=True)
    return torch.cat([_block(embedding, *block, gradients, after) for block in blocks])


def _block(
    embedding: Embedding,
    w: Tensor,
    x: Tensor,
    gradients: int,
    after: Callable[[list[int]], None],
) -> Tensor:
    descents = [Descent(image.double(), x.dtype) for image in x]

    def evaluate(trials: Tensor) -> tuple[Tensor, Tensor]:
        codes = w[pending(descents, gradients)]
        images = trials.to(x.dtype).requires_grad_()
        with torch.enable_grad():
            away = embedding.whitening(embedding.features(images)) - codes
            losses = away.square().sum(1) / 2
            (slopes,) = torch.autograd.grad(losses.sum(), images)
        return losses.detach(), slopes

    descend(descents, evaluate, gradients, after)
    return torch.stack([descent.best for descent in descents]).to(x.dtype)
