"""The published recipe of ImageNet (docs/configs/imagenet.toml): images a second, hours in all.

Features and training steps are measured separately, on photographs of ImageNet, at the sizes of the
recipe; if there is a GPU, by its own events and in the recipe's mixed precision.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import measure, tables
from storage.readers.images import Framing, decode
from wavemill import Scattering2D
from wavemill.dictionaries.classifiers import Network, Standardisation
from wavemill.dictionaries.training import Training
from wavemill.specs import ClassifierSpec

RECIPE = Path(__file__).parents[1] / "docs" / "configs" / "imagenet.toml"
SAMPLES = Path(__file__).parents[2] / "shared" / "data" / "imagenet" / "sample_images"
SIDE, COVER, CLASSES = 224, 256, 1000
LEARNT = 1_281_167 - 50_000  # those held out judge
ROUNDS = 3
BATCH = {"cpu": 16, "cuda": 256}


def main() -> None:
    """Measure and write the table."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    parameters = tomllib.loads(RECIPE.read_text())
    spec = ClassifierSpec.from_parameters(parameters)
    photographs = read(BATCH[device]).to(device)
    transform = Scattering2D((SIDE, SIDE), J=4, L=8, nonlinearity="rectifier").to(device)

    def features() -> torch.Tensor:
        return transform(photographs).flatten(1, 2)

    with torch.inference_mode():
        raw = features()
    standard = Standardisation(spec.components, spec.power)
    x = standard.update(raw.cpu()).solve()(raw.cpu()).clone().to(device)
    y = torch.arange(len(x)) % CLASSES
    network = Network((x.shape[1], x.shape[2], x.shape[3]), CLASSES, spec)
    training = Training(network, spec, 1, 0, device)

    def featured() -> None:
        with torch.inference_mode():
            features()

    calls = {"features": featured, "a step of training": lambda: training.advance([(x, y)])}
    taken = measure.seconds(calls, ROUNDS, device)
    rows = [row(name, seconds / len(x), spec.epochs) for name, seconds in taken.items()]
    rows.append(row("both", sum(taken.values()) / len(x), spec.epochs))
    clock = "its events" if device == "cuda" else measure.clock()
    text = (
        f"`docs/configs/imagenet.toml` at its own sizes: {SIDE} x {SIDE}, scattering J = 4, L = 8, "
        f"{x.shape[1]:,} channels at {x.shape[2]} x {x.shape[3]}, {spec.atoms:,} atoms, "
        f"{spec.iterations} iterations, layers of {' and '.join(map(str, spec.hidden))}, W free of "
        f"D. Batches of {len(x)} photographs; medians of {ROUNDS}, {clock}. 'The whole': "
        f"{spec.epochs} epochs of {LEARNT:,} images, with features computed anew each time, as the "
        "recipe does; reading and validation are not counted."
    )
    tables.write("imagenet", "The recipe of ImageNet", text, rows, tables.versions("torch"))


def read(count: int) -> torch.Tensor:
    """Return photographs as the recipe frames them, ``(n, rgb, y, x)`` from 0 to 1."""
    files = sorted(SAMPLES.glob("*.JPEG"))
    framing = Framing((SIDE, SIDE), "crop", (COVER, COVER))
    found = [framing(decode(files[n % len(files)].read_bytes())[0]) for n in range(count)]
    return torch.from_numpy(np.stack(found)).movedim(-1, 1).float() / 255


def row(name: str, seconds: float, epochs: int) -> dict[str, Any]:
    """Return a row: of one image, of a second, of the whole."""
    hours = seconds * LEARNT * epochs / 3600
    return {
        "what": name,
        "ms an image": f"{1e3 * seconds:.3g}",
        "images a second": f"{1 / seconds:.3g}",
        "hours for the whole": f"{hours:,.0f}",
    }


if __name__ == "__main__":
    main()
