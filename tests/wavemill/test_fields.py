"""Derivatives of gridded fields."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from wavemill.errors import InvalidParameter, ShapeMismatch
from wavemill.fields import divergence, gradient, vorticity

SHAPES = [(16, 16), (15, 21), (12, 17), (17, 12)]


def grid(shape: tuple[int, int], lengths: tuple[float, float]) -> tuple[Tensor, Tensor]:
    y, x = (
        torch.arange(n, dtype=torch.float64) * length / n
        for n, length in zip(shape, lengths, strict=True)
    )
    return y[:, None].expand(shape), x[None, :].expand(shape)


def spacing(shape: tuple[int, int], lengths: tuple[float, float]) -> tuple[float, float]:
    return lengths[0] / shape[0], lengths[1] / shape[1]


def read_flo(path: Path) -> Tensor:
    """Velocity (2, y, x) of a Middlebury file: magic, width, height, interleaved u and v."""
    words = np.fromfile(path, "<f4")
    width, height = words[1:3].view("<i4")
    return torch.tensor(words[3:].reshape(height, width, 2)).permute(2, 0, 1)


@pytest.mark.parametrize("shape", SHAPES)
def test_spectral_vorticity_and_divergence_are_exact_for_trigonometric_fields(
    shape: tuple[int, int],
) -> None:
    lengths = (3.0, 5.0)
    y, x = grid(shape, lengths)
    p, q = 2 * math.pi * 2 / lengths[0], 2 * math.pi * 3 / lengths[1]
    velocity = torch.stack([torch.sin(p * y + q * x), torch.cos(p * y - q * x)])
    wave, mirror = torch.cos(p * y + q * x), torch.sin(p * y - q * x)
    step = spacing(shape, lengths)
    # 1e-12: rounding of transforms whose terms are below 5
    torch.testing.assert_close(vorticity(velocity, step), q * mirror - p * wave, rtol=0, atol=1e-12)
    torch.testing.assert_close(
        divergence(velocity, step), q * wave - p * mirror, rtol=0, atol=1e-12
    )


@pytest.mark.parametrize("shape", [(16, 16), (15, 21)])
def test_spectral_derivative_drops_the_nyquist_wave_and_keeps_the_one_below(
    shape: tuple[int, int],
) -> None:
    _, x = grid(shape, (2 * math.pi, 2 * math.pi))
    step = spacing(shape, (2 * math.pi, 2 * math.pi))
    highest = (shape[1] - 1) // 2
    alternating = torch.cos(shape[1] // 2 * x) if shape[1] % 2 == 0 else torch.zeros(shape)
    slope = gradient(torch.sin(highest * x) + alternating, step)[0]
    torch.testing.assert_close(slope, highest * torch.cos(highest * x), rtol=0, atol=1e-12)


@pytest.mark.parametrize("shape", [(3, 3), (4, 7), (9, 5)])
def test_finite_differences_are_exact_on_quadratics_up_to_the_edges(shape: tuple[int, int]) -> None:
    y, x = grid(shape, (shape[0] * 0.5, shape[1] * 0.25))
    velocity = torch.stack([x**2 - 3 * x * y + 2 * y**2, 4 * x**2 + x * y - y**2 + y])
    turning = (8 * x + y) - (4 * y - 3 * x)
    outflow = (2 * x - 3 * y) + (x - 2 * y + 1)
    for found, exact in (
        (vorticity(velocity, (0.5, 0.25), periodic=False), turning),
        (divergence(velocity, (0.5, 0.25), periodic=False), outflow),
    ):
        torch.testing.assert_close(found, exact, rtol=0, atol=1e-12)


def test_finite_differences_converge_at_second_order_everywhere() -> None:
    def error(points: int) -> float:
        y, x = grid((points + 1, points + 1), ((points + 1) / points,) * 2)
        field = torch.exp(x) * torch.sin(3 * y)
        exact = torch.stack([field, 3 * torch.exp(x) * torch.cos(3 * y)])
        return float((gradient(field, 1 / points, periodic=False) - exact).abs().max())

    order = math.log2(error(40) / error(80))
    assert order == pytest.approx(2, abs=0.1)  # the next term is a relative 1/80


def test_a_rigid_rotation_from_x_to_y_has_vorticity_of_twice_its_rate() -> None:
    y, x = grid((6, 8), (6.0, 8.0))
    rotation = 0.5 * torch.stack([-y, x])
    torch.testing.assert_close(
        vorticity(rotation, periodic=False), torch.ones(6, 8, dtype=torch.float64)
    )


@pytest.mark.parametrize("periodic", [True, False])
def test_vorticity_of_a_gradient_vanishes(periodic: bool) -> None:
    field = torch.randn(3, 9, 14, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    curl = vorticity(gradient(field, (0.3, 0.7), periodic), (0.3, 0.7), periodic)
    assert float(curl.abs().max()) < 1e-12 * 100  # both orders of the same sums, terms below 100


@pytest.mark.parametrize("periodic", [True, False])
def test_leading_axes_are_independent_and_the_dtype_is_kept(periodic: bool) -> None:
    velocity = torch.randn(2, 3, 2, 8, 9, generator=torch.Generator().manual_seed(1))
    batch = vorticity(velocity, periodic=periodic)
    assert batch.dtype == torch.float32
    assert batch.shape == (2, 3, 8, 9)
    # 1e-6: float32 rounding of a result computed in float64
    torch.testing.assert_close(
        batch[1, 2], vorticity(velocity[1, 2], periodic=periodic), rtol=1e-6, atol=1e-6
    )


def test_float32_input_is_differentiated_in_double_precision() -> None:
    velocity = 1000 + torch.randn(2, 32, 32, generator=torch.Generator().manual_seed(2))
    exact = vorticity(velocity.double())
    torch.testing.assert_close(vorticity(velocity), exact.float(), rtol=0, atol=0)


def test_the_two_methods_agree_on_the_large_scales_of_a_simulated_flow(shared: Path) -> None:
    velocity = read_flo(shared / "data/turbulence/piv_flow256/DNS_turbulence_00001_flow.flo")
    k = torch.fft.fftfreq(256, 1 / 256).abs()
    low = (k[:, None] < 12) & (k[None, :] < 12)
    smooth = torch.fft.ifft2(torch.fft.fft2(velocity.double()) * low).real
    spectral, centred = vorticity(smooth), vorticity(smooth, periodic=False)
    # centred differences of a wave k are short by (2 pi k / 256)^2 / 6: 1.2 % at k = 11
    assert float((spectral - centred).norm() / spectral.norm()) < 0.012


def test_a_simulated_incompressible_flow_has_no_divergence(shared: Path) -> None:
    velocity = read_flo(shared / "data/turbulence/piv_flow256/DNS_turbulence_00001_flow.flo")
    ratio = divergence(velocity).std() / vorticity(velocity).std()
    assert float(ratio) < 1e-3  # the file's single precision; 1 if components or axes were swapped


@pytest.mark.parametrize("shape", [(8, 8), (3, 8, 8), (2, 8)])
def test_a_field_without_two_components_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeMismatch, match=r"\(\.\.\., 2, y, x\)"):
        vorticity(torch.zeros(shape))


def test_two_points_are_too_few_for_finite_differences() -> None:
    with pytest.raises(ShapeMismatch, match="3 points"):
        gradient(torch.zeros(2, 8), periodic=False)


def test_integers_and_complex_numbers_are_refused() -> None:
    for dtype in (torch.int32, torch.complex64):
        with pytest.raises(ShapeMismatch, match="real floating-point"):
            gradient(torch.zeros(8, 8, dtype=dtype))


@pytest.mark.parametrize("step", [0.0, -1.0, math.nan, (1.0, math.inf)])
def test_an_impossible_spacing_is_refused(step: float | tuple[float, float]) -> None:
    with pytest.raises(InvalidParameter, match="spacing"):
        gradient(torch.zeros(8, 8), step)


@pytest.mark.filterwarnings("ignore:.torch.jit.script:DeprecationWarning")  # torch's own
@pytest.mark.parametrize("periodic", [True, False])
@pytest.mark.parametrize("operator", [vorticity, divergence, gradient])
def test_derivatives_have_exact_gradients(operator, periodic: bool) -> None:
    x = torch.randn(2, 2, 5, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert torch.autograd.gradcheck(
        lambda x: operator(x, (0.5, 0.25), periodic),
        x.requires_grad_(),
        check_forward_ad=True,
        check_batched_grad=True,
    )
