"""What the Prefect UI shows of a run: tables of what was made and its lineage, and pictures."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from prefect.artifacts import Artifact as Shown
from prefect.artifacts import (
    create_image_artifact,
    create_link_artifact,
    create_table_artifact,
)

from storage import Artifact, Dataset, Store, ViewVersion
from tasks.publish import IngestSummary

if TYPE_CHECKING:
    from tasks.evaluate import Scores

LISTED = 50


def due(name: str, new: bool) -> bool:
    """Say whether a run is to show this: if it is new, or the UI does not have it (any more).

    Else a schedule that finds nothing new would fill the server's database with repetitions.
    """
    return new or Shown.get(key(name)) is None


def dataset(store: Store, summary: IngestSummary, new: bool) -> None:
    """Show a dataset version: counts, quarantine and the first samples."""
    if not due(f"dataset {summary.dataset}", new):
        return
    current = store.dataset(summary.dataset)
    table(f"dataset {summary.dataset}", [_dataset_row(current, summary)], "What this run made")
    if summary.refused:
        rows = [
            {"input": unit, "reason": reason, "message": message}
            for unit, reason, message in summary.refused[:LISTED]
        ]
        table(f"quarantine {summary.dataset}", rows, f"{len(summary.refused)} inputs were refused")
    picture(f"samples {summary.dataset}", _samples(current), "What the samples are")


def _samples(current: Dataset) -> bytes:
    """Draw what the samples of a dataset are."""
    match current.schema.layout:
        case "molecules":
            from tasks import molecule_figures

            return molecule_figures.population(current.samples())
        case "images":
            from tasks import image_figures

            return image_figures.contact_sheet(current)
        case _:
            from tasks import figures

            return figures.fields(figures.shown(current))


def _dataset_row(current: Dataset, summary: IngestSummary) -> dict[str, Any]:
    schema = current.schema
    return {
        "dataset": summary.dataset,
        "version": summary.version,
        "samples": summary.samples,
        "added": summary.added,
        "replaced": summary.replaced,
        "unchanged": summary.unchanged,
        "withdrawn": summary.withdrawn,
        "quarantined": sum(summary.quarantined.values()),
        "parts written": summary.parts_written,
        "parts reused": summary.parts_reused,
        "shape": schema.size,
        "components": ", ".join(schema.components),
    }


def view(
    store: Store, name: str, dataset_name: str, version: ViewVersion, written: int, new: bool
) -> None:
    """Show a view version: its spec, its lineage, and its mean coefficients."""
    if not due(f"view {dataset_name} {name}", new):
        return
    lineage = {
        "view": name,
        "version": version.version,
        "dataset": f"{dataset_name} version {version.dataset_version}",
        "kind": version.spec["kind"],
        "parameters": str(version.spec["parameters"]),
        "features": "x".join(map(str, version.row_shape)),
        "parts": len(version.parts),
        "parts written": written,
    }
    table(f"view {dataset_name} {name}", [lineage], "What this run made, and from what")
    from tasks import figures

    frame = store.get_historical_features(dataset_name, name)
    values = frame.to_xarray()[:LISTED].values
    summary = figures.coefficients(frame.coefficients, values)
    picture(f"features {dataset_name} {name}", summary, f"{name} of {len(values)} samples")


def artifact(found: Artifact, metrics: Mapping[str, float], new: bool) -> None:
    """Show a fitted model: lineage, metrics and its figures."""
    manifest = found.manifest
    model = manifest["spec"]["parameters"].get("model")  # a kind may have several
    name = " ".join([found.kind, *([model] if model else []), manifest["dataset"]])
    if not due(f"lineage {name}", new):
        return
    lineage = {
        "artifact": found.short,
        "dataset": f"{manifest['dataset']} version {manifest['dataset_version']}",
        "samples": manifest["samples"],
        "selection": manifest["selection"] or "all",
        "parameters": str(manifest["spec"]["parameters"]),
        "seed": manifest["seed"],
        "published": manifest["published"],
    }
    table(f"lineage {name}", [lineage], "What was fitted, and from what")
    rows = [{"metric": key, "value": f"{value:.6g}"} for key, value in sorted(metrics.items())]
    table(f"metrics {name}", rows, "Statistics of the data and of the model")
    pictures(name, found)


def pictures(name: str, found: Artifact) -> None:
    """Show the figures that an artifact holds."""
    for path in found.files():
        if path.startswith("figures/"):
            title = path.removeprefix("figures/").removesuffix(".png")
            picture(f"{title} {name}", found.read(path), f"{title} of {name}")


def scores(name: str, rows: Scores) -> None:
    """Show how far sets of fields are from real ones: real rows first."""
    from tasks.comparison import records

    table(name, records(rows), "Real fields and models against held-out fields")


def table(name: str, rows: Sequence[Mapping[str, Any]], description: str) -> None:
    """Show a table."""
    create_table_artifact([dict(row) for row in rows], key=key(name), description=description)


def picture(name: str, image: bytes, description: str) -> None:
    """Show a PNG."""
    from tasks import figures

    create_image_artifact(figures.data_uri(image), key=key(name), description=description)


def dashboard(address: str) -> None:
    """Show a link to the Dask dashboard."""
    create_link_artifact(address, "Dask dashboard", key="dask-dashboard")


def key(name: str) -> str:
    """Return a name as the lower-case letters, digits and dashes that Prefect allows."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
