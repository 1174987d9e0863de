"""Dictionaries: learnt from features without labels, whose atoms rebuild them, as an artifact."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from storage import FeatureFrame, InvalidRequest, Store
from storage.keys import derivation_key
from storage.typing import Array
from tasks import classifier_figures as figures
from tasks.artifacts import Contents, publish, stored
from tasks.classifier_data import maps_shape
from tasks.classifier_report import first_order
from tasks.feature_batches import READ
from tasks.live_features import features
from tasks.progress import Reporter
from tasks.requests import FitOutcome, FitRequest, rows_digest, spread
from wavemill.dictionaries.classifiers import Standardisation
from wavemill.dictionaries.dictionary import DictionaryLearning, fista
from wavemill.specs import DictionarySpec
from wavemill.states import over

KIND = "dictionary"
LOOKED_AT = 4096  # positions that are measured and drawn
PATH = (8.0, 4.0, 2.0, 1.4, 1.0)  # penalties drawn, in units of the spec's


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
        """Return how well signals are rebuilt, and by how many atoms."""
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
    inputs = [dataset, rows_digest(frame.samples), frame.version.spec, None, request.seed]
    key = derivation_key(spec.to_dict(), inputs)
    found = stored(store, KIND, key)
    return found or _publish(store, key, frame, request, spec, _learn(frame, request, spec))


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
    """Return unit vectors of positions chosen at random, equally many from each sample."""
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
    return torch.from_numpy(x).reshape(-1, *maps_shape(x.shape[1:]))


def _publish(
    store: Store,
    key: str,
    frame: FeatureFrame,
    request: FitRequest,
    spec: DictionarySpec,
    learnt: Learnt,
) -> FitOutcome:
    standard = learnt.standardisation.state()
    contents = Contents(
        metrics=learnt.metrics(),
        samples=list(frame.samples["sample_id"]),
        weights={"atoms": learnt.atoms, **over("standardisation", standard)},
        pictures=_pictures(frame, learnt),
        said={"view": frame.view, "view_spec": frame.version.spec},
    )
    return publish(store, store.dataset(frame.dataset), key, spec, request, contents)


def _pictures(frame: FeatureFrame, learnt: Learnt) -> dict[str, bytes]:
    uses = (learnt.codes[-1] != 0).double().mean(0).numpy()
    sizes = np.array([float((z != 0).sum(1).double().mean()) for z in learnt.codes])
    atoms = first_order(learnt.atoms, learnt.standardisation, frame.coefficients)
    return {
        "atoms": figures.atoms(atoms, uses),
        "supports": figures.supports(np.array(learnt.penalties), sizes, uses),
    }
