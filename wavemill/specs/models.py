"""Maximum-entropy models of fields, and how they are judged."""

from __future__ import annotations

import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from wavemill.specs.base import (
    ModelSet,
    MomentSet,
    Precision,
    Spec,
    check,
    check_bank,
    check_least,
)


@dataclass(frozen=True)
class GaussianSpec(Spec):
    """Gaussian model of the full second order: see :class:`wavemill.maxent.Gaussian`.

    Parameters
    ----------
    method
        ``"gaussian"``: independent Gaussian amplitudes, the maximum-entropy model. ``"phases"``:
        the fitted amplitude with random phases, so that every sample has the fitted spectrum.
        ``"bands"``: Gaussian, of the moments of set A alone, by the convex dual.
    dtype
        Precision of the samples; the fit is in float64.
    J, L, lags
        Of the bands: as in :class:`PhaseHarmonicsSpec`.
    borders
        ``"wrap"``: fields are periodic. ``"mask"``: they are not, and their spectrum is that of
        fields that fall to 0 at their borders, scaled to the power of all their values.
    """

    kind: ClassVar[str] = "gaussian"

    method: typing.Literal["gaussian", "phases", "bands"] = "gaussian"
    dtype: Precision = "float32"
    J: int = 5
    L: int = 4
    lags: int = 1
    borders: typing.Literal["wrap", "mask"] = "wrap"

    def __post_init__(self) -> None:
        """Refuse banks that cannot be built."""
        super().__post_init__()
        check_bank(self.kind, self.J, self.L, self.lags)


@dataclass(frozen=True)
class MicrocanonicalSpec(Spec):
    """Microcanonical model of wavelet moments: see :class:`wavemill.maxent.Microcanonical`.

    Parameters
    ----------
    J, L, set, lags
        The moments held, as in :class:`PhaseHarmonicsSpec`: 995 by default. Or ``H``: set A, and
        skewness and flatness of each octave; ``rectifier``: covariances of rectified coefficients;
        ``scattering``, ``scattering-isotropic``: scattering spectra. Only sets of phase harmonics
        have lags.
    iterations
        Most gradients evaluated for one sample.
    start
        Noise that descent begins from: with the reference's ``"spectrum"``, or ``"white"``.
    borders
        ``"wrap"``: fields are periodic. ``"mask"``: they are not, and points from which a filter
        reaches around the border are left out of its moments; the start's spectrum is as in
        :class:`GaussianSpec`. Only for sets of phase harmonics.
    tolerance, gradient_tolerance
        A sample is finished earlier once its loss, or the norm of the gradient, is this small
        relative to the first; 0: never.
    dtype
        Precision of the moments and of the samples.
    """

    kind: ClassVar[str] = "phase-harmonics"
    algorithm: ClassVar[int] = 3  # descent in coordinates of the references' spectrum
    aliases: ClassVar[Mapping[str, str]] = {"model": "set"}

    J: int = 5
    L: int = 4
    set: ModelSet = "C"
    lags: int = 1
    iterations: int = 200
    start: typing.Literal["spectrum", "white"] = "spectrum"
    tolerance: float = 0.0
    gradient_tolerance: float = 0.0
    dtype: Precision = "float32"
    borders: typing.Literal["wrap", "mask"] = "wrap"

    def __post_init__(self) -> None:
        """Refuse banks that cannot be built."""
        super().__post_init__()
        check_bank(self.kind, self.J, self.L, self.lags)
        check(
            self.borders == "wrap" or self.set in typing.get_args(MomentSet),
            f"{self.kind}: the set {self.set!r} has no moments with borders='mask'",
        )
        check_least(self, 1, "iterations")
        for name in ("tolerance", "gradient_tolerance"):
            value = getattr(self, name)
            check(0 <= value < 1, f"{self.kind}: {name}={value} must be in [0, 1)")

    def to_dict(self) -> dict[str, Any]:
        """Return :meth:`Spec.to_dict`, one algorithm higher for masked borders: starts changed."""
        masked = self.borders == "mask"
        return super().to_dict() | ({"algorithm": self.algorithm + 1} if masked else {})


@dataclass(frozen=True)
class EnergySpec(Spec):
    """Explicit energy of phase-harmonic moments: see :class:`wavemill.maxent.Energy`.

    Parameters
    ----------
    J, L, set, lags
        The moments in the energy, as in :class:`PhaseHarmonicsSpec`; not the sets of pywph and C+L,
        which hold moduli of real low passes.
    steps
        Steps of the chain that makes one sample; in the first half their length adapts.
    dtype
        Precision of the samples; all else is in float64.
    """

    kind: ClassVar[str] = "energy"
    algorithm: ClassVar[int] = 3  # growth by constraints, nowhere much less than a Gaussian's

    J: int = 3
    L: int = 4
    set: typing.Literal["A0", "A", "B", "C"] = "B"
    lags: int = 1
    steps: int = 1000
    dtype: Precision = "float32"

    def __post_init__(self) -> None:
        """Refuse banks that cannot be built."""
        super().__post_init__()
        check_bank(self.kind, self.J, self.L, self.lags)
        check_least(self, 2, "steps")


@dataclass(frozen=True)
class EvaluationSpec(Spec):
    """How a fitted model is judged: see :class:`wavemill.evaluation.Judge`.

    Parameters
    ----------
    samples
        Number of samples drawn from the model.
    real
        Most real fields to judge by, spread over those that the model was not fitted to.
    J, L
        Scales and angles of the foveal correlation matrix; J is lowered to what fits.
    """

    kind: ClassVar[str] = "evaluation"
    algorithm: ClassVar[int] = 5  # models and real fields in equal numbers against the same others

    samples: int = 10
    real: int = 20
    J: int = 5
    L: int = 8

    def __post_init__(self) -> None:
        """Refuse what cannot be judged."""
        super().__post_init__()
        check_least(self, 1, "samples")
        check_least(self, 2, "real")
        check_bank(self.kind, self.J, self.L, 0)


@dataclass(frozen=True)
class ScoresSpec(Spec):
    """How a classifier, regression or generator is scored: by samples not learnt from."""

    kind: ClassVar[str] = "scores"
