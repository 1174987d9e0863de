"""Keys and small outputs of every spec, frozen: a number changes with a higher ``algorithm`` only.

``WAVEMILL_FREEZE=1 pytest tests/tasks/test_frozen.py`` adds what is new to ``frozen.json``. It
never changes an entry: a changed default or number needs a new ``algorithm`` and its own entry.
"""

from __future__ import annotations

import dataclasses
import json
import os
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from storage import Schema
from storage.keys import derivation_key
from tasks.kinds import LAYOUTS
from tasks.models import MODELS
from tasks.views import VIEWS
from wavemill.dictionaries.classifiers import Network
from wavemill.dictionaries.dictionary import DictionaryLearning, fista
from wavemill.generation import Generator
from wavemill.molecules.atoms import Molecules
from wavemill.simulate import simulate
from wavemill.specs import ClassifierSpec, DictionarySpec, GeneratorSpec, SimulationSpec, Spec

FROZEN = Path(__file__).with_name("frozen.json")
SCHEMA = Schema("field", ("field",), (16, 16), dtype="float64")
SMALL: dict[str, dict[str, Any]] = {
    "view spectrum": {"dtype": "float64"},
    "view scattering": {"J": 2, "L": 3, "dtype": "float64"},
    "view scattering rectifier": {
        "J": 1,
        "L": 2,
        "nonlinearity": "rectifier",
        "padding": "periodic",
        "dtype": "float64",
    },
    "view scattering fully-rectified": {
        "J": 2,
        "L": 2,
        "nonlinearity": "fully-rectified",
        "A": 3,
        "dtype": "float64",
    },
    "view scattering fields": {"J": 2, "L": 2, "average": False, "dtype": "float64"},
    "view phase-harmonics": {"J": 2, "L": 2, "dtype": "float64"},
    "view phase-harmonics pywph": {"J": 2, "L": 2, "set": "pywph", "dtype": "float64"},
    "view phase-harmonics C+L": {"J": 2, "L": 2, "set": "C+L", "dtype": "float64"},
    "view phase-harmonics C+moduli": {"J": 3, "L": 2, "set": "C+moduli", "dtype": "float64"},
    "view atomic-harmonics": {"elements": [1, 6, 8], "J": 2, "L": 2, "dtype": "float64"},
    "view atomic-harmonics shell": {
        "elements": [1, 6, 8],
        "J": 2,
        "L": 2,
        "radial": "shell",
        "octave": 0.4,
        "dtype": "float64",
    },
    "view solid-harmonics": {"J": 1, "L": 1, "resolution": 2, "margin": 3, "dtype": "float64"},
    "model gaussian": {"dtype": "float64"},
    "model gaussian phases": {"method": "phases", "dtype": "float64"},
    "model gaussian bands": {"method": "bands", "J": 2, "L": 2, "dtype": "float64"},
    "model gaussian mask": {"borders": "mask", "dtype": "float64"},
    "model phase-harmonics": {"J": 2, "L": 2, "iterations": 3, "dtype": "float64"},
    **{
        f"model phase-harmonics {kind}": {
            "set": kind,
            "J": 2,
            "L": 2,
            "iterations": 3,
            "dtype": "float64",
        }
        for kind in ("H", "rectifier", "scattering", "scattering-isotropic")
    },
    "model energy": {"J": 2, "L": 2, "set": "A0", "lags": 0, "steps": 4, "dtype": "float64"},
    "artifact generator": {"model": "linear", "dimension": 1, "J": 1, "L": 1, "validation": 0.5},
    "artifact dictionary": {"atoms": 3, "iterations": 4, "epochs": 2},
    "artifact classifier": {
        "model": "istc-mlp",
        "channels": 4,
        "atoms": 6,
        "free": True,
        "pool": 4,
    },
    "artifact classifier deep": {"blocks": (3, 4, 4)},
    "simulation": {"n": 1, "N": 16, "t": 0.1, "k0": 3},
    "simulation forced": {"n": 1, "N": 16, "t": 0.1, "k0": 3, "forcing": "ring", "kf": 4},
}
ARTIFACTS: dict[str, type[Spec]] = {
    "generator": GeneratorSpec,
    "dictionary": DictionarySpec,
    "classifier": ClassifierSpec,
}


def spec_class(case: str) -> type[Spec]:
    family, *words = case.split()
    if family == "simulation":
        return SimulationSpec
    if family == "artifact":
        return ARTIFACTS[words[0]]
    return VIEWS[words[0]].spec if family == "view" else MODELS[words[0]][0]


def fields() -> torch.Tensor:
    """Two fields made of sines, without a generator: (2, 16, 16) float64."""
    u = torch.arange(16, dtype=torch.float64)
    waves = [torch.sin(a * u[:, None] + b * u[None, :] ** 1.1) for a, b in ((0.7, 1.3), (2.1, 0.4))]
    return torch.stack([waves[0] + 0.5 * waves[1] ** 2, waves[1] - waves[0] ** 3])


