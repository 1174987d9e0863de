"""Leases: a run says that it is alive, so that nothing it relies on is collected.

Runs and collectors each write their own lease before they look for the other kind; so if both
start together, at least one sees the other. Ages are compared between
objects of the same store, so clocks of different machines do not matter.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Literal

from storage.backends import Backend, ObjectInfo
from storage.errors import Conflict

HEARTBEAT = 20.0
LIFETIME = 6 * HEARTBEAT

Kind = Literal["run", "gc"]
log = logging.getLogger("wavemill.storage")


class Lease:
    """A heartbeat object ``leases/<kind>-<id>.json``: empty, so that a full disk takes it."""

    def __init__(self, backend: Backend, kind: Kind) -> None:
        self.backend = backend
        self.path = f"leases/{kind}-{uuid.uuid4().hex[:12]}.json"
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, name=self.path, daemon=True)

    def start(self) -> None:
        """Write the lease and keep it fresh from a thread."""
        self.beat()
        self._thread.start()

    def stop(self) -> None:
        """End the heartbeat and remove the lease."""
        self._stop.set()
        self._thread.join(timeout=HEARTBEAT)
        self.backend.delete([self.path])

    def beat(self) -> None:
        """Write the lease anew."""
        self.backend.write(self.path, b"")

    def _beat(self) -> None:
        while not self._stop.wait(HEARTBEAT):
            try:
                self.beat()
            except OSError as error:  # the store is away for a moment: try at the next beat
                log.warning("lease %s could not be renewed: %s", self.path, error)


def alive(backend: Backend, kind: Kind, own: str) -> list[ObjectInfo]:
    """Return leases of ``kind`` whose last beat is recent by the store's own clock.

    One from the future is not: a clock that was ahead has been put right since it was written, and
    who is alive writes it anew.
    """
    leases = {entry.path: entry for entry in backend.walk("leases")}
    present = leases[own].modified if own in leases else time.time()
    return [
        entry
        for path, entry in leases.items()
        if path.startswith(f"leases/{kind}-")
        and path != own
        and abs(present - entry.modified) < LIFETIME
    ]


@contextlib.contextmanager
def run_lease(
    backend: Backend, *, patience: float = 600.0, tell: Callable[[str], object] = log.warning
) -> Iterator[Lease]:
    """Hold a lease for a run, waiting for a collector to finish first.

    Parameters
    ----------
    patience
        Seconds to wait.
    tell
        Called once with why this waits, if it does.

    Raises
    ------
    Conflict
        If a collector is still at work after ``patience`` seconds.
    """
    lease = Lease(backend, "run")
    lease.start()
    try:
        deadline, told = time.monotonic() + patience, False
        while alive(backend, "gc", lease.path):
            if not told:
                tell(
                    f"waiting: something is being removed from {backend.url} (or a gc or remove "
                    "was killed there, which counts as alive for two minutes)"
                )
                told = True
            if time.monotonic() > deadline:
                raise Conflict(f"a `wavemill gc` has been at work for {patience:.0f} s: try later")
            lease.beat()
            time.sleep(0.5)
        yield lease
    finally:
        lease.stop()


@contextlib.contextmanager
def collector_lease(backend: Backend) -> Iterator[Lease]:
    """Hold the collector's lease.

    Raises
    ------
    Conflict
        If a run or another collector is alive.
    """
    lease = Lease(backend, "gc")
    lease.start()
    try:
        for kind in ("run", "gc"):
            if others := alive(backend, kind, lease.path):
                raise Conflict(
                    f"{others[0].path} is alive, and nothing is removed meanwhile: try again when "
                    "it ends (two minutes later if it was killed)"
                )
        yield lease
    finally:
        lease.stop()
