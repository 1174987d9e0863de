"""Moments of fields that do not wrap around."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from wavemill.errors import InvalidParameter
from wavemill.filters import bump_steerable
from wavemill.maxent import Gaussian, Microcanonical
from wavemill.moments.masked import MaskedCovariance
from wavemill.moments.phase_harmonics import PhaseHarmonicCovariance
from wavemill.specs import MicrocanonicalSpec
from wavemill.spectra import PowerSpectrum, tapered

EXACT = 1e-12


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def steep(side: int, seed: int) -> torch.Tensor:
    """A periodic field of spectrum k^-3, whose crops hence differ most from one side to another."""
    k = torch.fft.fftfreq(side, 1 / side, dtype=torch.float64)
    gain = torch.hypot(k[:, None], k[None]).clamp_min(1) ** -1.5
    x = torch.fft.ifft2(torch.fft.fft2(noise(side, side, seed=seed)) * gain).real
    return (x - x.mean()) / x.std()


@pytest.mark.parametrize("name", ["C+L", "C+moduli", "D", "pywph"])
def test_the_loss_is_zero_at_the_reference_alone(name: str) -> None:
    op = MaskedCovariance((24, 20), 2, 4, name, dtype=torch.float64)
    x = noise(24, 20).exp()
    moments = op.measure(x)
    assert op.loss(x, moments) < EXACT**2 * len(moments.values)
    assert op.loss(noise(24, 20, seed=1).exp(), moments) > 1e-3


def test_the_gradient_of_the_loss_is_exact() -> None:
    op = MaskedCovariance((12, 14), 2, 2, "C+L", dtype=torch.float64)
    reference = op.measure(noise(12, 14, seed=3).exp())
    x = noise(12, 14).exp().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: op.loss(x, reference), x, fast_mode=True)


def test_a_moment_is_the_mean_over_points_whose_filters_stay_inside() -> None:
    """The modulus of psi_{1,0} with itself at shift (0, 2), written out in numpy."""
    op = MaskedCovariance((24, 20), 2, 4, "B", dtype=torch.float64)
    x, columns = noise(24, 20), op.coefficients
    wanted = {"j1": 1, "l1": 0, "k1": 0, "j2": 1, "l2": 0, "k2": 0, "shift_y": 0, "shift_x": 2}
    chosen = np.all([np.abs(columns[name]) == value for name, value in wanted.items()], axis=0)
    assert chosen.sum() == 1
    filters = bump_steerable.wavelets_at((24, 20), 1, [0], 4)[0].numpy()
    modulus = np.abs(np.fft.ifft2(np.fft.fft2(x.numpy()) * filters))[4:-4, 4:-4]  # 2^(j + 1)
    v = (modulus - modulus.mean()) / modulus.std()
    found = op.measure(x).values[torch.from_numpy(chosen)]
    np.testing.assert_allclose(found.numpy(), (v[:, 2:] * v[:, :-2]).mean(), rtol=1e-10)


def test_a_crop_is_nearer_to_the_whole_field_with_masked_borders() -> None:
    """A crop's opposite sides meet in a jump, which is most of what fine scales would see."""
    whole = steep(256, seed=0)
    big = PhaseHarmonicCovariance((256, 256), 3, 4, "C", dtype=torch.float64).measure(whole)
    crops = whole.unfold(0, 64, 96).unfold(1, 64, 96).flatten(0, 1)
    away = {}
    for kind in (MaskedCovariance, PhaseHarmonicCovariance):
        op = kind((64, 64), 3, 4, "C", dtype=torch.float64)
        each = torch.stack([op.measure(crop, big.statistics).values for crop in crops])
        away[kind] = float((each - big.values).norm(dim=1).mean())
    assert away[MaskedCovariance] < 0.25 * away[PhaseHarmonicCovariance]


def test_coefficients_are_those_of_periodic_fields() -> None:
    masked, periodic = (
        kind((32, 32), 2, 4, "C") for kind in (MaskedCovariance, PhaseHarmonicCovariance)
    )
    for name, column in periodic.coefficients.items():
        np.testing.assert_array_equal(masked.coefficients[name], column)
    assert masked.channels == periodic.channels


def test_scales_without_an_inside_are_refused() -> None:
    with pytest.raises(InvalidParameter, match="lower J or lags"):
        MaskedCovariance((32, 32), 4, 4, "A")


def test_masked_borders_are_refused_where_they_do_not_exist() -> None:
    with pytest.raises(InvalidParameter, match="borders='mask'"):
        MicrocanonicalSpec(set="H", borders="mask")


@pytest.mark.parametrize("method", ["gaussian", "phases"])
def test_gaussians_of_crops_have_no_jump_at_borders_and_all_of_the_power(method: str) -> None:
    crops = torch.stack([steep(128, seed)[:64, :64] for seed in range(12)])
    crops[0] += 1  # a mean of its own is part of the common variance
    expected = PowerSpectrum((64, 64), dtype=torch.float64)(tapered(crops)).mean(0)
    ratios = {}
    for borders in ("wrap", "mask"):
        model = Gaussian({"method": method, "borders": borders, "dtype": "float64"}).fit(crops)
        drawn = model.sample(60)
        ratios[borders] = PowerSpectrum((64, 64), dtype=torch.float64)(drawn).mean(0) / expected
        # sixty samples, of few large scales
        assert float(drawn.std()) == pytest.approx(float(crops.std()), rel=0.1)
        assert model.deviation == pytest.approx(float(crops.std(correction=0)))
    fine = slice(8, 32)
    assert ratios["wrap"][fine].mean() > 1.5
    # The variance of all points, not only of those that the taper sees.
    torch.testing.assert_close(ratios["mask"][fine], torch.ones(24).double(), rtol=0.5, atol=0)


def test_masked_starts_are_those_of_tapered_references_under_a_key_of_their_own() -> None:
    crop, spec = steep(64, seed=1)[:32, :32], {"J": 2, "borders": "mask", "dtype": "float64"}
    model = Microcanonical(spec).fit(crop)
    expected = Gaussian({"borders": "mask", "dtype": "float64"}).fit(crop)
    torch.testing.assert_close(model.gaussian_.spectrum_, expected.spectrum_, rtol=0, atol=0)
    wrapped = MicrocanonicalSpec(J=2).to_dict()
    assert model.spec.to_dict()["algorithm"] == wrapped["algorithm"] + 1


@pytest.mark.parametrize("components", [1, 2])
def test_a_model_with_masked_borders_descends_and_is_rebuilt_from_its_state(
    components: int,
) -> None:
    spec = {"J": 2, "L": 4, "borders": "mask", "iterations": 20, "start": "white"}
    crops = torch.stack([steep(64, seed)[:32, :32] for seed in range(1, 1 + components)])
    model = Microcanonical(spec).fit(crops.squeeze(0)[None])
    drawn = model.sample(1)
    assert model.losses_[0].min() < 0.01
    again = Microcanonical.from_state(model.spec, model.state())
    torch.testing.assert_close(again.sample(1), drawn, rtol=0, atol=0)
