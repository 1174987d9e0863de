"""Classifiers of images by scattering: features stored once, trainings in pieces.

Features of images, of their mirror images and of shifted copies of both are computed chunk by
chunk. Trainings keep a checkpoint an epoch. All is in a folder (``WAVEMILL_BENCH_FOLDER``). A run
stops after ``WAVEMILL_BENCH_SECONDS`` at the end of a piece; ``WAVEMILL_BENCH_CASES`` names the
cases to continue, such as ``layers-0`` for the first seed.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from benchmarks import tables
from benchmarks.labelled_images import (
    CHUNK,
    MEAN,
    SEEN,
    SPREAD,
    Clock,
    Images,
    OutOfTime,
    Setting,
    replace,
)
from tasks.feature_batches import LabelledFeatures
from wavemill import Scattering2D
from wavemill.dictionaries import starts
from wavemill.dictionaries.classifiers import Network, RidgeClassifier, Standardisation
from wavemill.dictionaries.training import Training, topk
from wavemill.images import opponent
from wavemill.specs import ClassifierSpec

SECONDS = float(os.environ.get("WAVEMILL_BENCH_SECONDS", "1e9"))
DATA = Path(__file__).parents[2] / "shared" / "data"
BUDGET = 1 << 30  # bytes of features in memory
SIDES = 10  # versions of an image that networks on pixels, or a first octave, learn from
DEEP: dict[str, Any] = {
    "model": "linear",
    "blocks": (64, 128, 128, 256),
    "pool": 4,
    "power": 0.5,
    "epochs": 16,
    "rate": 0.1,
    "decay": 5e-4,
}
STANDARD: dict[str, Any] = {"components": 256, "power": 0.5, "mirror": "mirrored", "both": True}
TRAINED: dict[str, Any] = {"schedule": "cosine", "smoothing": 0.1, "dropout": 0.5}
SPARSE: dict[str, Any] = {
    **STANDARD,
    **TRAINED,
    "model": "istc-mlp",
    "channels": 128,
    "kernel": 3,
    "atoms": 512,
    "last": 0.1,
    "hidden": (256,),
    "dropout": 0.3,
    "rate": 0.05,
}


def _samples(
    sides: list[Tensor], y: Tensor, rows: slice, through: Callable[[Tensor], Tensor]
) -> LabelledFeatures:
    """Return the rows of all sides, read and transformed when they are needed."""
    kept, y = [side[rows] for side in sides], y[rows]

    def read(numbers: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        found = np.empty((len(numbers), *kept[0].shape[1:]), "float32")
        for side, x in enumerate(kept):
            there = numbers // len(y) == side
            found[there] = x.numpy()[numbers[there] % len(y)]
        return found

    return LabelledFeatures(read, y, through, len(kept), budget=BUDGET)


def plain(classes: int) -> nn.Module:
    """Six convolutions of 3 x 3 with batch norm, in three scales."""
    layers: list[nn.Module] = []
    before = 3
    for channels in (32, 64, 128):
        for _ in range(2):
            layers += [nn.Conv2d(before, channels, 3, padding=1, bias=False)]
            layers += [nn.BatchNorm2d(channels), nn.ReLU()]
            before = channels
        layers += [nn.MaxPool2d(2)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(128 * 16, classes))


class Case:
    """One row of the table."""

    def __init__(self, name: str, images: Images, seed: int) -> None:
        self.name, self.images, self.seed = name, images, seed
        self.setting = images.setting
        self.spec = ClassifierSpec.from_parameters(self.setting.cases[name])
        stem = f"{name.replace(',', '').replace(' = ', '').replace(' ', '-')}-{seed}"
        self.folder = images.folder / "runs" / stem

    def result(self) -> dict[str, Any] | None:
        """Return what is known so far."""
        path = self.folder / "result.json"
        return json.loads(path.read_text()) if path.exists() else None

    def go_on(self, clock: Clock) -> None:
        """Train as far as time allows."""
        known = self.result()
        if known and known["epochs"] >= (self.spec.epochs if self.spec.model != "ridge" else 0):
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        pixels, deep = self.name.startswith("plain"), bool(self.spec.blocks)
        if pixels or deep:
            x = self._pixels(SIDES if deep else self.setting.sides)
        else:
            x = self.images.standardised(self.spec, clock)
        through = self._first_octave(x[0]) if deep else lambda x: x
        y, last = self.images.labels, len(self.images.names) - self.setting.held
        held = _samples(x[:2], y, slice(last, None), through)
        if self.spec.model == "ridge":
            self._ridge(_samples(x[:2], y, slice(last), through), held)
            return
        learnt, shape = _samples(x, y, slice(last), through), held.features(np.arange(1)).shape[1:]
        torch.manual_seed(self.seed)
        classes = self.setting.classes
        network = plain(classes) if pixels else Network(shape, classes, self.spec)
        training = Training(network, self.spec, learnt.steps(self.spec.batch), self.seed)
        self._train(training, learnt, held, clock)

    def _pixels(self, sides: int) -> list[Tensor]:
        """Return the first sides of the pixels."""
        chunks = self.images.pixels.split(CHUNK)
        return [
            torch.cat([Images.turned(x, side, n) for n, x in enumerate(chunks)]).half()
            for side in range(sides)
        ]

    def _first_octave(self, pixels: Tensor) -> Callable[[Tensor], Tensor]:
        """Return what turns pixels into standardised features of J = 1: ten sides are 25 GB."""
        transform = Scattering2D(**{**self.setting.transform, "J": 1})
        model = Standardisation(self.spec.components, self.spec.power)

        @torch.no_grad()
        def scattered(x: Tensor) -> Tensor:
            return transform(opponent(SPREAD * x.float() + MEAN)).flatten(1, 2)

        for part in pixels[:SEEN].split(CHUNK):
            model.update(scattered(part))
        model.solve()
        return lambda x: model(scattered(x))

    def _ridge(self, learnt: LabelledFeatures, held: LabelledFeatures) -> None:
        began = time.process_time()
        model = RidgeClassifier(self.setting.classes)
        for x, y in learnt.ordered(2048):
            model.update(x.flatten(1), y)
        x = torch.cat([x.flatten(1) for x, _ in held.ordered()])
        alpha = model.choose(x, torch.cat([held.labels, held.labels]))
        print(f"penalty {alpha}", file=sys.stderr)
        self._save(model(x), held, 0, time.process_time() - began, 0.0)

    def _train(
        self, training: Training, learnt: LabelledFeatures, held: LabelledFeatures, clock: Clock
    ) -> None:
        path, network = self.folder / "checkpoint.safetensors", training.network
        began, spent, last = time.process_time(), 0.0, 0.0
        if path.exists():
            state = load_file(path)
            spent = float(state.pop("spent"))
            training.load(state)
        elif isinstance(network, Network):
            clock.check(60)
            if self.spec.closed:
                first, classes = next(held.ordered(len(held) // 2)), self.setting.classes
                starts.close(network, learnt.ordered, first, classes, self.spec.alpha)
            spent = self._checkpoint(training, spent, began, held)
        while training.epoch < self.spec.epochs:
            clock.check(1.1 * last)
            began, start = time.process_time(), time.monotonic()
            training.advance(learnt.shuffled(self.spec.batch, self.seed, training.epoch))
            spent = self._checkpoint(training, spent, began, held)
            last = time.monotonic() - start

    def _checkpoint(
        self, training: Training, spent: float, began: float, held: LabelledFeatures
    ) -> float:
        """Save the state and its scores; return the processor seconds so far."""
        spent += time.process_time() - began
        state = {**training.state(), "spent": torch.tensor(spent)}
        replace(self.folder / "checkpoint.safetensors", partial(save_file, state))
        scores = training.scores(x for x, _ in held.ordered(250))
        support = self._support(training.network, next(held.ordered(200))[0])
        self._save(scores, held, training.epoch, spent, support)
        return spent

    @staticmethod
    @torch.no_grad()
    def _support(network: nn.Module, x: Tensor) -> float:
        if not isinstance(network, Network) or network.coding is None:
            return 0.0
        return float((network.coding(x) != 0).sum(1).double().mean())

    def _save(
        self, scores: Tensor, held: LabelledFeatures, epochs: int, spent: float, support: float
    ) -> None:
        """Save how often the mean over images and mirror images is right."""
        scores, y = scores.view(2, len(held), -1).mean(0), held.labels
        row = {"epochs": epochs, "top1": topk(scores, y, 1), "top5": topk(scores, y, 5)}
        row |= {"seconds": spent, "support": support}
        (self.folder / "result.json").write_text(json.dumps(row))
        print(f"{self.name}, seed {self.seed}: {row}", file=sys.stderr, flush=True)


def rows(cases: list[Case]) -> Iterator[dict[str, Any]]:
    """Yield a row for each case that has begun."""
    for case in cases:
        found = case.result()
        if found is not None and (found["epochs"] or case.spec.model == "ridge"):
            support = f"{found['support']:.0f}" if found["support"] else ""
            yield {
                "classifier": case.name,
                "seed": case.seed,
                "epochs": found["epochs"] or "closed form",
                "top-1": f"{100 * found['top1']:.1f} %",
                "top-5": f"{100 * found['top5']:.1f} %",
                "atoms a position": support,
                "minutes": f"{found['seconds'] / 60:.1f}",
            }


def run(setting: Setting, title: str, text: str) -> None:
    """Continue with the pieces, and write the table: what is done here, and the rows it has."""
    clock, images = Clock(time.monotonic() + SECONDS), Images(setting)
    every = [Case(name, images, seed) for seed in (0, 1, 2) for name in setting.cases]
    cases = [case for case in every if not case.seed or case.spec.model != "ridge"]
    chosen = os.environ.get("WAVEMILL_BENCH_CASES")
    for case in cases:
        if chosen and case.folder.name not in chosen.split(","):
            continue
        try:
            case.go_on(clock)
        except OutOfTime as left:
            print(f"{case.name}: {left}", file=sys.stderr)
            break
    here = {(row["classifier"], str(row["seed"])): row for row in rows(cases)}
    known = {(row["classifier"], row["seed"]): row for row in tables.read(setting.name)}
    places = [(case.name, str(case.seed)) for case in cases]
    done = [(known | here)[place] for place in places if place in known | here]
    if here:
        shown = f"{text} Minutes are processor time, on {torch.get_num_threads()} thread. "
        shown += f"`python -m benchmarks {setting.name}`, in pieces."
        tables.write(setting.name, title, shown, done, tables.versions("torch", "numpy"))
