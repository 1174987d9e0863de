"""The main job on embedded data: simulated turbulence, real molecules and images, to a report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from prefect import flow, get_run_logger
from pydantic import Field

from flows.fit import fit
from flows.images import images
from flows.ingest import ingest
from flows.parameters import described
from flows.turbulence import told, turbulence
from tasks.fields import FieldOptions
from tasks.molecules import MoleculeOptions
from tasks.steps.pages import demo_queries, draw_report

SOURCE = "simulate:n=32,N=128,nu=2e-3,seed=1"
EIGHT_FIELDS = FieldOptions(part_size=8 * 4 * 128 * 128)
VIEWS: dict[str, dict[str, Any]] = {
    "spectrum": {},
    "scattering": {"J": 4},
    "phase-harmonics": {"J": 4, "L": 4},
}
MODELS: dict[str, dict[str, Any]] = {"gaussian": {}, "phase-harmonics": {}}
MOLECULES = "ase:g2"  # measured enthalpies of real molecules, which ASE ships
REGRESSION: dict[str, Any] = {"model": "products", "products": 1000, "test": 0.25}
ORGANIC = "n_atoms > 1 AND regexp_full_match(formula, '([CHNOF][0-9]*)+')"
DIGITS = "sklearn:digits"  # 1,797 handwritten digits of 8 x 8, which scikit-learn ships
PHASES: dict[str, Any] = {"J": 1, "nonlinearity": "rectifier"}
CLASSIFIER: dict[str, Any] = {
    "model": "istc",
    "components": 48,
    "channels": 48,
    "atoms": 128,
    "epochs": 3,
    "pool": 1,
}
GENERATOR: dict[str, Any] = {"model": "sparse", "J": 1, "dimension": 16, "atoms": 64}


@flow(
    name="demo",
    flow_run_name="{folder}",
    description="Ingest, transform, fit; synthesise, predict, classify, generate.",
)
@described
def demo(
    folder: Annotated[str, Field(description="Where the store and the report go.")],
    cluster: Annotated[str, Field(description="threads, local[:N], tcp://...")] = "local",
) -> dict[str, Any]:
    """Run everything once; a second run computes nothing and draws the report again."""
    folder = str(Path(folder).expanduser())
    store = str(Path(folder) / "store")
    made = turbulence(
        "vorticity", [SOURCE], store, EIGHT_FIELDS, VIEWS, MODELS, seed=1, cluster=cluster
    )
    fits = [made[f"{kind} model"] for kind in MODELS]
    made["molecules"] = ingest("g2", [MOLECULES], store, MoleculeOptions(), cluster)
    made["regression"] = fit(
        "regression", "g2", store, REGRESSION, ORGANIC, target="formation_enthalpy"
    )
    digits = images(
        "digits", [DIGITS], store, view=PHASES, models={"digits": CLASSIFIER}, cluster=cluster
    )
    made |= {"digits": digits["dataset"], "classifier": digits["digits model"]}
    made["generator"] = fit("generator", "digits", store, GENERATOR)
    queries = demo_queries(store, "vorticity", folder)
    learnt = [made[name] for name in ("regression", "classifier", "generator")]
    report = draw_report(store, "vorticity", fits, folder, learnt)
    get_run_logger().info("report: %s", report)
    return {"lines": [*told(made), *queries], "report": report}
