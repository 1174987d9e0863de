"""Fit a model on samples of a dataset."""

from __future__ import annotations

from typing import Annotated

from prefect import flow
from pydantic import Field

from flows.parameters import (
    STORE,
    Dataset,
    Device,
    Parameters,
    Seed,
    Split,
    Store,
    Where,
    described,
)
from flows.session import session
from tasks.kinds import MODELS_HELP, TARGET_HELP, TOGETHER_HELP, models
from tasks.requests import FitOutcome, FitRequest
from tasks.steps.models import fit_model


@flow(
    name="fit",
    flow_run_name="{model} of {dataset}",
    description="A model fitted on selected samples, kept as an artifact.",
)
@described
def fit(
    model: Annotated[str, Field(description=MODELS_HELP)],
    dataset: Dataset,
    store: Store = STORE,
    parameters: Parameters = None,
    where: Where = None,
    split: Split = None,
    seed: Seed = 0,
    device: Device = "cpu",
    view: Annotated[
        str | None, Field(description="Features to learn from: a view, or KIND:KEY=VALUE,...")
    ] = None,
    target: Annotated[str | None, Field(description=TARGET_HELP)] = None,
    cluster: Annotated[str, Field(description=TOGETHER_HELP)] = "threads",
) -> FitOutcome:
    """Fit unless the same fit is stored; show its figures."""
    request = FitRequest(model, parameters or {}, where, split, seed, device, view, target)
    with session(store, cluster, device) as run:
        together = cluster != "threads" and model in models(lambda kind: kind.together)
        return fit_model(run.url, dataset, request, run.address() if together else None)
