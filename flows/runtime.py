"""Clusters: in this process, of processes on this machine, on GPUs, elsewhere."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import logging
import os
import tempfile
from collections.abc import Iterator
from typing import Any

import dask
from distributed import LocalCluster
from distributed.diagnostics.plugin import WorkerPlugin

from storage.errors import InvalidRequest

_LOUD = ("distributed", "distributed.nanny", "distributed.worker", "distributed.scheduler",
         "distributed.core", "distributed.comm", "bokeh", "tornado")  # fmt: skip


@contextlib.contextmanager
def open_cluster(cluster: str, *, device: str = "cpu") -> Iterator[str]:
    """Open a cluster and yield the address of its scheduler.

    Parameters
    ----------
    cluster
        ``threads``: one worker within this process, for stores in memory and for debugging.
        ``local`` or ``local:N``: N processes of one thread (as many as cores unless given).
        ``cuda``: one process a GPU. ``tcp://host:port``: a scheduler that runs already.
        ``kubernetes``: workers of the Dask operator.
    device
        ``cuda`` with ``local`` means ``cuda``.

    Raises
    ------
    InvalidRequest
        If the word is unknown, or what it needs is not here.
    """
    kind, _, count = cluster.partition(":")
    if kind == "local" and device == "cuda":
        kind = "cuda"
    match kind:
        case "threads":
            with _local(n_workers=1, threads_per_worker=1, processes=False) as address:
                yield address
        case "local":
            with _local(n_workers=_count(count), threads_per_worker=1) as address:
                yield address
        case "cuda":
            with _cuda() as address:
                yield address
        case "kubernetes":
            with _kubernetes() as address:
                yield address
        case "tcp" | "tls":
            yield cluster
        case _:
            raise InvalidRequest(
                f"no cluster {cluster!r}: use threads, local, local:N, cuda, tcp://HOST:PORT or "
                "kubernetes"
            )


def _count(text: str) -> int:
    if not text:
        return (
            len(os.sched_getaffinity(0))
            if hasattr(os, "sched_getaffinity")
            else os.cpu_count() or 1
        )
    if not text.isdigit() or int(text) < 1:
        raise InvalidRequest(f"local:{text} names no number of workers: write local:4, say")
    return int(text)


class OneThread(WorkerPlugin):
    """Computes on one thread in each worker process: parts are what runs in parallel."""

    name = "one-thread"

    def setup(self, worker: Any) -> None:
        """Limit torch and the BLAS of this process."""
        import threadpoolctl
        import torch

        torch.set_num_threads(1)
        threadpoolctl.threadpool_limits(1)


@contextlib.contextmanager
def _local(*, processes: bool = True, **options: Any) -> Iterator[str]:
    """Open a LocalCluster on loopback, quiet and with its files in a folder that goes with it."""
    dashboard = "127.0.0.1:0" if importlib.util.find_spec("bokeh") else None
    with (
        _quiet(),
        tempfile.TemporaryDirectory(prefix="wavemill-", ignore_cleanup_errors=True) as folder,
        dask.config.set({"distributed.scheduler.worker-saturation": 1.0}),
        LocalCluster(
            host="127.0.0.1" if processes else None,
            processes=processes,
            dashboard_address=dashboard,
            local_directory=folder,
            silence_logs=logging.ERROR,
            **options,
        ) as opened,
    ):
        if processes:
            with opened.get_client() as client:
                client.register_plugin(OneThread())
        yield str(opened.scheduler_address)


@contextlib.contextmanager
def _cuda() -> Iterator[str]:
    """Open one worker a GPU, which sees no other and offers ``GPU: 1``."""
    import torch

    if not torch.cuda.is_available():
        raise InvalidRequest("no GPU is visible to torch here: leave out --device cuda")
    if importlib.util.find_spec("dask_cuda"):
        cluster = importlib.import_module("dask_cuda").LocalCUDACluster
        with _quiet(), cluster(threads_per_worker=1, resources={"GPU": 1}) as opened:
            yield str(opened.scheduler_address)
        return
    if torch.cuda.device_count() > 1:
        raise InvalidRequest("several GPUs need dask-cuda: pip install dask-cuda")
    with _local(n_workers=1, threads_per_worker=1, resources={"GPU": 1}) as address:
        yield address


@contextlib.contextmanager
def _kubernetes() -> Iterator[str]:
    """Open a cluster of the Dask operator, configured by ``dask.config`` and the environment."""
    if not importlib.util.find_spec("dask_kubernetes"):
        raise InvalidRequest(
            "--cluster kubernetes needs dask-kubernetes: pip install dask-kubernetes"
        )
    operator = importlib.import_module("dask_kubernetes.operator")
    with operator.KubeCluster() as opened:
        yield str(opened.scheduler_address)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the start and the end of workers out of the terminal."""
    levels = {name: logging.getLogger(name).level for name in _LOUD}
    for name in _LOUD:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
