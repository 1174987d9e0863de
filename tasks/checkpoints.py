"""Checkpoints of tensors; those of a fit in epochs also have a history.

Each is one object, replaced as a whole: what is killed at any instant continues from the last one.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from storage import Store
from storage.checkpoints import Checkpoint
from storage.errors import Damaged
from tasks.progress import caution

_HISTORY = "history.json"
Row = dict[str, float]


def kept_tensors(place: Checkpoint) -> dict[str, Tensor] | None:
    """Return the tensors of a checkpoint, None if there is none that can be used."""
    try:
        data = place.read()
        return None if data is None else load_tensors(data)
    except (Damaged, SafetensorError) as error:
        caution(f"the checkpoint is damaged, so this starts from the beginning: {error}")
        return None


@dataclass
class EpochState:
    """The state after an epoch: tensors by name, and what was measured at each epoch so far."""

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
        state = kept_tensors(self.place)
        if state is None:
            return None
        history = json.loads(bytes(state.pop(_HISTORY).tolist()).decode())
        return EpochState(state, history)

    def clear(self) -> None:
        """Remove it: the artifact is published."""
        self.place.clear()
