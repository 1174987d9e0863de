"""Models of turbulence and of the cosmic web, judged on maps that they were not fitted to.

Each model is fitted to one map; 17 others judge it. eps is the relative distance of foveal
phase-harmonic correlation matrices; other columns are as `wavemill evaluate` prints them. The first
rows are real maps: one alone, and ten, as models of the ten others.

What is finished lies in ``benchmarks/scratch/quality`` and is not computed again, so that the table
can be made in pieces: ``WAVEMILL_QUALITY_SECONDS`` begins nothing new after so long,
``WAVEMILL_QUALITY_SAMPLES`` (10), ``WAVEMILL_QUALITY_FITS`` (3) and ``WAVEMILL_QUALITY_MODELS``
(all; names between semicolons) say how much there is to do, ``WAVEMILL_QUALITY_BATCH`` (2) how many
samples descend at once.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks import tables
from wavemill.evaluation import METRICS, Judge
from wavemill.maxent import Gaussian, Microcanonical

SCRATCH = Path(__file__).with_name("scratch") / "quality"
DATA = Path(__file__).parents[2] / "shared" / "data" / "turbulence"
DATASETS = {"vorticity": "vorticity2d", "cosmic web": "cosmic_web_quijote_log256"}
SMALL = {
    "J": 5,
    "L": 4,
    "lags": 1,
    "iterations": 200,
}  # the product's default: a fourth of the work
PAPER = {"J": 5, "L": 8, "lags": 2, "iterations": 200}  # Zhang and Mallat's
MODELS: dict[str, Callable[[], Any]] = {
    "Gaussian": Gaussian,
    "A, small": lambda: Microcanonical({"set": "A", **SMALL}),
    "B, small": lambda: Microcanonical({"set": "B", **SMALL}),
    "C, small": lambda: Microcanonical({"set": "C", **SMALL}),
    "C+L, small": lambda: Microcanonical({"set": "C+L", **SMALL}),
    "C, small, ten maps": lambda: Microcanonical({"set": "C", **SMALL}),
    "A": lambda: Microcanonical({"set": "A", **PAPER}),
    "B": lambda: Microcanonical({"set": "B", **PAPER}),
    "C": lambda: Microcanonical({"set": "C", **PAPER}),
    "C+L": lambda: Microcanonical({"set": "C+L", **PAPER}),
    "C, ten maps": lambda: Microcanonical({"set": "C", **PAPER}),
}
TEN = 10  # maps of the last; the other ten judge it
HELD = 3  # maps that are fitted to, and never judge
COLUMNS = tuple(metric for metric in METRICS if not metric.endswith("_scatter"))


def setting(name: str, default: str) -> str:
    """Return one of the settings of this benchmark."""
    return os.environ.get(f"WAVEMILL_QUALITY_{name}", default)


def main() -> None:
    """Do what is left of the work, as far as time allows, and write the table of what is done."""
    started, allowed = time.monotonic(), float(setting("SECONDS", "inf"))
    for unit in units():
        if time.monotonic() - started > allowed:
            print("time is up: run it again for more")
            break
        unit()
    write()


def units() -> Iterator[Callable[[], None]]:
    """Yield what is left to do, so that every row gets its first samples before any its last."""
    samples, fits = int(setting("SAMPLES", "10")), int(setting("FITS", "3"))
    batch, wanted = int(setting("BATCH", "2")), setting("MODELS", ";".join(MODELS)).split(";")
    for number in range(-(-samples // batch)):
        for fit in range(fits):
            for dataset in DATASETS:
                for model in (name for name in MODELS if name in wanted):
                    count = min(batch, samples - number * batch)
                    path = SCRATCH / dataset / f"{model}-{fit}-{number}.npz"
                    if not path.exists() and not (fit and model.endswith("maps")):
                        yield lambda a=(path, dataset, model, fit, number, count): draw(*a)


def maps(dataset: str) -> Tensor:
    """Return the 20 maps of a dataset, float32 ``(map, y, x)``, in the order of their names."""
    files = sorted((DATA / DATASETS[dataset]).glob("*.npy"))
    return torch.from_numpy(np.stack([np.load(file) for file in files]))


def draw(path: Path, dataset: str, model: str, fit: int, number: int, count: int) -> None:
    """Fit, draw ``count`` samples of seed ``number`` and keep them with the time they took."""
    x = maps(dataset)
    fitted = MODELS[model]().fit(x[:TEN] if model.endswith("maps") else x[fit : fit + 1])
    start = time.perf_counter()
    drawn = fitted.sample(count, seed=number).numpy()
    seconds = (time.perf_counter() - start) / count
    losses = [float(np.min(values)) for values in getattr(fitted, "losses_", [])]
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".part.npz")
    moments = fitted.metrics_.get("moments", 0)
    np.savez(partial, drawn=drawn, seconds=seconds, losses=losses, moments=moments)
    partial.replace(path)
    print(f"{dataset}, {model}, map {fit}, seed {number}: {seconds:.1f} s a sample", flush=True)


def write() -> None:
    """Judge what is there and write the table."""
    rows = [row for dataset in DATASETS if (SCRATCH / dataset).exists() for row in judged(dataset)]
    if rows:
        text = (__doc__ or "").split("\n\n")[1].replace("\n", " ")
        text += (
            " 200 gradients a sample from noise of the fitted spectrum; J = 5, L = 8, lags 2; in "
            "small models L = 4, lags 1. M counts distinct real moments, s is seconds a sample. "
            "`memory` is the mean correlation with the fitted map at the best shift."
        )
        tables.write("quality", "Quality of models", text, rows, tables.versions("torch", "numpy"))


def judged(dataset: str) -> Iterator[dict[str, str]]:
    """Yield a row for real maps, then one a model, means over the maps fitted to."""
    x = maps(dataset)
    for name, scores in kept(SCRATCH / dataset / "floors.json", lambda: Judge(x).floors).items():
        yield row(dataset, name, [scores], {"fitted": "", "samples": "", "M": "", "s": ""})
    for model in MODELS:
        scores, counts, seconds, moments = [], [], [], 0
        for fit in range(HELD):
            files = sorted((SCRATCH / dataset).glob(f"{model}-{fit}-*.npz"))
            if not files:
                continue
            parts = [np.load(file) for file in files]
            drawn = torch.from_numpy(np.concatenate([part["drawn"] for part in parts]))
            counts.append(len(drawn))
            seconds += [float(part["seconds"]) for part in parts]
            moments = int(parts[0]["moments"])
            many = model.endswith("maps")
            judge = of_others(dataset, TEN if many else HELD)
            training = x[:TEN] if many else x[fit : fit + 1]
            path = SCRATCH / dataset / f"{model}-{fit}.{len(drawn)}.json"
            made = kept(path, lambda d=drawn, t=judge, f=training: t.score(d, f)[0])
            scores.append(made)
        if scores:
            facts = {"fitted": len(scores), "samples": "+".join(map(str, counts)), "M": moments}
            yield row(dataset, model, scores, facts | {"s": f"{np.median(seconds):.1f}"})


@cache
def of_others(dataset: str, first: int) -> Judge:
    """Return a judge by the maps from number ``first`` on."""
    return Judge(maps(dataset)[first:])


def kept(path: Path, compute: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return what is in a file of JSON, computed if it is absent."""
    if not path.exists():
        path.write_text(json.dumps(compute()))
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def row(
    dataset: str, name: str, scores: list[dict[str, float]], facts: dict[str, Any]
) -> dict[str, str]:
    """Return one row: means, and the deviation over fitted maps of eps."""
    means = {name: float(np.mean([s.get(name, np.nan) for s in scores])) for name in METRICS}
    shown = {metric: f"{means[metric]:.3g}" for metric in COLUMNS}
    for metric in ("skewness", "flatness"):
        shown[metric] += f" ± {means[metric + '_scatter']:.2g}"
    if len(scores) > 1:
        shown["eps"] += f" ± {np.std([s['eps'] for s in scores]):.2g}"
    named = {key: str(value) for key, value in facts.items()}
    return {"data": dataset, "fields": name, **named, **shown}


if __name__ == "__main__":
    main()
