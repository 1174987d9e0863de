"""Removal: a dataset, a view or an artifact leaves the listing, and `gc` collects what it held.

Views go before their dataset, and older records before newer ones: a removal that is killed leaves
less of the same, which can still be read, and which the next removal can remove.
"""

from __future__ import annotations

from dataclasses import dataclass

from storage.artifacts import Artifact
from storage.attempts import manifest_path
from storage.backends import Backend
from storage.documents import Log
from storage.errors import NotFound
from storage.leases import collector_lease
from storage.store import Store


@dataclass(frozen=True)
class Named:
    """One thing that a name stands for.

    Attributes
    ----------
    what
        ``dataset``, ``view`` or ``artifact``.
    records
        The paths of its records, or of its manifest.
    """

    what: str
    name: str
    records: tuple[str, ...]


def named(store: Store, name: str) -> list[Named]:
    """Return what goes with a name, in the order in which it goes.

    Parameters
    ----------
    name
        Of a dataset, whose views go as well; ``dataset/view``; or of an artifact.

    Raises
    ------
    NotFound
        If it stands for nothing.
    """
    backend, (dataset, slash, view) = store.backend, name.partition("/")
    if dataset in {*backend.names("datasets"), *backend.names("views")}:
        views = [view] if slash else backend.names(f"views/{dataset}")
        things = [("view", f"{dataset}/{name_of}") for name_of in views]
        things += [] if slash else [("dataset", dataset)]
        made = [Named(what, of, _records(backend, what, of)) for what, of in things]
        if leaving := [entry for entry in made if entry.records]:
            return leaving
    try:
        artifact = store.artifact(name)
    except NotFound as error:
        raise NotFound(
            f"neither a dataset nor a view is named {name!r} in {store.url}; {error}"
        ) from None
    return [Named("artifact", f"{artifact.kind}/{artifact.key}", (manifest_path(artifact.home),))]


def staying(store: Store, leaving: list[Named]) -> list[Artifact]:
    """Return the artifacts that stay, though learnt from what leaves or judgements of it."""
    names = {entry.name for entry in leaving}

    def rests_on_it(artifact: Artifact) -> bool:
        manifest = artifact.manifest
        model = manifest.get("model")
        judged = {f"{model['kind']}/{model['key']}"} if isinstance(model, dict) else set()
        view = f"{manifest['dataset']}/{manifest.get('view')}"
        return bool(names & {manifest["dataset"], view, *judged})

    return [artifact for artifact in store.artifacts() if rests_on_it(artifact)]


def remove(store: Store, name: str) -> list[Named]:
    """Remove what a name stands for from the listing; return what went.

    Raises
    ------
    Conflict
        If a run or a collection is alive.
    NotFound
        If it stands for nothing.
    """
    with collector_lease(store.backend):
        leaving = named(store, name)
        for entry in leaving:
            if entry.what == "artifact":
                store.backend.delete(entry.records)
            else:
                Log(store.backend, f"{entry.what}s/{entry.name}").retire()
        return leaving


def _records(backend: Backend, what: str, name: str) -> tuple[str, ...]:
    log = Log(backend, f"{what}s/{name}")
    return tuple(log.path(number) for number in log.numbers())
