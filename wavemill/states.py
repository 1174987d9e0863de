"""What models have learnt, as tensors by name: those of a part begin with its name and a dot."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

State = dict[str, Tensor]


def over(prefix: str, state: Mapping[str, Tensor]) -> State:
    """Return a state with a prefix to its names, and its tensors contiguous, as files hold them."""
    return {f"{prefix}.{name}": value.contiguous() for name, value in state.items()}


def under(prefix: str, state: Mapping[str, Tensor]) -> State:
    """Return the part of a state whose names begin with a prefix, without it."""
    head = f"{prefix}."
    return {k.removeprefix(head): v for k, v in state.items() if k.startswith(head)}
