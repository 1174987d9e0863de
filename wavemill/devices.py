"""Torch's default device, set aside: what wavemill computes lives where its data does.

Tables are made on the CPU and follow the data. After ``torch.set_default_device("cuda")``, tensors
that are made without a word on where would lie elsewhere than what they meet.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from types import FunctionType
from typing import Any, ParamSpec, TypeVar

import torch

Given = ParamSpec("Given")
Found = TypeVar("Found")


def beside_default(function: Callable[Given, Found]) -> Callable[Given, Found]:
    """Return a function during which the CPU is the default device."""

    @wraps(function)
    def run(*args: Given.args, **kwargs: Given.kwargs) -> Found:
        # A default device is a mode of torch's functions, and most often there is none.
        modes = not torch.compiler.is_compiling() and torch._C._len_torch_function_stack()
        if not modes or torch.get_default_device().type == "cpu":
            return function(*args, **kwargs)
        with torch.device("cpu"):
            return function(*args, **kwargs)

    return run


class BesideDefault:
    """A base of classes whose public methods run beside the default device."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Wrap the methods of a class that is being made."""
        super().__init_subclass__(**kwargs)
        for name, member in list(vars(cls).items()):
            if name.startswith("_") and name not in ("__init__", "__call__", "_apply"):
                continue
            if isinstance(member, FunctionType):
                setattr(cls, name, beside_default(member))
            elif isinstance(member, classmethod):
                setattr(cls, name, classmethod(beside_default(member.__func__)))
