"""Samples of a fitted model, for callers outside a flow."""

from __future__ import annotations

from flows.session import session
from storage import open_store
from storage.typing import Array
from tasks import draws
from tasks.mapping import map_parts
from tasks.progress import Reporter


def synthesize(
    url: str,
    reference: str,
    count: int,
    seed: int = 0,
    device: str = "cpu",
    cluster: str = "threads",
) -> Array:
    """Draw ``count`` samples ``(n[, component], y, x)`` from a fitted model.

    Several that take long are shared out to workers, unless those are threads of this process, and
    kept in the store until they are collected; if the store is read-only, none are kept.
    """
    store = open_store(url)
    artifact = store.artifact(reference)
    groups = draws.lacking(store, artifact, count, seed, device)
    if count == 1 and groups:
        return draws.sampled(artifact, seed, device, range(1))
    if not groups:
        return draws.drawn(store, artifact, count, seed, device)
    try:
        with session(url, cluster, device) as run:
            if cluster != "threads":
                work, resources = draws.shared_out(store.url, artifact, seed, device)
                report, address = Reporter(f"synthesize {artifact.kind}"), run.address(len(groups))
                map_parts(work, groups, address=address, progress=report, resources=resources)
            return draws.drawn(store, artifact, count, seed, device)
    except PermissionError:
        return draws.sampled(artifact, seed, device, range(count))
