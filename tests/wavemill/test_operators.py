"""What all transforms and moments of fields share: units, empty batches, precision, refusals."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import wavemill
from wavemill import (
    PhaseHarmonicCovariance,
    Scattering2D,
    ScatteringSpectra,
    WaveletTransform,
)
from wavemill.errors import InvalidParameter, ShapeMismatch
from wavemill.harmonics import phase_harmonic, rectify
from wavemill.moments.components import CrossCovariance
from wavemill.moments.high_orders import RectifierCovariance, SkewnessFlatness
from wavemill.moments.masked import MaskedCovariance
from wavemill.moments.pairs import pywph_classes
from wavemill.operators import FieldOperator

SHAPE = (16, 24)
MOMENTS = {
    "C": lambda **kw: PhaseHarmonicCovariance(SHAPE, 2, 4, **kw),
    "D": lambda **kw: PhaseHarmonicCovariance(SHAPE, 2, 4, "D", **kw),
    "pywph": lambda **kw: PhaseHarmonicCovariance(SHAPE, 2, 4, "pywph", **kw),
    "scattering": lambda **kw: ScatteringSpectra(SHAPE, 2, 2, **kw),
    "skewness": lambda **kw: SkewnessFlatness(SHAPE, 2, 2, **kw),
    "rectifier": lambda **kw: RectifierCovariance(SHAPE, 2, 2, **kw),
    "masked": lambda **kw: MaskedCovariance((16, 24), 1, 2, **kw),
}
TRANSFORMS = {
    "Scattering2D": lambda **kw: Scattering2D(SHAPE, 2, 4, **kw),
    "WaveletTransform": lambda **kw: WaveletTransform(SHAPE, 2, 4, **kw),
}
Maker = Callable[..., Any]
moments = pytest.mark.parametrize("make", MOMENTS.values(), ids=MOMENTS)
every = pytest.mark.parametrize(
    "make", [*MOMENTS.values(), *TRANSFORMS.values()], ids=[*MOMENTS, *TRANSFORMS]
)


def fields(count: int = 2, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(count, *SHAPE, generator=torch.manual_seed(3), dtype=dtype)


@moments
@pytest.mark.parametrize("power", [-100, 90])
def test_moments_do_not_depend_on_units(make: Maker, power: int) -> None:
    """Exactly, for a power of 2; logarithms of scattering spectra move by that of the unit."""
    op, x, unit = make(), fields(), 2.0**power
    one, other = op.measure(x[:1]), op.measure(x[:1] * unit)
    logarithm = np.select(
        [op.coefficients["family"] == "ln P00", op.coefficients["family"] == "ln S1"], [2, 1], 0
    )
    moved = torch.from_numpy(logarithm) * np.log(2.0) * power
    torch.testing.assert_close(other.values, (one.values + moved).float(), rtol=1e-6, atol=0)
    torch.testing.assert_close(other.statistics.scale, one.statistics.scale * unit, rtol=0, atol=0)
    (loss, gradient), (there, steeper) = (
        op.loss_and_gradient(x[1:], one),
        op.loss_and_gradient(x[1:] * unit, other),
    )
    torch.testing.assert_close(there, loss, rtol=1e-4, atol=0)
    torch.testing.assert_close(steeper * unit, gradient, rtol=1e-3, atol=1e-4)


@every
def test_no_fields_have_no_coefficients(make: Maker) -> None:
    op, some = make(), make()(fields(3))
    found = op(fields(3)[:, None][:, :0])
    pairs = zip(found, some, strict=True) if isinstance(found, tuple) else [(found, some)]
    for none, each in pairs:
        assert none.shape == (3, 0, *each.shape[1:])


def test_the_inverse_of_no_coefficients_is_no_field() -> None:
    W = WaveletTransform(SHAPE, 2, 4)
    assert W.inverse(*W(fields(0))).shape == W.low_pass(fields(0)).shape == (0, *SHAPE)


@every
def test_what_is_made_and_converted_in_inference_mode_is_differentiated_later(make: Maker) -> None:
    x = fields().requires_grad_()
    with torch.inference_mode():
        op = make()
        if isinstance(op, FieldOperator):
            op.double()
        op(fields())
    outputs = op(x)
    found = outputs[1] if isinstance(outputs, tuple) else outputs
    found.abs().square().sum().backward()
    assert x.grad.abs().sum() > 0


@moments
def test_losses_in_inference_mode_are_those_outside(make: Maker) -> None:
    op = make()
    moments = op.measure(fields())
    expected = op.loss_and_gradient(fields(), moments)
    with torch.inference_mode():
        x, held = fields(), op.measure(fields())
        inside = op.loss_and_gradient(x, held)
    for found in (inside, op.loss_and_gradient(x, held)):
        for one, other in zip(found, expected, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)
    op.loss(fields().requires_grad_(), held).sum().backward()


@every
def test_operators_are_told_in_a_line(make: Maker) -> None:
    assert re.fullmatch(
        r"\w+\(shape=\(16, 24\), J=\d, L=\d.*, dtype=torch.float64\)",
        repr(make(dtype=torch.float64)),
    )


@every
def test_complex_precisions_are_refused(make: Maker) -> None:
    with (
        pytest.warns(UserWarning, match="Complex modules"),
        pytest.raises(InvalidParameter, match=r"got torch.complex64: choose torch.float32"),
    ):
        make().to(torch.complex64)


@moments
def test_nothing_is_not_measured_but_has_no_loss(make: Maker) -> None:
    op = make()
    with pytest.raises(ShapeMismatch, match="no field to measure"):
        op.measure(fields(0))
    loss, gradient = op.loss_and_gradient(fields(0), op.measure(fields()))
    assert (loss.shape, gradient.shape) == ((0,), (0, *SHAPE))
    assert op.loss(fields(0), op.measure(fields())).shape == (0,)


@every
def test_autocast_changes_nothing(make: Maker) -> None:
    op, x = make(), fields()
    expected = op(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(op(x), expected, rtol=0, atol=0)


@moments
def test_autocast_does_not_change_gradients(make: Maker) -> None:
    op, x = make(), fields()
    reference = op.measure(x[:1])
    expected = op.loss_and_gradient(x, reference)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = op.loss_and_gradient(x, reference)
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


@moments
def test_moments_of_another_operator_are_refused(make: Maker) -> None:
    op, other = make(), PhaseHarmonicCovariance(SHAPE, 3, 4)
    with pytest.raises(ShapeMismatch, match=r"moments of .* channels, got .* measure them with"):
        op.loss_and_gradient(fields(), other.measure(fields()))
    with pytest.raises(ShapeMismatch, match=r"moments of .* channels, got .* measure them with"):
        op.loss(fields(), other.measure(fields()))


@moments
def test_moments_of_another_precision_are_those_of_the_operator(make: Maker) -> None:
    single, double = make(), make(dtype=torch.float64)
    x = fields(dtype=torch.float64)
    expected = double.loss(x, double.measure(x[:1]))
    for op, other in ((single, double), (double, single)):
        torch.testing.assert_close(
            op.loss(x, other.measure(x[:1])).double(), expected, rtol=1e-3, atol=1e-9
        )


def test_covariances_of_phase_harmonics_made_double_are_exact() -> None:
    op, x = PhaseHarmonicCovariance([16, 24], 2, 4), fields(dtype=torch.float64)  # type: ignore[arg-type]
    expected = PhaseHarmonicCovariance(SHAPE, 2, 4, dtype=torch.float64)(x)
    torch.testing.assert_close(op.double()(x), expected, rtol=0, atol=0)
    assert op.half()(x).dtype == torch.float32


@every
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_precision_that_an_operator_has_changes_nothing(
    make: Maker, dtype: torch.dtype
) -> None:
    """Asked for by ``.to(dtype)``, torch would take the real parts of filters that are complex."""
    op, expected = make(dtype=dtype), make(dtype=dtype)(fields(dtype=dtype))
    torch.testing.assert_close(op.to("cpu", dtype)(fields(dtype=dtype)), expected, rtol=0, atol=0)
    if isinstance(op, FieldOperator):
        op.to(torch.float16).to(dtype)
        torch.testing.assert_close(op(fields(dtype=dtype)), expected, rtol=0, atol=0)


@every
@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.zeros(SHAPE), "a torch tensor, got numpy.ndarray"),
        (torch.zeros(SHAPE, dtype=torch.int64), "floating point, got torch.int64"),
        (torch.zeros(SHAPE, dtype=torch.complex64), "floating point, got torch.complex64"),
        (torch.zeros(8, 8), r"of shape \(8, 8\)"),
        (torch.zeros(24), r"of shape \(24,\)"),
    ],
    ids=["array", "int", "complex", "shape", "line"],
)
def test_what_is_no_field_is_refused(make: Maker, x: Any, message: str) -> None:
    with pytest.raises(ShapeMismatch, match=message):
        make()(x)


@every
@pytest.mark.parametrize("dtype", [torch.int32, "float32"])
def test_other_precisions_are_refused(make: Maker, dtype: Any) -> None:
    with pytest.raises(InvalidParameter, match="dtype must be"):
        make(dtype=dtype)


def test_a_family_left_to_autograd_says_how_to_change_its_precision() -> None:
    with pytest.raises(InvalidParameter, match=r"make them anew with dtype=torch.float64"):
        ScatteringSpectra(SHAPE, 2, 2).double()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Scattering2D(SHAPE, J=2.0), "J must be a whole number, got 2.0"),  # type: ignore[arg-type]
        (lambda: Scattering2D(SHAPE, J=2, L="8"), "L must be a whole number"),  # type: ignore[arg-type]
        (lambda: Scattering2D(32, J=2), "two whole sides"),  # type: ignore[arg-type]
        (lambda: Scattering2D((32.5, 32), J=2), "two whole sides"),  # type: ignore[arg-type]
        (lambda: Scattering2D((1, 64), J=1), "needs 2 points a side"),
        (lambda: WaveletTransform(SHAPE, 2.0), "J must be a whole number"),  # type: ignore[arg-type]
        (lambda: PhaseHarmonicCovariance(SHAPE, 2.0), "J must be a whole number"),  # type: ignore[arg-type]
        (lambda: ScatteringSpectra(SHAPE, 2, 1), "L >= 2 angles are needed, got L=1"),
        (lambda: RectifierCovariance(SHAPE, 2, 2, A=0), "A >= 1 phases, got 0"),
        (lambda: SkewnessFlatness(SHAPE, 2, 0), "L >= 1 angles"),
        (lambda: CrossCovariance(1, SHAPE, 2, 2), "two components or more"),
        (lambda: phase_harmonic(torch.ones(2, dtype=torch.complex64), 2.5), "k is an integer"),  # type: ignore[arg-type]
        (lambda: phase_harmonic(torch.ones(2), 2), "complex coefficients"),
        (lambda: rectify(torch.ones(2, dtype=torch.complex64), 0), "A >= 1 phases"),
        (lambda: rectify(torch.ones(2), 4), "complex coefficients"),
    ],
)
def test_parameters_that_cannot_be_are_refused(make: Maker, message: str) -> None:
    with pytest.raises(InvalidParameter, match=message):
        make()


def test_many_angles_do_not_overflow() -> None:
    W = WaveletTransform((16, 16), 1, 90, dtype=torch.float64)
    x = torch.randn(16, 16, generator=torch.manual_seed(1), dtype=torch.float64)
    torch.testing.assert_close(W.inverse(*W(x)), x, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("J", "L", "lags", "rows"), [(4, 3, 1, 411), (3, 5, 1, 406)])
def test_odd_numbers_of_angles_have_the_rows_of_pywph(J: int, L: int, lags: int, rows: int) -> None:
    """As counted in pywph 1.1.3."""
    assert len(pywph_classes((64, 64), J, L, lags).rows) == rows


def test_low_passes_of_pywph_do_not_see_the_mean() -> None:
    op, x = PhaseHarmonicCovariance(SHAPE, 2, 4, "pywph", dtype=torch.float64), fields()
    torch.testing.assert_close(op(x + 5.0), op(x), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    "call",
    [
        wavemill.pdf,
        wavemill.gradient,
        wavemill.vorticity,
        wavemill.divergence,
        wavemill.as_float,
        lambda x: wavemill.phase_harmonic(x, 2),
        lambda x: wavemill.rectify(x, 4),
        lambda x: wavemill.fista(x, torch.eye(8), 0.1),
        lambda x: wavemill.istc(torch.ones(8), x, [0.1]),
        lambda x: wavemill.lasso_violation(x, torch.eye(8), torch.ones(8), 0.1),
        lambda x: wavemill.DictionaryLearning(2, lambda z, D: z @ D).fit(x),
    ],
)
def test_functions_of_tensors_say_so_of_arrays(call: Callable[[Any], Any]) -> None:
    for x in (np.zeros((2, 8, 8)), [[0.0] * 8] * 8):
        with pytest.raises(ShapeMismatch, match=r"a torch tensor, got \S+: torch.as_tensor makes"):
            call(x)


def test_a_density_and_a_dictionary_are_of_real_numbers() -> None:
    with pytest.raises(ShapeMismatch, match=r"real values, got torch.complex64"):
        wavemill.pdf(torch.zeros(4, dtype=torch.complex64))
    with pytest.raises(ShapeMismatch, match=r"signals are real \(sample, C\).*got torch.int64"):
        wavemill.DictionaryLearning(2, lambda z, D: z @ D).fit(torch.ones(3, 2, dtype=torch.int64))
