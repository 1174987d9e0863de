"""What the transforms of fields have in common: their grid, their precision, what they refuse."""

from __future__ import annotations

import contextlib
import operator
from collections.abc import Callable, Sequence
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from wavemill.devices import BesideDefault
from wavemill.errors import InvalidParameter, ShapeMismatch

Numbers = Tensor | NDArray[Any] | Sequence[Any]
HALF = (torch.float16, torch.bfloat16)


class FieldOperator(BesideDefault, nn.Module):
    """A transform of real fields ``(..., y, x)`` on one grid.

    Filters are built in float64, cast once, and held as buffers outside ``state_dict``; they follow
    the input to its device. ``.to(dtype)`` builds them anew, so that a float32 operator made
    ``.double()`` is exact in float64. Half precisions are computed in float32.
    """

    shape: tuple[int, int]
    _zero: Tensor

    def __init__(self, shape: tuple[int, int], dtype: torch.dtype) -> None:
        super().__init__()
        self.shape = grid(shape)
        if dtype not in (torch.float32, torch.float64, *HALF):
            raise InvalidParameter(f"dtype must be torch.float32 or torch.float64, got {dtype!r}")
        keep_buffer(self, "_zero", torch.zeros((), dtype=_computed(dtype)))

    @property
    def dtype(self) -> torch.dtype:
        """Real precision computed and returned."""
        return self.get_buffer("_zero").dtype

    @property
    def device(self) -> torch.device:
        """Where the filters are; the input's device from the first call on."""
        return self.get_buffer("_zero").device

    def __repr__(self) -> str:
        return summary(self)

    def _prepare(self) -> None:
        """Hold the filters in ``self.dtype``."""
        raise NotImplementedError

    def __call__(self, *inputs: Tensor) -> Any:
        """Transform in the operator's own precision, which ``torch.autocast`` does not change."""
        with own_precision(self.device):
            return super().__call__(*inputs)

    @torch.inference_mode(False)  # autograd could never save filters made in it
    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> Self:
        before, wanted = self.dtype, fn(self._zero).dtype
        must_be_real(wanted)

        def moved_or_made_anew(tensor: Tensor) -> Tensor:
            return tensor if tensor.is_complex() and wanted != before else moved(tensor, fn)

        super()._apply(moved_or_made_anew, recurse)  # type: ignore[no-untyped-call]
        device = self.device
        if wanted != before:
            keep_buffer(self, "_zero", torch.zeros((), dtype=_computed(wanted)))
            self._prepare()
            super()._apply(lambda tensor: tensor.to(device), recurse)  # type: ignore[no-untyped-call]
        return self

    def _checked(self, x: Tensor) -> Tensor:
        """Return ``x`` in the operator's precision, or say what was expected."""
        must_be_tensor(x)
        if not x.is_floating_point() or tuple(x.shape[-2:]) != self.shape:
            raise ShapeMismatch(
                f"{type(self).__name__} was built for real fields (..., {self.shape[0]}, "
                f"{self.shape[1]}) of floating point, got {x.dtype} of shape {tuple(x.shape)}"
            )
        if self.device != x.device or is_inferred(self._zero):
            self.to(x.device)
        return x.to(self.dtype)


_TELLING = (
    *("shape", "spacing", "elements", "J", "L", "A", "nonlinearity", "family"),
    *("isotropic", "linear", "reach", "powers", "width", "resolution", "band", "dtype"),
)


def summary(operator: nn.Module, *more: str) -> str:
    """Return an operator's name and those of its parameters that tell it from others."""
    names = (name for name in (*more, *_TELLING) if hasattr(operator, name))
    held = [f"{name}={getattr(operator, name)!r}" for name in names]
    return f"{type(operator).__name__}({', '.join(held)})"


def grid(shape: tuple[int, int]) -> tuple[int, int]:
    """Return the sides of a grid, or refuse them."""
    try:
        y, x = map(operator.index, shape)
    except (TypeError, ValueError):
        y, x = 0, 0
    if y < 1 or x < 1:
        raise InvalidParameter(f"a grid has two whole sides (y, x) of 1 or more, got {shape!r}")
    return y, x


def check_whole(**values: object) -> None:
    """Refuse parameters that are not whole numbers."""
    for name, value in values.items():
        if isinstance(value, bool) or not hasattr(value, "__index__"):
            raise InvalidParameter(f"{name} must be a whole number, got {value!r}")


