"""Fit a model on samples of a dataset."""

from __future__ import annotations

from typing import Annotated

from prefect import flow
from pydantic import Field

from flows.parameters import STORE, Dataset, Device, Parameters, Seed, Split, Store, Where
from flows.session import session
from tasks import steps
from tasks.requests import FitOutcome, FitRequest


@flow(name="fit", description="A model fitted on selected samples, kept as an artifact.")
def fit(
    model: Annotated[
        str,
        Field(
            description="gaussian, phase-harmonics, energy, regression, classifier, dictionary or "
            "generator."
        ),
    ],
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
    target: Annotated[str | None, Field(description="Column to learn.")] = None,
    cluster: Annotated[
        str, Field(description="Where a classifier is trained: local:N is N processes together.")
    ] = "threads",
) -> FitOutcome:
    """Fit unless the same fit is stored; show its figures."""
    request = FitRequest(model, parameters or {}, where, split, seed, device, view, target)
    with session(store, cluster, device) as run:
        together = model == "classifier" and cluster != "threads"
        return steps.fit_model(run.url, dataset, request, run.address() if together else None)
