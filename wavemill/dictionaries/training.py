"""Training of a network in epochs, each of which depends on the state before it and nothing else.

Whatever is random in epoch e comes from the seed and e, so that training resumed from the state
after any epoch ends with the same bits as training that was never interrupted (on one device, with
the same number of threads).
"""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Iterable, Iterator
from typing import Any, Self

import torch
from torch import Tensor, nn

from wavemill.dictionaries.team import SharedNorm, Team
from wavemill.progress import Progress
from wavemill.specs.images import ClassifierSpec
from wavemill.states import over, under

Batches = Iterable[tuple[Tensor, Tensor]]


class Training:
    """Stochastic gradient descent on the cross-entropy.

    Parameters
    ----------
    network
        From features to scores; it is moved to ``device``.
    spec
        Rate, momentum, decay, schedule, and the smoothing of targets.
    steps
        Batches in an epoch.
    seed
        Seed of everything random.
    team
        The processes that train the same network, each on its own samples of every batch.
    """

    def __init__(
        self,
        network: nn.Module,
        spec: ClassifierSpec,
        steps: int,
        seed: int,
        device: str = "cpu",
        team: Team | None = None,
    ) -> None:
        self.network = network.to(device)
        self.team = team or Team()
        for module in network.modules():
            if isinstance(module, SharedNorm):
                module.team = self.team
        self.spec, self.steps, self.seed, self.device = spec, steps, seed, device
        self.epoch = 0
        groups = _groups(network, spec.decay)
        self.optimizer = torch.optim.SGD(groups, spec.rate, momentum=spec.momentum)

    def rate(self, step: int) -> float:
        """Return the rate at a step of the current epoch."""
        spec, passed = self.spec, self.epoch + step / self.steps
        if spec.schedule == "cosine":
            return spec.rate * 0.5 * (1 + math.cos(math.pi * min(passed / spec.epochs, 1.0)))
        return spec.rate * spec.factor ** (self.epoch // spec.every)

    def advance(self, batches: Batches, progress: Progress | None = None) -> dict[str, float]:
        """Train one epoch; return the mean loss and the fraction of right answers during it.

        In a team each member is given its own share of the batches, and returns the figures of all.
        """
        self.network.train()
        loss = right = count = 0.0
        with _seeded(self.seed, self.epoch, self.device, self.team.rank):
            for step, (x, y) in enumerate(batches):
                value, scores = self._step(x.to(self.device), y.to(self.device), step)
                loss += float(value) * len(y)
                right += float((scores.argmax(1).cpu() == y).sum())
                count += len(y)
                if progress is not None:
                    progress(step + 1, self.steps, {"loss": loss / count, "right": right / count})
        self.epoch += 1
        told = torch.tensor([loss, right, count], dtype=torch.float64, device=self.device)
        loss, right, count = self.team.total(told).tolist()
        return {"loss": loss / max(count, 1), "right": right / max(count, 1)}

    def _step(self, x: Tensor, y: Tensor, step: int) -> tuple[Tensor, Tensor]:
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate(step)
        self.optimizer.zero_grad()
        with self._precision():
            scores: Tensor = self.network(x)
            loss = nn.functional.cross_entropy(
                scores.float(), y, label_smoothing=self.spec.smoothing
            )
        part = 1.0
        if self.team.size > 1:
            part = len(y) / float(self.team.total(torch.tensor(len(y), device=self.device)))
        torch.autograd.backward(loss * part)
        self.team.add_gradients(self.network.parameters())
        self.optimizer.step()
        return loss.detach(), scores.detach()

    def _precision(self) -> contextlib.AbstractContextManager[object]:
        mixed = self.spec.precision == "mixed" and self.device == "cuda"
        return torch.autocast("cuda", torch.bfloat16) if mixed else contextlib.nullcontext()

    @torch.no_grad()
    def scores(self, batches: Iterable[Tensor]) -> Tensor:
        """Return scores ``(n, class)`` on the CPU; members of a team take batches in turns."""
        self.network.eval()
        mine = itertools.islice(batches, self.team.rank, None, self.team.size)
        with self._precision():
            found = [self.network(x.to(self.device)).float().cpu() for x in mine]
        return torch.cat(self.team.gather(found))

    def state(self) -> dict[str, Tensor]:
        """Return all that the next epoch depends on: weights, statistics, momenta, the epoch."""
        found = over("network", self.network.state_dict())
        for index, values in self.optimizer.state_dict()["state"].items():
            momentum = values.get("momentum_buffer")
            if momentum is not None:
                found[f"momentum.{index}"] = momentum
        found["epoch"] = torch.tensor(self.epoch)
        return {name: value.detach().cpu().clone().contiguous() for name, value in found.items()}

    def load(self, state: dict[str, Tensor]) -> Self:
        """Continue from the state that another training reached."""
        self.epoch = int(state["epoch"])
        self.network.load_state_dict(under("network", state))
        document: dict[str, Any] = self.optimizer.state_dict()
        document["state"] = {
            int(index): {"momentum_buffer": value.to(self.device)}
            for index, value in under("momentum", state).items()
        }
        self.optimizer.load_state_dict(document)
        return self


def _groups(network: nn.Module, decay: float) -> list[dict[str, Any]]:
    """Return parameters with and without decay: biases and factors of norms have none.

    V has none either, since its length has no effect.
    """
    named = [(name, value) for name, value in network.named_parameters() if value.requires_grad]
    kept = [value for name, value in named if value.ndim < 2 or name.endswith(".V")]
    rest = [value for name, value in named if not (value.ndim < 2 or name.endswith(".V"))]
    groups = [{"params": rest, "weight_decay": decay}, {"params": kept, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


@contextlib.contextmanager
def _seeded(seed: int, epoch: int, device: str, rank: int) -> Iterator[None]:
    """Draw from the seed, the epoch and the member, and leave the generators as they were."""
    with torch.random.fork_rng([0] if device == "cuda" else []):
        torch.manual_seed(generator_seed(seed, epoch) + (rank << 40))
        yield


def generator_seed(seed: int, epoch: int) -> int:
    """Return a number of its own for each epoch of each seed."""
    return (seed * 1_000_003 + epoch) % (1 << 62)


def topk(scores: Tensor, y: Tensor, k: int) -> float:
    """Return how often the class is among the k of highest score."""
    best = scores.topk(min(k, scores.shape[1]), dim=1).indices
    return float((best == y[:, None]).any(1).double().mean())


def confusion(scores: Tensor, y: Tensor) -> Tensor:
    """Return how many of each class (row) were taken for each (column)."""
    classes = scores.shape[1]
    counts = torch.bincount(y * classes + scores.argmax(1), minlength=classes**2)
    return counts.view(classes, classes)
