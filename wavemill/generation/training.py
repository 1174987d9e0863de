"""Learning a generator from pairs of codes and images, by steps that can stop and resume.

Adam runs at a constant rate; the exponential average of the weights is what is used. It has the
effect of a falling rate, but need not know when training ends. The samples of epoch e come in an
order drawn from (seed, e), so the state after any step is the weights, Adam's moments, the average
and the number of the step, and a run resumed from it gives the same numbers, to the bit, with the
same number of threads.

Source: Kingma and Ba, *Adam: a method for stochastic optimization*, ICLR 2015; averages of weights:
Polyak and Juditsky, SIAM J. Control Optim. 30, 838 (1992).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Self

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

from wavemill.errors import InvalidParameter
from wavemill.generation.convolutional import estimate_population
from wavemill.progress import Progress
from wavemill.states import State, over, under

Loss = Literal["l1", "l2"]
INTERVAL = 60.0  # seconds between checkpoints within an epoch
GAIN, PATIENCE, STEPS = 0.05, 3, 300  # dB to gain within so many epochs, and so many steps


@dataclass(frozen=True)
class CodedImages:
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

    def pooled(self, side: int) -> CodedImages:
        """Return the same with images averaged over squares of this side, which are held."""
        blocks = torch.split(torch.arange(len(self)), 512)
        small = torch.cat([avg_pool2d(self.images(rows), side) for rows in blocks])
        return CodedImages(self.w, lambda rows: small[rows])


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
        Adam's rate, and samples in a step.
    decay
        Decay of the average: its memory is 1 / (1 - decay) steps, fewer at the beginning.
    seed
        Seed of the order of samples.
    """

    def __init__(
        self,
        network: nn.Module,
        train: CodedImages,
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
        """Steps in an epoch; the last samples in order, if too few for a batch, are left out."""
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
        if not math.isfinite(value):
            raise InvalidParameter(f"training diverged at step {self.steps}: lower rate")
        self.sum += value
        return value

    def _shuffled(self, epoch: int) -> Tensor:
        generator = torch.Generator().manual_seed(1_000_003 * self.seed + epoch)
        return torch.randperm(len(self.train), generator=generator)

    @torch.no_grad()
    def _follow(self) -> None:
        decay = min(self.decay, self.steps / (self.steps + 9))
        torch._foreach_lerp_(self.average, list(self.network.parameters()), 1 - decay)

    @property
    def converged(self) -> bool:
        """Whether the last epochs gained less than `GAIN` dB over those before.

        These are `PATIENCE` epochs, or as many as have `STEPS` steps: few samples make few steps.
        """
        scores = [point.psnr for point in self.curve]
        last = max(PATIENCE, math.ceil(STEPS / self.per_epoch))
        recent, before = scores[-last:], scores[:-last]
        return bool(before) and max(recent) < max(before) + GAIN

    @torch.no_grad()
    def averaged(self, network: nn.Module) -> nn.Module:
        """Put the average into a network of the same build, and estimate its batch norms anew."""
        for weight, mean in zip(network.parameters(), self.average, strict=True):
            weight.copy_(mean)
        estimate_population(network, self.train.w, self.batch)
        return network.eval()

    def state(self) -> State:
        """Return all that is needed to continue, as tensors."""
        moments = self.optimizer.state_dict()["state"]
        kept = over("network", self.network.state_dict())
        kept |= {f"average.{i}": value for i, value in enumerate(self.average)}
        for i, values in moments.items():
            kept |= over(f"adam.{i}", values)
        points = [[p.epoch, p.loss, p.psnr] for p in self.curve]
        kept["curve"] = torch.tensor(points, dtype=torch.float64).reshape(-1, 3)
        kept["progress"] = torch.tensor([self.steps, self.sum], dtype=torch.float64)
        return {name: value.detach().clone() for name, value in kept.items()}

    def load(self, state: State) -> Self:
        """Continue from where another stopped."""
        self.network.load_state_dict(under("network", state))
        self.average = [state[f"average.{i}"].clone() for i in range(len(self.average))]
        moments: dict[int, dict[str, Tensor]] = {}
        for name, value in under("adam", state).items():
            number, field = name.split(".")
            moments.setdefault(int(number), {})[field] = value.clone()
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": moments})
        self.curve = [Epoch(int(e), loss, score) for e, loss, score in state["curve"].tolist()]
        self.steps, self.sum = int(state["progress"][0]), float(state["progress"][1])
        if self.steps % self.per_epoch:
            self._order = self._shuffled(self.steps // self.per_epoch)
        return self


class EarlyStopping:
    """A trainer that follows the best of its averages, and stops when epochs gain no more.

    Parameters
    ----------
    trainer
        Takes the steps.
    candidate
        A network of the same build, into which averages are put.
    score
        Mean PSNR of a network on samples held out.
    """

    def __init__(
        self, trainer: Trainer, candidate: nn.Module, score: Callable[[nn.Module], float]
    ) -> None:
        self.trainer, self.candidate, self.score = trainer, candidate, score
        self.best: State = {}

    def begin(self, loss: float) -> None:
        """Count what the trainer starts from as epoch 0: the best so far."""
        self._close(Epoch(0, loss, self.score(self.trainer.averaged(self.candidate))))

    def run(
        self,
        epochs: int,
        progress: Progress | None = None,
        checkpoint: Callable[[State], None] | None = None,
    ) -> None:
        """Train up to this many epochs, with a checkpoint after each epoch and each minute."""
        trainer, saved = self.trainer, time.monotonic()
        while trainer.steps < epochs * trainer.per_epoch and not trainer.converged:
            loss = trainer.step()
            if ended := trainer.steps % trainer.per_epoch == 0:
                number, loss = trainer.steps // trainer.per_epoch, trainer.sum / trainer.per_epoch
                score = self.score(trainer.averaged(self.candidate))
                self._close(Epoch(number, loss, score))
            if checkpoint is not None and (ended or time.monotonic() - saved > INTERVAL):
                checkpoint(self.state())
                saved = time.monotonic()
            if progress is not None and ended:
                progress(number, epochs, {"loss": loss, "psnr": score})

    def _close(self, point: Epoch) -> None:
        if point.psnr >= max((before.psnr for before in self.trainer.curve), default=-math.inf):
            self.best = {k: v.clone() for k, v in self.candidate.state_dict().items()}
        self.trainer.curve.append(point)

    def state(self) -> State:
        """Return all that is needed to continue, as tensors."""
        return over("trainer", self.trainer.state()) | over("best", self.best)

    def load(self, state: State) -> Self:
        """Continue from where another stopped."""
        self.trainer.load(under("trainer", state))
        self.best = under("best", state)
        return self
