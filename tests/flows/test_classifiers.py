"""Classifiers: what they learn from features, what survives a kill, what is refused."""

from __future__ import annotations

import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from safetensors.torch import load

from flows import evaluate, features, fit, images, ingest
from flows.cli import run
from flows.runtime import open_cluster
from storage import InvalidRequest, Store, open_store
from tasks import classifier
from tasks.artifacts import Contents, publish
from tasks.checkpoints import EpochCheckpoints, EpochState
from tasks.classifier_data import split
from tasks.classifier_figures import confusion
from tasks.feature_batches import LabelledFeatures
from tasks.fields import FieldOptions
from tasks.fit import load_model
from tasks.images import ImageOptions
from tasks.live_features import live
from tasks.prediction import predict_to
from tasks.progress import hearing
from tasks.requests import FitRequest
from tasks.together import fit_together
from tests.flows.classifier_driver import request
from wavemill.dictionaries.classifiers import Standardisation
from wavemill.dictionaries.team import Team
from wavemill.dictionaries.training import generator_seed
from wavemill.images import Augmentation
from wavemill.specs import ClassifierSpec, DictionarySpec

DRIVER = Path(__file__).with_name("classifier_driver.py")
CONFIGS = Path(__file__).parents[2] / "docs" / "configs"
SMALL: dict[str, Any] = {
    "model": "istc-mlp", "channels": 8, "kernel": 1, "components": 6, "atoms": 16, "last": 0.2,
    "iterations": 4, "free": True, "hidden": "12", "epochs": 6, "batch": 8,
    "validation": 0.25,
}  # fmt: skip


