"""Where a network begins: its last linear form is solved in closed form on its first inputs."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from wavemill.dictionaries.classifiers import Network, RidgeClassifier

SCALES = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)


@torch.no_grad()
def close(
    network: Network,
    learnt: Callable[[], Iterable[tuple[Tensor, Tensor]]],
    held: tuple[Tensor, Tensor],
    classes: int,
    alpha: float | None = None,
) -> None:
    """Set the last linear form to ridge regression on its inputs, scaled to be most likely.

    Parameters
    ----------
    network
        On the CPU; its batch norms take the statistics of their inputs.
    learnt
        Returns the batches ``(x, class)`` to learn from; called twice.
    held
        Other samples, on which penalty and scale are chosen.
    classes
        Number of classes.
    alpha
        The penalty; None to choose it.
    """
    _take_statistics(network, (x for x, _ in learnt()))
    ridge = RidgeClassifier(classes)
    network.eval()
    for x, y in learnt():
        ridge.update(network.features(x), y)
    features = torch.cat([network.features(part) for part in torch.split(held[0], 256)])
    if alpha is None:
        ridge.choose(features, held[1])
    else:
        ridge.solve(alpha)
    scores = ridge(features)
    losses = [float(nn.functional.cross_entropy(s * scores, held[1])) for s in SCALES]
    scale = SCALES[losses.index(min(losses))]
    network.last.weight.copy_(scale * ridge.weights_)
    network.last.bias.copy_(scale * ridge.bias_)


def _take_statistics(network: Network, batches: Iterable[Tensor]) -> None:
    """Give each norm the mean and variance of its inputs over all batches, equally weighted."""
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    if not norms:
        return
    kept = [norm.momentum for norm in norms]
    network.eval()
    for norm in norms:
        norm.momentum = None
        norm.reset_running_stats()
        norm.train()
    for x in batches:
        network.features(x)
    for norm, momentum in zip(norms, kept, strict=True):
        norm.momentum = momentum
