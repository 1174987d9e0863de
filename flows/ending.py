"""Ending a process at once, with all that its end calls for done and said.

The system takes back memory at once, where the interpreter takes a second or two to give up what
Prefect and torch are made of, object by object.
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
    """Say what is still to be said, and end."""
    for stream in filter(None, (sys.stdout, sys.stderr)):  # one that is closed is None
        with contextlib.suppress(OSError, ValueError):  # of a reader that is gone
            stream.flush()
    os._exit(status)


def dask_setup(server: object) -> None:
    """Have worker processes end like that, and when they are told to: a preload of Dask's.

    A terminal's Ctrl-C reaches every process. Only the nannies' is to hear it, which stops the
    workers in order: what starts in a thread that lets no such signal through is deaf to it.
    """
    from distributed import Nanny

    if isinstance(server, Nanny):
        resource_tracker.ensure_running()  # which lets signals through once it has started
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    else:
        atexit.register(_leave_worker)


def _leave_worker() -> NoReturn:
    # from Python 3.13 on this comes before what multiprocessing has registered: locks would leak
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
