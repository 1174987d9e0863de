"""Judging models of fields on samples that they were not fitted to."""

from wavemill.evaluation.bispectrum import bispectrum, shell_edges, triangles
from wavemill.evaluation.coherence import coherence, coherence_distance
from wavemill.evaluation.diversity import best_correlation
from wavemill.evaluation.foveal import FovealCorrelation
from wavemill.evaluation.judge import METRICS, Judge
from wavemill.evaluation.minkowski import minkowski_functionals
from wavemill.evaluation.portrait import Portrait

__all__ = [
    "METRICS",
    "FovealCorrelation",
    "Judge",
    "Portrait",
    "best_correlation",
    "bispectrum",
    "coherence",
    "coherence_distance",
    "minkowski_functionals",
    "shell_edges",
    "triangles",
]
