"""Solid harmonic scattering of one density against kymatio: one grid, taking turns, medians."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.special
import torch

from benchmarks import tables
from wavemill import SolidHarmonicScattering

SHAPE = (192, 128, 96)
ROUNDS = 3
POWERS = (0.5, 1.0, 2.0, 3.0)
ATOMS = 18


def peer() -> Callable[[np.ndarray[Any, Any]], np.ndarray[Any, Any]]:
    """Return kymatio's transform; it needs a name that scipy has renamed."""
    if not hasattr(scipy.special, "sph_harm"):
        scipy.special.sph_harm = lambda m, n, azimuth, polar: scipy.special.sph_harm_y(
            n, m, polar, azimuth
        )
    from kymatio.torch import HarmonicScattering3D

    op = HarmonicScattering3D(
        J=2, shape=SHAPE, L=3, sigma_0=1.0, integral_powers=list(POWERS), max_order=2
    )
    return lambda density: op(density[None])[0].permute(0, 1, 2)  # type: ignore[no-any-return]


def main() -> None:
    """Measure and write the table."""
    generator = torch.Generator().manual_seed(0)
    size = torch.tensor(SHAPE) - 80.0
    positions = ((torch.rand(ATOMS, 3, generator=generator) - 0.5) * size).double()
    charges = torch.randint(1, 9, (1, ATOMS), generator=generator).double()
    options: dict[str, Any] = {"J": 2, "L": 3, "sigma": 1.0, "width": 2.0, "powers": POWERS}
    exact = SolidHarmonicScattering(**options, band=None, channels=("full",), dtype=torch.float64)
    ours = SolidHarmonicScattering(**options, band=5.0, channels=("full",))
    theirs = peer()
    spectrum = exact.density(positions, charges, SHAPE)
    truth = exact.integrals(spectrum[None], SHAPE)[0, 0, len(POWERS) :]
    density = torch.fft.ifftn(spectrum, dim=(-3, -2, -1)).real[0].float()

    def mine() -> torch.Tensor:
        half = ours.density(positions.float(), charges.float(), SHAPE)
        return ours.integrals(half[None], SHAPE)[0, 0, len(POWERS) :]

    seconds: dict[str, list[float]] = {"wavemill": [], "kymatio": []}
    found = {}
    with torch.inference_mode():
        for _ in range(ROUNDS):
            for name, run in (("wavemill", mine), ("kymatio", lambda: theirs(density))):
                start = time.perf_counter()
                found[name] = run()
                seconds[name].append(time.perf_counter() - start)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    rows = []
    for name, values in found.items():
        error = ((values.double().reshape(-1) - truth) / truth).abs()
        worst = [f"{float(error[place :: len(POWERS)].max()):.0e}" for place in range(len(POWERS))]
        rows.append(
            {
                "transform": name,
                "seconds a density": f"{medians[name]:.3f}",
                "ratio": f"{medians['kymatio'] / medians[name]:.1f}",
                **dict(zip((f"apart, q = {q:g}" for q in POWERS), worst, strict=True)),
            }
        )
    text = (
        f"One density of {ATOMS} atoms on {' x '.join(map(str, SHAPE))} samples, J = 2, L = 3, "
        f"orders 1 and 2, float32, CPU, {torch.get_num_threads()} threads. 'Apart' is the largest "
        "relative difference from full grids in float64."
    )
    using = tables.versions("torch", "kymatio", "numpy")
    tables.write("solid_harmonics", "Solid harmonic scattering against kymatio", text, rows, using)


if __name__ == "__main__":
    main()
