"""Predictions of a fitted model, for a dataset or for raw files, as a table."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from storage import Artifact, BadInput, FeatureFrame, InvalidRequest, Schema, Store
from storage.documents import Document
from storage.export import replacing
from storage.sources import read_units
from storage.typing import Array
from tasks import classifier, live_features, regression
from tasks.classifier_data import maps_shape
from tasks.feature_batches import READ
from tasks.images import ImageOptions
from tasks.inputs import labelled
from tasks.progress import Reporter
from tasks.views import operator

IMAGES = 64


def predict_to(
    store: Store, reference: str, source: str, target: Path, device: str = "cpu"
) -> pd.DataFrame:
    """Predict the samples of a dataset or of files, and write a table.

    Raises
    ------
    InvalidRequest
        If the artifact predicts nothing, the source holds nothing, or there is no such device.
    """
    artifact = store.artifact(reference)
    known = {regression.KIND: regression.predicted, classifier.KIND: classes}
    if artifact.kind not in known:
        raise InvalidRequest(f"{artifact.short} predicts nothing: name one of {', '.join(known)}")
    made = known[artifact.kind](store, artifact, source, device)
    with replacing(target) as partial:
        if target.suffix == ".parquet":
            made.to_parquet(partial)
        else:
            made.to_csv(partial, index=False)
    return made


def classes(store: Store, artifact: Artifact, source: str, device: str) -> pd.DataFrame:
    """Return the classes of images or fields: a row a sample, ``flag`` if it cannot be read."""
    predictor = classifier.Predictor(artifact, device)
    if source in store.datasets():
        rows = store.dataset(source).samples()
        rows, scores = class_scores(store, predictor, source, rows, device)
        return predictor.table(rows["sample_id"], scores).assign(flag="")
    return _of_files(artifact, predictor, source, device)


def class_scores(
    store: Store,
    predictor: classifier.Predictor,
    dataset: str,
    rows: pd.DataFrame,
    device: str,
) -> tuple[pd.DataFrame, torch.Tensor]:
    """Return the rows of a dataset that have features, and their scores ``(n, class)``."""
    frames = [
        live_features.features(store, dataset, stored_view(store, spec, dataset), device=device)
        for spec in predictor.views
    ]
    _must_fit(predictor, frames[0])
    found = _common(frames)
    rows = found[found["sample_id"].isin(rows["sample_id"])]
    pieces = [rows.iloc[start : start + READ] for start in range(0, len(rows), READ)]
    scores, advance = [], Reporter("predict")
    for done, piece in enumerate(pieces, 1):
        scores.append(predictor.scores([frame.read(piece) for frame in frames]))
        advance(done, len(pieces))
    if not scores:
        raise InvalidRequest(f"no sample of {dataset!r} that is selected has features to judge by")
    return rows.reset_index(drop=True), torch.cat(scores)


def _must_fit(predictor: classifier.Predictor, frame: FeatureFrame) -> None:
    """Refuse features of other shapes than those learnt from, such as those of larger images."""
    artifact = predictor.artifact
    given = maps_shape(frame.version.row_shape)
    if given != predictor.shape:
        schema = Schema.from_json(artifact.manifest["schema"])
        size = "x".join(map(str, schema.shape))
        way = f"ingest it with --size {size}" if schema.layout == "images" else "name another"
        raise InvalidRequest(
            f"{artifact.short} learnt from {schema.layout} of {size}, with "
            f"features {predictor.shape}; {frame.dataset} has features {given}: {way}"
        )


def _common(frames: list[FeatureFrame]) -> pd.DataFrame:
    """Return the samples that every frame has."""
    rows = frames[0].samples
    held = [rows["sample_id"].isin(frame.samples["sample_id"]) for frame in frames[1:]]
    return rows[np.logical_and.reduce(held)] if held else rows


def stored_view(store: Store, spec: Document, dataset: str) -> str:
    """Return the name of a dataset's view with this spec, or else how to compute it."""
    for name in store.views(dataset):
        if store.view(dataset, name).spec == spec:
            return name
    pairs = (f"{key}={value}" for key, value in spec["parameters"].items())
    return f"{spec['kind']}:{','.join(pairs)}"


def _of_files(
    artifact: Artifact, predictor: classifier.Predictor, source: str, device: str
) -> pd.DataFrame:
    schema = Schema.from_json(artifact.manifest["schema"])
    if schema.layout != "images":
        raise InvalidRequest(
            f"{source} is not a dataset here, and only files of images can be "
            "classified: ingest it first"
        )
    transforms = [operator(spec, schema, device) for spec in predictor.views]

    def scored(images: list[Array]) -> torch.Tensor:
        return predictor.scores([transform(np.stack(images)) for transform in transforms])

    names: list[str] = []
    images: list[Array] = []
    flags: dict[str, str] = {}
    scores: list[torch.Tensor] = []
    for name, found in _images(source, schema):
        if isinstance(found, BadInput):
            flags[name] = f"{found.reason}: {found.message}"
            continue
        names.append(name)
        images.append(found)
        if len(images) == IMAGES:
            scores.append(scored(images))
            images.clear()
    if images:
        scores.append(scored(images))
    if not names and not flags:
        raise InvalidRequest(f"{source} is not a dataset here and holds no images")
    bad = pd.DataFrame({"sample_id": list(flags), "flag": list(flags.values())})
    if not names:
        return bad.reindex(columns=["sample_id", "predicted", "score", "likeliest", "flag"])
    made = predictor.table(names, torch.cat(scores)).assign(flag="")
    return pd.concat([made, bad], ignore_index=True) if len(bad) else made


def _images(source: str, schema: Schema) -> Iterator[tuple[str, Array | BadInput]]:
    """Yield the images of files, framed like those learnt from, or why one cannot be read."""
    y, x = schema.shape
    options, advance = ImageOptions(size=(y, x)), Reporter("predict")
    units = options.find([source])
    if units.refused and not units:
        first = units.refused[0]
        raise InvalidRequest(
            f"{source} is not a dataset here and holds no image that can be read: {first.name}, "
            f"{first.reason}: {first.message}"
        )
    for refused in units.refused:
        yield refused.name, BadInput(refused.reason, refused.message)
    for done, (unit, payload) in enumerate(read_units(units), 1):
        advance(done, len(units))
        if isinstance(payload, BadInput):
            yield unit.name, payload
            continue
        try:
            decoded = options.decode(unit, payload, schema)
        except BadInput as error:
            yield unit.name, error
            continue
        for label, picture, _ in decoded.good:
            yield labelled(unit.name, label), picture.array
        for label, reason, message in decoded.refused:
            yield labelled(unit.name, label), BadInput(reason, message)
