"""Families of moments beyond phase harmonics: what holds for all, and for each."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from wavemill.errors import InvalidParameter
from wavemill.filters import bump_steerable
from wavemill.harmonics import rectify
from wavemill.maxent import Gaussian, Microcanonical
from wavemill.maxent.families import moments_of
from wavemill.moments.components import CrossCovariance
from wavemill.moments.high_orders import RectifierCovariance, SkewnessFlatness
from wavemill.specs import MicrocanonicalSpec
from wavemill.spectra import flatness, skewness

EXACT = 1e-12


def field(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64).exp()


def families(shape: tuple[int, int], J: int = 2, L: int = 2):
    return {
        "skewness and flatness": SkewnessFlatness(shape, J, L, torch.float64),
        "rectifier": RectifierCovariance(shape, J, L, dtype=torch.float64),
        "between two": CrossCovariance(2, shape, J, L, dtype=torch.float64),
        "between three, linear": CrossCovariance(3, shape, J, L, True, torch.float64),
    }


def filtered(x: torch.Tensor, J: int, L: int) -> list[torch.Tensor]:
    """Return ``(component, angle, y, x)`` of each scale, and of the low pass without its mean."""
    shape = (x.shape[-2], x.shape[-1])
    low = bump_steerable.low_pass(shape, bump_steerable.low_pass_width(J))[None]
    low[..., 0, 0] = 0
    bank = [bump_steerable.wavelets_at(shape, j, range(L), L) for j in range(J)]
    *bands, low = (torch.fft.ifft2(torch.fft.fft2(x)[:, None] * psi) for psi in [*bank, low])
    return [*bands, low.real]


def inside(z: np.ndarray, op: CrossCovariance, *scales: int) -> np.ndarray:
    """Return the points that no filter of some scales, J for the low pass, carries around."""
    border = max(2 ** (j + 1) if j < op.J else 2**j for j in scales)
    return z[..., border:-border, border:-border] if op.borders == "mask" else z


@pytest.mark.parametrize("name", families((16, 12)))
def test_the_loss_is_zero_at_the_reference_and_its_shifts(name: str) -> None:
    op = families((16, 12))[name]
    x = field(*op.shape)
    moments = op.measure(x)
    assert op.loss(x, moments) < EXACT**2 * len(moments.values)
    assert op.loss(x.roll((7, -3), (-2, -1)), moments) < EXACT**2 * len(moments.values)
    assert op.loss(field(*op.shape, seed=1), moments) > 1e-3


@pytest.mark.parametrize("name", families((8, 8)))
def test_the_gradient_of_the_loss_is_exact(name: str) -> None:
    op = families((8, 8))[name]
    reference = op.measure(field(*op.shape, seed=3))
    x = field(*op.shape).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: op.loss(x, reference), x)


def test_the_gradient_of_covariances_within_borders_is_exact() -> None:
    op = CrossCovariance(2, (12, 14), 2, 2, dtype=torch.float64, borders="mask")
    reference, x = op.measure(field(*op.shape, seed=3)), field(*op.shape).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: op.loss(x, reference), x, fast_mode=True)


@pytest.mark.parametrize("borders", ["wrap", "mask"])
@pytest.mark.parametrize("linear", [False, True])
def test_the_gradient_between_components_is_that_of_autograd(linear: bool, borders: str) -> None:
    op = CrossCovariance(3, (24, 28), 3, 2, linear, torch.float64, borders)
    moments, x = op.measure(field(*op.shape, seed=3)), field(2, *op.shape).requires_grad_()
    expected = op.loss(x, moments)
    (slope,) = torch.autograd.grad(expected.sum(), x)
    loss, gradient = op.loss_and_gradient(x.detach(), moments)
    torch.testing.assert_close(loss, expected.detach(), rtol=EXACT, atol=0)
    torch.testing.assert_close(gradient, slope, rtol=0, atol=EXACT * float(slope.abs().max()))


def test_counts_are_those_that_are_documented() -> None:
    J, L, A = 3, 4, 4
    counts = {name: len(op.coefficients["family"]) for name, op in families((32, 32), J, L).items()}
    assert counts == {
        "skewness and flatness": 2 * (J + 1),
        "rectifier": J * L * A * (L * A + 1) // 2 + (J - 1) * (L * A) ** 2 + 1,
        "between two": 7 * J * L + 2 * (J - 1) * L + 1,
        "between three, linear": 3 * (2 * J * L + 1),
    }
    for name, op in families((32, 32), J, L).items():
        assert len(op.measure(field(*op.shape)).values) == counts[name]


@pytest.mark.parametrize("kind", ["A", "C", "H", "rectifier", "scattering"])
@pytest.mark.parametrize("components", [1, 3])
def test_coefficients_are_told_apart_by_their_tables(kind: str, components: int) -> None:
    spec = MicrocanonicalSpec(set=kind, J=3, L=2)
    op = moments_of(spec, (16, 16), components)
    x = field(components, 16, 16) if components > 1 else field(16, 16)
    table = pd.DataFrame(op.coefficients)
    assert len(table) == len(op.measure(x).values)
    assert not table.duplicated().any()


@pytest.mark.parametrize("borders", ["wrap", "mask"])
def test_covariances_between_components_are_those_of_their_table(borders: str) -> None:
    op = CrossCovariance(3, (24, 28), 3, 2, dtype=torch.float64, borders=borders)
    x = field(3, 24, 28)
    responses, found = filtered(x, op.J, op.L), op(x).numpy()
    for row, value in zip(pd.DataFrame(op.coefficients).itertuples(), found, strict=True):
        sides = []
        for c, j, angle, k in (
            (row.component1, row.j1, row.l1, row.k1),
            (row.component2, row.j2, row.l2, row.k2),
        ):
            z = responses[j][c, max(angle, 0)].numpy()
            centred = z if k else abs(z) - inside(abs(z), op, j).mean()
            deviation = np.sqrt((abs(inside(centred, op, j)) ** 2).mean())
            sides.append(inside(centred / deviation, op, row.j1, row.j2))
        expected = (sides[0] * sides[1].conj()).mean()
        assert abs((expected.imag if row.part == "im" else expected.real) - value) < EXACT
        assert row.family[1:] == f"{row.k1}{row.k2}"


def test_deviations_of_components_are_floored_by_their_own() -> None:
    op, x = CrossCovariance(2, (16, 16), 2, 2), field(2, 16, 16).float()
    x[1] = 1e-3 * torch.sin(torch.arange(16) * torch.pi / 2)
    scales = op.measure(x).statistics.scale.view(2, -1).amin(1) / x.std((-2, -1), correction=0)
    assert scales[0] > 0.01
    assert float(scales[1]) == pytest.approx(100 * torch.finfo(torch.float32).eps)


def test_octaves_have_the_skewness_and_flatness_of_their_values() -> None:
    op = SkewnessFlatness((32, 32), 3, 4, torch.float64)
    x = field(32, 32)
    octaves = op._octaves(x[None])[0]
    expected = torch.stack([skewness(octaves), flatness(octaves)], dim=-1).flatten()
    torch.testing.assert_close(op(x), expected, rtol=1e-10, atol=1e-12)


def test_rectifier_covariances_are_those_of_the_definition() -> None:
    op = RectifierCovariance((16, 16), 2, 2, dtype=torch.float64)
    x, table = field(16, 16), op.coefficients
    z = torch.fft.ifft2(torch.fft.fft2(x) * bump_steerable.wavelets((16, 16), 2, 2)[:, :2])
    u = rectify(z, 4).numpy()
    found = op(x).numpy()
    for row in range(0, len(found) - 1, 7):
        sides = [
            u[table["j" + s][row], table["l" + s][row], ..., table["phase" + s][row]] for s in "12"
        ]
        a, b = ((side - side.mean()) / side.std() for side in sides)
        assert abs((a * b).mean() - found[row]) < EXACT


def test_moments_between_a_component_and_itself_are_those_of_one() -> None:
    """For equal components C00 and C11 are 1, whatever the field."""
    op = CrossCovariance(2, (16, 16), 2, 3, dtype=torch.float64)
    values, family = op(field(16, 16).expand(2, -1, -1)).numpy(), op.coefficients["family"]
    bands = values[family == "X11"].reshape(2, -1)
    np.testing.assert_allclose(bands[0], 1, rtol=0, atol=EXACT)
    np.testing.assert_allclose(bands[1], 0, rtol=0, atol=EXACT)
    np.testing.assert_allclose(values[family == "X00"], 1, rtol=0, atol=EXACT)
    np.testing.assert_allclose(values[family == "L11"], 1, rtol=0, atol=EXACT)


@pytest.mark.parametrize("kind", ["H", "rectifier", "scattering", "scattering-isotropic"])
def test_a_model_of_each_family_is_fitted_descends_and_is_rebuilt(kind: str) -> None:
    parameters = {"set": kind, "J": 2, "L": 2, "iterations": 15}
    model = Microcanonical(parameters).fit(field(2, 16, 16))
    drawn = model.sample(2, seed=3)
    assert drawn.shape == (2, 16, 16)
    assert all(losses.min() < 0.3 for losses in model.losses_)
    again = Microcanonical.from_state(model.spec, model.state())
    torch.testing.assert_close(again.sample(2, seed=3), drawn, rtol=0, atol=0)


def test_components_are_modelled_together(shared: Path) -> None:
    """Stokes I, Q and U of dust: descent from independent noise brings back how they go together.

    Judged by the correlations between components, which independent noise lacks. The maps are
    averaged to 32^2 points.
    """
    files = [shared / "data" / "turbulence" / "mhd_dust_pywph" / f"{c}_1.npy" for c in "IQU"]
    maps = torch.stack([torch.from_numpy(np.load(file)).double() for file in files])
    x = torch.nn.functional.avg_pool2d(maps, maps.shape[-1] // 32)[None]
    parameters = {"set": "A", "J": 3, "L": 4, "iterations": 40, "start": "white"}
    model = Microcanonical(parameters).fit(x)
    drawn = model.sample(2).double()
    assert drawn.shape == (2, 3, 32, 32)
    expected, found = (torch.corrcoef(y.movedim(1, 0).flatten(1)) for y in (x, drawn))
    assert (expected - found).abs().max() < 0.1
    torch.testing.assert_close(drawn.std((0, 2, 3)), x.std((0, 2, 3)), rtol=0.15, atol=0)
    start = Gaussian().fit(x)
    assert start.deviations.shape == (3,)


def test_a_run_of_several_components_goes_on_to_the_same_samples() -> None:
    model = Microcanonical({"set": "A0", "J": 2, "L": 2, "iterations": 6}).fit(field(1, 2, 16, 16))
    states: list[dict[str, torch.Tensor]] = []
    whole = model.sample(2, checkpoint=states.append)
    torch.testing.assert_close(model.sample(2, resume=states[2]), whole, rtol=0, atol=0)


def test_what_does_not_fit_is_refused() -> None:
    for kind in (SkewnessFlatness, RectifierCovariance):
        with pytest.raises(InvalidParameter, match="need a grid"):
            kind((16, 16), 5, 4)
