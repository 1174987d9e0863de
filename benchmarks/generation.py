"""Generators of Tiny ImageNet at 64^2: linear, convolutional and sparse, under both losses.

20,000 training images become codes of m = 1,024: rectified Parseval wavelets (J = 4, L = 4, A = 4),
averaged on 4 x 4 points, whitened. Each generator learns to invert them, and is judged by 2,000
images of the validation archive, which nothing has seen. Shared: shrunk towards an inverse that all
points of the grid share, on which the sparse inversion builds, too. PSNR is over 2,000 images of
each side drawn by a seed, all else over 250. Epochs of the sparse inversion are those on images
averaged over 4 x 4 points, then those on whole ones. Half-way: images of the mean of two codes, 50
pairs; their distance from the blend (the mean of both images), and how far the averaged
coefficients of either are from those of the mean code. Refined: before and after 60 gradients of
each reconstruction towards its code, on 48 test images.

Finished pieces lie in ``benchmarks/scratch/generation`` and are not computed again, so that the
table can be made in several runs. ``WAVEMILL_GENERATION_SECONDS`` ends a run after so long,
wherever it is; ``WAVEMILL_GENERATION_MINUTES`` (90) is the processor time that a generator may take
in all; ``WAVEMILL_GENERATION_MODELS`` (all; names between semicolons) says what to learn.
"""

from __future__ import annotations

import contextlib
import io
import os
import tarfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

from benchmarks import tables
from tasks import generation_figures as figures
from wavemill import Generator, whiteness
from wavemill.generation import Embedding, RealImages, psnr, relative_distance, ssim
from wavemill.maxent import Gaussian, Microcanonical
from wavemill.specs import GeneratorSpec

DATA = Path(__file__).parents[2] / "shared" / "data" / "tiny_imagenet"
SCRATCH = Path(__file__).with_name("scratch") / "generation"
TRAIN, DIMENSION, BLOCK, JUDGED = 20_000, 1024, 100, 250
REFINE, REFINED = 60, 48  # gradients, and test images
PATHS = [3, 50, 90, 130]  # test images between which pictures show paths
PAIRS = 50  # of images between which there is an image half-way
COARSE = "coarse.trainer.curve"
SHAPE = (64, 64)
MOST = 60 * float(os.environ.get("WAVEMILL_GENERATION_MINUTES", "90"))  # for a generator
MODELS: dict[str, dict[str, Any]] = {
    "linear": {"model": "linear", "shared": False},
    "linear, shared": {"model": "linear"},
    "convolutional, L2": {"model": "convolutional", "loss": "l2", "width": 64, "batch": 32},
    "convolutional, L1": {"model": "convolutional", "loss": "l1", "width": 64, "batch": 32},
    "sparse, L2": {"model": "sparse", "loss": "l2", "atoms": 64, "iterations": 2},
    "sparse, L1": {"model": "sparse", "loss": "l1", "atoms": 64, "iterations": 2},
}
State = dict[str, Tensor]


class TimeIsUp(Exception):
    """What is done is kept: run it again for more."""


class EnoughTime(Exception):
    """A generator has used up its time."""


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
            refine(name)
    except TimeIsUp as up:
        print(f"time is up: {up.__doc__}")
    write()


def check(ends: float) -> None:
    """Stop if time is up."""
    if time.monotonic() > ends:
        raise TimeIsUp


def keep(path: Path, tensors: State) -> None:
    """Write tensors as a whole or not at all."""
    unfinished = path.with_suffix(".part")
    save_file({k: v.contiguous() for k, v in tensors.items()}, unfinished)
    unfinished.replace(path)


def images(side: str) -> Tensor:
    """Return images uint8 ``(n, y, x, rgb)``: 20,000 by a seed to learn from, 2,000 to test."""
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
            photograph = member.name.lower().endswith((".jpeg", ".jpg"))
            file = archive.extractfile(member) if photograph else None
            if file is not None:
                found[member.name] = np.asarray(Image.open(io.BytesIO(file.read())).convert("RGB"))
    return np.stack([image for _, image in sorted(found.items())])


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
    """Return the averages of a side ``(n, feature)``; each block is saved when it is made."""
    x, done = images(side), []
    for start in range(0, len(x), BLOCK):
        path = SCRATCH / f"{side}-{start:05d}.safetensors"
        if not path.exists():
            check(ends)
            block = RealImages(x[start : start + BLOCK])
            keep(path, {"averages": embedding.all_features(block)})
        done.append(load_file(path)["averages"])
    return torch.cat(done)


