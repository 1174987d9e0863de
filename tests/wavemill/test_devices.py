"""Everything follows its input to another device, and finds the same there.

The device is an emulated one (tests/elsewhere.py): paths are those of an accelerator, in place of
which the processor uses compiled loops, and nothing may be left behind in the processor's memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.elsewhere import CROSSED, DEVICE, Accelerator, There
from tests.wavemill.test_generation import SMALL as GENERATOR
from tests.wavemill.test_generation import pictures
from wavemill import (
    AtomicHarmonics,
    Composition,
    Energy,
    Gaussian,
    Generator,
    GeneratorSpec,
    Judge,
    Microcanonical,
    Molecules,
    Multilinear,
    PhaseHarmonicCovariance,
    PowerSpectrum,
    RectifiedWavelets,
    RectifierCovariance,
    Ridge,
    RidgeClassifier,
    Scattering2D,
    ScatteringSpectra,
    SolidHarmonicScattering,
    Standardisation,
    WaveletTransform,
    fista,
    isotropic_spectrum,
    istc,
)

GRID = (32, 32)
TRANSFORMS: dict[str, Callable[[], nn.Module]] = {
    "wavelets": lambda: WaveletTransform(GRID, 3, 4),
    "spectrum": lambda: PowerSpectrum(GRID),
    "scattering": lambda: Scattering2D(GRID, 3, 4),
    "scattering, rectifiers": lambda: Scattering2D(GRID, 3, 4, nonlinearity="rectifier"),
    "rectified wavelets": lambda: RectifiedWavelets(GRID, 3, 4),
    **{
        f"phase harmonics {kind}": lambda kind=kind: PhaseHarmonicCovariance(GRID, 3, 4, kind, 1)
        for kind in ("A", "B", "C", "C+L", "C+moduli", "D", "pywph")
    },
}
MODELS: dict[str, dict[str, Any]] = {
    **{kind: {"set": kind} for kind in ("B", "C", "C+L", "D", "pywph", "H", "rectifier")},
    "scattering": {"set": "scattering"},
    "isotropic scattering": {"set": "scattering-isotropic"},
    "masked": {"set": "B", "borders": "mask"},
    "white": {"set": "B", "start": "white"},
}


@pytest.fixture(autouse=True)
def accelerator() -> Iterator[None]:
    with Accelerator():
        yield


def fields(*shape: int) -> Tensor:
    """Intermittent noise, float32."""
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    smooth = x + x.roll(1, -1) + x.roll(1, -2)
    return smooth * smooth.abs()


def back(x: Any) -> Any:
    """Bring a tensor back from the device, and fail if it was not there."""
    assert isinstance(x, There), type(x)
    return x.held


def total(outputs: Any, device: str) -> Tensor:
    """Return a number that depends on all outputs."""
    parts = outputs if isinstance(outputs, tuple) else (outputs,)
    return sum((part.abs().square().sum() for part in parts), torch.zeros((), device=device))


def test_the_device_refuses_what_an_accelerator_refuses() -> None:
    x = torch.ones(3, device=DEVICE)
    with pytest.raises(RuntimeError, match="two devices"):
        x + torch.ones(3)
    with pytest.raises(RuntimeError, match="generator"):
        torch.randn(3, device=DEVICE, generator=torch.Generator())
    with pytest.raises((RuntimeError, TypeError)):
        np.asarray(x)
    CROSSED.clear()
    assert (x + 1).sum().item() == 6
    assert torch.zeros(2).to(DEVICE).cpu().device.type == "cpu"
    assert len(CROSSED) == 3


@pytest.mark.parametrize("name", TRANSFORMS)
def test_transforms_and_their_gradients(name: str) -> None:
    x = fields(2, *GRID)
    found = []
    for device in ("cpu", DEVICE):
        leaf = x.to(device).requires_grad_()
        outputs = TRANSFORMS[name]().to(device)(leaf)
        found += torch.autograd.grad(total(outputs, device), leaf)
    expected, gradient = found[0], back(found[1])
    scale = float(expected.abs().max())
    torch.testing.assert_close(gradient, expected, rtol=0, atol=2e-5 * scale)


@pytest.mark.parametrize("name", MODELS)
def test_models_of_moments(name: str) -> None:
    """Losses of the first gradients; later ones magnify rounding."""
    losses, drawn = [], None
    for device in ("cpu", DEVICE):
        spec = {"J": 3, "L": 4, "iterations": 4, **MODELS[name]}
        model = Microcanonical(spec).fit(fields(2, *GRID).to(device))
        drawn = model.sample(2)
        losses.append(model.losses_[1])
    assert back(drawn).shape == (2, *GRID)
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-3)


@pytest.mark.parametrize("name", MODELS)
def test_losses_of_moments_neither_wait_nor_copy(name: str) -> None:
    """So a GPU can record and repeat them (wavemill/replay.py)."""
    model = Microcanonical({"J": 3, "L": 4, **MODELS[name]}).fit(fields(1, *GRID).to(DEVICE))
    x = fields(2, *GRID).to(DEVICE)
    for _ in range(2):
        CROSSED.clear()
        model.operator.loss_and_gradient(model.coordinates.field(x), model.moments_)
    assert not CROSSED


@pytest.mark.parametrize("make", [PhaseHarmonicCovariance, RectifierCovariance, ScatteringSpectra])
def test_moments_follow_the_fields(make: Callable[..., Any]) -> None:
    op, x = make(GRID, 3, 4), fields(*GRID)
    expected, moments = (
        op.loss_and_gradient(x, op.measure(x.roll(1) ** 2))[0],
        op.measure(x.roll(1) ** 2),
    )
    found, gradient = op.loss_and_gradient(x.to(DEVICE), moments)
    torch.testing.assert_close(back(found), expected, rtol=1e-3, atol=0)
    assert back(gradient).shape == GRID


def test_statistics_and_energies_of_what_is_there() -> None:
    x = fields(2, *GRID).double()
    for one, other in zip(isotropic_spectrum(x), isotropic_spectrum(x.to(DEVICE)), strict=True):
        torch.testing.assert_close(back(other), one)
    model = Energy({"J": 1, "L": 2, "set": "A0", "steps": 2}).fit(x.to(DEVICE))
    assert model.energy(x.to(DEVICE)).shape == (2,)


def test_models_of_components() -> None:
    x = fields(2, 2, *GRID).to(DEVICE)
    model = Microcanonical({"set": "B", "J": 2, "iterations": 3}).fit(x)
    assert back(model.sample(1)).shape == (1, 2, *GRID)
    again = Microcanonical.from_state(model.spec, {k: v.cpu() for k, v in model.state().items()})
    torch.testing.assert_close(again.sample(1), back(model.sample(1)), rtol=0, atol=1e-2)


@pytest.mark.parametrize("method", ["gaussian", "phases", "bands"])
def test_gaussian_models(method: str) -> None:
    spec = {"method": method, **({"J": 3} if method == "bands" else {})}
    x = fields(2, *GRID)
    one, other = (Gaussian(spec).fit(x.to(device)).sample(2) for device in ("cpu", DEVICE))
    torch.testing.assert_close(back(other), one, rtol=0, atol=1e-4)


def test_judges() -> None:
    x = fields(6, *GRID)
    scores = []
    for device in ("cpu", DEVICE):
        judge = Judge(x[:4].to(device), J=2, L=2)
        scores.append(judge.score(x[4:].to(device), x[:1].to(device))[0])
    assert scores[1] == pytest.approx(scores[0], rel=1e-3, nan_ok=True)


@pytest.mark.parametrize("model", ["linear", "convolutional", "sparse"])
def test_generators(model: str) -> None:
    spec = GeneratorSpec(**{**GENERATOR, "epochs": 1, "model": model, "width": 8, "atoms": 8})
    x, scores = pictures(80), []
    for device in ("cpu", DEVICE):
        made = Generator(spec).fit(x.to(device))
        scores.append(made.judge(x[:8].to(device))["psnr"].mean().item())
        made.interpolate(x[:2].to(device), 3), made.vary(x[:2].to(device), 2), made.sample(2, 0, 2)
    assert scores[1] == pytest.approx(scores[0], abs=0.1)


def test_a_generator_goes_on_from_what_was_stored() -> None:
    spec = GeneratorSpec(**{**GENERATOR, "epochs": 2, "model": "sparse", "atoms": 8})
    x, states = pictures(80).to(DEVICE), list[dict[str, Tensor]]()
    whole = Generator(spec).fit(x, checkpoint=states.append)
    stored = {name: value.cpu() for name, value in states[-2].items()}
    resumed = Generator(spec).fit(x, resume=stored)
    assert resumed.curve_[-1].psnr == pytest.approx(whole.curve_[-1].psnr, abs=1e-3)


def molecules() -> Molecules:
    """Three small molecules."""
    draw = torch.randn(9, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    charges = torch.tensor([8, 1, 1, 6, 1, 1, 1, 1, 7])
    return Molecules(2 * draw, charges, torch.tensor([0, 3, 8, 9]))


def test_transforms_of_molecules() -> None:
    atoms = molecules()
    for make in (
        lambda: AtomicHarmonics(elements=(1, 6, 7, 8), dtype=torch.float64),
        lambda: SolidHarmonicScattering(J=1, L=2, resolution=2.0, dtype=torch.float64),
    ):
        expected, found = (make().to(device)(atoms) for device in ("cpu", DEVICE))
        scale = float(expected.abs().max())
        torch.testing.assert_close(back(found), expected, rtol=0, atol=1e-9 * scale)


def test_regressions() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(60, 12, generator=generator, dtype=torch.float64)
    y = x @ torch.arange(12.0).double() + x[:, 0] * x[:, 5]
    for make in (lambda: Composition(3), lambda: Ridge(3), lambda: Multilinear(3, 2, 4, 3, 16)):
        expected, found = (
            make().fit(x.to(device), y.to(device)).predict(x.to(device))
            for device in ("cpu", DEVICE)
        )
        torch.testing.assert_close(back(found), expected, rtol=1e-3, atol=1e-3)


def test_classifiers() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(64, 6, 3, 3, generator=generator)
    y = x.mean((2, 3))[:, :3].argmax(1)
    found = []
    for device in ("cpu", DEVICE):
        there, classes = x.to(device), y.to(device)
        standard = Standardisation(5).update(there).solve()(there)
        ridge = RidgeClassifier(3).update(standard.flatten(1), classes)
        ridge.choose(standard.flatten(1), classes)
        found.append((standard.abs(), ridge(standard.flatten(1))))  # axes may change sign
    for expected, other in zip(*found, strict=True):
        torch.testing.assert_close(back(other), expected, rtol=0, atol=1e-3)


def test_sparse_codes() -> None:
    generator = torch.Generator().manual_seed(0)
    D = nn.functional.normalize(torch.randn(10, 24, generator=generator), dim=0)
    beta = torch.randn(36, 10, generator=generator)
    thresholds = torch.linspace(2, 0.2, 6)
    expected = istc(beta, D, thresholds)
    found = istc(beta.to(DEVICE), D.to(DEVICE), thresholds.to(DEVICE))
    torch.testing.assert_close(back(found), expected, rtol=0, atol=1e-5)
    expected = fista(beta, D, 0.1, 20)
    found = fista(beta.to(DEVICE), D.to(DEVICE), 0.1, 20)
    torch.testing.assert_close(back(found), expected, rtol=0, atol=1e-4)
