"""Which families of moments a model holds, by the name of its set."""

from __future__ import annotations

import torch

from wavemill.moments.components import CrossCovariance, OfComponent
from wavemill.moments.differentiated import Joined, MomentOperator
from wavemill.moments.high_orders import RectifierCovariance, SkewnessFlatness
from wavemill.moments.masked import MaskedCovariance
from wavemill.moments.phase_harmonics import PhaseHarmonicCovariance
from wavemill.moments.scattering_spectra import ScatteringSpectra
from wavemill.specs import MicrocanonicalSpec

SECOND_ORDER = ("A0", "A")


def moments_of(spec: MicrocanonicalSpec, shape: tuple[int, int], components: int) -> MomentOperator:
    """Return the moments of a spec for fields ``(..., y, x)``, or fields of several components.

    For these, the set of each component, and covariances between components
    (:class:`.CrossCovariance`), only those of second order for A0 and A.

    Raises
    ------
    InvalidParameter
        If scales do not fit.
    """
    each = _of_one(spec, shape)
    if components == 1:
        return each
    linear = spec.set in SECOND_ORDER
    between = CrossCovariance(components, shape, spec.J, spec.L, linear, each.dtype, spec.borders)
    return Joined([*(OfComponent(each, number) for number in range(components)), between])


def _of_one(spec: MicrocanonicalSpec, shape: tuple[int, int]) -> MomentOperator:
    J, L, dtype = spec.J, spec.L, getattr(torch, spec.dtype)
    match spec.set:
        case "scattering" | "scattering-isotropic":
            return ScatteringSpectra(shape, J, L, spec.set == "scattering-isotropic", dtype)
        case "rectifier":
            return RectifierCovariance(shape, J, L, dtype=dtype)
        case "H":
            gaussian = PhaseHarmonicCovariance(shape, J, L, "A", spec.lags, dtype)
            return Joined([gaussian, SkewnessFlatness(shape, J, L, dtype)])
        case name if spec.borders == "mask":
            return MaskedCovariance(shape, J, L, name, spec.lags, dtype)
        case name:
            return PhaseHarmonicCovariance(shape, J, L, name, spec.lags, dtype)