def learn(name: str, ends: float) -> None:
    """Continue one generator until it gains no more, has used its time, or time is up."""
    path, unfinished = SCRATCH / f"{name}.safetensors", SCRATCH / f"{name}.state"
    if path.exists():
        return
    check(ends)
    state = load_file(SCRATCH / "codes.safetensors")
    state["codes"] = state.pop("train")
    if MODELS[name]["model"] == "sparse":  # which begins as the linear one
        linear = load_file(SCRATCH / "linear, shared.safetensors")
        state |= {k.replace("network", "linear"): v for k, v in linear.items() if "network" in k}
    before = load_file(unfinished) if unfinished.exists() else {"seconds": torch.zeros(1)}
    spent, begun = before.pop("seconds"), time.process_time()
    coarse = {k: v for k, v in before.items() if k == COARSE}

    def checkpoint(state: State) -> None:
        learnt = {k: v for k, v in state.items() if k.startswith(("trainer.", "best.", "coarse."))}
        coarse.update({k: v for k, v in learnt.items() if k == COARSE})
        now = spent + time.process_time() - begun
        keep(unfinished, {**coarse, **learnt, "seconds": now})
        if float(now) > MOST and len(learnt.get("trainer.curve", ())):
            raise EnoughTime
        check(ends)

    def progress(done: int, total: int, values: dict[str, float]) -> None:
        print(name, done, values, f"{float(spent) + time.process_time() - begun:.0f} s", flush=True)

    model = Generator(spec(name))
    with contextlib.suppress(EnoughTime):
        model.fit(images("train"), progress, 0, state | before, checkpoint)
    if unfinished.exists():
        model.take_best(load_file(unfinished))
    validation = torch.tensor(model.metrics_["validation_psnr"])
    seconds = spent + time.process_time() - begun
    facts = {"seconds": seconds, "validation": validation, COARSE: torch.zeros(0, 3), **coarse}
    keep(path, {**model.state(), **facts})


def spec(name: str) -> GeneratorSpec:
    """Return what a row of the table fits."""
    return GeneratorSpec(dimension=DIMENSION, **MODELS[name])


def fitted(name: str) -> Generator:
    """Return a generator that has been learnt, with its facts among its metrics."""
    state = load_file(SCRATCH / f"{name}.safetensors")
    facts = {fact: float(state.pop(fact)) for fact in ("seconds", "validation")}
    facts["coarse"] = len(state.pop(COARSE, ()))
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
        rows = drawn(len(codes[side]))
        x, w = images(side)[rows], codes[side][rows]
        made, real = model.decode(w), RealImages(x)[:]
        few = made[:JUDGED]
        again = model.encode(few)
        scores |= {
            f"{side}.psnr": psnr(real, made),
            f"{side}.ssim": ssim(real[:JUDGED], few),
            f"{side}.code": relative_distance(w[:JUDGED], again),
        }
    keep(path, scores | interpolated(model, codes["test"][: PAIRS + 1]))


def refine(name: str) -> None:
    """Score reconstructions of test images, and what `REFINE` gradients make of them."""
    x = images("test")[drawn(len(images("test")))][:REFINED]
    for stage, gradients in (("before", 0), ("refined", REFINE)):
        path = SCRATCH / f"{name}.{stage}"
        if not path.exists():
            keep(path, fitted(name).judge(x, gradients))


def drawn(count: int) -> Tensor:
    """Return 2,000 rows by a seed: images lie class by class."""
    return torch.from_numpy(np.random.default_rng(0).permutation(count)[:2000])


def interpolated(model: Generator, w: Tensor) -> State:
    """Return how far images half-way between codes are from blends, and both from the features.

    ``blend``: distance of pixels from the mean of both ends. ``half`` and ``blended``: distance of
    averaged coefficients, of the image half-way and of the blend, from those of the code half-way.
    """
    middle = (w[:-1] + w[1:]) / 2
    ends, made = model.decode(w), model.decode(middle)
    blend, wanted = (ends[:-1] + ends[1:]) / 2, model.embedding_.whitening.inverse(middle)
    return {
        "blend": relative_distance(blend, made),
        "half": relative_distance(wanted, model.embedding_.all_features(made)),
        "blended": relative_distance(wanted, model.embedding_.all_features(blend)),
    }


def write() -> None:
    """Write the table, the curves and the pictures of what is judged."""
    names = [name for name in MODELS if (SCRATCH / f"{name}.refined").exists()]
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
    pictures = {"curve": figures.curves(runs)}
    if not (SCRATCH / "bedrooms.png").exists():
        pictures["bedrooms"] = bedrooms()
    for side in ("train", "test"):
        x = images(side)
        x = x[drawn(len(x))[:8]]
        rows = [RealImages(x)[:], *(model.reconstruct(x) for model in models.values())]
        pictures[f"reconstruct-{side}"] = figures.tiles(torch.stack(rows).numpy())
    for name, model in models.items():
        kind = name.replace(", ", "-")
        pictures[f"interpolate-{kind}"] = figures.tiles(paths(model, images("test")[PATHS]).numpy())
        pictures[f"noise-{kind}"] = figures.tiles(model.sample(16).unflatten(0, (2, 8)).numpy())
    pictures["refined"] = figures.tiles(sharpened(models).numpy())
    for name, picture in pictures.items():
        (SCRATCH / f"{name}.png").write_bytes(picture)


