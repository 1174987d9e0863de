"""Fitting: a model learns from selected samples and becomes an artifact."""

from __future__ import annotations

import hashlib
import io
import json
import typing
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from storage import Artifact, Dataset, InvalidRequest, NotFound, Store
from storage.documents import Document
from storage.keys import canonical, derivation_key, digest
from tasks import figures
from tasks.models import Model, model_class, model_spec
from tasks.progress import Reporter, caution
from wavemill.specs import MicrocanonicalSpec
from wavemill.specs.base import MomentSet, Spec
from wavemill.spectra import flatness, skewness

SHOWN = 4
Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class FitRequest:
    """What is to be fitted: a model, and the samples it learns from.

    Attributes
    ----------
    kind, parameters
        The model and the fields of its spec.
    where, split
        A DuckDB expression over sample metadata, and ``COLUMN=VALUE``; both select.
    seed
        Of everything random.
    device
        Where it is computed; not part of the key.
    view, target
        The features and the column that a regression learns.
    """

    kind: str
    parameters: dict[str, Any] = field(default_factory=dict)
    where: str | None = None
    split: str | None = None
    seed: int = 0
    device: str = "cpu"
    view: str | None = None
    target: str | None = None

    @property
    def selection(self) -> str | None:
        """Both conditions as one expression."""
        conditions = [f"({self.where})"] if self.where else []
        if self.split:
            column, separator, value = self.split.partition("=")
            if not separator:
                raise InvalidRequest(
                    f"--split {self.split!r}: write COLUMN=VALUE, as in split=train"
                )
            name, text = column.replace('"', '""'), value.replace("'", "''")
            conditions.append(f"CAST(\"{name}\" AS VARCHAR) = '{text}'")
        return " AND ".join(conditions) or None


def check_split(dataset: Dataset, split: str | None) -> None:
    """Refuse a ``--split`` of a column that samples do not have.

    Raises
    ------
    InvalidRequest
        If there is none.
    """
    column = (split or "").partition("=")[0]
    if split is not None and column not in (rows := dataset.samples()):
        columns = ", ".join(map(str, rows))
        raise InvalidRequest(f"--split {split!r}: no column {column!r}; columns: {columns}")


@dataclass(frozen=True)
class FitOutcome:
    """The artifact that a request names, and whether it was computed now."""

    kind: str
    key: str
    written: bool
    metrics: dict[str, float]


def fit(store: Store, dataset: str, request: FitRequest) -> FitOutcome:
    """Fit a model unless the same fit is stored.

    The key names the derivation: the spec, the very rows learnt from, and the seed; so a
    relabelling that selects the same rows fits nothing anew.

    Raises
    ------
    InvalidRequest
        If no sample is selected.
    """
    source = store.dataset(dataset)
    rows = source.samples(request.selection)
    if not len(rows):
        raise InvalidRequest(
            f"no sample of {dataset!r} is selected: see `wavemill query {dataset}`"
        )
    typed = model_spec(request.kind, request.parameters)
    spec = typed.to_dict()
    _mind_borders(source, typed)
    selected = digest(
        canonical([[p, int(r)] for p, r in zip(rows["part"], rows["row"], strict=True)])
    )
    key = derivation_key(spec, [dataset, selected, None, request.seed])
    try:
        artifact = store.artifact_at(request.kind, key)
        outcome = FitOutcome(request.kind, key, False, json.loads(artifact.read("metrics.json")))
    except NotFound:
        outcome = _fit(store, source, request, spec, key, rows)
    share = outcome.metrics.get("gaussian_share", 0.0)
    if share > 0:
        caution(
            f"{share:.0%} of this energy is a Gaussian's: that of its moments alone does not grow "
            "in every direction; hold fewer moments, or fit to more fields"
        )
    return outcome


def _mind_borders(dataset: Dataset, spec: Spec) -> None:
    """Say so if fields with borders are taken to wrap around where a mask would leave these out."""
    if (
        isinstance(spec, MicrocanonicalSpec)
        and spec.borders == "wrap"
        and spec.set in typing.get_args(MomentSet)
        and not dataset.schema.periodic
        and len(dataset.schema.components) == 1
    ):
        caution(
            f"{dataset.name} is not periodic: --set borders=mask leaves out what reaches over its "
            "borders; if it is, ingest it with --periodic"
        )


