"""Learning a generator from pairs of codes and images, by steps that can stop and go on.

Adam at a constant rate; what is used is the exponential average of the weights, which does what a
falling rate does without knowing when the end is near. The samples of epoch e come in the order
drawn from (seed, e): so the state after any step is the weights, Adam's moments, the average and
the number of the step, and a run that goes on from it makes the same numbers, to the bit, on the
same number of threads.

Source: Kingma and Ba, *Adam: a method for stochastic optimization*, ICLR 2015; averages of weights:
Polyak and Juditsky, SIAM J. Control Optim. 30, 838 (1992).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Self

import torch
from torch import Tensor, nn

from wavemill.generation.convolutional import estimate_population

Loss = Literal["l1", "l2"]
GAIN, PATIENCE = 0.05, 3  # dB that so many epochs must gain


@dataclass(frozen=True)
class Pairs:
    """Codes w ``(n, m)`` and the images they are of, brought to standard units batch by batch.

    Attributes
    ----------
    w
        ``(n, m)``, float32.
    images
        Anything that gives ``(k, component, y, x)`` in standard units for k positions.
    """

    w: Tensor
    images: Callable[[Tensor], Tensor]

    def __len__(self) -> int:
        return len(self.w)


@dataclass(frozen=True)
class Epoch:
    """A point of the curve: mean training loss, and mean PSNR of samples held out."""

    epoch: int
    loss: float
    psnr: float


def error(predicted: Tensor, target: Tensor, loss: Loss) -> Tensor:
    """Return the mean of |difference| or of its square."""
    difference = predicted - target
    return difference.abs().mean() if loss == "l1" else difference.square().mean()


class Trainer:
    """Steps of Adam on a network, with an average of its weights.

    Parameters
    ----------
    network
        Maps codes to images in standard units.
    train
        Pairs to learn from.
    loss
        ``"l1"`` or ``"l2"``.
    rate, batch
        Adam's step, and samples of one.
    decay
        Of the average: its memory is 1 / (1 - decay) steps, fewer at the beginning.
    seed
        Of the order of samples.
    """

    def __init__(
        self,
        network: nn.Module,
        train: Pairs,
        loss: Loss = "l1",
        rate: float = 1e-3,
        batch: int = 128,
        decay: float = 0.998,
        seed: int = 0,
    ) -> None:
        self.network, self.train, self.loss = network, train, loss
        self.batch, self.decay, self.seed = min(batch, len(train)), decay, seed
        self.optimizer = torch.optim.Adam(network.parameters(), rate)
        self.average = [weight.detach().clone() for weight in network.parameters()]
        self.steps, self.sum = 0, 0.0
        self.curve: list[Epoch] = []

    @property
    def per_epoch(self) -> int:
        """Steps of an epoch; samples beyond a multiple of the batch wait for another order."""
        return len(self.train) // self.batch

    def step(self) -> float:
        """Learn from the next batch; return its loss."""
        epoch, place = divmod(self.steps, self.per_epoch)
        if place == 0:
            self._order = self._shuffled(epoch)
            self.sum = 0.0
        rows = self._order[place * self.batch : (place + 1) * self.batch]
        self.network.train()
        loss = error(self.network(self.train.w[rows]), self.train.images(rows), self.loss)
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        self.steps += 1
        self._follow()
        value = float(loss.detach())
        self.sum += value
        return value

    def _shuffled(self, epoch: int) -> Tensor:
        generator = torch.Generator().manual_seed(1_000_003 * self.seed + epoch)
        return torch.randperm(len(self.train), generator=generator)

    @torch.no_grad()
    def _follow(self) -> None:
        decay = min(self.decay, self.steps / (self.steps + 9))
        torch._foreach_lerp_(self.average, list(self.network.parameters()), 1 - decay)

    def close_epoch(self, psnr: float) -> Epoch:
        """Note down the epoch that has just ended, and what its average scores."""
        point = Epoch(self.steps // self.per_epoch, self.sum / self.per_epoch, psnr)
        self.curve.append(point)
        return point

    @property
    def converged(self) -> bool:
        """Whether the last `PATIENCE` epochs gained less than `GAIN` dB over those before."""
        scores = [point.psnr for point in self.curve]
        recent, before = scores[-PATIENCE:], scores[:-PATIENCE]
        return bool(before) and max(recent) < max(before) + GAIN

    @torch.no_grad()
    def averaged(self, network: nn.Module) -> nn.Module:
        """Put the average into a network of the same making, with its own population statistics."""
        for weight, mean in zip(network.parameters(), self.average, strict=True):
            weight.copy_(mean)
        estimate_population(network, self.train.w, self.batch)
        return network.eval()

    def state(self) -> dict[str, Tensor]:
        """Return all that going on needs, as tensors."""
        moments = self.optimizer.state_dict()["state"]
        kept = {f"network.{name}": value for name, value in self.network.state_dict().items()}
        kept |= {f"average.{i}": value for i, value in enumerate(self.average)}
        for i, values in moments.items():
            kept |= {f"adam.{i}.{name}": value for name, value in values.items()}
        points = [[p.epoch, p.loss, p.psnr] for p in self.curve]
        kept["curve"] = torch.tensor(points, dtype=torch.float64).reshape(-1, 3)
        kept["progress"] = torch.tensor([self.steps, self.sum], dtype=torch.float64)
        return {name: value.detach().clone() for name, value in kept.items()}

    def load(self, state: dict[str, Tensor]) -> Self:
        """Go on from where another stopped."""
        prefix = "network."
        self.network.load_state_dict(
            {name.removeprefix(prefix): v for name, v in state.items() if name.startswith(prefix)}
        )
        self.average = [state[f"average.{i}"].clone() for i in range(len(self.average))]
        moments: dict[int, dict[str, Tensor]] = {}
        for name, value in state.items():
            if name.startswith("adam."):
                _, number, field = name.split(".")
                moments.setdefault(int(number), {})[field] = value.clone()
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": moments})
        self.curve = [Epoch(int(e), loss, score) for e, loss, score in state["curve"].tolist()]
        self.steps, self.sum = int(state["progress"][0]), float(state["progress"][1])
        if self.steps % self.per_epoch:
            self._order = self._shuffled(self.steps // self.per_epoch)
        return self
