"""The wavelet transform keeps energy and inverts, for both families and any grid."""

from __future__ import annotations

import pickle

import pytest
import torch

from wavemill.errors import InvalidParameter, ShapeMismatch
from wavemill.filters import bump_steerable, morlet
from wavemill.wavelets import WaveletTransform, littlewood_paley

EXACT = 1e-12
FORWARD = pytest.mark.filterwarnings("ignore:.torch.jit.script:DeprecationWarning")  # torch's own
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


@FORWARD
@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_are_exact(family: str) -> None:
    W = WaveletTransform((6, 5), 2, 2, family, torch.float64)
    x = field(2, 6, 5).requires_grad_()
    options = {"check_forward_ad": True, "check_batched_grad": True, "fast_mode": True}
    assert torch.autograd.gradcheck(W, x, **options)
    low, bands = (part.detach().requires_grad_() for part in W(x))
    assert torch.autograd.gradcheck(W.inverse, (low, bands), **options)
    assert torch.autograd.gradgradcheck(W.inverse, (low, bands), fast_mode=True)


def test_the_transpose_of_the_transform_is_its_inverse() -> None:
    """W is Parseval: its gradient maps (low, bands) to W^T (low, bands)."""
    W, x = WaveletTransform((12, 9), 2, 3, dtype=torch.float64), field(12, 9).requires_grad_()
    low, bands = W(x)
    a, b = field(*low.shape), torch.randn(bands.shape, dtype=bands.dtype)
    (transpose,) = torch.autograd.grad((low * a).sum() + (bands.conj() * b).real.sum(), x)
    torch.testing.assert_close(transpose, W.inverse(a, b), rtol=0, atol=EXACT)


@pytest.mark.parametrize("value", [0.0, 1.0, 1e30, 1e-30])
def test_extreme_fields_have_finite_values_and_gradients(value: float) -> None:
    W = WaveletTransform((16, 16), 2, 2)
    x = (value * torch.ones(16, 16)).requires_grad_()
    y = W.inverse(*W(x))
    y.sum().backward()
    torch.testing.assert_close(y, x.detach(), rtol=1e-5, atol=0)
    assert x.grad is not None
    assert torch.isfinite(x.grad).all()


def test_precision_follows_the_transform_and_halves_are_computed_in_single() -> None:
    W, x = WaveletTransform((12, 12), 2, 2), field(12, 12)
    assert [part.dtype for part in W(x.bfloat16())] == [torch.float32, torch.complex64]
    exact = WaveletTransform((12, 12), 2, 2, dtype=torch.float64)(x)
    for mine, other in zip(W.double()(x), exact, strict=True):
        torch.testing.assert_close(mine, other, rtol=0, atol=0)
    copy = pickle.loads(pickle.dumps(W))  # noqa: S301
    torch.testing.assert_close(copy(x)[0], exact[0], rtol=0, atol=0)


@pytest.mark.parametrize("x", [torch.zeros(16, 17), torch.zeros(16), torch.zeros(16, 16).int()])
def test_what_is_no_field_on_the_grid_is_refused(x: torch.Tensor) -> None:
    with pytest.raises(ShapeMismatch, match="built for real fields"):
        WaveletTransform((16, 16), 2, 2)(x)


def test_bands_of_another_transform_are_refused() -> None:
    W = WaveletTransform((16, 16), 2, 2)
    low, bands = W(torch.zeros(16, 16))
    with pytest.raises(ShapeMismatch, match=r"\(\.\.\., 2, 4, 16, 16\)"):
        W.inverse(low, bands[:1])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [((0, 2), "J=0"), ((2, 0), "L=0"), ((2, 2, "haar"), "bump-steerable, morlet")],
)
def test_impossible_banks_are_refused(arguments: tuple, said: str) -> None:
    with pytest.raises(InvalidParameter, match=said):
        WaveletTransform((16, 16), *arguments)
