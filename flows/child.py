"""Run a command that ends, with everything it has started, when standard input does.

The other end of that pipe is held by whoever started this, and closes when that process ends, by
whatever cause.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import subprocess
import sys
import threading

import psutil

_GRACE = 10.0  # seconds for a process to end when told to
_SUBREAPER = 36  # PR_SET_CHILD_SUBREAPER of prctl


def main(command: list[str]) -> None:
    """Run a command and exit with its status, or with 0 if it was told to end."""
    _adopt()
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    told = threading.Event()

    def end_with_input() -> None:
        while os.read(0, 1):
            pass
        told.set()
        _stop(process)

    waiting = threading.Thread(target=end_with_input, daemon=True)
    waiting.start()
    status = process.wait()
    if told.is_set():
        waiting.join()
        status = 0
    _end(psutil.Process().children(recursive=True))  # what a killed worker was at
    sys.exit(status if status >= 0 else 128 - status)  # as shells do for signals


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Ask the process and everything it has started to end; after a while, kill them."""
    with contextlib.suppress(psutil.NoSuchProcess):
        root = psutil.Process(process.pid)
        _end([root, *root.children(recursive=True)])


def _end(family: list[psutil.Process]) -> None:
    for ask in (psutil.Process.terminate, psutil.Process.kill):
        for member in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                ask(member)
        _, family = psutil.wait_procs(family, timeout=_GRACE)


def _adopt() -> None:
    """Become the parent of what the command leaves behind, where the system knows how (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_SUBREAPER, 1, 0, 0, 0)


if __name__ == "__main__":
    main(sys.argv[1:])
