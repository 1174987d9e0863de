"""Pages: answers of the feature store and the report, for people."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from prefect import task

from storage import open_store
from storage.export import export
from tasks.fit import drawn_at_fit
from tasks.report import turbulence_report
from tasks.requests import FitOutcome


@task(name="query")
def demo_queries(url: str, dataset: str, folder: str) -> list[str]:
    """Write the answers to two questions, one by meaning and one by id."""
    store = open_store(url)
    frame = store.get_historical_features(
        dataset, "scattering", coefficients="order == 1 and j1 = 0"
    )
    target = export(frame, Path(folder) / "first-order.parquet")
    ids = list(frame.samples["sample_id"][:2])
    online = store.get_online_features(dataset, ids, "spectrum").to_pandas()
    return [
        f"{target}: {len(frame)} samples by {len(frame.coefficients)} coefficients",
        f"online: {len(online)} samples by {online.shape[1]} columns",
    ]


@task(name="draw report")
def draw_report(
    url: str,
    dataset: str,
    fits: Sequence[FitOutcome],
    folder: str,
    learnt: Sequence[FitOutcome],
) -> str:
    """Write ``report.html`` on a dataset, its views, its models, and what else was ``learnt``."""
    store = open_store(url)
    artifacts = [store.artifact_at(outcome.kind, outcome.key) for outcome in fits]
    others = [store.artifact_at(outcome.kind, outcome.key) for outcome in learnt]
    syntheses = {artifact.kind: drawn_at_fit(artifact) for artifact in artifacts}
    target = Path(folder) / "report.html"
    return str(turbulence_report(store, dataset, artifacts, syntheses, target, others))
