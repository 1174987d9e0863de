"""What a backend must do: whole objects, byte ranges, listing, and one exclusive creation."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

SINGLE_WRITER = "?single-writer"  # behind the address of a store


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
        """Remove objects; those already gone are no error."""
        ...

    def enforces_exclusive_creation(self) -> bool:
        """Probe whether a second creation of the same object fails."""
        ...


def probe(backend: Backend, path: str) -> bool:
    """Create twice and say whether the second attempt lost, as it must."""
    try:
        return backend.create(path, b"probe\n") and not backend.create(path, b"probe\n")
    finally:
        backend.delete([path])
