"""Typed, frozen descriptions of every transform and model.

A spec is stable under serialisation: fields at their default are dropped, so that adding an
option keeps the keys of everything computed before it. A published default never changes
its meaning: a different one is a new field or a higher ``algorithm``.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from wavemill.errors import InvalidParameter


@dataclass(frozen=True)
class Spec:
    """Base of all specs: ``kind`` names the idea, ``algorithm`` the version of its numbers."""

    kind: ClassVar[str]
    algorithm: ClassVar[int] = 1
    aliases: ClassVar[Mapping[str, str]] = {}  # other names that parameters may be given by

    def parameters(self) -> dict[str, Any]:
        """Return the fields that differ from their default, ready for JSON."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        defaults = {field.name: field.default for field in dataclasses.fields(self)}
        return {name: _plain(value) for name, value in values.items() if value != defaults[name]}

    def to_dict(self) -> dict[str, Any]:
        """Return ``{kind, parameters, algorithm}``, the form that storage keeps and hashes."""
        return {"kind": self.kind, "parameters": self.parameters(), "algorithm": self.algorithm}

    @classmethod
    def from_parameters(cls, parameters: Mapping[str, Any]) -> Self:
        """Build from JSON values or from command-line text such as ``{"J": "4"}``.

        Raises
        ------
        InvalidParameter
            If a name is unknown or a text cannot be read as the field's type.
        """
        hints = typing.get_type_hints(cls)
        known = {field.name for field in dataclasses.fields(cls)}
        named = {cls.aliases.get(name, name): value for name, value in parameters.items()}
        if len(named) < len(parameters):
            raise InvalidParameter(
                f"{cls.kind}: a parameter is given twice: {', '.join(parameters)}"
            )
        for name in named:
            if name not in known:
                raise InvalidParameter(
                    f"{cls.kind} has no parameter {name!r}; it has {', '.join(sorted(known))}"
                )
        return cls(
            **{name: _read(cls.kind, name, hints[name], value) for name, value in named.items()}
        )


def _plain(value: Any) -> Any:
    return [_plain(item) for item in value] if isinstance(value, tuple) else value


def _read(kind: str, name: str, hint: Any, value: Any) -> Any:
    """Turn ``value`` (JSON or text) into the type ``hint``, or say what was expected."""
    try:
        return _convert(hint, value)
    except (TypeError, ValueError) as error:
        expected = getattr(hint, "__name__", str(hint))
        raise InvalidParameter(f"{kind}: {name}={value!r} is not a valid {expected}") from error


def _convert(hint: Any, value: Any) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if value is None or (isinstance(value, str) and value.lower() == "none"):
            return None
        return _convert(next(a for a in arguments if a is not type(None)), value)
    if origin is typing.Literal:
        if value not in arguments:
            raise ValueError(value)
        return value
    if origin is tuple:
        items = value.split(",") if isinstance(value, str) else value
        return tuple(_convert(arguments[0], item) for item in items)
    if hint is bool:
        return _boolean(value)
    if hint is int and (isinstance(value, bool) or (isinstance(value, float) and value % 1)):
        raise ValueError(value)
    return hint(value)


