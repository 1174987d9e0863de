"""The library of compiled loops: whether it is there, and calls of its functions."""

from __future__ import annotations

import ctypes
import os
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd import forward_ad

from wavemill.kernels.sources import fingerprint

LIBRARY = "_kernels.so"
PAIR = 2 * ctypes.c_int64
TRIPLE = 3 * ctypes.c_int64
_LINE = 64  # bytes of a cache line
_KEPT = 2**24  # bytes that a thread keeps to work in
_SUFFIX = {torch.float32: "float", torch.float64: "double"}

Argument = Tensor | ctypes.Structure | int | None


def load(path: Path) -> ctypes.CDLL | None:
    """Return the library; None if there is none for this machine, compiled from these sources."""
    if os.environ.get("WAVEMILL_KERNELS") == "0" or not path.exists():
        return None
    try:
        library = ctypes.CDLL(str(path))
    except OSError:  # built for another machine
        return None
    if not (expected := fingerprint(Path(__file__).parent)) or _built_from(library) == expected:
        return library
    warnings.warn(
        f"{path} was compiled from other sources: torch computes, slower, until the package is "
        "installed again (`make .venv/.installed`, or `pip install -e .`)",
        stacklevel=2,
    )
    return None


def _built_from(library: ctypes.CDLL) -> str:
    if not hasattr(library, "kernels_sources"):
        return "unknown"
    library.kernels_sources.restype = ctypes.c_char_p
    return cast(bytes, library.kernels_sources()).decode()


library = load(Path(__file__).with_name(LIBRARY))


def available() -> bool:
    """Say whether the compiled loops are in use."""
    return library is not None


def usable(*tensors: Tensor) -> bool:
    """Say whether the loops can run on the memory of these tensors."""
    return all(readable(tensor) and tensor.is_contiguous() for tensor in tensors)


def readable(tensor: Tensor) -> bool:
    """Say whether the loops can read a tensor, wherever its numbers lie in memory."""
    return (
        library is not None
        and type(tensor) is Tensor  # not in a trace
        and torch._C._has_storage(tensor)  # not in a vmap
        and tensor.device.type == "cpu"
        and not tensor.is_conj()
        and forward_ad._current_level < 0  # else it may have a tangent, which would be lost
    )


def unfollowed(*tensors: Tensor) -> bool:
    """Say whether results of tensors are mere numbers: of no trace, `torch.func` or graph."""
    graph = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)
    compiling = torch.compiler.is_compiling()
    return not compiling and not graph and torch._C._functorch.peek_interpreter_stack() is None


def precise(dtype: torch.dtype) -> bool:
    """Say whether there are loops for a real precision."""
    return dtype in _SUFFIX


def numbers(*names: str) -> list[tuple[str, type]]:
    """Return fields of a structure: whole numbers of 64 bits."""
    return [(name, ctypes.c_int64) for name in names]


def addresses(*names: str) -> list[tuple[str, type]]:
    """Return fields of a structure that point to memory."""
    return [(name, ctypes.c_void_p) for name in names]


def call(name: str, dtype: torch.dtype, *arguments: Argument) -> int:
    """Call a function for a real or complex precision; the number of threads is added last."""
    key = name, dtype.to_real()
    function = _functions.get(key) or _declared(*key, arguments)
    passed = [one.data_ptr() if isinstance(one, Tensor) else one for one in arguments]
    return function(*passed, torch.get_num_threads())


def room(size: int) -> Tensor:
    """Return at least ``size`` bytes of memory that begin with a cache line.

    They are the calling thread's until it asks again: so little is not worth asking for anew.
    """
    memory: Tensor | None = getattr(_scratch, "memory", None)
    if memory is None or len(memory) < size:
        memory = torch.empty(size + _LINE, dtype=torch.uint8, device="cpu")
        memory = memory[-memory.data_ptr() % _LINE :]
        if size <= _KEPT:
            _scratch.memory = memory
    return memory


def forget_room() -> None:
    """Give back the memory that the calling thread keeps."""
    _scratch.__dict__.clear()


def _declared(name: str, dtype: torch.dtype, arguments: tuple[Argument, ...]) -> Callable[..., int]:
    """Return a function whose argument types are declared, once for all, from its first call."""
    function: Any = getattr(library, f"{name}_{_SUFFIX[dtype]}")
    function.restype = ctypes.c_int64 if name.endswith("_bytes") else ctypes.c_int
    function.argtypes = [*map(_kind, arguments), ctypes.c_int64]
    _functions[name, dtype] = function
    return cast(Callable[..., int], function)


def _kind(argument: Argument) -> Any:
    """Return the type of an argument in C: an address, or a whole number of 64 bits."""
    if isinstance(argument, ctypes.Structure):
        return ctypes.POINTER(type(argument))
    return ctypes.c_void_p if argument is None or isinstance(argument, Tensor) else ctypes.c_int64


_scratch = threading.local()
_functions: dict[tuple[str, torch.dtype], Callable[..., int]] = {}
