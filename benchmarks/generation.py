"""Generators of Tiny ImageNet at 64^2: linear, convolutional and sparse, under both losses.

20,000 training images become codes of m = 1,024: rectified Parseval wavelets (J = 4, L = 4, A = 4),
averaged on 4 x 4 points, whitened. Each generator learns to invert them, and is judged by 2,000
images of the validation archive, which nothing has seen. PSNR is over 2,000 images of a side, all
else over 500.

What is finished lies in ``benchmarks/scratch/generation`` and is not computed again, so that the
table can be made in pieces: ``WAVEMILL_GENERATION_SECONDS`` ends a run after so long, wherever it
is; ``WAVEMILL_GENERATION_MINUTES`` (90) is what a generator may take in all;
``WAVEMILL_GENERATION_MODELS`` (all; names between semicolons) says what to learn.
"""

from __future__ import annotations

import contextlib
import io
import os
import tarfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.image import imread
from safetensors.torch import load_file, save_file
from torch import Tensor

from benchmarks import tables
from tasks import generation_figures as figures
from wavemill import Generator, whiteness
from wavemill.generation import Embedding, Samples, psnr, relative_distance, ssim
from wavemill.specs import GeneratorSpec

DATA = Path(__file__).parents[2] / "shared" / "data" / "tiny_imagenet"
SCRATCH = Path(__file__).with_name("scratch") / "generation"
TRAIN, DIMENSION, BLOCK, JUDGED = 20_000, 1024, 100, 500
SHAPE = (64, 64)
MOST = 60 * float(os.environ.get("WAVEMILL_GENERATION_MINUTES", "90"))  # for a generator
MODELS: dict[str, dict[str, Any]] = {
    "linear": {"model": "linear"},
    "convolutional, L2": {"model": "convolutional", "loss": "l2", "width": 64, "rate": 2e-3},
    "convolutional, L1": {"model": "convolutional", "loss": "l1", "width": 64, "rate": 2e-3},
    "sparse, L2": {"model": "sparse", "loss": "l2", "atoms": 64, "iterations": 2},
    "sparse, L1": {"model": "sparse", "loss": "l1", "atoms": 64, "iterations": 2},
}
State = dict[str, Tensor]


class TimeIsUp(Exception):
    """What is done is kept: run it again for more."""


class EnoughTime(Exception):
    """A generator has had the time that each may have."""


def main() -> None:
    """Do what is left of the work, as far as time allows, and write the table of what is done."""
    ends = time.monotonic() + float(os.environ.get("WAVEMILL_GENERATION_SECONDS", "inf"))
    wanted = os.environ.get("WAVEMILL_GENERATION_MODELS", ";".join(MODELS)).split(";")
    SCRATCH.mkdir(parents=True, exist_ok=True)
    try:
        encode(ends)
        for name in wanted:
            learn(name, ends)
            judge(name)
    except TimeIsUp as up:
        print(f"time is up: {up.__doc__}")
    write()


def check(ends: float) -> None:
    """Stop if time is up."""
    if time.monotonic() > ends:
        raise TimeIsUp


def keep(path: Path, tensors: State) -> None:
    """Write tensors as a whole or not at all."""
    partial = path.with_suffix(".part")
    save_file({k: v.contiguous() for k, v in tensors.items()}, partial)
    partial.replace(path)


def images(side: str) -> Tensor:
    """Return images uint8 ``(n, y, x, rgb)``: 20,000 to learn from by a seed, 2,000 to test."""
    path = SCRATCH / f"{side}.npy"
    if not path.exists():
        found = decoded(DATA / ("train.tar.gz" if side == "train" else "val.tar.gz"))
        if side == "train":
            found = found[np.sort(np.random.default_rng(0).permutation(len(found))[:TRAIN])]
        np.save(path, found)
    return torch.from_numpy(np.load(path))


def decoded(path: Path) -> np.ndarray[Any, Any]:
    """Return the images of an archive, in the order of their names."""
    found = {}
    with tarfile.open(path) as archive:
        for member in archive:
            file = archive.extractfile(member) if member.name.endswith(".JPEG") else None
            if file is not None:
                found[member.name] = imread(io.BytesIO(file.read()), format="jpeg")
    coloured = [x if x.ndim == 3 else x[..., None].repeat(3, -1) for _, x in sorted(found.items())]
    return np.stack(coloured)


def encode(ends: float) -> None:
    """Average all images, block by block, then whiten."""
    path = SCRATCH / "codes.safetensors"
    if path.exists():
        return
    embedding = Embedding(SHAPE, DIMENSION)
    averages = {side: averaged(side, embedding, ends) for side in ("train", "test")}
    for block in averages["train"].split(1000):
        embedding.whitening.update(block)
    embedding.whitening.solve()
    codes = {side: embedding.whitening(y) for side, y in averages.items()}
    state = {f"embedding.{name}": value for name, value in embedding.state().items()}
    keep(path, {**state, **codes})


def averaged(side: str, embedding: Embedding, ends: float) -> Tensor:
    """Return the averages of a side ``(n, feature)``, of which each block is kept as it is made."""
    x, done = images(side), []
    for start in range(0, len(x), BLOCK):
        path = SCRATCH / f"{side}-{start:05d}.safetensors"
        if not path.exists():
            check(ends)
            block = Samples(x[start : start + BLOCK])
            keep(path, {"averages": embedding.all_features(block)})
        done.append(load_file(path)["averages"])
    return torch.cat(done)


