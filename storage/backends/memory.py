"""The memory of this process: for tests and for trying things out."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator
from typing import ClassVar

from storage.backends.base import ObjectInfo, below, probe


class MemoryBackend:
    """Objects in a dictionary that every backend of the same name in this process shares."""

    shared = False
    _stores: ClassVar[dict[str, dict[str, tuple[bytes, float]]]] = {}
    _lock: ClassVar[threading.Lock] = threading.Lock()

    def __init__(self, name: str) -> None:
        self.url = f"memory://{name}"
        with self._lock:
            self._objects = self._stores.setdefault(name, {})

    def read(self, path: str, start: int = 0, stop: int | None = None) -> bytes:
        """Return bytes ``start:stop`` of an object."""
        try:
            return self._objects[below(path)][0][start:stop]
        except KeyError:
            raise FileNotFoundError(path) from None

    def write(self, path: str, data: bytes | memoryview) -> None:
        """Keep an object."""
        self._objects[path] = (bytes(data), time.time())

    def create(self, path: str, data: bytes) -> bool:
        """Keep an object unless it is there."""
        with self._lock:
            if path in self._objects:
                return False
            self.write(path, data)
            return True

    def exists(self, path: str) -> bool:
        """Say whether an object is there."""
        return path in self._objects

    def names(self, folder: str) -> list[str]:
        """Return the names directly below a folder."""
        prefix = f"{folder}/" if folder else ""
        return sorted(
            {p[len(prefix) :].split("/")[0] for p in list(self._objects) if p.startswith(prefix)}
        )

    def walk(self, folder: str) -> Iterator[ObjectInfo]:
        """Yield every object below a folder."""
        prefix = f"{folder}/" if folder else ""
        for path, (data, modified) in list(self._objects.items()):
            if path.startswith(prefix):
                yield ObjectInfo(path, len(data), modified)

    def delete(self, paths: Iterable[str]) -> None:
        """Forget objects."""
        for path in paths:
            self._objects.pop(path, None)

    def enforces_exclusive_creation(self) -> bool:
        """Probe the lock that makes creation exclusive."""
        return probe(self, "leases/.probe")