def molecules() -> Molecules:
    """Two molecules of hydrogen, carbon and oxygen along a bent line."""
    steps = torch.arange(7, dtype=torch.float64)
    places = torch.stack([1.1 * steps, 0.4 * steps.sin(), 0.3 * (2 * steps).cos()], -1)
    return Molecules(places, torch.tensor([1, 6, 8, 1, 6, 6, 1]), torch.tensor([0, 4, 7]))


def output(case: str, spec: Spec) -> torch.Tensor:
    """What the spec computes from the fields."""
    family, *words = case.split()
    if family == "view" and "molecules" in LAYOUTS[words[0]]:
        return VIEWS[words[0]].build(spec, SCHEMA)(molecules())
    if family == "view":
        return VIEWS[words[0]].build(spec, SCHEMA)(fields())
    if family == "model":
        return MODELS[words[0]][1](spec).fit(fields()).sample(1, seed=3)
    if isinstance(spec, GeneratorSpec):
        x = torch.cat([fields(), fields().flip(1)]).float()
        return Generator(spec).fit(x).reconstruct(x)
    if isinstance(spec, DictionarySpec):
        return learnt(spec)
    if isinstance(spec, ClassifierSpec):
        return scores(spec)
    return simulate(spec, range(1))  # type: ignore[arg-type]


def learnt(spec: DictionarySpec) -> torch.Tensor:
    """Atoms of pairs of neighbours in the fields."""
    coder = partial(fista, penalty=spec.penalty, iterations=spec.iterations, positive=True)
    signals = torch.nn.functional.normalize(fields().reshape(-1, 4), dim=1)
    return DictionaryLearning(spec.atoms, coder, epochs=spec.epochs).fit(signals).atoms_


def scores(spec: ClassifierSpec) -> torch.Tensor:
    """What a network of fixed weights says of the fields, cut to maps of 4 x 4."""
    network = Network((2, 4, 4), 3, spec).eval()
    for weights in network.parameters():
        values = torch.arange(weights.numel(), dtype=torch.float32).add(1).cos()
        weights.data.copy_(values.reshape(weights.shape))
    maps = fields().float().reshape(2, 4, 4, 4, 4).permute(1, 3, 0, 2, 4).reshape(16, 2, 4, 4)
    return network(maps).detach()


def summary(values: torch.Tensor) -> list[float]:
    """Nine numbers that change if any value does."""
    flat = values.double().flatten().numpy()
    weights = np.cos(np.arange(len(flat)) ** 1.3)
    picked = flat[np.linspace(0, len(flat) - 1, 6).astype(int)]
    return [len(flat), float(flat @ weights), float(flat @ flat), *map(float, picked)]


def entry(case: str) -> tuple[str, dict[str, Any]]:
    kind = spec_class(case)
    spec = kind.from_parameters(SMALL[case])
    defaults = {field.name: field.default for field in dataclasses.fields(kind)}
    frozen = {
        "defaults": json.loads(json.dumps(defaults)),
        "key": derivation_key(spec.to_dict(), ["input"]),
        "values": summary(output(case, spec)),
    }
    return f"{case} (algorithm {kind.algorithm})", frozen


@pytest.mark.parametrize("case", SMALL)
def test_keys_defaults_and_numbers_are_frozen(case: str) -> None:
    held = json.loads(FROZEN.read_text()) if FROZEN.exists() else {}
    name, found = entry(case)
    if name not in held and os.environ.get("WAVEMILL_FREEZE"):
        held[name] = found
        FROZEN.write_text(json.dumps(held, indent=1, sort_keys=True) + "\n")
    assert name in held, "a new spec or algorithm: freeze it, WAVEMILL_FREEZE=1 pytest " + __file__
    expected = held[name]
    way_out = f"{name} changed: raise its algorithm, or add a field with the old meaning as default"
    assert found["key"] == expected["key"], way_out
    known = {field: found["defaults"].get(field, "absent") for field in expected["defaults"]}
    assert known == expected["defaults"], way_out
    scale = max(map(abs, expected["values"][3:]))
    # Simulations and views in float64 differ by rounding between processors; a model's descent
    # magnifies it. Generators and classifiers are in float32.
    tolerance = {"model": 1e-6, "artifact": 1e-4}.get(case.split()[0], 1e-9)
    np.testing.assert_allclose(
        found["values"], expected["values"], rtol=tolerance, atol=tolerance * scale, err_msg=way_out
    )


def test_every_view_and_model_is_frozen() -> None:
    frozen = {tuple(case.split()[:2]) for case in SMALL}
    assert {("view", kind) for kind in VIEWS} <= frozen
    assert {("model", kind) for kind in MODELS} <= frozen


def test_a_field_at_its_default_keeps_the_key() -> None:
    for case in SMALL:
        kind = spec_class(case)
        explicit = {field.name: field.default for field in dataclasses.fields(kind)}
        assert kind(**explicit).to_dict() == kind().to_dict() == kind.from_parameters({}).to_dict()
