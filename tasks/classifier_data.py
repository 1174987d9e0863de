"""What a classifier learns from and what is held out: rows, classes, and how features are read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from storage import FeatureFrame, InvalidRequest
from storage.typing import Array
from tasks.feature_batches import LabelledFeatures, Read
from tasks.live_features import LiveFrame
from tasks.requests import FitRequest, by_hash
from wavemill.dictionaries.classifiers import Standardisation
from wavemill.images import Augmentation
from wavemill.specs import ClassifierSpec


@dataclass(frozen=True)
class Data:
    """Which samples are learnt from and which are held out: rows in the order of the store.

    Attributes
    ----------
    frame, mirror
        The features, and those of the mirrored images if there are any.
    learnt, held
        Rows of the sample table.
    classes
        Labels, sorted (numbers by size): a class's number is its place here.
    target
        The column of labels.
    unlearnt
        How many more were held out, of classes that were not learnt: these count as wrong.
    augmentation, seed
        Random changes of the images in training (None: no changes), and the seed to draw them from.
    """

    frame: FeatureFrame
    mirror: FeatureFrame | None
    learnt: pd.DataFrame
    held: pd.DataFrame
    classes: tuple[str, ...]
    target: str
    unlearnt: int = 0
    augmentation: Augmentation | None = None
    seed: int = 0

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels and grid of the features."""
        return maps_shape(self.frame.version.row_shape)

    def numbers(self, rows: pd.DataFrame) -> Tensor:
        """Return the class of each row."""
        place = {label: index for index, label in enumerate(self.classes)}
        return torch.tensor(
            [place[name] for name in label_names(rows[self.target])], dtype=torch.int64
        )

    @property
    def known(self) -> float:
        """The part of the held-out samples whose class was learnt."""
        return len(self.held) / (len(self.held) + self.unlearnt)

    def learning(self, standardisation: Standardisation) -> LabelledFeatures:
        """Return what is learnt from, to be read in batches, and in training changed at random."""
        changed = self._changed if self.augmentation is not None else None
        return replace(self._samples(self.learnt, standardisation, True), changed=changed)

    def judging(self, standardisation: Standardisation, both: bool) -> LabelledFeatures:
        """Return what is held out, to be read in batches, and its mirror images if asked."""
        return self._samples(self.held, standardisation, both)

    def _samples(
        self, rows: pd.DataFrame, standard: Standardisation, mirrored: bool
    ) -> LabelledFeatures:
        read = partial(self._read, (self.frame, self.mirror), rows)
        sides = 2 if mirrored and self.mirror is not None else 1
        return LabelledFeatures(read, self.numbers(rows), standard, sides)

    def _changed(self, epoch: int) -> Read:
        """Return a function that reads the images learnt from, with the changes of an epoch."""
        frames = [
            replace(frame, augmentation=self.augmentation, seed=self.seed, epoch=epoch)
            for frame in (self.frame, self.mirror)
            if isinstance(frame, LiveFrame)
        ]
        return partial(self._read, frames, self.learnt)

    def _read(
        self, frames: Sequence[FeatureFrame | None], rows: pd.DataFrame, numbers: Array
    ) -> Array:
        found = np.empty((len(numbers), *self.shape), dtype=self.frame.version.dtype)
        flipped = numbers >= len(rows)
        for frame, some in zip(frames, (~flipped, flipped), strict=False):
            if frame is not None and some.any():
                read = frame.read(rows.iloc[numbers[some] % len(rows)])
                found[some] = read.reshape(-1, *self.shape)
        return found


def maps_shape(row_shape: Sequence[int]) -> tuple[int, int, int]:
    """Return channels and grid of features; those without maps are one position."""
    channels, *grid = row_shape
    height, width = grid or (1, 1)
    return channels, height, width


def split(
    frame: FeatureFrame, mirror: FeatureFrame | None, request: FitRequest, spec: ClassifierSpec
) -> Data:
    """Hold out samples by a hash of seed and id; those without a label are left out.

    Raises
    ------
    InvalidRequest
        If there is no such column, there are fewer than two classes or too few samples, or no
        held-out sample is of a class that was learnt.
    """
    target, rows = request.target or "", frame.samples
    if target not in rows:
        raise InvalidRequest(
            f"no column {target!r} in {frame.dataset}; there are {', '.join(map(str, rows))}"
        )
    if mirror is not None:
        rows = rows[rows["part"].isin(list(mirror.version.parts))]
    if not rows[target].notna().any():
        raise InvalidRequest(
            f"the column {target!r} of {frame.dataset} is empty where samples are selected: "
            f"`wavemill label {frame.dataset} TABLE` fills columns"
        )
    rows = by_hash(rows[rows[target].notna()], request.seed)
    held = round(spec.validation * len(rows)) if spec.validation < 1 else int(spec.validation)
    if held < 1 or len(rows) - held < 2:
        raise InvalidRequest(
            f"{len(rows)} labelled samples are too few to hold out {held} (1 or more) and learn "
            "from 2 or more others: select more, or set validation"
        )
    groups = [rows.iloc[: len(rows) - held], rows.iloc[len(rows) - held :]]
    learnt, judged = (group.sort_values(["part", "row"], ignore_index=True) for group in groups)
    classes = tuple(dict.fromkeys(label_names(learnt[target].sort_values())))
    if len(classes) < 2:
        raise InvalidRequest(f"{target!r} has one value only among the samples: {classes}")
    known = judged[label_names(judged[target]).isin(classes)].reset_index(drop=True)
    if not len(known):
        raise InvalidRequest(
            f"none of {held} samples held out is of one of the {len(classes)} classes learnt from: "
            "set validation higher, or select classes of several samples each"
        )
    changes, lost = _augmentation((frame, mirror), spec), len(judged) - len(known)
    return Data(frame, mirror, learnt, known, classes, target, lost, changes, request.seed)


def label_names(labels: pd.Series) -> pd.Series:
    """Return labels as texts, whole numbers without a decimal point."""
    return labels.map(lambda x: str(int(x) if isinstance(x, float) and x.is_integer() else x))


def _augmentation(
    frames: Sequence[FeatureFrame | None], spec: ClassifierSpec
) -> Augmentation | None:
    """Return the changes that a spec asks for; images are changed before they are transformed."""
    if not spec.flip and not spec.shift:
        return None
    for frame in frames:
        if isinstance(frame, LiveFrame):
            frame.must_hold_images()
        elif frame is not None:
            raise InvalidRequest(
                f"flip and shift change images before they are transformed, but {frame.view!r} is "
                "stored: give the view by its parameters, such as scattering:J=3"
            )
    return Augmentation(spec.flip, spec.shift)
