"""What a run of ingestion has to do: which inputs are new, and into which parts they go."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from glob import has_magic

import pandas as pd

from storage import InvalidRequest, Schema, Store
from storage.sources import Discovery
from storage.sources.filesystem import absolute
from storage.tables import no_samples
from tasks.inputs import SIMULATE, Input, Simulated, identity, place, realisations, stamp
from tasks.options import Options

Work = tuple[tuple[Input, ...], dict[str, str]]


def find_inputs(sources: Sequence[str], options: Options) -> tuple[list[Input], Discovery]:
    """Return the inputs that the sources hold, sorted by name, and what discovery refused."""
    found = options.find([source for source in sources if not source.startswith(SIMULATE)])
    simulations = [source for source in sources if source.startswith(SIMULATE)]
    simulated = [item for source in simulations for item in realisations(source)]
    return [*found, *simulated], found


@dataclass(frozen=True)
class Plan:
    """What to do: inputs to read, samples to bring back, samples to withdraw.

    Attributes
    ----------
    fresh
        Inputs that the dataset does not hold, or whose size or time of change differs.
    known
        The fingerprint last seen of each input, by its identity.
    looked_for
        Units in quarantine that are refused again in this run or not at all: where they were
        found, it looks at everything.
    """

    schema: Schema
    fresh: tuple[Input, ...]
    unchanged: int
    restore: tuple[str, ...]
    missing: tuple[str, ...]
    known: dict[str, str]
    looked_for: tuple[str, ...] = ()

    def known_of(self, batch: tuple[Input, ...]) -> Work:
        """Return a batch with what is known of it alone: a task needs no more, out of a million."""
        names = (identity(item) for item in batch)
        return batch, {name: self.known[name] for name in names if name in self.known}


def plan(
    store: Store,
    dataset: str,
    schema: Schema,
    inputs: Sequence[Input],
    options: Options,
    sources: Sequence[str],
) -> Plan:
    """Compare the inputs, which these sources hold, with what the dataset holds."""
    rows = _held(store, dataset)
    options.check_held(rows, inputs)
    held = rows.groupby("unit").first()
    stamps = dict(held["stamp"])
    fresh = [item for item in inputs if options.rehash or stamps.get(identity(item)) != stamp(item)]
    present = {identity(item) for item in inputs} - {identity(item) for item in fresh}
    lost, live = rows["withdrawn"] == "missing", rows["withdrawn"].isna()
    unwanted = options.unwanted(rows)
    back = rows[lost & ~unwanted & rows["unit"].isin(list(present))]["sample_id"]
    everything = [identity(item) for item in inputs]
    gone = ~rows["unit"].isin(everything) & options.mirror
    return Plan(
        schema,
        tuple(fresh),
        len(present),
        tuple(back),
        tuple(rows[live & (gone | unwanted)]["sample_id"]),
        dict(held["sha256"]),
        _looked_for(store, dataset, sources, present),
    )


def _looked_for(
    store: Store, dataset: str, sources: Sequence[str], unchanged: Collection[str]
) -> tuple[str, ...]:
    """Return the units in quarantine that lie in these sources, but not in unchanged inputs.

    A file may be gone, an archive may have been mended, a stack may be complete: no input is then
    called as what was refused.
    """
    if dataset not in store.datasets():
        return ()
    places = {place.rstrip("/") for source in sources for place in (source, absolute(source))}
    patterns = [place for place in places if has_magic(place)]

    def within(unit: str) -> bool:
        return any(
            end in places or any(fnmatchcase(end, pattern) for pattern in patterns)
            for end in _above(unit)
        )

    refused = store.dataset(dataset).quarantine()["unit"]
    return tuple(u for u in refused if within(u) and not any(i in unchanged for i in _above(u)))


def _above(unit: str) -> Iterator[str]:
    """Yield what a unit may lie in, and itself: folders, archives, files of several samples."""
    return (unit[: mark.start()] for mark in re.finditer(r"[/!#]| \+ |$", unit))


def _held(store: Store, dataset: str) -> pd.DataFrame:
    """Return the rows whose arrays are there, except those that were replaced."""
    if dataset not in store.datasets():
        return no_samples()
    current = store.dataset(dataset)
    lost = store.missing_parts([part.key for part in current.version.parts])
    rows = current.all_samples()
    kept = rows[(rows["withdrawn"] != "replaced") & ~rows["part"].isin(lost)]
    return kept.reset_index(drop=True)


def choose_schema(
    store: Store,
    dataset: str,
    inputs: Sequence[Input],
    options: Options,
    found: Discovery | None = None,
) -> Schema:
    """Return the dataset's schema: flags, else the existing one, else the commonest header.

    Raises
    ------
    InvalidRequest
        If flags contradict the existing dataset, or no input can be read; if there is no input
        at all, the message says what was ``found`` instead.
    """
    if dataset not in store.datasets():
        if found is not None and not inputs:
            _check_found(found)
        return options.schema(None, inputs)
    existing = store.dataset(dataset).schema
    asked = options.schema(existing, inputs)
    if asked != existing:
        raise InvalidRequest(
            f"{dataset!r} holds {_described(existing)}; the flags ask for {_described(asked)}: "
            "leave them out, or choose another --name"
        )
    return existing


def _check_found(found: Discovery) -> None:
    """Refuse sources that hold no input but something else, and say what."""
    if found.refused:
        first = found.refused[0]
        reason = f"{place(first.url, first.name)}: {first.reason}: {first.message}"
        raise InvalidRequest(f"none of {len(found.refused)} inputs can be read: {reason}")
    if found.ignored:
        others = ", ".join(f"{count} {suffix}" for suffix, count in found.ignored.items())
        raise InvalidRequest(
            f"the sources hold nothing of this kind, only {others}: nothing was published"
        )


def _described(schema: Schema) -> str:
    if schema.layout == "images":
        covering = "x".join(map(str, schema.cover or schema.shape))
        return f"images ({schema.size}, --fit {schema.fit} --resize {covering})"
    if schema.layout != "fields":
        return f"{schema.layout} ({schema.size})"
    grid = "periodic" if schema.periodic else "not periodic"
    size = "x".join(map(str, schema.shape))
    names = ",".join(schema.components)
    return f"{names} {size} {schema.dtype}, spacing {schema.spacing}, {grid}"


def batches(planned: Plan, options: Options) -> list[tuple[Input, ...]]:
    """Group fresh inputs of one kind, in order, so that each group makes about one part."""
    groups: list[list[Input]] = []
    weight = 0
    for item in planned.fresh:
        added = options.weight(item, planned.schema)
        full = weight + added > options.part_size
        if not groups or full or not _together(groups[-1][-1], item):
            groups.append([])
            weight = 0
        groups[-1].append(item)
        weight += added
    return [tuple(group) for group in groups]


def _together(one: Input, other: Input) -> bool:
    """Say whether two inputs may share a part: realisations do so only within one simulation."""
    if isinstance(one, Simulated) and isinstance(other, Simulated):
        return one.physics == other.physics
    return type(one) is type(other)
