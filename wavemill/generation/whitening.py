"""Whitened principal components, learnt from a stream, and how white and Gaussian they are.

    w = Sigma_m^(-1/2) V_m^T (y - mean) ,

V_m the m leading eigenvectors of the covariance of y and Sigma_m their eigenvalues, so that w has
mean 0 and covariance I on the samples learnt from. On n others, even for exactly white w, the
sample covariance has eigenvalues spread over ``((1 - sqrt(m / n))_+^2, (1 + sqrt(m / n))^2)``.

Source: Marchenko and Pastur, *Distribution of eigenvalues for some sets of random matrices*,
Mathematics of the USSR-Sbornik 1, 457 (1967); Angles and Mallat, *Generative networks as inverse
problems with scattering transforms*, ICLR 2018, for the embedding.
"""

from __future__ import annotations

import math
from typing import Self

import scipy.linalg
import torch
from torch import Tensor

from wavemill.devices import BesideDefault, beside_default
from wavemill.errors import InvalidParameter, NotFitted, ShapeMismatch

LARGEST = 12_000  # most features of a covariance; its square, 1.2 GB, is the most numbers held
FLAT = 1e-9  # eigenvalues below this part of the largest are rounding error


class Whitening(BesideDefault):
    """Whitened PCA of ``(n, feature)``: batches by :meth:`update`, then :meth:`solve`.

    Samples are held while there are fewer of them than features: the n x n matrix of their products
    has the same components as the covariance, and is smaller.

    Parameters
    ----------
    dimension
        m, components kept.
    """

    def __init__(self, dimension: int) -> None:
        if dimension < 1:
            raise InvalidParameter(f"whitening keeps 1 component or more, got {dimension}")
        self.dimension = dimension
        self._held: list[Tensor] = []
        self._count, self._gram = 0, torch.zeros(0, 0)

    def update(self, y: Tensor) -> Self:
        """Take a batch into account; sums are in float64, about the first batch's mean."""
        self._learning()
        size = self._held[0].shape[1] if self._held else len(self._gram) or y.shape[-1]
        if y.ndim != 2 or y.shape[1] != size:
            raise ShapeMismatch(f"whitening takes (n, {size}), got {tuple(y.shape)}")
        if not len(y):
            return self
        self._count += len(y)
        self._held.append(y.to(torch.float64, copy=True))
        if len(self._gram) or self._count >= size or self._count * size > LARGEST**2:
            self._add_held(size)
        return self

    def _add_held(self, size: int) -> None:
        """Add the held samples to the sums, and drop them."""
        if size > LARGEST:
            raise InvalidParameter(
                f"{size} features make too large a covariance of {self._count} samples or more (at "
                f"most {LARGEST}): raise J, lower L, or crop the samples"
            )
        if not len(self._gram):
            self._origin = self._held[0].mean(0)
            self._sum = torch.zeros_like(self._origin)
            self._gram = self._origin.new_zeros(size, size)
        for y in self._held:
            y = y - self._origin
            self._sum += y.sum(0)
            self._gram.addmm_(y.T, y)
        self._held = []

    def solve(self) -> Self:
        """Find mean and components of all that was seen.

        Raises
        ------
        InvalidParameter
            If the samples or features seen vary in fewer than m directions.
        """
        self._learning()
        if not self._count:
            raise NotFitted("whitening has seen no samples: update with batches, then solve")
        centred = torch.cat(self._held) if self._held else None
        if centred is None:
            offset = self._sum / self._count
            mean = self._origin + offset
            products = self._gram / self._count - torch.outer(offset, offset)
        else:
            mean = centred.mean(0)
            centred -= mean
            products = centred @ centred.T / self._count
        size, m = len(mean), self.dimension
        if m > size or m >= self._count:
            raise InvalidParameter(
                f"{self._count} samples of {size} features have no {m} components: lower dimension"
            )
        values, vectors = _leading(products, m)
        if not values[-1] > FLAT * values[0]:
            rank = int((values > FLAT * values[0]).sum())
            raise InvalidParameter(
                f"the features vary in {rank} directions, fewer than dimension={m}: lower it"
            )
        if centred is not None:
            vectors = (centred.T @ vectors.to(mean.device)).cpu() / (self._count * values).sqrt()
        self.mean_, self.variances_ = mean.cpu(), values
        self.components_ = _signed(vectors)
        self.explained_ = float(values.sum() / products.diagonal().sum())
        self._held, self._gram = [], torch.zeros(0, 0)
        return self._prepared()

    def _learning(self) -> None:
        if hasattr(self, "components_"):
            raise InvalidParameter(
                "this whitening has learnt its components: make another to learn again"
            )

    def _prepared(self) -> Self:
        self.projection = (self.components_ / self.variances_.sqrt()).float()
        return self

    @property
    def spread(self) -> Tensor:
        """Features ``(feature, m)`` of each component at one deviation, float32."""
        return (self.components_ * self.variances_.sqrt()).float()

    def __call__(self, y: Tensor) -> Tensor:
        """Return w ``(n, m)`` of y ``(n, feature)``, float32."""
        self._learnt()
        if y.shape[-1] != len(self.mean_):
            raise ShapeMismatch(f"learnt from {len(self.mean_)} features, got {y.shape[-1]}")
        centred = (y.double() - self.mean_.to(y.device)).float()
        return centred @ self.projection.to(y.device)

    def inverse(self, w: Tensor) -> Tensor:
        """Return the features y ``(n, feature)`` of least variance that have these components."""
        self._learnt()
        return w @ self.spread.T.to(w.device) + self.mean_.float().to(w.device)

    def _learnt(self) -> None:
        if not hasattr(self, "components_"):
            raise NotFitted("whitening knows no components yet: update with batches, then solve")

    def state(self) -> dict[str, Tensor]:
        """Return everything learnt."""
        self._learnt()
        return {
            "mean": self.mean_,
            "variances": self.variances_,
            "components": self.components_,
            "explained": torch.tensor(self.explained_, dtype=torch.float64),
        }

    def load(self, state: dict[str, Tensor]) -> Self:
        """Take what another has learnt."""
        self.mean_, self.variances_ = state["mean"], state["variances"]
        self.components_, self.explained_ = state["components"], float(state["explained"])
        return self._prepared()


