"""The store: one object through which datasets, views and artifacts are written and read."""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pandas as pd
import zarr

from storage.addresses import checked_name
from storage.artifacts import Artifact
from storage.attempts import Attempt, attempting, manifest_path, read_manifest
from storage.backends import SINGLE_WRITER, Backend, open_backend
from storage.checkpoints import Checkpoint
from storage.datasets import Change, Dataset
from storage.documents import AsOf, Document, Log, version_number
from storage.errors import Conflict, InvalidRequest, NotFound
from storage.features import FeatureFrame, historical_features, online_features
from storage.keys import derivation_key
from storage.leases import Lease, run_lease
from storage.parts import part_home
from storage.records import DatasetVersion, ViewVersion
from storage.tables import read_table, write_table

log = logging.getLogger("wavemill.storage")
Build = Callable[[DatasetVersion], DatasetVersion | None]
SHORTEST = 4  # characters of a key that stand for it
_FOLDERS = {"artifacts", "datasets", "leases", "parts", "removed", "tables", "views"}


def open_store(
    url: str | os.PathLike[str],
    *,
    writable: bool = False,
    single_writer: bool = False,
    existing: bool = False,
) -> Store:
    """Open a store; nothing is read until something is asked.

    Parameters
    ----------
    url
        A folder (text or a path), ``s3://bucket/prefix`` or ``memory://name``.
    writable
        Probe, once, that the store enforces exclusive creation.
    single_writer
        Accept one that does not; then only one process may write at a time.
    existing
        Check that there is a store: a wrong address otherwise looks like an empty one.

    Raises
    ------
    NotFound
        If ``existing`` and nothing, or something else, is there.
    Conflict
        If it is to be written, does not enforce exclusive creation, and ``single_writer`` is
        not given.
    """
    url = os.fspath(url)
    mark = SINGLE_WRITER if single_writer and not url.endswith(SINGLE_WRITER) else ""
    backend = open_backend(url + mark)
    if existing and _FOLDERS.isdisjoint(backend.names("")):
        raise NotFound(f"there is no store at {url}: check --store; `wavemill ingest` makes one")
    trusted = backend.url.endswith(SINGLE_WRITER)
    if writable and not trusted and not backend.enforces_exclusive_creation():
        raise Conflict(
            f"{backend.url} does not enforce exclusive creation, so two writers could overwrite "
            "each other: make sure that there is one and pass --single-writer"
        )
    return Store(backend)


