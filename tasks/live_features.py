"""Features that are computed when they are read, where storing them makes no sense.

A view is named by its kind and parameters, ``scattering:J=4,nonlinearity=rectifier``, in place of
the name of a stored one; the numbers are those that would be stored.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from storage import Dataset, FeatureFrame, InvalidRequest, Store, ViewVersion
from storage.documents import Document
from storage.parts import FIELDS, IMAGES, read_rows
from tasks.views import Operator, operator, view_spec

BATCH = 256 * 2**20  # bytes that a batch may take on its way
Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class LiveFrame(FeatureFrame):
    """Samples by coefficients, computed from the samples whenever they are read."""

    source: Dataset | None = None
    device: str = "cpu"

    @cached_property
    def _operator(self) -> Operator:
        assert self.source is not None
        return operator(self.version.spec, self.source.schema, self.device)

    def read(self, samples: pd.DataFrame) -> Array:
        """Compute the features of some samples, in their order."""
        size = self._operator.batch(BATCH)
        parts = [
            self._operator(self._samples(samples.iloc[start : start + size]))
            for start in range(0, len(samples), size)
        ]
        empty = np.empty((0, *self.version.row_shape), self.version.dtype)
        return np.concatenate(parts) if parts else empty

    def _samples(self, samples: pd.DataFrame) -> Array:
        assert self.source is not None
        schema = self.source.schema
        name = IMAGES if schema.layout == "images" else FIELDS
        found = np.empty((len(samples), *schema.row_shape), dtype=schema.dtype)
        for key, group in samples.assign(__at=np.arange(len(samples))).groupby("part", sort=False):
            rows = group["row"].to_numpy()
            found[group["__at"].to_numpy()] = read_rows(self.url, str(key), name, rows.tolist())
        return found


def features(
    store: Store, dataset: str, view: str, where: str | None = None, device: str = "cpu"
) -> FeatureFrame:
    """Return the features of selected samples: of a stored view, or computed as they are read."""
    if ":" not in view:
        return store.get_historical_features(dataset, view, where)
    source = store.dataset(dataset)
    spec = spec_of(view, source)
    made = operator(spec, source.schema, device)
    samples = source.samples(where)
    parts = {str(key): str(key) for key in samples["part"].unique()}
    row_shape, dtype = _shape(made, source)
    version = ViewVersion(spec, source.version.version, "", row_shape, dtype, parts)
    table = made.coefficients
    return LiveFrame(
        store.url,
        dataset,
        view,
        version,
        samples.assign(feature_part=samples["part"]),
        table.assign(position=range(len(table))),
        source=source,
        device=device,
    )


def spec_of(view: str, source: Dataset) -> Document:
    """Return the spec that ``KIND:KEY=VALUE,...`` describes.

    Raises
    ------
    InvalidRequest
        If it cannot be read, or is of no fields or images.
    """
    kind, _, text = view.partition(":")
    if source.schema.layout == "molecules":
        raise InvalidRequest(f"{view!r}: views of molecules are stored first: `wavemill features`")
    pairs = [piece.partition("=") for piece in text.split(",") if piece]
    if bad := [key for key, sign, _ in pairs if not sign]:
        raise InvalidRequest(f"{view!r}: {bad[0]!r} is not KEY=VALUE, as in scattering:J=4,L=8")
    return view_spec(kind, {key: value for key, _, value in pairs}, source.schema)


def _shape(made: Operator, source: Dataset) -> tuple[tuple[int, ...], str]:
    """Return the shape and type of one sample's features, by transforming nothing but zeros."""
    schema = source.schema
    found = made(np.zeros((1, *schema.row_shape), dtype=schema.dtype))
    return found.shape[1:], str(found.dtype)
