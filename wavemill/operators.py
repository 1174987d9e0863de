"""What the transforms of fields have in common: their grid, their precision, what they refuse."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

import torch
from torch import Tensor, nn

from wavemill.errors import InvalidParameter, ShapeMismatch

HALF = (torch.float16, torch.bfloat16)


class FieldOperator(nn.Module):
    """A transform of real fields ``(..., y, x)`` on one grid.

    Filters are built in float64, cast once, and held as buffers outside ``state_dict``; they follow
    the input to its device. ``.to(dtype)`` builds them anew, so that a float32 operator made
    ``.double()`` is exact in float64. Half precisions are computed in float32.
    """

    shape: tuple[int, int]

    def __init__(self, shape: tuple[int, int], dtype: torch.dtype) -> None:
        super().__init__()
        if len(shape) != 2 or min(shape) < 1:
            raise InvalidParameter(f"a grid has two sides (y, x) of 1 or more, got {tuple(shape)}")
        if dtype not in (torch.float32, torch.float64, *HALF):
            raise InvalidParameter(f"dtype must be float32 or float64, got {dtype}")
        self.shape = (int(shape[0]), int(shape[1]))
        self.register_buffer("_zero", torch.zeros((), dtype=_computed(dtype)), False)

    @property
    def dtype(self) -> torch.dtype:
        """Real precision computed and returned."""
        return self.get_buffer("_zero").dtype

    @property
    def device(self) -> torch.device:
        """Where the filters are; the input's device from the first call on."""
        return self.get_buffer("_zero").device

    def _prepare(self) -> None:
        """Hold the filters in ``self.dtype``."""
        raise NotImplementedError

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> Self:
        before = self.dtype
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        wanted, device = self.dtype, self.device
        if wanted != before:
            self.register_buffer("_zero", torch.zeros((), dtype=_computed(wanted)), False)
            self._prepare()
            super()._apply(lambda tensor: tensor.to(device), recurse)  # type: ignore[no-untyped-call]
        return self

    def _checked(self, x: Tensor) -> Tensor:
        """Return ``x`` in the operator's precision, or say what was expected."""
        if not x.is_floating_point() or tuple(x.shape[-2:]) != self.shape:
            raise ShapeMismatch(
                f"{type(self).__name__} was built for real fields (..., {self.shape[0]}, "
                f"{self.shape[1]}) of floating point, got {x.dtype} of shape {tuple(x.shape)}"
            )
        if self.device != x.device:
            self.to(x.device)
        return x.to(self.dtype)


def _computed(dtype: torch.dtype) -> torch.dtype:
    return torch.float32 if dtype in HALF else dtype
