"""Explicit energies: exact derivatives, the known Gaussian, sampling that can be trusted."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from torch import Tensor

from wavemill.errors import DivergentModel, InvalidParameter, NotFitted, ShapeMismatch
from wavemill.filters import bump_steerable
from wavemill.maxent import Energy
from wavemill.maxent.derivatives import MomentDerivatives, channel_statistics
from wavemill.maxent.energy import GROWTH, least_distance
from wavemill.moments.pairs import model
from wavemill.moments.phase_harmonics import PhaseHarmonicCovariance
from wavemill.moments.statistics import Moments
from wavemill.spectra import PowerSpectrum, flatness


def noise(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def metric(side: int) -> Tensor:
    """An even, positive function of frequency."""
    k = torch.fft.fftfreq(side, dtype=torch.float64)
    return 1 / (0.05 + k[:, None] ** 2 + k**2)


def derivatives(side: int, J: int, name: str, kernel: Tensor) -> tuple[MomentDerivatives, Tensor]:
    table, x = model(name, (side, side), J, 2, 1), noise(side, side, seed=1) ** 3
    mean, scale = channel_statistics(table, noise(2, side, side, seed=2) ** 3)
    return MomentDerivatives(table, mean, scale, kernel), x


def test_draws_do_not_depend_on_the_default_precision_of_torch(doubles: Any) -> None:
    model = Energy({"J": 1, "L": 2, "set": "A", "steps": 4}).fit(noise(3, 16, 16))
    expected = model.sample(1)
    with doubles():
        torch.testing.assert_close(model.sample(1), expected, rtol=0, atol=0)


def test_gradients_are_those_of_the_operator() -> None:
    found, x = derivatives(8, 2, "C", torch.ones(8, 8))
    op = PhaseHarmonicCovariance((8, 8), 2, 2, "C", 1, torch.float64)
    statistics = op.statistics(noise(2, 8, 8, seed=2) ** 3)
    gradients = torch.stack(list(found.gradients(x)))
    assert len(gradients) == found.table.real_count
    for seed in range(3):
        beta = noise(len(gradients), seed=seed)
        field = x.clone().requires_grad_()
        zero, shifted = Moments(statistics, 0 * beta), Moments(statistics, beta)
        (expected,) = torch.autograd.grad(op.loss(field, zero) - op.loss(field, shifted), field)
        total = 2 * (beta[:, None, None] * gradients).sum(0)
        torch.testing.assert_close(total, expected, rtol=1e-9, atol=1e-9 * float(total.abs().max()))


@pytest.mark.parametrize("flat", [True, False])
def test_laplacians_are_traces_of_the_hessian(flat: bool) -> None:
    kernel = torch.ones(6, 6).double() if flat else metric(6)
    found, x = derivatives(6, 2, "C", kernel)
    h, trace = 1e-5, 0.0
    for point in range(36):
        one = torch.zeros(36).double()
        one[point] = 1
        step = torch.fft.ifft2(torch.fft.fft2(one.reshape(6, 6)) * kernel.sqrt()).real
        up, down = (torch.stack(list(found.gradients(x + s * h * step))) for s in (1, -1))
        trace = trace + ((up - down) / (2 * h) * step).sum((-2, -1))
    scale = float(trace.abs().max())
    # Central differences: h^2 of the third derivative, and rounding over h.
    torch.testing.assert_close(found.laplacians(x), trace, rtol=1e-5, atol=1e-6 * scale)


def test_moduli_of_low_passes_have_no_laplacian() -> None:
    with pytest.raises(InvalidParameter, match="no Laplacian"):
        derivatives(16, 2, "C+L", torch.ones(16, 16))


def band_spectrum(side: int, J: int, L: int) -> Tensor:
    """A spectrum whose inverse is a sum over the bands of the set A0, with known weights."""
    inverse = 0.02 * bump_steerable.low_pass((side, side), bump_steerable.low_pass_width(J)) ** 2
    for j in range(J):
        for q, psi in enumerate(bump_steerable.wavelets_at((side, side), j, range(2 * L), L)):
            inverse = inverse + 4.0 ** (-j) * (1 + 0.5 * (q % L)) * psi.square()
    return 1 / inverse


def coloured(n: int, spectrum: Tensor, seed: int = 0) -> Tensor:
    white = torch.fft.fft2(noise(n, *spectrum.shape, seed=seed))
    return torch.fft.ifft2(white * spectrum.sqrt()).real


def test_the_energy_of_a_gaussian_is_its_inverse_spectrum() -> None:
    spectrum = band_spectrum(16, 2, 2)
    x = coloured(200, spectrum)
    fitted = Energy({"J": 2, "L": 2, "set": "A0", "lags": 0}).fit(x)
    standard = float(x.std())
    assert fitted.metrics_["constraints"] == fitted.metrics_["score_lost"] == 0
    # E is quadratic: at a wave of frequency w, of unit square norm, it is 1 / 2 S(w).
    for w in ((1, 0), (0, 3), (4, 4), (7, 2), (2, -5)):
        u = torch.arange(16, dtype=torch.float64) * 2 * math.pi / 16
        wave = torch.cos(w[0] * u[:, None] + w[1] * u + 0.3)
        wave = wave / wave.norm()
        found = float(fitted.energy(wave / standard))
        # Five weights from 200 x 256 numbers: a few percent each.
        assert found == pytest.approx(float(0.5 / spectrum[w[0], w[1]]), rel=0.1)
    # A quadratic form grows least at one frequency: the search finds it.
    whitened = 0.5 / spectrum * standard**2 * fitted._metric
    least = float(whitened[whitened > 0].min())
    assert fitted.metrics_["growth_worst"] == pytest.approx(least, rel=0.15)
    assert fitted.metrics_["growth_worst"] <= fitted.metrics_["growth_random"]


def test_chains_sample_the_gaussian_and_report_their_acceptance() -> None:
    spectrum = band_spectrum(16, 2, 2)
    x = coloured(40, spectrum)
    fitted = Energy({"J": 2, "L": 2, "set": "A0", "lags": 0, "steps": 200, "dtype": "float64"})
    told: list[int] = []
    drawn = fitted.fit(x).sample(4, seed=1, progress=lambda done, total, values: told.append(done))
    assert told == list(range(1, 4 * 200 + 1))
    assert all(0.4 < rate < 0.75 for rate in fitted.acceptance_)  # aimed at 0.574
    assert len(fitted.drifts_) == 4
    assert np.mean(fitted.drifts_) < 1  # they have arrived, as far as 100 steps tell
    shells = PowerSpectrum((16, 16), dtype=torch.float64)
    ratio = shells(drawn).mean(0)[1:] / shells(x).mean(0)[1:]
    modes = torch.from_numpy(shells.coefficients["modes"][1:]).double()
    # Four deviations of a shell's sum of independent modes, over 4 chains.
    assert ((ratio - 1).abs() < 4 * (2 / (4 * modes)).sqrt() + 0.05).all()
    assert abs(float(flatness(drawn).mean()) - 3) < 0.4


def heavy_tails() -> Tensor:
    x = torch.fft.ifft2(torch.fft.fft2(noise(10, 8, 8)) * metric(8)).real
    return x / x.std() * (1 + 0.3 * (x / x.std()).square())


def test_the_share_of_a_gaussian_makes_up_for_what_constraints_do_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("wavemill.maxent.energy.ROUNDS", 1)
    fitted = Energy({"J": 2, "L": 2, "set": "B", "lags": 0}).fit(heavy_tails())
    assert 0 < fitted.metrics_["gaussian_share"] < 1
    assert fitted.metrics_["growth_worst"] == GROWTH / 2 <= fitted.metrics_["growth_random"]


def test_an_energy_that_would_not_grow_is_constrained_to() -> None:
    """For fields with heavy tails, the moduli would lower the energy of large values."""
    fitted = Energy({"J": 2, "L": 2, "set": "B", "lags": 0, "steps": 60}).fit(heavy_tails())
    assert fitted.metrics_["constraints"] > 0
    assert fitted.metrics_["gaussian_share"] == 0
    assert GROWTH / 2 <= fitted.metrics_["growth_worst"] <= fitted.metrics_["growth_random"]
    assert 0 < fitted.metrics_["score_lost"] < 1
    assert torch.isfinite(fitted.sample(2)).all()
    y = noise(8, 8, seed=3)
    growth = float(fitted._far(y)[0])
    assert float(fitted._far_moments(y) @ fitted.beta_) == pytest.approx(growth, rel=1e-9)
    far = float(fitted.energy(1e3 * fitted.colour(y))) / 1e6  # centring moves it by a thousandth
    assert far == pytest.approx(growth * float((y - y.mean()).square().sum()), rel=0.02)


def test_the_least_distance_meets_constraints_at_the_least_cost() -> None:
    rows, asked = noise(6, 9), noise(6, seed=1)
    found = least_distance(rows, asked)
    constraint = {"type": "ineq", "fun": lambda u: rows.numpy() @ u - asked.numpy()}
    expected = minimize(lambda u: u @ u, np.zeros(9), constraints=[constraint], tol=1e-14).x
    np.testing.assert_allclose(found.numpy(), expected, rtol=0, atol=1e-6)
    assert least_distance(rows, -asked.abs() - 1).abs().max() < 1e-12  # met by 0
    with pytest.raises(DivergentModel, match="no energy"):
        least_distance(torch.stack([rows[0], -rows[0]]), torch.ones(2).double())


def test_an_energy_that_falls_is_found_out() -> None:
    fitted = Energy({"J": 2, "L": 2, "set": "A0", "lags": 0, "steps": 200})
    fitted.fit(coloured(8, band_spectrum(16, 2, 2)))
    fitted.beta_ = -fitted.beta_
    assert fitted._worst_from(noise(16, 16))[0] < 0
    with pytest.raises(DivergentModel, match="no density"):
        fitted.sample(1)


def test_a_sample_depends_on_seed_and_index_alone_and_survives_storage() -> None:
    fitted = Energy({"J": 2, "L": 2, "set": "A", "steps": 5}).fit(noise(2, 16, 16))
    two, three = fitted.sample(2, seed=5), fitted.sample(3, seed=5)
    torch.testing.assert_close(two, three[:2], rtol=0, atol=0)
    torch.testing.assert_close(fitted.sample(2, 5, first=1), three[1:], rtol=0, atol=0)
    assert not torch.equal(two, fitted.sample(2, seed=6))
    again = Energy.from_state(fitted.spec, fitted.state())
    torch.testing.assert_close(again.sample(2, seed=5), two, rtol=0, atol=0)
    assert all(not value.is_complex() for value in fitted.state().values())


def test_what_cannot_be_modelled_is_refused() -> None:
    with pytest.raises(NotFitted, match="fit first"):
        Energy().sample(1)
    with pytest.raises(ShapeMismatch, match="one component"):
        Energy({"J": 2}).fit(noise(1, 2, 32, 32))
