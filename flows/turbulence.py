"""From snapshots to fitted models: ingest, features, fit."""

from __future__ import annotations

from typing import Annotated, Any

from prefect import flow
from pydantic import Field

from flows.features import features
from flows.fit import fit
from flows.ingest import ingest
from flows.session import session
from tasks.planning import IngestOptions


@flow(name="turbulence", description="Ingest what is new and compute all that follows from it.")
def turbulence(
    dataset: Annotated[str, Field(description="Name of the dataset.")],
    sources: Annotated[
        list[str],
        Field(description="Files, folders, globs, archives, s3://... or simulate:KEY=VALUE,..."),
    ],
    store: Annotated[str, Field(description="URL of the store.")] = "./wavemill-store",
    options: Annotated[
        IngestOptions | None, Field(description="How sources become samples.")
    ] = None,
    views: Annotated[
        dict[str, dict[str, Any]] | None,
        Field(description="Parameters of each view to compute, by kind."),
    ] = None,
    models: Annotated[
        dict[str, dict[str, Any]] | None,
        Field(description="Parameters of each model to fit, by kind."),
    ] = None,
    where: Annotated[
        str | None, Field(description="Which samples the models learn from (DuckDB).")
    ] = None,
    seed: Annotated[int, Field(description="Of everything random in the models.")] = 0,
    cluster: Annotated[
        str, Field(description="threads, local[:N], cuda, tcp://... or kubernetes.")
    ] = "local",
    device: Annotated[str, Field(description="cpu or cuda.")] = "cpu",
) -> dict[str, Any]:
    """Run the three flows one after another; what exists is not computed again."""
    with session(store, cluster, device):
        made: dict[str, Any] = {"dataset": ingest(dataset, sources, store, options, cluster)}
        for kind, parameters in (views or {"spectrum": {}, "scattering": {}}).items():
            made[kind] = features(dataset, kind, store, None, parameters, cluster, device)
        for kind, parameters in (models or {"gaussian": {}}).items():
            made[f"{kind} model"] = fit(kind, dataset, store, parameters, where, None, seed)
    return made
