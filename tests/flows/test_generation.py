"""Generation from end to end: snapshots to an artifact, its pictures, and what it generates."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.image import imread, imsave
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey
from safetensors.torch import save

from flows import evaluate, ingest
from flows import generation as flow
from flows.cli import run
from storage import InvalidRequest, open_store
from storage.verify import verify
from tasks.generation import GenerateRequest, fit, load_generator, make, means, samples, write
from tasks.generation_figures import GAP, spectrum
from tasks.generation_figures import scores as psnr_figure
from tasks.images import ImageOptions
from tasks.progress import hearing
from tasks.report import generator_chapter, write_report
from tasks.requests import FitRequest
from wavemill import Generator
from wavemill.specs import GeneratorSpec

SPEC = {"dimension": "12", "J": "2", "L": "2", "epochs": "2", "batch": "16", "crop": "16"}
SMALL = {**SPEC, "atoms": "20", "width": "8"}
LINEAR = {**SPEC, "model": "linear"}


@pytest.fixture(scope="module")
def store_with_generators(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Eight fields of 32^2, and the three generators of their 32 crops."""
    url = str(tmp_path_factory.mktemp("generation") / "store")
    models = {kind: {**SMALL, "model": kind} for kind in ("linear", "convolutional", "sparse")}
    made = flow("vortices", ["simulate:n=8,N=32,t=0.5"], url, None, models, cluster="threads")
    assert made["dataset"].samples == 8
    assert all(made[f"{kind} model"].written for kind in models)
    again = flow("vortices", ["simulate:n=8,N=32,t=0.5"], url, None, models, cluster="threads")
    assert not any(again[f"{kind} model"].written for kind in models)
    return url


def test_generators_are_judged_by_samples_they_never_saw(store_with_generators: str) -> None:
    store = open_store(store_with_generators)
    made = [a for a in store.artifacts() if a.kind == "generator"]
    found = {a.manifest["spec"]["parameters"].get("model", "sparse"): a for a in made}
    assert sorted(found) == ["convolutional", "linear", "sparse"]
    for artifact in found.values():
        learnt, judged = (
            set(json.loads(artifact.read(f"{name}.json"))) for name in ("samples", "judged")
        )
        assert len(learnt) == 7
        assert len(judged) == 1
        assert not learnt & judged
        metrics = json.loads(artifact.read("metrics.json"))
        assert metrics["code_covariance"] < 1e-3
        assert metrics["gap_psnr"] == metrics["train_psnr"] - metrics["test_psnr"]
        scores = pd.read_csv(pd.io.common.BytesIO(artifact.read("scores.csv")))
        assert list(scores["side"].value_counts()) == [28, 4]
        assert scores.groupby("side")["psnr"].mean()["test"] == pytest.approx(metrics["test_psnr"])
        assert scores.groupby(["sample_id", "crop"]).size().max() == 1
    assert "figures/curve.png" in found["sparse"].files()
    assert list(verify(store)) == []


def test_pictures_are_shown_in_the_prefect_ui(store_with_generators: str) -> None:
    with get_client(sync_client=True) as client:
        ours = ArtifactFilterKey(like_="%-generator-convolutional-vortices")
        found = client.read_artifacts(artifact_filter=ArtifactFilter(key=ours))
    keys = {artifact.key for artifact in found}
    names = ("reconstruct", "interpolate", "noise", "variants", "psnr", "eigenvalues", "curve")
    assert {f"{name}-generator-convolutional-vortices" for name in names} <= keys


@pytest.mark.parametrize(
    ("source", "n", "shape"),
    [
        ("noise", 3, (1, 3, 1, 16, 16)),
        ("reconstruct", 3, (2, 3, 1, 16, 16)),
        ("interpolate", 3, (2, 8, 1, 16, 16)),
        ("variants", 2, (2, 8, 1, 16, 16)),
    ],
)
def test_the_command_generates_from_each_source(
    store_with_generators: str, tmp_path: Path, source: str, n: int, shape: tuple[int, ...]
) -> None:
    command = ["generate", "generator/vortices@latest", "--from", source, "-n", str(n)]
    command += ["--refine", "2"]
    for target in (tmp_path / "made.npy", tmp_path / "made.png"):
        assert run([*command, "--to", str(target), "--store", store_with_generators]) == 0
    table = np.load(tmp_path / "made.npy")
    assert table.shape == shape
    assert np.isfinite(table).all()
    assert (tmp_path / "made.png").read_bytes().startswith(b"\x89PNG")


def test_reconstructions_stand_below_the_samples_themselves(store_with_generators: str) -> None:
    store = open_store(store_with_generators)
    artifact = store.artifact("generator/vortices@latest")
    name = json.loads(artifact.read("judged.json"))[0]
    table = make(store, GenerateRequest("generator/vortices@latest", "reconstruct", 4))
    field = store.dataset("vortices").to_xarray(f"sample_id = '{name}'").values[0]
    np.testing.assert_array_equal(table[0, 1, 0], field[:16, 16:])
    made = load_generator(artifact).reconstruct(torch.from_numpy(table[0]))
    np.testing.assert_allclose(table[1], made, rtol=0, atol=1e-6)


