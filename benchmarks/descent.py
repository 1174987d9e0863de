"""How far descents get, in coordinates of the references' spectrum and in values at points.

The same L-BFGS from the same noise with the fitted spectrum, seed 0, J = 5, L = 4, lags 1, float32.
The columns 'after' give the loss relative to the first one, after so many gradients. 'Spectrum off'
is the largest |ln| of the ratio of a sample's spectrum to the map's, over octaves of wavenumber
from the third on.
"""

from __future__ import annotations

import os
from itertools import product

os.environ.setdefault("WAVEMILL_QUALITY_SIDE", "256")  # before maps are asked for

import numpy as np
import torch
from torch import Tensor

from benchmarks import tables
from benchmarks.quality import DATASETS, maps
from wavemill.maxent import Microcanonical
from wavemill.maxent.coordinates import Coordinates
from wavemill.spectra import PowerSpectrum, flatness

SETS = ("C", "D", "scattering")
GRADIENTS = (25, 50, 100, 200)
FIRST = 3  # the first octave whose shells have enough modes for one sample


def main() -> None:
    """Descend and write the table."""
    rows = [row(*case) for case in product(DATASETS, SETS, ("points", "spectrum"))]
    text = (__doc__ or "").split("\n\n")[1].replace("\n", " ").strip()
    tables.write("descent", "Descents", text, rows, tables.versions("torch", "numpy"))


def row(dataset: str, kind: str, coordinates: str) -> dict[str, str]:
    """Fit one map, draw one sample."""
    x = maps(dataset)[:1]
    spec = {"set": kind, "J": 5, "L": 4, "lags": 1, "iterations": max(GRADIENTS)}
    model = Microcanonical(spec).fit(x)
    if coordinates == "points":
        model.coordinates = Coordinates(None, model.gaussian_.shape, torch.float32)
    drawn = model.sample(1)
    least = np.minimum.accumulate(model.losses_[0])
    losses = {f"after {n}": f"{least[min(n, len(least)) - 1]:.1e}" for n in GRADIENTS}
    of = {"map": float(flatness(x).mean()), "sample": float(flatness(drawn).mean())}
    print(dataset, kind, coordinates, losses, of, flush=True)
    return {
        "data": dataset,
        "set": kind,
        "coordinates": coordinates,
        **losses,
        **{f"flatness of {name}": f"{value:.2f}" for name, value in of.items()},
        "spectrum off": f"{off(x, drawn):.2f}",
    }


def off(x: Tensor, drawn: Tensor) -> float:
    """Return how far apart spectra are in the octave where they differ most."""
    spectrum = PowerSpectrum((x.shape[-2], x.shape[-1]), dtype=torch.float64)
    ratio = (spectrum(drawn.double())[0, 1:] / spectrum(x.double())[0, 1:]).log()
    octave = np.log2(spectrum.coefficients["shell"][1:]).astype(int)
    means = [abs(float(ratio[octave == o].mean())) for o in range(FIRST, octave.max() + 1)]
    return max(means)


if __name__ == "__main__":
    main()
