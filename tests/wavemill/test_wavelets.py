"""The wavelet transform keeps energy and inverts, for both families and any grid."""

from __future__ import annotations

import pytest
import torch

from wavemill.errors import ShapeMismatch
from wavemill.filters import bump_steerable, morlet
from wavemill.wavelets import WaveletTransform, littlewood_paley

EXACT = 1e-12
FAMILIES = ("bump-steerable", "morlet")


def field(*shape: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("shape", [(32, 32), (33, 48), (27, 35)])
def test_the_transform_inverts_and_keeps_energy(family: str, shape: tuple[int, int]) -> None:
    W, x = WaveletTransform(shape, 3, 4, family, torch.float64), field(2, *shape)
    low, bands = W(x)
    assert bands.shape == (2, 3, 8 if family == "bump-steerable" else 4, *shape)
    torch.testing.assert_close(W.inverse(low, bands), x, rtol=0, atol=EXACT)
    energy = low.square().sum((-2, -1)) + bands.abs().square().sum((-4, -3, -2, -1))
    torch.testing.assert_close(energy, x.square().sum((-2, -1)), rtol=EXACT, atol=0)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_inverse_projects_on_what_a_field_has(family: str) -> None:
    """W W^T is an orthogonal projection: doing it twice changes nothing."""
    W = WaveletTransform((16, 16), 2, 2, family, torch.float64)
    low, bands = W(field(16, 16))
    noisy = bands + field(*bands.shape)
    once = W(W.inverse(low, noisy))
    twice = W(W.inverse(*once))
    torch.testing.assert_close(twice, once, rtol=0, atol=EXACT)


def test_littlewood_paley_sums_are_the_published_ones() -> None:
    """Morlet at L = 8: 0.33 (|w| < pi) to 1.05; bump steerable: 0.50 to 1.13 on the square."""
    low = morlet.low_pass(128, 4)
    morlets = littlewood_paley(morlet.wavelets((128, 128), 4, 8), low[:, None] * low)
    frequency = 2 * torch.pi * torch.fft.fftfreq(128, dtype=torch.float64)
    disc = torch.hypot(frequency[:, None], frequency[None, :]) < torch.pi
    assert 0.32 < morlets[disc].min() < 0.34
    assert 1.04 < morlets.max() < 1.06
    phi = bump_steerable.low_pass((64, 64), bump_steerable.low_pass_width(6))
    bumps = littlewood_paley(bump_steerable.wavelets((64, 64), 6, 8), phi)
    assert 0.49 < bumps.min() < 0.51
    assert 1.12 < bumps.max() < 1.14


def test_another_grid_is_refused() -> None:
    with pytest.raises(ShapeMismatch, match="built for real fields"):
        WaveletTransform((16, 16), 2, 2)(torch.zeros(16, 17))
