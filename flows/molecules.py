"""From raw molecules to predicted energies: ingest, features, fit."""

from __future__ import annotations

from typing import Annotated, Any

from prefect import flow
from pydantic import Field

from flows.features import features
from flows.fit import fit
from flows.ingest import ingest
from flows.parameters import STORE, Cluster, Dataset, Device, Seed, Sources, Store, Where, described
from flows.session import session
from tasks.molecules import MoleculeOptions
from tasks.regression import ATOMIC
from wavemill.specs import RegressionSpec

Options = Annotated[
    MoleculeOptions | None, Field(description="Tables, exclusions and atomisation.")
]
Specs = Annotated[
    dict[str, dict[str, Any]] | None, Field(description="Parameters of each regression, by name.")
]


@flow(
    name="molecules",
    flow_run_name="{dataset}",
    description="Ingest new molecules, compute features, learn a property.",
)
@described
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
    """Run the three flows one after another; what exists is not computed again.

    Features are stored if a regression learns from them, or their parameters are given.
    """
    kind, asked = "atomic-harmonics", models or {"products": {"model": "products"}}
    specs = {name: RegressionSpec.from_parameters(given) for name, given in asked.items()}
    views = {name: None if spec.model in ATOMIC else kind for name, spec in specs.items()}
    with session(store, cluster, device):
        options = options or MoleculeOptions()
        made: dict[str, Any] = {"dataset": ingest(dataset, sources, store, options, cluster)}
        if view is not None or kind in views.values():
            made[kind] = features(
                dataset, kind, store, parameters=view, cluster=cluster, device=device
            )
        for name, seen in views.items():
            given = asked[name]
            made[f"{name} model"] = fit(
                "regression",
                dataset,
                store,
                given,
                where=where,
                seed=seed,
                device=device,
                view=seen,
                target=target,
            )
    return made
