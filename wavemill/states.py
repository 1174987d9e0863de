"""What models have learnt, as tensors by name: those of a part lie below its name and a point."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

State = dict[str, Tensor]


def over(prefix: str, state: Mapping[str, Tensor]) -> State:
    """Return a state with its names below a prefix, its tensors as files hold them."""
    return {f"{prefix}.{name}": value.contiguous() for name, value in state.items()}


def under(prefix: str, state: Mapping[str, Tensor]) -> State:
    """Return the part of a state below a prefix."""
    head = f"{prefix}."
    return {k.removeprefix(head): v for k, v in state.items() if k.startswith(head)}
