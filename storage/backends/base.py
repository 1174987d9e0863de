"""What a backend must do: whole objects, byte ranges, listing, and one exclusive creation."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

from storage.errors import Damaged

SINGLE_WRITER = "?single-writer"  # at the end of a store's address
TEMPORARY = ".tmp-"  # begins the name of a file that is being written


@dataclass(frozen=True)
class ObjectInfo:
    """One stored object: its path below the root, bytes, and seconds since 1970."""

    path: str
    size: int
    modified: float


class Backend(Protocol):
    """Objects below a root, addressed by relative paths with ``/``."""

    url: str
    shared: bool
    """Whether other processes see the same objects."""

    def read(self, path: str, start: int = 0, stop: int | None = None) -> bytes:
        """Return bytes ``start:stop`` (``start`` may be negative); FileNotFoundError if absent."""
        ...

    def write(self, path: str, data: bytes | memoryview) -> None:
        """Write a whole object durably; a reader sees all of it or nothing."""
        ...

    def create(self, path: str, data: bytes) -> bool:
        """Publish: write only if absent, atomically. Return False if it was there already."""
        ...

    def exists(self, path: str) -> bool:
        """Say whether an object is there."""
        ...

    def names(self, folder: str) -> list[str]:
        """Return the names directly below ``folder`` (objects and folders), sorted."""
        ...

    def walk(self, folder: str) -> Iterator[ObjectInfo]:
        """Yield every object below ``folder``, at any depth."""
        ...

    def delete(self, paths: Iterable[str]) -> None:
        """Remove objects; it is not an error if some are gone already."""
        ...

    def enforces_exclusive_creation(self) -> bool:
        """Probe whether a second creation of the same object fails."""
        ...


def is_below(path: str) -> bool:
    """Say whether a path stays below the root: absolute ones and those with ``..`` do not."""
    return "\0" not in path and {"", ".", ".."}.isdisjoint(path.split("/"))


def below(path: str) -> str:
    """Return a path below the root, ``""`` being the root itself.

    Raises
    ------
    Damaged
        If it leads elsewhere: only a record that was not written here can name such a path.
    """
    if path and not is_below(path):
        raise Damaged(f"{path!r} leads out of the store: run `wavemill verify`")
    return path


def probe(backend: Backend, path: str) -> bool:
    """Create twice and say whether an attempt lost, as the second must.

    If the first one does, its answer was lost on its way, and the client asked again.
    """
    created = backend.create(path, b"")
    try:
        return not (created and backend.create(path, b""))
    finally:
        backend.delete([path])
