"""Attempts: how a part or an artifact is made, whichever process is killed on the way.

An attempt writes below ``<home>/<attempt>/``. Its manifest, ``<home>/manifest.json``, is
published exclusively and names the attempt that won, with a checksum for every object; a
loser removes its own folder and uses the winner's.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import uuid
from collections.abc import Iterator, Mapping
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import zarr

from storage.arrays import FolderStore
from storage.backends import Backend
from storage.documents import Document, now, read_document, seal
from storage.errors import NoRoom, NotFound
from storage.keys import digest, quick_digest


class Attempt:
    """One try at making what belongs at ``home``."""

    def __init__(self, backend: Backend, home: str) -> None:
        self.backend = backend
        self.home = home
        self.name = uuid.uuid4().hex[:12]
        self.objects: dict[str, dict[str, Any]] = {}
        self._may_have_won = False

    @property
    def folder(self) -> str:
        """Where this attempt writes."""
        return f"{self.home}/{self.name}"

    def group(self) -> zarr.Group:
        """Create the Zarr group ``data.zarr``."""
        folder = f"{self.folder}/data.zarr"
        store = FolderStore(
            self.backend, folder, lambda key, data: self._note_array(f"data.zarr/{key}", data)
        )
        return zarr.create_group(store, zarr_format=3)

    def write(self, path: str, data: bytes) -> None:
        """Write one object, such as ``weights.safetensors``."""
        self.backend.write(f"{self.folder}/{path}", data)
        self._note(path, data)

    def _note(self, path: str, data: bytes | memoryview) -> None:
        self.objects[path] = {"sha256": digest(data), "bytes": len(data)}

    def _note_array(self, path: str, data: bytes | memoryview) -> None:
        """Note what Zarr wrote: descriptions like other files, shards by a faster checksum."""
        if path.endswith("/zarr.json"):
            self._note(path, data)
        else:
            self.objects[path] = {"xxh3_128": quick_digest(data), "bytes": len(data)}

    def publish(self, document: Mapping[str, Any]) -> tuple[Document, bool]:
        """Publish the manifest; return the winner's, and whether it is this attempt's.

        Where an answer was lost on its way a client asks again, and is told that the name is
        taken: by this attempt.
        """
        body = {
            **document,
            "attempt": self.name,
            "objects": self.objects,
            "published": now(),
            "provenance": {**provenance(), **document.get("provenance", {})},
        }
        data, path = seal(body), manifest_path(self.home)
        self._may_have_won = True  # also where there is no answer
        try:
            created = self.backend.create(path, data)
        except NoRoom:
            self._may_have_won = False
            raise
        made: Document = json.loads(data) if created else read_document(self.backend, path)
        if made["attempt"] == self.name:
            return made, True
        self._may_have_won = False
        self.abandon()
        return made, False

    def abandon(self) -> None:
        """Remove what this attempt wrote, unless it may have won: then it is a collector's."""
        if not self._may_have_won:
            self.backend.delete([entry.path for entry in self.backend.walk(self.folder)])


@contextlib.contextmanager
def attempting(backend: Backend, home: str) -> Iterator[Attempt]:
    """Yield an attempt and remove its objects if it fails."""
    attempt = Attempt(backend, home)
    try:
        yield attempt
    except BaseException:
        with contextlib.suppress(Exception):
            attempt.abandon()
        raise


def homes(backend: Backend, *tops: str) -> Iterator[str]:
    """Yield the folders of all ``parts``, of all ``artifacts``, or of both."""
    for top in tops:
        for folder in backend.names(top):
            yield from (f"{top}/{folder}/{key}" for key in backend.names(f"{top}/{folder}"))


def manifest_path(home: str) -> str:
    """Return where the manifest of ``home`` lies."""
    return f"{home}/manifest.json"


def read_manifest(backend: Backend, home: str) -> Document:
    """Read a manifest.

    Raises
    ------
    NotFound
        If no attempt has won yet.
    """
    try:
        return read_document(backend, manifest_path(home))
    except FileNotFoundError:
        raise NotFound(f"{home} has not been computed") from None


@cache
def provenance() -> dict[str, Any]:
    """Return which code computed this: versions and, in a checkout, the commit."""
    versions = {name: metadata.version(name) for name in ("torch", "numpy", "zarr")}
    return {
        "wavemill": metadata.version("wavemill"),
        "commit": _commit(),
        "python": sys.version.split()[0],
        **versions,
    }


def _commit() -> str | None:
    here = Path(__file__).parent
    if not (here.parent / ".git").exists():
        return None
    command = ["git", "-C", str(here), "rev-parse", "HEAD"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=5, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return found.stdout.strip()
