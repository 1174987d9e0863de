"""Check every checksum, say what each damage costs and how to get it back."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from storage.attempts import manifest_path
from storage.backends import Backend
from storage.documents import Document, unseal
from storage.errors import Damaged
from storage.keys import digest
from storage.store import Store


@dataclass(frozen=True)
class Finding:
    """One damaged or missing object.

    Attributes
    ----------
    path
        Where it is, below the root.
    problem
        What is wrong with it.
    remedy
        What brings it back, after ``wavemill verify --repair`` has cleared the way.
    clear
        Paths that a repair removes so that recomputation writes them anew.
    """

    path: str
    problem: str
    remedy: str
    clear: tuple[str, ...] = ()


def verify(store: Store, key: str | None = None) -> Iterator[Finding]:
    """Yield what is damaged, reading every object once.

    Parameters
    ----------
    key
        Look only at parts, tables and artifacts whose key begins so.
    """
    users = _Users(store)
    if key is None:
        yield from users.damaged
    yield from _tables(store.backend, users, key or "")
    for home in _homes(store.backend, key or ""):
        yield from _home(store.backend, home, users)
    yield from (finding for finding in users.missing() if key is None)


def repair(store: Store, findings: list[Finding]) -> None:
    """Remove what is damaged, so that running the remedies computes it anew."""
    for finding in findings:
        store.backend.delete(finding.clear)


class _Users:
    """Which dataset, view or artifact relies on which part and table."""

    def __init__(self, store: Store) -> None:
        self.backend = store.backend
        self.parts: dict[str, str] = {}
        self.tables: dict[str, tuple[str, str]] = {}
        self.damaged: list[Finding] = []
        for name in store.datasets():
            remedy = f"`wavemill ingest` the sources of {name} again"
            for path, document in self._documents(f"datasets/{name}", remedy):
                self._note_dataset(path, document, remedy)
        for name in self.backend.names("views"):
            for view in self.backend.names(f"views/{name}"):
                remedy = f"`wavemill features {name} --as {view}` with its --view and --set"
                for path, document in self._documents(f"views/{name}/{view}", remedy):
                    self._note_view(name, view, path, document)

    def _documents(self, folder: str, remedy: str) -> Iterator[tuple[str, Document]]:
        for name in self.backend.names(folder):
            path = f"{folder}/{name}"
            try:
                yield path, unseal(self.backend.read(path), path)
            except Damaged as error:
                self.damaged.append(Finding(path, str(error), remedy, (path,)))

    def _note_dataset(self, path: str, document: Document, remedy: str) -> None:
        for part in document["parts"]:
            self.parts[part["key"]] = remedy
        tables = [*document["samples"], *filter(None, [document["quarantine"]])]
        self.tables.update(dict.fromkeys(tables, (path, remedy)))

    def _note_view(self, dataset: str, view: str, path: str, document: Document) -> None:
        spec = document["spec"]
        settings = "".join(f" --set {k}={v}" for k, v in spec["parameters"].items())
        name = "" if view == spec["kind"] else f" --as {view}"
        remedy = f"`wavemill features {dataset} --view {spec['kind']}{name}{settings}`"
        self.parts.update(dict.fromkeys(document["parts"].values(), remedy))
        self.tables[document["coefficients"]] = (path, remedy)

    def missing(self) -> Iterator[Finding]:
        """Yield what a record names and the store does not hold."""
        for key, remedy in self.parts.items():
            path = f"parts/{key[:2]}/{key}/manifest.json"
            if not self.backend.exists(path):
                yield Finding(path, "is missing", remedy)
        for key, (path, remedy) in self.tables.items():
            if not self.backend.exists(f"tables/{key}.parquet"):
                yield Finding(f"tables/{key}.parquet", "is missing", remedy, (path,))


def _tables(backend: Backend, users: _Users, prefix: str) -> Iterator[Finding]:
    for name in backend.names("tables"):
        key, path = name.removesuffix(".parquet"), f"tables/{name}"
        if not key.startswith(prefix) or digest(backend.read(path)) == key:
            continue
        record, remedy = users.tables.get(key, ("", "nothing uses it: `wavemill gc` removes it"))
        clear = (path, record) if record else (path,)
        yield Finding(path, "differs from what was written", remedy, clear)


def _homes(backend: Backend, prefix: str) -> Iterator[str]:
    """Yield the folder of every part and artifact."""
    for first in backend.names("parts"):
        yield from (
            f"parts/{first}/{k}" for k in backend.names(f"parts/{first}") if k.startswith(prefix)
        )
    for kind in backend.names("artifacts"):
        keys = backend.names(f"artifacts/{kind}")
        yield from (f"artifacts/{kind}/{key}" for key in keys if key.startswith(prefix))


def _home(backend: Backend, home: str, users: _Users) -> Iterator[Finding]:
    """Check a manifest and every object it lists."""
    path, key = manifest_path(home), home.rsplit("/", 1)[1]
    try:
        manifest = unseal(backend.read(path), path)
    except FileNotFoundError:
        return  # an attempt that has not won: not yet, or never, part of anything
    except Damaged as error:
        yield Finding(path, str(error), users.parts.get(key, _remake(home)), (path,))
        return
    remedy = users.parts.get(key) or _remake(home, manifest)
    for name, expected in manifest["objects"].items():
        where = f"{home}/{manifest['attempt']}/{name}"
        if problem := _problem(lambda where=where: backend.read(where), expected):  # type: ignore[misc]
            yield Finding(where, problem, remedy, (path, where))


def _problem(read: Callable[[], bytes], expected: dict[str, Any]) -> str:
    with contextlib.suppress(FileNotFoundError):
        return "" if digest(read()) == expected["sha256"] else "differs from what was written"
    return "is missing"


def _remake(home: str, manifest: Document | None = None) -> str:
    if not home.startswith("artifacts/"):
        return "no version names it: `wavemill gc` removes it"
    dataset = manifest["dataset"] if manifest else "its dataset"
    return f"`wavemill fit {home.split('/')[1]} {dataset}` with its --set and --seed"
