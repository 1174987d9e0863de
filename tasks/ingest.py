"""Ingestion on a worker: a batch of inputs becomes one part."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import zarr

import wavemill
from storage import BadInput, Schema, Store, open_store
from storage.sources import Unit, fingerprint, read_units
from storage.typing import Array
from tasks.alike import check_quantity, check_shape
from tasks.fields import schema_of_simulation
from tasks.inputs import Decoded, Input, Refusal, Simulated, identity
from tasks.mapping import giving_way
from tasks.options import Options
from tasks.planning import Work

SIMULATED_TOGETHER = 16
log = logging.getLogger("wavemill.tasks")


@dataclass(frozen=True)
class Row:
    """One sample of a part: from which input, which of its frames, and what is known of it."""

    input: int
    label: str
    columns: Mapping[str, Any] = field(default_factory=dict)


@dataclass
class PartOutcome:
    """What a worker did with one batch of inputs; small, it travels through the scheduler."""

    inputs: tuple[Input, ...]
    fingerprints: dict[int, str] = field(default_factory=dict)
    key: str | None = None
    written: bool = False
    rows: list[Row] = field(default_factory=list)
    same: list[int] = field(default_factory=list)
    """Inputs that were touched, but whose content the dataset already holds."""
    refused: list[tuple[int, Refusal]] = field(default_factory=list)
    """Number of the input, and what in it is refused."""
    rounding: float = 0.0
    """The largest part of a deviation that is lost in the stored type."""


def ingest_part(
    url: str,
    schema: Schema,
    options: Options,
    work: Work,
) -> PartOutcome:
    """Read a batch of inputs and write it as one part (runs on a worker).

    An input whose content the dataset already holds is left out.
    """
    batch, known = work
    store = open_store(url)
    outcome = PartOutcome(batch)
    if isinstance(batch[0], Simulated):
        _simulated(store, schema, options, outcome)
    else:
        _read(store, schema, options, known, outcome)
    for index, bad in outcome.refused:
        log.warning("%s %s quarantined, %s: %s", batch[index].name, *bad)
    return outcome


def _simulated(store: Store, schema: Schema, options: Options, outcome: PartOutcome) -> None:
    """Write a part of realisations; the spec stands for their content and is known beforehand."""
    items = [item for item in outcome.inputs if isinstance(item, Simulated)]
    outcome.fingerprints = {i: item.fingerprint for i, item in enumerate(items)}
    outcome.rows = [Row(i, "") for i in range(len(items))]
    spec = {**items[0].physics, "kind": "simulation"}

    def fields() -> Iterator[Array]:
        pending = iter(items)
        while group := list(islice(pending, SIMULATED_TOGETHER)):
            yield from wavemill.simulate(group[0].spec, [item.index for item in group]).numpy()

    try:
        found = schema_of_simulation(items[0])
        check_quantity(found, schema)
        check_shape(found.shape, schema)
    except BadInput as error:
        outcome.refused = [(i, Refusal.of("", error)) for i in range(len(items))]
        outcome.rows = []
        return
    _write(store, spec, schema, options, outcome, fields())


def _read(
    store: Store,
    schema: Schema,
    options: Options,
    known: dict[str, str],
    outcome: PartOutcome,
) -> None:
    """Write a part of what files hold, decoding one file at a time."""
    position = {item: i for i, item in enumerate(outcome.inputs)}
    found: dict[int, Decoded] = {}
    units = [item for item in outcome.inputs if isinstance(item, Unit)]
    units.sort(key=lambda unit: (unit.files[0].url, unit.files[0].offset or 0))  # one pass
    for unit, payload in read_units(units):
        index = position[unit]
        if isinstance(payload, BadInput):
            outcome.refused.append((index, Refusal.of("", payload)))
            continue
        outcome.fingerprints[index] = fingerprint(payload)
        if known.get(identity(unit)) == outcome.fingerprints[index]:
            outcome.same.append(index)
        else:
            found[index] = _decoded(unit, payload, schema, options)
            outcome.refused.extend((index, bad) for bad in found[index].refused)
            outcome.rounding = max(outcome.rounding, found[index].rounding)
    rows = [(index, good) for index in sorted(found) for good in found[index].good]
    outcome.rows = [Row(index, good.label, good.columns) for index, good in rows]
    if rows:
        contents = (good.content for _, good in rows)
        with giving_way():
            _write(store, options.spec(schema), schema, options, outcome, contents)


def _decoded(unit: Unit, payload: list[bytes], schema: Schema, options: Options) -> Decoded:
    """Decode one input; one that is bad as a whole is refused with an empty label."""
    try:
        return options.decode(unit, payload, schema)
    except BadInput as error:
        return Decoded(refused=[Refusal.of("", error)])


def _write(
    store: Store,
    spec: dict[str, Any],
    schema: Schema,
    options: Options,
    outcome: PartOutcome,
    contents: Iterator[Any],
) -> None:
    """Write the rows, unless the part exists."""
    # with names: two files of equal content are two samples, in two rows
    inputs = [
        [outcome.inputs[row.input].name, outcome.fingerprints[row.input], row.label]
        for row in outcome.rows
    ]

    def write(group: zarr.Group) -> dict[str, Any]:
        options.write(group, len(outcome.rows), contents, schema)
        return {"rows": len(outcome.rows)}

    manifest, outcome.written = store.write_part(spec, inputs, write)
    outcome.key = str(manifest["key"])
