"""Checkpoints of a fit: one object an epoch beside where its artifact will be.

An object is written whole or not at all, so that a fit killed at any instant goes on from the last
whole epoch. They lie within the artifact's home: what a fit that never ended leaves is collected
with other lost attempts.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field

import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from storage.backends import Backend
from storage.store import artifact_home

_HISTORY = "history.json"
KEPT = 2
Row = dict[str, float]


@dataclass
class Checkpoint:
    """What an epoch left: tensors by name, and what was measured at each epoch so far."""

    state: dict[str, Tensor]
    history: list[Row] = field(default_factory=list)


class Checkpoints:
    """The checkpoints of the fit that will be ``artifacts/<kind>/<key>``."""

    def __init__(self, backend: Backend, kind: str, key: str) -> None:
        self.backend = backend
        self.folder = f"{artifact_home(kind, key)}/checkpoints"

    def _paths(self) -> list[str]:
        return sorted(entry.path for entry in self.backend.walk(self.folder))

    def save(self, checkpoint: Checkpoint) -> None:
        """Write a checkpoint, named by its epoch; older ones but one go."""
        text = torch.frombuffer(
            bytearray(json.dumps(checkpoint.history).encode()), dtype=torch.uint8
        )
        data = save_tensors({**checkpoint.state, _HISTORY: text})
        self.backend.write(f"{self.folder}/{len(checkpoint.history):06d}.safetensors", data)
        self.backend.delete(self._paths()[:-KEPT])

    def latest(self) -> Checkpoint | None:
        """Return the newest checkpoint, None if there is none."""
        paths = self._paths()
        if not paths:
            return None
        state = load_tensors(self.backend.read(paths[-1]))
        history = json.loads(bytes(state.pop(_HISTORY).tolist()).decode())
        return Checkpoint(state, history)

    def clear(self) -> None:
        """Remove all: the artifact is published."""
        self.backend.delete(self._paths())