def test_samples_are_taken_from_all_over_the_data(store_with_generators: str) -> None:
    """The first samples are often alike: of one class."""
    store = open_store(store_with_generators)
    reference, everywhere = "generator/vortices@latest", "sample_id IS NOT NULL"
    table = make(store, GenerateRequest(reference, "reconstruct", 2, where=everywhere))
    fields = store.dataset("vortices").to_xarray().values
    np.testing.assert_array_equal(table[0, :, 0], [fields[0, :16, :16], fields[-1, 16:, 16:]])


def test_a_report_shows_what_a_generator_makes(store_with_generators: str, tmp_path: Path) -> None:
    store = open_store(store_with_generators)
    chapter = generator_chapter(store, store.artifact("generator/vortices@latest"))
    page = write_report(tmp_path / "report.html", "Title", "", [chapter]).read_text()
    assert page.count("data:image/png;base64,") == 3
    table = re.sub(r"<[^>]*>", " ", page[page.index("numbers a code") :])
    assert table.partition("artifact")[2].split()[:3] == ["7", "12", "256"]
    assert "wavemill generate generator/" in page


def test_a_long_row_of_draws_is_wrapped_into_a_square(tmp_path: Path) -> None:
    write(np.zeros((1, 30, 1, 16, 16)), tmp_path / "draws.png")
    height, width = imread(tmp_path / "draws.png").shape[:2]
    assert (height + GAP) * 6 == (width + GAP) * 5


def test_fewer_samples_than_asked_for_are_minded(store_with_generators: str) -> None:
    heard: list[str] = []
    with hearing(heard.append):
        for n in (4, 5):
            request = GenerateRequest("generator/vortices@latest", "reconstruct", n)
            make(open_store(store_with_generators), request)
    assert len(heard) == 1
    assert heard[0].startswith("only 4 of 5 samples are there, those it was judged by")


@pytest.mark.parametrize("dimension", ["1", "2"])
def test_a_generator_is_judged_by_a_single_sample(
    store_url: str, tmp_path: Path, dimension: str
) -> None:
    """Numbers and pictures that need two samples are left out, of its chapter as well."""
    ingest("few", ["simulate:n=6,N=32,t=0.5"], store_url, None, "threads")
    store, small = open_store(store_url, writable=True), {"J": "2", "L": "2"}
    parameters = {**small, "dimension": dimension, "model": "linear"}
    made = fit(store, "few", FitRequest("generator", parameters))
    assert {"test_code_mean", "test_code_radius", "test_psnr"} <= set(made.metrics)
    assert "test_code_covariance" not in made.metrics
    artifact = store.artifact_at("generator", made.key)
    assert "figures/interpolate.png" not in artifact.files()
    chapter = generator_chapter(store, artifact)
    page = write_report(tmp_path / "report.html", "Title", "", [chapter]).read_text()
    assert page.count("data:image/png;base64,") == 2


def test_eigenvalues_that_are_zero_for_any_codes_are_left_out() -> None:
    """For 4 codes of 9 numbers 3 are left; for codes of one number, its variance."""
    w = np.random.default_rng(0).standard_normal((4, 9))
    assert spectrum(w).shape == (3,)
    assert spectrum(w).min() > 1e-3
    np.testing.assert_allclose(spectrum(w[:, :1]), [w[:, 0].var()])
    assert spectrum(w[:1]).shape == (0,)


def test_pictures_that_have_no_score_are_counted_and_left_out_of_means() -> None:
    """One that is made exactly has no PSNR, and a black one no relative distances."""
    psnr = torch.tensor([20.0, math.inf, 22.0])
    found = means({"psnr": psnr, "features": torch.tensor([0.5, math.nan, math.nan])})
    assert found == {
        "psnr": 21.0,
        "psnr_undefined": 1.0,
        "features": 0.5,
        "features_undefined": 2.0,
    }
    for values in (psnr, psnr[1:2]):
        assert psnr_figure({"test": values.numpy()}).startswith(b"\x89PNG")


