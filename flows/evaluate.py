"""Judge a fitted model on samples that it was not fitted to."""

from __future__ import annotations

from typing import Annotated

from prefect import flow
from pydantic import Field

from flows.parameters import STORE, Cluster, Dataset, Device, Parameters, Seed, Store, described
from flows.session import session
from tasks.evaluate import EvaluationOutcome, EvaluationRequest
from tasks.steps.judgements import (
    draw_comparison,
    draw_samples,
    evaluate_model,
    is_scored,
    plan_draws,
    score_samples,
)


@flow(
    name="evaluate",
    flow_run_name="{artifact} on {dataset}",
    description="A fitted model against held-out samples: table and figures.",
)
@described
def evaluate(
    artifact: Annotated[
        str, Field(description="Key of a fitted model, unique prefix, or kind/dataset@latest.")
    ],
    dataset: Dataset,
    store: Store = STORE,
    parameters: Parameters = None,
    where: Annotated[
        str | None, Field(description="Which samples judge: DuckDB, over sample metadata.")
    ] = None,
    seed: Seed = 0,
    device: Device = "cpu",
    report: Annotated[str | None, Field(description="HTML file to write as well.")] = None,
    cluster: Cluster = "threads",
) -> EvaluationOutcome:
    """Judge unless the same judgement is stored; show its table and figures."""
    request = EvaluationRequest(artifact, parameters or {}, where, seed, device)
    with session(store, cluster, device) as run:
        if is_scored(run.url, artifact):
            return score_samples(run.url, dataset, request, report)
        if cluster != "threads":
            kind, key, groups = plan_draws(run.url, dataset, request)
            if groups:
                address = run.address(len(groups))
                draw_samples(run.url, address, kind, key, request, groups)
        outcome = evaluate_model(run.url, dataset, request)
        if report is not None:
            draw_comparison(run.url, dataset, {outcome.model: outcome}, report)
        return outcome
