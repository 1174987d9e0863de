"""The main job on embedded data: simulated turbulence, from snapshots to a report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from prefect import flow
from pydantic import Field

from flows.turbulence import turbulence
from tasks import steps
from tasks.planning import IngestOptions

SOURCE = "simulate:n=32,N=128,nu=2e-3,seed=1"
EIGHT_FIELDS = IngestOptions(part_size=8 * 4 * 128 * 128)
VIEWS: dict[str, dict[str, Any]] = {
    "spectrum": {},
    "scattering": {"J": 4},
    "phase-harmonics": {"J": 4, "L": 4},
}
MODELS: dict[str, dict[str, Any]] = {"gaussian": {}, "phase-harmonics": {}}


@flow(name="demo", description="Simulate, ingest, transform, fit, synthesise, query, report.")
def demo(
    folder: Annotated[str, Field(description="Where the store and the report go.")],
    cluster: Annotated[str, Field(description="threads, local[:N], tcp://...")] = "local",
) -> dict[str, Any]:
    """Run everything once; a second run computes nothing and draws the report again."""
    store = str(Path(folder) / "store")
    made = turbulence(
        "vorticity", [SOURCE], store, EIGHT_FIELDS, VIEWS, MODELS, seed=1, cluster=cluster
    )
    fits = [made[f"{kind} model"] for kind in MODELS]
    queries = steps.demo_queries(store, "vorticity", folder)
    report = steps.draw_report(store, "vorticity", fits, folder)
    return {"lines": [*steps.describe(made), *queries], "report": report}
