"""Features computed while training: for what is too much to store, and for changed images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from storage import Dataset, InvalidRequest
from storage.documents import Document
from storage.keys import canonical, digest
from storage.training import WINDOW, Positions, TorchSamples
from tasks.views import operator
from wavemill.images import Augmentation, Changes


class LiveFeatures:
    """The features of a view without the view: read, change at random, transform.

    With ``augmentation=None`` these are the numbers that ``wavemill features`` stores for the same
    spec. A change depends on the seed, the epoch and the sample alone, not on batches or workers.

    Parameters
    ----------
    dataset
        Of images.
    spec
        ``{kind, parameters, algorithm}`` as of :func:`tasks.views.view_spec` or of a stored view.
    where, target
        Which samples, and the column to yield beside their features.
    augmentation
        Random changes, or None.
    seed
        Of the changes.
    device
        Where features are computed.
    """

    def __init__(
        self,
        dataset: Dataset,
        spec: Document,
        where: str | None = None,
        target: str | None = None,
        augmentation: Augmentation | None = None,
        seed: int = 0,
        device: str = "cpu",
    ) -> None:
        if dataset.schema.layout != "images":
            raise InvalidRequest(f"{dataset.name} holds {dataset.schema.layout}, not images")
        self.images: TorchSamples = dataset.to_torch(where, target)
        self.transform = operator(spec, dataset.schema, device)
        self.augmentation = augmentation
        self.seed = seed
        self.epoch = 0

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Any:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[Any]:
        """Return the items of a batch, read and transformed together."""
        return self.images.items(self.features(self.images.read(indices), indices), indices)

    def shuffled(self, size: int, seed: int, epoch: int = 0, window: int = WINDOW) -> Iterator[Any]:
        """Yield batches as :meth:`storage.training.TorchSamples.shuffled` does."""
        self.epoch = epoch
        for indices, images in self.images.mixed(size, seed, epoch, window):
            values, targets = self.features(images, indices), self.images.targets(indices)
            yield values if targets is None else (values, targets)

    @torch.inference_mode()
    def features(self, images: Tensor, indices: Sequence[int] | Positions) -> Tensor:
        """Return the features of images ``(n, y, x, rgb)`` at some positions."""
        if self.augmentation is not None:
            images = self.augmentation.apply(images, self._changes(indices))
        return self.transform.features(images)

    def _changes(self, indices: Sequence[int] | Positions) -> Changes:
        assert self.augmentation is not None
        generator = torch.Generator()
        drawn = []
        for index in indices:
            words = canonical([self.seed, self.epoch, int(index)])
            generator.manual_seed(int(digest(words)[:15], 16))
            drawn.append(self.augmentation.draw(1, generator))
        return Changes.joined(drawn)
