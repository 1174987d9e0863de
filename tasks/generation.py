"""Generators: images and fields become codes, and codes become images, as an artifact."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from safetensors.torch import save as save_tensors

from storage import Artifact, Dataset, InvalidRequest, Store
from storage.export import replacing
from storage.keys import canonical, derivation_key, digest
from storage.typing import Array
from tasks import generation_figures as figures
from tasks.artifacts import (
    Contents,
    npy,
    on_cpu,
    on_device,
    publish,
    spec_of,
    stored,
    weights_of,
)
from tasks.checkpoints import kept_tensors
from tasks.progress import Reporter, caution
from tasks.requests import FitOutcome, FitRequest, by_hash, places, spread
from wavemill import Generator, whiteness
from wavemill.generation import RealImages, crops
from wavemill.generation.metrics import mean_of_finite
from wavemill.specs import GeneratorSpec

KIND = "generator"
SHOWN = 8  # samples in a picture
STEPS = 8  # pictures of a path
REFINE = 60  # gradients, for pictures of what refinement brings
SOURCES = ("noise", "interpolate", "reconstruct", "variants")
FORMATS = (".png", ".npy")
JUDGED_BY = "judged.json"  # ids of the samples judged by
SCORES = "scores.csv"  # a row a picture
JUDGED = 2000  # most samples judged of each side
State = dict[str, torch.Tensor]


@dataclass(frozen=True)
class GenerateRequest:
    """What is to be generated.

    Attributes
    ----------
    artifact
        Key of a generator, unique prefix, or ``generator/dataset@latest``.
    source
        ``noise``, ``reconstruct``, ``interpolate`` or ``variants``.
    n
        Draws, or samples to start from.
    seed
        The seed of what is drawn.
    where
        Which samples of the generator's dataset; by default those it was judged by.
    refine
        Gradients that bring each image nearer to its code; 0: none.
    device
        Where it is computed.
    """

    artifact: str
    source: str = "noise"
    n: int = 8
    seed: int = 0
    where: str | None = None
    refine: int = 0
    device: str = "cpu"

    def __post_init__(self) -> None:
        """Refuse what cannot be generated from."""
        if self.source not in SOURCES:
            raise InvalidRequest(f"--from {self.source}: choose one of {', '.join(SOURCES)}")


@dataclass(frozen=True)
class Sides:
    """Samples to learn from, and samples to judge by, as tables of rows."""

    train: pd.DataFrame
    test: pd.DataFrame

    @property
    def fingerprint(self) -> str:
        """What distinguishes these rows, in this order, from any others."""
        return digest(canonical([places(self.train), places(self.test)]))


def fit(store: Store, dataset: str, request: FitRequest) -> FitOutcome:
    """Fit a generator unless the same fit is stored.

    A fit that was interrupted continues from its last epoch.

    Raises
    ------
    InvalidRequest
        If too few samples are selected, or none is left to judge by.
    """
    source = store.dataset(dataset)
    spec = GeneratorSpec.from_parameters(request.parameters)
    sides = split(source, request, spec)
    key = derivation_key(spec.to_dict(), [dataset, sides.fingerprint, request.seed])
    return stored(store, KIND, key) or _fit(store, source, request, spec, key, sides)


def split(source: Dataset, request: FitRequest, spec: GeneratorSpec) -> Sides:
    """Learn from the selected samples and judge by the others.

    If all are selected, a part ``spec.test`` of them, the last by a hash of seed and id, judges.

    Raises
    ------
    InvalidRequest
        If no sample is left on a side.
    """
    rows, chosen = source.samples(), source.samples(request.selection)
    others = rows[~rows["sample_id"].isin(chosen["sample_id"])]
    if not len(others):
        last = by_hash(chosen, request.seed).tail(max(1, round(spec.test * len(chosen))))
        held = chosen["sample_id"].isin(last["sample_id"])
        chosen, others = chosen[~held], chosen[held]
    if len(chosen) < 2 or not len(others):
        raise InvalidRequest(
            f"{len(chosen)} samples of {source.name!r} to learn from and {len(others)} to judge by "
            "are too few: ingest more, or select others"
        )
    others = others.iloc[spread(len(others), JUDGED)]
    return Sides(chosen.reset_index(drop=True), others.reset_index(drop=True))


def _fit(
    store: Store, source: Dataset, request: FitRequest, spec: GeneratorSpec, key: str, sides: Sides
) -> FitOutcome:
    train, test = (samples(source, side, spec.crop) for side in (sides.train, sides.test))
    checkpoint = store.checkpoint(KIND, key)
    model = Generator(spec).fit(
        on_device(train, request.device),
        Reporter(f"fit {KIND}").values,
        request.seed,
        kept_tensors(checkpoint),
        lambda state: checkpoint.write(save_tensors(on_cpu(state))),
    )
    here = partial(on_device, device=request.device)
    scores = {
        side: on_cpu(model.judge(here(x[spread(len(x), JUDGED)])))
        for side, x in (("train", train), ("test", test))
    }
    codes = model.encode(here(test))
    report = {f"test_code_{name}": value for name, value in whiteness(codes).items()}
    drawer = Generator.from_state(spec, on_cpu(model.state()))
    each = len(test) // len(sides.test)
    tables = [
        score_table(rows, scores[side], each).assign(side=side)
        for side, rows in (("train", sides.train), ("test", sides.test))
    ]
    found = {f"{k}_{name}": v for k, each in scores.items() for name, v in means(each).items()}
    gap = found["train_psnr"] - found["test_psnr"]
    contents = Contents(
        metrics={**model.metrics_, **report, **found, "gap_psnr": gap},
        samples=list(sides.train["sample_id"]),
        weights=model.state(),
        files={
            JUDGED_BY: json.dumps(list(sides.test["sample_id"])).encode(),
            SCORES: pd.concat(tables).to_csv(index=False).encode(),
        },
        pictures=pictures(drawer, train, test, codes.cpu().numpy(), scores, request.seed),
    )
    outcome = publish(store, source, key, spec, request, contents)
    checkpoint.clear()
    return outcome


def samples(source: Dataset, rows: pd.DataFrame, crop: int = 0) -> Array:
    """Return samples ``(n, ...)`` by their rows, cut into squares if asked."""
    held = source.read(rows)
    if not crop:
        return held
    if held.dtype == np.uint8:  # images keep their colours last
        return crops(torch.from_numpy(held).movedim(-1, 1), crop).movedim(1, -1).numpy()
    return crops(torch.from_numpy(held), crop).numpy()


def means(scores: State) -> dict[str, float]:
    """Return the mean of each score, and for how many pictures it is undefined, if for any.

    A picture that is made exactly has no PSNR, and one that is 0 everywhere no relative distances.
    """
    found = {}
    for name, values in scores.items():
        found[name] = mean_of_finite(values)
        if undefined := int((~values.isfinite()).sum()):
            found[f"{name}_undefined"] = float(undefined)
    return found


def score_table(rows: pd.DataFrame, scores: State, each: int) -> pd.DataFrame:
    """Return one row a picture: its sample, its place among the sample's crops, its scores."""
    places = spread(len(rows) * each, JUDGED)
    names = rows["sample_id"].to_numpy()[places // each]
    columns = {name: values.numpy() for name, values in scores.items()}
    return pd.DataFrame({"sample_id": names, "crop": places % each, **columns})


def judge(
    artifact: Artifact, source: Dataset, rows: pd.DataFrame, device: str
) -> tuple[pd.DataFrame, dict[str, float], dict[str, bytes]]:
    """Score samples that a generator did not learn: a row a picture, mean scores, and figures.

    Of many samples, some are judged, spread over the data.
    """
    model = load_generator(artifact, device)
    rows = rows.iloc[spread(len(rows), JUDGED)]
    x = samples(source, rows, model.spec.crop)
    scores = on_cpu(model.judge(on_device(x[spread(len(x), JUDGED)], device)))
    table = score_table(rows, scores, len(x) // len(rows))
    shown = beside(model, on_device(x[spread(len(x), SHOWN)], device), 0).cpu().numpy()
    drawn = {
        "reconstruct": figures.tiles(shown),
        "psnr": figures.scores({source.name: scores["psnr"].numpy()}),
    }
    return table, {**means(scores), "pictures": float(len(table))}, drawn


def pictures(
    model: Generator,
    train: Array,
    test: Array,
    codes: Array,
    scores: dict[str, State],
    seed: int,
) -> dict[str, bytes]:
    """Return the figures of an artifact: what it makes of samples, paths, draws, and curves."""
    learnt, unseen = (torch.from_numpy(x[spread(len(x), SHOWN)]) for x in (train, test))
    noise = torch.unflatten(model.sample(2 * SHOWN, seed), 0, (2, SHOWN))
    found = {
        "reconstruct-train": figures.tiles(beside(model, learnt, 0, REFINE).numpy()),
        "reconstruct": figures.tiles(beside(model, unseen, 0, REFINE).numpy()),
        "noise": figures.tiles(noise.numpy()),
        "variants": figures.tiles(model.vary(unseen[:4], STEPS, seed).numpy()),
        "psnr": figures.scores({k: v["psnr"].numpy() for k, v in scores.items()}),
        "eigenvalues": figures.eigenvalues({"test": codes}),
    }
    if len(unseen) > 1:
        found["interpolate"] = figures.tiles(model.interpolate(unseen[:5], STEPS).numpy())
    if model.curve_:
        points = [(point.epoch, point.psnr) for point in model.curve_]
        found["curve"] = figures.curves({model.spec.model: points})
    return found


def beside(model: Generator, x: torch.Tensor, *refine: int) -> torch.Tensor:
    """Return samples above their reconstructions, ``(1 + refine, n, component, y, x)``."""
    return torch.stack([RealImages(x)[:], *(model.reconstruct(x, steps) for steps in refine)])


def load_generator(artifact: Artifact, device: str = "cpu") -> Generator:
    """Return the generator that an artifact holds, on a device.

    Raises
    ------
    InvalidRequest
        If it holds something else, or an older algorithm's.
    """
    if artifact.kind != KIND:
        raise InvalidRequest(f"{artifact.short} is not a generator: `wavemill fit {KIND} DATASET`")
    spec = spec_of(artifact, GeneratorSpec.from_parameters)
    return Generator.from_state(spec, weights_of(artifact, device))


def make(store: Store, request: GenerateRequest) -> Array:
    """Return what a generator makes, as a table ``(rows, columns, component, y, x)``.

    ``noise`` gives draws; ``reconstruct`` samples, and below them what their codes give;
    ``interpolate`` a row for each path from one sample to the next; ``variants`` a row for each
    sample, with a half of its code drawn anew.

    Raises
    ------
    InvalidRequest
        If a path has fewer than two samples, or samples are selected and none is wanted.
    """
    if request.source == "noise" and request.where is not None:
        raise InvalidRequest(
            f"--from noise starts from no samples, and --where {request.where!r} selects some: "
            "leave it out, or name another --from"
        )
    artifact = store.artifact(request.artifact)
    model = load_generator(artifact, request.device)
    refine, model.follow = request.refine, Reporter("refine").values
    if request.source == "noise":
        return model.sample(request.n, request.seed, refine)[None].cpu().numpy()
    x = on_device(chosen(store, artifact, request), request.device)
    match request.source:
        case "reconstruct":
            return beside(model, x, refine).cpu().numpy()
        case "interpolate" if len(x) > 1:
            return model.interpolate(x, STEPS, refine).cpu().numpy()
        case "variants":
            return model.vary(x, STEPS, request.seed, refine=refine).cpu().numpy()
    raise InvalidRequest(
        f"a path leads from one sample to another, and {len(x)} is selected: use -n 2 or more"
    )


def chosen(store: Store, artifact: Artifact, request: GenerateRequest) -> Array:
    """Return some samples, or crops, of those asked for, else of those that judged it."""
    source = store.dataset(str(artifact.manifest["dataset"]))
    rows = source.samples(request.where)
    if request.where is None:
        rows = rows[rows["sample_id"].isin(json.loads(artifact.read(JUDGED_BY)))]
    if not len(rows):
        raise InvalidRequest(f"no sample of {source.name!r} is selected: --where {request.where!r}")
    crop = int(artifact.manifest["spec"]["parameters"].get("crop", 0))
    found = samples(source, rows.iloc[spread(len(rows), request.n)], crop)
    if len(found) < request.n:
        whose = "selected" if request.where else "those it was judged by: --where selects others"
        caution(f"only {len(found)} of {request.n} samples are there, {whose}")
    return found[spread(len(found), request.n)]


def write(table: Array, target: Path) -> None:
    """Write a table of pictures as it is, ``.npy``, or as a picture, ``.png``.

    Raises
    ------
    InvalidRequest
        If the ending is neither.
    """
    if target.suffix not in FORMATS:
        raise InvalidRequest(f"--to {target}: choose one of {' '.join(FORMATS)}")
    with replacing(target) as partial:
        partial.write_bytes(npy(table) if target.suffix == ".npy" else figures.tiles(table))
