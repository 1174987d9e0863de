"""Compute a view on a dataset."""

from __future__ import annotations

from typing import Annotated

from prefect import flow
from pydantic import Field

from flows.parameters import STORE, Cluster, Dataset, Device, Parameters, Store, described
from flows.session import session
from storage import ViewVersion
from tasks.kinds import VIEWS_HELP
from tasks.steps.features import compute_features, plan_features, publish_view


@flow(
    name="features",
    flow_run_name="{view} of {dataset}",
    description="One transform over every part of a dataset that lacks it.",
)
@described
def features(
    dataset: Dataset,
    view: Annotated[str, Field(description=VIEWS_HELP)],
    store: Store = STORE,
    name: Annotated[
        str | None, Field(description="Name of the view; its kind unless given.")
    ] = None,
    parameters: Parameters = None,
    cluster: Cluster = "local",
    device: Device = "cpu",
) -> ViewVersion:
    """Transform the parts that the view lacks on Dask, publish one view version."""
    name = name or view
    with session(store, cluster, device) as run:
        spec, held, lacking = plan_features(run.url, dataset, view, name, parameters or {})
        made = (
            compute_features(run.url, run.address(len(lacking)), dataset, spec, lacking, device)
            if lacking
            else []
        )
        return publish_view(run.url, dataset, name, spec, [*held, *made])
