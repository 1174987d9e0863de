"""Colour images as fields, and small random changes that keep what they show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from wavemill.errors import InvalidParameter, ShapeMismatch
from wavemill.operators import must_be_tensor

OPPONENTS = {
    "grey": (1.0, 1.0, 1.0),
    "red-blue": (1.0, 0.0, -1.0),
    "magenta-green": (1.0, -2.0, 1.0),
}


def as_float(images: Tensor) -> Tensor:
    """Return ``(..., 3, y, x)`` float32 in [0, 1] of images ``(..., y, x, 3)`` uint8: v / 255.

    Everything that computes from stored images begins with this, so that features computed once and
    features computed while training are the same numbers.

    Raises
    ------
    ShapeMismatch
        If they are anything else.
    """
    must_be_tensor(images)
    if images.dtype != torch.uint8 or images.ndim < 3 or images.shape[-1] != 3:
        raise ShapeMismatch(
            f"images are uint8 (..., y, x, 3), got {images.dtype} of shape {tuple(images.shape)}"
        )
    return images.movedim(-1, -3).to(torch.float32, memory_format=torch.contiguous_format) / 255


def opponent(x: Tensor) -> Tensor:
    """Return the opponent colours of red, green and blue, ``(..., 3, y, x)``.

    An orthonormal change of axes to grey, red - blue and magenta - green (`OPPONENTS`, each of
    length 1). Their moduli keep edges of hue apart from those of brightness, which all three
    primary colours repeat.
    """
    axes = torch.tensor(list(OPPONENTS.values()), dtype=torch.float64)
    axes = torch.nn.functional.normalize(axes, dim=1).to(x)
    return torch.einsum("dc,...cyx->...dyx", axes, x)


@dataclass(frozen=True)
class Changes:
    """What was drawn for each of n images.

    Attributes
    ----------
    shifts
        ``(2, n)`` along y and x.
    mirrored
        ``(n,)``.
    """

    shifts: Tensor
    mirrored: Tensor

    @classmethod
    def joined(cls, changes: Sequence[Changes]) -> Changes:
        """Return the changes of all images, one after another."""
        shifts = torch.cat([each.shifts for each in changes], dim=1)
        return cls(shifts, torch.cat([each.mirrored for each in changes]))


@dataclass(frozen=True)
class Augmentation:
    """Random mirror images and shifts, drawn for each image by itself.

    Parameters
    ----------
    flip
        Whether half of the images are mirrored left to right.
    shift
        Pixels by which an image is moved at most along each axis; what comes in from beyond its
        border is its mirror image there (the edge not repeated).
    """

    flip: bool = True
    shift: int = 0

    def __post_init__(self) -> None:
        """Refuse a shift that is not a distance."""
        if self.shift < 0:
            raise InvalidParameter(f"shift={self.shift} must not be below 0")

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Return changed images ``(n, y, x, 3)``; the generator is on the CPU."""
        return self.apply(images, self.draw(len(images), generator))

    def draw(self, count: int, generator: torch.Generator) -> Changes:
        """Return random changes of so many images."""
        shifts = torch.randint(-self.shift, self.shift + 1, (2, count), generator=generator)
        drawn = torch.rand(count, generator=generator, dtype=torch.float32)
        mirrored = drawn < (0.5 if self.flip else 0.0)
        return Changes(shifts, mirrored)

    def apply(self, images: Tensor, changes: Changes) -> Tensor:
        """Return images ``(n, y, x, 3)`` shifted, then mirrored.

        Raises
        ------
        InvalidParameter
            If shifts are as large as the images.
        """
        count, *shape = images.shape[:3]
        if self.shift >= min(shape):
            raise InvalidParameter(f"shift={self.shift} must be below the sides {tuple(shape)}")
        rows, columns = (
            _reflected(torch.arange(size) + by[:, None], size)
            for size, by in zip(shape, changes.shifts, strict=True)
        )
        columns = torch.where(changes.mirrored[:, None], columns.flip(1), columns)
        which = torch.arange(count)[:, None, None]
        return images[which, rows[:, :, None], columns[:, None, :]]


def _reflected(places: Tensor, size: int) -> Tensor:
    """Return places within 0 ... size - 1, reflected at both ends."""
    period = max(2 * (size - 1), 1)
    folded = places % period
    return torch.minimum(folded, period - folded)
