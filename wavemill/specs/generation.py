"""Generators of images and fields."""

from __future__ import annotations

import typing
from dataclasses import dataclass
from typing import ClassVar

from wavemill.specs.base import Spec, check, check_above, check_least


@dataclass(frozen=True)
class GeneratorSpec(Spec):
    """An embedding into Gaussian white codes and its inverse: see :mod:`wavemill.generation`.

    Parameters
    ----------
    model
        The inverse: ``"sparse"``, ``"convolutional"`` or ``"linear"``.
    dimension
        m, the size of a code.
    transform
        ``"wavelets"``: rectified Parseval wavelets, averaged; or ``"scattering"``.
    J, L, A, max_order
        Scales, angles in a half turn, phases of the rectifier, and order of the scattering.
    loss
        ``"l1"`` or ``"l2"``, of images in standard units.
    shared
        Draw the linear inverse to one that all points of the grid share, instead of to 0.
    width
        Channels of the convolutional generator's first layer.
    atoms, iterations, signed
        Of the sparse inversion: atoms at each point of the grid, iterations of the thresholding,
        and whether coefficients may be negative.
    coarse
        Learn the sparse inversion's atoms first on images averaged over so many points a side,
        or fewer where the grid is too fine; 1 for whole images from the start.
    rate, batch
        Step of Adam, None for 1e-2 (sparse) or 1e-3 (convolutional), and samples in a step.
    epochs
        Most passes over the samples; learning ends when validation gains less than 0.05 dB in 3
        passes, or in 300 steps if these are more.
    validation
        Part of the samples that decides this, and the penalties of least squares.
    crop
        Cut samples into squares of this side; 0 for whole ones.
    test
        Part of the samples held out, by a hash of their ids, where no selection leaves others.
    """

    kind: ClassVar[str] = "generator"
    algorithm: ClassVar[int] = 4  # steps set by |B|, whitening without validation, patience

    model: typing.Literal["sparse", "convolutional", "linear"] = "sparse"
    dimension: int = 512
    transform: typing.Literal["wavelets", "scattering"] = "wavelets"
    J: int = 4
    L: int = 4
    A: int = 4
    max_order: int = 1
    loss: typing.Literal["l1", "l2"] = "l2"
    shared: bool = True
    width: int = 128
    atoms: int = 128
    iterations: int = 3
    signed: bool = False
    coarse: int = 4
    rate: float | None = None
    batch: int = 128
    epochs: int = 30
    validation: float = 0.05
    crop: int = 0
    test: float = 0.1

    def __post_init__(self) -> None:
        """Refuse what cannot be learnt."""
        super().__post_init__()
        names = ("dimension", "J", "L", "width", "atoms", "iterations", "coarse", "batch", "epochs")
        check_least(self, 1, *names)
        check_least(self, 0, "crop")
        check_above(self, "rate")
        even = self.A >= 4 and self.A % 2 == 0
        check(even, f"{self.kind}: A={self.A} must be even and at least 4, to be inverted")
        check(self.max_order in (1, 2), f"{self.kind}: max_order={self.max_order} is not 1 or 2")
        for name in ("validation", "test"):
            value = getattr(self, name)
            check(0 < value < 1, f"{self.kind}: {name}={value} must lie between 0 and 1")

    @property
    def pooling(self) -> int:
        """Points a side that coarse images are averaged over: half of 2^J at most."""
        return min(self.coarse, (1 << self.J) // 2)

    @property
    def step(self) -> float:
        """Step of Adam in use."""
        if self.rate is None:
            return 1e-2 if self.model == "sparse" else 1e-3
        return self.rate
