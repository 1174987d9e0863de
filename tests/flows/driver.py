"""A flow in a process of its own, to be killed: ``python driver.py STORE CLUSTER``."""

from __future__ import annotations

import sys

import storage.leases
from flows import features, ingest
from tasks.fields import FieldOptions

storage.leases.HEARTBEAT = 0.2  # so that a killed run's lease is stale after a second
storage.leases.LIFETIME = 1.2

SOURCE = "simulate:n=36,N=32,t=0.4"
THREE_FIELDS = FieldOptions(part_size=3 * 4 * 32 * 32)
PARTS = 12
VIEW = {"J": 3, "L": 4}


def main(store: str, cluster: str) -> None:
    """Ingest twelve parts and transform them."""
    ingest("flow", [SOURCE], store, THREE_FIELDS, cluster)
    features("flow", "phase-harmonics", store, None, VIEW, cluster)


if __name__ == "__main__":
    main(*sys.argv[1:])
