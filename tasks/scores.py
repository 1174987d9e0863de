"""Scores: a classifier, regression or generator on samples that it did not learn from."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from storage import Artifact, Dataset, InvalidRequest, Store
from storage.documents import now
from storage.keys import canonical, derivation_key, digest
from tasks import classifier, classifier_figures, generation, regression
from tasks import regression_report as molecules
from tasks.artifacts import Contents, publish, stored
from tasks.classifier_data import label_names
from tasks.classifier_report import per_class
from tasks.evaluate import EvaluationOutcome, EvaluationRequest, Scores
from tasks.held_out import not_learnt
from tasks.prediction import class_scores
from tasks.progress import caution
from tasks.report import Section, Table, held_pictures, write_report
from tasks.requests import rows_digest
from wavemill.dictionaries.training import confusion, topk
from wavemill.specs import ScoresSpec

KIND = ScoresSpec.kind
HELD_OUT = "held out when fitted"
CAPTIONS = {
    "confusion": "For each class, a row, what part of it was taken for each.",
    "parity": "Predictions against the truth, and the distribution of errors.",
    "errors": "Mean absolute error by size and by elements.",
    "reconstruct": "Samples, and below them what their codes give.",
    "psnr": "Signal-to-noise ratios of reconstructions.",
}


def score(store: Store, dataset: str, request: EvaluationRequest) -> EvaluationOutcome:
    """Score a classifier, a regression or a generator unless the same scores are stored.

    Raises
    ------
    InvalidRequest
        If no sample with a known answer is left that it did not learn from.
    """
    model, source = store.artifact(request.artifact), store.dataset(dataset)
    if request.parameters:
        given = ", ".join(request.parameters)
        raise InvalidRequest(f"scores of a {model.kind} have no parameters; given: {given}")
    spec, rows = ScoresSpec(), _judging(store, source, model, request.where)
    target = model.manifest.get("target")
    answers = digest(canonical(list(map(str, rows[target]) if target else [])))
    key = derivation_key(
        spec.to_dict(), [model.kind, model.key, dataset, rows_digest(rows), answers]
    )
    found = stored(store, KIND, key)
    if found is None:
        contents = JUDGES[model.kind](store, model, source, rows, request.device)
        found = publish(store, source, key, spec, request, contents)
    table: Scores = json.loads(store.artifact_at(KIND, key).read("metrics.json"))
    return EvaluationOutcome(KIND, key, found.written, model.short, table)


def _judging(store: Store, source: Dataset, model: Artifact, where: str | None) -> pd.DataFrame:
    """Return the selected samples that a model did not learn from, and whose answer is known.

    Generators give no answers.
    """
    target, name = model.manifest.get("target"), model.short
    rows = source.samples(where)
    if target and target not in rows:
        columns = ", ".join(map(str, rows))
        raise InvalidRequest(
            f"{name} predicts {target!r}, and {source.name} has no such column to judge by; "
            f"columns: {columns}"
        )
    if target:
        rows = rows[rows[target].notna()]
    found = not_learnt(store, source, model, rows)
    if not len(found.rows):
        answered = f"has {target!r} and that " if target else ""
        same = f" ({found.same} more are the same by other names)" if found.same else ""
        raise InvalidRequest(
            f"no sample of {source.name!r} is left that {answered}{name} did not "
            f"learn from{same}: select others with --where, or name another dataset"
        )
    if found.same:
        caution(
            f"{found.same} samples of {source.name} do not judge: {name} learnt from the same "
            "under other names"
        )
    return found.rows.reset_index(drop=True)


def _of_classes(
    store: Store, model: Artifact, source: Dataset, rows: pd.DataFrame, device: str
) -> Contents:
    """Count right answers; samples of classes that were never learnt count as wrong."""
    predictor = classifier.Predictor(model, device)
    rows, scores = class_scores(store, predictor, source.name, rows, device)
    labels = label_names(rows[str(model.manifest["target"])])
    place = {label: number for number, label in enumerate(predictor.classes)}
    known = torch.tensor(labels.isin(place).to_numpy())
    y = torch.tensor([place[label] for label in labels[known.numpy()]], dtype=torch.int64)
    share = float(known.double().mean())
    counts = confusion(scores[known], y).numpy()
    table = per_class(counts, predictor.classes)
    made = {f"top{k}": share * topk(scores[known], y, k) if len(y) else 0.0 for k in (1, 5)}
    made["mean_recall"] = float(table["recall"][table["samples"] > 0].mean()) if len(y) else 0.0
    made |= {"samples": float(len(rows)), "of_unlearnt_classes": float((~known).sum())}
    predictions = predictor.table(rows["sample_id"], scores)
    predictions.insert(1, "label", labels.to_numpy())
    files = {
        "predictions.csv": predictions.to_csv(index=False),
        "classes.csv": table.to_csv(),
        "confusion.csv": pd.DataFrame(counts, predictor.classes, predictor.classes).to_csv(),
    }
    pictures = {"confusion": classifier_figures.confusion(counts, predictor.classes)}
    return _contents(model, rows, made, files, pictures)


def _of_numbers(
    store: Store, model: Artifact, source: Dataset, rows: pd.DataFrame, device: str
) -> Contents:
    """Measure errors of molecules whose elements were learnt; the others are counted."""
    target, unit = str(model.manifest["target"]), model.manifest["unit"]
    truth, given = regression.target_of(rows, source, target)
    if given != unit:
        way = f": ingest it again with --target {target}:{unit}" if unit and not given else ""
        raise InvalidRequest(
            f"{model.short} predicts {target!r} in {unit or 'an unknown unit'}, "
            f"{source.name} has it in {given or 'an unknown unit'}{way}"
        )
    named = rows[["sample_id", "formula"]]
    said = regression.predict(store, model, named, source.read_atoms(rows), device)
    columns = ["sample_id", "formula", "n_atoms", "n_heavy"]
    test = rows[columns].assign(truth=truth, predicted=said[target], flag=said["flag"])
    good = test[(test["flag"] == "") & np.isfinite(truth)]
    if not len(good):
        raise InvalidRequest(f"none of {len(test)} molecules can be predicted: {test['flag'][0]}")
    made = molecules.metrics_of(good)
    made |= {"samples": float(len(good)), "flagged": float(len(test) - len(good))}
    pictures = molecules.pictures(good, target, unit)
    return _contents(model, rows, made, {"predictions.csv": test.to_csv(index=False)}, pictures)


def _of_pictures(
    store: Store, model: Artifact, source: Dataset, rows: pd.DataFrame, device: str
) -> Contents:
    """Measure how near reconstructions of samples are."""
    table, made, pictures = generation.judge(model, source, rows, device)
    files = {generation.SCORES: table.to_csv(index=False)}
    rows = rows[rows["sample_id"].isin(table["sample_id"])]
    return _contents(model, rows, made, files, pictures, "test_")


JUDGES: dict[str, Callable[[Store, Artifact, Dataset, pd.DataFrame, str], Contents]] = {
    classifier.KIND: _of_classes,
    regression.KIND: _of_numbers,
    generation.KIND: _of_pictures,
}


def _contents(
    model: Artifact,
    rows: pd.DataFrame,
    made: dict[str, float],
    files: dict[str, str],
    pictures: dict[str, bytes],
    prefix: str = "",
) -> Contents:
    """Return what is published: the scores beside those of the samples held out at the fit.

    Among the model's metrics the latter may have names with a prefix.
    """
    metrics = json.loads(model.read("metrics.json"))
    before = {name: metrics[f"{prefix}{name}"] for name in made if f"{prefix}{name}" in metrics}
    return Contents(
        metrics={HELD_OUT: before, "model": made},
        samples=list(rows["sample_id"]),
        files={name: text.encode() for name, text in files.items()},
        pictures=pictures,
        said={"model": {"kind": model.kind, "key": model.key, "spec": model.manifest["spec"]}},
    )


def records(table: Scores) -> list[dict[str, str]]:
    """Return a row for each score: its value here, and what it was at the fit."""
    before, made = table[HELD_OUT], table["model"]
    return [
        {
            "score": name,
            "here": f"{value:.6g}",
            HELD_OUT: f"{before[name]:.6g}" if name in before else "",
        }
        for name, value in made.items()
    ]


def report(store: Store, outcome: EvaluationOutcome, target: Path) -> Path:
    """Write the page on one scored model."""
    found = store.artifact_at(outcome.kind, outcome.key)
    manifest = found.manifest
    text = f"{manifest['samples']:,} samples that it did not learn from"
    text += f", of those where {manifest['selection']}." if manifest["selection"] else "."
    command = ["wavemill", "evaluate", outcome.model, manifest["dataset"]]
    command += ["--where", manifest["selection"]] if manifest["selection"] else []
    sections = [
        Section("Scores", text, tables=[Table.of(records(outcome.table))]),
        Section("Pictures", pictures=held_pictures(found, CAPTIONS)),
        Section("Lineage", commands=[shlex.join(command)]),
    ]
    subtitle = (
        f"dataset {manifest['dataset']} version {manifest['dataset_version']}, "
        f"written {now()[:19]}Z; {outcome.short}"
    )
    return write_report(target, f"{outcome.model} judged", subtitle, sections)
