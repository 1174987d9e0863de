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

FORWARD = pytest.mark.filterwarnings("ignore:.torch.jit.script:DeprecationWarning")  # torch's own


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


@FORWARD
@pytest.mark.parametrize("k", range(-3, 5))
def test_gradients_of_harmonics_are_exact(k: int) -> None:
    """Backward and forward, batched, and of second order."""
    z = numbers(8).requires_grad_()
    assert torch.autograd.gradcheck(
        phase_harmonic, (z, k), check_forward_ad=True, check_batched_grad=True
    )
    assert torch.autograd.gradgradcheck(phase_harmonic, (z, k))


@pytest.mark.parametrize("size", [0.0, 1.0, 1e30, 1e-30, 1e-37])
@pytest.mark.parametrize("k", range(-3, 5))
def test_harmonics_of_any_size_have_finite_gradients(k: int, size: float) -> None:
    """The gradient of [z]^k is bounded by |k| and is 0 at 0 unless k = 1 or -1."""
    z = (size * torch.tensor([1 + 1j, 1, -1j, 0], dtype=torch.complex64)).requires_grad_()
    harmonic = phase_harmonic(z, k)
    (torch.view_as_real(harmonic + 0j).sum()).backward()
    assert torch.isfinite(torch.view_as_real(harmonic + 0j)).all()
    assert z.grad is not None
    gradient = z.grad.resolve_conj().abs()
    assert (gradient <= 1.5 * max(abs(k), 1) * 2**0.5).all()
    if abs(k) != 1:
        assert gradient[-1] == 0


@FORWARD
def test_functional_transforms_of_harmonics_agree_with_loops() -> None:
    z = numbers(6)
    each = torch.func.vmap(lambda value: phase_harmonic(value, 3))(z.reshape(2, 3))
    torch.testing.assert_close(each.flatten(), phase_harmonic(z, 3), rtol=0, atol=0)
    _, along = torch.func.jvp(lambda value: phase_harmonic(value, 2), (z,), (z,))
    torch.testing.assert_close(along, phase_harmonic(z, 2), rtol=1e-14, atol=0)  # homogeneous


def test_the_compiled_harmonic_is_the_same() -> None:
    z = numbers(6).requires_grad_()
    compiled = torch.compile(
        lambda value: phase_harmonic(value, 3), backend="aot_eager", fullgraph=True
    )
    results = [f(z).real.sum() for f in (compiled, lambda value: phase_harmonic(value, 3))]
    torch.testing.assert_close(*results, rtol=1e-14, atol=0)
    gradients = [torch.autograd.grad(result, z)[0] for result in results]
    torch.testing.assert_close(*gradients, rtol=0, atol=1e-14)


@FORWARD
@pytest.mark.parametrize("A", [3, 4])
def test_gradients_of_rectifiers_and_their_inverses_are_exact(A: int) -> None:
    z = numbers(8).requires_grad_()
    options = {"check_forward_ad": True, "check_batched_grad": True}
    assert torch.autograd.gradcheck(lambda value: rectify(value, A), z, **options)
    U = rectify(z, 4).detach().requires_grad_()
    assert torch.autograd.gradcheck(inverse_rectifier, U, **options)
    assert torch.autograd.gradcheck(lambda value: harmonic_from_phases(value, 2), U, **options)


@pytest.mark.parametrize("A", [3, 4, 16])
def test_rectified_phases_equal_their_series(A: int) -> None:
    """rho(Re(e^{i alpha} z)) = sum_k gamma(k) [z]^k e^{i k alpha}, summed until 1e-6."""
    z = numbers(5)
    k = torch.arange(-1200, 1201, 2)
    k = torch.cat([k, torch.tensor([-1, 1])])
    alpha = 2 * torch.pi * torch.arange(A, dtype=torch.float64) / A
    phase = k[:, None, None] * (z.angle()[:, None] + alpha)
    series = (rectifier_coefficients(k)[:, None, None] * torch.exp(1j * phase)).sum(0)
    expected = z.abs()[:, None] * series.real
    # The tail of 2 / (pi k^2) over even k is below 2 / (pi K).
    torch.testing.assert_close(rectify(z, A), expected, rtol=0, atol=6e-4 * float(z.abs().max()))


@pytest.mark.parametrize("k", [0, 1, -1, 2, 4, 6])
def test_coefficients_of_the_rectifier_equal_quadrature(k: int) -> None:
    """gamma(k) |z| e^{i k phase} is the k-th Fourier coefficient over phases, to 1e-6."""
    A, z = 4096, numbers(7)
    alpha = 2 * torch.pi * torch.arange(A, dtype=torch.float64) / A
    measured = (rectify(z, A) * torch.exp(-1j * k * alpha)).mean(-1)
    gamma = rectifier_coefficients(torch.tensor(k))
    torch.testing.assert_close(measured, gamma * phase_harmonic(z, k) + 0j, rtol=0, atol=1e-6)


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
