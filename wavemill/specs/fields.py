"""Simulations, and transforms of fields and images."""

from __future__ import annotations

import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from wavemill.specs.base import MomentSet, Precision, Spec, check, check_bank, check_least


@dataclass(frozen=True)
class SimulationSpec(Spec):
    """Two-dimensional turbulence on [0, 2 pi]^2: see :func:`wavemill.simulate.simulate`.

    Parameters
    ----------
    n
        Number of realisations. Realisation i is the same whatever ``n``.
    N
        Grid points a side.
    nu, hyperviscosity, drag
        Damping rates ``nu k^2 + hyperviscosity k^8 + drag``. None for ``nu``: 4e-4 at N = 256 and
        ``N^(-4/3)`` elsewhere, which keeps the smallest scales resolved. None for ``drag``: 0, or
        0.1 when forced.
    t
        Time simulated.
    k0, energy
        Wavenumber where the initial enstrophy spectrum is largest, and initial mean kinetic
        energy ``<|u|^2> / 2``.
    forcing, kf, injection
        ``"ring"`` injects energy at rate ``injection`` on the wavenumbers within 1 of ``kf``.
    dt, cfl
        Fixed time step, or None: at each step the longest that Courant number ``cfl`` allows.
    seed
        Names the family of realisations.
    """

    kind: ClassVar[str] = "simulation"

    n: int = 16
    N: int = 256
    nu: float | None = None
    t: float = 4.0
    k0: float = 8.0
    energy: float = 0.75
    forcing: typing.Literal["none", "ring"] = "none"
    kf: float = 8.0
    injection: float = 0.1
    drag: float | None = None
    hyperviscosity: float = 0.0
    dt: float | None = None
    cfl: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what cannot be simulated."""
        super().__post_init__()
        positive = {"n": self.n, "N": self.N, "t": self.t, "k0": self.k0, "kf": self.kf}
        for name, value in positive.items():
            check(0 < value < float("inf"), f"simulation: {name}={value} must be above 0")
        rates = {"nu": self.viscosity, "drag": self.friction, "hyperviscosity": self.hyperviscosity}
        rates |= {"energy": self.energy, "injection": self.injection, "seed": self.seed}
        for name, value in rates.items():
            check(0 <= value < float("inf"), f"simulation: {name}={value} must not be below 0")
        check(self.N >= 8, f"simulation: N={self.N} is too coarse; use 8 or more")
        check(self.dt is None or self.dt > 0, f"simulation: dt={self.dt} must be above 0")
        check(0 < self.cfl <= 1.35, f"simulation: cfl={self.cfl} must be in (0, 1.35] to be stable")
        for name in ("k0", "kf") if self.forcing == "ring" else ("k0",):
            value = getattr(self, name)
            check(3 * value < self.N, f"simulation: {name}={value} needs N > {3 * value:g}")

    @property
    def viscosity(self) -> float:
        """Kinematic viscosity in use."""
        return 4e-4 * (256 / self.N) ** (4 / 3) if self.nu is None else self.nu

    @property
    def friction(self) -> float:
        """Linear drag in use."""
        if self.drag is None:
            return 0.1 if self.forcing == "ring" else 0.0
        return self.drag


@dataclass(frozen=True)
class SpectrumSpec(Spec):
    """Isotropic power spectrum of a field: see :class:`wavemill.spectra.PowerSpectrum`.

    Parameters
    ----------
    spacing
        Grid spacing (dy, dx); wavenumbers are radians a unit of it.
    dtype
        Precision of the coefficients.
    """

    kind: ClassVar[str] = "spectrum"

    spacing: tuple[float, ...] = (1.0, 1.0)
    dtype: Precision = "float32"

    def __post_init__(self) -> None:
        """Refuse spacings that are not lengths."""
        super().__post_init__()
        good = len(self.spacing) == 2 and all(0 < d < float("inf") for d in self.spacing)
        check(good, f"spectrum: spacing={self.spacing} must be two lengths above 0 (dy, dx)")


@dataclass(frozen=True)
class ScatteringSpec(Spec):
    """Scattering transform: see :class:`wavemill.scattering2d.Scattering2D`.

    Parameters
    ----------
    J, L
        Scales, and angles in a half turn, of Morlet wavelets; averages are over 2^J points.
    max_order
        0, 1 or 2.
    nonlinearity
        ``"modulus"``; ``"rectifier"``: a rectifier at ``A`` phases at order 1; or
        ``"fully-rectified"``: at both orders.
    A
        Phases of the rectifiers.
    padding
        ``"reflect"`` or ``"periodic"``: what lies beyond the field.
    average
        Whether fields are averaged and sampled every 2^J points, or kept as they are.
    dtype
        Precision of the computation.
    stored
        Precision of the coefficients as they are kept, by default that of the computation:
        ``"float16"`` halves a store of features to learn from.
    mirrored
        Whether to transform the mirror image, left to right: to learn from both.
    colours
        Which components of images to transform: ``"rgb"``, red, green and blue, or their
        ``"opponent"`` colours; see :func:`wavemill.images.opponent`.
    """

    kind: ClassVar[str] = "scattering"

    J: int = 4
    L: int = 8
    max_order: int = 2
    nonlinearity: typing.Literal["modulus", "rectifier", "fully-rectified"] = "modulus"
    A: int = 4
    padding: typing.Literal["reflect", "periodic"] = "reflect"
    average: bool = True
    dtype: Precision = "float32"
    stored: typing.Literal["float16", "float32", "float64"] | None = None
    mirrored: bool = False
    colours: typing.Literal["rgb", "opponent"] = "rgb"

    def __post_init__(self) -> None:
        """Refuse transforms that cannot be built."""
        super().__post_init__()
        check_least(self, 1, "J", "L", "A")
        check(self.J < 64, f"scattering: J={self.J} must be 1 to 63")
        check(self.max_order in (0, 1, 2), f"scattering: max_order={self.max_order} is not 0 to 2")


@dataclass(frozen=True)
class PhaseHarmonicsSpec(Spec):
    """Phase-harmonic covariances of a periodic field: see :mod:`wavemill.moments.phase_harmonics`.

    Parameters
    ----------
    J, L
        Scales, and angles in a half turn, of bump steerable wavelets.
    set
        Moments, as listed in :func:`wavemill.moments.pairs.model`.
    lags
        Reach of the shifts, in units of 2^j (for ``pywph``: the largest power of 2).
    dtype
        Precision of the computation and of the coefficients.
    """

    kind: ClassVar[str] = "phase-harmonics"
    algorithm: ClassVar[int] = 2  # low passes of pywph's set leave out the field's mean
    aliases: ClassVar[Mapping[str, str]] = {"model": "set"}

    J: int = 5
    L: int = 4
    set: MomentSet = "C"
    lags: int = 1
    dtype: Precision = "float32"

    def __post_init__(self) -> None:
        """Refuse banks that cannot be built."""
        super().__post_init__()
        check_bank(self.kind, self.J, self.L, self.lags)
