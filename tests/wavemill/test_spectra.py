"""Spectra and moments of fields equal closed forms."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch

from wavemill.errors import InvalidParameter, ShapeMismatch
from wavemill.evaluation.bispectrum import bispectrum
from wavemill.evaluation.diversity import best_correlation
from wavemill.fields import gradient, vorticity
from wavemill.spectra import (
    PowerSpectrum,
    flatness,
    isotropic_spectrum,
    pdf,
    skewness,
    structure_functions,
)

EXACT = 1e-12


def field(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("shape", [(32, 32), (31, 32), (20, 33), (15, 15)])
@pytest.mark.parametrize("spacing", [(1.0, 1.0), (0.5, 0.25)])
def test_shells_add_up_to_the_variance(
    shape: tuple[int, int], spacing: tuple[float, float]
) -> None:
    x = field(3, *shape)
    spectrum = PowerSpectrum(shape, spacing, torch.float64)(x)
    torch.testing.assert_close(spectrum[:, 0], x.mean((1, 2)), rtol=EXACT, atol=EXACT)
    total = spectrum[:, 1:].sum(-1)
    torch.testing.assert_close(total, x.var((1, 2), correction=0), rtol=EXACT, atol=0)


def test_modes_of_all_shells_add_up_to_the_points() -> None:
    assert PowerSpectrum((20, 33)).coefficients["modes"].sum() == 20 * 33


def test_a_plane_wave_is_in_the_shell_of_its_wavenumber() -> None:
    n, side = 64, 2 * math.pi
    y, x = torch.meshgrid(*2 * [torch.arange(n, dtype=torch.float64) * side / n], indexing="ij")
    op = PowerSpectrum((n, n), (side / n, side / n), torch.float64)
    values = op(3 * torch.cos(5 * x + 12 * y))
    (peak,) = (values > 1e-20).nonzero()[:, 0]
    assert op.coefficients["wavenumber"][peak] == pytest.approx(13)
    assert values[peak] == pytest.approx(4.5)


def test_the_density_of_the_spectrum_integrates_to_the_variance() -> None:
    x = field(2, 32, 48)
    wavenumber, density = isotropic_spectrum(x, (0.1, 0.1))
    width = wavenumber[1] - wavenumber[0]
    variance = x.var((1, 2), correction=0)
    torch.testing.assert_close(density.sum(-1) * width, variance, rtol=EXACT, atol=0)


def test_the_density_of_values_integrates_to_one() -> None:
    x = field(4, 64, 64)
    centres, density = pdf(x, bins=40)
    assert float(density.sum() * (centres[1] - centres[0])) == pytest.approx(1, abs=EXACT)


def test_moments_equal_closed_forms() -> None:
    """A cosine has flatness 3/2 and no skewness; a 1 in n has skewness (n - 2) / sqrt(n - 1)."""
    wave = torch.cos(2 * math.pi * torch.arange(64, dtype=torch.float64) / 64).repeat(64, 1)
    assert float(flatness(wave)) == pytest.approx(1.5)
    assert float(skewness(wave)) == pytest.approx(0, abs=EXACT)
    point = torch.zeros(8, 8, dtype=torch.float64)
    point[3, 4] = 1
    assert float(skewness(point)) == pytest.approx(62 / math.sqrt(63))


@pytest.mark.parametrize("unit", [1e-300, 1e160, 1e300])
def test_moments_do_not_depend_on_units(unit: float) -> None:
    x = field(2, 16, 16).exp()
    for moment in (skewness, flatness):
        torch.testing.assert_close(moment(unit * x), moment(x), rtol=1e-9, atol=0)


@pytest.mark.parametrize("value", [0.0, 0.1, 273.15, 1e8 / 3])
def test_constant_fields_whose_mean_rounds_have_no_moments(value: float) -> None:
    x = torch.full((2, 37, 41), value, dtype=torch.float64, requires_grad=True)
    for moment in (skewness, flatness):
        assert moment(x).tolist() == [0, 0]
        assert torch.autograd.grad(moment(x).sum(), x)[0].isfinite().all()
    assert best_correlation(x, field(2, 37, 41)).tolist() == [0, 0]
    assert skewness(torch.tensor([[1.0, 1], [math.nan, 1]])).isnan()


@pytest.mark.parametrize(
    "measure",
    [
        skewness,
        flatness,
        lambda x: structure_functions(x, [1]),
        lambda x: isotropic_spectrum(x)[1],
        bispectrum,
        gradient,
        vorticity,
        lambda x: best_correlation(x, x),
        PowerSpectrum((12, 9), dtype=torch.float64),
    ],
)
def test_no_fields_have_no_statistics(measure: Callable[[torch.Tensor], torch.Tensor]) -> None:
    fields = field(3, 2, 12, 9)
    none = measure(fields[:0].requires_grad_())
    assert none.shape == (0, *measure(fields).shape[1:])
    none.sum().backward()


@pytest.mark.parametrize(
    ("measure", "message"),
    [
        (lambda x: structure_functions(x, []), r"lags \[\] must be in"),
        (lambda x: structure_functions(x, [1.5]), "lag must be a whole number"),  # type: ignore[list-item]
        (lambda x: structure_functions(x, [1], []), r"orders \[\] .* above 0"),
        (lambda x: structure_functions(x, [1], [2, 0]), r"orders \[2, 0\] .* above 0"),
        (lambda x: structure_functions(x + 0j, [1]), "expected real fields"),
        (lambda x: flatness(x + 0j), "expected real fields"),
        (lambda x: isotropic_spectrum(x[0]), "expected real fields"),
    ],
)
def test_what_cannot_be_measured_is_refused(
    measure: Callable[[torch.Tensor], torch.Tensor], message: str
) -> None:
    with pytest.raises(InvalidParameter, match=message):
        measure(field(8, 8))


def test_second_order_structure_functions_are_twice_the_lost_correlation() -> None:
    x = field(32, 32)
    x = x - x.mean()
    measured = structure_functions(x, [1, 3], [2.0])
    expected = [
        2 * (x.square().mean() - ((x * x.roll(lag, 0)).mean() + (x * x.roll(lag, 1)).mean()) / 2)
        for lag in (1, 3)
    ]
    torch.testing.assert_close(measured.flatten(), torch.stack(expected), rtol=EXACT, atol=0)


def test_what_is_no_field_is_refused() -> None:
    with pytest.raises(ShapeMismatch, match="built for real fields"):
        PowerSpectrum((8, 8))(torch.zeros(8, 9))
    with pytest.raises(InvalidParameter, match="spacings above 0"):
        PowerSpectrum((8, 8), (1.0, 0.0))


@pytest.mark.filterwarnings("ignore:.torch.jit.script:DeprecationWarning")  # torch's own
@pytest.mark.parametrize("shape", [(6, 5), (4, 8)])
def test_gradients_are_exact(shape: tuple[int, int]) -> None:
    op, x = PowerSpectrum(shape, dtype=torch.float64), field(2, *shape).requires_grad_()
    assert torch.autograd.gradcheck(op, x, check_forward_ad=True, check_batched_grad=True)
    assert torch.autograd.gradgradcheck(op, x)
    for moment in (skewness, flatness):
        assert torch.autograd.gradcheck(moment, x)
    assert torch.autograd.gradcheck(lambda x: structure_functions(x, [1, 2], [2.0]), x)


@pytest.mark.parametrize("value", [0.0, 1.0, 1e15, 1e-30])
def test_extreme_fields_have_finite_spectra_and_gradients(value: float) -> None:
    """Squares of float32 overflow above 1e19; float64 reaches 1e154."""
    for x in (value * torch.ones(8, 8), value * field(8, 8).float()):
        x.requires_grad_()
        y = PowerSpectrum((8, 8))(x)
        y.sum().backward()
        assert torch.isfinite(y).all()
        assert x.grad is not None
        assert torch.isfinite(x.grad).all()
    huge = PowerSpectrum((8, 8), dtype=torch.float64)(1e30 * field(8, 8))
    assert torch.isfinite(huge).all()


def test_precision_follows_the_operator() -> None:
    op, x = PowerSpectrum((8, 9)), field(8, 9)
    assert op(x.half()).dtype == torch.float32
    exact = PowerSpectrum((8, 9), dtype=torch.float64)(x)
    torch.testing.assert_close(op.double()(x), exact, rtol=0, atol=0)
