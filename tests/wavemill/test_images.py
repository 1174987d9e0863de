"""Images as fields, and their random changes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from wavemill import Augmentation, InvalidParameter, ShapeMismatch, as_float
from wavemill.images import opponent


def images(count: int = 64) -> torch.Tensor:
    return torch.randint(0, 256, (count, 12, 10, 3), dtype=torch.uint8, generator=seeded(0))


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_values_are_those_of_eight_bits_over_255() -> None:
    x = images(2)
    y = as_float(x)
    assert (y.shape, y.dtype, y.is_contiguous()) == ((2, 3, 12, 10), torch.float32, True)
    expected = np.asarray(x, dtype=np.float32) / np.float32(255)
    np.testing.assert_array_equal(y.permute(0, 2, 3, 1).numpy(), expected)


def test_opponent_colours_are_a_rotation_and_grey_has_no_hue() -> None:
    """In float64, to rounding; the axes are orthogonal and as long as before."""
    x = as_float(images(2)).double()
    y = opponent(x)
    torch.testing.assert_close(y.square().sum(1), x.square().sum(1), rtol=1e-12, atol=0)
    grey = x[:, :1].expand(-1, 3, -1, -1)
    torch.testing.assert_close(opponent(grey)[:, 0], 3**0.5 * x[:, 0], rtol=1e-12, atol=0)
    assert opponent(grey)[:, 1:].abs().max() < 1e-15
    red_blue = (x[:, 0] - x[:, 2]) / 2**0.5
    torch.testing.assert_close(y[:, 1], red_blue, rtol=1e-12, atol=1e-15)


def test_anything_but_images_is_refused() -> None:
    with pytest.raises(ShapeMismatch, match="float32"):
        as_float(images().float())
    with pytest.raises(ShapeMismatch):
        as_float(images().movedim(-1, 1))
    with pytest.raises(InvalidParameter):
        Augmentation(shift=10)(images(), seeded(0))


def test_an_image_is_mirrored_or_not_and_about_half_are(doubles: Any) -> None:
    x = images()
    y = Augmentation()(x, seeded(3))
    with doubles():
        assert torch.equal(Augmentation()(x, seeded(3)), y)
    same, mirrored = ((y == z).flatten(1).all(1) for z in (x, x.flip(2)))
    assert (same ^ mirrored).all()
    assert 16 < mirrored.sum() < 48  # of 64: four standard deviations


def test_a_shift_moves_within_the_mirrored_plane() -> None:
    x = images()
    y = Augmentation(flip=False, shift=2)(x, seeded(5))
    plane = np.pad(x.numpy(), ((0, 0), (2, 2), (2, 2), (0, 0)), mode="reflect")
    places = set()
    for one, wide in zip(y.numpy(), plane, strict=True):
        found = [
            (top, left)
            for top in range(5)
            for left in range(5)
            if (wide[top : top + 12, left : left + 10] == one).all()
        ]
        assert len(found) == 1
        places.add(found[0])
    assert len(places) > 12  # of 25


def test_the_same_seed_changes_alike() -> None:
    change = Augmentation(shift=3)
    assert torch.equal(change(images(), seeded(1)), change(images(), seeded(1)))
    assert not torch.equal(change(images(), seeded(1)), change(images(), seeded(2)))
