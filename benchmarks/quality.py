"""Models of turbulence and of the cosmic web, judged on maps that they were not fitted to.

Models are fitted to one map, three in turn, and judged by 17 others, or fitted to ten and judged by
the other ten. eps is the relative distance of foveal phase-harmonic correlation matrices; other
columns are as `wavemill evaluate` prints them. The first rows are real maps in the place of a
model: one alone, and ten, judged by the ten others. ± is the deviation over fitted maps for eps,
and over samples for skewness and flatness.

Finished pieces lie in ``benchmarks/scratch/quality-SIDE`` and are not computed again, and rows of
the table without any stay as they are, so that it can be made in several runs, on several machines.
Nothing new is begun after ``WAVEMILL_QUALITY_SECONDS``. ``WAVEMILL_QUALITY_SAMPLES`` (10),
``WAVEMILL_QUALITY_FITS`` (3) and ``WAVEMILL_QUALITY_MODELS`` (all; names between semicolons) say
how much there is to do, ``WAVEMILL_QUALITY_BATCH`` (2) how many samples descend at once.
``WAVEMILL_QUALITY_SIDE`` (256; 128, 64) keeps only the low frequencies of the maps, which takes
minutes rather than hours.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from functools import lru_cache, partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks import tables
from wavemill.evaluation import METRICS, Judge
from wavemill.maxent import Energy, Gaussian, Microcanonical

DATA = Path(__file__).parents[2] / "shared" / "data" / "turbulence"
DATASETS = {"vorticity": "vorticity2d", "cosmic web": "cosmic_web_quijote_log256"}
SIDE = int(os.environ.get("WAVEMILL_QUALITY_SIDE", "256"))
J = {256: 5, 128: 4, 64: 4}[SIDE]  # of models, and of the matrix that judges them
SMALL = {"J": J, "L": 4, "lags": 1, "iterations": 200}  # the product's default
PAPER = {"J": J, "L": 8, "lags": 2, "iterations": 200}  # Zhang and Mallat's
LONG = 800  # gradients of models whose references are turned too
SCRATCH = Path(__file__).with_name("scratch") / f"quality-{SIDE}"
MODELS: dict[str, Callable[[], Any]] = {
    "Gaussian": Gaussian,
    "A, small": lambda: Microcanonical({"set": "A", **SMALL}),
    "B, small": lambda: Microcanonical({"set": "B", **SMALL}),
    "C, small": lambda: Microcanonical({"set": "C", **SMALL}),
    "C+L, small": lambda: Microcanonical({"set": "C+L", **SMALL}),
    "C+moduli, small": lambda: Microcanonical({"set": "C+moduli", **SMALL}),
    "D, small": lambda: Microcanonical({"set": "D", **SMALL}),
    "C, small, ten maps": lambda: Microcanonical({"set": "C", **SMALL}),
    "D, small, ten maps": lambda: Microcanonical({"set": "D", **SMALL}),
    "C+moduli, small, ten maps": lambda: Microcanonical({"set": "C+moduli", **SMALL}),
    "C, small, ten maps, turned": lambda: Microcanonical({"set": "C", **SMALL, "iterations": LONG}),
    "C+moduli, small, ten maps, turned": lambda: Microcanonical(
        {"set": "C+moduli", **SMALL, "iterations": LONG}
    ),
    "A": lambda: Microcanonical({"set": "A", **PAPER}),
    "B": lambda: Microcanonical({"set": "B", **PAPER}),
    "C": lambda: Microcanonical({"set": "C", **PAPER}),
    "C+L": lambda: Microcanonical({"set": "C+L", **PAPER}),
    "C, ten maps": lambda: Microcanonical({"set": "C", **PAPER}),
    "C, ten maps, turned": lambda: Microcanonical({"set": "C", **PAPER, "iterations": LONG}),
    "B, J = 3, ten maps": lambda: Microcanonical({"set": "B", **SMALL, "J": 3}),
    "energy of B, J = 3, ten maps": lambda: Energy(
        {"set": "B", "J": 3, "L": 4, "lags": 1, "steps": 1000}
    ),
}
TEN = 10  # maps of models of ten; the other ten judge
HELD = 3  # maps that are fitted to, and never judge
COLUMNS = tuple(m for m in METRICS if not m.endswith("_scatter") and m != "coherence")


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


def units() -> Iterator[Callable[[], object]]:
    """Yield what is left to do: draws, first samples of all rows before the last of any; scores."""
    samples, fits = int(setting("SAMPLES", "10")), int(setting("FITS", "3"))
    batch, wanted = int(setting("BATCH", "2")), setting("MODELS", ";".join(MODELS)).split(";")
    for number in range(-(-samples // batch)):
        for fit in range(fits):
            for dataset in DATASETS:
                for model in (name for name in MODELS if name in wanted):
                    count = min(batch, samples - number * batch)
                    path = SCRATCH / dataset / f"{model}-{fit}-{number}.npz"
                    if not path.exists() and not (fit and is_of_ten(model)):
                        yield partial(draw, path, dataset, model, fit, number, count)
    for dataset in (name for name in DATASETS if (SCRATCH / name).exists()):
        path = SCRATCH / dataset / "floors.json"
        if not path.exists():
            yield partial(keep, path, lambda name=dataset: of_others(name, 0).floors)
        for model, fit in product(MODELS, range(HELD)):
            drawn = samples_of(dataset, model, fit)
            path = score_path(dataset, model, fit, len(drawn))
            if len(drawn) and not path.exists():
                yield partial(keep, path, partial(score, dataset, model, fit))


def maps(dataset: str) -> Tensor:
    """Return the 20 maps of a dataset, float32 ``(map, y, x)``, in the order of their names.

    Smaller ones keep the low frequencies of all of the map.
    """
    files = sorted((DATA / DATASETS[dataset]).glob("*.npy"))
    x = torch.from_numpy(np.stack([np.load(file) for file in files]))
    if x.shape[-1] == SIDE:
        return x
    x_hat = torch.fft.fftshift(torch.fft.fft2(x.double(), norm="forward"), (-2, -1))
    margin = (x.shape[-1] - SIDE) // 2
    kept = x_hat[:, margin : margin + SIDE, margin : margin + SIDE].clone()
    kept[:, 0], kept[:, :, 0] = 0, 0  # the Nyquist frequencies, which have no mirror image here
    return torch.fft.ifft2(torch.fft.ifftshift(kept, (-2, -1)), norm="forward").real.float()


def draw(path: Path, dataset: str, model: str, fit: int, number: int, count: int) -> None:
    """Fit, draw ``count`` samples of seed ``number`` and keep them with the time they took."""
    x = maps(dataset)
    reference = x[:TEN] if is_of_ten(model) else x[fit : fit + 1]
    if model.endswith("turned"):
        reference = torch.cat([reference, reference.rot90(1, (-2, -1))])
    fitted = MODELS[model]().fit(reference)
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


def samples_of(dataset: str, model: str, fit: int) -> list[Any]:
    """Return what was drawn, one archive for each batch."""
    files = sorted((SCRATCH / dataset).glob(f"{model}-{fit}-*.npz"))
    return [np.load(file) for file in files if ".part" not in file.name]


def score_path(dataset: str, model: str, fit: int, batches: int) -> Path:
    """Return where the scores of this many batches are kept."""
    return SCRATCH / dataset / f"{model}-{fit}.{batches}.json"


def score(dataset: str, model: str, fit: int) -> dict[str, float]:
    """Judge what was drawn by maps that were not fitted to."""
    drawn = np.concatenate([batch["drawn"] for batch in samples_of(dataset, model, fit)])
    x = maps(dataset)
    fitted = x[:TEN] if is_of_ten(model) else x[fit : fit + 1]
    judge = of_others(dataset, TEN if is_of_ten(model) else HELD)
    return judge.score(torch.from_numpy(drawn), fitted)[0]


@lru_cache(maxsize=1)
def of_others(dataset: str, first: int) -> Judge:
    """Return a judge by the maps from number ``first`` on."""
    return Judge(maps(dataset)[first:], J)


def keep(path: Path, compute: Callable[[], Any]) -> None:
    """Write what is computed as JSON."""
    start = time.perf_counter()
    path.write_text(json.dumps(compute()))
    print(
        f"{path.parent.name}, {path.stem} judged: {time.perf_counter() - start:.1f} s", flush=True
    )


def is_of_ten(model: str) -> bool:
    """Tell whether a model is fitted to ten maps."""
    return "ten maps" in model


def write() -> None:
    """Write the table of what is judged, here or before."""
    name = "quality" if SIDE == 256 else f"quality-{SIDE}"
    here = {key(row): row for dataset in DATASETS for row in judged(dataset)}
    if here:
        found = {**{key(row): row for row in tables.read(name)}, **here}
        rows = sorted(found.values(), key=order)
        text = (__doc__ or "").split("\n\n")[1].replace("\n", " ")
        text += (
            " Samples take 200 gradients from noise with the fitted spectrum; L = 8 and lags 2, in "
            f"small models L = 4 and lags 1; J = {J} on {SIDE}^2 points. Turned: quarter turns of "
            f"the ten maps are references as well, and samples take {LONG} gradients. M counts "
            "distinct real moments; s is seconds of the clock a sample, on cores shared with other "
            "work. `memory` is the mean correlation with the fitted map at the best shift."
        )
        title, using = f"Quality of models at {SIDE}^2", tables.versions("torch", "numpy")
        tables.write(name, title, text, rows, using)


def key(row: dict[str, str]) -> tuple[str, str]:
    """Return what tells a row from others."""
    return row["data"], row["fields"]


def order(row: dict[str, str]) -> tuple[int, int]:
    """Return where a row stands: real maps first, then models."""
    data, fields = key(row)
    return list(DATASETS).index(data), [*MODELS].index(fields) if fields in MODELS else -1


def judged(dataset: str) -> Iterator[dict[str, str]]:
    """Yield a row for real maps, then one a model, means over the maps fitted to."""
    floors = SCRATCH / dataset / "floors.json"
    if floors.exists():
        for name, scores in json.loads(floors.read_text()).items():
            yield row(dataset, name, [scores], {"M": "", "maps x samples": "", "s": ""})
    for model in MODELS:
        parts = {fit: samples_of(dataset, model, fit) for fit in range(HELD)}
        paths = {fit: score_path(dataset, model, fit, len(drawn)) for fit, drawn in parts.items()}
        fits = [fit for fit in parts if paths[fit].exists()]
        if fits:
            batches = [batch for fit in fits for batch in parts[fit]]
            counts = [sum(len(batch["drawn"]) for batch in parts[fit]) for fit in fits]
            facts = {
                "M": int(batches[0]["moments"]) or "all",
                "maps x samples": " + ".join(map(str, counts)),
                "s": f"{np.median([float(batch['seconds']) for batch in batches]):.2g}",
            }
            yield row(dataset, model, [json.loads(paths[fit].read_text()) for fit in fits], facts)


def row(
    dataset: str, name: str, scores: list[dict[str, float]], facts: dict[str, Any]
) -> dict[str, str]:
    """Return one row: means, and the deviation over fitted maps of eps."""
    means = {name: float(np.mean([s.get(name, np.nan) for s in scores])) for name in METRICS}
    shown = {name: f"{means[name]:.3g}" if means[name] == means[name] else "" for name in COLUMNS}
    for metric in ("skewness", "flatness"):
        scatter = means[f"{metric}_scatter"]
        shown[metric] += f" ± {scatter:.2g}" if scatter == scatter else ""
    if len(scores) > 1:
        shown["eps"] += f" ± {np.std([s['eps'] for s in scores]):.2g}"
    named = {key: str(value) for key, value in facts.items()}
    return {"data": dataset, "fields": name, **named, **shown}


if __name__ == "__main__":
    main()
