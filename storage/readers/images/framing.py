"""From an image of any size to the size of a dataset: resize to cover, then cut the centre.

The geometry and the filter are those of torchvision's ``Resize(short side)`` and ``CenterCrop`` on
Pillow images: an image of ``(h, w)`` is resized to the smallest that covers the frame at its own
aspect, the longer side rounded down, by a triangle filter as wide as the reduction (antialiased),
and the middle is kept. Only the rows and columns that are kept are computed, so that a strip of one
pixel by a million costs no more than a photograph.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from storage.errors import BadInput

Fit = Literal["crop", "stretch", "exact"]
Size = tuple[int, int]


@dataclass(frozen=True)
class Framing:
    """How an image is brought to ``(y, x)``.

    Parameters
    ----------
    shape
        ``(y, x)`` of the result.
    fit
        ``crop``: resize to cover, then cut the centre; ``stretch``: whatever that does to the
        aspect; ``exact``: refuse other sizes.
    cover
        The frame that is covered before cutting, ``shape`` unless given: ``(256, 256)`` for the
        usual centre of 224.
    """

    shape: Size
    fit: Fit = "crop"
    cover: Size | None = None

    def __call__(self, image: Image.Image) -> npt.NDArray[np.uint8]:
        """Return ``(y, x, rgb)`` uint8 of an RGB image.

        Raises
        ------
        BadInput
            If it has another size and ``fit`` is ``exact``.
        """
        size = (image.height, image.width)
        if size != self.shape:
            image = image.resize(
                (self.shape[1], self.shape[0]), Image.Resampling.BILINEAR, self._box(size)
            )
        return np.asarray(image)

    def _box(self, size: Size) -> tuple[float, float, float, float]:
        """Return the part of the image that fills the result: left, top, right, bottom."""
        if self.fit == "exact":
            found, wanted = ("x".join(map(str, each)) for each in (size, self.shape))
            raise BadInput("shape", f"is {found} where the dataset is {wanted}: --fit crop")
        if self.fit == "stretch":
            return 0.0, 0.0, float(size[1]), float(size[0])
        whole = covering(size, self.cover or self.shape)
        spans = []
        for side, resized, kept in zip(size, whole, self.shape, strict=True):
            before = round((resized - kept) / 2)
            spans.append((before * side / resized, (before + kept) * side / resized))
        (top, bottom), (left, right) = spans
        return left, top, right, bottom


def covering(size: Size, frame: Size) -> Size:
    """Return the smallest ``(y, x)`` at the aspect of ``size`` that covers ``frame``."""
    (h, w), (y, x) = size, frame
    return (x * h // w, x) if h * x >= w * y else (y, y * w // h)
