"""From raw images to classifiers of them: ingest, features, fit."""

from __future__ import annotations

from typing import Annotated, Any

from prefect import flow
from pydantic import Field

from flows.features import features
from flows.fit import fit
from flows.ingest import ingest
from flows.parameters import (
    STORE,
    Cluster,
    Dataset,
    Device,
    Seed,
    Sources,
    Split,
    Store,
    Where,
    described,
)
from flows.session import session
from tasks.classifier import KIND
from tasks.images import ImageOptions

Options = Annotated[
    ImageOptions | None, Field(description="Size, split, labels and other options of ingestion.")
]
Models = Annotated[
    dict[str, dict[str, Any]] | None,
    Field(description="Parameters of each classifier, by name; ridge regression unless given."),
]


@flow(
    name="images",
    flow_run_name="{dataset}",
    description="Ingest new images, compute scattering, learn to classify.",
)
@described
def images(
    dataset: Dataset,
    sources: Sources,
    store: Store = STORE,
    options: Options = None,
    view: Annotated[
        dict[str, Any] | None, Field(description="Parameters of the scattering transform.")
    ] = None,
    models: Models = None,
    target: Annotated[str, Field(description="Column of labels.")] = "label",
    where: Where = None,
    split: Split = None,
    seed: Seed = 0,
    cluster: Cluster = "local",
    device: Device = "cpu",
) -> dict[str, Any]:
    """Run the three flows one after another; what exists is not computed again."""
    kind = "scattering"
    with session(store, cluster, device):
        made: dict[str, Any] = {
            "dataset": ingest(dataset, sources, store, options or ImageOptions(), cluster),
            kind: features(dataset, kind, store, parameters=view, cluster=cluster, device=device),
        }
        for name, parameters in (models or {"ridge": {"model": "ridge"}}).items():
            made[f"{name} model"] = fit(
                KIND,
                dataset,
                store,
                parameters,
                where=where,
                split=split,
                seed=seed,
                device=device,
                view=kind,
                target=target,
            )
    return made
