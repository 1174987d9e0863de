"""Collection: removing what nothing refers to any more, safely while others read and write."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import groupby

from storage.attempts import manifest_path, read_manifest
from storage.backends import ObjectInfo
from storage.backends.base import TEMPORARY
from storage.documents import Log, timestamp
from storage.errors import NotFound
from storage.leases import LIFETIME, collector_lease
from storage.store import Store

GRACE = timedelta(hours=24)
_EXPIRED = "expired version"


@dataclass(frozen=True)
class Removal:
    """One object that a collection removes, and why."""

    path: str
    size: int
    why: str


@dataclass(frozen=True)
class Retention:
    """Which versions stay: the newest always, and those that either limit keeps.

    With neither limit every version stays, and only what no version names is collected.
    """

    versions: int | None = None
    days: float | None = None

    def expired(self, log: Log) -> list[int]:
        """Return the numbers of the versions that may go."""
        numbers = log.numbers()
        if self.versions is None and self.days is None:
            return []
        kept = set(numbers[-max(self.versions or 1, 1) :])
        if self.days is not None:
            oldest = datetime.now(UTC) - timedelta(days=self.days)
            kept |= {n for n in numbers if timestamp(log.read(n)["published"]) >= oldest}
        return [number for number in numbers if number not in kept]


def collect(
    store: Store,
    retention: Retention | None = None,
    grace: timedelta = GRACE,
    *,
    delete: bool = False,
) -> list[Removal]:
    """Find, and on request remove, what no version and no artifact refers to.

    Nothing younger than ``grace`` goes, and nothing at all while a run is alive. Records go
    before what they name, and manifests before their shards, so that a collection killed at
    any instant only leaves more for the next one.

    Raises
    ------
    Conflict
        If a run or another collection holds a lease.
    """
    with collector_lease(store.backend) as lease:
        sweep = _Sweep(store, retention or Retention(), grace, lease.path)
        removals = list(sweep.removals())
        if delete:
            for _, group in groupby(sorted(removals, key=_stage), _stage):
                store.backend.delete([removal.path for removal in group])
        return removals


def _stage(removal: Removal) -> int:
    """Return when something goes: in no order among its like, as S3 removes a thousand at once."""
    if removal.why == _EXPIRED:
        return 0
    home = "/".join(removal.path.split("/")[:3])
    inside = removal.path.startswith(("parts/", "artifacts/"))
    return 2 if inside and removal.path != manifest_path(home) else 1


class _Sweep:
    """One pass over the store: first over what is referred to, then over what is not."""

    def __init__(self, store: Store, retention: Retention, grace: timedelta, lease: str) -> None:
        self.store, self.backend = store, store.backend
        leases = {entry.path: entry for entry in self.backend.walk("leases")}
        self.clock = leases[lease].modified
        self.grace = grace.total_seconds()
        self.parts: set[str] = set()
        self.tables: set[str] = set()
        self.records: list[str] = []
        self.stale = [
            entry
            for path, entry in leases.items()
            if path != lease and abs(self._age(entry)) > LIFETIME
        ]
        for name in store.datasets():
            self._mark(name, retention)

    def _age(self, entry: ObjectInfo) -> float:
        return self.clock - entry.modified

    def _mark(self, name: str, retention: Retention) -> None:
        """Note what the versions that stay refer to, and the records that do not stay."""
        log = Log(self.backend, f"datasets/{name}")
        expired = set(retention.expired(log))
        self.records += [log.path(number) for number in sorted(expired)]
        live = [number for number in log.numbers() if number not in expired]
        for number in live:
            document = log.read(number)
            self.parts |= {part["key"] for part in document["parts"]}
            self.tables |= {*document["samples"], *filter(None, [document["quarantine"]])}
        for view in self.store.views(name):
            self._mark_view(Log(self.backend, f"views/{name}/{view}"), live, bool(expired))

    def _mark_view(self, log: Log, live: list[int], expiring: bool) -> None:
        """Keep, for each dataset version that stays, the newest view version on it."""
        documents = {number: log.read(number) for number in log.numbers()}
        kept = {max(documents)} if documents else set()
        for version in live:
            on_it = [n for n, d in documents.items() if d["dataset_version"] <= version]
            kept |= {max(on_it)} if on_it else set()
        if not expiring:  # every version stays readable
            kept = set(documents)
        self.records += [log.path(number) for number in documents if number not in kept]
        for number in kept:
            self.parts |= set(documents[number]["parts"].values())
            self.tables.add(documents[number]["coefficients"])

    def removals(self) -> Iterator[Removal]:
        """Yield what goes: of each stage, records and then manifests before what they name."""
        yield from (Removal(path, 0, _EXPIRED) for path in self.records)
        yield from (Removal(entry.path, entry.size, "abandoned lease") for entry in self.stale)
        yield from self._old(
            (e for e in self.backend.walk("tables") if _stem(e.path) not in self.tables),
            "unused table",
        )
        for top in ("datasets", "views", "removed"):
            names = (e for e in self.backend.walk(top) if _name(e.path).startswith(TEMPORARY))
            yield from self._old(names, "write that was cut short")
        for home, entries in self._homes().items():
            yield from self._home(home, entries)

    def _homes(self) -> dict[str, list[ObjectInfo]]:
        homes: dict[str, list[ObjectInfo]] = {}
        for top in ("parts", "artifacts"):
            for entry in self.backend.walk(top):
                *home, within = entry.path.split("/", 3)
                if len(home) == 3 and within:  # else a file manager's, beside the homes
                    homes.setdefault("/".join(home), []).append(entry)
        return homes

    def _home(self, home: str, entries: list[ObjectInfo]) -> Iterator[Removal]:
        """Yield a part that no version names, or the attempts that lost."""
        top, _, key = home.split("/")
        if top == "parts" and key not in self.parts:
            if all(self._age(entry) > self.grace for entry in entries):
                manifest = manifest_path(home)
                ordered = sorted(entries, key=lambda entry: entry.path != manifest)
                yield from (Removal(e.path, e.size, "unused part") for e in ordered)
            return
        try:
            winner = read_manifest(self.backend, home)["attempt"]
        except NotFound:
            winner = None
        kept = (manifest_path(home), f"{home}/{winner}/")
        losers = (entry for entry in entries if not entry.path.startswith(kept))
        yield from self._old(losers, "attempt that did not win")

    def _old(self, entries: Iterable[ObjectInfo], why: str) -> Iterator[Removal]:
        for entry in entries:
            if self._age(entry) > self.grace:
                yield Removal(entry.path, entry.size, why)


def _name(path: str) -> str:
    return path.rpartition("/")[2]


def _stem(path: str) -> str:
    return _name(path).split(".")[0]
