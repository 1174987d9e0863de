"""Ingestion: inputs become parts on the workers, and one dataset version at the end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np
import pandas as pd
import torch
import zarr

from storage import BadInput, Change, Dataset, InvalidRequest, PartRef, Schema, Store, open_store
from storage.arrays import create_array
from storage.errors import NotFound
from storage.keys import derivation_key
from storage.parts import FIELDS
from storage.readers import Frame, read_frames
from storage.sources import Discovery, Unit, fingerprint, read_units
from tasks.planning import IngestOptions, Input, Plan, Simulated, identity, place, stamp
from wavemill.fields import vorticity
from wavemill.simulate import simulate

SIMULATED_TOGETHER = 16
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
    inputs = [[outcome.fingerprints[row.input], row.label] for row in outcome.rows]

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


def part_exists(store: Store, spec: dict[str, Any], inputs: Sequence[Any]) -> bool:
    """Say whether a derivation has been computed."""
    try:
        store.part_manifest(derivation_key(spec, inputs))
    except NotFound:
        return False
    return True


@dataclass(frozen=True)
class IngestSummary:
    """What a run of ingestion did, for people and for tests."""

    dataset: str
    version: int
    samples: int
    parts_written: int
    parts_reused: int
    unchanged: int
    added: int
    withdrawn: int
    restored: int
    quarantined: dict[str, int]
    ignored: dict[str, int]
    refused: tuple[tuple[str, str, str], ...] = ()
    """Input, reason, message."""


def publish(
    store: Store,
    dataset: str,
    plan: Plan,
    outcomes: Sequence[PartOutcome],
    discovery: Discovery,
    options: IngestOptions,
) -> IngestSummary:
    """Publish one dataset version with everything that the workers made.

    Raises
    ------
    InvalidRequest
        If nothing good was found, more than half was bad, or anything was and ``--strict``.
    """
    refused = _refusals(outcomes, discovery)
    samples = _sample_table(outcomes)
    samples, repeated = _without_duplicates(store, dataset, samples)
    refused = pd.concat([refused, repeated], ignore_index=True)
    touched = {identity(o.inputs[i]): stamp(o.inputs[i]) for o in outcomes for i in o.same}
    _check_quality(len(samples) + plan.unchanged + len(touched), refused, options)
    change = Change(
        plan.schema,
        parts=_part_refs(outcomes, samples),
        samples=samples,
        withdraw=dict.fromkeys(plan.missing, "missing"),
        restore=plan.restore,
        stamps=touched,
        seen=[identity(item) for outcome in outcomes for item in outcome.inputs],
        refused=refused,
        note="ingest",
    )
    made = store.change_dataset(dataset, change)
    return _summary(made, plan, outcomes, samples, refused, discovery)


def _refusals(outcomes: Sequence[PartOutcome], discovery: Discovery) -> pd.DataFrame:
    entries = [
        (_with_label(identity(outcome.inputs[index]), label), reason, message)
        for outcome in outcomes
        for index, label, reason, message in outcome.refused
    ]
    entries += [(place(r.url, r.name), r.reason, r.message) for r in discovery.refused]
    return pd.DataFrame(entries, columns=["unit", "reason", "message"], dtype=str)


def _with_label(name: str, label: str) -> str:
    return f"{name}#{label}" if label else name


def _sample_table(outcomes: Sequence[PartOutcome]) -> pd.DataFrame:
    """Return one row a new sample: identity, place in the store, provenance."""
    rows = []
    for outcome in outcomes:
        for number, row in enumerate(outcome.rows if outcome.key else []):
            item = outcome.inputs[row.input]
            rows.append(
                {
                    "sample_id": _with_label(item.name, row.label),
                    "part": outcome.key,
                    "row": number,
                    "source": identity(item),
                    "index": row.label,
                    "sha256": outcome.fingerprints[row.input],
                    "unit": identity(item),
                    "stamp": stamp(item),
                }
            )
    columns = ["sample_id", "part", "row", "source", "index", "sha256", "unit", "stamp"]
    return pd.DataFrame(rows, columns=columns)


def _without_duplicates(
    store: Store, dataset: str, samples: pd.DataFrame
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Separate samples whose id another source has taken: they would replace its sample."""
    first = samples.groupby("sample_id")["unit"].first() if len(samples) else pd.Series(dtype=str)
    owners = dict(first)
    if dataset in store.datasets():
        held = store.dataset(dataset).samples()
        owners |= dict(zip(held["sample_id"], held["unit"], strict=True)) if len(held) else {}
    clash = (
        samples["unit"] != samples["sample_id"].map(owners)
        if len(samples)
        else samples["unit"] == ""
    )
    taken = samples[clash.astype(bool)]
    message = (
        "sample id {0} belongs to {1}: ingest from a common parent folder, so that names differ"
    )
    repeated = pd.DataFrame(
        {
            "unit": taken["unit"],
            "reason": "duplicate",
            "message": [message.format(i, owners[i]) for i in taken["sample_id"]],
        }
    )
    return samples[~clash.astype(bool)].reset_index(drop=True), repeated


def _part_refs(outcomes: Sequence[PartOutcome], samples: pd.DataFrame) -> tuple[PartRef, ...]:
    """Return the parts, with the rows that are nobody's sample withdrawn."""
    used: dict[str, set[int]] = {}
    for key, row in zip(samples["part"], samples["row"], strict=True):
        used.setdefault(key, set()).add(int(row))
    return tuple(
        PartRef(
            o.key,
            len(o.rows),
            tuple((r, "duplicate") for r in range(len(o.rows)) if r not in used[o.key]),
        )
        for o in outcomes
        if o.key in used
    )


def _check_quality(good: int, refused: pd.DataFrame, options: IngestOptions) -> None:
    if not len(refused):
        if not good:
            raise InvalidRequest("the sources hold no inputs: nothing was published")
        return
    counts = ", ".join(f"{reason} {n}" for reason, n in Counter(refused["reason"]).most_common())
    first = f"{refused['unit'].iloc[0]}: {refused['message'].iloc[0]}"
    if options.strict or len(refused) > good:
        why = "--strict" if options.strict else f"more than half of {good + len(refused)}"
        raise InvalidRequest(
            f"{len(refused)} inputs refused ({counts}), {why}: nothing was published; "
            f"the first: {first}"
        )


def _summary(
    dataset: Dataset,
    plan: Plan,
    outcomes: Sequence[PartOutcome],
    samples: pd.DataFrame,
    refused: pd.DataFrame,
    discovery: Discovery,
) -> IngestSummary:
    made = [outcome for outcome in outcomes if outcome.key]
    written = sum(outcome.written for outcome in made)
    return IngestSummary(
        dataset=dataset.name,
        version=dataset.version.version,
        samples=dataset.version.count,
        parts_written=written,
        parts_reused=len(made) - written,
        unchanged=plan.unchanged + sum(len(outcome.same) for outcome in outcomes),
        added=len(samples),
        withdrawn=len(plan.missing),
        restored=len(plan.restore),
        quarantined=dict(Counter(refused["reason"])),
        ignored=discovery.ignored,
        refused=tuple(refused.itertuples(index=False, name=None)),
    )
