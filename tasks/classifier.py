"""Classifiers: features and a label become an artifact, in epochs that survive being killed."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from storage import Artifact, InvalidRequest, Store
from storage.keys import canonical, derivation_key, digest
from storage.typing import Array
from tasks import classifier_figures as figures
from tasks.artifacts import Contents, on_device, publish, spec_of, stored, weights_of
from tasks.checkpoints import EpochCheckpoints, EpochState, Row
from tasks.classifier_data import Data, split
from tasks.classifier_report import card, code_pictures, per_class
from tasks.feature_batches import BUDGET, READ
from tasks.live_features import features
from tasks.progress import Reporter
from tasks.requests import FitOutcome, FitRequest, rows_digest
from wavemill.dictionaries import starts
from wavemill.dictionaries.classifiers import (
    Network,
    RidgeClassifier,
    Standardisation,
    check_ridge,
)
from wavemill.dictionaries.team import Team
from wavemill.dictionaries.training import Training, confusion, topk
from wavemill.specs import ClassifierSpec
from wavemill.states import over, under

KIND = "classifier"
STANDARD, BEST = "standardisation", "best"


def fit(store: Store, dataset: str, request: FitRequest, team: Team | None = None) -> FitOutcome:
    """Fit a classifier unless the same fit is stored; one that was killed continues.

    Every member of a team calls it; the first one writes.

    Raises
    ------
    InvalidRequest
        If the view or the target is missing, or too few samples are selected.
    """
    if request.view is None or request.target is None:
        raise InvalidRequest("a classifier needs --view and --target: see `wavemill show DATASET`")
    spec = ClassifierSpec.from_parameters(request.parameters)
    frames = [
        features(store, dataset, view, request.selection, request.device)
        for view in (request.view, spec.mirror)
        if view
    ]
    data = split(frames[0], frames[1] if spec.mirror else None, request, spec)
    rows = pd.concat([data.learnt, data.held])
    views = [found.version.spec for found in frames]
    labels = [list(data.classes), data.numbers(rows).tolist()]
    labels += [[data.unlearnt]] if data.unlearnt else []  # on which the metrics depend, too
    inputs = [dataset, rows_digest(rows), digest(canonical(labels)), views, data.target]
    key = derivation_key(spec.to_dict(), [*inputs, request.seed])
    found = stored(store, KIND, key)
    return found or _Fit(store, dataset, data, spec, request, key, team or Team()).run()


class _Fit:
    """One fit: what it needs at every epoch, and what it publishes in the end."""

    def __init__(
        self,
        store: Store,
        dataset: str,
        data: Data,
        spec: ClassifierSpec,
        request: FitRequest,
        key: str,
        team: Team,
    ) -> None:
        self.team = team
        self.store, self.dataset, self.data, self.spec = store, dataset, data, spec
        self.request, self.key = request, key
        self.checkpoints = EpochCheckpoints(store, KIND, key)
        self.standardisation = Standardisation(spec.components, spec.power)

    def run(self) -> FitOutcome:
        """Continue from the last checkpoint, if there is one, to the published artifact."""
        if self.spec.model == "ridge":  # before anything is read
            sides = 1 if self.data.mirror is None else 2
            features = math.prod(reduced(self.data.shape, self.spec))
            check_ridge(sides * len(self.data.learnt), features)
        else:
            self._check_batch()
        found = self.checkpoints.latest()
        self.team.wait()  # nobody writes before all have read
        if found is not None:
            self.standardisation.load(under(STANDARD, found.state))
        else:
            self._standardise()
        data, standard = self.data, self.standardisation
        self.learnt = data.learning(standard)
        self.held = data.judging(standard, self.spec.both)
        self.learnt.budget = self.held.budget = BUDGET // self.team.size
        self.held.keep()
        if self.spec.model == "ridge":
            return self._ridge()
        return self._trained(found)

    def _check_batch(self) -> None:
        """Refuse batches that training would leave out, all of them: see `shuffled`."""
        most, least = min(self.spec.batch, len(self.data.learnt)), max(2, self.team.size)
        if most < least:
            raise InvalidRequest(
                f"batches of {most} of the {len(self.data.learnt)} samples learnt from are too "
                f"small: they take {least} or more"
            )

    def _standardise(self) -> None:
        report = Reporter(f"standardise {self.dataset}")
        raw = self.data.learning(self.standardisation)
        count = min(self.spec.statistics or len(raw), len(raw))
        chosen = np.arange(count) * len(raw) // count
        for start in range(0, count, READ):
            rows = chosen[start : start + READ]
            self.standardisation.update(torch.from_numpy(raw.read(rows)))
            report(start + len(rows), count)
        self.standardisation.solve()

    def _ridge(self) -> FitOutcome:
        model = RidgeClassifier(len(self.data.classes))
        report, done = Reporter("fit ridge"), 0
        for x, y in self.learnt.ordered():
            model.update(x.flatten(1), y)
            report(done := done + len(y), self.learnt.sides * len(self.learnt))
        held = torch.cat([x.flatten(1) for x, _ in self.held.ordered()])
        if self.spec.alpha is None:
            model.choose(held, torch.cat([y for _, y in self.held.ordered()]))
        else:
            model.solve(self.spec.alpha)
        state = {"weights": model.weights_, "bias": model.bias_}
        return self._publish(state, self._mean(model(held)), [])

    def _trained(self, found: EpochState | None) -> FitOutcome:
        spec, seed = self.spec, self.request.seed
        with torch.random.fork_rng([]):
            torch.manual_seed(seed)
            network = Network(reduced(self.data.shape, spec), len(self.data.classes), spec)
        if found is None:
            self._start(network)
        steps, device = self.learnt.steps(spec.batch), self.request.device
        training = Training(network, spec, steps, seed, device, self.team)
        if found is None:
            found = self._checkpoint(training, [], {})
        training.load(found.state)
        best = under(BEST, found.state)
        history = found.history
        while training.epoch < spec.epochs and not self._stopped(history):
            history = [*history, self._epoch(training)]
            if spec.patience and history[-1]["held_loss"] == min(_losses(history)):
                best = network_state(training)
            self._checkpoint(training, history, best)
        if best:
            network.load_state_dict(best)
        return self._publish(network_state(training), self._scores(training), history, network)

    def _scores(self, training: Training) -> Tensor:
        return self._mean(training.scores(x for x, _ in self.held.ordered()))

    def _mean(self, scores: Tensor) -> Tensor:
        """Return scores, averaged over the held-out samples and their mirror images, if any."""
        return scores.view(-1, len(self.held), scores.shape[1]).mean(0)

    def _start(self, network: Network) -> None:
        """Solve for the last linear form in closed form, if the spec says so."""
        if self.spec.closed:
            held, classes = next(self.held.ordered(2048)), len(self.data.classes)
            starts.close(network, self.learnt.ordered, held, classes, self.spec.alpha)

    def _right(self, scores: Tensor, count: int) -> float:
        """Return the part of all held-out samples whose class is among the ``count`` likeliest."""
        return topk(scores, self.held.labels, count) * self.data.known

    def _stopped(self, history: list[Row]) -> bool:
        losses, patience = _losses(history), self.spec.patience
        return bool(patience and losses and len(losses) - 1 - losses.index(min(losses)) >= patience)

    def _epoch(self, training: Training) -> Row:
        epoch = training.epoch
        report = Reporter(f"epoch {epoch + 1} of {self.spec.epochs}").values
        batches = self.learnt.shuffled(self.spec.batch, self.request.seed, epoch, self.team)
        passed = training.advance(batches, report)
        scores = self._scores(training)
        row = {
            "epoch": float(epoch + 1),
            "train_loss": passed["loss"],
            "train_top1": passed["right"],
            "held_loss": float(torch.nn.functional.cross_entropy(scores, self.held.labels)),
            "held_top1": self._right(scores, 1),
            "held_top5": self._right(scores, 5),
        }
        if not all(map(math.isfinite, row.values())) or not bool(scores.isfinite().all()):
            raise InvalidRequest(
                f"training diverged in epoch {epoch + 1}: loss {row['train_loss']:.3g}, of samples "
                f"held out {row['held_loss']:.3g}; lower rate={self.spec.rate:g}"
            )
        return row

    def _checkpoint(
        self, training: Training, history: list[Row], best: dict[str, Tensor]
    ) -> EpochState:
        state = {
            **training.state(),
            **over(STANDARD, self.standardisation.state()),
            **over(BEST, best),
        }
        made = EpochState(state, history)
        if self.team.leads:
            self.checkpoints.save(made)
        return made

    def _publish(
        self,
        state: dict[str, Tensor],
        scores: Tensor,
        history: list[Row],
        network: Network | None = None,
    ) -> FitOutcome:
        data, request = self.data, self.request
        counts = confusion(scores, self.held.labels).numpy()
        metrics = self._metrics(scores, history)
        if not self.team.leads:
            self.team.wait()
            return FitOutcome(KIND, self.key, False, metrics)
        source = self.store.dataset(self.dataset)
        files = {
            "history.csv": pd.DataFrame(history).to_csv(index=False),
            "classes.csv": per_class(counts, data.classes).to_csv(),
            "confusion.csv": pd.DataFrame(counts, data.classes, data.classes).to_csv(),
            "card.md": card(data, self.spec, request, metrics),
        }
        pictures = {"confusion": figures.confusion(counts, data.classes)}
        pictures |= {"curves": figures.curves(history)} if history else {}
        pictures |= code_pictures(network, self.held, data, self.standardisation, source)
        contents = Contents(
            metrics=metrics,
            samples=list(data.learnt["sample_id"]),
            weights={**state, **over(STANDARD, self.standardisation.state())},
            files={name: text.encode() for name, text in files.items()},
            pictures=pictures,
            said={
                "view": request.view,
                "view_spec": data.frame.version.spec,
                "mirror_spec": data.mirror and data.mirror.version.spec,
                "target": request.target,
                "classes": list(data.classes),
                "shape": list(data.shape),
            },
        )
        outcome = publish(self.store, source, self.key, self.spec, request, contents)
        self.checkpoints.clear()
        self.team.wait()
        return outcome

    def _metrics(self, scores: Tensor, history: list[Row]) -> dict[str, float]:
        y = self.held.labels
        metrics = {
            "top1": self._right(scores, 1),
            "top5": self._right(scores, 5),
            "learnt_from": float(len(self.learnt)),
            "held_out": float(len(y) + self.data.unlearnt),
            "held_unlearnt": float(self.data.unlearnt),
            "epochs": float(len(history)),
        }
        if history:
            metrics["train_top1"] = history[-1]["train_top1"]
            metrics["loss"] = float(torch.nn.functional.cross_entropy(scores, y))
        return metrics


def _losses(history: list[Row]) -> list[float]:
    return [row["held_loss"] for row in history]


def network_state(training: Training) -> dict[str, Tensor]:
    """Return the weights and statistics of the network alone."""
    return under("network", training.state())


class Predictor:
    """A fitted classifier, from features to scores.

    Attributes
    ----------
    artifact
        What it was read from.
    views
        Specs of the views that it takes: one, or two, of images and of their mirror images.
    """

    def __init__(self, artifact: Artifact, device: str = "cpu") -> None:
        self.artifact, manifest = artifact, artifact.manifest
        self.spec = spec_of(artifact, ClassifierSpec.from_parameters)
        self.classes = tuple(map(str, manifest["classes"]))
        channels, height, width = manifest["shape"]
        self.shape = (channels, height, width)
        self.views = [manifest["view_spec"]] + [manifest["mirror_spec"]] * self.spec.both
        self.device, state = device, weights_of(artifact, device)
        self.standardisation = Standardisation().load(under(STANDARD, state))
        self._ridge: RidgeClassifier | None = None
        if self.spec.model == "ridge":
            self._ridge = RidgeClassifier(len(self.classes))
            self._ridge.weights_, self._ridge.bias_ = state["weights"], state["bias"]
            return
        weights = {k: v for k, v in state.items() if not k.startswith(f"{STANDARD}.")}
        self._network = Network(reduced(self.shape, self.spec), len(self.classes), self.spec)
        self._network.to(device)
        self._network.load_state_dict(weights)
        self._network.eval()

    def scores(self, features: Sequence[Array]) -> Tensor:
        """Return scores ``(n, class)`` of features as the views store them."""
        return torch.stack([self._scores(values) for values in features]).mean(0).cpu()

    @torch.no_grad()
    def _scores(self, features: Array) -> Tensor:
        x = on_device(features, self.device).reshape(len(features), *self.shape)
        standard = self.standardisation(x)
        if self._ridge is not None:
            return self._ridge(standard.flatten(1))
        found: Tensor = self._network(standard)
        return found

    def table(self, ids: Iterable[str], scores: Tensor) -> pd.DataFrame:
        """Return one row a sample: its class, how sure that is, and the five likeliest as JSON."""
        likely = scores.softmax(1) if self._ridge is None else scores
        best = likely.topk(min(5, likely.shape[1]), dim=1)
        rows = zip(best.indices.tolist(), best.values.tolist(), strict=True)
        pairs = [
            [[self.classes[i], round(value, 4)] for i, value in zip(*row, strict=True)]
            for row in rows
        ]
        return pd.DataFrame(
            {
                "sample_id": list(ids),
                "predicted": [row[0][0] for row in pairs],
                "score": best.values[:, 0].tolist(),
                "likeliest": [json.dumps(row, ensure_ascii=False) for row in pairs],
            }
        )


def reduced(shape: tuple[int, int, int], spec: ClassifierSpec) -> tuple[int, int, int]:
    """Return the shape of standardised features."""
    return spec.components or shape[0], *shape[1:]
