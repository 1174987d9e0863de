"""Refinement: images moved until their codes are those that they are made of.

    minimise over x  |w - encode(x)|^2 / 2 ,   from x = G(w) ,

by L-BFGS. G is learnt to be near on average, and the average over all images of one code is smooth:
it has the code of a smooth image. Averaged coefficients keep the energy of texture, which descent
gives back; its phase is made up. Each image descends by itself.

Source: Bruna and Mallat, *Multiscale sparse microcanonical models*, Math. Stat. Learn. 1, 257
(2018), for descents on coefficients; Mahendran and Vedaldi, *Understanding deep image
representations by inverting them*, CVPR 2015, for those of images.
"""

from __future__ import annotations

import torch
from torch import Tensor

from wavemill.generation.embedding import Embedding
from wavemill.maxent.descent import Descent, descend, pending

TOGETHER = 16  # images that descend side by side


def refined(embedding: Embedding, w: Tensor, x: Tensor, gradients: int) -> Tensor:
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
        Most for each image; 0 returns ``x``.
    """
    if not gradients:
        return x
    blocks = zip(torch.split(w, TOGETHER), torch.split(x, TOGETHER), strict=True)
    return torch.cat([_block(embedding, codes, images, gradients) for codes, images in blocks])


def _block(embedding: Embedding, w: Tensor, x: Tensor, gradients: int) -> Tensor:
    descents = [Descent(image.double(), x.dtype) for image in x]

    def evaluate(trials: Tensor) -> tuple[Tensor, Tensor]:
        codes = w[pending(descents, gradients)]
        images = trials.to(x.dtype).requires_grad_()
        with torch.enable_grad():
            away = embedding.whitening(embedding.features(images)) - codes
            losses = away.square().sum(1) / 2
            (slopes,) = torch.autograd.grad(losses.sum(), images)
        return losses.detach(), slopes

    descend(descents, evaluate, gradients)
    return torch.stack([descent.best for descent in descents]).to(x.dtype)
