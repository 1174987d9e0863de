"""Dictionaries: features without labels, and the atoms that rebuild them, become an artifact."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch
from safetensors.torch import save as save_tensors
from torch import Tensor
from torch.nn.functional import normalize

from storage import FeatureFrame, InvalidRequest, NotFound, Store
from storage.keys import canonical, derivation_key, digest
from tasks import classifier_figures as figures
from tasks.classifier_report import first_order
from tasks.feature_batches import READ, above
from tasks.fit import FitOutcome, FitRequest, spread
from tasks.live_features import features
from tasks.progress import Reporter
from wavemill.dictionaries.classifiers import Standardisation
from wavemill.dictionaries.dictionary import DictionaryLearning, fista
from wavemill.specs import DictionarySpec

KIND = "dictionary"
LOOKED_AT = 4096  # positions that are measured and drawn
PATH = (8.0, 4.0, 2.0, 1.4, 1.0)  # penalties drawn, in units of the spec's
Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Learnt:
    """A dictionary, and codes of some of its own signals.

    Attributes
    ----------
    atoms
        D, ``(component, atom)``.
    penalties, codes
        Falling penalties, the last being the spec's, and the codes at each.
    signals
        Unit vectors ``(position, component)``.
    """

    atoms: Tensor
    standardisation: Standardisation
    penalties: list[float]
    signals: Tensor
    codes: list[Tensor]

    def metrics(self) -> dict[str, float]:
        """Return how well signals are rebuilt, by how many atoms."""
        error = (self.signals - self.codes[-1] @ self.atoms.T).square().sum(1)
        active = self.codes[-1] != 0
        return {
            "relative_error": float(error.mean() / self.signals.square().sum(1).mean()),
            "atoms_a_position": float(active.sum(1).double().mean()),
            "atoms_used": float(active.any(0).double().mean()),
        }


def fit(store: Store, dataset: str, request: FitRequest) -> FitOutcome:
    """Learn a dictionary of the channels of a view, unless the same fit is stored.

    Raises
    ------
    InvalidRequest
        If the view is missing, or no sample is selected.
    """
    if request.view is None:
        raise InvalidRequest("a dictionary needs --view: see `wavemill show DATASET`")
    spec = DictionarySpec.from_parameters(request.parameters)
    frame = features(store, dataset, request.view, request.selection, request.device)
    if not len(frame):
        raise InvalidRequest(f"no sample of {dataset!r} with {request.view!r} is selected")
    rows = frame.samples
    places = [[p, int(r)] for p, r in zip(rows["part"], rows["row"], strict=True)]
    inputs = [dataset, digest(canonical(places)), frame.version.spec, None, request.seed]
    key = derivation_key(spec.to_dict(), inputs)
    try:
        artifact = store.artifact_at(KIND, key)
        return FitOutcome(KIND, key, False, json.loads(artifact.read("metrics.json")))
    except NotFound:
        return _publish(store, key, frame, request, spec, _learn(frame, request, spec))


def _learn(frame: FeatureFrame, request: FitRequest, spec: DictionarySpec) -> Learnt:
    standardisation = Standardisation(spec.components)
    for _, x in frame.batches(READ):
        standardisation.update(_maps(x))
    signals = _signals(frame, standardisation.solve(), spec.positions, request.seed)
    coder = partial(fista, iterations=spec.iterations, positive=True)
    model = DictionaryLearning(
        spec.atoms, partial(coder, penalty=spec.penalty), epochs=spec.epochs, seed=request.seed
    ).fit(signals, Reporter("fit dictionary").values)
    some = signals[spread(len(signals), LOOKED_AT)]
    penalties = [spec.penalty * factor for factor in PATH]
    codes = [coder(some, model.atoms_, penalty) for penalty in penalties]
    return Learnt(model.atoms_, standardisation, penalties, some, codes)


def _signals(frame: FeatureFrame, standardisation: Standardisation, most: int, seed: int) -> Tensor:
    """Return unit vectors of positions chosen at random, as many of each sample."""
    generator = torch.Generator().manual_seed(seed)
    share = -(-most // len(frame))
    found = []
    for _, x in frame.batches(READ):
        positions = standardisation(_maps(x)).flatten(2).movedim(1, -1)
        chosen = torch.rand(positions.shape[:2], generator=generator).argsort(1)[:, :share]
        picked = torch.take_along_dim(positions, chosen[..., None], 1)
        found.append(normalize(picked.flatten(0, 1), dim=1))
    signals = torch.cat(found)
    return signals[torch.randperm(len(signals), generator=generator)[:most]]


def _maps(x: Array) -> Tensor:
    return torch.from_numpy(x).reshape(*x.shape[:2], *(x.shape[2:] or (1, 1)))


def _publish(
    store: Store,
    key: str,
    frame: FeatureFrame,
    request: FitRequest,
    spec: DictionarySpec,
    learnt: Learnt,
) -> FitOutcome:
    metrics, standard = learnt.metrics(), learnt.standardisation
    tensors = {"atoms": learnt.atoms.contiguous(), **above("standardisation.", standard.state())}
    with store.attempt_artifact(KIND, key) as attempt:
        attempt.write("weights.safetensors", save_tensors(tensors))
        attempt.write("metrics.json", json.dumps(metrics, indent=1, sort_keys=True).encode())
        attempt.write("samples.json", json.dumps(list(frame.samples["sample_id"])).encode())
        for name, picture in _pictures(frame, learnt).items():
            attempt.write(f"figures/{name}.png", picture)
        source = store.dataset(frame.dataset)
        manifest, written = attempt.publish(
            {
                "key": key,
                "kind": KIND,
                "spec": spec.to_dict(),
                "dataset": frame.dataset,
                "dataset_version": source.version.version,
                "view": frame.view,
                "view_spec": frame.version.spec,
                "samples": len(frame),
                "selection": request.selection,
                "seed": request.seed,
                "schema": source.schema.to_json(),
                "provenance": {"device": "cpu", "threads": torch.get_num_threads()},
            }
        )
    return FitOutcome(KIND, str(manifest["key"]), written, metrics)


def _pictures(frame: FeatureFrame, learnt: Learnt) -> dict[str, bytes]:
    uses = (learnt.codes[-1] != 0).double().mean(0).numpy()
    sizes = np.array([float((z != 0).sum(1).double().mean()) for z in learnt.codes])
    atoms: Tensor = learnt.atoms
    if learnt.standardisation.components:
        atoms = learnt.standardisation.axes_ @ atoms
    table: pd.DataFrame = frame.coefficients
    return {
        "atoms": figures.atoms(first_order(atoms, table), uses),
        "supports": figures.supports(np.array(learnt.penalties), sizes, uses),
    }
