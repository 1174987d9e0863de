"""The Gaussian model of band moments has them, and the most entropy of all that have them."""

from __future__ import annotations

import pytest
import torch

from wavemill.errors import ShapeMismatch
from wavemill.maxent import Gaussian
from wavemill.maxent.dual import BandSpectrum
from wavemill.moments.phase_harmonics import PhaseHarmonicCovariance
from wavemill.spectra import flatness, skewness


def reference(side: int = 32) -> torch.Tensor:
    """A field of anisotropic spectrum and skewed values."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(side, side, generator=generator, dtype=torch.float64)
    k = torch.fft.fftfreq(side, 1 / side, dtype=torch.float64)
    gain = 1 / (1 + (k[:, None] + k[None] / 2) ** 2 / 4 + k[None] ** 2 / 30)
    return torch.fft.ifft2(torch.fft.fft2(noise) * gain).real.exp()


def power(x: torch.Tensor) -> torch.Tensor:
    return torch.fft.rfft2(x - x.mean(), norm="ortho").abs().square()


def test_the_fitted_spectrum_has_the_moments_of_the_reference() -> None:
    bands, spectrum = BandSpectrum((32, 32), 3, 4, 1), power(reference())
    fitted = bands.fit(spectrum)
    assert (fitted[1:, 1:] > 0).all()
    expected, found = bands.moments(spectrum), bands.moments(fitted)
    # Newton's method ends where a step would gain 1e-20: its error is the root of that.
    assert (found - expected).abs().max() < 1e-8 * expected.abs().max()
    assert not torch.allclose(fitted, spectrum, rtol=0.1)


def test_no_spectrum_of_the_same_moments_has_more_entropy() -> None:
    """The reference's own has less, and so has any between the two; all have the same moments."""
    bands, spectrum = BandSpectrum((32, 32), 3, 4, 1), power(reference())
    fitted = bands.fit(spectrum)
    weights = torch.tensor([0.05, 0.2, 0.5, 0.9])
    mixtures = [(1 - t) * fitted + t * spectrum for t in (0.0, *weights)]
    entropies = [float(bands.weight[1:] @ mix.flatten()[1:].log()) for mix in mixtures]
    assert entropies == sorted(entropies, reverse=True)


def test_moments_are_those_of_the_covariance_operator() -> None:
    x, bands = reference(), BandSpectrum((32, 32), 3, 4, 1)
    operator = PhaseHarmonicCovariance((32, 32), 3, 4, "A", 1, torch.float64)
    torch.testing.assert_close(bands.moments(power(x)), operator(x), rtol=0, atol=1e-12)


def test_samples_are_gaussian_and_have_the_energies_of_the_bands_on_average() -> None:
    x = reference()
    model = Gaussian({"method": "bands", "J": 3}).fit(x)
    drawn = model.sample(200).double()
    operator = PhaseHarmonicCovariance((32, 32), 3, 4, "A0", 0, torch.float64)
    ratio = operator(drawn).mean(0) / operator(x)
    # A band of few modes scatters by as much as it holds: 1 / sqrt(200) = 0.07, four times that.
    assert (ratio - 1).abs().max() < 0.28
    assert abs(float(skewness(drawn).mean())) < 0.1 < float(skewness(x))
    assert abs(float(flatness(drawn).mean()) - 3) < 0.3
    again = Gaussian.from_state(model.spec, model.state())
    torch.testing.assert_close(again.sample(1), model.sample(1), rtol=0, atol=0)


def test_several_components_are_refused() -> None:
    with pytest.raises(ShapeMismatch, match="one component"):
        Gaussian({"method": "bands", "J": 2}).fit(reference(16).expand(1, 2, 16, 16))
