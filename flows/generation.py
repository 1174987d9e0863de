"""From raw images or fields to generators of them: ingest, fit, generate."""

from __future__ import annotations

from typing import Annotated, Any

from prefect import flow
from pydantic import Field

from flows.fit import fit
from flows.ingest import ingest
from flows.parameters import (
    STORE,
    Cluster,
    Dataset,
    Device,
    Options,
    Seed,
    Sources,
    Split,
    Store,
    Where,
    described,
)
from flows.session import session
from tasks.generation import KIND

Models = Annotated[
    dict[str, dict[str, Any]] | None,
    Field(description="Parameters of each generator, by name; the three kinds unless given."),
]


@flow(
    name="generation",
    flow_run_name="{dataset}",
    description="Ingest what is new, learn generators of it, and draw them.",
)
@described
def generation(
    dataset: Dataset,
    sources: Sources,
    store: Store = STORE,
    options: Options = None,
    models: Models = None,
    where: Where = None,
    split: Split = None,
    seed: Seed = 0,
    cluster: Cluster = "local",
    device: Device = "cpu",
) -> dict[str, Any]:
    """Run ingest and the fits one after another; what exists is not computed again."""
    kinds = ("linear", "convolutional", "sparse")
    with session(store, cluster, device):
        made: dict[str, Any] = {"dataset": ingest(dataset, sources, store, options, cluster)}
        for name, parameters in (models or {kind: {"model": kind} for kind in kinds}).items():
            made[f"{name} model"] = fit(
                KIND,
                dataset,
                store,
                parameters,
                where=where,
                split=split,
                seed=seed,
                device=device,
            )
        return made