@pytest.fixture(scope="module")
def stripes(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A store with 64 noisy fields of stripes, lying or standing, and their scattering: its URL."""
    folder = tmp_path_factory.mktemp("stripes")
    generator, labels = np.random.default_rng(0), {}
    for index in range(64):
        wave = np.sin(0.9 * np.arange(16) + generator.uniform(0, 6))
        field = np.broadcast_to(wave, (16, 16)) + 0.7 * generator.standard_normal((16, 16))
        labels[f"s{index:02d}"] = "standing" if index % 2 else "lying"
        np.save(folder / f"s{index:02d}.npy", (field if index % 2 else field.T).astype("float32"))
    url = str(folder / "store")
    ingest("stripes", [str(folder)], url, FieldOptions(), "threads")
    features("stripes", "scattering", url, None, {"J": 2, "L": 4}, "threads")
    store = open_store(url)
    ids = store.dataset("stripes").samples()["sample_id"]
    names = [labels[Path(i).stem] for i in ids]
    store.dataset("stripes").relabel(pd.DataFrame({"sample_id": ids, "label": names}))
    return url


def learn(url: str, **parameters: Any) -> classifier.FitOutcome:
    """Fit without Prefect."""
    return classifier.fit(open_store(url), "stripes", request({**SMALL, **parameters}))


def weights(url: str, key: str) -> bytes:
    return open_store(url).artifact_at("classifier", key).read("weights.safetensors")


@pytest.mark.parametrize("model", ["ridge", "linear", "mlp", "istc", "istc-mlp"])
def test_every_model_tells_stripes_apart(stripes: str, model: str) -> None:
    """Sixteen held-out fields; the stripes are plain to see."""
    made = learn(stripes, model=model, rate=0.05, closed=model == "istc")
    assert made.metrics["top1"] >= 0.9
    assert made.metrics["top5"] == 1.0
    artifact = open_store(stripes).artifact_at("classifier", made.key)
    assert artifact.manifest["classes"] == ["lying", "standing"]
    assert {"card.md", "classes.csv", "confusion.csv", "figures/confusion.png"} <= set(
        artifact.files()
    )
    counts = pd.read_csv(io.BytesIO(artifact.read("confusion.csv")), index_col=0)
    assert counts.to_numpy().sum() == 16
    assert counts.to_numpy().trace() / 16 == made.metrics["top1"]
    drawn = {"figures/atoms.png", "figures/codes.png", "figures/supports.png"}
    assert (drawn <= set(artifact.files())) == model.startswith("istc")


def test_a_deep_network_tells_stripes_apart_and_predicts(stripes: str) -> None:
    """Blocks before a linear form: pictures of the first dictionary, and the same scores again."""
    store, view = open_store(stripes), "scattering:J=1,L=4"
    asked = {"model": "linear", "blocks": "6,8", "pool": 4, "epochs": 8, "batch": 8, "rate": 0.05}
    asked |= {"validation": 0.25}
    made = classifier.fit(
        store, "stripes", FitRequest("classifier", asked, view=view, target="label")
    )
    assert made.metrics["top1"] >= 0.9
    artifact = store.artifact_at("classifier", made.key)
    files = set(artifact.files())
    assert {"figures/atoms.png", "figures/codes.png"} <= files
    assert "figures/supports.png" not in files
    frame = live(store, "stripes", view)
    scores = classifier.Predictor(artifact).scores([frame.read(frame.samples)])
    right = scores.argmax(1).numpy() == (frame.samples["label"] == "standing").to_numpy()
    assert right.mean() >= 0.9


def test_the_flow_fits_shows_and_then_keeps(stripes: str) -> None:
    arguments = (SMALL, None, None, 0, "cpu", "scattering", "label")
    first = fit("classifier", "stripes", stripes, *arguments)
    again = fit("classifier", "stripes", stripes, *arguments)
    assert (again.key, again.written, again.metrics) == (first.key, False, first.metrics)


def test_an_artifact_predicts_what_its_fit_measured(stripes: str) -> None:
    made = learn(stripes, model="istc", epochs=3)
    store = open_store(stripes)
    artifact = store.artifact_at("classifier", made.key)
    frame = store.get_historical_features("stripes", "scattering")
    predictor = classifier.Predictor(artifact)
    found = predictor.table(
        frame.samples["sample_id"], predictor.scores([frame.read(frame.samples)])
    )
    held = ~found["sample_id"].isin(pd.read_json(io.BytesIO(artifact.read("samples.json")))[0])
    right = found["predicted"] == frame.samples["label"]
    assert right[held].mean() == pytest.approx(made.metrics["top1"])


def test_scores_are_of_samples_not_learnt_from_and_unlearnt_classes_are_wrong(
    stripes: str, tmp_path: Path
) -> None:
    """Fitted to the first 40; four of the last 24 are labelled with a class that it never saw."""
    where = "sample_id < 's40'"
    parameters = {**SMALL, "model": "ridge"}
    arguments = (parameters, where, None, 0, "cpu", "scattering", "label")
    made = fit("classifier", "stripes", stripes, *arguments)
    source = open_store(stripes).dataset("stripes")
    ids = [f"s{i}" for i in range(60, 64)]
    before = source.samples("sample_id >= 's60'")[["sample_id", "label"]]
    source.relabel(pd.DataFrame({"sample_id": ids, "label": "crossed"}))
    asked = (stripes, None, "sample_id >= 's40'", 0, "cpu", str(tmp_path / "r.html"))
    try:
        found = evaluate(f"classifier/{made.key}", "stripes", *asked)
        again = evaluate(f"classifier/{made.key}", "stripes", *asked)
    finally:
        source.relabel(before)
    relabelled = evaluate(f"classifier/{made.key}", "stripes", *asked)
    store = open_store(stripes)
    table = predict_to(store, made.key, "stripes", tmp_path / "p.csv").set_index("sample_id")
    rows = source.samples("sample_id >= 's40' AND sample_id < 's60'").set_index("sample_id")
    right = (table.loc[rows.index, "predicted"] == rows["label"]).sum()
    assert (found.written, again.written, relabelled.written) == (True, False, True)
    scores = found.table["model"]
    assert scores["top1"] == pytest.approx(right / 24)
    assert (scores["top5"], scores["samples"]) == (pytest.approx(20 / 24), 24)
    assert scores["of_unlearnt_classes"] == 4
    assert relabelled.table["model"]["top5"] == 1
    assert found.table["held out when fitted"]["top1"] == made.metrics["top1"]
    page = (tmp_path / "r.html").read_text()
    assert page.count("data:image/png") == 1
    assert "wavemill evaluate classifier/" in page
    held = store.artifact(f"scores/{relabelled.key}")
    answers = pd.read_csv(io.BytesIO(held.read("predictions.csv")))
    assert answers["label"].isin(["lying", "standing"]).all()
    with pytest.raises(InvalidRequest, match="no parameters"):
        evaluate(f"classifier/{made.key}", "stripes", stripes, {"samples": 3})
    with pytest.raises(InvalidRequest, match=r"no sample .* that .* did not learn from"):
        evaluate(f"classifier/{made.key}", "stripes", stripes, None, "label = 'none'")
    with pytest.raises(InvalidRequest, match="cannot be judged: evaluate one of"):
        evaluate(f"scores/{found.key}", "stripes", stripes)


@pytest.mark.parametrize(("batch", "size"), [(1, 1), (3, 4), (128, 49)])
def test_batches_too_small_to_learn_from_are_refused(stripes: str, batch: int, size: int) -> None:
    """Each would have been left out, and the network published as it began."""
    asked = request({**SMALL, "model": "linear", "batch": batch})
    with pytest.raises(InvalidRequest, match=f"too small: they take {max(2, size)} "):
        classifier.fit(open_store(stripes), "stripes", asked, Team(size=size))


def test_samples_learnt_from_do_not_score_under_another_name(stripes: str) -> None:
    """The same files again, in a dataset whose labels are all of one class."""
    where = "sample_id < 's40'"
    arguments = ({**SMALL, "model": "ridge"}, where, None, 0, "cpu", "scattering", "label")
    made = fit("classifier", "stripes", stripes, *arguments)
    learnt = json.loads(open_store(stripes).artifact(f"classifier/{made.key}").read("samples.json"))
    ingest("again", [str(Path(stripes).parent)], stripes, FieldOptions(), "threads")
    features("again", "scattering", stripes, None, {"J": 2, "L": 4}, "threads")
    again = open_store(stripes).dataset("again")
    again.relabel(again.samples()[["sample_id"]].assign(label="lying"))
    heard: list[str] = []
    with hearing(heard.append):
        found = evaluate(f"classifier/{made.key}", "again", stripes)
    assert found.table["model"]["samples"] == 64 - len(learnt)
    (said,) = heard
    assert said.startswith(f"{len(learnt)} samples of again do not judge")
    chosen = f"sample_id IN ('{learnt[0]}', '{learnt[1]}')"
    with pytest.raises(InvalidRequest, match=r"no sample .* \(2 more are the same by other names"):
        evaluate(f"classifier/{made.key}", "again", stripes, None, chosen)


@pytest.mark.slow
def test_a_fit_killed_at_any_instant_ends_with_the_same_bits(
    stripes: str, one_thread: None
) -> None:
    """kill -9 somewhere in the epoch after the start, and after the third."""
    parameters = {**SMALL, "epochs": 8, "closed": True, "patience": 20}
    chance, store = random.Random(3), open_store(stripes)
    key = learn(stripes, **parameters).key
    expected = weights(stripes, key)
    made = [entry.path for entry in store.backend.walk(f"artifacts/classifier/{key}")]
    store.backend.delete(made)
    checkpoints = EpochCheckpoints(store, "classifier", key)
    for epochs in (0, 3):
        process = start(stripes, parameters)
        while process.poll() is None and reached(checkpoints) < epochs:
            time.sleep(0.002)
        time.sleep(chance.uniform(0, 0.03))
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        assert epochs <= reached(checkpoints) < 8  # it was killed before its end
    assert start(stripes, parameters).wait() == 0
    assert weights(stripes, key) == expected
    assert reached(checkpoints) == -1


def reached(checkpoints: EpochCheckpoints) -> int:
    """Return how many epochs the newest checkpoint has, -1 if there is none."""
    found = checkpoints.latest()
    return -1 if found is None else len(found.history)


def start(url: str, parameters: dict[str, Any]) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = str(DRIVER.parents[2])
    command = [sys.executable, str(DRIVER), url, json.dumps(parameters)]
    return subprocess.Popen(command, env=environment)


def test_a_fit_that_stops_early_keeps_its_best_epoch(stripes: str) -> None:
    """At so high a rate the loss rises again; the epoch with the lowest is published."""
    made = learn(stripes, model="linear", rate=30.0, epochs=40, patience=2)
    artifact = open_store(stripes).artifact_at("classifier", made.key)
    history = pd.read_csv(io.BytesIO(artifact.read("history.csv")))
    assert len(history) < 40
    assert made.metrics["loss"] == pytest.approx(history["held_loss"].min(), rel=1e-6)
    assert history["held_loss"].iloc[-1] > history["held_loss"].min()


def test_a_fit_that_diverges_is_not_published(stripes: str) -> None:
    """Nor is the diverged state kept: the checkpoint holds the state before training."""
    store = open_store(stripes)
    before = keys(store)
    with pytest.raises(InvalidRequest, match=r"diverged in epoch 1: .*; lower rate=1e\+35"):
        learn(stripes, model="linear", rate=1e35, epochs=2)
    (key,) = keys(store) - before
    assert key not in {artifact.key for artifact in store.artifacts()}
    assert reached(EpochCheckpoints(store, "classifier", key)) == 0


def keys(store: Store) -> set[str]:
    """Return the keys of classifiers that are published, or on the way."""
    return {Path(entry.path).parts[2] for entry in store.backend.walk("artifacts/classifier")}


def test_statistics_that_are_not_defined_are_left_out(stripes: str) -> None:
    """JSON has no numbers for them."""
    store, key = open_store(stripes, writable=True), "0" * 64
    contents = Contents({"mae": float("nan"), "rows": {"far": float("inf"), "near": 1.0}}, [])
    made = publish(store, store.dataset("stripes"), key, DictionarySpec(), request({}), contents)
    text = store.artifact_at("dictionary", key).read("metrics.json")
    assert made.metrics == json.loads(text) == {"rows": {"near": 1.0}}


def test_a_checkpoint_comes_back_whole_and_replaces_the_last(tmp_path: Path) -> None:
    store = open_store(str(tmp_path), writable=True)
    folder = EpochCheckpoints(store, "classifier", "0" * 64)
    assert folder.latest() is None
    for epoch in range(4):
        history = [{"epoch": float(i), "loss": 0.1} for i in range(epoch)]
        folder.save(EpochState({"w": torch.full((2, 3), epoch / 7)}, history))
    found = folder.latest()
    assert found is not None
    assert len(found.history) == 3
    assert torch.equal(found.state["w"], torch.full((2, 3), 3 / 7))
    assert len(list(store.backend.walk("artifacts"))) == 1
    folder.clear()
    assert list(store.backend.walk("artifacts")) == []


@pytest.mark.parametrize("older", [False, True], ids=["with-checksum", "without"])
def test_a_damaged_checkpoint_costs_time_and_stops_nothing(tmp_path: Path, older: bool) -> None:
    """In an older one only damage to its structure is seen, in ours any flipped bit."""
    store = open_store(str(tmp_path), writable=True)
    folder = EpochCheckpoints(store, "classifier", "0" * 64)
    folder.save(EpochState({"w": torch.ones(2, 3)}))
    path, whole = folder.place.path, folder.place.read()
    assert whole is not None
    if older:
        store.backend.write(path, whole)
        assert folder.latest() is not None
        store.backend.write(path, whole[: len(whole) // 2])
    else:
        store.backend.write(path, store.backend.read(path)[:-1] + b"\x01")
    heard: list[str] = []
    with hearing(heard.append):
        assert folder.latest() is None
    assert [path in heard[0] or older, len(heard)] == [True, 1]


def test_unlabelled_samples_are_left_out_and_one_class_is_refused(stripes: str) -> None:
    with pytest.raises(InvalidRequest, match="one value only"):
        classifier.fit(
            open_store(stripes),
            "stripes",
            FitRequest("classifier", {}, "label = 'lying'", view="scattering", target="label"),
        )
    with pytest.raises(InvalidRequest, match="no column 'colour'"):
        classifier.fit(
            open_store(stripes),
            "stripes",
            FitRequest("classifier", {}, view="scattering", target="colour"),
        )
    source = open_store(stripes).dataset("stripes")
    source.relabel(source.samples()[["sample_id"]].assign(empty=None))
    with pytest.raises(InvalidRequest, match=r"'empty' of stripes is empty .*`wavemill label stri"):
        classifier.fit(
            open_store(stripes),
            "stripes",
            FitRequest("classifier", {}, view="scattering", target="empty"),
        )
    with pytest.raises(InvalidRequest, match="needs --view and --target"):
        classifier.fit(open_store(stripes), "stripes", FitRequest("classifier"))
    with pytest.raises(InvalidRequest, match=r"64 .* too few to hold out 70 \(1 or more\)"):
        learn(stripes, validation=70)


def test_weights_are_tensors_by_name(stripes: str) -> None:
    made = learn(stripes, model="istc", epochs=1)
    state = load(weights(stripes, made.key))
    assert state["coding.dictionary.V"].shape == (8, 16)
    assert state["standardisation.axes"].shape[1] == 6


def test_a_dictionary_rebuilds_features_by_few_atoms(
    stripes: str, capsys: pytest.CaptureFixture[str]
) -> None:
    parameters = {"atoms": 24, "components": 6, "penalty": 0.05, "positions": 800}
    made = fit(
        "dictionary", "stripes", stripes, parameters, None, None, 0, "cpu", "scattering", None
    )
    assert made.metrics["relative_error"] < 0.2
    assert made.metrics["atoms_a_position"] < 6
    artifact = open_store(stripes).artifact_at("dictionary", made.key)
    atoms = load(artifact.read("weights.safetensors"))["atoms"]
    torch.testing.assert_close(atoms.norm(dim=0), torch.ones(24))
    assert {"figures/atoms.png", "figures/supports.png"} <= set(artifact.files())
    with pytest.raises(InvalidRequest, match="a dictionary needs --view"):
        fit("dictionary", "stripes", stripes, parameters)
    with pytest.raises(
        InvalidRequest, match=f"{made.key[:12]} is not a model of fields: name one of"
    ):
        load_model(artifact)
    pairs = [text for name, value in parameters.items() for text in ("--set", f"{name}={value}")]
    command = ["fit", "dictionary", "stripes", "--view", "scattering", *pairs]
    assert run([*command, "--store", stripes]) == 0
    assert f"next: wavemill show dictionary/{made.key[:12]}\n" in capsys.readouterr().out


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two folders, a class each, of twenty small pictures: reddish noise and bluish noise."""
    folder = tmp_path_factory.mktemp("pictures")
    generator = np.random.default_rng(0)
    for index in range(40):
        label = ("red", "blue")[index % 2]
        pixels = generator.integers(0, 160, (16, 16, 3), np.uint8)
        pixels[..., 2 * (index % 2)] += 90
        (folder / label).mkdir(exist_ok=True)
        Image.fromarray(pixels).save(folder / label / f"{index:02d}.png")
    return folder


def test_the_flow_goes_from_pictures_to_their_classes(pictures: Path, tmp_path: Path) -> None:
    """Every fourth is held out; then a folder with a file that is not a picture is classified."""
    url, view = str(tmp_path / "store"), {"J": 2, "L": 2, "nonlinearity": "rectifier"}
    models = {"ridge": {"model": "ridge", "validation": 0.25}}
    made = images("set", [str(pictures)], url, None, view, models, cluster="threads")
    assert made["ridge model"].metrics["top1"] == 1.0
    (tmp_path / "new").mkdir()
    for name in ("red/00", "blue/01"):
        source = pictures / f"{name}.png"
        (tmp_path / "new" / f"{Path(name).name}.png").write_bytes(source.read_bytes())
    (tmp_path / "new" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    key, store = made["ridge model"].key, open_store(url)
    rows = predict_to(store, key, str(tmp_path / "new"), tmp_path / "p.csv").set_index("sample_id")
    assert (rows.loc["00", "predicted"], rows.loc["01", "predicted"]) == ("red", "blue")
    assert rows.loc["broken", "flag"] != ""
    alone = predict_to(store, key, str(tmp_path / "new" / "broken.png"), tmp_path / "p.csv")
    assert list(alone) == ["sample_id", *rows]  # the same columns in the same order
    whole = predict_to(store, key, "set", tmp_path / "p.parquet").set_index("sample_id")
    labels = store.dataset("set").samples().set_index("sample_id")["label"]
    assert (whole["predicted"] == labels[whole.index]).all()
    alone, among = rows.loc["00", "score"], whole.loc["red/00", "score"]
    assert alone == pytest.approx(among, abs=1e-6)  # batches of other sizes add in another order
    (likeliest, first), (_, second) = json.loads(whole.loc["red/00", "likeliest"])
    assert (likeliest, first) == ("red", pytest.approx(among, abs=1e-4))
    assert first > second
    ingest("larger", [str(pictures)], url, ImageOptions(size=(32, 32)), "threads")
    with pytest.raises(InvalidRequest, match=r"images of 16x16.*larger has .*--size 16x16"):
        predict_to(store, key, "larger", tmp_path / "p.csv")
    (tmp_path / "cifar-10-batches-py").mkdir()
    (tmp_path / "cifar-10-batches-py" / "data_batch_1").write_bytes(b"")
    with pytest.raises(InvalidRequest, match="data_batch_1, pickle: is a pickle"):
        predict_to(store, key, str(tmp_path / "cifar-10-batches-py"), tmp_path / "p.csv")


def test_names_in_any_script_are_drawn_without_a_word() -> None:
    drawn = confusion(np.eye(2), ("\u65e5\u672c", "b"))
    assert drawn.startswith(b"\x89PNG")


def test_held_out_samples_of_classes_that_were_not_learnt_are_wrong(stripes: str) -> None:
    """Every fourth field has a label of its own."""
    store, wanted = open_store(stripes), request({"model": "ridge", "validation": 0.25})
    frame = store.get_historical_features("stripes", "scattering")
    alone = frame.samples["label"].where(frame.samples.index % 4 > 0, frame.samples["sample_id"])
    rare = replace(frame, samples=frame.samples.assign(label=alone))
    spec = ClassifierSpec.from_parameters(wanted.parameters)
    data = split(rare, None, wanted, spec)
    assert data.unlearnt > 0
    assert len(data.held) + data.unlearnt == 16
    assert data.known == len(data.held) / 16
    every = replace(frame, samples=frame.samples.assign(label=frame.samples["sample_id"]))
    with pytest.raises(InvalidRequest, match="none of 16 samples held out"):
        split(every, None, wanted, spec)
    labels = pd.DataFrame({"sample_id": frame.samples["sample_id"], "rare": alone})
    store.dataset("stripes").relabel(labels)
    made = classifier.fit(store, "stripes", replace(wanted, target="rare"))
    card = store.artifact_at("classifier", made.key).read("card.md").decode()
    assert made.metrics["held_unlearnt"] == data.unlearnt
    assert made.metrics["top5"] <= data.known
    assert f"Of these {data.unlearnt} are of classes it did not learn" in card


@pytest.mark.parametrize("kind", ["int64", "Int64", "float64"])
def test_classes_that_are_numbers_have_their_order_and_no_point(stripes: str, kind: str) -> None:
    frame = open_store(stripes).get_historical_features("stripes", "scattering")
    numbers = pd.Series(frame.samples.index % 12).astype(kind)
    numbered = replace(frame, samples=frame.samples.assign(number=numbers))
    wanted = replace(request({"model": "ridge"}), target="number")
    data = split(numbered, None, wanted, ClassifierSpec.from_parameters(wanted.parameters))
    assert data.classes == tuple(map(str, range(12)))
    assert data.numbers(data.learnt).tolist() == data.learnt["number"].tolist()


def test_features_computed_while_training_give_the_same_model(
    pictures: Path, tmp_path: Path, one_thread: None
) -> None:
    """Stored and live features are the same numbers, and so is every weight."""
    url, view = str(tmp_path / "store"), {"J": 2, "L": 2}
    ingest("set", [str(pictures)], url, ImageOptions(), "threads")
    features("set", "scattering", url, None, view, "threads")
    features("set", "scattering", url, "mirrored", {**view, "mirrored": True}, "threads")
    store, parameters = open_store(url), {**SMALL, "epochs": 2, "validation": 8}
    pairs = [("scattering", "mirrored")]
    pairs.append(("scattering:J=2,L=2", "scattering:J=2,L=2,mirrored=yes"))
    stored, live = (
        classifier.fit(
            store,
            "set",
            FitRequest("classifier", {**parameters, "mirror": mirror}, view=name, target="label"),
        )
        for name, mirror in pairs
    )
    assert live.key != stored.key  # the spec says where features come from
    assert weights(url, live.key) == weights(url, stored.key)
    with pytest.raises(InvalidRequest, match="is not KEY=VALUE"):
        classifier.fit(store, "set", FitRequest("classifier", view="scattering:J", target="label"))


def test_two_processes_train_what_one_does(stripes: str, tmp_path: Path, one_thread: None) -> None:
    """Shares of every batch, norms over the whole: equal over twelve steps, but for rounding."""
    parameters = {**SMALL, "model": "istc", "closed": True, "epochs": 2}
    alone = learn(stripes, **parameters)
    expected = load(weights(stripes, alone.key))
    other = str(tmp_path / "store")
    shutil.copytree(stripes, other)
    shutil.rmtree(Path(other) / "artifacts")
    with open_cluster("local:2") as address:
        asked = (parameters, None, None, 0, "cpu", "scattering", "label", address)
        made = fit("classifier", "stripes", other, *asked)
        again = fit_together(other, "stripes", request(parameters), address)
        with pytest.raises(InvalidRequest, match="no column"):
            fit_together(other, "stripes", replace(request(parameters), target="x"), address)
    assert (made.key, made.written, again.written) == (alone.key, True, False)
    found = load(weights(other, made.key))
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-5)
    assert made.metrics == pytest.approx(alone.metrics, rel=1e-4)


def test_an_image_and_its_mirror_image_are_given_the_same_scores(
    pictures: Path, tmp_path: Path
) -> None:
    """``both`` averages over the two, in either order, so that scores are equal to rounding."""
    url, view = str(tmp_path / "store"), "scattering:J=2,L=2,colours=opponent"
    ingest("set", [str(pictures)], url, ImageOptions(), "threads")
    parameters = {"model": "ridge", "validation": 8, "mirror": f"{view},mirrored=yes", "power": 0.5}
    wanted = FitRequest("classifier", {**parameters, "both": True}, view=view, target="label")
    made = classifier.fit(open_store(url), "set", wanted)
    assert made.metrics["held_out"] == 8.0
    for index, path in enumerate(sorted(pictures.rglob("*.png"))[:4]):
        image = Image.open(path)
        (tmp_path / "few").mkdir(exist_ok=True)
        image.save(tmp_path / "few" / f"{index}.png")
        mirrored = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        mirrored.save(tmp_path / "few" / f"{index}m.png")
    store, few = open_store(url), str(tmp_path / "few")
    rows = predict_to(store, made.key, few, tmp_path / "p.csv").set_index("sample_id")
    one, other = (rows.loc[[f"{i}{m}" for i in range(4)], "score"] for m in ("", "m"))
    np.testing.assert_allclose(one, other, rtol=0, atol=1e-5)
    whole = predict_to(store, made.key, "set", tmp_path / "w.csv")
    assert set(np.round(one, 4)) <= set(np.round(whole["score"], 4))


def test_training_sees_images_changed_anew_in_each_epoch(
    pictures: Path, stripes: str, tmp_path: Path, one_thread: None
) -> None:
    """The features of an epoch are those of its changed images, whatever the batch or run."""
    url, view = str(tmp_path / "store"), "scattering:J=2,L=2"
    ingest("set", [str(pictures)], url, ImageOptions(), "threads")
    store, changes = open_store(url), {"flip": True, "shift": 2, "validation": 8}
    wanted = FitRequest("classifier", {**SMALL, **changes}, view=view, target="label", seed=4)
    data = split(
        live(store, "set", view), None, wanted, ClassifierSpec.from_parameters(wanted.parameters)
    )
    standard = Standardisation().update(torch.zeros(1, *data.shape) + 1).solve()
    samples = data.learning(standard)
    epochs = [torch.cat([x for x, _ in samples.shuffled(8, 4, epoch)]) for epoch in (0, 1)]
    changed = live(store, "set", view, augmentation=Augmentation(True, 2), seed=4)
    rows = np.concatenate(list(samples._groups(np.random.default_rng(generator_seed(4, 0)))))
    expected = standard(torch.from_numpy(changed.read(data.learnt.iloc[rows])))
    torch.testing.assert_close(epochs[0], expected, rtol=0, atol=0)
    kept = next(samples.ordered(32))[0]
    for one, other in (epochs, (epochs[0], kept)):
        apart = (one[:, None] - other[None]).flatten(2).abs().amax(2).amin(1)
        assert (apart > 1e-3).double().mean() > 0.9  # few are left as they were
    made = [classifier.fit(store, "set", wanted).key]
    again = open_store(str(tmp_path / "again"))
    ingest("set", [str(pictures)], again.url, ImageOptions(), "threads")
    made.append(classifier.fit(again, "set", wanted).key)
    assert weights(url, made[0]) == weights(again.url, made[1])
    with pytest.raises(InvalidRequest, match="'scattering' is stored"):
        learn(stripes, flip=True)
    fields = FitRequest("classifier", {"shift": 1}, view=view, target="label")
    with pytest.raises(InvalidRequest, match="holds fields"):
        classifier.fit(open_store(stripes), "stripes", fields)


def test_mirrored_samples_follow_the_others_with_the_same_classes() -> None:
    x = np.arange(20, dtype="float32").reshape(20, 1, 1, 1)
    standardisation = Standardisation().update(torch.from_numpy(x)).solve()
    samples = LabelledFeatures(lambda rows: x[rows], torch.arange(10), standardisation, sides=2)
    read = list(samples.ordered(8))
    assert torch.cat([y for _, y in read]).tolist() == 2 * list(range(10))
    together = torch.cat([values for values, _ in read])
    torch.testing.assert_close(together, standardisation(torch.from_numpy(x)))


def test_groups_that_fit_into_memory_cover_every_sample_once() -> None:
    """A budget of 256 rows of 1,000: four groups an epoch, in another order each epoch."""
    x = np.arange(1000, dtype="float32").reshape(1000, 1, 1, 1)
    standardisation = Standardisation().update(torch.from_numpy(x)).solve()
    samples = LabelledFeatures(
        lambda rows: x[rows], torch.arange(1000), standardisation, budget=4 * 256
    )
    orders = []
    for epoch in (0, 1):
        read = list(samples.shuffled(32, seed=3, epoch=epoch))
        orders.append(torch.cat([y for _, y in read]))
        assert orders[-1].sort().values.tolist() == list(range(1000))
        together = torch.cat([values for values, _ in read])
        torch.testing.assert_close(together, standardisation(torch.from_numpy(x[orders[-1]])))
    assert not torch.equal(*orders)


def test_what_does_not_fit_is_read_in_groups_of_one_size() -> None:
    """Ten classes in order, a tenth more than fits: a group of that tenth would hold few."""
    x = np.arange(11_000, dtype="float32").reshape(-1, 1, 1, 1)
    samples = LabelledFeatures(
        lambda rows: x[rows], torch.arange(11_000), lambda y: y, budget=4 * 10_000
    )
    groups = list(samples._groups(np.random.default_rng(0)))
    assert [round(len(rows), -2) for rows in groups] == [5500, 5500]
    assert sorted(np.concatenate(groups)) == list(range(11_000))
    for rows in groups:
        assert np.bincount(rows // 1100, minlength=10).min() > 300


def test_the_published_recipe_runs_on_a_few_images(pictures: Path, tmp_path: Path) -> None:
    """The published file, with smaller sizes and fewer epochs, so that a map is one position."""
    recipe = CONFIGS / "imagenet.toml"
    less = {"channels": 8, "atoms": 32, "hidden": "8,8", "epochs": 2, "pool": 1, "validation": 8}
    parameters = {**tomllib.loads(recipe.read_text()), **less}
    url = str(tmp_path / "store")
    ingest("imagenet", [str(pictures)], url, ImageOptions(), "threads")
    view = "scattering:J=4,nonlinearity=rectifier"
    wanted = FitRequest("classifier", parameters, view=view, target="label")
    made = classifier.fit(open_store(url), "imagenet", wanted)
    artifact = open_store(url).artifact_at("classifier", made.key)
    assert artifact.manifest["shape"] == [3 * 513, 1, 1]  # as published: 1,539 channels
    assert made.metrics["epochs"] == 2


def test_the_deep_recipe_runs_on_a_few_images(pictures: Path, tmp_path: Path) -> None:
    """The published file, with fewer atoms and epochs."""
    less = {"blocks": "4,6,6", "epochs": 2, "validation": 8, "batch": 8}
    parameters = {**tomllib.loads((CONFIGS / "cifar10.toml").read_text()), **less}
    url = str(tmp_path / "store")
    ingest("cifar", [str(pictures)], url, ImageOptions(), "threads")
    view = parameters["mirror"].removesuffix(",mirrored=yes")
    wanted = FitRequest("classifier", parameters, view=view, target="label")
    made = classifier.fit(open_store(url), "cifar", wanted)
    assert made.metrics["epochs"] == 2
    rows = predict_to(open_store(url), made.key, str(pictures), tmp_path / "p.csv")
    assert set(rows["flag"]) == {""}