def _boolean(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    words = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
    return words[str(value).lower()] if str(value).lower() in words else _refuse(value)


def _refuse(value: Any) -> bool:
    raise ValueError(value)


def check(condition: bool, message: str) -> None:
    """Raise :class:`InvalidParameter` with ``message`` unless ``condition`` holds."""
    if not condition:
        raise InvalidParameter(message)


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
        Fixed time step, or None: at each step the longest of Courant number ``cfl``.
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


Precision = typing.Literal["float32", "float64"]
MomentSet = typing.Literal["A0", "A", "B", "C", "C+L", "D", "pywph"]


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
        The ``"modulus"``; the ``"rectifier"`` at ``A`` phases at order 1; ``"fully-rectified"``: at
        both orders.
    A
        Phases of the rectifiers.
    padding
        ``"reflect"`` or ``"periodic"``: what lies beyond the field.
    average
        Whether fields are averaged and sampled every 2^J points, or kept as they are.
    dtype
        Precision of the computation and of the coefficients.
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

    def __post_init__(self) -> None:
        """Refuse transforms that cannot be built."""
        check(self.J >= 1, f"scattering: J={self.J} must be 1 or more")
        check(self.L >= 1, f"scattering: L={self.L} must be 1 or more")
        check(self.A >= 1, f"scattering: A={self.A} must be 1 or more")
        check(self.max_order in (0, 1, 2), f"scattering: max_order={self.max_order} is not 0 to 2")


@dataclass(frozen=True)
class PhaseHarmonicsSpec(Spec):
    """Phase-harmonic covariances of a periodic field: see :mod:`wavemill.phase_harmonics`.

    Parameters
    ----------
    J, L
        Scales, and angles in a half turn, of bump steerable wavelets.
    set
        Moments, as listed in :func:`wavemill.pairs.model`.
    lags
        Reach of the shifts, in units of 2^j (for ``pywph``: the largest power of 2).
    dtype
        Precision of the computation and of the coefficients.
    """

    kind: ClassVar[str] = "phase-harmonics"
    aliases: ClassVar[Mapping[str, str]] = {"model": "set"}

    J: int = 5
    L: int = 4
    set: MomentSet = "C"
    lags: int = 1
    dtype: Precision = "float32"

    def __post_init__(self) -> None:
        """Refuse banks that cannot be built."""
        _check_bank(self.kind, self.J, self.L, self.lags)


@dataclass(frozen=True)
class AtomicHarmonicsSpec(Spec):
    """Solid harmonics about atoms: see :class:`wavemill.atomic_harmonics.AtomicHarmonics`.

    Parameters
    ----------
    elements
        Nuclear charges that may occur, ascending; a view takes those of its dataset.
    sigma, J, L
        Narrowest width in Angstrom, number of widths half an octave apart, highest degree.
    across
        Products are taken of widths at most so many steps apart.
    reach
        Distance in Angstrom at which a neighbour counts half.
    dtype
        Precision of the computation and of the coefficients.
    """

    kind: ClassVar[str] = "atomic-harmonics"

    elements: tuple[int, ...] = (1, 6, 7, 8, 9)
    sigma: float = 0.6
    J: int = 6
    L: int = 3
    across: int = 1
    reach: float = 2.0
    dtype: Precision = "float32"

    def __post_init__(self) -> None:
        """Refuse features that cannot be built."""
        ascending = bool(self.elements) and list(self.elements) == sorted(set(self.elements))
        check(ascending and self.elements[0] > 0, f"{self.kind}: {self.elements=} must ascend")
        check(self.sigma > 0, f"{self.kind}: sigma={self.sigma} must be above 0")
        check(self.reach > 0, f"{self.kind}: reach={self.reach} must be above 0")
        check(self.J >= 1, f"{self.kind}: J={self.J} must be 1 or more")
        check(self.L >= 0, f"{self.kind}: L={self.L} must not be below 0")
        check(self.across >= 0, f"{self.kind}: across={self.across} must not be below 0")


@dataclass(frozen=True)
class GaussianSpec(Spec):
    """Gaussian model of the full second order: see :class:`wavemill.maxent.Gaussian`.

    Parameters
    ----------
    method
        ``"gaussian"``: independent Gaussian amplitudes, the maximum-entropy model. ``"phases"``:
        the fitted amplitude with random phases, so that every sample has the fitted spectrum.
    dtype
        Precision of the samples; the fit is in float64.
    """

    kind: ClassVar[str] = "gaussian"

    method: typing.Literal["gaussian", "phases"] = "gaussian"
    dtype: Precision = "float32"


@dataclass(frozen=True)
class SolidHarmonicsSpec(Spec):
    """Scattering of densities: see :class:`wavemill.solid_harmonics.SolidHarmonicScattering`.

    Parameters
    ----------
    J, L, powers
        Largest scale, highest degree, and exponents of the integrals.
    sigma, width, resolution
        Widths of the narrowest wavelet and of an atom, samples, and samples in an Angstrom.
    channels
        ``full``, ``valence``, ``core``, ``atoms``: what an atom weighs.
    margin
        Empty space about the atoms, in widths of the widest field.
    band
        Width of the spectra that are followed; None for full grids.
    dtype
        Precision of the computation and of the coefficients.
    """

    kind: ClassVar[str] = "solid-harmonics"

    J: int = 2
    L: int = 3
    powers: tuple[float, ...] = (0.5, 1.0, 2.0, 3.0)
    sigma: float = 1.0
    width: float = 2.0
    resolution: float = 8.0
    channels: tuple[str, ...] = ("full", "valence", "core")
    margin: float = 8.0
    band: float | None = 6.0
    dtype: Precision = "float32"

    def __post_init__(self) -> None:
        """Refuse transforms that cannot be built."""
        check(min(self.J, self.L) >= 0, f"{self.kind}: J={self.J}, L={self.L} must not be below 0")
        check(bool(self.powers) and bool(self.channels), f"{self.kind}: no powers or no channels")
        for name in ("sigma", "width", "resolution", "margin"):
            value = getattr(self, name)
            check(value > 0, f"{self.kind}: {name}={value} must be above 0")
        check(min(self.powers) > 0, f"{self.kind}: powers={self.powers} must be above 0")
        check(self.band is None or self.band > 0, f"{self.kind}: band={self.band} is not above 0")


@dataclass(frozen=True)
class RegressionSpec(Spec):
    """A number predicted of molecules: see :mod:`wavemill.regression` and `.atomic_kernel`.

    Parameters
    ----------
    model
        ``composition``, ``ridge``, ``multilinear``, or ``kernel`` (of the view's invariants of
        single atoms). ``kind`` is another name of this parameter.
    alpha
        Penalty of ridge and kernel; None to choose it by validation.
    order, terms, epochs
        Factors of a product (1, 2 or 3), products, and passes over the samples: multilinear.
    landmarks, zeta
        Atoms that others are compared with, and the power of the kernel.
    train
        Learn from so many samples; 0 for all that are not held out.
    test
        Part of the samples held out, by a hash of their ids, or their number if above 1.
    """

    kind: ClassVar[str] = "regression"
    aliases: ClassVar[Mapping[str, str]] = {"kind": "model"}

    model: typing.Literal["composition", "ridge", "multilinear", "kernel"] = "ridge"
    alpha: float | None = None
    order: int = 2
    terms: int = 64
    epochs: int = 60
    landmarks: int = 4000
    zeta: float = 2.0
    train: int = 0
    test: float = 0.1

    def __post_init__(self) -> None:
        """Refuse what cannot be learnt."""
        check(
            self.alpha is None or self.alpha > 0, f"{self.kind}: alpha={self.alpha} is not above 0"
        )
        check(self.order in (1, 2, 3), f"{self.kind}: order={self.order} is not 1, 2 or 3")
        for name in ("terms", "epochs", "landmarks", "zeta"):
            value = getattr(self, name)
            check(value >= 1, f"{self.kind}: {name}={value} must be 1 or more")
        check(self.train >= 0, f"{self.kind}: train={self.train} must not be below 0")
        check(self.test > 0, f"{self.kind}: test={self.test} must be above 0")


@dataclass(frozen=True)
class MicrocanonicalSpec(Spec):
    """Microcanonical phase-harmonic model: see :class:`wavemill.maxent.Microcanonical`.

    Parameters
    ----------
    J, L, set, lags
        The moments held, as in :class:`PhaseHarmonicsSpec`: 995 by default.
    iterations
        Most gradients evaluated for one sample.
    start
        Noise that descent begins from: with the reference's ``"spectrum"``, or ``"white"``.
    tolerance, gradient_tolerance
        A sample is done before that once its loss, or the norm of the gradient, is this small
        relative to the first; 0: never.
    dtype
        Precision of the moments and of the samples.
    """

    kind: ClassVar[str] = "phase-harmonics"
    algorithm: ClassVar[int] = 2
    aliases: ClassVar[Mapping[str, str]] = {"model": "set"}

    J: int = 5
    L: int = 4
    set: MomentSet = "C"
    lags: int = 1
    iterations: int = 200
    start: typing.Literal["spectrum", "white"] = "spectrum"
    tolerance: float = 0.0
    gradient_tolerance: float = 0.0
    dtype: Precision = "float32"

    def __post_init__(self) -> None:
        """Refuse banks that cannot be built."""
        _check_bank(self.kind, self.J, self.L, self.lags)
        check(self.iterations >= 1, f"{self.kind}: iterations={self.iterations} must be 1 or more")
        for name in ("tolerance", "gradient_tolerance"):
            value = getattr(self, name)
            check(0 <= value < 1, f"{self.kind}: {name}={value} must be in [0, 1)")


@dataclass(frozen=True)
class EnergySpec(Spec):
    """Explicit energy of phase-harmonic moments: see :class:`wavemill.maxent.Energy`.

    Parameters
    ----------
    J, L, set, lags
        The moments in the energy, as in :class:`PhaseHarmonicsSpec`; not the sets of pywph and C+L,
        which hold moduli of real low passes.
    steps
        Of the chain that makes one sample; in the first half its step adapts.
    dtype
        Precision of the samples; all else is in float64.
    """

    kind: ClassVar[str] = "energy"

    J: int = 3
    L: int = 4
    set: typing.Literal["A0", "A", "B", "C"] = "B"
    lags: int = 1
    steps: int = 1000
    dtype: Precision = "float32"

    def __post_init__(self) -> None:
        """Refuse banks that cannot be built."""
        _check_bank(self.kind, self.J, self.L, self.lags)
        check(self.steps >= 2, f"{self.kind}: steps={self.steps} must be 2 or more")


@dataclass(frozen=True)
class EvaluationSpec(Spec):
    """How a fitted model is judged: see :class:`wavemill.evaluation.Judge`.

    Parameters
    ----------
    samples
        Drawn from the model.
    real
        Most real fields, that the model was not fitted to, to judge by.
    J, L
        Scales and angles of the foveal correlation matrix; J is lowered to what fits.
    """

    kind: ClassVar[str] = "evaluation"

    samples: int = 10
    real: int = 20
    J: int = 5
    L: int = 8

    def __post_init__(self) -> None:
        """Refuse what cannot be judged."""
        check(self.samples >= 1, f"evaluation: samples={self.samples} must be 1 or more")
        check(self.real >= 2, f"evaluation: real={self.real} must be 2 or more")
        _check_bank(self.kind, self.J, self.L, 0)


def _check_bank(kind: str, J: int, L: int, lags: int) -> None:
    check(J >= 1, f"{kind}: J={J} must be 1 or more")
    check(L >= 2, f"{kind}: L={L} must be 2 or more")
    check(lags >= 0, f"{kind}: lags={lags} must not be below 0")
