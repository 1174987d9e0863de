"""Mapping a function over parts on a Dask cluster: one task a part, in bounded windows."""

from __future__ import annotations

import atexit
import contextlib
import gc
import logging
import multiprocessing
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError
from dataclasses import dataclass
from functools import cache
from itertools import islice
from typing import Any, TypeVar

from distributed import Client, Future, KilledWorker, as_completed, secede

from storage import Conflict, StorageError
from tasks.progress import log_of_run
from wavemill.errors import WavemillError

Item = TypeVar("Item")
Result = TypeVar("Result")
Progress = Callable[[int, int], None]

LOGGER = "wavemill"
WINDOW = 4
RETRIES = 3
_PATIENCE = 120.0  # seconds without a worker
_LOOK = 30.0  # seconds without a result, after which this looks whether there is a worker
_TICK = 0.01


_AWAY = threading.Lock()


@contextlib.contextmanager
def giving_way() -> Iterator[None]:
    """Let the worker begin another part while this one waits for a disk.

    In each process one part at a time gives way, so that memory holds at most one part more than
    the process has threads. Outside a worker nothing happens.
    """
    first = _AWAY.acquire(blocking=False)
    try:
        if first:
            with contextlib.suppress(ValueError):  # not in a worker
                secede()
        yield
    finally:
        if first:
            _AWAY.release()


def map_parts(
    function: Callable[[Item], Result],
    items: Sequence[Item],
    *,
    address: str,
    window: int | None = None,
    opened: Callable[[str], None] | None = None,
    progress: Progress | None = None,
    retries: int = RETRIES,
    resources: dict[str, float] | None = None,
    named: Callable[[Item], str] = str,
) -> list[Result]:
    """Apply ``function`` to every item on the workers of a scheduler.

    Parameters
    ----------
    address
        Of the scheduler.
    window
        Tasks submitted and not yet done, at most; four a thread of the cluster unless given.
        It bounds what a killed run leaves half done and what the scheduler holds.
    opened
        Called with the address of the cluster's dashboard, where there is one.
    progress
        Called with how many are done, and of how many.
    retries
        Attempts after a failure, such as a worker killed with the task; what the store or the
        mathematics refuses is not tried again.
    resources
        What a task occupies of its worker, such as ``{"GPU": 1}``.
    named
        Names the item at which workers died, for the message.

    Returns
    -------
    list
        Results in the order of the items.

    Raises
    ------
    ChildProcessError
        If an item ends one worker process after another.
    ConnectionError
        If the scheduler goes away, or has no worker for two minutes.
    Exception
        The first error of an item that retries did not cure, after the rest is cancelled.
    """
    results: dict[int, Result] = {}
    with _passed_over(), Client(address, set_as_default=False) as client, forwarded_logs(client):
        wait_for_worker(client, resources)
        if opened is not None and client.dashboard_link:
            opened(client.dashboard_link)
        size = window or WINDOW * max(1, sum(client.nthreads().values()))
        running: dict[str, int] = {}

        def submitted() -> Iterator[Future[Any]]:
            for index, item in enumerate(items):
                future = client.submit(
                    _audibly, function, item, pure=False, retries=retries, resources=resources
                )
                running[future.key] = index
                yield future

        futures = submitted()
        done = as_completed(list(islice(futures, size)), loop=client.loop)
        try:
            for future in _as_done(done, client, resources):
                result = future.result()
                if isinstance(result, _Refused):
                    raise result.error
                results[running.pop(future.key)] = result
                future.release()
                if progress is not None:
                    progress(len(results), len(items))
                for following in islice(futures, 1):
                    done.add(following)
        except BaseException as error:
            client.cancel([Future(key, client) for key in running], force=True)
            if isinstance(error, CancelledError):
                raise ConnectionError(
                    f"the scheduler at {address} has gone or was restarted: see that it runs, and "
                    "run this again: finished parts are found"
                ) from error
            if not isinstance(error, KilledWorker):
                raise
            raise ChildProcessError(
                f"worker processes died, one after another, at {named(items[running[future.key]])}:"
                " damaged data, or more than their memory holds; leave it out, or start fewer "
                "workers (--cluster local:1), which gives each more memory"
            ) from error
    return [results[index] for index in range(len(items))]


