"""Fitting: a model learns from selected samples and becomes an artifact."""

from __future__ import annotations

import typing
from collections.abc import Mapping
from functools import partial

import numpy as np
import pandas as pd
import torch

from storage import Artifact, Dataset, InvalidRequest, Store
from storage.keys import derivation_key
from storage.typing import Array
from tasks import figures
from tasks.artifacts import Contents, npy, on_device, publish, read_npy, spec_of, stored, weights_of
from tasks.kinds import MODEL_KINDS
from tasks.models import MODELS, Model, model_class, model_spec
from tasks.progress import Reporter, caution
from tasks.requests import FitOutcome, FitRequest, rows_digest, spread
from wavemill.maxent import Energy
from wavemill.specs import EnergySpec, GaussianSpec, MicrocanonicalSpec
from wavemill.specs.base import MomentSet, Spec
from wavemill.spectra import flatness, skewness

ACCEPTED = (0.4, 0.8)  # rates of accepted moves that a chain which has arrived may have
DRIFT = 1.25  # deviations by which the energy of such a chain moves at most
_MASK = "--set borders=mask (of compare: {}:borders=mask)"


def fit(store: Store, dataset: str, request: FitRequest) -> FitOutcome:
    """Fit a model unless the same fit is stored.

    The key names the derivation: the spec, the exact rows learnt from, and the seed; so after a
    relabelling that selects the same rows nothing is fitted again.

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
    spec = model_spec(request.kind, request.parameters)
    _mind_borders(source, spec)
    key = derivation_key(spec.to_dict(), [dataset, rows_digest(rows), None, request.seed])
    outcome = stored(store, spec.kind, key) or _fit(store, source, request, spec, key, rows)
    mind_chain(outcome.short, outcome.metrics)
    share = outcome.metrics.get("gaussian_share", 0.0)
    if share > 0:
        caution(
            f"{share:.0%} of this energy is a Gaussian's, since that of its moments alone does not "
            "grow in every direction: use fewer moments, or fit to more fields"
        )
    return outcome


def mind_chain(name: str, metrics: Mapping[str, float]) -> None:
    """Warn if the chain by which a model drew its first sample, if it has one, has not arrived."""
    accepted, drift = metrics.get("acceptance", 0.574), metrics.get("drift", 0.0)
    if not (ACCEPTED[0] <= accepted <= ACCEPTED[1] and drift <= DRIFT):
        caution(
            f"the chain of {name} has not arrived: {accepted:.0%} of its moves are accepted (57 % "
            f"are aimed at), and its energy still moves by {drift:.2g} deviations: draw with more "
            "steps, --set steps=..."
        )


def _chain(model: Model) -> dict[str, float]:
    """Return how the chain of the sample just drawn went, for models that have one."""
    if not isinstance(model, Energy):
        return {}
    return {"acceptance": model.acceptance_[0], "step": model.steps_[0], "drift": model.drifts_[0]}


def _mind_borders(dataset: Dataset, spec: Spec) -> None:
    """Warn if fields with borders are taken to wrap around, and say what would respect borders."""
    if dataset.schema.periodic or getattr(spec, "borders", "wrap") == "mask":
        return
    one = len(dataset.schema.components) == 1
    if isinstance(spec, GaussianSpec):
        way = f"{_MASK.format(spec.kind)} fits the spectrum of fields tapered at their borders"
    elif isinstance(spec, MicrocanonicalSpec) and one and spec.set in typing.get_args(MomentSet):
        way = f"{_MASK.format(spec.kind)} leaves out what reaches over its borders"
    elif isinstance(spec, EnergySpec):
        way = (
            "energies take opposite borders to meet, and the jump there for fine scales; models "
            "gaussian and phase-harmonics have borders=mask"
        )
    else:
        return
    caution(f"{dataset.name} is not periodic: {way}; if it is, ingest it with --periodic")


def _fit(
    store: Store, dataset: Dataset, request: FitRequest, spec: Spec, key: str, rows: pd.DataFrame
) -> FitOutcome:
    data = dataset.read(rows)
    model: Model = model_class(spec.kind)(spec)
    model.fit(on_device(data, request.device), Reporter(f"fit {spec.kind}").values)
    report = Reporter(f"synthesize {spec.kind}").values
    drawn = model.sample(1, request.seed, report).cpu().numpy()
    contents = Contents(
        metrics={**model.metrics_, **_chain(model), **compare(data, drawn)},
        samples=list(rows["sample_id"]),
        weights=model.state(),
        files={"synthesis.npy": npy(drawn)},
        pictures=_pictures(spec.kind, data, drawn, dataset.schema.periodic),
    )
    return publish(store, dataset, key, spec, request, contents)


def drawn_at_fit(artifact: Artifact) -> Array:
    """Return the sample ``(1[, component], y, x)`` that was drawn when the model was fitted."""
    return read_npy(artifact, "synthesis.npy")


def compare(data: Array, drawn: Array) -> dict[str, float]:
    """Return one-point statistics of the data and of a synthesis, side by side."""
    metrics = {}
    for name, fields in (("data", data), ("synthesis", drawn)):
        x = torch.from_numpy(np.asarray(fields, dtype="float64"))
        metrics[f"{name}_std"] = float(x.std((-2, -1)).mean())
        metrics[f"{name}_skewness"] = float(skewness(x).mean())
        metrics[f"{name}_flatness"] = float(flatness(x).mean())
    return metrics


def _pictures(kind: str, data: Array, drawn: Array, periodic: bool) -> dict[str, bytes]:
    """Return the reference beside the synthesis, their spectra and distributions."""
    real, made = figures.first_component(data), figures.first_component(drawn)
    groups = {"data": real[spread(len(real), 64)], kind: made}
    return {
        "synthesis": figures.fields({"data": real[0], kind: made[0]}, columns=2),
        "spectrum": figures.spectra(groups, periodic),
        "pdf": figures.distributions(groups),
    }


def load_model(artifact: Artifact, device: str = "cpu") -> Model:
    """Return the fitted model that an artifact holds, to draw on a device.

    Raises
    ------
    InvalidRequest
        If it holds something else, or an older algorithm's.
    """
    kind = artifact.kind
    if kind not in MODELS:
        way = f"name one of {', '.join(MODELS)}"
        if kind in MODEL_KINDS:
            hint = MODEL_KINDS[kind].hint.format(artifact.short, artifact.manifest["dataset"])
            way += f", or ask it otherwise: wavemill {hint}"
        raise InvalidRequest(f"{artifact.short} is not a model of fields: {way}")
    spec = spec_of(artifact, partial(model_spec, kind))
    model: Model = model_class(kind).from_state(spec, weights_of(artifact, device))
    return model
