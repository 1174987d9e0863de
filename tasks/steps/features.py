"""Features: what a view lacks, computed and published."""

from __future__ import annotations

from functools import partial
from typing import Any

from prefect import get_run_logger, task

from storage import InvalidRequest, ViewVersion, open_store
from storage.documents import Document
from tasks import features as feature_tasks
from tasks import show
from tasks.features import FeatureOutcome
from tasks.steps.mapped import mapped
from tasks.views import mind_borders, operator, view_spec


@task(name="plan features")
def plan_features(
    url: str, dataset: str, kind: str, name: str, parameters: dict[str, Any]
) -> tuple[Document, list[FeatureOutcome], list[Any]]:
    """Return the spec, the parts that the view holds, and those it lacks."""
    store = open_store(url)
    source = store.dataset(dataset)
    version, latest = source.version, store.view_versions(dataset, name).latest()
    held = latest["spec"]["parameters"] if latest is not None else None
    spec = view_spec(kind, parameters, source, held)
    operator(spec, version.schema)  # refuses what cannot be built, before any worker starts
    store.bind_view(dataset, name, spec)
    mind_borders(kind, source)
    known = feature_tasks.known_parts(store, dataset, name)
    parts = [part for part in version.parts if part.live]
    held = [known[part.key] for part in parts if part.key in known]
    return spec, held, [part for part in parts if part.key not in known]


@task(name="compute features")
def compute_features(
    url: str, address: str, dataset: str, spec: Document, parts: list[Any], device: str
) -> list[FeatureOutcome]:
    """Transform parts on the workers, one Dask task a part."""
    source = open_store(url).dataset(dataset)
    work = partial(feature_tasks.compute_part, url, spec, source.schema, device)
    resources = {"GPU": 1.0} if device == "cuda" else None
    try:
        what = f"features {spec['kind']}"
        return mapped(work, parts, address, what, resources, lambda part: f"part {part.key}")
    except feature_tasks.NotFinite as error:
        rows = source.samples()
        row = rows[(rows["part"] == error.part) & (rows["row"] == error.row)].iloc[0]
        raise InvalidRequest(error.of(f"{row['sample_id']} of {dataset}")) from None


@task(name="publish view")
def publish_view(
    url: str, dataset: str, name: str, spec: Document, outcomes: list[FeatureOutcome]
) -> ViewVersion:
    """Publish one view version and show it."""
    store = open_store(url)
    current = store.dataset(dataset)
    held = store.view_versions(dataset, name).numbers()
    version = feature_tasks.publish(
        store, dataset, name, spec, current.version.version, outcomes, current.schema
    )
    written = sum(outcome.written for outcome in outcomes)
    show.view(store, name, dataset, version, written, version.version not in held)
    get_run_logger().info("view %s of %s: %s", name, dataset, version)
    return version
