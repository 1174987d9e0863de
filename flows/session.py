"""What a run holds from its first look-up to its last publication: a lease, and a cluster."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar

from flows.ending import forks_end_well
from flows.runtime import open_cluster, workers_of
from storage import open_store
from storage.errors import InvalidRequest
from tasks.progress import caution

_outer: ContextVar[Session | None] = ContextVar("session", default=None)


class Session:
    """A store open for writing under a lease, and a cluster opened when first needed."""

    def __init__(self, url: str, cluster: str, device: str, stack: contextlib.ExitStack) -> None:
        self.url = url
        self._cluster, self._device = cluster, device
        self._opened = stack.enter_context(contextlib.ExitStack())
        self._address, self._workers = "", 0

    def address(self, tasks: int | None = None) -> str:
        """Return the address of a scheduler for so many tasks; without a number, of all workers.

        A run with nothing to compute starts no worker. If later there are more tasks than workers,
        the cluster is opened again with more, as far as it may have more.
        """
        workers = 0 if self._device == "cuda" else workers_of(self._cluster, tasks)
        if not self._address or workers > self._workers:
            self._opened.close()
            opened = open_cluster(self._cluster, device=self._device, tasks=tasks)
            self._address, self._workers = self._opened.enter_context(opened), workers
        return self._address

    def serves(self, cluster: str, device: str) -> bool:
        """Say whether a flow within this one can use its cluster."""
        return (cluster, device) == (self._cluster, self._device)


@contextlib.contextmanager
def session(url: str, cluster: str, device: str = "cpu") -> Iterator[Session]:
    """Open a store for a run: nothing is collected, and workers stop, whatever happens.

    A flow within a flow shares the outer one's lease and cluster.

    Raises
    ------
    InvalidRequest
        If workers of other processes were to write into this process's memory.
    """
    forks_end_well()
    store = open_store(url, writable=True)
    if not store.backend.shared and cluster != "threads":
        raise InvalidRequest(f"{url} lives in one process: pass --cluster threads")
    outer = _outer.get()
    if outer is not None and outer.url == store.url and outer.serves(cluster, device):
        yield outer
        return
    with contextlib.ExitStack() as stack:
        stack.enter_context(store.lease(caution))
        opened = Session(store.url, cluster, device, stack)
        token = _outer.set(opened)
        stack.callback(_outer.reset, token)
        yield opened
