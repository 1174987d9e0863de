"""Rectifiers and phase harmonics: relations that are exact, and gradients that stay finite."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from wavemill.errors import InvalidParameter
from wavemill.harmonics import (
    harmonic_from_phases,
    inverse_rectifier,
    phase_harmonic,
    rectifier_coefficients,
    rectify,
)


def numbers(n: int = 50) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(n, generator=generator, dtype=torch.complex128)


def test_the_series_of_the_rectifier_equals_quadrature(golden: Path) -> None:
    with np.load(golden / "relu_phase_coefficients.npz") as reference:
        k, gamma = torch.from_numpy(reference["k"]), reference["gamma_hat_closed_form"]
    np.testing.assert_allclose(rectifier_coefficients(k).numpy(), gamma, rtol=0, atol=1e-16)


def test_the_series_of_the_rectifier_has_the_energy_of_the_rectifier() -> None:
    """Parseval: the mean of max(cos, 0)^2 is 1/4; the tail beyond |k| = K is below 1 / K^3."""
    energy = rectifier_coefficients(torch.arange(-2000, 2001)).square().sum()
    assert abs(energy - 0.25) < 2000.0**-3


@pytest.mark.parametrize("k", range(-4, 6))
def test_a_harmonic_keeps_the_modulus_and_multiplies_the_phase(k: int) -> None:
    z = numbers()
    expected = torch.polar(z.abs(), k * z.angle())
    torch.testing.assert_close(phase_harmonic(z, k) + 0j, expected, rtol=0, atol=1e-14)


@pytest.mark.parametrize("k", range(-3, 5))
def test_gradients_of_harmonics_are_exact(k: int) -> None:
    assert torch.autograd.gradcheck(lambda z: phase_harmonic(z, k), numbers(8).requires_grad_())


@pytest.mark.parametrize("k", range(-3, 5))
def test_gradients_of_harmonics_are_finite_at_zero(k: int) -> None:
    z = torch.zeros(3, dtype=torch.complex64, requires_grad=True)
    phase_harmonic(z, k).abs().square().sum().backward()
    assert z.grad is not None
    assert torch.isfinite(torch.view_as_real(z.grad.resolve_conj())).all()


@pytest.mark.parametrize("A", [4, 6, 8, 16])
def test_rectified_phases_invert_linearly(A: int) -> None:
    z = numbers()
    torch.testing.assert_close(inverse_rectifier(rectify(z, A)), z, rtol=0, atol=1e-14)


@pytest.mark.parametrize(("A", "low", "high"), [(4, -0.215, 0.111), (16, -0.0131, 0.0066)])
def test_the_modulus_from_few_phases_aliases_as_documented(A: int, low: float, high: float) -> None:
    z = torch.exp(1j * torch.linspace(0, 6.3, 1000, dtype=torch.float64))
    error = harmonic_from_phases(rectify(z, A), 0).real - 1
    assert low < error.min() < 0.95 * low
    assert 0.95 * high < error.max() < high


@pytest.mark.parametrize("A", [3, 5, 2])
def test_phases_that_do_not_determine_the_number_are_refused(A: int) -> None:
    with pytest.raises(InvalidParameter, match="A >= 4"):
        inverse_rectifier(rectify(numbers(), A))


def test_harmonics_that_the_rectifier_loses_are_refused() -> None:
    with pytest.raises(InvalidParameter, match="k=3"):
        harmonic_from_phases(rectify(numbers(), 8), 3)
