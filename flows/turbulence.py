"""From snapshots to fitted models: ingest, features, fit."""

from __future__ import annotations

from typing import Annotated, Any

from prefect import flow, get_run_logger
from pydantic import Field

from flows.features import features
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
    Store,
    Where,
    described,
)
from flows.session import session

Specs = dict[str, dict[str, Any]]


@flow(
    name="turbulence",
    flow_run_name="{dataset}",
    description="Ingest what is new and compute all that follows from it.",
)
@described
def turbulence(
    dataset: Dataset,
    sources: Sources,
    store: Store = STORE,
    options: Options = None,
    views: Annotated[
        Specs | None, Field(description="Parameters of each view to compute, by kind.")
    ] = None,
    models: Annotated[
        Specs | None, Field(description="Parameters of each model to fit, by kind.")
    ] = None,
    where: Where = None,
    seed: Seed = 0,
    cluster: Cluster = "local",
    device: Device = "cpu",
) -> dict[str, Any]:
    """Run the three flows one after another; what exists is not computed again."""
    with session(store, cluster, device):
        made: dict[str, Any] = {"dataset": ingest(dataset, sources, store, options, cluster)}
        for kind, parameters in (views or {"spectrum": {}, "scattering": {}}).items():
            made[kind] = features(
                dataset, kind, store, parameters=parameters, cluster=cluster, device=device
            )
        for kind, parameters in (models or {"gaussian": {}}).items():
            made[f"{kind} model"] = fit(
                kind, dataset, store, parameters, where=where, seed=seed, device=device
            )
    get_run_logger().info("made:\n%s", "\n".join(told(made)))
    return made


def told(made: dict[str, Any]) -> list[str]:
    """Say what a run made, a line for each thing."""
    return [f"{name}: {value}" for name, value in made.items()]
