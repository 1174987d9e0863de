from .dictionaries.classifiers import Network, RidgeClassifier, Standardisation
from .dictionaries.dictionary import (
    Dictionary,
    DictionaryLearning,
    fista,
    homotopy,
    ista,
    istc,
    lasso_violation,
)
from .dictionaries.training import Training
from .errors import (
    DivergentModel,
    InvalidParameter,
    NotFitted,
    ShapeMismatch,
    UnstableSimulation,
    WavemillError,
)
from .evaluation import (
    FovealCorrelation,
    Judge,
    Portrait,
    best_correlation,
    bispectrum,
    minkowski_functionals,
    shell_edges,
    triangles,
)
from .fields import divergence, gradient, vorticity
from .generation import (
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
from .harmonics import (
    harmonic_from_phases,
    inverse_rectifier,
    phase_harmonic,
    rectifier_coefficients,
    rectify,
)
from .images import Augmentation, as_float
from .maxent import Energy, Gaussian, Microcanonical
from .molecules.atomic_harmonics import AtomicHarmonics
from .molecules.atomic_kernel import AtomicKernel
from .molecules.atomic_products import AtomicProducts
from .molecules.atoms import Molecules, real_solid_harmonics
from .molecules.regression import Composition, Multilinear, Ridge
from .molecules.solid_harmonics import SolidHarmonicScattering
from .moments.components import CrossCovariance
from .moments.high_orders import RectifierCovariance, SkewnessFlatness
from .moments.masked import MaskedCovariance
from .moments.pairs import MomentTable
from .moments.phase_harmonics import PhaseHarmonicCovariance
from .moments.scattering_spectra import ScatteringSpectra
from .moments.statistics import Moments, Statistics
from .replay import Replayed
from .scattering2d import Scattering2D
from .simulate import NavierStokes2D, simulate
from .specs import (
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
from .spectra import (
    PowerSpectrum,
    flatness,
    isotropic_spectrum,
    pdf,
    skewness,
    structure_functions,
)
from .wavelets import WaveletTransform, littlewood_paley

__version__: str

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
