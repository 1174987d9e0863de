"""Artifacts: fitted models, as they are read."""

from __future__ import annotations

from dataclasses import dataclass

from storage.backends import Backend
from storage.documents import Document, read_checked
from storage.errors import NotFound


def short(kind: str, key: str) -> str:
    """Return the name by which people refer to an artifact."""
    return f"{kind}/{key[:12]}"


@dataclass(frozen=True)
class Artifact:
    """A fitted model: its manifest and its files."""

    backend: Backend
    home: str
    manifest: Document

    def __repr__(self) -> str:
        files, dataset = ", ".join(self.files()), self.manifest.get("dataset")
        return f"Artifact({self.short!r} of {dataset!r}: {files})"

    @property
    def key(self) -> str:
        """The sha256 that names the fit."""
        return str(self.manifest["key"])

    @property
    def kind(self) -> str:
        """The kind of model."""
        return str(self.manifest["kind"])

    @property
    def short(self) -> str:
        """What people call it."""
        return short(self.kind, self.key)

    def read(self, path: str) -> bytes:
        """Return one of its files, such as ``weights.safetensors``.

        Raises
        ------
        Damaged
            If it is missing or its bytes changed.
        NotFound
            If the artifact has no such file.
        """
        if path not in self.manifest["objects"]:
            raise NotFound(f"{self.short} has no file {path!r}; it has {', '.join(self.files())}")
        where = f"{self.home}/{self.manifest['attempt']}/{path}"
        return read_checked(self.backend, where, self.manifest["objects"][path]["sha256"])

    def files(self) -> list[str]:
        """Return the paths of its files."""
        return sorted(self.manifest["objects"])
