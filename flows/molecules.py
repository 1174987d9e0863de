"""From raw molecules to predicted energies: ingest, features, fit."""

from __future__ import annotations

from typing import Annotated, Any

from prefect import flow
from pydantic import Field

from flows.features import features
from flows.fit import fit
from flows.ingest import ingest
from flows.parameters import STORE, Cluster, Dataset, Device, Seed, Sources, Store, Where
from flows.session import session
from tasks.molecules import MoleculeOptions
from tasks.regression import ATOMIC

Options = Annotated[
    MoleculeOptions | None, Field(description="Tables, exclusions and atomisation.")
]
Specs = Annotated[
    dict[str, dict[str, Any]] | None, Field(description="Parameters of each regression, by name.")
]


@flow(name="molecules", description="Ingest new molecules, compute features, learn a property.")
def molecules(
    dataset: Dataset,
    sources: Sources,
    target: Annotated[str, Field(description="Column to learn, such as u0_atom.")],
    store: Store = STORE,
    options: Options = None,
    view: Annotated[
        dict[str, Any] | None, Field(description="Parameters of the atomic harmonics.")
    ] = None,
    models: Specs = None,
    where: Where = None,
    seed: Seed = 0,
    cluster: Cluster = "local",
    device: Device = "cpu",
) -> dict[str, Any]:
    """Run the three flows one after another; what exists is not computed again."""
    kind = "atomic-harmonics"
    with session(store, cluster, device):
        made: dict[str, Any] = {
            "dataset": ingest(dataset, sources, store, options or MoleculeOptions(), cluster),
            kind: features(dataset, kind, store, None, view, cluster, device),
        }
        for name, parameters in (models or {"products": {"model": "products"}}).items():
            seen = None if parameters.get("model") in ATOMIC else kind
            made[f"{name} model"] = fit(
                "regression", dataset, store, parameters, where, None, seed, device, seen, target
            )
    return made
