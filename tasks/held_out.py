"""Which samples may judge a model: those that it was not fitted to, by name or by content."""

from __future__ import annotations

import json
from dataclasses import dataclass

import pandas as pd

from storage import Artifact, Dataset, InvalidRequest, NotFound, Store
from tasks.kinds import models
from tasks.models import MODELS


@dataclass(frozen=True)
class HeldOut:
    """Samples that a model was not fitted to.

    Attributes
    ----------
    rows
        Their rows of the table of samples.
    same
        How many more were left out because it was fitted to their content under another name.
    files
        Digests of the files that hold samples it was fitted to; None if these are gone.
    """

    rows: pd.DataFrame
    same: int
    files: frozenset[str] | None

    def related(self) -> int:
        """Return how many of the rows are from files that hold samples it was fitted to."""
        return int(self.rows["sha256"].isin(self.files or ()).sum())


def fitted_to(store: Store, model: Artifact) -> tuple[Dataset, list[str]] | None:
    """Return the dataset that a model was fitted to, as it was, and the ids; None if it is gone."""
    try:
        source = store.dataset(model.manifest["dataset"], model.manifest["dataset_version"])
    except NotFound:
        return None
    return source, json.loads(model.read("samples.json"))


def held_out(store: Store, dataset: Dataset, model: Artifact, where: str | None) -> HeldOut:
    """Return the selected samples that a model was not fitted to.

    Raises
    ------
    InvalidRequest
        If there are fewer than two, or the artifact is not a model of such fields.
    """
    name = model.short
    _check_alike(dataset, model, name)
    found = not_learnt(store, dataset, model, dataset.samples(where))
    if len(found.rows) < 2:
        same = f" ({found.same} more are the same fields by other names)" if found.same else ""
        raise InvalidRequest(
            f"{len(found.rows)} samples of {dataset.name!r} are left that {name} was not fitted to"
            f"{same}, and judging takes two: fit on some with --where, or evaluate on another "
            "dataset"
        )
    return found


def not_learnt(store: Store, dataset: Dataset, model: Artifact, rows: pd.DataFrame) -> HeldOut:
    """Return those of a dataset's rows that a model did not learn from."""
    files, places = None, []
    if fitted := fitted_to(store, model):
        source, ids = fitted
        learnt = source.all_samples()
        learnt = learnt[learnt["sample_id"].isin(ids)]
        files = frozenset(learnt["sha256"])
        places = _contents(learnt, source)
    if model.manifest["dataset"] == dataset.name:
        rows = rows[~rows["sample_id"].isin(json.loads(model.read("samples.json")))]
    known = pd.Series(_contents(rows, dataset), rows.index, dtype=object).isin(places)
    return HeldOut(rows[~known], int(known.sum()), files)


def _check_alike(dataset: Dataset, model: Artifact, name: str) -> None:
    """Refuse an artifact that is not a model of such fields."""
    if model.kind not in MODELS:
        judged = ", ".join(models(lambda kind: kind.fields or kind.scored))
        raise InvalidRequest(f"{name} cannot be judged: evaluate one of {judged}")
    fitted, given = model.manifest["schema"], dataset.schema
    if list(given.shape) != list(fitted["shape"]):
        raise InvalidRequest(
            f"{name} was fitted on grids of {fitted['shape']}, "
            f"{dataset.name} has {list(given.shape)}"
        )
    if len(given.components) != len(fitted["components"]):
        raise InvalidRequest(
            f"{name} was fitted to {len(fitted['components'])} components "
            f"({', '.join(fitted['components'])}), {dataset.name} has {len(given.components)} "
            f"({', '.join(given.components)}): fit to a dataset of the same"
        )


def _contents(rows: pd.DataFrame, dataset: Dataset) -> list[tuple[str, ...]]:
    """Return what makes rows the same fields: their file, the frame, and what was read of it."""
    pairs = zip(rows["sha256"], rows["index"], strict=True)
    return [(*pair, *dataset.schema.components) for pair in pairs]
