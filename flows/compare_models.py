"""Fit several models to the same samples, judge each, and set them side by side."""

from __future__ import annotations

from typing import Annotated, Any

from prefect import flow
from pydantic import Field

from flows.evaluate import evaluate
from flows.fit import fit
from flows.parameters import (
    STORE,
    Cluster,
    Dataset,
    Device,
    Parameters,
    Seed,
    Store,
    Where,
    described,
)
from flows.session import session
from tasks.comparison import split_kind
from tasks.evaluate import Scores
from tasks.steps.judgements import draw_comparison, first_samples

Models = Annotated[
    dict[str, dict[str, Any]] | None,
    Field(description="Name of each model to its parameters, and its kind if not its name."),
]


@flow(
    name="compare-models",
    flow_run_name="{dataset}",
    description="Fit, judge and tabulate several models side by side.",
)
@described
def compare_models(
    dataset: Dataset,
    store: Store = STORE,
    models: Models = None,
    where: Where = None,
    train: Annotated[
        int, Field(description="Without a selection: learn from so many samples, the first.")
    ] = 1,
    parameters: Parameters = None,
    seed: Seed = 0,
    device: Device = "cpu",
    report: Annotated[str | None, Field(description="HTML file to write as well.")] = None,
    cluster: Cluster = "threads",
) -> Scores:
    """Compute what is not stored; the table has a row for real fields, then one for each model."""
    judged, asked = {}, models or {"gaussian": {}, "phase-harmonics": {}}
    chosen = {name: split_kind(name, settings) for name, settings in asked.items()}
    with session(store, cluster, device) as run:
        selection = where or first_samples(run.url, dataset, train)
        for name, (kind, fields) in chosen.items():
            made = fit(kind, dataset, store, fields, where=selection, seed=seed, device=device)
            judged[name] = evaluate(
                f"{made.kind}/{made.key}",
                dataset,
                store,
                parameters,
                seed=seed,
                device=device,
                cluster=cluster,
            )
        return draw_comparison(run.url, dataset, judged, report)
