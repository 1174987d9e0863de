"""Samples as generators take them: real ``(n, component, y, x)``, however they are held."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from wavemill.errors import InvalidParameter, ShapeMismatch
from wavemill.images import as_float
from wavemill.operators import must_be_tensor

BLOCK = 512  # samples made real at a time
ROUNDING = 1e-7  # of a mean in float32


class RealImages:
    """Images uint8 ``(n, y, x, rgb)`` or fields ``(n[, component], y, x)``, made real on request.

    ``samples[rows]`` is ``(k, component, y, x)`` in float32, images between 0 and 1.

    Raises
    ------
    ShapeMismatch
        If they are neither.
    """

    def __init__(self, held: Tensor) -> None:
        must_be_tensor(held)
        self.are_images = held.dtype == torch.uint8
        good = held.ndim == 4 if self.are_images else held.ndim in (3, 4)
        if self.are_images and good and held.shape[-1] != 3:
            raise ShapeMismatch(
                f"images are (n, y, x, rgb), colours last, got {tuple(held.shape)}: movedim(1, -1) "
                "of (n, rgb, y, x)"
            )
        if not good or not held.numel() or not (self.are_images or held.is_floating_point()):
            raise ShapeMismatch(
                "a generator takes images uint8 (n, y, x, rgb) or real fields (n[, component], y, "
                f"x), n >= 1, got {held.dtype} of shape {tuple(held.shape)}"
            )
        self.held = held[:, None] if held.ndim == 3 else held

    def __len__(self) -> int:
        return len(self.held)

    def __getitem__(self, rows: slice | Tensor) -> Tensor:
        chosen = self.held[rows]
        return as_float(chosen) if self.are_images else chosen.float()

    @property
    def shape(self) -> tuple[int, int, int]:
        """``(component, y, x)`` of a sample."""
        one = self.held.shape[1:]
        return (one[2], one[0], one[1]) if self.are_images else (one[0], one[1], one[2])

    def blocks(self) -> Iterator[Tensor]:
        """Yield all samples, a block at a time."""
        for start in range(0, len(self), BLOCK):
            yield self[start : start + BLOCK]

    def moments(self) -> tuple[Tensor, Tensor]:
        """Return mean and deviation of each component over all samples and points.

        Raises
        ------
        InvalidParameter
            If a value is not finite, or no component varies.
        """
        count = len(self) * self.shape[1] * self.shape[2]
        mean = torch.stack([b.double().sum((0, 2, 3)) for b in self.blocks()]).sum(0) / count
        centre = mean[:, None, None].float()
        away = [(b - centre).square().double().sum((0, 2, 3)) for b in self.blocks()]
        deviation = (torch.stack(away).sum(0) / count).sqrt()
        if not (mean.isfinite().all() and deviation.isfinite().all()):
            raise InvalidParameter("samples hold values that are not finite: fill or leave out")
        if not (deviation > ROUNDING * mean.abs()).any():
            raise InvalidParameter(
                "samples are the same everywhere: nothing can be learnt from them"
            )
        return mean.float(), deviation.clamp(min=1e-12).float()

    def range(self) -> float:
        """Return the peak for PSNR and SSIM: 1 for images, the span of values for fields."""
        if self.are_images:
            return 1.0
        return float(self.held.max() - self.held.min())


def crops(fields: Tensor, side: int) -> Tensor:
    """Cut samples ``(..., y, x)`` of ``(n, ...)`` into all squares that fit side by side.

    Returns
    -------
    Tensor
        ``(n k, ..., side, side)``, the k crops of a sample together, row by row.
    """
    ny, nx = fields.shape[-2] // side, fields.shape[-1] // side
    if not (ny and nx):
        raise ShapeMismatch(f"no crop of {side} fits into samples of {tuple(fields.shape[-2:])}")
    cut = torch.unflatten(fields[..., : ny * side, : nx * side], -1, (nx, side))
    cut = torch.unflatten(cut, -3, (ny, side)).movedim((-4, -2), (1, 2))
    return cut.flatten(0, 2)
