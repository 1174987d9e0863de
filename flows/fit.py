"""Fit a model on samples of a dataset."""

from __future__ import annotations

from typing import Annotated, Any

from prefect import flow
from pydantic import Field

from flows.session import session
from tasks import steps
from tasks.fit import FitOutcome, FitRequest


@flow(name="fit", description="A model fitted on selected samples, kept as an artifact.")
def fit(
    model: Annotated[str, Field(description="gaussian or phase-harmonics.")],
    dataset: Annotated[str, Field(description="Name of the dataset.")],
    store: Annotated[str, Field(description="URL of the store.")] = "./wavemill-store",
    parameters: Annotated[
        dict[str, Any] | None, Field(description="Fields of the model's spec, such as J.")
    ] = None,
    where: Annotated[
        str | None, Field(description="DuckDB expression over sample metadata.")
    ] = None,
    split: Annotated[str | None, Field(description="COLUMN=VALUE that selects samples.")] = None,
    seed: Annotated[int, Field(description="Of everything random.")] = 0,
) -> FitOutcome:
    """Fit unless the same fit is stored; show its figures."""
    request = FitRequest(model, parameters or {}, where, split, seed)
    with session(store, "threads") as run:
        return steps.fit_model(run.url, dataset, request)
