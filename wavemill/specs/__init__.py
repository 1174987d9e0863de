"""Typed, frozen descriptions of every transform and model: one file for each kind of data."""

from wavemill.specs.base import (
    MomentSet,
    Precision,
    Spec,
    check,
)
from wavemill.specs.fields import (
    PhaseHarmonicsSpec,
    ScatteringSpec,
    SimulationSpec,
    SpectrumSpec,
)
from wavemill.specs.generation import GeneratorSpec
from wavemill.specs.images import (
    ClassifierSpec,
    DictionarySpec,
)
from wavemill.specs.models import (
    EnergySpec,
    EvaluationSpec,
    GaussianSpec,
    MicrocanonicalSpec,
    ScoresSpec,
)
from wavemill.specs.molecules import (
    AtomicHarmonicsSpec,
    RegressionSpec,
    SolidHarmonicsSpec,
)

__all__ = [
    "AtomicHarmonicsSpec",
    "ClassifierSpec",
    "DictionarySpec",
    "EnergySpec",
    "EvaluationSpec",
    "GaussianSpec",
    "GeneratorSpec",
    "MicrocanonicalSpec",
    "MomentSet",
    "PhaseHarmonicsSpec",
    "Precision",
    "RegressionSpec",
    "ScatteringSpec",
    "ScoresSpec",
    "SimulationSpec",
    "SolidHarmonicsSpec",
    "Spec",
    "SpectrumSpec",
    "check",
]