def sharpened(models: dict[str, Generator]) -> Tensor:
    """Return test images, then two generators' images of their codes, above refined ones."""
    x = images("test")[3:300:40]
    rows = [RealImages(x)[:]]
    for name in ("convolutional, L1", "sparse, L2"):
        rows += [models[name].reconstruct(x, gradients) for gradients in (0, REFINE)]
    draws = models["convolutional, L1"]
    return torch.stack([*rows, *(draws.sample(len(x), 0, gradients) for gradients in (0, REFINE))])


def paths(model: Generator, x: Tensor) -> Tensor:
    """Return paths from each image to the next, and below each the cross-fade of its ends."""
    made = model.interpolate(x)
    t = torch.linspace(0, 1, made.shape[1])[:, None, None, None]
    faded = (1 - t) * made[:, :1] + t * made[:, -1:]
    return torch.stack([made, faded], 1).flatten(0, 1)


def bedrooms() -> bytes:
    """Draw three bedrooms, and below them what two maximum-entropy models of each make."""
    files = sorted((DATA.parent / "bedrooms_scene15").glob("*.jpg"))[3:9:2]
    grey = [Image.open(file).convert("L").resize((64, 64), Image.Resampling.BOX) for file in files]
    real = torch.stack([torch.from_numpy(np.asarray(x, dtype="float32") / 255) for x in grey])
    rows = [real]
    harmonic = partial(Microcanonical, {"set": "C", "J": 4, "L": 4, "iterations": 120})
    for model in (Gaussian, harmonic):
        made = [model().fit(x[None]).sample(1, seed=0)[0].float() for x in real]
        rows.append(torch.stack(made))
    shown = torch.stack(rows)[:, :, None].clamp(0, 1).expand(-1, -1, 3, -1, -1)
    return figures.tiles(shown.numpy())


def row(name: str) -> dict[str, str]:
    """Return a row of the table."""
    model = fitted(name)
    scores = {k: float(v.mean()) for k, v in load_file(SCRATCH / f"{name}.scores").items()}
    before, refined = (
        {k: float(v.mean()) for k, v in load_file(SCRATCH / f"{name}.{stage}").items()}
        for stage in ("before", "refined")
    )
    whole = max((point.epoch for point in model.curve_), default=0)
    epochs = [int(model.metrics_["coarse"])] * ("sparse" in name) + [whole]
    weights = sum(values.numel() for values in model.network_.state_dict().values())
    return {
        "generator": name,
        "numbers learnt": f"{weights:,}",
        "epochs": " + ".join(map(str, epochs)),
        "CPU minutes": f"{model.metrics_['seconds'] / 60:.1f}",
        "validation": f"{model.metrics_['validation']:.2f}",
        "train PSNR": f"{scores['train.psnr']:.2f}",
        "test PSNR": f"{scores['test.psnr']:.2f}",
        "gap": f"{scores['train.psnr'] - scores['test.psnr']:.2f}",
        "train SSIM": f"{scores['train.ssim']:.3f}",
        "test SSIM": f"{scores['test.ssim']:.3f}",
        "test code distance": f"{scores['test.code']:.3f}",
        "refined: PSNR": f"{before['psnr']:.2f} to {refined['psnr']:.2f}",
        "refined: SSIM": f"{before['ssim']:.3f} to {refined['ssim']:.3f}",
        "refined: code distance": f"{before['code']:.3f} to {refined['code']:.3f}",
        "half-way to blend": f"{scores['blend']:.3f}",
        "features of half-way, of blend": f"{scores['half']:.3f}, {scores['blended']:.3f}",
    }


def whitened() -> str:
    """Say how white the codes are, on both sides."""
    codes = load_file(SCRATCH / "codes.safetensors")
    said = []
    for side in ("train", "test"):
        report = whiteness(codes[side])
        edges = f"({report['edge_low']:.2f} to {report['edge_high']:.2f} for white noise)"
        said.append(
            f"{side}: largest entry of covariance - I {report['covariance']:.1e}, eigenvalues "
            f"{report['smallest']:.2f} to {report['largest']:.2f} {edges}, "
            f"{100 * report['outside']:.0f} % outside; mean excess kurtosis "
            f"{report['excess_kurtosis']:.2f}; spread of |w|^2 {report['radius_spread']:.1f} times "
            "that of a Gaussian"
        )
    return "Codes, " + "; ".join(said) + "."
