"""Check every checksum; say what is lost where one is wrong, and how to get it back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from storage.attempts import homes, manifest_path
from storage.backends import Backend
from storage.backends.base import is_below
from storage.documents import Document, Log, unseal
from storage.errors import Damaged, NotFound
from storage.keys import digest, quick_digest
from storage.parts import part_home
from storage.store import Store
from storage.tables import table_path

_MISSING = "is missing"


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

    @property
    def versions(self) -> str:
        """Which versions a repair removes, such as ``versions 1, 2 of flow``; "" if none."""
        numbers: dict[str, list[str]] = {}
        for path in self.clear:
            top, _, rest = path.partition("/")
            if top in ("datasets", "views"):
                name, _, number = rest.rpartition("/")
                numbers.setdefault(name, []).append(number.removesuffix(".json"))
        return " and ".join(f"versions {', '.join(n)} of {name}" for name, n in numbers.items())


def verify(
    store: Store, key: str | None = None, seen: Callable[[str], object] = lambda path: None
) -> Iterator[Finding]:
    """Yield what is damaged, reading every object once.

    What is collected or removed meanwhile is passed over: records go before what they name, and
    manifests before what they list.

    Parameters
    ----------
    key
        A dataset, to look only at its records, tables and parts, and those of its views; or how
        the keys of parts, tables and artifacts begin.
    seen
        Called with the path of each object that is read.

    Raises
    ------
    NotFound
        If ``key`` names nothing.
    """
    backend = store.backend
    dataset = key if key in backend.names("datasets") else None
    users = _Users(store, dataset)
    named = {*users.parts, *users.tables}

    def wanted(name: str) -> bool:
        return name in named if dataset else name.startswith(key or "")

    keys = [
        name.removesuffix(".parquet")
        for name in backend.names("tables")
        if name.endswith(".parquet")  # else a file manager's
    ]
    tables = [key for key in keys if wanted(key)]
    every = homes(backend, "parts", "artifacts")
    found = [home for home in every if wanted(home.rpartition("/")[2])]
    whole = key is None or dataset is not None
    if not (whole or tables or found):
        raise NotFound(
            f"{key!r} is not a dataset, and no key in {store.url} begins like this: see "
            "`wavemill ls`"
        )
    if whole:
        for path in users.records:
            seen(path)
        yield from users.damaged
    for table in tables:
        yield from _table(backend, table, users, seen)
    for home in found:
        yield from _home(backend, home, users, seen)
    if whole:
        yield from users.missing()


def repair(store: Store, findings: list[Finding]) -> None:
    """Remove what is damaged, so that running the remedies computes it anew."""
    for finding in findings:
        store.backend.delete(finding.clear)


class _Users:
    """Which dataset, view or artifact relies on which part and table; of one dataset, or of all."""

    def __init__(self, store: Store, dataset: str | None) -> None:
        self.backend = store.backend
        self.parts: dict[str, tuple[str, str]] = {}
        """For each part, the last record that names it, and what brings it back."""
        self.tables: dict[str, dict[str, str]] = {}
        """For each table, the records that name it, and what brings each back."""
        self.records: list[str] = []
        self.damaged: list[Finding] = []
        for name in [dataset] if dataset else store.datasets():
            remedy = f"`wavemill ingest` the sources of {name} again"
            for path, document in self._documents(f"datasets/{name}", remedy):
                self._note_dataset(path, document, remedy)
        for name in [dataset] if dataset else self.backend.names("views"):
            for view in self.backend.names(f"views/{name}"):
                remedy = f"`wavemill features {name} --as {view}` with its --view and --set"
                for path, document in self._documents(f"views/{name}/{view}", remedy):
                    self._note_view(name, view, path, document)

    def _documents(self, folder: str, remedy: str) -> Iterator[tuple[str, Document]]:
        log = Log(self.backend, folder)
        for path in map(log.path, log.numbers()):
            try:
                document = unseal(self.backend.read(path), path)
            except FileNotFoundError:
                continue
            except Damaged as error:
                self.records.append(path)
                self.damaged.append(Finding(path, _said(error, path), remedy, (path,)))
            else:
                self.records.append(path)
                yield path, document

    def _note_dataset(self, path: str, document: Document, remedy: str) -> None:
        tables = [*document["samples"], *filter(None, [document["quarantine"]])]
        self._note(path, [part["key"] for part in document["parts"]], tables, remedy)

    def _note_view(self, dataset: str, view: str, path: str, document: Document) -> None:
        spec = document["spec"]
        settings = "".join(f" --set {k}={v}" for k, v in spec["parameters"].items())
        name = "" if view == spec["kind"] else f" --as {view}"
        remedy = f"`wavemill features {dataset} --view {spec['kind']}{name}{settings}`"
        self._note(path, [*document["parts"].values()], [document["coefficients"]], remedy)

    def _note(self, path: str, parts: list[str], tables: list[str], remedy: str) -> None:
        if astray := [key for key in (*parts, *tables) if not is_below(key)]:
            self.damaged.append(Finding(path, _leads_out(astray[0]), remedy, (path,)))
            return
        self.parts.update(dict.fromkeys(parts, (path, remedy)))
        for table in tables:
            self.tables.setdefault(table, {})[path] = remedy

    def remedy(self, home: str, manifest: Document | None = None) -> str:
        """Return what brings back a part or an artifact."""
        _, remedy = self.parts.get(home.rpartition("/")[2], ("", ""))
        return remedy or _remake(home, manifest)

    def table(self, key: str, problem: str) -> Finding:
        """Return the finding that a table is damaged: all records that name it go with it."""
        path, records = table_path(key), self.tables.get(key, {})
        remedy = ", ".join(dict.fromkeys(records.values()))
        unused = "nothing uses it: `wavemill gc` removes it"
        return Finding(path, problem, remedy or unused, (path, *records))

    def missing(self) -> Iterator[Finding]:
        """Yield what a record names and the store does not hold."""
        exists = self.backend.exists
        for key, (record, remedy) in self.parts.items():
            path = manifest_path(part_home(key))
            if not exists(path) and exists(record):
                yield Finding(path, _MISSING, remedy)
        for key, records in self.tables.items():
            if not exists(table_path(key)) and any(map(exists, records)):
                yield self.table(key, _MISSING)


def _table(
    backend: Backend, key: str, users: _Users, seen: Callable[[str], object]
) -> Iterator[Finding]:
    path = table_path(key)
    try:
        data = backend.read(path)
    except FileNotFoundError:
        return
    seen(path)
    if digest(data) != key:
        yield users.table(key, "differs from what was written")


def _home(
    backend: Backend, home: str, users: _Users, seen: Callable[[str], object]
) -> Iterator[Finding]:
    """Check a manifest and every object it lists."""
    path = manifest_path(home)
    try:
        data = backend.read(path)
        manifest = unseal(data, path)
    except FileNotFoundError:
        return  # an attempt that has not won: not yet, or never, part of anything
    except Damaged as error:
        seen(path)
        yield Finding(path, _said(error, path), users.remedy(home), (path,))
        return
    seen(path)
    remedy = users.remedy(home, manifest)
    for name, expected in manifest["objects"].items():
        where = f"{home}/{manifest['attempt']}/{name}"
        if not is_below(where):  # a repair must not follow it
            yield Finding(path, _leads_out(where), remedy, (path,))
            continue
        problem = _problem(backend, where, expected)
        if problem == _MISSING and not _holds(backend, path, data):
            return
        seen(where)
        if problem:
            yield Finding(where, problem, remedy, (path, where))


def _holds(backend: Backend, path: str, data: bytes) -> bool:
    try:
        return backend.read(path) == data
    except FileNotFoundError:
        return False


def _leads_out(path: str) -> str:
    return f"names {path!r}, which leads out of the store"


def _said(error: Damaged, path: str) -> str:
    """Return what is wrong with a document, without where it is and the advice to verify it."""
    return str(error).removeprefix(f"{path} ").removesuffix(": run `wavemill verify`")


def _problem(backend: Backend, path: str, expected: dict[str, Any]) -> str:
    try:
        data = backend.read(path)
    except FileNotFoundError:
        return _MISSING
    if "sha256" in expected:  # of shards of older parts, too
        same = digest(data) == expected["sha256"]
    else:
        same = quick_digest(data) == expected["xxh3_128"]
    return "" if same else "differs from what was written"


def _remake(home: str, manifest: Document | None) -> str:
    if not home.startswith("artifacts/"):
        return "no version names it: `wavemill gc` removes it"
    dataset = manifest["dataset"] if manifest else "its dataset"
    return f"`wavemill fit {home.split('/')[1]} {dataset}` with its --set and --seed"
