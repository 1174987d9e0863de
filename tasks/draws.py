"""Samples drawn from a fitted model, shared out to workers where each takes long.

Such a sample is a part of its own, which no version names. Until it is collected, it serves
whoever asks for it again: a run that was killed, or another that wants more.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
import zarr
from safetensors.torch import save as save_tensors

from storage import Artifact, Store, open_store
from storage.arrays import create_array
from storage.checkpoints import Checkpoint
from storage.keys import derivation_key
from storage.parts import FIELDS, read_whole
from storage.shards import write_rows
from storage.typing import Array
from tasks.artifacts import on_cpu
from tasks.checkpoints import kept_tensors
from tasks.fit import load_model
from tasks.kinds import MODEL_KINDS, models
from tasks.progress import Reporter

TOGETHER = 16  # samples that descend together on a GPU, which fewer would not fill
SECONDS = 60.0  # between checkpoints of a sample
_SPEC = {"kind": "draws", "parameters": {}, "algorithm": 1}


def lacking(
    store: Store, artifact: Artifact, count: int, seed: int, device: str = "cpu"
) -> list[range]:
    """Return the groups of samples to be shared out: those that take long and are not stored."""
    if not _slow(artifact):
        return []
    groups = _groups(count, device)
    keys = [_key(artifact, seed, numbers) for numbers in groups]
    missing = set(store.missing_parts(keys))
    return [numbers for numbers, key in zip(groups, keys, strict=True) if key in missing]


def shared_out(
    url: str, artifact: Artifact, seed: int, device: str
) -> tuple[Callable[[range], None], dict[str, float] | None]:
    """Return what a worker does with a group of samples, and what of the worker that occupies."""
    work = partial(draw_part, url, artifact.kind, artifact.key, seed, device)
    return work, {"GPU": 1.0} if device == "cuda" else None


def draw_part(url: str, kind: str, key: str, seed: int, device: str, numbers: range) -> None:
    """Draw a group of samples and write it (runs on a worker)."""
    store = open_store(url)
    artifact = store.artifact_at(kind, key)

    place = store.part_checkpoint(_key(artifact, seed, numbers))

    def write(group: zarr.Group) -> dict[str, Any]:
        fields = sampled(artifact, seed, device, numbers, place)
        dims = ("sample", *("component", "y", "x")[-(fields.ndim - 1) :])
        array = create_array(group, FIELDS, len(fields), fields.shape[1:], str(fields.dtype), dims)
        write_rows(array, fields)
        return {"rows": len(fields)}

    threads = torch.get_num_threads()
    store.write_part(_SPEC, _inputs(artifact, seed, numbers), write, device=device, threads=threads)
    place.clear()


def drawn(store: Store, artifact: Artifact, count: int, seed: int, device: str = "cpu") -> Array:
    """Return ``count`` samples ``(n[, component], y, x)``; those not yet stored are drawn here."""
    if not _slow(artifact):
        return sampled(artifact, seed, device, range(count))
    for numbers in lacking(store, artifact, count, seed, device):
        draw_part(store.url, artifact.kind, artifact.key, seed, device, numbers)
    keys = [_key(artifact, seed, numbers) for numbers in _groups(count, device)]
    return np.concatenate([read_whole(store.url, key, FIELDS) for key in keys])


def sampled(
    artifact: Artifact, seed: int, device: str, numbers: range, place: Checkpoint | None = None
) -> Array:
    """Draw samples here, continuing from a checkpoint if there is a place for one."""
    few = f"{numbers[0] + 1}" if len(numbers) == 1 else f"{numbers[0] + 1} to {numbers[-1] + 1}"
    report = Reporter(f"{artifact.kind} sample {few}").values
    model, going_on = load_model(artifact, device), {}
    if place is not None and MODEL_KINDS[artifact.kind].resumes:
        state = kept_tensors(place) or {}
        going_on = {
            "checkpoint": lambda state: place.write(save_tensors(on_cpu(state))),
            "every": SECONDS,
            "resume": {name: value.to(device) for name, value in state.items()},
        }
    drawn = model.sample(len(numbers), seed, report, first=numbers[0], **going_on)
    return drawn.cpu().numpy()


def _slow(artifact: Artifact) -> bool:
    """Say whether its samples take long; artifacts without samples are refused on drawing."""
    return artifact.kind in models(lambda kind: kind.slow)


def _groups(count: int, device: str) -> list[range]:
    size = TOGETHER if device == "cuda" else 1
    return [range(first, min(first + size, count)) for first in range(0, count, size)]


def _inputs(artifact: Artifact, seed: int, numbers: range) -> list[Any]:
    return [artifact.kind, artifact.key, seed, numbers.start, numbers.stop]


def _key(artifact: Artifact, seed: int, numbers: range) -> str:
    return derivation_key(_SPEC, _inputs(artifact, seed, numbers))
