"""Ingestion on a worker: a batch of inputs becomes one part."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np
import torch
import zarr

from storage import BadInput, Schema, Store, open_store
from storage.arrays import create_array
from storage.parts import FIELDS
from storage.readers import Frame, read_frames
from storage.sources import Unit, fingerprint, read_units
from tasks.planning import IngestOptions, Input, Simulated, identity
from wavemill.fields import vorticity
from wavemill.simulate import simulate

SIMULATED_TOGETHER = 16
log = logging.getLogger("wavemill.tasks")
Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Row:
    """One sample of a part: from which input, and which of its frames."""

    input: int
    label: str


@dataclass
class PartOutcome:
    """What a worker did with one batch of inputs; small, it travels through the scheduler."""

    inputs: tuple[Input, ...]
    fingerprints: dict[int, str] = field(default_factory=dict)
    key: str | None = None
    written: bool = False
    rows: list[Row] = field(default_factory=list)
    same: list[int] = field(default_factory=list)
    """Inputs that were touched, but hold what the dataset holds."""
    refused: list[tuple[int, str, str, str]] = field(default_factory=list)
    """Input, label of the frame or "" for all of it, reason, message."""


def ingest_part(
    url: str,
    schema: Schema,
    options: IngestOptions,
    known: dict[str, str],
    batch: tuple[Input, ...],
) -> PartOutcome:
    """Read a batch of inputs and write it as one part (runs on a worker).

    An input whose content is what the dataset holds already is left out.
    """
    store = open_store(url)
    outcome = PartOutcome(batch)
    if isinstance(batch[0], Simulated):
        _simulated(store, schema, outcome)
    else:
        _read(store, schema, options, known, outcome)
    for index, label, reason, message in outcome.refused:
        log.warning("%s %s quarantined, %s: %s", batch[index].name, label, reason, message)
    return outcome


def _simulated(store: Store, schema: Schema, outcome: PartOutcome) -> None:
    """Write a part of realisations; the spec is their content, so it is known beforehand."""
    items = [item for item in outcome.inputs if isinstance(item, Simulated)]
    outcome.fingerprints = {i: item.fingerprint for i, item in enumerate(items)}
    outcome.rows = [Row(i, "") for i in range(len(items))]
    spec = {**items[0].physics, "kind": "simulation"}

    def fields() -> Iterator[Array]:
        pending = iter(items)
        while group := list(islice(pending, SIMULATED_TOGETHER)):
            yield from simulate(group[0].spec, [item.index for item in group]).numpy()

    if schema.shape[0] != items[0].spec.N or schema.shape[0] != schema.shape[1]:
        message = (
            f"a field of {items[0].spec.N}^2 where the dataset has {schema.shape}: --name another"
        )
        outcome.refused = [(i, "", "shape", message) for i in range(len(items))]
        outcome.rows = []
        return
    _write(store, spec, schema, outcome, fields)


def _read(
    store: Store,
    schema: Schema,
    options: IngestOptions,
    known: dict[str, str],
    outcome: PartOutcome,
) -> None:
    """Write a part of what files hold, decoding one file at a time."""
    position = {item: i for i, item in enumerate(outcome.inputs)}
    found: dict[int, list[tuple[str, Array]]] = {}
    units = [item for item in outcome.inputs if isinstance(item, Unit)]
    for unit, payload in read_units(units):
        index = position[unit]
        if isinstance(payload, BadInput):
            outcome.refused.append((index, "", payload.reason, payload.message))
            continue
        outcome.fingerprints[index] = fingerprint(payload)
        if known.get(identity(unit)) == outcome.fingerprints[index]:
            outcome.same.append(index)
        else:
            found[index] = _decoded(unit, payload, schema, options, index, outcome)
    rows = [(index, label, array) for index in sorted(found) for label, array in found[index]]
    outcome.rows = [Row(index, label) for index, label, _ in rows]
    if rows:
        _write(store, options.spec(schema), schema, outcome, lambda: (array for *_, array in rows))


def _decoded(
    unit: Unit,
    payload: list[bytes],
    schema: Schema,
    options: IngestOptions,
    index: int,
    outcome: PartOutcome,
) -> list[tuple[str, Array]]:
    """Return the good frames of one input and note the bad ones."""
    try:
        frames = read_frames(unit, payload, options.reading())
    except BadInput as error:
        outcome.refused.append((index, "", error.reason, error.message))
        return []
    refused = [(index, label, bad.reason, bad.message) for label, bad in frames.refused]
    outcome.refused.extend(refused)
    good = []
    for frame in frames:
        try:
            good.append((frame.index, as_stored(frame, schema, options)))
        except BadInput as error:
            outcome.refused.append((index, frame.index, error.reason, error.message))
    return good


def as_stored(frame: Frame, schema: Schema, options: IngestOptions) -> Array:
    """Return a frame as one row of the dataset's array.

    Raises
    ------
    BadInput
        If its shape or components are others than the schema's, or a value is not finite.
    """
    array = _derived(frame, schema) if options.derive else frame.array
    if len(array) != len(schema.components):
        raise BadInput(
            "components",
            f"has {','.join(frame.components)} where the dataset has "
            f"{','.join(schema.components)}: choose with --variable or --components",
        )
    if array.shape[-2:] != tuple(schema.shape):
        size, wanted = "x".join(map(str, array.shape[-2:])), "x".join(map(str, schema.shape))
        raise BadInput(
            "shape", f"is {size} where the dataset is {wanted}: --shape {size} and another --name"
        )
    with np.errstate(over="ignore"):
        stored = array.astype(schema.dtype)
    if not np.isfinite(stored).all():
        bad = int(np.size(stored) - np.isfinite(stored).sum())
        raise BadInput("nan", f"{bad} of {np.size(stored)} values are not finite as {schema.dtype}")
    return stored.reshape(schema.row_shape)


def _derived(frame: Frame, schema: Schema) -> Array:
    """Return the vorticity of the in-plane velocity, ``(1, y, x)``."""
    velocity = _in_plane(frame)
    curl = vorticity(torch.from_numpy(velocity.astype("float64")), schema.spacing, schema.periodic)
    return curl.numpy()[None]


def _in_plane(frame: Frame) -> Array:
    """Return the components along the columns' and the rows' axis, ``(2, y, x)``.

    A cut across y of a flow ``(u, v, w)`` has axes ``(z, x)``: there they are u and w.
    """
    along = dict(zip("xyz", "uvw", strict=True))
    wanted = [along.get(axis, "") for axis in reversed(frame.axes)]
    if set(wanted) <= set(frame.components):
        return frame.array[[frame.components.index(name) for name in wanted]]
    if len(frame.array) != 2:
        raise BadInput(
            "components",
            f"vorticity needs the velocity {','.join(wanted)} in this plane; here: "
            f"{','.join(frame.components)}; name them with --components",
        )
    return frame.array


def _write(
    store: Store,
    spec: dict[str, Any],
    schema: Schema,
    outcome: PartOutcome,
    fields: Callable[[], Iterator[Array]],
) -> None:
    """Write the rows shard by shard, unless the part is there."""
    # with their names: two files of equal content are two samples, in two rows
    inputs = [
        [outcome.inputs[row.input].name, outcome.fingerprints[row.input], row.label]
        for row in outcome.rows
    ]

    def write(group: zarr.Group) -> dict[str, Any]:
        rows, dims = len(outcome.rows), schema.dims
        array = create_array(group, FIELDS, rows, schema.row_shape, schema.dtype, dims)
        shard = array.shards[0] if array.shards else rows
        source = fields()
        for start in range(0, rows, shard):
            array[start : start + shard] = np.stack(list(islice(source, shard)))
        return {"rows": rows}

    manifest, outcome.written = store.write_part(spec, inputs, write)
    outcome.key = str(manifest["key"])