class Store:
    """Datasets, views and artifacts below one URL."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend

    @property
    def url(self) -> str:
        """Where it is; enough to open it again in another process."""
        return self.backend.url

    def __repr__(self) -> str:
        return f"Store({self.url!r})"

    # datasets -----------------------------------------------------------------------------

    def datasets(self) -> list[str]:
        """Return the names of the datasets that have a published version."""
        return self._versioned("datasets")

    def _versioned(self, folder: str) -> list[str]:
        """Leave out a folder whose first record is being published at this instant."""
        names = self.backend.names(folder)
        return [name for name in names if Log(self.backend, f"{folder}/{name}").numbers()]

    def _dataset_log(self, name: str) -> Log:
        return Log(self.backend, f"datasets/{checked_name(name)}")

    def dataset(self, name: str, as_of: AsOf = None) -> Dataset:
        """Return a version of a dataset, the newest unless ``as_of`` says otherwise.

        Raises
        ------
        NotFound
            If there is none.
        """
        document = self._dataset_log(name).as_of(as_of)
        if document is None:
            known = ", ".join(self.datasets()) or "none; `wavemill ingest` makes one"
            when = f" as of {as_of}" if as_of else ""
            raise NotFound(f"no dataset {name!r}{when} in {self.url}; datasets: {known}")
        return Dataset(self, name, DatasetVersion.from_json(document))

    def versions(self, name: str) -> list[DatasetVersion]:
        """Return every version of a dataset, oldest first."""
        log = self._dataset_log(name)
        return [DatasetVersion.from_json(log.read(number)) for number in log.numbers()]

    def change_dataset(self, name: str, change: Change) -> Dataset:
        """Publish a version with ``change`` merged in, unless it is there already."""

        def build(document: Document | None) -> Document | None:
            if document is None:
                return change.first(self).to_json()
            following = change.apply(Dataset(self, name, DatasetVersion.from_json(document)))
            return following.to_json() if following else None

        self._check_present([part.key for part in change.parts])
        return self._published(name, build)

    def publish_dataset(self, name: str, build: Build) -> Dataset:
        """Publish the successor that ``build`` makes of the newest version."""

        def successor(document: Document | None) -> Document | None:
            if document is None:
                raise NotFound(f"no dataset {name!r} in {self.url}")
            following = build(DatasetVersion.from_json(document))
            return following.to_json() if following else None

        return self._published(name, successor)

    def _published(self, name: str, build: Callable[[Document | None], Document | None]) -> Dataset:
        document = self._dataset_log(name).publish(build, lambda: self._seen_by_views(name))
        if document is None:
            raise NotFound(f"no dataset {name!r} in {self.url}")
        return Dataset(self, name, DatasetVersion.from_json(document))

    def _seen_by_views(self, name: str) -> int:
        """Return the newest version that a view is on: a repair may have cleared its record."""
        return max((self.view(name, view).dataset_version for view in self.views(name)), default=0)

    def _check_present(self, keys: Sequence[str]) -> None:
        """Refuse to publish what was collected meanwhile (a run stalled past its lease)."""
        if missing := self.missing_parts(keys):
            raise Conflict(f"{len(missing)} parts vanished during the run: run it again")

    # parts --------------------------------------------------------------------------------

    def missing_parts(self, keys: Sequence[str]) -> list[str]:
        """Return those of ``keys`` that no attempt has completed."""
        paths = [manifest_path(part_home(key)) for key in keys]
        with ThreadPoolExecutor(8) as pool:
            present = pool.map(self.backend.exists, paths)
            return [key for key, found in zip(keys, present, strict=True) if not found]

    def part_manifest(self, key: str) -> Document:
        """Return a part's manifest; NotFound while there is none."""
        return read_manifest(self.backend, part_home(key))

    def write_part(
        self,
        spec: Mapping[str, Any],
        inputs: Sequence[Any],
        write: Callable[[zarr.Group], Mapping[str, Any]],
        **provenance: Any,
    ) -> tuple[Document, bool]:
        """Compute a part unless it exists.

        Parameters
        ----------
        spec, inputs
            What the key is made of.
        write
            Fills a Zarr group and returns what the manifest is to say of it (``meta``).

        Returns
        -------
        manifest, written
            The winner's manifest, and whether it was written here.
        """
        key = derivation_key(spec, inputs)
        with contextlib.suppress(NotFound):
            return self.part_manifest(key), False
        began = time.monotonic()
        with attempting(self.backend, part_home(key)) as attempt:
            meta = write(attempt.group())
            document = {"key": key, "spec": dict(spec), "inputs": list(inputs), "meta": dict(meta)}
            published = attempt.publish({**document, "provenance": provenance})
        log.info("%s part %s in %.2f s", spec["kind"], key[:12], time.monotonic() - began)
        return published

    def part_checkpoint(self, key: str) -> Checkpoint:
        """Return the place from which an interrupted computation of a part continues."""
        return Checkpoint(self.backend, part_home(key))

    # views --------------------------------------------------------------------------------

    def views(self, dataset: str) -> list[str]:
        """Return the names of the views on a dataset that have a published version."""
        return self._versioned(f"views/{checked_name(dataset)}")

    def view_versions(self, dataset: str, view: str) -> Log:
        """Return the log of a view's versions."""
        return Log(self.backend, f"views/{checked_name(dataset)}/{checked_name(view)}")

    def view(self, dataset: str, view: str, as_of: AsOf = None) -> ViewVersion:
        """Return the newest version of a view; ``as_of`` a dataset version or a time.

        Raises
        ------
        NotFound
            If there is none.
        """
        document = _newest_for(self.view_versions(dataset, view), as_of)
        if document is None:
            known = ", ".join(self.views(dataset)) or "none; `wavemill features` makes one"
            when = f" as of {as_of}" if as_of is not None else ""
            raise NotFound(f"no view {view!r} on {dataset!r}{when} in {self.url}; views: {known}")
        return ViewVersion.from_json(document)

    def bind_view(self, dataset: str, view: str, spec: Document) -> None:
        """Check that a view's name is free or bound to ``spec``.

        Raises
        ------
        InvalidRequest
            If it is bound to another spec.
        """
        latest = self.view_versions(dataset, view).latest()
        if latest is not None and latest["spec"] != spec:
            raise InvalidRequest(
                f"view {view!r} on {dataset!r} is bound to {latest['spec']}, not to {spec}: "
                "choose another name with --as"
            )

    def publish_view(self, dataset: str, view: str, version: ViewVersion) -> ViewVersion:
        """Publish a view version, merging the parts of a simultaneous run."""

        def build(document: Document | None) -> Document | None:
            if document is None:
                return version.to_json()
            self.bind_view(dataset, view, version.spec)
            latest = ViewVersion.from_json(document)
            parts = {**latest.parts, **version.parts}
            newest = max(latest.dataset_version, version.dataset_version)
            if parts == latest.parts and newest == latest.dataset_version:
                return None
            return {
                **version.to_json(),
                "parts": parts,
                "dataset_version": newest,
                "parent": latest.version,
            }

        self._check_present(list(version.parts.values()))
        document = self.view_versions(dataset, view).publish(build)
        return ViewVersion.from_json(document or {})

    # tables -------------------------------------------------------------------------------

    def write_table(self, frame: pd.DataFrame) -> str:
        """Write a Parquet table and return its key."""
        return write_table(self.backend, frame)

    def read_table(self, key: str) -> pd.DataFrame:
        """Read a Parquet table by its key."""
        return read_table(self.backend, key)

    # artifacts ----------------------------------------------------------------------------

    def artifacts(self) -> list[Artifact]:
        """Return every artifact, oldest first."""
        return self._artifacts()

    def _artifacts(self, kind: str = "", key: str = "") -> list[Artifact]:
        """Return those of a kind, and with a key that begins like this; no others are read."""
        found = []
        for name in (name for name in self.backend.names("artifacts") if kind in ("", name)):
            for whole in self.backend.names(f"artifacts/{name}"):
                if whole.startswith(key):
                    with contextlib.suppress(NotFound):
                        found.append(self.artifact_at(name, whole))
        return sorted(found, key=lambda artifact: str(artifact.manifest["published"]))

    def artifact_at(self, kind: str, key: str) -> Artifact:
        """Return the artifact of exactly this kind and key."""
        home = artifact_home(kind, key)
        return Artifact(self.backend, home, read_manifest(self.backend, home))

    def artifact(self, reference: str) -> Artifact:
        """Return an artifact by key, unique prefix of a key, or ``kind/dataset@latest``.

        Raises
        ------
        NotFound
            If none or several match.
        """
        kind, _, rest = reference.rpartition("/")
        matches = []
        if rest.endswith("@latest"):
            found, dataset = self._artifacts(kind), rest.removesuffix("@latest")
            matches = [one for one in found if one.manifest.get("dataset") == dataset][-1:]
        elif len(rest) >= SHORTEST:
            matches = self._artifacts(kind, rest)
        if len(matches) == 1:
            return matches[0]
        problem = "no artifact" if not matches else f"{len(matches)} artifacts"
        known = ", ".join(a.short for a in self.artifacts()[-5:])
        raise NotFound(
            f"{problem} for {reference!r}; newest: {known or 'none; `wavemill fit` makes one'}"
        )

    def attempt_artifact(self, kind: str, key: str) -> contextlib.AbstractContextManager[Attempt]:
        """Begin writing an artifact."""
        return attempting(self.backend, artifact_home(kind, key))

    def checkpoint(self, kind: str, key: str) -> Checkpoint:
        """Return the place from which an interrupted computation of an artifact continues."""
        return Checkpoint(self.backend, artifact_home(kind, key))

    # queries ------------------------------------------------------------------------------

    def get_historical_features(
        self,
        dataset: str,
        view: str,
        where: str | None = None,
        coefficients: str | None = None,
        as_of: AsOf = None,
    ) -> FeatureFrame:
        """Return the features of the samples of a dataset, read only when converted.

        Parameters
        ----------
        where
            A DuckDB expression over the sample table, such as ``n_heavy <= 7``.
        coefficients
            One over the coefficient table, such as ``order == 2 and j1 == 0``.
        as_of
            A version of the dataset, or a time of publication (RFC 3339, or a datetime).
        """
        return historical_features(self, dataset, view, where, coefficients, as_of)

    def get_online_features(
        self, dataset: str, ids: Iterable[str], view: str, coefficients: str | None = None
    ) -> FeatureFrame:
        """Return the features of samples by id, in the order asked, found by the local index."""
        return online_features(self, dataset, ids, view, coefficients)

    def lease(
        self, tell: Callable[[str], object] = log.warning
    ) -> contextlib.AbstractContextManager[Lease]:
        """Hold a run's lease: nothing is collected meanwhile; ``tell`` why it has to wait."""
        return run_lease(self.backend, tell=tell)


def artifact_home(kind: str, key: str) -> str:
    """Return the folder of an artifact."""
    return f"artifacts/{checked_name(kind)}/{key}"


def _newest_for(log: Log, as_of: AsOf) -> Document | None:
    """Return the newest view document for a dataset version or a time."""
    if (asked := version_number(as_of)) is None:
        return log.as_of(as_of)
    documents = (log.read(number) for number in reversed(log.numbers()))
    return next((d for d in documents if d["dataset_version"] <= asked), None)
