"""Ending a process at once, with all that its end calls for done and said.

The system takes back memory at once, where the interpreter takes a second or two to give up what
Prefect and torch are made of, object by object.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
from typing import NoReturn


def leave(status: int = 0) -> NoReturn:
    """Say what is still to be said, and end."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):  # of a reader that is gone
            stream.flush()
    os._exit(status)


def dask_setup(_: object) -> None:
    """Have a worker process end like that, of which this module is a preload of Dask's."""
    atexit.register(leave)