def test_a_generator_is_scored_on_other_samples(store_with_generators: str, tmp_path: Path) -> None:
    """Those left of its own dataset score as they did at the fit; so may any other's."""
    url, page = store_with_generators, tmp_path / "r.html"
    store, key = open_store(url), "generator/vortices@latest"
    made, again = (evaluate(key, "vortices", url, report=str(page)) for _ in range(2))
    assert (made.kind, made.written, again.written) == ("scores", True, False)
    here, before = made.table["model"], made.table["held out when fitted"]
    assert here["pictures"] == 4
    assert {"psnr", "ssim", "features", "code"} <= set(before)
    assert here["psnr"] == pytest.approx(before["psnr"], rel=1e-4)
    artifact = store.artifact(f"scores/{made.key}")
    held = store.artifact(key)
    assert artifact.read("samples.json") == held.read("judged.json")
    mine, theirs = (
        pd.read_csv(pd.io.common.BytesIO(each.read("scores.csv"))) for each in (artifact, held)
    )
    np.testing.assert_allclose(mine["psnr"], theirs[theirs["side"] == "test"]["psnr"], rtol=1e-4)
    text = page.read_text()
    assert text.count("data:image/png") == 2
    assert "1 samples that it did not learn from" in text
    ingest("others", ["simulate:n=3,N=32,t=0.5,seed=5"], url, None, "threads")
    command = ["evaluate", key, "others", "--where", "sample_id IS NOT NULL", "--store", url]
    assert run([*command, "--to", str(page), "--quiet"]) == 0
    found = json.loads(store.artifact("scores/others@latest").read("metrics.json"))
    assert found["model"]["pictures"] == 12
    with pytest.raises(InvalidRequest, match=r"no sample of 'vortices' is left that generator/"):
        evaluate(key, "vortices", url, where="sample_id IS NULL")
    with pytest.raises(InvalidRequest, match="no parameters"):
        evaluate(key, "vortices", url, {"samples": 3})


def test_what_cannot_be_generated_is_refused_with_a_way_out(
    store_with_generators: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = open_store(store_with_generators)
    with pytest.raises(InvalidRequest, match="choose one of noise"):
        GenerateRequest("generator/vortices@latest", "thin air")
    with pytest.raises(InvalidRequest, match="-n 2"):
        make(store, GenerateRequest("generator/vortices@latest", "interpolate", 1))
    with pytest.raises(InvalidRequest, match="--from noise starts from no samples"):
        make(store, GenerateRequest("generator/vortices@latest", where="nonsense = 3"))
    with pytest.raises(InvalidRequest, match="too few"):
        fit(store, "vortices", FitRequest("generator", LINEAR, "sample_id LIKE '%00000'"))
    target = str(tmp_path / "x.gif")
    assert run(["generate", "x", "--to", target, "--store", store_with_generators]) == 2
    assert ".png .npy" in capsys.readouterr().err


def test_images_become_generators_of_their_split(store_url: str, tmp_path: Path) -> None:
    """Coloured pictures between 0 and 1, judged by the split that was not learnt from."""
    for i in range(60):
        file = tmp_path / "tree" / ("test" if i % 4 == 3 else "train") / "a" / f"{i:02d}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(i).uniform(0, 1, (4, 4, 3))
        imsave(file, noise.repeat(4, 0).repeat(4, 1))
    options = ImageOptions(size=(16, 16))
    models = {"linear": {**SPEC, "model": "linear", "crop": "0"}}
    made = flow(
        "photos", [str(tmp_path / "tree")], store_url, options, models, None, "split=train", 0,
        "threads",
    )  # fmt: skip
    assert made["linear model"].written
    artifact = open_store(store_url).artifact("generator/photos@latest")
    judged = json.loads(artifact.read("judged.json"))
    assert len(judged) == 15
    assert all("test/" in name for name in judged)
    target = tmp_path / "made.npy"
    command = ["generate", "generator/photos@latest", "--from", "reconstruct", "-n", "4"]
    assert run([*command, "--to", str(target), "--store", store_url]) == 0
    table = np.load(target)
    assert table.shape == (2, 4, 3, 16, 16)
    assert 0 <= table.min() <= table.max() <= 1
    source = open_store(store_url).dataset("photos").to_xarray(f"sample_id = '{judged[0]}'")
    np.testing.assert_array_equal(
        table[0, 0], np.moveaxis(source.values[0], -1, 0) / np.float32(255)
    )


def test_an_interrupted_fit_goes_on_from_its_checkpoint(store_with_generators: str) -> None:
    """The fit takes up the artifact's checkpoint, which a mark in it shows, and then removes it."""
    store, parameters = open_store(store_with_generators), {**SMALL, "model": "sparse"}
    whole = fit(store, "vortices", FitRequest("generator", parameters, seed=3))
    assert store.checkpoint("generator", whole.key).read() is None
    artifact = store.artifact_at("generator", whole.key)
    source = store.dataset("vortices")
    rows = source.samples().set_index("sample_id").loc[json.loads(artifact.read("samples.json"))]
    states: list[dict[str, torch.Tensor]] = []
    spec = GeneratorSpec.from_parameters(parameters)
    learnt = torch.from_numpy(samples(source, rows.reset_index(), spec.crop))
    Generator(spec).fit(learnt, seed=3, checkpoint=states.append)
    state = next(state for state in states if "trainer.curve" in state)
    state["trainer.curve"][0, 1] = -1.0
    store.backend.delete([f"artifacts/generator/{whole.key}/manifest.json"])
    store.checkpoint("generator", whole.key).write(save(state))
    resumed = fit(store, "vortices", FitRequest("generator", parameters, seed=3))
    assert resumed.written
    assert store.checkpoint("generator", whole.key).read() is None
    curve = load_generator(store.artifact_at("generator", whole.key)).curve_
    assert curve[0].loss == -1
    assert resumed.metrics == pytest.approx(whole.metrics, rel=1e-4)
