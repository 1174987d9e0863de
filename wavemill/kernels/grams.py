"""What ``grams.c`` does: sums of products of spectra under filters, and their gradients."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import torch
from torch import Tensor

from wavemill.kernels.loading import addresses, call, numbers, precise, room, unfollowed, usable


class Grams(ctypes.Structure):
    """Halves of spectra, scale by scale, and filters."""

    _fields_ = [
        *numbers("fields", "scales", "angles"),
        *addresses("boxes", "padded", "spectra", "joint", "cross", "units"),
    ]


class GramsTask:
    """What the loops are given, and the tensors that it points to.

    Parameters
    ----------
    field
        Halves of the fields' spectra ``(field, y, x)``, in the box of scale 0.
    spectra
        Halves of the spectra of each scale's channels, ``(field, angle, y, x)``.
    units
        Units of the channels, ``(scale, angle)``.
    joint, cross
        Even and odd filters of each scale, ``(angle, 2, frequency)``.
    """

    def __init__(
        self,
        field: Tensor,
        spectra: Sequence[Tensor],
        units: Tensor,
        joint: Sequence[Tensor],
        cross: Sequence[Tensor],
    ) -> None:
        self._given = field, spectra, units, joint, cross

    @property
    def possible(self) -> bool:
        """Whether the loops can do it: not on other devices, nor in a graph of autograd."""
        field, spectra, units, joint, cross = self._given
        every = field, *spectra, units, *joint, *cross
        alike = len({tensor.dtype.to_real() for tensor in every}) == 1
        return unfollowed(*every) and alike and precise(units.dtype) and usable(*every)

    def sums(self, count: int) -> Tensor:
        """Return the sums of all scales, ``(field, count)``."""
        field, _, units, _, _ = self._given
        out = units.new_empty(len(field), count)
        self._call("grams", out)
        return out

    def gradients(self, values: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return gradients of the fields' and each scale's halves, from those of the sums."""
        field, spectra, _, _, _ = self._given
        whole, scales = torch.empty_like(field), [torch.empty_like(one) for one in spectra]
        self._call("grams_gradients", values.contiguous(), whole, _pointers(scales))
        return whole, scales

    def _call(self, name: str, *written: Tensor) -> None:
        field, spectra, units, joint, cross = self._given
        boxes = torch.tensor([one.shape[2:] for one in spectra], device="cpu")
        padded = torch.tensor([one.shape[2] for one in joint], device="cpu")
        held = [boxes, padded, *map(_pointers, (spectra, joint, cross)), units]
        task = Grams(len(field), *units.shape, *(tensor.data_ptr() for tensor in held))
        size = call("grams_bytes", units.dtype, task)
        call(name, units.dtype, field, task, *written, room(size))


def _pointers(tensors: Sequence[Tensor]) -> Tensor:
    return torch.tensor([tensor.data_ptr() for tensor in tensors], device="cpu")
