"""Patches of fields and images, cut as they are read: what networks are trained on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
import pandas as pd

from storage.errors import InvalidRequest
from storage.training import StoredSamples
from storage.typing import Array

CORNER = ("patch_y", "patch_x")  # columns: where a patch begins


@dataclass(frozen=True)
class Patches(StoredSamples):
    """Squares of stored samples, which overlap and cover every point.

    Attributes
    ----------
    samples
        One row a patch: the row of its sample, and the corner it begins at.
    side
        Of a patch, in points.
    """

    side: int = 0

    @classmethod
    def of(cls, whole: StoredSamples, side: int, overlap: int = 0) -> Self:
        """Cut samples into patches; the last along each axis ends at the border.

        Raises
        ------
        InvalidRequest
            If a patch is larger than the samples, or not larger than the overlap.
        """
        height, width = whole.schema.shape
        if not 0 < side <= min(height, width) or not 0 <= overlap < side:
            raise InvalidRequest(
                f"patches of {side} that share {overlap}: expected a side of 1 to "
                f"{min(height, width)}, and an overlap of less than the side"
            )
        y, x = (_starts(size, side, side - overlap) for size in (height, width))
        corners = pd.MultiIndex.from_product([y, x], names=CORNER).to_frame(index=False)
        rows = whole.samples.reset_index(drop=True)
        placed = rows.loc[np.repeat(rows.index, len(corners))].reset_index(drop=True)
        for name in CORNER:
            placed[name] = np.tile(corners[name], len(rows))
        return cls(whole.url, placed, whole.schema, side)

    def read(self, samples: pd.DataFrame) -> Array:
        """Read patches, in their order; each of their samples is read once."""
        numbers, found = pd.factorize(pd.MultiIndex.from_frame(samples[["part", "row"]]))
        wholes = super().read(pd.DataFrame(found.to_list(), columns=["part", "row"]))
        axis = self.schema.dims[1:].index("y")
        shape = list(wholes.shape[1:])
        shape[axis : axis + 2] = [self.side, self.side]
        patches = np.empty((len(samples), *shape), wholes.dtype)
        corners = zip(numbers, samples["patch_y"], samples["patch_x"], strict=True)
        for place, (number, y, x) in enumerate(corners):
            inside = (slice(None),) * axis + (slice(y, y + self.side), slice(x, x + self.side))
            patches[place] = wholes[number][inside]
        return patches


def _starts(size: int, side: int, step: int) -> list[int]:
    return [*range(0, size - side, step), size - side]
