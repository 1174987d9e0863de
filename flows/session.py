"""What a run holds from its first look-up to its last publication: a lease and a cluster."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar

from flows.runtime import open_cluster
from storage import open_store
from storage.errors import InvalidRequest

_outer: ContextVar[Session | None] = ContextVar("session", default=None)


class Session:
    """A store open for writing under a lease, and a cluster opened when first needed."""

    def __init__(self, url: str, cluster: str, device: str, stack: contextlib.ExitStack) -> None:
        self.url = url
        self._cluster, self._device, self._stack = cluster, device, stack
        self._address: str | None = None

    def address(self) -> str:
        """Return the scheduler's address; a run with nothing to compute starts no worker."""
        if self._address is None:
            opened = open_cluster(self._cluster, device=self._device)
            self._address = self._stack.enter_context(opened)
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
    store = open_store(url, writable=True)
    if not store.backend.shared and cluster != "threads":
        raise InvalidRequest(f"{url} lives in one process: pass --cluster threads")
    outer = _outer.get()
    if outer is not None and outer.url == store.url and outer.serves(cluster, device):
        yield outer
        return
    with contextlib.ExitStack() as stack:
        stack.enter_context(store.lease())
        opened = Session(store.url, cluster, device, stack)
        token = _outer.set(opened)
        stack.callback(_outer.reset, token)
        yield opened
