"""Compute a view on a dataset."""

from __future__ import annotations

from typing import Annotated, Any

from prefect import flow
from pydantic import Field

from flows.session import session
from storage import ViewVersion
from tasks import steps


@flow(name="features", description="One transform over every part of a dataset that lacks it.")
def features(
    dataset: Annotated[str, Field(description="Name of the dataset.")],
    view: Annotated[str, Field(description="spectrum, scattering or phase-harmonics.")],
    store: Annotated[str, Field(description="URL of the store.")] = "./wavemill-store",
    name: Annotated[
        str | None, Field(description="Name of the view; its kind unless given.")
    ] = None,
    parameters: Annotated[
        dict[str, Any] | None, Field(description="Fields of the transform's spec, such as J.")
    ] = None,
    cluster: Annotated[
        str, Field(description="threads, local[:N], cuda, tcp://... or kubernetes.")
    ] = "local",
    device: Annotated[str, Field(description="cpu or cuda.")] = "cpu",
) -> ViewVersion:
    """Transform the parts that the view lacks on Dask, publish one view version."""
    name = name or view
    with session(store, cluster, device) as run:
        spec, held, lacking = steps.plan_features(run.url, dataset, view, name, parameters or {})
        made = (
            steps.compute_features(run.url, run.address(), dataset, spec, lacking, device)
            if lacking
            else []
        )
        return steps.publish_view(run.url, dataset, name, spec, [*held, *made])
