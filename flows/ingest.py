"""Ingest sources into a dataset."""

from __future__ import annotations

from typing import Annotated

from prefect import flow
from pydantic import Field

from flows.session import session
from tasks import steps
from tasks.planning import IngestOptions
from tasks.publish import IngestSummary


@flow(name="ingest", description="Sources into one new version of a dataset; only what is new.")
def ingest(
    dataset: Annotated[str, Field(description="Name of the dataset.")],
    sources: Annotated[
        list[str],
        Field(description="Files, folders, globs, archives, s3://... or simulate:KEY=VALUE,..."),
    ],
    store: Annotated[str, Field(description="URL of the store.")] = "./wavemill-store",
    options: Annotated[
        IngestOptions | None, Field(description="How sources become samples.")
    ] = None,
    cluster: Annotated[
        str, Field(description="threads, local[:N], cuda, tcp://... or kubernetes.")
    ] = "local",
) -> IngestSummary:
    """Split the sources into parts, ingest the new ones on Dask, publish one version."""
    options = options or IngestOptions()
    with session(store, cluster) as run:
        plan, discovery = steps.plan_ingest(run.url, dataset, sources, options)
        parts = steps.ingest_parts(run.url, run.address(), plan, options) if plan.fresh else []
        return steps.publish_dataset(run.url, dataset, plan, parts, discovery, options)
