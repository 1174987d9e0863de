"""Generators of other samples: small images, bedrooms, crops of vorticity and the cosmic web.

Test samples are other images, or crops of other maps: the last four of twenty maps, the last twenty
of a hundred bedrooms (grey, reduced), and 2,000 images of CIFAR-10 that a seed draws together with
20,000 to learn from. Codes have m numbers. Linear is ridge regression; shared is shrunk towards an
inverse that all points of the grid share, on which the sparse inversion builds, too. The peak of
PSNR is 1 for images, and the span of values for fields.

Finished rows lie in ``benchmarks/scratch/generation_data`` and are not computed again.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from benchmarks import tables
from benchmarks.generation import DATA as TINY
from benchmarks.generation import decoded
from wavemill import Generator
from wavemill.generation import crops
from wavemill.specs import GeneratorSpec

DATA = TINY.parent
SCRATCH = Path(__file__).with_name("scratch") / "generation_data"
HELD_MAPS, HELD_BEDROOMS = 4, 20
TRAIN, TEST = 20_000, 2_000
MODELS: dict[str, dict[str, Any]] = {
    "linear": {"model": "linear", "shared": False},
    "linear, shared": {"model": "linear"},
    "convolutional": {"model": "convolutional", "width": 64, "batch": 32},
    "sparse": {"model": "sparse", "atoms": 64, "iterations": 2},
}
Sides = tuple[Tensor, Tensor]


def fields(folder: str, side: int) -> Sides:
    """Return the crops of all maps but the last four, and those of the last four."""
    files = sorted((DATA / "turbulence" / folder).glob("*.npy"))
    maps = torch.from_numpy(np.stack([np.load(file) for file in files])).float()
    return crops(maps[:-HELD_MAPS], side), crops(maps[-HELD_MAPS:], side)


def bedrooms() -> Sides:
    """Return all grey bedrooms at 64^2 but the last twenty, and the last twenty."""
    files = sorted((DATA / "bedrooms_scene15").glob("*.jpg"))
    small = [Image.open(file).convert("L").resize((64, 64), Image.Resampling.BOX) for file in files]
    x = torch.from_numpy(np.stack(small)).float() / 255
    return x[:-HELD_BEDROOMS], x[-HELD_BEDROOMS:]


def cifar() -> Sides:
    """Return images of CIFAR-10's training set that a seed draws, uint8 ``(n, y, x, rgb)``."""
    found = decoded(DATA / "cifar10" / "cifar10_train.tar.gz")
    drawn = np.random.default_rng(0).permutation(len(found))[: TRAIN + TEST]
    x = torch.from_numpy(found[drawn])
    return x[:TRAIN], x[TRAIN:]


VORTICITY, WEB = "vorticity2d", "cosmic_web_quijote_log256"
SAMPLES: dict[str, tuple[Callable[[], Sides], dict[str, int]]] = {
    "bedrooms, 64^2": (bedrooms, {"J": 4, "dimension": 48}),
    "vorticity, 64^2": (partial(fields, VORTICITY, 64), {"J": 4, "dimension": 128}),
    "vorticity, 128^2": (partial(fields, VORTICITY, 128), {"J": 5, "dimension": 48}),
    "cosmic web, 64^2": (partial(fields, WEB, 64), {"J": 4, "dimension": 128}),
    "cosmic web, 128^2": (partial(fields, WEB, 128), {"J": 5, "dimension": 48}),
    "CIFAR-10, 32^2": (cifar, {"J": 3, "dimension": 512}),
}


def main() -> None:
    """Learn what is not learnt yet, and write the table."""
    SCRATCH.mkdir(parents=True, exist_ok=True)
    text = (__doc__ or "").split("\n\n")[1].replace("\n", " ")
    rows = []
    for samples in SAMPLES:
        rows += measured(samples)
        tables.write(
            "generation_data", "Generators of other samples", text, rows, tables.versions("torch")
        )


def measured(samples: str) -> list[dict[str, str]]:
    """Return the rows of one kind of samples."""
    missing = [model for model in MODELS if not path(samples, model).exists()]
    if missing:
        load, settings = SAMPLES[samples]
        train, test = load()
        for model in missing:
            path(samples, model).write_text(json.dumps(row(samples, model, settings, train, test)))
    return [json.loads(path(samples, model).read_text()) for model in MODELS]


def path(samples: str, model: str) -> Path:
    """Return where a finished row lies."""
    return SCRATCH / f"{samples}, {model}.json"


def row(
    samples: str, model: str, settings: dict[str, int], train: Tensor, test: Tensor
) -> dict[str, str]:
    """Learn one generator and judge it."""
    begun = time.process_time()
    made = Generator(GeneratorSpec(**settings, **MODELS[model])).fit(train)
    spent = time.process_time() - begun
    seen, other = (made.judge(x[:TEST]) for x in (train, test))
    scores = [float(side["psnr"].mean()) for side in (seen, other)]
    print(samples, model, scores, f"{spent:.0f} s", flush=True)
    return {
        "samples": samples,
        "train, test": f"{len(train):,}, {len(test):,}",
        "m": f"{settings['dimension']}",
        "generator": model,
        "epochs": str(max((point.epoch for point in made.curve_), default=0)),
        "CPU minutes": f"{spent / 60:.1f}",
        "train PSNR": f"{scores[0]:.2f}",
        "test PSNR": f"{scores[1]:.2f}",
        "gap": f"{scores[0] - scores[1]:.2f}",
        "test SSIM": f"{float(other['ssim'].mean()):.3f}",
    }


if __name__ == "__main__":
    main()
