"""A device that is not the processor, for machines that have none: CPU memory under another name.

Tensors on it say that they are on ``DEVICE``, and refuse what an accelerator refuses: to meet
tensors of the processor (except scalars and indices), to become numpy arrays, to draw from a
generator of the processor. Everything else is computed in CPU memory, so that whole fits and
descents run by the paths that they take on an accelerator, but not with its times and roundings.

    with Accelerator():
        x = torch.randn(4, device=DEVICE)

``CROSSED`` lists what had to wait for the device, or copied to it or from it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

DEVICE = "meta"  # the only other device that every build of torch has autograd for
aten = torch.ops.aten
CROSSED: list[str] = []
WAITING = {aten._local_scalar_dense, aten.nonzero, aten.masked_select, aten.equal}
CROSSING = {aten._to_copy, aten.copy_, aten._copy_from, aten.index, aten.index_put, aten.index_put_}


class There(Tensor):
    """A tensor of the device: ``held`` are its values."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> There:
        held = held.resolve_conj().resolve_neg()  # torch would ask the wrapper for these
        made = Tensor._make_wrapper_subclass(
            cls,
            held.shape,
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device=DEVICE,
        )
        made.held = held
        return made

    @classmethod
    def __torch_dispatch__(
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        return dispatched(func, args, kwargs or {})

    def tolist(self) -> Any:
        return self.held.tolist()

    def __repr__(self, *, tensor_contents: object = None) -> str:
        return f"There({self.held})"


class Accelerator(TorchDispatchMode):
    """While it is entered, tensors and modules can be made on, and moved to, the device."""

    def __enter__(self) -> Any:
        future, self.inner = torch.__future__, ExitStack()
        before = future.get_overwrite_module_params_on_conversion()
        future.set_overwrite_module_params_on_conversion(True)  # their tensors change class
        self.inner.callback(future.set_overwrite_module_params_on_conversion, before)
        self.inner.enter_context(Values())
        return super().__enter__()

    def __exit__(self, *exception: Any) -> None:
        super().__exit__(*exception)
        self.inner.close()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        return dispatched(func, args, kwargs or {})


class Values(TorchFunctionMode):
    """Moves Python's values there, which torch would drop for a device without memory."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        device = kwargs.get("device")
        if func in (torch.tensor, torch.as_tensor) and device is not None:
            return func(*args, **{**kwargs, "device": "cpu"}).to(device)
        if func in (Tensor.__getitem__, Tensor.__setitem__):
            held, index, *value = args
            args = (held, tree_map(_indices, index, is_leaf=_is_list), *value)
        return func(*args, **kwargs)


def dispatched(func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """Compute one operation, and put its result on the right device."""
    tensors = [leaf for leaf in tree_leaves((args, dict(kwargs))) if isinstance(leaf, Tensor)]
    met = any(isinstance(tensor, There) for tensor in tensors)
    others = [t for t in tensors if not isinstance(t, There) and t.ndim > 0]
    if met and others and func.overloadpacket not in CROSSING:
        raise RuntimeError(f"{func} of tensors on two devices: {[tuple(t.shape) for t in others]}")
    wanted = kwargs.get("device")
    there = met if wanted is None else torch.device(wanted).type == DEVICE
    generator = kwargs.get("generator")
    if there and generator is not None:
        raise RuntimeError(f"{func} on {DEVICE} by a generator of {generator.device}")
    held = dict(kwargs) if wanted is None else {**kwargs, "device": torch.device("cpu")}
    result = func(*tree_map(_inner, args), **tree_map(_inner, held))
    moved = func.overloadpacket is aten._to_copy and met != there
    if moved or (met and (others or func.overloadpacket in WAITING)):
        CROSSED.append(str(func))
    own = {id(t.held): t for t in tensors if isinstance(t, There)}
    return tree_map(_outer(own) if there else lambda leaf: leaf, result)


def _is_list(index: Any) -> bool:
    return isinstance(index, list)


def _indices(index: Any) -> Any:
    return torch.tensor(index) if _is_list(index) else index


def _inner(leaf: Any) -> Any:
    return leaf.held if isinstance(leaf, There) else leaf


def _outer(own: Mapping[int, Tensor]) -> Callable[[Any], Any]:
    """Return a function that wraps results; a tensor changed in place stays the one given."""
    return lambda leaf: own.get(id(leaf), There(leaf)) if isinstance(leaf, Tensor) else leaf