def must_be_tensor(x: object) -> None:
    """Refuse what is not a tensor."""
    if not isinstance(x, Tensor):
        raise ShapeMismatch(
            f"expected a torch tensor, got {type(x).__module__}.{type(x).__qualname__}: "
            "torch.as_tensor makes one"
        )


def as_tensor(x: Numbers) -> Tensor:
    """Return the tensor of an array in any order of bytes and axes, or of nested lists.

    Raises
    ------
    InvalidParameter
        If values are masked.
    ShapeMismatch
        If ``x`` is not an array of numbers.
    """
    if isinstance(x, Tensor):
        return ordinary(x.detach())
    if np.ma.is_masked(x):
        count = int(np.ma.getmaskarray(np.ma.asarray(x)).sum())
        raise InvalidParameter(
            f"{count} of {np.size(x)} values are masked: leave such samples out, or fill them, "
            "x.filled(...)"
        )
    try:
        array = np.asarray(x)
        kind = np.complex128 if np.iscomplexobj(array) else np.float64
        return torch.from_numpy(array.astype(kind, order="C"))
    except (TypeError, ValueError) as error:
        raise ShapeMismatch(f"expected an array of numbers: {error}") from error


def must_be_real(dtype: torch.dtype) -> None:
    """Refuse to hold filters of real fields in a complex precision."""
    if dtype.is_complex:
        raise InvalidParameter(
            f"operators of real fields have no complex precision, got {dtype}: choose "
            f"{dtype.to_real()}"
        )


def is_inferred(tensor: Tensor) -> bool:
    """Tell whether a tensor was made in inference mode, which autograd refuses to save."""
    return not torch.compiler.is_compiling() and tensor.is_inference()


def ordinary(tensor: Tensor) -> Tensor:
    """Return a tensor that autograd may save."""
    if not is_inferred(tensor):
        return tensor
    with torch.inference_mode(False):
        return tensor.clone()


def moved(tensor: Tensor, fn: Callable[[Tensor], Tensor]) -> Tensor:
    """Return what a module's ``.to`` makes of a tensor, by ``fn``, such that autograd may save it.

    A precision is that of real numbers: by itself ``.to(torch.float32)`` drops imaginary parts.
    """
    if tensor.is_complex():
        return ordinary(torch.view_as_complex(fn(torch.view_as_real(tensor))))
    return ordinary(fn(tensor))


def keep_buffer(module: nn.Module, name: str, value: Tensor | None) -> None:
    """Register ``value`` to follow the module's device without entering its state."""
    module.register_buffer(name, value, persistent=False)


def mirror(spectrum: Tensor) -> Tensor:
    """Return a spectrum ``(..., y, x)`` at -w."""
    return spectrum.flip((-2, -1)).roll((1, 1), (-2, -1))


def double(x: Tensor) -> Tensor:
    """Return real fields ``(..., y, x)`` in float64, or refuse anything else."""
    must_be_tensor(x)
    if x.is_complex() or x.ndim < 2:
        raise ShapeMismatch(
            f"expected real fields (..., y, x), got {x.dtype} of shape {tuple(x.shape)}"
        )
    return x.to(torch.float64)


def transformed(transform: Callable[..., Tensor], x: Tensor, **options: Any) -> Tensor:
    """Return a transform by ``torch.fft``, which by itself refuses an empty batch."""
    if x.numel():
        return transform(x, **options)
    one = transform(x.new_zeros(x.shape[-2:]), **options)
    return (one * x.abs().sum()).expand(*x.shape[:-2], *one.shape)  # differentiable too


def own_precision(device: torch.device) -> contextlib.AbstractContextManager[Any]:
    """Return a context in which autocast is off."""
    kind = device.type
    if torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind):
        return torch.autocast(kind, enabled=False)
    return contextlib.nullcontext()


def power_of_two(largest: Tensor) -> Tensor:
    """Return the power of 2 at or below each positive number, and 1 for 0.

    Divided by it, fields are transformed to the same bits, but no square overflows, and none
    vanishes unless it is negligible.
    """
    power = torch.exp2(torch.log2(largest.clamp(min=torch.finfo(largest.dtype).tiny)).floor())
    return torch.where(largest == 0, torch.ones_like(power), power)


def _computed(dtype: torch.dtype) -> torch.dtype:
    return torch.float32 if dtype in HALF else dtype
