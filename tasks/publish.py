"""The end of an ingestion: what the workers made becomes one dataset version."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from storage import Change, Dataset, InvalidRequest, PartRef, Store
from storage.sources import Discovery
from storage.tables import no_samples
from tasks.ingest import PartOutcome
from tasks.inputs import identity, labelled, place, stamp
from tasks.options import Options
from tasks.planning import Plan
from tasks.progress import caution

ROUNDING = 1e-4  # of a deviation, which rounding may take without a warning


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
    replaced: int = 0
    """How many samples were there before with other contents."""

    def __str__(self) -> str:
        return f"{self.samples} samples in version {self.version}, {self.added} new"


def publish(
    store: Store,
    dataset: str,
    plan: Plan,
    outcomes: Sequence[PartOutcome],
    discovery: Discovery,
    options: Options,
) -> IngestSummary:
    """Publish one dataset version with everything that the workers made.

    Raises
    ------
    InvalidRequest
        If nothing good was found, more than half was bad, or anything was under ``--strict``.
    """
    options = options.informed(discovery)
    refused = _refusals(outcomes, discovery)
    samples = _sample_table(outcomes)
    held = _held(store, dataset)
    samples, repeated = _without_duplicates(dict(held["unit"]), samples)
    samples, dropped, schema = options.complete(samples, plan.schema)
    bad = dropped[dropped["reason"] != ""]
    bad = bad.assign(unit=list(map(labelled, bad["unit"], bad["index"])))[list(refused)]
    refused = pd.concat([refused, repeated, bad], ignore_index=True)
    touched = {identity(o.inputs[i]): stamp(o.inputs[i]) for o in outcomes for i in o.same}
    _check_quality(len(samples) + plan.unchanged + len(touched), refused, options)
    if (lost := max((outcome.rounding for outcome in outcomes), default=0.0)) > ROUNDING:
        caution(
            f"samples lose up to {lost:.2g} of their deviation as {schema.dtype}, since their "
            "values are far from 0: use --dtype float64 and another --name"
        )
    change = Change(
        schema,
        parts=_part_refs(outcomes, samples),
        samples=samples,
        withdraw=dict.fromkeys(plan.missing, "missing"),
        restore=plan.restore,
        stamps=touched,
        seen=[*(identity(i) for outcome in outcomes for i in outcome.inputs), *plan.looked_for],
        refused=refused,
        note="ingest",
    )
    made = store.change_dataset(dataset, change)
    if (labels := options.labels(made.samples(), made.schema)) is not None:
        made = made.relabel(labels, "ingest: a table changed")
    before = samples["sample_id"].map(dict(held["part"]))
    return _summary(
        made,
        plan,
        outcomes,
        added=int(before.isna().sum()),
        replaced=int((before.notna() & (before != samples["part"])).sum()),
        refused=refused,
        discovery=discovery,
    )


def _refusals(outcomes: Sequence[PartOutcome], discovery: Discovery) -> pd.DataFrame:
    entries = [
        (labelled(identity(outcome.inputs[index]), bad.label), bad.reason, bad.message)
        for outcome in outcomes
        for index, bad in outcome.refused
    ]
    entries += [(place(r.url, r.name), r.reason, r.message) for r in discovery.refused]
    return pd.DataFrame(entries, columns=["unit", "reason", "message"], dtype=str)


def _sample_table(outcomes: Sequence[PartOutcome]) -> pd.DataFrame:
    """Return one row a new sample: identity, place in the store, provenance."""
    rows = []
    for outcome in outcomes:
        for number, row in enumerate(outcome.rows if outcome.key else []):
            item = outcome.inputs[row.input]
            rows.append(
                {
                    "sample_id": labelled(item.name, row.label),
                    "part": outcome.key,
                    "row": number,
                    "source": identity(item),
                    "index": row.label,
                    "sha256": outcome.fingerprints[row.input],
                    "unit": identity(item),
                    "stamp": stamp(item),
                    **row.columns,
                }
            )
    return pd.DataFrame(rows) if rows else no_samples().drop(columns="withdrawn")


def _held(store: Store, dataset: str) -> pd.DataFrame:
    """Return the unit and the part of each sample that a dataset holds, by its id."""
    there = dataset in store.datasets()
    rows = store.dataset(dataset).samples() if there else no_samples()
    return rows.set_index("sample_id")[["unit", "part"]]


def _without_duplicates(
    held: dict[str, str], samples: pd.DataFrame
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Set apart samples whose id belongs to another source, whose sample they would replace."""
    owners = {**dict(samples.groupby("sample_id")["unit"].first()), **held}
    clash = samples["unit"] != samples["sample_id"].map(owners)
    taken = samples[clash]
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
    return samples[~clash].reset_index(drop=True), repeated


def _part_refs(outcomes: Sequence[PartOutcome], samples: pd.DataFrame) -> tuple[PartRef, ...]:
    """Return the parts, with the rows that belong to no sample withdrawn."""
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


def _check_quality(good: int, refused: pd.DataFrame, options: Options) -> None:
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
    added: int,
    replaced: int,
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
        added=added,
        replaced=replaced,
        withdrawn=len(plan.missing),
        restored=len(plan.restore),
        quarantined=dict(Counter(refused["reason"])),
        ignored=discovery.ignored,
        refused=tuple(refused.itertuples(index=False, name=None)),
    )