def _leading(products: Tensor, m: int) -> tuple[Tensor, Tensor]:
    """Return the m largest eigenvalues, the largest first, and their vectors."""
    last = len(products) - 1
    values, vectors = scipy.linalg.eigh(
        products.cpu().numpy(), subset_by_index=(last - m + 1, last)
    )
    return torch.from_numpy(values[::-1].copy()), torch.from_numpy(vectors[:, ::-1].copy())


def _signed(components: Tensor) -> Tensor:
    """Return components ``(feature, m)`` whose signs do not depend on how they were found."""
    generic = torch.arange(1, len(components) + 1, dtype=components.dtype).cos()
    return torch.where(generic @ components < 0, -components, components)


def eigenvalues(covariance: Tensor, n: int) -> Tensor:
    """Return a covariance's eigenvalues, ascending, but not those that n samples force to be 0."""
    values: Tensor = torch.linalg.eigvalsh(covariance)
    return values[max(0, len(covariance) - n + 1) :]


@beside_default
def marchenko_pastur(m: int, n: int) -> tuple[float, float]:
    """Return the edges of the eigenvalues of a sample covariance of n white vectors of size m."""
    if m < 1 or n < 1:
        raise InvalidParameter(f"{n} vectors of size {m} have no covariance")
    ratio = math.sqrt(m / n)
    return max(0.0, 1 - ratio) ** 2, (1 + ratio) ** 2


@beside_default
def whiteness(w: Tensor) -> dict[str, float]:
    """Say how near w ``(n, m)`` is to Gaussian white noise of variance 1.

    Returns
    -------
    dict
        ``mean`` and ``covariance``: largest departures from 0 and I. ``smallest``, ``largest``:
        eigenvalues of the sample covariance. ``edge_low``, ``edge_high``: those of white noise at
        these m and n, ``outside``: the part of eigenvalues beyond them. ``skewness``,
        ``excess_kurtosis``: root mean square and mean over coordinates (0 for a Gaussian).
        ``radius``: mean of ``|w|^2 / m`` (1), ``radius_spread``: its deviation in units of a
        Gaussian's, sqrt(2 / m) (1). For a single w only the mean and the radius.
    """
    if w.ndim != 2 or not w.numel():
        raise ShapeMismatch(f"whiteness is of codes (n, m), n and m >= 1, got {tuple(w.shape)}")
    n, m = w.shape
    w = w.double()
    radius = w.square().mean(1)
    found = {"mean": float(w.mean(0).abs().max()), "radius": float(radius.mean())}
    if n == 1:
        return found
    centred = w - w.mean(0)
    covariance = centred.T @ centred / n
    values = eigenvalues(covariance, n)
    low, high = marchenko_pastur(m, n)
    unit = centred / covariance.diagonal().sqrt()
    return found | {
        "covariance": float((covariance - torch.eye(m).to(w)).abs().max()),
        "smallest": float(values[0]),
        "largest": float(values[-1]),
        "edge_low": low,
        "edge_high": high,
        "outside": float(((values < low) | (values > high)).double().mean()),
        "skewness": float(unit.pow(3).mean(0).square().mean().sqrt()),
        "excess_kurtosis": float(unit.pow(4).mean() - 3),
        "radius_spread": float(radius.std() / math.sqrt(2 / m)),
    }
