"""Structured wavelet features and models of fields: the mathematics of wavemill."""

from wavemill.atomic_harmonics import AtomicHarmonics
from wavemill.atomic_kernel import AtomicKernel
from wavemill.atomic_products import AtomicProducts
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
from wavemill.molecules import Molecules, real_solid_harmonics
from wavemill.pairs import MomentTable
from wavemill.phase_harmonics import Moments, PhaseHarmonicCovariance, Statistics
from wavemill.regression import Composition, Multilinear, Ridge
from wavemill.scattering2d import Scattering2D
from wavemill.simulate import NavierStokes2D, simulate
from wavemill.solid_harmonics import SolidHarmonicScattering
from wavemill.specs import (
    AtomicHarmonicsSpec,
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

__all__ = [
    "AtomicHarmonics",
    "AtomicHarmonicsSpec",
    "AtomicKernel",
    "AtomicProducts",
    "Augmentation",
    "Composition",
    "ConvolutionalGenerator",
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
    "Microcanonical",
    "MicrocanonicalSpec",
    "Molecules",
    "MomentTable",
    "Moments",
    "Multilinear",
    "NavierStokes2D",
    "NotFitted",
    "PhaseHarmonicCovariance",
    "PhaseHarmonicsSpec",
    "Portrait",
    "PowerSpectrum",
    "RectifiedWavelets",
    "RegressionSpec",
    "Ridge",
    "Scattering2D",
    "ScatteringSpec",
    "ShapeMismatch",
    "SimulationSpec",
    "SolidHarmonicScattering",
    "SolidHarmonicsSpec",
    "SparseInversion",
    "Spec",
    "SpectrumSpec",
    "Statistics",
    "UnstableSimulation",
    "WaveletTransform",
    "WavemillError",
    "Whitening",
    "as_float",
    "best_correlation",
    "bispectrum",
    "divergence",
    "flatness",
    "gradient",
    "harmonic_from_phases",
    "inverse_rectifier",
    "isotropic_spectrum",
    "littlewood_paley",
    "marchenko_pastur",
    "minkowski_functionals",
    "pdf",
    "phase_harmonic",
    "psnr",
    "real_solid_harmonics",
    "rectifier_coefficients",
    "rectify",
    "simulate",
    "skewness",
    "ssim",
    "structure_functions",
    "vorticity",
    "whiteness",
]
