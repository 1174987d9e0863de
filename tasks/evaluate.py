"""Evaluation: a fitted model's samples against real ones that it was not fitted to."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from storage import Artifact, Dataset, InvalidRequest, Store
from storage.artifacts import short
from storage.keys import derivation_key, digest
from storage.typing import Array
from tasks import draws, evaluation_figures
from tasks.artifacts import Contents, npy, on_device, publish, read_npy, stored
from tasks.figures import first_component
from tasks.fit import mind_chain
from tasks.held_out import HeldOut, fitted_to, held_out
from tasks.progress import Reporter, caution
from tasks.requests import FitOutcome, rows_digest, spread
from wavemill.evaluation import Judge, Portrait, coherence_distance
from wavemill.evaluation.judge import memory, turns
from wavemill.specs import EvaluationSpec
from wavemill.states import over, under

KIND = EvaluationSpec.kind
SHOWN = 8  # real fields kept for pictures
REMEMBERED = 4  # fitted fields that samples are compared with
_STEPS = 12
Scores = dict[str, dict[str, float]]


@dataclass(frozen=True)
class EvaluationRequest:
    """What is judged, and by what.

    Attributes
    ----------
    artifact
        A fitted model: its key, a unique prefix, or ``kind/dataset@latest``.
    parameters
        Of :class:`wavemill.specs.EvaluationSpec`.
    where
        A DuckDB expression over sample metadata, for the real samples that judge.
    seed
        The seed of the samples drawn.
    device
        Where it is computed; not part of the key.
    """

    artifact: str
    parameters: dict[str, Any] = field(default_factory=dict)
    where: str | None = None
    seed: int = 0
    device: str = "cpu"

    @property
    def selection(self) -> str | None:
        """Which real samples judge."""
        return self.where


@dataclass(frozen=True)
class EvaluationOutcome:
    """The artifact that a request names, whether it was computed now, and the table."""

    kind: str
    key: str
    written: bool
    model: str
    table: Scores

    def __str__(self) -> str:
        state = "judged" if self.written else "was judged already"
        name, first = next(iter(self.table["model"].items()))
        return f"{self.model} {state}: {name} {first:.3f}"

    @property
    def short(self) -> str:
        """What people call the artifact."""
        return short(self.kind, self.key)


@dataclass(frozen=True)
class _Judgement:
    """What is judged, by which rows, and the key of the result."""

    dataset: Dataset
    model: Artifact
    spec: EvaluationSpec
    request: EvaluationRequest
    chosen: HeldOut
    key: str


def _asked(store: Store, dataset: str, request: EvaluationRequest) -> _Judgement:
    """Find all that a request names; the key depends on the model, the exact rows, and the seed."""
    model, source = store.artifact(request.artifact), store.dataset(dataset)
    spec = EvaluationSpec.from_parameters(request.parameters)
    found = held_out(store, source, model, request.where)
    found = replace(found, rows=found.rows.iloc[spread(len(found.rows), spec.real)])
    inputs = [model.kind, model.key, dataset, rows_digest(found.rows), request.seed]
    key = derivation_key(spec.to_dict(), inputs)
    return _Judgement(source, model, spec, request, found, key)


def lacking_draws(
    store: Store, dataset: str, request: EvaluationRequest
) -> tuple[Artifact, list[range]]:
    """Return the model, and those samples that judging needs and that workers may draw.

    Raises
    ------
    InvalidRequest
        As :func:`evaluate`.
    """
    asked = _asked(store, dataset, request)
    if stored(store, KIND, asked.key) is not None:
        return asked.model, []
    groups = draws.lacking(store, asked.model, asked.spec.samples, request.seed, request.device)
    return asked.model, groups


def evaluate(store: Store, dataset: str, request: EvaluationRequest) -> EvaluationOutcome:
    """Judge a fitted model unless the same judgement is stored.

    Raises
    ------
    InvalidRequest
        If fewer than two samples are left that the model was not fitted to, or grids or numbers
        of components differ.
    """
    asked = _asked(store, dataset, request)
    theirs, ours = asked.model.manifest["schema"]["components"], asked.dataset.schema.components
    if list(theirs) != list(ours):
        caution(
            f"{asked.model.short} was fitted to {', '.join(theirs)}, and is "
            f"judged by {', '.join(ours)} of {dataset}"
        )
    _mind_kinship(asked)
    mind_chain(asked.model.short, json.loads(asked.model.read("metrics.json")))
    found = stored(store, KIND, asked.key) or _evaluate(store, asked)
    table: Scores = json.loads(store.artifact_at(KIND, asked.key).read("metrics.json"))
    return EvaluationOutcome(KIND, asked.key, found.written, asked.model.short, table)


def _mind_kinship(asked: _Judgement) -> None:
    """Warn of samples left out as fitted to, of others akin to such, and if such are gone."""
    chosen, name = asked.chosen, asked.model.short
    if chosen.files is None:
        caution(
            f"{asked.model.manifest['dataset']!r}, which {name} was fitted to, is gone: "
            f"memory cannot be scored, and fields of {asked.dataset.name} may be among those it "
            "was fitted to"
        )
    if chosen.same:
        caution(
            f"{chosen.same} samples of {asked.dataset.name} do not judge: {name} was fitted to the "
            "same fields under other names"
        )
    if related := chosen.related():
        caution(
            f"{related} of {len(chosen.rows)} samples that judge are of files that hold samples "
            f"fitted to: frames of one run are alike; fit {name} to whole files, with --where"
        )


def _evaluate(store: Store, asked: _Judgement) -> FitOutcome:
    dataset, model, spec, request = asked.dataset, asked.model, asked.spec, asked.request
    rows = asked.chosen.rows
    test = _with_components(dataset.read(rows))
    fitted = _fitted_fields(store, model, test)
    drawn = draws.drawn(store, model, spec.samples, request.seed, request.device)
    sets = {"test": test, "drawn": _with_components(drawn), "fitted": fitted}
    table: Scores = {}
    for number in reversed(range(test.shape[1])):  # first one last: for the pictures
        one = {name: np.ascontiguousarray(x[:, number]) for name, x in sets.items()}
        judge, rows_of_one, portrait = _judged(one, spec, dataset, request)
        suffix = f" [{dataset.schema.components[number]}]" if number else ""
        table = {f"{name}{suffix}": row for name, row in rows_of_one.items()} | table
    _between_components(table, test, sets["drawn"], bool(dataset.schema.periodic))
    test = one["test"]
    tensors = over("model", portrait.state()) | over("test", judge.portrait.state())
    contents = Contents(
        metrics=table,
        samples=list(rows["sample_id"]),
        files={
            "samples.npy": npy(drawn),
            "real.npy": npy(test[spread(len(test), SHOWN)]),
            "portraits.safetensors": save_tensors(tensors),
        },
        pictures=evaluation_figures.pictures(
            {"real": test, model.kind: first_component(drawn)},
            {"real": judge.portrait, model.kind: portrait},
            judge.periodic,
        ),
        said={
            "model": {"kind": model.kind, "key": model.key, "spec": model.manifest["spec"]},
            "fitted": len(json.loads(model.read("samples.json"))),
            "scales": judge.J,
            "turns": _turns(len(test), len(drawn)),
            "same": asked.chosen.same,
        },
    )
    return publish(store, dataset, asked.key, spec, request, contents)


def _judged(
    fields: dict[str, Array], spec: EvaluationSpec, dataset: Dataset, request: EvaluationRequest
) -> tuple[Judge, Scores, Portrait]:
    """Judge one component: return its judge, rows of real fields and of the model, its portrait."""
    test, drawn, fitted = (
        on_device(fields[name], request.device) for name in ("test", "drawn", "fitted")
    )
    periodic = bool(dataset.schema.periodic)
    judge = _kept(_Bench(fields["test"]), spec.J, spec.L, periodic, request.device)
    rows, portrait = judge.compare(drawn, fitted)
    real = {"memory": memory(test, fitted)}
    told = {name: row if name == "model" else row | real for name, row in rows.items()}
    return judge, {name: _defined(name, row) for name, row in told.items()}, portrait


def _between_components(table: Scores, test: Array, drawn: Array, periodic: bool) -> None:
    """Add to the rows of the first of several components how far apart their coherence is."""
    if test.shape[1] == 1:
        return
    real, made = torch.from_numpy(test), torch.from_numpy(drawn)
    for name, row in table.items():
        if name.endswith("]"):
            continue
        apart = []
        for turn in turns(len(real), len(made)):
            few = turn.real[:1] if name == "real, one map" else turn.real
            model = made[turn.drawn] if name == "model" else real[few]
            apart.append(coherence_distance(model, real[turn.others], periodic))
        row["coherence"] = float(np.mean(apart))


def _turns(real: int, drawn: int) -> dict[str, int]:
    """Return how many times fields are compared, how many, and with how many others."""
    plan = turns(real, drawn)
    return {"times": len(plan), "fields": len(plan[0].real), "others": len(plan[0].others)}


def _with_components(fields: Array) -> Array:
    """Return ``(n, component, y, x)`` of fields that may have no component axis."""
    return fields if fields.ndim == 4 else fields[:, None]


def _defined(name: str, scores: dict[str, float]) -> dict[str, float]:
    """Leave out what is undefined, such as the diversity of a single sample; but never eps."""
    if not np.isfinite(scores["eps"]):
        if name == "model":
            raise InvalidRequest(
                "eps of the model is not defined: its samples are too large beside the real fields "
                "to be compared; was it fitted in other units?"
            )
        raise InvalidRequest(
            "eps is not defined: real fields, or half of them, do not vary (within borders if they "
            "do not wrap around); choose others to judge by with --where"
        )
    return {name: value for name, value in scores.items() if np.isfinite(value)}


class _Bench:
    """Real fields, equal to others with the same values: the key under which a judge is kept."""

    def __init__(self, fields: Array) -> None:
        self.fields, self.name = fields, (digest(fields.tobytes()), fields.shape)

    def __hash__(self) -> int:
        return hash(self.name)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Bench) and self.name == other.name


@lru_cache(maxsize=1)
def _kept(bench: _Bench, J: int, L: int, periodic: bool, device: str) -> Judge:
    """Return a judge; the last one is kept, since models are compared on the same fields."""
    fields = on_device(bench.fields, device)
    return Judge(fields, J, L, periodic, _follower("judge real fields"))


def _fitted_fields(store: Store, model: Artifact, like: Array) -> Array:
    """Return a few of the samples that a model was fitted to; none if they are gone."""
    if (fitted := fitted_to(store, model)) is None:
        return like[:0]
    source, ids = fitted
    rows = source.samples()
    return _with_components(source.read(rows[rows["sample_id"].isin(ids[:REMEMBERED])]))


def _follower(what: str) -> Callable[[str], None]:
    report, done = Reporter(what), 0

    def follow(step: str) -> None:
        nonlocal done
        done += 1
        report(min(done, _STEPS), _STEPS, step)

    return follow


def drawn_fields(artifact: Artifact) -> tuple[Array, Array]:
    """Return the real fields shown, and the model's samples, that an evaluation holds."""
    real, drawn = (read_npy(artifact, name) for name in ("real.npy", "samples.npy"))
    return real, first_component(drawn)


def portraits(artifact: Artifact) -> tuple[Portrait, Portrait]:
    """Return the portraits of the real fields and of the model's samples."""
    tensors = load_tensors(artifact.read("portraits.safetensors"))
    real, made = (Portrait.from_state(under(side, tensors)) for side in ("test", "model"))
    return real, made
