"""One fit by all workers of a cluster, processes that train one network together."""

from __future__ import annotations

import socket

from distributed import Client, as_completed, get_worker

from storage import open_store
from tasks import classifier
from tasks.mapping import forwarded_logs, wait_for_worker
from tasks.requests import FitOutcome, FitRequest
from wavemill.dictionaries.team import joined


def fit_together(url: str, dataset: str, request: FitRequest, address: str) -> FitOutcome:
    """Fit a classifier on all workers of a scheduler; the first one writes.

    Raises
    ------
    Exception
        The first error of a member; the others end when they miss it. A worker that is lost ends
        the fit, which continues from its last whole epoch when it is asked for again.
    """
    with Client(address, set_as_default=False) as client, forwarded_logs(client):
        resources = {"GPU": 1.0} if request.device == "cuda" else None
        wait_for_worker(client, resources)
        workers = sorted(client.scheduler_info(n_workers=-1)["workers"])
        meeting = client.submit(free_place, workers=workers[:1], pure=False).result()
        futures = [
            client.submit(
                take_part,
                url,
                dataset,
                request,
                (rank, len(workers), meeting),
                workers=[worker],
                resources=resources,
                pure=False,
                retries=0,
            )
            for rank, worker in enumerate(workers)
        ]
        try:
            for future in as_completed(futures, loop=client.loop):
                future.result()
            outcome: FitOutcome = futures[0].result()
        finally:
            client.cancel(futures)
        return outcome


def take_part(
    url: str, dataset: str, request: FitRequest, place: tuple[int, int, str]
) -> FitOutcome:
    """Train with the others, by rank, their number and where they meet (runs on a worker)."""
    with joined(*place, request.device) as team:
        return classifier.fit(open_store(url), dataset, request, team)


def free_place() -> str:
    """Return this worker's host and a port that nobody listens on."""
    host = str(get_worker().address).split("://")[-1].rsplit(":", 1)[0]
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as opened:
        opened.bind((host.strip("[]"), 0))
        return f"{host}:{opened.getsockname()[1]}"
