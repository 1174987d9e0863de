"""Ending a process at once, after everything registered for its end is done and printed.

The system frees memory at once, where the interpreter takes a second or two to free the objects of
Prefect and torch one by one.
"""

from __future__ import annotations

import atexit
import contextlib
import multiprocessing.util
import os
import signal
import sys
import threading
from functools import cache
from multiprocessing import resource_tracker
from typing import NoReturn


def leave(status: int = 0) -> NoReturn:
    """Print what is still buffered, and end."""
    for stream in filter(None, (sys.stdout, sys.stderr)):  # one that is closed is None
        with contextlib.suppress(OSError, ValueError):  # the reader is gone
            stream.flush()
    os._exit(status)


def dask_setup(server: object) -> None:
    """Have worker processes end like that, and only when they are told to: a preload for Dask.

    A terminal's Ctrl-C reaches every process, but only the one that runs the nannies should act on
    it, and stop the workers in order. So the nannies' thread blocks the signal, and the workers,
    which are started from it, do not receive it.
    """
    from distributed import Nanny

    if isinstance(server, Nanny):
        resource_tracker.ensure_running()  # it unblocks signals once it has started
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    else:
        atexit.register(_leave_worker)


def _leave_worker() -> NoReturn:
    # from Python 3.13 on this runs before what multiprocessing has registered: locks would leak
    multiprocessing.util._exit_function()  # type: ignore[attr-defined]
    leave()


@cache
def forks_end_well() -> None:
    """Have processes that are forked from here on not drain Prefect's threads, which they lack.

    They would fail at their end, and a ``DataLoader`` that is used after a flow takes its workers
    for dead (Prefect 3, `QueueService._drain`).
    """
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_forget_prefect)


def _forget_prefect() -> None:
    calls = getattr(threading, "_threading_atexits", [])
    calls[:] = [call for call in calls if not _is_prefects(getattr(call, "func", call))]


def _is_prefects(call: object) -> bool:
    return (getattr(call, "__module__", None) or "").startswith("prefect.")
