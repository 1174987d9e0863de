"""The maximum-entropy model that holds the whole second order of a stationary field."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Self

import torch
from torch import Tensor

from wavemill.errors import NotFitted, ShapeMismatch
from wavemill.estimators import Specified, as_spec
from wavemill.maxent.dual import BandSpectrum
from wavemill.maxent.samples import (
    as_samples,
    describe,
    numbers_of,
    white_noise,
)
from wavemill.operators import Numbers, as_tensor
from wavemill.progress import Progress
from wavemill.specs import GaussianSpec
from wavemill.spectra import tapered


class Gaussian(Specified):
    """Stationary Gaussian field with the mean and the second order of its references.

    ``S(w) = < x^(w) x^(w)^* > / points``, a matrix over components at each frequency, averaged over
    the references about their common mean; samples are ``S(w)^{1/2} n^(w)`` with n white. The
    Hermitian square root exists whatever the rank of S: few references of many components suffice.
    With ``method="bands"`` S is the spectrum of most entropy among those with the references' few
    moments of wavelet bands (:class:`~wavemill.maxent.dual.BandSpectrum`). With ``borders="mask"``
    S is that of tapered references, since a jump from border to border would hide steep spectra; it
    is scaled so that its sum is still the variance of all values.

    Parameters
    ----------
    spec
        A :class:`~wavemill.specs.GaussianSpec`, its parameters, or None for its defaults.

    Attributes
    ----------
    mean_
        ``(component,)`` float64.
    spectrum_
        S on the half plane of ``torch.fft.rfft2``, complex128
        ``(component, component, y, x/2 + 1)``.
    metrics_
        Number of samples fitted; their mean, std, skewness and flatness.
    """

    mean_: Tensor
    spectrum_: Tensor
    metrics_: dict[str, float]

    def __init__(self, spec: GaussianSpec | Mapping[str, Any] | None = None) -> None:
        self.spec: GaussianSpec = as_spec(GaussianSpec, spec)

    def fit(self, x: Numbers, progress: Progress | None = None) -> Self:
        """Measure mean and spectrum of ``x``, real ``(sample, [component,] y, x)``.

        Raises
        ------
        ShapeMismatch
            If ``x`` is not an array of real fields, or has several components and bands are asked.
        InvalidParameter
            If all values are equal, or some are not finite.
        """
        x = as_tensor(x)
        fields = as_samples(x)
        self.shape, self.has_components = (fields.shape[-2], fields.shape[-1]), x.ndim == 4
        self.mean_ = fields.mean((0, 2, 3))
        self.spectrum_ = torch.zeros(())
        for step, field in enumerate(self._centred(fields), 1):
            x_hat = torch.fft.rfft2(field, norm="ortho")
            cross = x_hat[:, None] * x_hat[None].conj() / len(fields)
            self.spectrum_ = self.spectrum_ + cross
            if progress is not None:
                progress(step, len(fields), {})
        if self.spec.method == "bands":
            self.spectrum_ = self._from_bands(self.spectrum_)
        self.metrics_ = describe(fields)
        return self

    def sample(
        self, n: int, seed: int = 0, progress: Progress | None = None, *, first: int = 0
    ) -> Tensor:
        """Draw ``n`` fields ``(n, [component,] y, x)``, numbered from ``first`` on.

        Sample i depends on ``seed`` and i alone.

        Raises
        ------
        NotFitted
            Before :meth:`fit`.
        InvalidParameter
            If ``n`` is below 1, or a number is not whole.
        """
        if not hasattr(self, "spectrum_"):
            raise NotFitted("the Gaussian model has no spectrum yet: call fit first")
        drawn = self.draw(*numbers_of(n, seed, first), progress)
        fields = drawn.to(getattr(torch, self.spec.dtype))
        return fields if self.has_components else fields[:, 0]

    def draw(self, numbers: range, seed: int = 0, progress: Progress | None = None) -> Tensor:
        """Return the samples of these numbers, ``(n, component, y, x)`` float64."""
        root = _hermitian_root(self.spectrum_)
        draws = []
        for count, number in enumerate(numbers, 1):
            draws.append(self._draw(root, number, seed))
            if progress is not None:
                progress(count, len(numbers), {})
        return torch.stack(draws)

    def state(self) -> dict[str, Tensor]:
        """Return everything learnt, as real tensors."""
        return {
            "mean": self.mean_,
            "spectrum": torch.view_as_real(self.spectrum_),
            "shape": torch.tensor(self.shape),
            "components": torch.tensor(self.has_components),
        }

    @classmethod
    def from_state(
        cls, spec: GaussianSpec | Mapping[str, Any] | None, state: Mapping[str, Tensor]
    ) -> Self:
        """Rebuild a fitted model from :meth:`state`; ``metrics_`` is not part of it."""
        model = cls(spec)
        model.mean_ = state["mean"]
        model.spectrum_ = torch.view_as_complex(state["spectrum"].contiguous())
        rows, columns = state["shape"].tolist()
        model.shape, model.has_components = (rows, columns), bool(state["components"])
        return model

    @property
    def deviations(self) -> Tensor:
        """Standard deviation of all values fitted, of each component."""
        own = self.spectrum_.diagonal().permute(2, 0, 1)
        first = torch.fft.irfft2(own, self.shape, norm="backward")[:, 0, 0]
        deviations: Tensor = first.clamp(min=0).sqrt()
        return deviations

    @property
    def deviation(self) -> float:
        """Standard deviation of all values fitted, of the first component."""
        return float(self.deviations[0])

    def _centred(self, fields: Tensor) -> Iterable[Tensor]:
        """Return centred fields; those that do not wrap around are tapered, their variance kept."""
        if self.spec.borders == "wrap":
            return (field - self.mean_[:, None, None] for field in fields)
        within = tapered(fields, together=True)
        power, left = fields.var((0, 2, 3), correction=0), within.square().mean((0, 2, 3))
        return within * (power / left).sqrt()[:, None, None]

    def _from_bands(self, spectrum: Tensor) -> Tensor:
        """Return the spectrum of most entropy with the band moments of ``spectrum``."""
        if len(spectrum) > 1:
            raise ShapeMismatch(
                f"the Gaussian model of bands has one component, got {len(spectrum)}: choose one, "
                "or another method"
            )
        spec = self.spec
        bands = BandSpectrum(self.shape, spec.J, spec.L, spec.lags)
        return bands.fit(spectrum[0, 0].real.cpu()).to(spectrum)[None, None]

    def _draw(self, root: Tensor, index: int, seed: int) -> Tensor:
        noise = white_noise(index, (len(self.mean_), *self.shape), seed)
        n_hat = torch.fft.rfft2(noise.to(root.device), norm="ortho")
        if self.spec.method == "phases":
            n_hat = torch.sgn(n_hat)
        x_hat = torch.einsum("abyx,byx->ayx", root, n_hat)
        field: Tensor = torch.fft.irfft2(x_hat, self.shape, norm="ortho")
        return field + self.mean_[:, None, None]


def _hermitian_root(spectrum: Tensor) -> Tensor:
    """Return S^{1/2} at each frequency; unlike Cholesky's factor it obeys root(-w) = root(w)*."""
    values, vectors = torch.linalg.eigh(spectrum.permute(2, 3, 0, 1))
    root = (vectors * values.clamp(min=0).sqrt()[..., None, :]) @ vectors.mH
    half_plane: Tensor = root.permute(2, 3, 0, 1)
    return half_plane
