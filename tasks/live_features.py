"""Features that are computed when they are read, for when storing them makes no sense.

The view's kind and parameters, ``scattering:J=4,nonlinearity=rectifier``, stand in for the name of
a stored view; the numbers are those that would be stored.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pandas as pd
import torch

from storage import Dataset, FeatureFrame, InvalidRequest, Store, ViewVersion
from storage.documents import Document
from storage.keys import canonical, digest
from storage.training import WINDOW, Positions, StoredSamples, TorchSamples
from storage.typing import Array
from tasks.text import keyed
from tasks.views import Operator, operator, view_spec
from wavemill.images import Augmentation, Changes

BATCH = 256 * 2**20  # bytes that a batch may take on its way


@dataclass(frozen=True)
class LiveFrame(FeatureFrame):
    """Samples by coefficients, computed from the samples whenever they are read.

    Attributes
    ----------
    augmentation
        Random changes of images before they are transformed, or None. A change depends on the
        seed, the epoch and the sample alone, not on batches or workers.
    """

    source: Dataset | None = None
    device: str = "cpu"
    augmentation: Augmentation | None = None
    seed: int = 0
    epoch: int = 0

    @cached_property
    def _operator(self) -> Operator:
        return operator(self.version.spec, self.stored.schema, self.device)

    @cached_property
    def stored(self) -> StoredSamples:
        """What the features are computed from."""
        assert self.source is not None
        return StoredSamples(self.url, self.samples, self.source.schema)

    def must_hold_images(self) -> None:
        """Raise `InvalidRequest` unless the samples are images, which can be changed."""
        if self.stored.schema.layout != "images":
            raise InvalidRequest(
                f"{self.dataset} holds {self.stored.schema.layout}: only images can be augmented"
            )

    def read(self, samples: pd.DataFrame) -> Array:
        """Compute the features of some samples, in their order."""
        size = self._operator.batch(BATCH)
        pieces = [samples.iloc[start : start + size] for start in range(0, len(samples), size)]
        parts = [self.computed(self.stored.read(piece), piece) for piece in pieces]
        empty = np.empty((0, *self.version.row_shape), self.version.dtype)
        return np.concatenate(parts) if parts else empty

    def computed(self, values: Array, samples: pd.DataFrame) -> Array:
        """Return the features of samples that have already been read."""
        if self.augmentation is not None:
            changed = self.augmentation.apply(torch.from_numpy(values), self._changes(samples))
            values = changed.numpy()
        return self._operator(values)

    def _changes(self, samples: pd.DataFrame) -> Changes:
        assert self.augmentation is not None
        generator, drawn = torch.Generator(), []
        for sample in samples["sample_id"]:
            words = canonical([self.seed, self.epoch, str(sample)])
            generator.manual_seed(int(digest(words)[:15], 16))
            drawn.append(self.augmentation.draw(1, generator))
        return Changes.joined(drawn)

    def to_torch(self, target: str | None = None) -> LiveSamples:
        """Return a torch data set that computes a batch when it is asked for."""
        return LiveSamples(self, target)


class LiveSamples(TorchSamples):
    """A data set of features computed while training, from stored samples mixed beforehand."""

    def __init__(self, frame: LiveFrame, target: str | None = None) -> None:
        super().__init__(frame, target)
        self.frame = frame

    def mixed(
        self, size: int, seed: int, epoch: int = 0, window: int = WINDOW
    ) -> Iterator[tuple[Positions, torch.Tensor]]:
        """Yield the positions and features of :meth:`shuffled`, changed anew in each epoch."""
        frame = replace(self.frame, epoch=epoch)
        for at, values in TorchSamples(frame.stored).mixed(size, seed, epoch, window):
            samples = frame.samples.iloc[at]
            yield at, torch.from_numpy(frame.computed(values.numpy(), samples))


def features(
    store: Store, dataset: str, view: str, where: str | None = None, device: str = "cpu"
) -> FeatureFrame:
    """Return the features of selected samples, of a stored view or computed as they are read."""
    if ":" not in view:
        return store.get_historical_features(dataset, view, where)
    return live(store, dataset, view, where, device)


def live(
    store: Store,
    dataset: str,
    view: str,
    where: str | None = None,
    device: str = "cpu",
    augmentation: Augmentation | None = None,
    seed: int = 0,
) -> LiveFrame:
    """Return features that are computed whenever they are read, of changed images if asked.

    Raises
    ------
    InvalidRequest
        If the view cannot be read, or what is to be changed is not images.
    """
    source = store.dataset(dataset)
    spec = spec_of(view, source)
    made = operator(spec, source.schema, device)
    samples = source.samples(where)
    parts = {str(key): str(key) for key in samples["part"].unique()}
    row_shape, dtype = _shape(made, source)
    version = ViewVersion(spec, source.version.version, "", row_shape, dtype, parts)
    table = made.coefficients
    frame = LiveFrame(
        store.url,
        dataset,
        view,
        version,
        samples,
        table.assign(position=range(len(table))),
        source=source,
        device=device,
        augmentation=augmentation,
        seed=seed,
    )
    if augmentation is not None:
        frame.must_hold_images()
    return frame


def spec_of(view: str, source: Dataset) -> Document:
    """Return the spec that ``KIND:KEY=VALUE,...`` describes.

    Raises
    ------
    InvalidRequest
        If it cannot be read, or is not a view of fields or images.
    """
    kind, _, text = view.partition(":")
    if source.schema.layout == "molecules":
        raise InvalidRequest(f"{view!r}: views of molecules are stored first: `wavemill features`")
    return view_spec(kind, keyed(text, view, "scattering:J=4,L=8"), source)


def _shape(made: Operator, source: Dataset) -> tuple[tuple[int, ...], str]:
    """Return the shape and type of one sample's features, by transforming nothing but zeros."""
    schema = source.schema
    found = made(np.zeros((1, *schema.row_shape), dtype=schema.dtype))
    return found.shape[1:], str(found.dtype)
