"""What people see of a key: a record or a manifest, whatever it names."""

from __future__ import annotations

import contextlib
from typing import Any

from storage import NotFound, Store
from storage.store import SHORTEST


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
    matches = [found for found in _part_keys(store) if whole and found.startswith(key)]
    if len(matches) == 1:
        return store.part_manifest(matches[0])
    problem = f"{len(matches)} parts begin with" if matches else "nothing is named"
    raise NotFound(
        f"{problem} {key!r} in {store.url}: see `wavemill ls`; of a key write {SHORTEST} "
        "characters or more"
    )


def _versioned(version: Any) -> dict[str, Any]:
    number = version.version
    numbers = {"version": number, "parent": number - 1 or None, "published": version.published}
    return {**version.to_json(), **numbers}


def _part_keys(store: Store) -> list[str]:
    backend = store.backend
    return [key for first in backend.names("parts") for key in backend.names(f"parts/{first}")]


def quarantined(store: Store, dataset: str) -> list[dict[str, str]]:
    """Return the refused inputs of a dataset with their reasons."""
    rows = store.dataset(dataset).quarantine()
    return [{str(k): str(v) for k, v in row.items()} for row in rows.to_dict("records")]
