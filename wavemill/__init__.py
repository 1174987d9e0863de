"""Structured wavelet features and models of fields: the mathematics of wavemill."""

from importlib.metadata import version as _version

from wavemill.dictionaries.classifiers import Network, RidgeClassifier, Standardisation
from wavemill.dictionaries.dictionary import (
    Dictionary,
    DictionaryLearning,
    fista,
    homotopy,
    ista,
    istc,
    lasso_violation,
)
from wavemill.dictionaries.training import Training
from wavemill.errors import (
    DivergentModel,
    InvalidParameter,
    NotFitted,
    ShapeMismatch,
    UnstableSimulation,
    WavemillError,
)
from wavemill.evaluation import (
    FovealCorrelation,
    Judge,
    Portrait,
    best_correlation,
    bispectrum,
    minkowski_functionals,
    shell_edges,
    triangles,
)
from wavemill.fields import divergence, gradient, vorticity
from wavemill.generation import (
    ConvolutionalGenerator,
    Embedding,
    Generator,
    LinearGenerator,
    RectifiedWavelets,
    SparseInversion,
    Whitening,
    marchenko_pastur,
    psnr,
    ssim,
    whiteness,
)
from wavemill.harmonics import (
    harmonic_from_phases,
    inverse_rectifier,
    phase_harmonic,
    rectifier_coefficients,
    rectify,
)
from wavemill.images import Augmentation, as_float
from wavemill.maxent import Energy, Gaussian, Microcanonical
from wavemill.molecules.atomic_harmonics import AtomicHarmonics
from wavemill.molecules.atomic_kernel import AtomicKernel
from wavemill.molecules.atomic_products import AtomicProducts
from wavemill.molecules.atoms import Molecules, real_solid_harmonics
from wavemill.molecules.regression import Composition, Multilinear, Ridge
from wavemill.molecules.solid_harmonics import SolidHarmonicScattering
from wavemill.moments.components import CrossCovariance
from wavemill.moments.high_orders import RectifierCovariance, SkewnessFlatness
from wavemill.moments.masked import MaskedCovariance
from wavemill.moments.pairs import MomentTable
from wavemill.moments.phase_harmonics import Moments, PhaseHarmonicCovariance, Statistics
from wavemill.moments.scattering_spectra import ScatteringSpectra
from wavemill.replay import Replayed
from wavemill.scattering2d import Scattering2D
from wavemill.simulate import NavierStokes2D, simulate
from wavemill.specs import (
    AtomicHarmonicsSpec,
    ClassifierSpec,
    DictionarySpec,
    EnergySpec,
    EvaluationSpec,
    GaussianSpec,
    GeneratorSpec,
    MicrocanonicalSpec,
    PhaseHarmonicsSpec,
    RegressionSpec,
    ScatteringSpec,
    SimulationSpec,
    SolidHarmonicsSpec,
    Spec,
    SpectrumSpec,
)
from wavemill.spectra import (
    PowerSpectrum,
    flatness,
    isotropic_spectrum,
    pdf,
    skewness,
    structure_functions,
)
from wavemill.wavelets import WaveletTransform, littlewood_paley

__version__ = _version("wavemill")

__all__ = [
    "AtomicHarmonics",
    "AtomicHarmonicsSpec",
    "AtomicKernel",
    "AtomicProducts",
    "Augmentation",
    "ClassifierSpec",
    "Composition",
    "ConvolutionalGenerator",
    "CrossCovariance",
    "Dictionary",
    "DictionaryLearning",
    "DictionarySpec",
    "DivergentModel",
    "Embedding",
    "Energy",
    "EnergySpec",
    "EvaluationSpec",
    "FovealCorrelation",
    "Gaussian",
    "GaussianSpec",
    "Generator",
    "GeneratorSpec",
    "InvalidParameter",
    "Judge",
    "LinearGenerator",
    "MaskedCovariance",
    "Microcanonical",
    "MicrocanonicalSpec",
    "Molecules",
    "MomentTable",
    "Moments",
    "Multilinear",
    "NavierStokes2D",
    "Network",
    "NotFitted",
    "PhaseHarmonicCovariance",
    "PhaseHarmonicsSpec",
    "Portrait",
    "PowerSpectrum",
    "RectifiedWavelets",
    "RectifierCovariance",
    "RegressionSpec",
    "Replayed",
    "Ridge",
    "RidgeClassifier",
    "Scattering2D",
    "ScatteringSpec",
    "ScatteringSpectra",
    "ShapeMismatch",
    "SimulationSpec",
    "SkewnessFlatness",
    "SolidHarmonicScattering",
    "SolidHarmonicsSpec",
    "SparseInversion",
    "Spec",
    "SpectrumSpec",
    "Standardisation",
    "Statistics",
    "Training",
    "UnstableSimulation",
    "WaveletTransform",
    "WavemillError",
    "Whitening",
    "as_float",
    "best_correlation",
    "bispectrum",
    "divergence",
    "fista",
    "flatness",
    "gradient",
    "harmonic_from_phases",
    "homotopy",
    "inverse_rectifier",
    "isotropic_spectrum",
    "ista",
    "istc",
    "lasso_violation",
    "littlewood_paley",
    "marchenko_pastur",
    "minkowski_functionals",
    "pdf",
    "phase_harmonic",
    "psnr",
    "real_solid_harmonics",
    "rectifier_coefficients",
    "rectify",
    "shell_edges",
    "simulate",
    "skewness",
    "ssim",
    "structure_functions",
    "triangles",
    "vorticity",
    "whiteness",
]
