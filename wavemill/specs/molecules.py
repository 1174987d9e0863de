"""Features of molecules, and numbers predicted from them."""

from __future__ import annotations

import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from wavemill.specs.base import Precision, Spec, check, check_above, check_least, check_part


@dataclass(frozen=True)
class AtomicHarmonicsSpec(Spec):
    """Solid harmonics about atoms: see :class:`.AtomicHarmonics`.

    Parameters
    ----------
    elements
        Nuclear charges that may occur, ascending; a view takes those of its dataset.
    sigma, J, L
        Narrowest width in Angstrom, number of widths, highest degree.
    across
        Products are taken of widths at most so many steps apart.
    reach
        Distance in Angstrom at which a neighbour counts half.
    radial, octave
        ``solid`` wavelets or ``shell``, and octaves from one width to the next.
    steepness
        How fast farther neighbours cease to count.
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
    radial: typing.Literal["solid", "shell"] = "solid"
    octave: float = 0.5
    steepness: float = 4.0
    dtype: Precision = "float32"

    def __post_init__(self) -> None:
        """Refuse features that cannot be built."""
        super().__post_init__()
        ascending = bool(self.elements) and list(self.elements) == sorted(set(self.elements))
        check(ascending and self.elements[0] > 0, f"{self.kind}: {self.elements=} must ascend")
        check_above(self, "sigma", "reach", "octave", "steepness")
        check_least(self, 1, "J")
        check_least(self, 0, "L", "across")


@dataclass(frozen=True)
class SolidHarmonicsSpec(Spec):
    """Scattering of densities: see :class:`.SolidHarmonicScattering`.

    Parameters
    ----------
    J, L, powers
        Largest scale, highest degree, and exponents of the integrals.
    sigma, width, resolution
        Widths of the narrowest wavelet and of an atom, both in samples; samples in an Angstrom.
    channels
        ``full``, ``valence``, ``core``, ``atoms``: what an atom weighs.
    margin
        Empty space beyond the atoms, both sides together, in widths of each field.
    band
        Width of the spectra that are followed; None for full grids.
    dtype
        Precision of the computation and of the coefficients.
    """

    kind: ClassVar[str] = "solid-harmonics"
    algorithm: ClassVar[int] = 3  # every field on a grid of its own, the second order by matrices

    J: int = 2
    L: int = 3
    powers: tuple[float, ...] = (0.5, 1.0, 2.0, 3.0)
    sigma: float = 1.0
    width: float = 2.0
    resolution: float = 8.0
    channels: tuple[str, ...] = ("full", "valence", "core")
    margin: float = 10.0
    band: float | None = 5.0
    dtype: Precision = "float32"

    def __post_init__(self) -> None:
        """Refuse transforms that cannot be built."""
        super().__post_init__()
        check_least(self, 0, "J", "L")
        check(bool(self.powers) and bool(self.channels), f"{self.kind}: no powers or no channels")
        check_above(self, "sigma", "width", "resolution", "margin", "band")
        check(min(self.powers) > 0, f"{self.kind}: powers={self.powers} must be above 0")


@dataclass(frozen=True)
class RegressionSpec(Spec):
    """A number predicted for molecules: see :mod:`.regression`, `.atomic_regression`.

    Parameters
    ----------
    model
        ``composition``, ``ridge``, ``multilinear``, or, on the view's invariants of single atoms,
        ``kernel`` or ``products``. ``kind`` is another name for this parameter.
    alpha
        Penalty of ridge, kernel and products; None to choose it by validation.
    order
        Factors of a product (1, 2 or 3): multilinear; most factors of one: products.
    terms, epochs
        Products, and passes over the samples: multilinear.
    landmarks, zeta
        Atoms that others are compared with, and the power of the kernel.
    products
        Products of the invariants of atoms that are kept.
    train
        Learn from so many samples; 0 for all that are not held out.
    test
        Part of the samples held out, by a hash of their ids, or their number if 1 or more.
    halvings
        Points of the learning curve below the last, each with half as many molecules.
    """

    kind: ClassVar[str] = "regression"
    algorithm: ClassVar[int] = 4  # twice as many products
    aliases: ClassVar[Mapping[str, str]] = {"kind": "model"}

    model: typing.Literal["composition", "ridge", "multilinear", "kernel", "products"] = "ridge"
    alpha: float | None = None
    order: int = 2
    terms: int = 64
    epochs: int = 60
    landmarks: int = 4000
    zeta: float = 2.0
    products: int = 12000
    train: int = 0
    test: float = 0.1
    halvings: int = 2

    def __post_init__(self) -> None:
        """Refuse what cannot be learnt."""
        super().__post_init__()
        check_above(self, "alpha")
        check_part(self, "test")
        check(self.order in (1, 2, 3), f"{self.kind}: order={self.order} is not 1, 2 or 3")
        check_least(self, 1, "terms", "epochs", "landmarks", "zeta", "products")
        check_least(self, 0, "train", "halvings")
