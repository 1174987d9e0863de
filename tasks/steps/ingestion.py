"""Ingestion: find the inputs, read what is new, publish a dataset."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from prefect import get_run_logger, task

from storage import open_store
from storage.sources import Discovery
from tasks import ingest, show
from tasks.ingest import PartOutcome
from tasks.inputs import Input, listed
from tasks.options import Options
from tasks.planning import Plan, choose_schema, find_inputs, plan
from tasks.publish import IngestSummary, publish
from tasks.steps.mapped import mapped


@task(name="plan ingestion")
def plan_ingest(
    url: str, dataset: str, sources: Sequence[str], options: Options
) -> tuple[Plan, Discovery]:
    """Find the inputs and compare them with what the dataset holds."""
    store = open_store(url)
    inputs, discovery = find_inputs(sources, options)
    schema = choose_schema(store, dataset, inputs, options, discovery)
    return plan(store, dataset, schema, inputs, options, sources), discovery


@task(name="ingest parts")
def ingest_parts(
    url: str,
    address: str,
    planned: Plan,
    groups: Sequence[tuple[Input, ...]],
    options: Options,
) -> list[PartOutcome]:
    """Read the fresh inputs on the workers, one Dask task a part."""
    work = partial(ingest.ingest_part, url, planned.schema, options)
    fresh = [planned.known_of(group) for group in groups]
    return mapped(work, fresh, address, "ingest parts", named=lambda part: listed(part[0]))


@task(name="publish dataset")
def publish_dataset(
    url: str,
    dataset: str,
    planned: Plan,
    outcomes: list[PartOutcome],
    discovery: Discovery,
    options: Options,
) -> IngestSummary:
    """Publish one dataset version and show it."""
    store = open_store(url)
    held = store.dataset(dataset).version.version if dataset in store.datasets() else None
    summary = publish(store, dataset, planned, outcomes, discovery, options)
    show.dataset(store, summary, summary.version != held)
    get_run_logger().info("dataset %s: %s", dataset, summary)
    return summary
