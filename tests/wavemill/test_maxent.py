"""Models reproduce the moments that they hold, from the seed alone."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.optimize
import torch
from sklearn.base import clone

from wavemill.errors import InvalidParameter, NotFitted, ShapeMismatch
from wavemill.estimators import Specified
from wavemill.generation import Generator
from wavemill.maxent import Energy, Gaussian, Microcanonical
from wavemill.maxent.coordinates import Coordinates
from wavemill.maxent.descent import TRIALS, Descent, descend
from wavemill.replay import Replayed
from wavemill.specs import EnergySpec, GaussianSpec, MicrocanonicalSpec, ScatteringSpec
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


@pytest.mark.parametrize(
    "model",
    [
        Gaussian(),
        Microcanonical({"J": 2, "iterations": 3}),
        Microcanonical({"J": 2, "iterations": 12, "dtype": "float64"}),
    ],
)
def test_a_sample_depends_on_seed_and_index_alone(model) -> None:
    model.fit(smooth(2, 24))
    two, three = model.sample(2, seed=5), model.sample(3, seed=5)
    torch.testing.assert_close(two, three[:2], rtol=0, atol=0)
    torch.testing.assert_close(model.sample(2, 5, first=1), three[1:], rtol=0, atol=0)
    assert not torch.equal(two[0], two[1])
    assert not torch.equal(two, model.sample(2, seed=6))


@pytest.mark.parametrize(
    "model",
    [
        Gaussian(),
        Microcanonical({"J": 2, "iterations": 2}),
        Energy({"J": 1, "L": 2, "set": "A0", "steps": 2}),
    ],
)
def test_numbers_of_samples_are_whole_and_may_be_those_of_numpy(
    model: Gaussian | Microcanonical | Energy,
) -> None:
    model.fit(smooth(1, 16))
    expected = model.sample(1, seed=2**40, first=3)
    found = model.sample(np.int32(1), seed=np.int64(2**40), first=np.uint8(3))  # type: ignore[arg-type]
    assert torch.equal(found, expected)
    for wrong in ({"n": 1.5}, {"n": True}, {"seed": 1.5}, {"first": "1"}):
        with pytest.raises(InvalidParameter, match=f"{next(iter(wrong))} must be a whole number"):
            model.sample(**{"n": 1, **wrong})


@pytest.mark.parametrize("kind", ["C", "H", "rectifier", "scattering"])
def test_models_are_fitted_and_sampled_in_inference_mode(kind: str) -> None:
    spec = {"set": kind, "J": 2, "L": 2, "lags": 1, "iterations": 3}
    expected = Microcanonical(spec).fit(smooth(1, 16)).sample(1)
    with torch.inference_mode():
        model = Microcanonical(spec).fit(smooth(1, 16))
        inside = model.sample(1)
        again = Microcanonical.from_state(spec, {k: v + 0 for k, v in model.state().items()})
    for found in (inside, model.sample(1), again.sample(1)):
        torch.testing.assert_close(found, expected, rtol=0, atol=0)


def test_autocast_does_not_change_samples() -> None:
    model = Microcanonical({"set": "scattering", "J": 2, "L": 2, "iterations": 4}).fit(smooth(2))
    expected = model.sample(1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(model.sample(1), expected, rtol=0, atol=0)


@pytest.mark.parametrize("number", [0, 1])
def test_functions_are_replayed_on_the_device_of_their_argument(number: int) -> None:
    if torch.cuda.device_count() <= number:
        pytest.skip(f"needs {number + 1} GPUs")
    double = Replayed(lambda x: (2 * x,))
    for value in range(6):  # the last ones replayed, while the current device is another
        x = torch.full((3,), float(value), device=f"cuda:{number}")
        assert double(x)[0].tolist() == [2.0 * value] * 3


@pytest.mark.parametrize("kind", ["scattering", "rectifier", "H"])
def test_bands_without_power_do_not_keep_white_noise_from_descending(kind: str) -> None:
    wave = torch.sin(torch.arange(32) * torch.pi / 4).repeat(32, 1)
    model = Microcanonical({"set": kind, "J": 3, "L": 2, "iterations": 12, "start": "white"})
    model.fit(wave).sample(1)
    assert model.losses_[0].min() < 0.2


def test_a_loss_that_is_not_finite_where_descent_begins_says_what_to_choose() -> None:
    model = Microcanonical({"J": 2, "iterations": 2}).fit(smooth(1, 16))
    model.moments_.values[0] = torch.inf
    with pytest.raises(InvalidParameter, match=r"sample 3 begins with a loss of inf.*start='spec"):
        model.sample(1, first=3)


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


def test_descent_is_as_good_as_scipys() -> None:
    """After equally many gradients: within a factor of 2 of fmin_l_bfgs_b, over four starts."""
    model = Microcanonical({"J": 2, "iterations": 60, "start": "white"}).fit(smooth(1))
    model.sample(4)
    ratios = []
    for number, start in enumerate(model.starts(range(4), 0)):
        theirs = scipy_losses(model, start)
        ratios.append(model.losses_[number].min() * theirs[0] / min(theirs))
    assert np.exp(np.mean(np.log(ratios))) < 2


def scipy_losses(model: Microcanonical, start: torch.Tensor) -> list[float]:
    losses: list[float] = []

    def evaluate(flat: np.ndarray) -> tuple[float, np.ndarray]:
        x = torch.tensor(flat).reshape(start.shape)
        loss, gradient = model.operator.loss_and_gradient(x, model.moments_)
        losses.append(float(loss))
        return losses[-1], gradient.double().numpy().ravel()

    flat, count = start.numpy().ravel(), model.spec.iterations
    scipy.optimize.fmin_l_bfgs_b(evaluate, flat, m=20, factr=0, pgtol=0, maxfun=count)
    return losses[:count]


def test_descent_that_cannot_go_down_does_not_search_along_the_gradient_twice() -> None:
    def misleading(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return (x != 0).any(-1).double(), torch.ones_like(x)

    descent = Descent(torch.zeros(3, dtype=torch.float64))
    descend([descent], misleading, 100)
    assert descent.stopped
    assert len(descent.losses) == 1 + TRIALS


def test_descent_finds_the_minimum_of_a_quadratic_and_of_a_modulus() -> None:
    curvature = torch.logspace(0, 3, 12, dtype=torch.float64)
    kink = torch.arange(12, dtype=torch.float64)

    def quadratic(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return (curvature * x**2).sum(-1) / 2, curvature * x

    def modulus(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return (x - kink).abs().sum(-1) + x.square().sum(-1) / 200, (x - kink).sgn() + x / 100

    for function, minimum in ((quadratic, torch.zeros_like(kink)), (modulus, kink)):
        generator = torch.Generator().manual_seed(0)
        starts = torch.randn((20, 12), generator=generator, dtype=torch.float64)
        descents = [Descent(start) for start in starts]
        descend(descents, function, 400)
        for descent in descents:
            assert (descent.best - minimum).abs().max() < 1e-3


@pytest.mark.parametrize("shape", [(2, 16, 12), (1, 15, 20), (9, 7)])
def test_coordinates_are_a_symmetric_map_with_an_inverse(shape: tuple[int, ...]) -> None:
    """Gradients go through the transposed map, which is the map itself."""
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn((2, 1, *shape), generator=generator, dtype=torch.float64)
    components = shape[0] if len(shape) == 3 else 1
    power = torch.rand(components, shape[-2], shape[-1] // 2 + 1, generator=generator).double()
    for P in (power, torch.zeros_like(power).index_fill_(-1, torch.tensor([0, 1]), 1.0), None):
        map_ = Coordinates(P, (shape[-2], shape[-1]), torch.float32)
        torch.testing.assert_close(map_.field(map_.of(x)), x, rtol=0, atol=1e-5)
        torch.testing.assert_close((map_.field(x) * y).sum(), (x * map_.field(y)).sum())


def test_descents_make_spectra_that_fall_below_rounding() -> None:
    """There gradients of the high frequencies are rounding, and must leave these alone."""
    k = torch.fft.fftfreq(64, 1 / 64, dtype=torch.float64)
    noise = torch.randn(64, 64, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    gain = torch.exp(-0.4 * torch.hypot(k[:, None], k[None, :33]))
    x = torch.fft.irfft2(torch.fft.rfft2(noise) * gain, s=(64, 64))
    drawn = Microcanonical({"J": 4, "iterations": 100}).fit(x).sample(1)[0]
    expected, found = (spectrum(field.double())[1:] for field in (x, drawn))
    assert expected.min() < 1e-12 * expected.max()
    # Shells of a few modes scatter; a descent in points is off by 19 where there is least power.
    assert (found[3:] / expected[3:]).log().abs().max() < 4


def test_a_descent_stops_at_its_tolerances() -> None:
    x = smooth(1)
    all_of_them = Microcanonical({"J": 2, "iterations": 40}).fit(x)
    all_of_them.sample(1)
    losses = all_of_them.losses_[0]
    early = Microcanonical({"J": 2, "iterations": 40, "tolerance": 0.05}).fit(x)
    early.sample(1)
    assert len(early.losses_[0]) == np.flatnonzero(losses <= 0.05)[0] + 1
    steep = Microcanonical({"J": 2, "iterations": 40, "gradient_tolerance": 0.5}).fit(x)
    steep.sample(1)
    assert len(steep.losses_[0]) < 40


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_run_that_was_stopped_goes_on_to_the_same_samples(dtype: str) -> None:
    model = Microcanonical({"J": 2, "iterations": 12, "dtype": dtype}).fit(smooth(1))
    states: list[dict[str, torch.Tensor]] = []
    whole = model.sample(2, seed=4, checkpoint=states.append)
    losses = model.losses_
    assert len(states) == 12
    resumed = model.sample(2, seed=4, resume=states[5])
    torch.testing.assert_close(resumed, whole, rtol=0, atol=0)
    for one, other in zip(losses, model.losses_, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("other", [{"seed": 5}, {"first": 1}, {"n": 1}])
def test_a_run_is_not_continued_as_another(other: dict[str, int]) -> None:
    model = Microcanonical({"J": 2, "iterations": 3}).fit(smooth(1, 16))
    states: list[dict[str, torch.Tensor]] = []
    asked = {"n": 2, "seed": 2**64 + 4}
    whole = model.sample(**asked, checkpoint=states.append)
    with pytest.raises(InvalidParameter, match=r"\[4, 0, 2, 1, 16, 16\], asked were"):
        model.sample(**{**asked, **other}, resume=states[1])
    del states[1]["asked"]  # like states that do not say
    assert torch.equal(model.sample(**asked, resume=states[1]), whole)


def test_samples_descend_the_same_in_groups_of_any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Microcanonical({"J": 2, "iterations": 4}).fit(smooth(1))
    together = model.sample(3)
    monkeypatch.setattr("wavemill.maxent.microcanonical.REMEMBERED", 0)
    torch.testing.assert_close(model.sample(3), together, rtol=0, atol=0)


def test_what_cannot_be_modelled_is_refused() -> None:
    with pytest.raises(NotFitted, match="fit first"):
        Microcanonical().sample(1)
    with pytest.raises(NotFitted, match="fit first"):
        Gaussian().sample(1)
    with pytest.raises(ShapeMismatch, match="real fields"):
        Microcanonical({"J": 2}).fit(torch.zeros(1, 1, 2, 32, 32))
    with pytest.raises(InvalidParameter):
        Gaussian().fit(smooth(1)).sample(0)
    masked = np.ma.masked_greater(smooth(1).numpy(), 1.0)
    with pytest.raises(InvalidParameter, match=r"of 1024 values are masked: .* fill them"):
        Gaussian().fit(masked)
    with pytest.raises(ShapeMismatch, match="expected an array of numbers"):
        Gaussian().fit([[1.0, 2.0], [3.0]])
    for wrong in (3, EnergySpec()):
        with pytest.raises(InvalidParameter, match="expected a GaussianSpec, its parameters or"):
            Gaussian(wrong)  # type: ignore[arg-type]


def test_what_is_none_of_a_parameters_choices_is_refused() -> None:
    with pytest.raises(InvalidParameter, match="method='phase' is not one of gaussian, phases"):
        GaussianSpec(method="phase")  # type: ignore[arg-type]
    with pytest.raises(InvalidParameter, match="borders='periodic' is not one of wrap, mask"):
        MicrocanonicalSpec(borders="periodic")  # type: ignore[arg-type]
    with pytest.raises(InvalidParameter, match="stored='float' is not one of float16, float32"):
        ScatteringSpec(stored="float")  # type: ignore[arg-type]
    assert ScatteringSpec(stored=None).stored is None


@pytest.mark.parametrize("model", [Gaussian, Microcanonical, Energy])
@pytest.mark.parametrize(
    ("x", "said"),
    [
        (torch.ones(2, 32, 32), "all values are equal"),
        (torch.full((2, 32, 32), torch.nan), "2048 of 2048 values are not finite"),
        (smooth(1) * 1e200, "choose units"),
        (smooth(1) * 1e-200, "choose units"),
    ],
)
def test_every_model_says_why_values_cannot_be_modelled(
    model: type[Gaussian | Microcanonical | Energy], x: torch.Tensor, said: str
) -> None:
    with pytest.raises(InvalidParameter, match=said):
        model().fit(x)


@pytest.mark.parametrize(
    "model", [Gaussian(), Microcanonical({"J": 2}), Energy({"J": 1, "L": 2, "set": "A0"})]
)
def test_every_model_is_fitted_to_arrays_of_any_layout(
    model: Gaussian | Microcanonical | Energy,
) -> None:
    x = smooth(1, 16)
    expected, array = model.fit(x).state(), x.numpy()
    layouts = (
        array,
        array.astype(">f8"),
        np.ma.array(array),
        array[:, ::-1].copy()[:, ::-1],
        array.tolist(),
        x.clone().requires_grad_(),
    )
    for layout in layouts:
        for name, value in model.fit(layout).state().items():
            assert torch.equal(value, expected[name]), name
            assert not value.requires_grad


@pytest.mark.parametrize(
    "model",
    [
        Gaussian({"J": 2, "method": "bands"}),
        Microcanonical({"J": 2}),
        Energy({"J": 2}),
        Generator({"J": 2}),
    ],
)
def test_models_are_cloned_and_changed_as_scikit_learns_are(model: Specified) -> None:
    made = clone(model)
    assert made is not model
    assert (repr(made), made.spec) == (repr(model), model.spec)
    assert made.set_params(L=3) is made
    assert made.spec.parameters() == model.spec.parameters() | {"L": 3}
    assert made.set_params().spec.L == made.set_params(spec=made.spec).spec.L == 3
    with pytest.raises(InvalidParameter, match="has no parameter 'Q'"):
        made.set_params(Q=1)
    with pytest.raises(InvalidParameter, match="J"):
        made.set_params(J=-1)
