"""Checkpoints of a fit by epochs: tensors and a history, as one object that is replaced whole.

A fit killed at any instant goes on from the last whole epoch.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field

import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from storage import Store

_HISTORY = "history.json"
Row = dict[str, float]


@dataclass
class EpochState:
    """What an epoch left: tensors by name, and what was measured at each epoch so far."""

    state: dict[str, Tensor]
    history: list[Row] = field(default_factory=list)


class EpochCheckpoints:
    """The last checkpoint of the fit that will be ``artifacts/<kind>/<key>``."""

    def __init__(self, store: Store, kind: str, key: str) -> None:
        self.place = store.checkpoint(kind, key)

    def save(self, checkpoint: EpochState) -> None:
        """Replace the checkpoint."""
        text = torch.frombuffer(
            bytearray(json.dumps(checkpoint.history).encode()), dtype=torch.uint8
        )
        self.place.write(save_tensors({**checkpoint.state, _HISTORY: text}))

    def latest(self) -> EpochState | None:
        """Return the checkpoint, None if there is none."""
        data = self.place.read()
        if data is None:
            return None
        state = load_tensors(data)
        history = json.loads(bytes(state.pop(_HISTORY).tolist()).decode())
        return EpochState(state, history)

    def clear(self) -> None:
        """Remove it: the artifact is published."""
        self.place.clear()
