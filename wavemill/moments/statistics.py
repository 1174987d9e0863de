"""How channels are normalised, and what a model keeps of its references."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from wavemill.errors import ShapeMismatch
from wavemill.operators import ordinary, power_of_two


@dataclass(frozen=True)
class Statistics:
    """Frozen normalisation of channels: ``mean`` complex, ``scale`` real, each ``(channel,)``."""

    mean: Tensor
    scale: Tensor

    @property
    def unit(self) -> Tensor:
        """The power of 2 below the largest scale: squares of fields over it fit any precision."""
        return power_of_two(self.scale.amax())

    def over(self, unit: Tensor) -> Statistics:
        """Return the normalisation of fields that are divided by ``unit``."""
        return Statistics(self.mean / unit, self.scale / unit)


@dataclass(frozen=True)
class Moments:
    """What a model keeps of its references: their normalisation, and ``values (coefficient,)``."""

    statistics: Statistics
    values: Tensor


def fitting(moments: Moments, channels: int, count: int, fields: Tensor) -> Moments:
    """Return moments in the fields' precision, on their device; refuse another operator's."""
    found = len(moments.statistics.scale), len(moments.values)
    if found != (channels, count):
        raise ShapeMismatch(
            f"expected {count} moments of {channels} channels, got {found[1]} of {found[0]}: "
            "measure them with this operator"
        )
    mean = moments.statistics.mean.to(fields.device, fields.dtype.to_complex())
    scale, values = (each.to(fields) for each in (moments.statistics.scale, moments.values))
    return Moments(Statistics(ordinary(mean), ordinary(scale)), ordinary(values))


def floored(scale: Tensor, spread: Tensor) -> Tensor:
    """Return deviations of channels, at least 100 rounding units of the fields' own.

    So a band that holds nothing but rounding error stays small instead of being blown up to 1.
    """
    scale = torch.maximum(scale, 100 * torch.finfo(scale.dtype).eps * spread)
    return torch.where(scale > 0, scale, 1.0)


def some(fields: Tensor) -> Tensor:
    """Refuse to measure no field at all."""
    if not len(fields):
        raise ShapeMismatch(f"there is no field to measure in {tuple(fields.shape)}")
    return fields
