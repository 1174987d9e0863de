"""Ingest sources into a dataset."""

from __future__ import annotations

from prefect import flow

from flows.parameters import STORE, Cluster, Dataset, Options, Sources, Store, described, opaque
from flows.session import session
from tasks.fields import FieldOptions
from tasks.planning import batches
from tasks.publish import IngestSummary
from tasks.steps.ingestion import ingest_parts, plan_ingest, publish_dataset


@flow(
    name="ingest",
    flow_run_name="{dataset}",
    description="Sources into one new version of a dataset; only what is new.",
)
@described
def ingest(
    dataset: Dataset,
    sources: Sources,
    store: Store = STORE,
    options: Options = None,
    cluster: Cluster = "local",
) -> IngestSummary:
    """Split the sources into parts, ingest the new ones on Dask, publish one version."""
    options = options or FieldOptions()
    with session(store, cluster) as run:
        plan, discovery = plan_ingest(run.url, dataset, sources, options)
        work, found, parts = opaque(plan), opaque(discovery), []
        if groups := batches(plan, options):
            address = run.address(len(groups))
            parts = ingest_parts(run.url, address, work, opaque(groups), options)
        return publish_dataset(run.url, dataset, work, opaque(parts), found, options)