def wait_for_worker(client: Client, resources: Mapping[str, float] | None) -> None:
    """Wait until the cluster has a worker, which offers resources such as ``{"GPU": 1}``.

    Raises
    ------
    ConnectionError
        If it has none for two minutes.
    """
    wanted = resources or {}
    deadline = time.monotonic() + _PATIENCE
    while True:
        info = client.scheduler_info(n_workers=-1)
        offers = [worker["resources"] for worker in info["workers"].values()]
        if any(all(offer.get(name, 0) >= wanted[name] for name in wanted) for offer in offers):
            return
        if time.monotonic() > deadline:
            offer = [f"--resources {name}={wanted[name]:g}" for name in wanted]
            command = " ".join(["dask worker", info["address"], *offer])
            raise ConnectionError(
                f"the scheduler at {info['address']} has no worker for this, and had none for "
                f"{_PATIENCE:.0f} s: start some (`{command}`), with the same "
                "wavemill as here, and run this again: finished parts are found"
            )
        time.sleep(0.1)


def _as_done(
    done: as_completed, client: Client, resources: Mapping[str, float] | None
) -> Iterator[Any]:
    """Yield futures as they are done, but do not wait for ever for workers.

    All may be killed, or end one after another as they cannot load what they are sent; a scheduler
    keeps the tasks for those that may come.
    """
    while not done.is_empty():
        looked = time.monotonic()
        while not done.has_ready():
            time.sleep(_TICK)
            if time.monotonic() > looked + _LOOK:
                wait_for_worker(client, resources)
                looked = time.monotonic()
        yield next(done)


@dataclass(frozen=True)
class _Refused:
    """Stands for a result, if an error would be the same at every attempt."""

    error: Exception


def _audibly(function: Callable[[Item], Result], item: Item) -> Result | _Refused:
    """Call ``function`` in a worker, which logs what it does and not only warnings."""
    logging.getLogger(LOGGER).setLevel(logging.INFO)
    if multiprocessing.parent_process() is not None:
        _pass_over()
    try:
        return function(item)
    except Conflict:
        raise
    except (StorageError, WavemillError) as error:
        return _Refused(error)


@cache
def _pass_over() -> None:
    """Have garbage collections of a worker process pass over the modules that it has loaded.

    These are some 400,000 objects, which take 0.3 s each time; and a part of photographs makes
    enough new objects to set off collections.
    """
    gc.collect()
    gc.freeze()
    atexit.register(gc.unfreeze)  # when a process ends, libraries count what is left


@contextlib.contextmanager
def _passed_over() -> Iterator[None]:
    """Do the same, within a block, in the user's process."""
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


@contextlib.contextmanager
def forwarded_logs(client: Client) -> Iterator[None]:
    """Bring what workers log under ``wavemill`` into the log of the Prefect run."""
    logger, log = logging.getLogger(LOGGER), log_of_run()
    if log is None:
        yield
        return
    handler = _Forward(log)
    logger.addHandler(handler)
    propagate, logger.propagate = logger.propagate, False  # the run's log shows it already
    elsewhere = "inproc://" not in str(client.scheduler_info()["address"])
    if elsewhere:  # a worker within this process has the handler itself
        client.forward_logging(LOGGER, level=logging.INFO)
    try:
        yield
    finally:
        with contextlib.suppress(Exception):  # a cluster that is gone forwards no more
            if elsewhere:
                client.unforward_logging(LOGGER)
        logger.removeHandler(handler)
        logger.propagate = propagate


class _Forward(logging.Handler):
    """Hands records to the logger of a run, which Prefect keeps in a context of its own."""

    def __init__(self, target: Any) -> None:
        super().__init__()
        self.target = target

    def emit(self, record: logging.LogRecord) -> None:
        self.target.log(record.levelno, "%s", record.getMessage())
