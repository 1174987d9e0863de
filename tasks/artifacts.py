"""Artifacts: what every fit does before it computes, and how what it made is published."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from storage import Artifact, Dataset, InvalidRequest, NotFound, Store
from storage.documents import Document
from storage.typing import Array
from tasks.requests import FitOutcome
from wavemill.specs.base import Spec

SomeSpec = TypeVar("SomeSpec", bound=Spec)


class Request(Protocol):
    """What was asked for, as far as manifests record it."""

    @property
    def selection(self) -> str | None:
        """A DuckDB expression over sample metadata."""

    @property
    def seed(self) -> int:
        """The seed of everything random."""

    @property
    def device(self) -> str:
        """Where it is computed; not part of the key."""


@dataclass(frozen=True)
class Contents:
    """What a fit made.

    Attributes
    ----------
    metrics
        What ``metrics.json`` holds; numbers that are not finite are left out.
    samples
        Ids of the samples learnt from, or judged by.
    weights
        Tensors of ``weights.safetensors``; no such file if there are none.
    files
        Other files by name, and pictures by names without their folder and ending.
    said
        What the manifest says in addition to what every manifest says.
    """

    metrics: Mapping[str, Any]
    samples: list[str]
    weights: Mapping[str, torch.Tensor] = field(default_factory=dict)
    files: Mapping[str, bytes] = field(default_factory=dict)
    pictures: Mapping[str, bytes] = field(default_factory=dict)
    said: Document = field(default_factory=dict)


def stored(store: Store, kind: str, key: str) -> FitOutcome | None:
    """Return the outcome of a fit that is stored already."""
    try:
        artifact = store.artifact_at(kind, key)
    except NotFound:
        return None
    return FitOutcome(kind, key, False, json.loads(artifact.read("metrics.json")))


def publish(
    store: Store, dataset: Dataset, key: str, spec: Spec, request: Request, contents: Contents
) -> FitOutcome:
    """Publish what a fit made; if another fit has published the same already, return that one."""
    metrics = _defined(contents.metrics)
    with store.attempt_artifact(spec.kind, key) as attempt:
        if contents.weights:
            attempt.write("weights.safetensors", save_tensors(on_cpu(contents.weights)))
        attempt.write("metrics.json", json.dumps(metrics, indent=1, allow_nan=False).encode())
        attempt.write("samples.json", json.dumps(contents.samples).encode())
        for name, data in contents.files.items():
            attempt.write(name, data)
        for name, picture in contents.pictures.items():
            attempt.write(f"figures/{name}.png", picture)
        manifest, written = attempt.publish(
            {
                "key": key,
                "kind": spec.kind,
                "spec": spec.to_dict(),
                "dataset": dataset.name,
                "dataset_version": dataset.version.version,
                "samples": len(contents.samples),
                "selection": request.selection,
                "seed": request.seed,
                "schema": dataset.schema.to_json(),
                "provenance": {"device": request.device, "threads": torch.get_num_threads()},
                **contents.said,
            }
        )
    return FitOutcome(spec.kind, str(manifest["key"]), written, metrics)


def _defined(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out what is undefined, such as the skewness of constants: JSON has no such numbers."""
    return {
        name: _defined(value) if isinstance(value, Mapping) else value
        for name, value in metrics.items()
        if not isinstance(value, float) or math.isfinite(value)
    }


def spec_of(artifact: Artifact, made: Callable[[Document], SomeSpec]) -> SomeSpec:
    """Return the spec that an artifact was fitted with, made from its parameters.

    Raises
    ------
    InvalidRequest
        If it is of another algorithm.
    """
    spec = artifact.manifest["spec"]
    typed = made(spec["parameters"])
    if (now := typed.to_dict()) != spec:
        raise InvalidRequest(
            f"{artifact.short} was fitted by algorithm {spec['algorithm']}; "
            f"this is {now['algorithm']}: fit it again"
        )
    return typed


def weights_of(artifact: Artifact, device: str) -> dict[str, torch.Tensor]:
    """Return what an artifact has learnt, on a device."""
    held = load_tensors(artifact.read("weights.safetensors"))
    return {name: value.to(usable(device)) for name, value in held.items()}


def usable(device: str) -> str:
    """Return the device, or say that there is none.

    Raises
    ------
    InvalidRequest
        If there is no such device here.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise InvalidRequest("no GPU is visible to torch here: use --device cpu")
    return device


def on_device(values: Array, device: str) -> torch.Tensor:
    """Return an array as a tensor on the device that computes with it.

    Raises
    ------
    InvalidRequest
        If there is no such device here.
    """
    return torch.from_numpy(values).to(usable(device))


def on_cpu(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return tensors as they are to be saved."""
    return {name: value.cpu().contiguous() for name, value in state.items()}


def npy(values: Array) -> bytes:
    """Return an array as the bytes of a ``.npy`` file."""
    buffer = io.BytesIO()
    np.save(buffer, values, allow_pickle=False)
    return buffer.getvalue()


def read_npy(artifact: Artifact, path: str) -> Array:
    """Return the array that a file of an artifact holds."""
    held: Array = np.load(io.BytesIO(artifact.read(path)), allow_pickle=False)
    return held
