"""Clusters: in this process, of processes on this machine, of one process per GPU, elsewhere."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import logging
import os
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any

import dask
from dask.system import CPU_COUNT
from distributed import Nanny, Scheduler, Security, SpecCluster, Worker
from distributed.system import MEMORY_LIMIT

from storage.errors import InvalidRequest

LOOPBACK = "127.0.0.1"
_SERVED = "WAVEMILL_SERVED"  # WORD=ADDRESS of the cluster that a service has opened
_HEADROOM = 0.9
_QUIET = {
    "distributed": logging.WARNING,
    "distributed.nanny": logging.ERROR,  # it warns of each worker that is stopped
    "distributed.nanny.memory": logging.WARNING,
    "distributed.worker": logging.CRITICAL,  # it logs errors that are raised here, too
    "tornado": logging.WARNING,
    "bokeh": logging.ERROR,  # it warns of wildcard hosts, harmless on loopback
}
MALLOC = {
    "MALLOC_MMAP_THRESHOLD_": 2**25,  # the most that glibc accepts
    "MALLOC_TRIM_THRESHOLD_": 2**29,
    "MALLOC_ARENA_MAX": 1,
}
_CONFIG = {
    # A worker is sent its next task only when it is done with one: a task that waits at a worker
    # that dies would be suspected of having killed it.
    "distributed.scheduler.worker-saturation": 1.0,
    # An input that kills its worker kills the next one too, within a few seconds of work.
    "distributed.scheduler.allowed-failures": 1,
    # A worker that dies as it starts is not started again: fail rather than wait for ever.
    "distributed.scheduler.no-workers-timeout": "120s",
    # A worker's memory is mostly torch's, which Dask cannot spill; results are a few numbers.
    "distributed.worker.memory.target": False,
    "distributed.worker.memory.spill": False,
    # Dask's housekeeping took a tenth of each core's time: it samples stacks a hundred times a
    # second, ticks fifty times, looks at memory ten times. Tasks here last seconds.
    "distributed.worker.profile.interval": "200ms",
    "distributed.admin.tick.interval": "500ms",
    "distributed.worker.memory.monitor-interval": "500ms",
    "distributed.scheduler.work-stealing-interval": "1s",
    "distributed.admin.system-monitor.interval": "2s",
    # Dask would have glibc give every freed block back to the kernel. A transform frees and
    # takes the same megabytes many times a second, and paging them in again costs it two thirds
    # of its speed; so up to 512 MiB of freed blocks are kept.
    **{f"distributed.nanny.pre-spawn-environ.{name}": value for name, value in MALLOC.items()},
}


@contextlib.contextmanager
def open_cluster(cluster: str, *, device: str = "cpu", tasks: int | None = None) -> Iterator[str]:
    """Open a cluster and yield the address of its scheduler; its workers end with the block.

    Parameters
    ----------
    cluster
        ``threads``: one worker within this process, for stores in memory and for debugging;
        torch keeps its threads. ``local`` or ``local:N``: N processes of one thread (as many
        as cores unless given), reached from this machine alone. ``cuda``: one process a GPU,
        which offers the resource ``GPU: 1``. ``tcp://HOST:PORT``: a scheduler that runs
        already. ``kubernetes``: a cluster of the Dask operator. The word by which a service
        opened its cluster means that one to the runs of the service.
    device
        ``cuda`` with ``local`` means ``cuda``.
    tasks
        How many there are; ``local`` starts no more processes than these.

    Raises
    ------
    InvalidRequest
        If the word is unknown, or what it needs is not here.
    """
    served, _, address = os.environ.get(_SERVED, "").partition("=")
    if address and cluster == served:
        cluster = address
    word, _, count = cluster.partition(":")
    opened: contextlib.AbstractContextManager[str]
    if word == "local":
        many = workers_of(cluster, tasks)
        opened = _gpus() if device == "cuda" else _processes([{}] * many)
    elif word in ("tcp", "tls"):
        if not re.fullmatch(r"//.+:\d+", count):
            raise InvalidRequest(
                f"{cluster!r} is not the address of a scheduler: write tcp://HOST:8786"
            )
        opened = contextlib.nullcontext(cluster)
    elif cluster in _WORDS:
        opened = _WORDS[cluster]()
    else:
        raise InvalidRequest(
            f"no cluster {cluster!r}: use threads, local, local:N, cuda, tcp://HOST:PORT or "
            "kubernetes"
        )
    with _quiet(), dask.config.set(_CONFIG), opened as address:
        yield address


def workers_of(cluster: str, tasks: int | None = None) -> int:
    """Return how many processes a cluster starts for so many tasks; 0 if that is not our choice.

    Raises
    ------
    InvalidRequest
    If it is ``local:`` and not followed by a number.
    """
    word, _, count = cluster.partition(":")
    if word != "local":
        return 0
    if count and (not count.isdecimal() or int(count) < 1):
        raise InvalidRequest(f"local:{count} is not a number of workers: write local:4, say")
    most = int(count or CPU_COUNT)
    return most if tasks is None else max(1, min(most, tasks))


@contextlib.contextmanager
def _threads() -> Iterator[str]:
    """Open one worker thread of this process; its status pages, too, are on loopback."""
    options = {"protocol": "inproc://", "dashboard_address": f"{LOOPBACK}:0", "dashboard": False}
    worker = {"nthreads": 1, "memory_limit": 0, "silence_logs": logging.WARNING, **options}
    with SpecCluster(
        workers={0: {"cls": Worker, "options": worker}},
        scheduler={"cls": Scheduler, "options": options},
        silence_logs=logging.WARNING,
    ) as opened:
        yield str(opened.scheduler_address)


@contextlib.contextmanager
def _processes(
    environments: Sequence[Mapping[str, str]], resources: Mapping[str, float] | None = None
) -> Iterator[str]:
    """Open a worker process of one thread for each environment, all on loopback, all encrypted.

    Dask starts its worker processes with ``OMP_NUM_THREADS=1`` and the like, so that torch
    and the BLAS stay on that thread.
    """
    with tempfile.TemporaryDirectory(prefix="wavemill-", ignore_cleanup_errors=True) as folder:
        options: dict[str, Any] = {
            "host": LOOPBACK,
            "protocol": "tls://",
            "nthreads": 1,
            "memory_limit": int(_HEADROOM * MEMORY_LIMIT / len(environments)),
            "local_directory": folder,
            "resources": dict(resources or {}),
            "silence_logs": logging.CRITICAL,  # tasks report failures; a stop is not one
            "dashboard": False,
            "preload": ["flows.ending"],
            "preload_nanny": ["flows.ending"],
        }
        workers = {
            number: {"cls": Nanny, "options": {**options, "env": dict(environment)}}
            for number, environment in enumerate(environments)
        }
        with (
            dask.config.set(_own_keys()),
            SpecCluster(
                workers=workers, scheduler=_scheduler(), silence_logs=logging.WARNING
            ) as opened,
        ):
            yield str(opened.scheduler_address)


@cache
def _own_keys() -> dict[str, str]:
    """Return Dask's settings for a key and a certificate of this process, kept in memory.

    A scheduler runs whatever it is sent, and on loopback every user of the machine can reach it:
    only clients and workers that have this key are let in.
    """
    made = Security.temporary()
    named = {
        f"{role}.{part}": getattr(made, f"tls_{role}_{part}")
        for role in ("client", "scheduler", "worker")
        for part in ("key", "cert")
    }
    settings = {"ca-file": made.tls_ca_file, **named}
    return {f"distributed.comm.tls.{name}": value for name, value in settings.items()}


def environment_to_reach(cluster: str, address: str) -> dict[str, str]:
    """Return the variables by which a process that this one starts reaches a cluster of this one.

    There ``cluster`` is the word for it: what is asked by its address fails once it has gone. The
    key is among them: only the same user can read the environment of a process.
    """
    settings = _own_keys() if address.startswith("tls:") else {}
    table = str.maketrans({".": "__", "-": "_"})
    keys = {f"DASK_{name.translate(table).upper()}": value for name, value in settings.items()}
    return {_SERVED: f"{cluster}={address}", **keys}


def _scheduler() -> dict[str, Any]:
    """Describe a scheduler on loopback, with a dashboard where bokeh is installed."""
    dashboard = importlib.util.find_spec("bokeh") is not None
    options = {
        "host": LOOPBACK,
        "protocol": "tls://",
        "port": 0,
        "dashboard": dashboard,
        "dashboard_address": f"{LOOPBACK}:0",
    }
    return {"cls": Scheduler, "options": options}


@contextlib.contextmanager
def _gpus() -> Iterator[str]:
    """Open one worker per GPU, which sees no other GPU and offers ``GPU: 1``."""
    import torch

    count = torch.cuda.device_count()
    if not count:
        raise InvalidRequest(
            "no GPU is visible to torch here: compute on the CPU with --device cpu and "
            "--cluster local, or give the address of a cluster that has one"
        )
    resources = {"GPU": 1.0}
    if importlib.util.find_spec("dask_cuda"):
        opened = importlib.import_module("dask_cuda").LocalCUDACluster
        with opened(threads_per_worker=1, host=LOOPBACK, resources=resources) as cluster:
            yield str(cluster.scheduler_address)
        return
    environments = [{"CUDA_VISIBLE_DEVICES": name} for name in visible_devices(count)]
    with _processes(environments, resources) as address:
        yield address


def visible_devices(count: int) -> list[str]:
    """Return the names of the first ``count`` GPUs that this process may use.

    These are numbers, or the identifiers in ``CUDA_VISIBLE_DEVICES`` (such as those of slices of
    a GPU); each worker is given one.
    """
    listed = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    return listed[:count] or [str(number) for number in range(count)]


@contextlib.contextmanager
def _kubernetes() -> Iterator[str]:
    """Open a cluster of the Dask operator; ``DASK_KUBERNETES__...`` variables configure it."""
    if not importlib.util.find_spec("dask_kubernetes"):
        raise InvalidRequest(
            "--cluster kubernetes needs dask-kubernetes: pip install dask-kubernetes, or give "
            "the address of a scheduler in the cluster as tcp://HOST:PORT"
        )
    operator = importlib.import_module("dask_kubernetes.operator")
    with operator.KubeCluster() as opened:
        yield str(opened.scheduler_address)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the coming and going of workers out of the terminal, but not their warnings."""
    levels = {name: logging.getLogger(name).level for name in _QUIET}
    for name, level in _QUIET.items():
        logging.getLogger(name).setLevel(level)
    try:
        yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


_WORDS = {"threads": _threads, "cuda": _gpus, "kubernetes": _kubernetes}