def learn(name: str, ends: float) -> None:
    """Go on learning one generator until it gains no more, has had its time, or time is up."""
    path, unfinished = SCRATCH / f"{name}.safetensors", SCRATCH / f"{name}.state"
    if path.exists():
        return
    check(ends)
    begun = time.monotonic()
    state = load_file(SCRATCH / "codes.safetensors")
    state["codes"] = state.pop("train")
    if MODELS[name]["model"] == "sparse":  # which begins as the linear one
        linear = load_file(SCRATCH / "linear.safetensors")
        state |= {k.replace("network", "linear"): v for k, v in linear.items() if "network" in k}
    before = load_file(unfinished) if unfinished.exists() else {"seconds": torch.zeros(1)}
    spent = before.pop("seconds")

    def checkpoint(state: State) -> None:
        learnt = {k: v for k, v in state.items() if k.startswith(("trainer.", "best.", "coarse."))}
        now = spent + time.monotonic() - begun
        keep(unfinished, {**learnt, "seconds": now})
        if float(now) > MOST and len(learnt.get("trainer.curve", ())):
            raise EnoughTime
        check(ends)

    def progress(done: int, total: int, values: dict[str, float]) -> None:
        print(name, done, values, f"{float(spent) + time.monotonic() - begun:.0f} s", flush=True)

    model = Generator(spec(name))
    with contextlib.suppress(EnoughTime):
        model.fit(images("train"), progress, 0, state | before, checkpoint)
    if unfinished.exists():
        model.take_best(load_file(unfinished))
    validation = torch.tensor(model.metrics_["validation_psnr"])
    seconds = spent + time.monotonic() - begun
    keep(path, {**model.state(), "seconds": seconds, "validation": validation})


def spec(name: str) -> GeneratorSpec:
    """Return what a row of the table fits."""
    return GeneratorSpec(dimension=DIMENSION, **MODELS[name])


def fitted(name: str) -> Generator:
    """Return a generator that has been learnt, with its facts among its metrics."""
    state = load_file(SCRATCH / f"{name}.safetensors")
    facts = {fact: float(state.pop(fact)) for fact in ("seconds", "validation")}
    model = Generator.from_state(spec(name), state)
    model.metrics_ = facts
    return model


def judge(name: str) -> None:
    """Score a generator on both sides."""
    path = SCRATCH / f"{name}.scores"
    if path.exists():
        return
    model = fitted(name)
    codes = load_file(SCRATCH / "codes.safetensors")
    scores: State = {}
    for side in ("train", "test"):
        x, w = images(side)[:2000], codes[side][:2000]
        made, real = model.decode(w), Samples(x)[:]
        few = made[:JUDGED]
        again = model.encode(few)
        scores |= {
            f"{side}.psnr": psnr(real, made),
            f"{side}.ssim": ssim(real[:JUDGED], few),
            f"{side}.code": relative_distance(w[:JUDGED], again),
        }
    keep(path, scores)


def write() -> None:
    """Write the table, the curves and the pictures of what is judged."""
    names = [name for name in MODELS if (SCRATCH / f"{name}.scores").exists()]
    if not names:
        return
    tables.write(
        "generation",
        "Generators of Tiny ImageNet at 64^2",
        (__doc__ or "").split("\n\n")[1].replace("\n", " ") + " " + whitened(),
        [row(name) for name in names],
        tables.versions("torch", "numpy"),
    )
    models = {name: fitted(name) for name in names}
    runs = {
        name: [(point.epoch, point.psnr) for point in model.curve_]
        or [(0, model.metrics_["validation"])]
        for name, model in models.items()
    }
    drawn = {"curve": figures.curves(runs)}
    for side in ("train", "test"):
        x = images(side)[:8]
        rows = [Samples(x)[:], *(model.reconstruct(x) for model in models.values())]
        drawn[f"reconstruct-{side}"] = figures.tiles(torch.stack(rows).numpy())
    for name, model in models.items():
        kind = name.replace(", ", "-")
        drawn[f"interpolate-{kind}"] = figures.tiles(model.interpolate(images("test")[:5]).numpy())
        drawn[f"noise-{kind}"] = figures.tiles(model.sample(16).unflatten(0, (2, 8)).numpy())
    for name, picture in drawn.items():
        (SCRATCH / f"{name}.png").write_bytes(picture)


def row(name: str) -> dict[str, str]:
    """Return a row of the table."""
    model = fitted(name)
    scores = {k: float(v.mean()) for k, v in load_file(SCRATCH / f"{name}.scores").items()}
    weights = sum(weight.numel() for weight in model.network_.parameters())
    return {
        "generator": name,
        "weights learnt": f"{weights:,}",
        "epochs": str(len(model.curve_)),
        "minutes": f"{model.metrics_['seconds'] / 60:.1f}",
        "validation": f"{model.metrics_['validation']:.2f}",
        "train PSNR": f"{scores['train.psnr']:.2f}",
        "test PSNR": f"{scores['test.psnr']:.2f}",
        "gap": f"{scores['train.psnr'] - scores['test.psnr']:.2f}",
        "train SSIM": f"{scores['train.ssim']:.3f}",
        "test SSIM": f"{scores['test.ssim']:.3f}",
        "test code distance": f"{scores['test.code']:.3f}",
    }


def whitened() -> str:
    """Say how white the codes are, on both sides."""
    codes = load_file(SCRATCH / "codes.safetensors")
    said = []
    for side in ("train", "test"):
        report = whiteness(codes[side])
        edges = f"({report['edge_low']:.2f} to {report['edge_high']:.2f} of white noise)"
        said.append(
            f"{side}: largest entry of covariance - I {report['covariance']:.1e}, eigenvalues "
            f"{report['smallest']:.2f} to {report['largest']:.2f} {edges}, "
            f"{100 * report['outside']:.0f} % outside; mean excess kurtosis "
            f"{report['excess_kurtosis']:.2f}; spread of |w|^2 {report['radius_spread']:.1f} times "
            "that of a Gaussian"
        )
    return "Codes, " + "; ".join(said) + "."
