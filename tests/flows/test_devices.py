"""What flows compute on a device comes back from it, and can be stored.

The device is an emulated one (tests/elsewhere.py); tasks run in this process, where it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from flows import features, ingest
from storage import Store, open_store
from storage.records import PartRef
from tasks import classifier, dictionary, draws, evaluate, fit, generation, regression
from tasks.features import compute_part
from tasks.fields import FieldOptions
from tasks.images import ImageOptions
from tasks.molecules import MoleculeOptions
from tasks.prediction import classes
from tasks.views import Operator, view_spec
from tests.elsewhere import DEVICE, Accelerator

ORGANIC = "n_atoms > 1 AND regexp_full_match(formula, '([CHNOF][0-9]*)+')"
ATOMIC = {"J": 2, "L": 1, "across": 1}
FEW = "label IN ('0', '1', '2')"
PHASES = {"J": 1, "nonlinearity": "rectifier"}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Fields, molecules and images, with the views that fits take."""
    url = str(tmp_path_factory.mktemp("devices") / "store")
    ingest("flow", ["simulate:n=5,N=32,t=0.5"], url, FieldOptions(), "threads")
    ingest("g2", ["ase:g2"], url, MoleculeOptions(), "threads")
    ingest("digits", ["sklearn:digits"], url, ImageOptions(), "threads")
    features("g2", "atomic-harmonics", url, None, ATOMIC, "threads")
    features("digits", "scattering", url, None, PHASES, "threads")
    return open_store(url, writable=True)


@pytest.fixture(autouse=True)
def accelerator(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Provide the device; its tensors cannot be made in inference mode."""
    for name in ("__call__", "of_molecules"):
        plain = getattr(Operator, name).__wrapped__
        monkeypatch.setattr(Operator, name, torch.no_grad()(plain))
    with Accelerator():
        yield


def request(kind: str, parameters: dict[str, Any], **more: Any) -> fit.FitRequest:
    return fit.FitRequest(kind, parameters, device=DEVICE, **more)


@pytest.mark.parametrize(
    ("dataset", "view", "parameters"),
    [
        ("flow", "spectrum", {}),
        ("flow", "scattering", {"J": 2}),
        ("flow", "phase-harmonics", {"J": 2}),
        ("digits", "scattering", {**PHASES, "J": 2}),
    ],
)
def test_views(store: Store, dataset: str, view: str, parameters: dict[str, Any]) -> None:
    source = store.dataset(dataset)
    spec = view_spec(view, parameters, source)
    (part,) = source.version.parts
    assert isinstance(part, PartRef)
    assert compute_part(store.url, spec, source.schema, DEVICE, part).dataset_part == part.key


def test_models_their_samples_and_judgements(store: Store) -> None:
    first = store.dataset("flow").samples()["sample_id"].iloc[0]
    small = {"J": 2, "iterations": 3}
    made = fit.fit(store, "flow", request("phase-harmonics", small, where=f"sample_id = '{first}'"))
    model = store.artifact(made.key)
    drawn = draws.drawn(store, model, 2, 0, DEVICE)
    assert drawn.shape == (2, 32, 32)
    np.testing.assert_allclose(drawn, draws.drawn(store, model, 2, 0), atol=1e-2)
    asked = evaluate.EvaluationRequest(made.key, {"samples": 2, "J": 2}, device=DEVICE)
    assert evaluate.evaluate(store, "flow", asked).table["model"]["eps"] > 0


def test_generators(store: Store) -> None:
    spec = {"J": 2, "dimension": 12, "epochs": 1, "atoms": 8, "coarse": 2, "crop": 16, "batch": 8}
    made = generation.fit(store, "flow", request("generator", spec))
    for source in generation.SOURCES:
        asked = generation.GenerateRequest(made.key, source, 2, device=DEVICE)
        assert np.isfinite(generation.make(store, asked)).all()


@pytest.mark.parametrize("model", ["multilinear", "kernel", "products"])
def test_regressions(store: Store, model: str) -> None:
    spec = {"model": model, "test": 0.25, "products": 20, "landmarks": 40, "epochs": 2}
    asked = request(
        "regression", spec, view="atomic-harmonics", target="formation_enthalpy", where=ORGANIC
    )
    made = regression.fit(store, "g2", asked)
    assert made.written
    artifact = store.artifact(made.key)
    there, here = (
        regression.predicted(store, artifact, "g2", device)["formation_enthalpy"]
        for device in (DEVICE, "cpu")
    )
    np.testing.assert_allclose(there, here, rtol=1e-4, atol=1e-2)


@pytest.mark.filterwarnings("ignore:.*is a no-op")  # it would be on the real "meta"
@pytest.mark.parametrize(
    "network", [{"model": "istc-mlp"}, {"model": "linear", "blocks": [12, 16]}]
)
def test_classifiers(store: Store, network: dict[str, Any]) -> None:
    spec = {"components": 12, "channels": 12, "atoms": 24, "epochs": 1, "pool": 1}
    asked = request("classifier", {**spec, **network}, view="scattering", target="label", where=FEW)
    made = classifier.fit(store, "digits", asked)
    assert made.metrics["top1"] > 0.1
    there, here = (classes(store, store.artifact(made.key), "digits", d) for d in (DEVICE, "cpu"))
    assert (there["predicted"] == here["predicted"]).mean() > 0.999
    np.testing.assert_allclose(there["score"], here["score"], atol=1e-3)


def test_dictionaries(store: Store) -> None:
    codes = request("dictionary", {"atoms": 24, "components": 12}, view="scattering", where=FEW)
    assert dictionary.fit(store, "digits", codes).written
