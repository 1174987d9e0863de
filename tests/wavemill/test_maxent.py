"""Models reproduce what they hold, from the seed alone."""

from __future__ import annotations

import pytest
import torch

from wavemill.errors import InvalidParameter, NotFitted, ShapeMismatch
from wavemill.maxent import Gaussian, Microcanonical
from wavemill.spectra import PowerSpectrum, flatness


def smooth(n: int, side: int = 32, seed: int = 0) -> torch.Tensor:
    """Fields of spectrum about 1 / (1 + k^2)^2, made intermittent by a cube."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn((n, side, side), generator=generator, dtype=torch.float64)
    k = torch.fft.fftfreq(side, 1 / side, dtype=torch.float64)
    gain = 1 / (1 + (k[:, None] ** 2 + k[None, : side // 2 + 1] ** 2) / 9)
    x = torch.fft.irfft2(torch.fft.rfft2(noise) * gain[:, : side // 2 + 1], s=(side, side))
    return (x / x.std()) ** 3


def spectrum(x: torch.Tensor) -> torch.Tensor:
    return PowerSpectrum(tuple(x.shape[-2:]), dtype=torch.float64)(x)


def test_gaussian_samples_have_the_spectrum_of_the_references_on_average() -> None:
    x = smooth(8)
    drawn = Gaussian().fit(x).sample(400, seed=1).double()
    expected, found = spectrum(x).mean(0)[1:], spectrum(drawn).mean(0)[1:]
    modes = torch.from_numpy(PowerSpectrum((32, 32)).coefficients["modes"][1:])
    # A shell of m independent modes of one variance scatters by sqrt(2 / m); here modes of a shell
    # differ in variance, which costs a factor below 2. Five deviations of 400 samples.
    assert ((found / expected - 1).abs() < 5 * 2 * (2 / modes).sqrt() / 20).all()


def test_gaussian_samples_are_gaussian() -> None:
    x = smooth(8)
    drawn = Gaussian().fit(x).sample(100)
    assert flatness(x).mean() > 6
    assert abs(float(flatness(drawn).mean()) - 3) < 0.3


def test_random_phases_have_exactly_the_fitted_spectrum() -> None:
    x = smooth(1)
    drawn = Gaussian({"method": "phases", "dtype": "float64"}).fit(x).sample(3)
    torch.testing.assert_close(spectrum(drawn), spectrum(x).expand(3, -1), rtol=1e-9, atol=1e-12)


def test_gaussian_samples_keep_the_correlation_of_components() -> None:
    a, b = smooth(4, seed=1), smooth(4, seed=2)
    x = torch.stack([a, 0.8 * a + 0.6 * b], dim=1)
    drawn = Gaussian().fit(x).sample(200).double()
    assert drawn.shape == (200, 2, 32, 32)
    expected, found = (torch.corrcoef(y.movedim(1, 0).flatten(1))[0, 1] for y in (x, drawn))
    assert abs(expected - found) < 0.05


@pytest.mark.parametrize("model", [Gaussian(), Microcanonical({"J": 2, "iterations": 3})])
def test_a_sample_depends_on_seed_and_index_alone(model) -> None:
    model.fit(smooth(2))
    two, three = model.sample(2, seed=5), model.sample(3, seed=5)
    torch.testing.assert_close(two, three[:2], rtol=0, atol=0)
    assert not torch.equal(two[0], two[1])
    assert not torch.equal(two, model.sample(2, seed=6))


@pytest.mark.parametrize("model", [Gaussian(), Microcanonical({"J": 2, "iterations": 3})])
def test_a_model_rebuilt_from_its_state_draws_the_same(model) -> None:
    model.fit(smooth(2))
    again = type(model).from_state(model.spec, model.state())
    torch.testing.assert_close(again.sample(1), model.sample(1), rtol=0, atol=0)
    assert all(not value.is_complex() for value in model.state().values())


def test_descent_lowers_the_loss_by_orders_of_magnitude_and_makes_up_flatness() -> None:
    x = smooth(1, 64)
    model = Microcanonical({"J": 3, "iterations": 100}).fit(x)
    drawn = model.sample(2)
    assert all(losses.min() < 1e-2 for losses in model.losses_)
    gaussian = Gaussian().fit(x).sample(2)
    distances = [abs(float(flatness(y).mean() - flatness(x).mean())) for y in (drawn, gaussian)]
    assert distances[0] < 0.6 * distances[1]  # of a cube: harder than turbulence


def test_descent_takes_no_more_gradients_than_allowed_and_says_how_far_it_is() -> None:
    told: list[tuple[int, int, dict[str, float]]] = []
    model = Microcanonical({"J": 2, "iterations": 7}).fit(smooth(1))
    model.sample(2, progress=lambda *arguments: told.append(arguments))
    assert [len(losses) for losses in model.losses_] == [7, 7]
    assert [step for step, _, _ in told] == list(range(1, 15))
    assert {total for _, total, _ in told} == {14}
    assert all(values["loss"] > 0 for _, _, values in told)


def test_what_cannot_be_modelled_is_refused() -> None:
    with pytest.raises(NotFitted, match="fit first"):
        Microcanonical().sample(1)
    with pytest.raises(NotFitted, match="fit first"):
        Gaussian().sample(1)
    with pytest.raises(InvalidParameter, match="all values are equal"):
        Microcanonical({"J": 2}).fit(torch.ones(32, 32))
    with pytest.raises(ShapeMismatch, match="one component"):
        Microcanonical({"J": 2}).fit(torch.zeros(1, 2, 32, 32))
    with pytest.raises(InvalidParameter):
        Gaussian().fit(smooth(1)).sample(0)