def _fit(
    store: Store,
    dataset: Dataset,
    request: FitRequest,
    spec: Document,
    key: str,
    rows: pd.DataFrame,
) -> FitOutcome:
    data = dataset.to_xarray(request.selection).values
    model: Model = model_class(request.kind)(model_spec(request.kind, request.parameters))
    model.fit(on_device(data, request.device), Reporter(f"fit {request.kind}").values)
    report = Reporter(f"synthesize {request.kind}").values
    drawn = model.sample(1, request.seed, report).cpu().numpy()
    metrics = {**model.metrics_, **compare(data, drawn)}
    with store.attempt_artifact(request.kind, key) as attempt:
        attempt.write("weights.safetensors", save_tensors(on_cpu(model.state())))
        attempt.write("metrics.json", json.dumps(metrics, indent=1, sort_keys=True).encode())
        attempt.write("samples.json", json.dumps(list(rows["sample_id"])).encode())
        attempt.write("synthesis.npy", npy(drawn))
        for name, picture in _pictures(request.kind, data, drawn).items():
            attempt.write(f"figures/{name}.png", picture)
        manifest, written = attempt.publish(
            {
                "key": key,
                "kind": request.kind,
                "spec": spec,
                "dataset": dataset.name,
                "dataset_version": dataset.version.version,
                "samples": len(rows),
                "selection": request.selection,
                "seed": request.seed,
                "schema": dataset.schema.to_json(),
                "provenance": {"device": request.device, "threads": torch.get_num_threads()},
            }
        )
    return FitOutcome(request.kind, str(manifest["key"]), written, metrics)


def by_hash(rows: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Return rows in the order of a hash of seed and id: whatever the order of the source."""
    marks = [hashlib.sha256(f"{seed}:{i}".encode()).hexdigest() for i in rows["sample_id"]]
    rows = rows.assign(__mark=marks).sort_values("__mark").drop(columns="__mark")
    return rows.reset_index(drop=True)


def spread(count: int, most: int) -> Array:
    """Return at most so many positions below ``count``, evenly spaced.

    The first samples are often alike: of one class, or of one moment of a run.
    """
    return np.linspace(0, count - 1, min(count, most)).astype(int)


def on_device(fields: Array, device: str) -> torch.Tensor:
    """Return fields as a tensor where they are to be computed with.

    Raises
    ------
    InvalidRequest
        If there is no such device here.
    """
    return torch.from_numpy(fields).to(usable(device))


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


def loaded(artifact: Artifact, device: str = "cpu") -> dict[str, torch.Tensor]:
    """Return what an artifact has learnt, on a device."""
    held = load_tensors(artifact.read("weights.safetensors"))
    return {name: value.to(usable(device)) for name, value in held.items()}


def on_cpu(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return tensors as they are to be saved."""
    return {name: value.cpu().contiguous() for name, value in state.items()}


def npy(fields: Array) -> bytes:
    """Return an array as the bytes of a ``.npy`` file."""
    buffer = io.BytesIO()
    np.save(buffer, fields, allow_pickle=False)
    return buffer.getvalue()


def drawn_at_fit(artifact: Artifact) -> Array:
    """Return the sample ``(1[, component], y, x)`` that was drawn when the model was fitted."""
    drawn: Array = np.load(io.BytesIO(artifact.read("synthesis.npy")), allow_pickle=False)
    return drawn


def compare(data: Array, drawn: Array) -> dict[str, float]:
    """Return one-point statistics of the data and of a synthesis, side by side."""
    metrics = {}
    for name, fields in (("data", data), ("synthesis", drawn)):
        x = torch.from_numpy(np.asarray(fields, dtype="float64"))
        metrics[f"{name}_std"] = float(x.std((-2, -1)).mean())
        metrics[f"{name}_skewness"] = float(skewness(x).mean())
        metrics[f"{name}_flatness"] = float(flatness(x).mean())
    return metrics


def _pictures(kind: str, data: Array, drawn: Array) -> dict[str, bytes]:
    """Return the reference beside the synthesis, their spectra and distributions."""
    real, made = first_component(data), first_component(drawn)
    groups = {"data": real[spread(len(real), 64)], kind: made}
    return {
        "synthesis": figures.fields({"data": real[0], kind: made[0]}, columns=2),
        "spectrum": figures.spectra(groups),
        "pdf": figures.distributions(groups),
    }


def first_component(fields: Array) -> Array:
    """Return ``(n, y, x)`` of fields that may have a component axis."""
    return fields if fields.ndim == 3 else fields[:, 0]


def load_model(artifact: Artifact, device: str = "cpu") -> Model:
    """Return the fitted model that an artifact holds, to draw on a device."""
    kind, spec = artifact.kind, artifact.manifest["spec"]
    typed = model_spec(kind, spec["parameters"])
    if typed.to_dict() != spec:
        raise InvalidRequest(
            f"{kind}/{artifact.key[:12]} was fitted by algorithm {spec['algorithm']}; this is "
            f"{typed.algorithm}: fit it again"
        )
    model: Model = model_class(kind).from_state(typed, loaded(artifact, device))
    return model


def shown(dataset: Dataset, count: int = SHOWN) -> dict[str, Array]:
    """Return a few samples of a dataset, by id, for a picture."""
    fields = dataset.to_xarray()
    fields = fields[spread(len(fields), count)]
    return dict(zip(fields["sample_id"].values, first_component(fields.values), strict=True))
