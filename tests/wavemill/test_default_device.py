"""A default device of torch's changes nothing: what is computed lives where the data does.

The default is "meta", whose tensors have no values, so that one that strays is found.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pytest
import torch

import wavemill
from wavemill.devices import beside_default
from wavemill.filters import bump_steerable, morlet

SHAPE = (32, 32)


def field(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    generator = torch.Generator("cpu").manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=dtype, device="cpu")


def values_of(found: Any) -> Iterable[torch.Tensor]:
    """Yield the tensors and arrays in what was computed."""
    if isinstance(found, torch.Tensor | np.ndarray):
        yield torch.as_tensor(found, device="cpu") if isinstance(found, np.ndarray) else found
    elif isinstance(found, dict):
        for one in found.values():
            yield from values_of(one)
    elif isinstance(found, tuple | list):
        for one in found:
            yield from values_of(one)


def gradient(op: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    x = x.clone().requires_grad_()
    op(x).abs().square().sum().backward()
    assert x.grad is not None
    return x.grad


def moments(make: Callable[[], Any], *lead: int) -> Callable[[], Any]:
    def compute() -> Any:
        op, x, y = make(), field(2, *lead, *SHAPE), field(2, *lead, *SHAPE, seed=1)
        reference = op.measure(x)
        loss, slope = op.loss_and_gradient(y, reference)
        return op(y), reference.values, reference.statistics.scale, loss, slope

    return compute


def molecules() -> wavemill.Molecules:
    places = field(5, 3, dtype=torch.float64) * 2
    numbers = torch.tensor([1, 6, 7, 8, 1], device="cpu")
    return wavemill.Molecules.of([(places, numbers), (places[:2], numbers[:2])])


def sampled(kind: type, **parameters: Any) -> Callable[[], Any]:
    def compute() -> Any:
        model = kind(parameters).fit(field(2, *SHAPE).cumsum(-1))
        again = kind.from_state(model.spec, model.state())
        return model.sample(2, seed=1), again.sample(2, seed=1)

    return compute


def solid(molecules: wavemill.Molecules) -> torch.Tensor:
    op = wavemill.SolidHarmonicScattering(J=1, L=1, resolution=2.0)
    found: torch.Tensor = op(molecules)
    return found


x = field(2, *SHAPE)
atoms = field(8, 12, dtype=torch.float64)
COMPUTED: dict[str, Callable[[], Any]] = {
    "scattering": lambda: wavemill.Scattering2D(SHAPE, J=2, L=4)(x),
    "gradient of scattering": lambda: gradient(wavemill.Scattering2D(SHAPE, J=2, L=4), x),
    "scattering by torch": lambda: gradient(
        wavemill.Scattering2D(SHAPE, J=2, L=4, nonlinearity="fully-rectified"), x
    ),
    "wavelets": lambda: wavemill.WaveletTransform(SHAPE, J=2, L=4)(x),
    "spectrum": lambda: wavemill.PowerSpectrum(SHAPE)(x),
    "covariances": moments(lambda: wavemill.PhaseHarmonicCovariance(SHAPE, J=2, L=4)),
    "means of covariances": moments(lambda: wavemill.PhaseHarmonicCovariance(SHAPE, 2, 4, "D")),
    "masked covariances": moments(lambda: wavemill.MaskedCovariance(SHAPE, J=2, L=4)),
    "between components": moments(lambda: wavemill.CrossCovariance(2, SHAPE, 2, 4), 2),
    "scattering spectra": moments(lambda: wavemill.ScatteringSpectra(SHAPE, J=2, L=4)),
    "skewness and flatness": moments(lambda: wavemill.SkewnessFlatness(SHAPE, 2, 4)),
    "rectifiers": moments(lambda: wavemill.RectifierCovariance(SHAPE, 2, 4)),
    "gaussian": sampled(wavemill.Gaussian),
    "gaussian of bands": sampled(wavemill.Gaussian, method="bands", J=2, L=4),
    "microcanonical": sampled(wavemill.Microcanonical, J=2, L=4, iterations=4),
    "components": sampled(wavemill.Microcanonical, set="rectifier", J=2, L=2, iterations=4),
    "energy": sampled(wavemill.Energy, J=1, L=2, lags=0, steps=2),
    "solid harmonics": lambda: solid(molecules()),
    "atomic harmonics": lambda: wavemill.AtomicHarmonics(elements=(1, 6, 7, 8))(molecules()),
    "bispectrum": lambda: wavemill.bispectrum(x),
    "minkowski": lambda: wavemill.minkowski_functionals(x, [-1, 0, 1]),
    "pdf": lambda: wavemill.pdf(x),
    "structure functions": lambda: wavemill.structure_functions(x, [1, 2, 4]),
    "isotropic spectrum": lambda: wavemill.isotropic_spectrum(x),
    "flatness": lambda: (wavemill.flatness(x), wavemill.skewness(x)),
    "correlation": lambda: wavemill.best_correlation(x[:1], x[1:]),
    "vorticity": lambda: wavemill.vorticity(x),
    "filters": lambda: (bump_steerable.wavelets(SHAPE, 2, 4), morlet.wavelets(SHAPE, 2, 4)),
    "rectify": lambda: wavemill.rectify(torch.complex(x, x), 4),
    "sparse codes": lambda: wavemill.istc(atoms[:, :8], atoms[:, :8], [1.0, 0.5, 0.2]),
    "simulation": lambda: wavemill.simulate(wavemill.SimulationSpec(N=16, t=0.1, k0=4), [0, 1]),
    "whitening": lambda: wavemill.Whitening(6).update(field(40, 6)).solve()(field(3, 6)),
}


@pytest.mark.parametrize("name", COMPUTED)
def test_a_default_device_changes_nothing(name: str) -> None:
    expected = list(values_of(COMPUTED[name]()))
    with torch.device("meta"):
        found = list(values_of(COMPUTED[name]()))
    assert expected
    for one, other in zip(found, expected, strict=True):
        assert one.device.type == "cpu"
        torch.testing.assert_close(one, other, rtol=0, atol=0, equal_nan=True)


def test_an_operator_that_was_made_before_is_of_use_after() -> None:
    op = wavemill.Scattering2D(SHAPE, J=2, L=4)
    expected = op(x)
    torch.set_default_device("meta")
    try:
        assert torch.equal(op(x), expected)
        assert torch.empty(1).device.type == "meta"
    finally:
        torch.set_default_device(None)


def test_what_runs_beside_it_makes_tensors_on_the_cpu() -> None:
    with torch.device("meta"):
        assert beside_default(torch.zeros)(2).device.type == "cpu"
        assert torch.zeros(2).device.type == "meta"
