"""The scattering transform is stable to deformations and invariant to translations."""

from __future__ import annotations

import pytest
import torch

from benchmarks.stability import SLOPES, blurred_noise, constants, deform
from wavemill.scattering2d import Scattering2D


def test_scattering_is_linear_in_deformations_and_spectra_are_not() -> None:
    """C stays about 0.1 from |grad tau| = 0.01 to 0.2; others fall from 19 to 3, 28 to 7."""
    C = constants(256, 6, 8)
    assert C["gradient"] == pytest.approx(SLOPES, rel=0.12)
    assert all(0.09 < value < 0.125 for value in C["scattering"])
    assert C["Fourier modulus"][0] == pytest.approx(19, rel=0.05)
    assert C["Fourier modulus"][-1] == pytest.approx(3, rel=0.05)
    assert C["pixels"][0] == pytest.approx(28, rel=0.05)
    assert C["pixels"][-1] == pytest.approx(7, rel=0.1)


def test_a_deformation_of_a_wave_is_its_closed_form() -> None:
    """cos(k (y - tau(x'))) for x' = x - tau(y), once composed."""
    side, slope = 64, 0.1
    u = torch.arange(side, dtype=torch.float64) * 2 * torch.pi / side
    tau = slope * torch.sin(u)
    wave = torch.cos(3 * u)[:, None].expand(side, side)
    expected = torch.cos(3 * (u[:, None] - slope * torch.sin(u[None, :] - tau[:, None])))
    torch.testing.assert_close(deform(wave, slope)[0], expected, rtol=0, atol=1e-7)


@pytest.mark.parametrize("shift", [(1, 0), (3, -5), (17, 40)])
@pytest.mark.parametrize("nonlinearity", ["modulus", "fully-rectified"])
def test_spatial_means_are_invariant_to_any_translation(
    shift: tuple[int, int], nonlinearity: str
) -> None:
    """For fields at every point: sampled ones alias."""
    op = Scattering2D(
        (64, 64),
        3,
        2,
        nonlinearity=nonlinearity,
        padding="periodic",
        average=False,
        dtype=torch.float64,
    )
    x = 64 * blurred_noise(64)
    means = [op(field).mean((-2, -1)) for field in (x, x.roll(shift, (-2, -1)))]
    torch.testing.assert_close(*means, rtol=0, atol=1e-15)
