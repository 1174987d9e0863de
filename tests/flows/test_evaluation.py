"""Judging through flows and commands: held-out samples alone, once, in a table and a page."""

from __future__ import annotations

import io
import json
import re
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from prefect.client.orchestration import get_client

from flows import compare_models, evaluate, fit, ingest
from flows.cli import run
from storage import InvalidRequest, open_store
from storage.removal import remove
from tasks import figures
from tasks.comparison import lines, parsed_models
from tasks.fields import FieldOptions
from tasks.fit import mind_chain
from tasks.progress import hearing
from tests.flows.conftest import write_snapshots
from wavemill.evaluation import METRICS, Judge

SMALL = {"samples": 3, "L": 2}
MODELS: dict[str, dict[str, Any]] = {
    "gaussian": {},
    "B": {"kind": "phase-harmonics", "set": "B", "J": 2, "L": 2, "iterations": 5},
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a store that holds six fields and a model of the first two."""
    folder = tmp_path_factory.mktemp("evaluation")
    (folder / "snapshots").mkdir()
    write_snapshots(folder / "snapshots", [f"m{i}" for i in range(6)])
    store = str(folder / "store")
    ingest("flow", [str(folder / "snapshots")], store, None, "threads")
    fit("gaussian", "flow", store, None, "sample_id <= 'm1'")
    return folder


def test_judged_by_what_the_model_was_not_fitted_to_as_by_hand(place: Path) -> None:
    store = str(place / "store")
    made = evaluate("gaussian/flow@latest", "flow", store, SMALL, seed=5)
    found = open_store(store).artifact(f"evaluation/{made.key}")
    assert json.loads(found.read("samples.json")) == ["m2", "m3", "m4", "m5"]
    fields = [np.load(place / "snapshots" / f"m{i}.npy") for i in range(6)]
    x = torch.from_numpy(np.stack(fields))
    judge = Judge(x[2:], L=2, periodic=False)
    drawn = np.load(io.BytesIO(found.read("samples.npy")))
    rows, _ = judge.compare(torch.from_numpy(drawn), x[:2])
    assert set(made.table) == set(rows) == {"real, one map", "model"}
    scores = rows["model"]
    assert set(scores) > set(METRICS) - {"coherence"}  # of several components
    for metric in scores:
        assert made.table["model"][metric] == pytest.approx(scores[metric], rel=1e-6), metric


def test_fewer_real_fields_are_taken_from_all_over_the_data(place: Path) -> None:
    """Snapshots that follow one another are alike, and would scatter too little."""
    store = str(place / "store")
    made = evaluate("gaussian/flow@latest", "flow", store, {**SMALL, "real": 2})
    found = open_store(store).artifact(f"evaluation/{made.key}")
    assert json.loads(found.read("samples.json")) == ["m2", "m5"]


def test_every_component_is_judged_and_how_they_go_together(tmp_path: Path) -> None:
    """The components are proportional: a joint model keeps that, one of each would not."""
    one = np.random.default_rng(0).standard_normal((6, 16, 16)).astype("float32")
    np.savez(tmp_path / "v.npz", u=one, v=2 * one)
    store, options = str(tmp_path / "store"), FieldOptions(variable=("u", "v"), slice="0:all")
    ingest("flow", [str(tmp_path / "v.npz")], store, options, "threads")
    first = ", ".join(
        f"'{name}'" for name in open_store(store).dataset("flow").samples().sample_id[:2]
    )
    fit("gaussian", "flow", store, None, f"sample_id in ({first})")
    page = tmp_path / "page.html"
    table = evaluate("gaussian/flow@latest", "flow", store, SMALL, report=str(page)).table
    assert "rows without a component in brackets, are of u." in page.read_text("utf-8")
    rows = ["real, one map", "model"]
    assert set(table) == {f"{row}{c}" for row in rows for c in ("", " [v]")}
    assert table["model"]["coherence"] < 1e-5 < table["model"]["eps"]
    assert table["model"]["flatness"] == pytest.approx(table["model [v]"]["flatness"], rel=1e-4)
    few = {"set": "scattering", "J": 2, "L": 2, "iterations": 2}
    made = fit("phase-harmonics", "flow", store, few, f"sample_id in ({first})")
    assert made.metrics["moments"] > 100
    found = evaluate("phase-harmonics/flow@latest", "flow", store, SMALL).table
    assert found["model"]["coherence"] < 1e-5 < found["model"]["eps"]


def test_components_of_a_model_and_of_its_judges_are_as_many(tmp_path: Path) -> None:
    store, fields = (
        str(tmp_path / "store"),
        np.random.default_rng(0).standard_normal((4, 2, 16, 16)),
    )
    np.savez(
        tmp_path / "v.npz", **dict(zip("uvab", fields.swapaxes(0, 1)[[0, 1, 1, 0]], strict=True))
    )
    for name, variable in (("uv", ("u", "v")), ("ab", ("a", "b")), ("u", "u")):
        options = FieldOptions(variable=variable, slice="0:all")
        ingest(name, [str(tmp_path / "v.npz")], store, options, "threads")
    for one, other, said in (
        ("uv", "u", r"2 components \(u, v\), u has 1"),
        ("u", "ab", "ab has 2"),
    ):
        fit("gaussian", one, store)
        with pytest.raises(InvalidRequest, match=said):
            evaluate(f"gaussian/{one}@latest", other, store, {**SMALL, "J": 1})
    heard: list[str] = []
    with hearing(heard.append):
        evaluate("gaussian/uv@latest", "ab", store, {**SMALL, "J": 1, "samples": 1})
    assert [re.sub(r"/\w+", "", text) for text in heard] == [
        "gaussian was fitted to u, v, and is judged by a, b of ab",
        "4 of 4 samples that judge are of files that hold samples fitted to: frames of one run "
        "are alike; fit gaussian to whole files, with --where",
    ]


def test_eps_that_is_not_defined_is_told(tmp_path: Path) -> None:
    """All real fields but one are constant."""
    store, fields = str(tmp_path / "store"), np.random.default_rng(0).standard_normal((5, 16, 16))
    fields[2:] = 1
    np.save(tmp_path / "x.npy", fields)
    ingest("x", [str(tmp_path)], store, FieldOptions(slice="0:all"), "threads")
    first = open_store(store).dataset("x").samples().sample_id[0]
    fit("gaussian", "x", store, None, f"sample_id = '{first}'")
    with pytest.raises(InvalidRequest, match="eps is not defined"):
        evaluate("gaussian/x@latest", "x", store, {**SMALL, "J": 1, "samples": 1})


def test_a_second_judgement_computes_nothing(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = str(place / "store")
    first = evaluate("gaussian/flow@latest", "flow", store, SMALL)
    monkeypatch.setattr("tasks.evaluate.Judge", None)  # calling it would fail
    monkeypatch.setattr("tasks.evaluate.draws", None)
    again = evaluate("gaussian/flow@latest", "flow", store, SMALL)
    with pytest.raises(InvalidRequest, match="cannot be judged"):
        evaluate(f"evaluation/{first.key}", "flow", store, SMALL)
    assert (again.key, again.table, again.written) == (first.key, first.table, False)


def test_fields_fitted_to_do_not_judge_by_another_name(tmp_path: Path) -> None:
    """Neither in another dataset nor as copies; models of data that is gone can still be judged."""
    store, folder = str(tmp_path / "store"), tmp_path / "files"
    folder.mkdir()
    write_snapshots(folder, ["m0", "m1", "m2", "m3"])
    ingest("a", [str(folder)], store, None, "threads")
    fit("gaussian", "a", store, None, "sample_id IN ('m0', 'm1')")
    (folder / "copy.npy").write_bytes((folder / "m0.npy").read_bytes())
    ingest("b", [str(folder)], store, None, "threads")
    judged = partial(evaluate, "gaussian/a@latest", "b", store, {**SMALL, "J": 1, "samples": 1})
    heard: list[str] = []
    with hearing(heard.append):
        found = open_store(store).artifact(f"evaluation/{judged(report=str(tmp_path / 'p')).key}")
    assert json.loads(found.read("samples.json")) == ["m2", "m3"]
    assert [re.sub(r"/\w+", "", text) for text in heard] == [
        "3 samples of b do not judge: gaussian was fitted to the same fields under other names"
    ]
    assert "(3 that are, by another name, do not)" in (tmp_path / "p").read_text()
    with pytest.raises(InvalidRequest, match=r"0 samples of 'b' .* \(3 more are the same fields"):
        judged("sample_id IN ('copy', 'm0', 'm1')")
    remove(open_store(store), "a")
    (key,) = (made.key for made in open_store(store).artifacts() if made.kind == "gaussian")
    with hearing(heard.append):
        table = evaluate(f"gaussian/{key}", "b", store, {**SMALL, "J": 1, "samples": 1}).table
    assert "memory" not in table["model"]
    assert re.match(r"'a', which gaussian/\w+ was fitted to, is gone", heard[1])


def test_a_model_of_everything_cannot_be_judged(place: Path) -> None:
    store = str(place / "store")
    everything = fit("gaussian", "flow", store)
    key = f"gaussian/{everything.key}"
    with pytest.raises(InvalidRequest, match="0 samples of 'flow' are left"):
        evaluate(key, "flow", store, SMALL)
    # Another dataset of the same grid was not fitted to, whatever its samples are called.
    (place / "others").mkdir()
    write_snapshots(place / "others", ["n0", "n1"])
    for number in (0, 1):
        (place / "others" / f"n{number}.npy").rename(place / "others" / f"m{number}.npy")
    ingest("other", [str(place / "others")], store, None, "threads")
    assert "model" in evaluate(key, "other", store, SMALL).table
    (place / "large").mkdir()
    write_snapshots(place / "large", ["a", "b"], side=32)
    ingest("large", [str(place / "large")], store, None, "threads")
    with pytest.raises(InvalidRequest, match="was fitted on grids of"):
        evaluate(key, "large", store, SMALL)


def test_models_are_compared_in_one_table_one_page_and_the_ui(place: Path, tmp_path: Path) -> None:
    store, page = str(place / "store"), tmp_path / "page.html"
    table = compare_models("flow", store, MODELS, None, 2, SMALL, seed=3, report=str(page))
    assert list(table) == ["real, one map", "gaussian", "B"]
    text = page.read_text()
    assert all(told in text for told in ("over 3 turns", "drawn or real (1;", "same 3 other"))
    assert text.count("data:image/png;base64,") == 5
    assert not re.search(r"(src|href)=\"(?!data:)", text)  # self-contained
    assert all(name in text for name in ("real, one map", "gaussian", "set", "eps"))
    assert "coherence" not in text  # of several components
    assert "in brackets" not in text
    commands = re.findall(r"wavemill evaluate \S+ flow --seed 3 --set L=2 --set samples=3", text)
    assert len(commands) == len(MODELS)
    assert text.count('<table class="wide">') == 2  # scores and lineage: no column beyond the page
    with get_client(sync_client=True) as client:
        shown = {artifact.key: artifact.data for artifact in client.read_latest_artifacts()}
    rows = json.loads(str(shown["comparison-flow"]))
    assert [row["fields"] for row in rows] == list(table)
    assert {"maps-comparison-flow", "evaluation-phase-harmonics-flow"} <= set(shown)
    count = len(open_store(store).artifacts())
    assert compare_models("flow", store, MODELS, None, 2, SMALL, seed=3) == table
    assert len(open_store(store).artifacts()) == count


def test_pictures_show_what_scores_say(monkeypatch: pytest.MonkeyPatch) -> None:
    """In units of the real fields, which a model may miss, and without jumps at borders."""
    drawn: dict[str, Any] = {}
    band = figures.band

    def kept(axes: Any, x: Any, curves: Any, label: str) -> None:
        drawn[label] = curves
        band(axes, x, curves, label)

    monkeypatch.setattr(figures, "band", kept)
    ramp = np.arange(16.0)
    real = np.random.default_rng(0).standard_normal((3, 16, 16)) + ramp
    figures.distributions({"real": real, "model": 0.3 * real + 2})
    assert np.abs(drawn["real"] - drawn["model"]).max() > 0.1
    figures.spectra({"real": real, "flat": real - ramp}, periodic=False)
    fine = drawn["real"][:, 5:].sum() / drawn["flat"][:, 5:].sum()
    assert fine == pytest.approx(1, rel=0.3)


def test_commands_print_the_table_and_write_the_page(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store, page = f"--store={place / 'store'}", tmp_path / "report.html"
    key = open_store(str(place / "store")).artifacts()[0].key[:12]
    sets = ["--set", "samples=3", "--set", "L=2", "--to", str(page)]
    assert run(["evaluate", key, "flow", store, *sets]) == 0
    said = capsys.readouterr().out
    assert re.search(r"^ +eps +spectrum", said, re.MULTILINE)
    assert re.search(r"^real, one map +\d", said, re.MULTILINE)
    assert f"report: {page}" in said
    assert page.exists()
    assert run(["evaluate", key, "flow", store, *sets, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["table"]["model"]["flatness"] > 0
    models = ["--models", "gaussian", "--models", "phases=gaussian:method=phases"]
    assert run(["compare", "flow", store, *models, "--train=2", *sets, "--json"]) == 0
    assert set(json.loads(capsys.readouterr().out)["table"]) >= {"gaussian", "phases"}


@pytest.mark.parametrize(
    ("kind", "settings", "way"),
    [
        ("phase-harmonics", ["J=1", "L=2", "iterations=1"], "--set borders=mask"),
        ("gaussian", [], "--set borders=mask"),
        ("energy", ["J=1", "L=2", "set=A0", "steps=4"], "energies take opposite borders"),
    ],
)
def test_fields_with_borders_taken_to_wrap_around_are_warned_of(
    kind: str, settings: list[str], way: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["fit", kind, "flow", f"--store={place / 'store'}", "-q"]
    command += ["--where", "sample_id = 'm0'", *(f"--set={p}" for p in settings)]
    assert run(command) == 0
    assert f"warning: flow is not periodic: {way}" in capsys.readouterr().err
    if kind != "energy":
        assert run([*command, "--set=borders=mask"]) == 0
        assert "warning" not in capsys.readouterr().err


def test_chains_that_have_not_arrived_are_warned_of(place: Path) -> None:
    store, heard = str(place / "store"), list[str]()
    settings = {"J": 1, "L": 2, "set": "A0", "steps": 2}
    with hearing(heard.append):
        made = fit("energy", "flow", store, settings, "sample_id = 'm1'")
        evaluate(f"energy/{made.key}", "flow", store, {**SMALL, "samples": 1})
    assert {"acceptance", "step", "drift"} <= set(made.metrics)
    said = [
        text for text in heard if f"the chain of energy/{made.key[:12]} has not arrived" in text
    ]
    assert len(said) == 2
    mind_chain("energy/0", {"acceptance": 0.57, "drift": 0.5})


def test_models_are_read_from_text() -> None:
    assert parsed_models(["gaussian", "C=phase-harmonics:set=C,J=4"]) == {
        "gaussian": {"kind": "gaussian"},
        "C": {"kind": "phase-harmonics", "set": "C", "J": "4"},
    }
    assert list(parsed_models(["phase-harmonics:set=B", "phase-harmonics"])) == [
        "phase-harmonics:set=B",
        "phase-harmonics",
    ]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (["gaussian:x"], "KEY=VALUE"),
        (["gaussian", "gaussian"], "two models"),
        (["=gaussian"], "is not .NAME=.KIND"),
        (["C="], "is not .NAME=.KIND"),
        ([""], "is not .NAME=.KIND"),
        (["gaussian", "nothing"], "no model 'nothing'"),
        (["gaussian", "real, one map=gaussian"], "choose another name"),
        (["real=gaussian"], "choose another name"),
        (["a [v]=gaussian"], "choose another name"),
    ],
)
def test_models_that_make_no_table_are_refused_before_any_is_fitted(
    wrong: list[str], said: str, tmp_path: Path
) -> None:
    with pytest.raises(InvalidRequest, match=said):
        compare_models("none", str(tmp_path), parsed_models(wrong))


def test_a_terminal_shows_how_many_samples_there_were() -> None:
    """A count in three digits, 1.92e+03, is not the count."""
    table = {
        "held out when fitted": {"top1": 0.58667},
        "model": {"top1": 0.58802, "samples": 1920.0},
    }
    assert [line.split()[-2:] for line in lines(table)] == [
        ["top1", "samples"],
        ["fitted", "0.587"],
        ["0.588", "1920"],
    ]
