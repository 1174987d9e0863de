"""Sparse dictionaries of features, and classifiers of images."""

from __future__ import annotations

import typing
from dataclasses import dataclass
from typing import ClassVar

from wavemill.specs.base import Spec, check, check_above, check_least, check_part


@dataclass(frozen=True)
class DictionarySpec(Spec):
    """A dictionary learnt by reconstruction: see :class:`.DictionaryLearning`.

    Parameters
    ----------
    atoms
        K, the number of atoms.
    components
        Principal components of the channels, whitened, that are coded; 0: all channels, each in
        units of its standard deviation.
    penalty, iterations
        Penalty of the Lasso that codes signals of norm 1 by positive codes, and steps of its FISTA.
    epochs
        Passes over the positions.
    positions
        Most positions learnt from.
    """

    kind: ClassVar[str] = "dictionary"

    atoms: int = 256
    components: int = 64
    penalty: float = 0.1
    iterations: int = 50
    epochs: int = 5
    positions: int = 100_000

    def __post_init__(self) -> None:
        """Refuse what cannot be learnt."""
        super().__post_init__()
        check_least(self, 1, "atoms", "iterations", "epochs", "positions")
        check_least(self, 0, "components")
        check_above(self, "penalty")


@dataclass(frozen=True)
class ClassifierSpec(Spec):
    """A classifier of features: see :mod:`.classifiers` and :mod:`.training`.

    Features are standardised; ``ridge`` (in closed form) and ``linear`` (by descent) see all of
    them; ``mlp`` has layers before; ``istc`` and ``istc-mlp`` are SparseScatNet's: projection,
    unit norm at each position, sparse code, batch norm, averages, then a linear form or layers.

    Parameters
    ----------
    model
        One of these.
    blocks
        Atoms of each block of sparse codes and wavelets that maps go through before all this
        (:mod:`.blocks`; not for ridge); by default none. The grid is halved before a block of more
        atoms than the one before.
    components
        Principal components of the channels, whitened, that stand for them; 0: all channels.
    power
        Power that features are raised to, with their signs, before they are standardised.
    statistics
        Number of samples, spread over all, that the standardisation is fitted to; 0: all.
    channels, kernel
        Of the projection: its outputs, and the positions a side that it sees.
    atoms, free, first, last, iterations
        Atoms of the dictionary, which begins from noise, whose atoms are the least coherent;
        whether W is free of D; the first and last threshold, and their number.
    pool
        Positions a side averaged.
    thin
        Part of the inputs of the layers, or of the linear form, left out at random in training.
    hidden, dropout
        Units of the layers, and the part of them left out at random.
    epochs, batch, rate, momentum, decay
        Of stochastic descent; the decay is of the squared weights. A batch has 2 samples or more,
        one for each process.
    schedule, every, factor
        The rate falls by ``factor`` after ``every`` epochs (``steps``) or as half a ``cosine``.
    alpha
        Penalty of ridge, relative to the mean variance; None to choose it on the held-out samples.
    closed
        Whether the last linear form begins as ridge regression on what it sees.
    mirror, both
        Name of a view of the mirrored images, which training sees half of the time, and ridge
        besides the others; whether scores are means over an image and its mirror image.
    flip, shift
        Anew in each epoch, mirror half of the images, and move all by at most so many pixels along
        each axis; for a view that is computed as it is read.
    smoothing
        Part of the target that all classes share.
    precision
        ``mixed``: bfloat16 where it suffices, on a GPU.
    validation
        Part of the samples held out, by a hash of their ids, or their number if 1 or more.
    patience
        Stop after so many epochs without a better loss on them; 0: never. The best is kept then.
    """

    kind: ClassVar[str] = "classifier"
    algorithm: ClassVar[int] = 2

    model: typing.Literal["ridge", "linear", "mlp", "istc", "istc-mlp"] = "linear"
    blocks: tuple[int, ...] = ()
    components: int = 0
    power: float = 1.0
    statistics: int = 0
    channels: int = 256
    kernel: int = 3
    atoms: int = 2048
    free: bool = False
    first: float = 1.0
    last: float = 0.05
    iterations: int = 12
    pool: int = 1
    thin: float = 0.0
    hidden: tuple[int, ...] = (4096, 4096)
    dropout: float = 0.3
    epochs: int = 160
    batch: int = 128
    rate: float = 0.01
    momentum: float = 0.9
    decay: float = 1e-4
    schedule: typing.Literal["steps", "cosine"] = "steps"
    every: int = 60
    factor: float = 0.1
    alpha: float | None = None
    closed: bool = False
    mirror: str | None = None
    both: bool = False
    flip: bool = False
    shift: int = 0
    smoothing: float = 0.0
    precision: typing.Literal["float32", "mixed"] = "float32"
    validation: float = 0.1
    patience: int = 0

    def __post_init__(self) -> None:
        """Refuse what cannot be built or trained."""
        super().__post_init__()
        names = ("channels", "kernel", "atoms", "iterations", "pool", "batch", "every")
        check_least(self, 1, *names)
        counts = ("components", "statistics", "epochs", "patience", "shift")
        check_least(self, 0, *counts, "decay", "momentum")
        check_above(self, "rate", "alpha")
        check_part(self, "validation")
        check(self.kernel % 2 == 1, f"{self.kind}: kernel={self.kernel} must be odd")
        for name in ("thin", "dropout", "smoothing"):
            value = getattr(self, name)
            check(0 <= value < 1, f"{self.kind}: {name}={value} must be in [0, 1)")
        check(not self.both or self.mirror is not None, f"{self.kind}: both needs a mirror")
        check(0 < self.power <= 1, f"{self.kind}: power={self.power} must be in (0, 1]")
        check(0 < self.factor <= 1, f"{self.kind}: factor={self.factor} must be in (0, 1]")
        for name in ("hidden", "blocks"):
            sizes = getattr(self, name)
            check(
                all(size >= 1 for size in sizes),
                f"{self.kind}: {name}={sizes} must be 1 or more each",
            )
        deep = self.model != "ridge" or not self.blocks
        check(deep, f"{self.kind}: ridge is a closed form: blocks are of other models")
        falling = self.first >= self.last > 0
        check(falling, f"{self.kind}: thresholds fall from {self.first=} to {self.last=} above 0")
