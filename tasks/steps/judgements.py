"""Judgements: models are judged on what they have not seen, and set side by side."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from prefect import get_run_logger, task

from storage import open_store
from tasks import draws, scores, show
from tasks.comparison import comparison_report, joint_pictures, joint_table
from tasks.evaluate import (
    EvaluationOutcome,
    EvaluationRequest,
    Scores,
    evaluate,
    lacking_draws,
)
from tasks.kinds import models
from tasks.steps.mapped import mapped


@task(name="choose samples")
def first_samples(url: str, dataset: str, count: int) -> str:
    """Return an expression that selects the first samples of a dataset."""
    ids = open_store(url).dataset(dataset).samples()["sample_id"].head(count)
    quoted = ", ".join("'" + str(name).replace("'", "''") + "'" for name in ids)
    return f"sample_id IN ({quoted})"


@task(name="plan draws")
def plan_draws(url: str, dataset: str, request: EvaluationRequest) -> tuple[str, str, list[range]]:
    """Return kind and key of the judged model, and which of its samples workers may draw."""
    model, groups = lacking_draws(open_store(url), dataset, request)
    return model.kind, model.key, groups


@task(name="draw samples")
def draw_samples(
    url: str, address: str, kind: str, key: str, request: EvaluationRequest, groups: list[range]
) -> None:
    """Draw samples of a model on the workers, one Dask task a group."""
    model = open_store(url).artifact_at(kind, key)
    work, resources = draws.shared_out(url, model, request.seed, request.device)
    mapped(work, groups, address, f"synthesize {kind}", resources)


@task(name="evaluate model")
def evaluate_model(url: str, dataset: str, request: EvaluationRequest) -> EvaluationOutcome:
    """Judge a model on samples that it was not fitted to, and show it."""
    store = open_store(url)
    outcome = evaluate(store, dataset, request)
    artifact = store.artifact_at(outcome.kind, outcome.key)
    model = artifact.manifest["model"]["kind"]
    name = f"evaluation {model} {dataset}"
    if show.due(name, outcome.written):
        show.scores(name, joint_table({model: artifact}))
        show.pictures(f"{model} {dataset} evaluation", artifact)
    get_run_logger().info("evaluation %s", outcome)
    return outcome


@task(name="judged how")
def is_scored(url: str, artifact: str) -> bool:
    """Say whether an artifact is scored sample by sample, or draws fields that are judged."""
    return open_store(url).artifact(artifact).kind in models(lambda kind: kind.scored)


@task(name="score samples")
def score_samples(
    url: str, dataset: str, request: EvaluationRequest, report: str | None
) -> EvaluationOutcome:
    """Score a classifier, regression or generator; show it, and write a page if asked for."""
    store = open_store(url)
    outcome = scores.score(store, dataset, request)
    artifact = store.artifact_at(outcome.kind, outcome.key)
    name = f"{artifact.manifest['model']['kind']} {dataset}"
    if show.due(f"scores {name}", outcome.written):
        show.table(f"scores {name}", scores.records(outcome.table), "On samples not learnt from")
        show.pictures(f"{name} scores", artifact)
    get_run_logger().info("scores %s", outcome)
    if report is not None:
        scores.report(store, outcome, Path(report))
    return outcome


@task(name="compare models")
def draw_comparison(
    url: str, dataset: str, judged: Mapping[str, EvaluationOutcome], report: str | None
) -> Scores:
    """Set judged models side by side: in the UI, and in a page if one is asked for."""
    store = open_store(url)
    found = {name: store.artifact_at(made.kind, made.key) for name, made in judged.items()}
    table = joint_table(found)
    show.scores(f"comparison {dataset}", table)
    pictures = joint_pictures(found)
    for name, image in pictures.items():
        show.picture(f"{name} comparison {dataset}", image, f"{name}: real fields and models")
    if report is not None:
        comparison_report(found, pictures, Path(report))
    return table
