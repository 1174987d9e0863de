"""What people see of a key: the record or manifest that it names."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from typing import Any

import pandas as pd

from storage import Artifact, Damaged, Dataset, NotFound, Store
from storage.artifacts import short
from storage.attempts import homes
from storage.records import PLACES
from storage.store import SHORTEST
from storage.tables import kind_of

TELLING = ("top1", "mae", "eps", "test_psnr", "relative_error")
"""The metric that says most about a model, of those that it has."""
COMMONEST = 4


def describe(store: Store, key: str) -> dict[str, Any]:
    """Return what a name or a key stands for: dataset, dataset/view, artifact or part.

    Raises
    ------
    NotFound
        If it stands for nothing.
    """
    if key in store.datasets():
        version = store.dataset(key).version
        return {"dataset": key, "samples_live": version.count, **_versioned(version)}
    dataset, _, view = key.partition("/")
    if dataset in store.datasets() and view in store.views(dataset):
        made = store.view(dataset, view)
        return {"dataset": dataset, "view": view, **_versioned(made)}
    with contextlib.suppress(NotFound):
        artifact = store.artifact(key)
        return {**artifact.manifest, "files": artifact.files()}
    whole = len(key) >= SHORTEST
    parts = (home.rpartition("/")[2] for home in homes(store.backend, "parts"))
    matches = [found for found in parts if whole and found.startswith(key)]
    if len(matches) == 1:
        return store.part_manifest(matches[0])
    problem = f"{len(matches)} parts begin with" if matches else "nothing is named"
    raise NotFound(
        f"{problem} {key!r} in {store.url}: see `wavemill ls`; a key needs {SHORTEST} "
        "characters or more"
    )


def listing(store: Store) -> dict[str, list[dict[str, Any]]]:
    """Return the datasets, views and artifacts of a store, with what distinguishes them."""
    found: dict[str, list[dict[str, Any]]] = {"datasets": [], "views": [], "artifacts": []}
    for name in store.datasets():
        version = store.dataset(name).version
        found["datasets"].append(
            {"name": name, "version": version.version, "samples": version.count,
             "shape": version.schema.size}
        )  # fmt: skip
        for view in store.views(name):
            made = store.view(name, view)
            found["views"].append(
                {"dataset": name, "name": view, "version": made.version,
                 "features": "x".join(map(str, made.row_shape)), "kind": made.spec["kind"],
                 "parameters": made.spec["parameters"]}
            )  # fmt: skip
    for artifact in store.artifacts():
        manifest = artifact.manifest
        found["artifacts"].append(
            {"kind": artifact.kind, "key": artifact.key, "dataset": manifest["dataset"],
             "published": manifest["published"], "model": _model(manifest),
             "metric": _metric(artifact)}
        )  # fmt: skip
    return found


def _model(manifest: Mapping[str, Any]) -> str:
    """Return what was fitted, as distinct from others of its kind, or what was judged."""
    judged = manifest.get("model")
    if judged is not None:
        return short(judged["kind"], judged["key"])
    parameters = manifest["spec"]["parameters"]
    return str(parameters.get("model") or settings(parameters))


def settings(parameters: Mapping[str, Any]) -> str:
    """Return parameters in one short line."""
    return " ".join(f"{name}={value}" for name, value in parameters.items())


def _metric(artifact: Artifact) -> dict[str, float]:
    """Return the one metric that says most, by its name; nothing if there is none."""
    try:
        metrics = json.loads(artifact.read("metrics.json"))
    except (Damaged, KeyError):
        return {}
    scores = metrics.get("model", metrics)
    return next(({name: scores[name]} for name in TELLING if name in scores), {})


def columns(dataset: Dataset) -> list[dict[str, Any]]:
    """Return what every column of a dataset's samples holds: type, counts, range or values."""
    samples, units = dataset.samples(), dict(dataset.schema.properties)
    return [
        {"column": name, "unit": units.get(name) or "", **_contents(samples[name])}
        for name in map(str, samples)
        if name not in PLACES | {"sha256"}
    ]


def _contents(column: pd.Series) -> dict[str, Any]:
    known, kind = column.dropna(), kind_of(column)
    said: dict[str, Any] = {"type": kind, "known": len(known), "missing": len(column) - len(known)}
    if kind in ("whole", "number"):
        values = known.astype(float)
        return {**said, "min": values.min(), "mean": values.mean(), "max": values.max()}
    if kind == "date":
        return {**said, "min": str(known.min()), "max": str(known.max())}
    counts = known.astype(str).value_counts()
    return {**said, "different": len(counts), "commonest": counts.head(COMMONEST).to_dict()}


def _versioned(version: Any) -> dict[str, Any]:
    number = version.version
    numbers = {"version": number, "parent": number - 1 or None, "published": version.published}
    return {**version.to_json(), **numbers}


def quarantined(store: Store, dataset: str) -> list[dict[str, str]]:
    """Return the refused inputs of a dataset with their reasons."""
    rows = store.dataset(dataset).quarantine()
    return [{str(k): str(v) for k, v in row.items()} for row in rows.to_dict("records")]
