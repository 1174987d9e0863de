"""The command line: what people type, read and get."""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import re
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pytest
import s3fs
import torch
import xarray as xr
import zarr
from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings

import wavemill
from flows.cli import app, run
from flows.commands.options import tell
from flows.homes import choose_prefect_home
from storage import open_store
from tasks.kinds import LAYOUTS, MODEL_KINDS, models
from tasks.models import MODELS
from tasks.scores import JUDGES
from tasks.steps.models import FITS
from tasks.views import VIEWS
from tests.flows.conftest import listen_to_interrupts, write_snapshots
from wavemill.scattering2d import Scattering2D

COMMANDS = [
    *(["ingest", "turbulence"], ["ingest", "molecules"], ["ingest", "images"]),
    *(["features"], ["fit"], ["synthesize"], ["predict"], ["generate"]),
    *(["evaluate"], ["compare"], ["demo"]),
    *(["query"], ["ls"], ["show"], ["verify"], ["gc"], ["up"]),
    *(["label"], ["remove"]),
]
FILE_FORMATS = ["parquet", "csv", "nc", "zarr", "npz"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a store that the commands below have filled."""
    folder = tmp_path_factory.mktemp("commands")
    (folder / "snapshots").mkdir()
    write_snapshots(folder / "snapshots", [f"m{i}" for i in range(6)], side=32)
    (folder / "snapshots" / "broken.npy").write_bytes(b"\x93NUMPY\x01\x00 and no more")
    store = f"--store={folder / 'store'}"
    assert run(["ingest", "turbulence", str(folder / "snapshots"), "--name", "flow", store,
                "--cluster", "threads", "--periodic", "-q"]) == 0  # fmt: skip
    features = ["features", "flow", store, "--cluster", "threads", "-q", "--view"]
    assert run([*features, "scattering", "--set", "J=2", "--set", "L=4"]) == 0
    assert run([*features, "spectrum"]) == 0
    assert run(["fit", "gaussian", "flow", store, "-q"]) == 0
    return folder


def told(capsys: pytest.CaptureFixture[str], *arguments: str, status: int = 0) -> str:
    """Run a command and return what it printed."""
    capsys.readouterr()
    assert run(list(arguments)) == status
    captured = capsys.readouterr()
    return captured.out if status == 0 else captured.err


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help_has_an_example(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    shown = told(capsys, *command, "--help")
    assert "Example: wavemill " + " ".join(command) in " ".join(shown.split())


def test_every_command_is_tested_for_help() -> None:
    names = {command.callback.__name__.rstrip("_") for command in app.registered_commands}
    assert {name.replace("list", "ls") for name in names} == {c[0] for c in COMMANDS} - {"ingest"}


def test_the_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    """With the versions of what it computes with, for reports of errors."""
    shown = told(capsys, "--version")
    assert shown.startswith(f"wavemill {wavemill.__version__}, ")
    assert f"torch {importlib.metadata.version('torch')}" in shown


def test_the_help_comes_at_once() -> None:
    """People ask for help often: nothing heavy is imported for it (a second is generous)."""
    code = "import sys; from flows.cli import run; run(['--help']); print(sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    for heavy in ("torch", "prefect", "distributed", "xarray", "matplotlib", "zarr"):
        assert f"'{heavy}'" not in done.stdout


def test_what_is_said_of_kinds_is_of_all_that_there_are(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert models(lambda kind: kind.fields) == list(MODELS)
    assert set(models(lambda kind: kind.scored)) == set(JUDGES)
    assert set(MODEL_KINDS) == {*MODELS, *FITS}
    assert list(LAYOUTS) == list(VIEWS)
    for command, kinds in (("fit", MODEL_KINDS), ("features", LAYOUTS)):
        shown = told(capsys, command, "--help")
        assert all(re.search(rf"\b{kind}\b", shown) for kind in kinds)


def test_the_packages_are_a_command_too() -> None:
    command = [sys.executable, "-m", "flows", "ls", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "Example: wavemill ls" in " ".join(done.stdout.split())


def test_quarantine_is_a_warning_and_can_be_read(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = f"--store={place / 'store'}"
    listing = told(capsys, "show", "flow", "--quarantine", store)
    assert re.search(r"truncated\s+\S+broken\.npy: ", listing)
    again = ["ingest", "turbulence", str(place / "snapshots"), "--name", "flow", store]
    assert run([*again, "--cluster", "threads"]) == 0
    captured = capsys.readouterr()
    assert "warning: quarantined (truncated)" in captured.err
    assert "6 unchanged" in captured.out
    assert run([*again, "--cluster", "threads", "--strict"]) == 1
    assert "1 inputs refused (truncated 1), --strict: nothing was published" in (
        capsys.readouterr().err
    )


def test_names_of_files_move_no_cursor(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In warnings, errors, listings and tables: no title, colour, new line or direction."""
    names = ["a\x1b]0;title\x07", "b\x9b31m", "c\nfake", "d\u202egnp"]
    write_snapshots(tmp_path, [*names, *"efghi"])
    for name in names:
        (tmp_path / f"{name}.npz").write_bytes(b"broken")
    url = str(tmp_path / "store")
    place = ["--store", url]
    ingested = [
        "ingest",
        "turbulence",
        str(tmp_path),
        "--name",
        "x",
        "--cluster",
        "threads",
        *place,
    ]
    assert run(ingested) == 0
    assert run(["show", "x", "--quarantine", *place]) == 0
    assert run(["query", "x", "--where", "sample_id = '\udcff\x1b'", *place]) == 1
    assert run(["query", "x", *place]) == 0
    assert run(["ls", "--store", f"{url}\x1b[2J"]) == 1
    shown = "".join(capsys.readouterr())
    assert "a\\x1b]0;title\\x07" in shown
    assert "\\u202egnp" in shown
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", shown)
    assert "\nfake" not in shown


def test_query_previews_ten_rows(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shown = told(capsys, "query", "flow", "--view", "spectrum", f"--store={place / 'store'}")
    assert shown.startswith("6 samples, ")
    assert "next: --to FILE" in shown
    samples = told(capsys, "query", "flow", f"--store={place / 'store'}")
    assert samples.startswith("6 samples\nsample_id ")
    assert "m3" in samples
    assert "columns: sample_id, source, index, sha256\n" in samples  # named, shown if useful
    assert samples.split("\n")[1].split() == ["sample_id", "source"]


def test_a_preview_of_half_precision_warns_of_nothing(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(place / "store", tmp_path / "store")
    store = f"--store={tmp_path / 'store'}"
    made = ["features", "flow", "--view", "scattering", "--as", "halves", "--cluster", "threads"]
    halves = [f"{name}={value}" for name, value in {"J": 2, "L": 4, "stored": "float16"}.items()]
    assert run([*made, "-q", store, *(word for pair in halves for word in ("--set", pair))]) == 0
    shown = told(capsys, "query", "flow", "--view", "halves", store)  # a warning is an error here
    assert shown.startswith("6 samples, ")


@pytest.mark.parametrize("suffix", FILE_FORMATS)
def test_query_writes_every_format_with_the_same_numbers(
    place: Path, tmp_path: Path, suffix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / f"answer.{suffix}"
    said = told(
        capsys, "query", "flow", "--view", "scattering", f"--store={place / 'store'}",
        "--where", "sample_id in ('m1', 'm4')", "--coefficients", "order == 1 and j1 = 1",
        "--to", str(target),
    )  # fmt: skip
    assert f"wrote {target}: 2 samples, 4 coefficients" in said
    op = Scattering2D((32, 32), J=2, L=4)
    chosen = (op.coefficients["order"] == 1) & (op.coefficients["j1"] == 1)
    expected = []
    for name in ("m1", "m4"):
        field = np.load(place / "snapshots" / f"{name}.npy")
        expected.append(op(torch.from_numpy(field)).numpy()[chosen])
    maps = np.stack(expected)
    wanted = maps.mean((2, 3)) if suffix in ("parquet", "csv") else maps
    np.testing.assert_allclose(read(target), wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("suffix", FILE_FORMATS)
def test_a_query_for_nothing_writes_a_file_of_nothing(
    place: Path, tmp_path: Path, suffix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    query = ["query", "flow", "--view", "scattering", f"--store={place / 'store'}"]
    query += ["--where", "sample_id = 'nobody'", "--coefficients", "order == 1"]
    assert told(capsys, *query) == "0 samples, 8 coefficients\n"
    target = tmp_path / f"answer.{suffix}"
    assert "0 samples, 8 coefficients" in told(capsys, *query, "--to", str(target))
    assert read(target).shape[:2] == (0, 8)


def test_only_arrays_among_folders_are_replaced(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    query = ["query", "flow", "--view", "spectrum", f"--store={place / 'store'}", "--to"]
    told(capsys, *query, str(tmp_path / "x.zarr"))
    told(capsys, *query, str(tmp_path / "x.zarr"))
    for name in ("precious.csv", "precious.zarr"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "thesis.tex").write_text("years")
        assert "is a folder" in told(capsys, *query, str(tmp_path / name), status=1)
        assert (tmp_path / name / "thesis.tex").read_text() == "years"
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "precious.csv",
        "precious.zarr",
        "x.zarr",
    ]


def read(target: Path) -> np.ndarray:
    """Return (sample, coefficient, y, x), from tables (sample, coefficient)."""
    match target.suffix:
        case ".parquet" | ".csv":
            table = pd.read_parquet(target) if target.suffix == ".parquet" else pd.read_csv(target)
            columns = [name for name in table.columns if name.startswith("order=1")]
            return table[columns].to_numpy()
        case ".nc":
            with xr.open_dataset(target) as opened:
                return opened["features"].values
        case ".zarr":
            with xr.open_zarr(target, consolidated=False) as opened:
                return opened["features"].values
        case _:
            with np.load(target, allow_pickle=False) as opened:
                return opened["features"]


@pytest.mark.parametrize("suffix", ["npy", "zarr", "png"])
def test_synthesis_is_written_in_every_format(
    place: Path, tmp_path: Path, suffix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / f"drawn.{suffix}"
    artifact = "gaussian/flow@latest"
    store = f"--store={place / 'store'}"
    assert "3x32x32" in told(capsys, "synthesize", artifact, "-n", "3", "--to", str(target), store)
    if suffix == "png":
        assert target.read_bytes().startswith(b"\x89PNG")
        return
    drawn = np.load(target) if suffix == "npy" else zarr.open_array(target)[:]
    assert drawn.shape == (3, 32, 32)
    again = tmp_path / "again.npy"
    told(capsys, "synthesize", artifact, "-n", "3", "--to", str(again), store)
    np.testing.assert_array_equal(np.load(again), drawn)


def test_json_is_what_programs_read(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = f"--store={place / 'store'}"
    listing = json.loads(told(capsys, "ls", "--json", store))
    assert set(listing) == {"datasets", "views", "artifacts"}
    assert [entry["name"] for entry in listing["datasets"]] == ["flow"]
    assert {entry["name"] for entry in listing["views"]} == {"scattering", "spectrum"}
    assert {"kind": "scattering", "parameters": {"J": 2, "L": 4}}.items() <= listing["views"][
        0
    ].items()
    (artifact,) = listing["artifacts"]
    assert artifact["kind"] == "gaussian"
    shown = json.loads(told(capsys, "show", artifact["key"][:10], "--json", store))
    assert shown["key"] == artifact["key"]
    rows = json.loads(told(capsys, "query", "flow", "--view", "spectrum", "--json", store))
    assert (rows["samples"], len(rows["rows"])) == (6, 6)
    fitted = json.loads(told(capsys, "fit", "gaussian", "flow", "--json", store))
    assert (fitted["key"], fitted["written"]) == (artifact["key"], False)


def test_show_tells_of_datasets_views_artifacts_and_parts(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url = str(place / "store")
    part = open_store(url).dataset("flow").version.parts[0].key
    for key, said in {
        "flow": "samples_live: 6",
        "flow/scattering": "view: scattering",
        "gaussian/flow@latest": "kind: gaussian",
        part[:12]: f"key: {part}",
    }.items():
        assert said in told(capsys, "show", key, "--store", url)


def test_verify_names_what_to_recompute_and_repair_lets_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = f"--store={tmp_path / 'store'}"
    ingest = ["ingest", "turbulence", "simulate:n=3,N=16,t=0.1,k0=3", "--name", "flow", store]
    told(capsys, *ingest, "--cluster", "threads")
    assert "every object is as it was written" in told(capsys, "verify", store)
    shard = next(path for path in (tmp_path / "store" / "parts").rglob("c/*/*/*") if path.is_file())
    damaged = bytearray(shard.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    shard.write_bytes(damaged)
    assert run(["verify", store]) == 1
    assert "flow" in capsys.readouterr().out
    assert "removed versions" not in told(capsys, "verify", "--repair", store)
    assert "1 parts written" in told(capsys, *ingest, "--cluster", "threads")
    table = next((tmp_path / "store" / "tables").iterdir())
    table.write_bytes(b"garbage")
    assert run(["verify", store]) == 1
    assert f"{table.name}: differs from what was written" in (said := capsys.readouterr().out)
    assert "; --repair removes versions 1 of flow" in said
    assert "; removed versions 1 of flow" in told(capsys, "verify", "--repair", store)
    told(capsys, *ingest, "--cluster", "threads")
    assert "every object is as it was written" in told(capsys, "verify", store)


def test_gc_prints_before_it_removes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = f"--store={tmp_path / 'store'}"
    for n in (2, 3):
        source = f"simulate:n={n},N=16,t=0.1,k0=3"
        told(capsys, "ingest", "turbulence", source, "--name", "flow", store, "--cluster=threads")
    collect = ["gc", "--keep-versions", "1", "--grace", "0", store]
    assert "next: the same with --yes" in told(capsys, *collect)
    assert "objects" in told(capsys, *collect, "--yes")
    assert [v.version for v in open_store(str(tmp_path / "store")).versions("flow")] == [2]
    assert told(capsys, *collect).startswith("0 objects")


def test_labels_of_ones_own_table_are_joined_by_id_or_file(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Samples that the table does not name keep their values; a repetition makes no version."""
    url = str(tmp_path / "store")
    shutil.copytree(place / "store", url)
    table, store = tmp_path / "labels.csv", f"--store={url}"
    table.write_text("sample_id;regime;re;left\nm1;calm;10;True\nm4;wild;;\nm9;wild;3;\n")
    for _ in range(2):
        said = told(capsys, "label", "flow", str(table), store)
        assert "flow version 2: 2 of 3 rows match 2 of 6 samples\n  columns: regime, re" in said
    pd.DataFrame({"file": ["m0.npy", "m4.npy"], "re": [7, 8]}).to_parquet(tmp_path / "re.parquet")
    said = told(capsys, "label", "flow", str(tmp_path / "re.parquet"), "--on", "file", store)
    assert "version 3: 2 of 2 rows match 2 of 6 samples" in said
    rows = open_store(url).dataset("flow").samples("re IS NOT NULL")
    assert rows[["sample_id", "re"]].values.tolist() == [["m0", 7], ["m1", 10], ["m4", 8]]
    shown = told(capsys, "show", "flow", "--columns", store)
    for line in (
        r"regime +text +2 known, 4 missing, 2 different: calm, wild",
        r"re +whole +3 known, 3 missing: min=7 mean=8.333 max=10",
        r"left +boolean +1 known, 5 missing, 1 different: True",
    ):
        assert re.search(f"^{line}$", shown, re.MULTILINE)
    preview = told(capsys, "query", "flow", "--view", "spectrum", store)
    assert preview.split("\n")[1].split()[:4] == ["sample_id", "regime", "re", "left"]
    table.write_text("sample_id;re\nm0;\nm1;\nm4;\n")
    told(capsys, "label", "flow", str(table), store)
    shown = told(capsys, "show", "flow", "--columns", store)
    assert re.search("^re +whole +0 known, 6 missing$", shown, re.MULTILINE)  # and no range


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("id,re\nx9,1\n", "such as 'x9', is the id or the file of one of 6 samples, such as 'm0'"),
        ("id,y\nm1,1\n", "rename them, as y_label"),
        ("id,source\nm1,1\n", "state provenance"),
        ("id,re\nm1,1\nm1,2\n", "'m1' has two rows"),
        ("id\nm1\n", "has the columns id: one of ids or of files (--on)"),
    ],
)
def test_tables_that_give_no_labels_are_refused(
    place: Path, tmp_path: Path, text: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "t.csv").write_text(text)
    table, store = str(tmp_path / "t.csv"), f"--store={place / 'store'}"
    assert said in told(capsys, "label", "flow", table, store, status=1)


def test_remove_prints_before_it_removes(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url = str(tmp_path / "store")
    shutil.copytree(place / "store", url)
    store = f"--store={url}"
    said = told(capsys, "remove", "flow", store)
    assert "view      flow/spectrum, records: 1\ndataset   flow, records: " in said
    assert re.search(r"stays     gaussian/\w{12}, which rests on it", said)
    assert "next: the same with --yes" in said
    assert open_store(url).views("flow") == ["scattering", "spectrum"]
    told(capsys, "remove", "flow/spectrum", "--yes", store)
    assert "flow/spectrum" not in told(capsys, "ls", store)
    told(capsys, "remove", "gaussian/flow@latest", "--yes", store)
    assert "attempt that did not win" in told(capsys, "gc", "--grace", "0", "--yes", store)
    told(capsys, "remove", "flow", "--yes", store)
    assert told(capsys, "ls", "-q", store) == f"{url} is empty\n"
    assert "every object is as it was written" in told(capsys, "verify", store)


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["label", "flow", "/no/such.csv"], 1, "/no/such.csv does not exist"),
        (["label", "flow", __file__], 1, "is neither .csv with headings nor .parquet"),
        (["remove", "nothing"], 1, "neither a dataset nor a view is named 'nothing'"),
        (["query", "nothing"], 1, "error: no dataset 'nothing' in"),
        (["query", "flow", "--view", "missing"], 1, "views: scattering, spectrum"),
        (["query", "flow", "--where", "no_such = 1"], 1, "no_such"),
        (["query", "flow", "--view", "spectrum", "--coefficients", "order = "], 1, "error:"),
        (["query", "flow", "--where", "read_text('/etc/passwd') = ''"], 1, "error:"),
        (["query", "flow", "--view", "spectrum", "--to", "x.xlsx"], 1, ".parquet"),
        (["features", "flow", "--view", "fourier"], 1, "choose one of spectrum, scattering"),
        (
            ["features", "flow", "--view", "scattering", "--as", "deep", "--set", "J=9"],
            1,
            "J=5 or less",
        ),
        (["features", "flow", "--view", "scattering", "--set", "Q=1"], 1, "no parameter 'Q'"),
        (["features", "flow", "--view", "scattering", "--set", "J=3"], 1, "--as"),
        (
            ["features", "flow", "--view", "spectrum", "--as", "s", "--cluster", "moon"],
            1,
            "cluster 'moon'",
        ),
        (["fit", "oracle", "flow"], 1, "choose one of gaussian, phase-harmonics, energy"),
        (["fit", "gaussian", "flow", "--where", "sample_id = 'x'"], 1, "no sample of 'flow'"),
        (["synthesize", "gaussian/none@latest", "--to", "x.npy"], 1, "error:"),
        (["synthesize", "gaussian/flow@latest", "--to", "x.jpg"], 2, ".npy .zarr .png"),
        (["ingest", "turbulence", "/no/such/file.npy", "--name", "x"], 1, "/no/such/file.npy"),
        (["ingest", "turbulence", "simulate:q=1", "--name", "x"], 1, "no parameter 'q'"),
        (["ingest", "turbulence", ".", "--name", "x", "--part-size", "big"], 2, "128MiB"),
        (["show", "nothing"], 1, "wavemill ls"),
        (["show", ""], 1, "4 characters"),
        (["show", "0"], 1, "4 characters"),
        (["query", "flow", "--coefficients", "order = 1"], 2, "--view"),
        (["query", "flow", "--as-of", "²"], 1, "neither a version number nor a time"),
        (["fit", "gaussian", "flow", "--view", "spectrum"], 2, "gaussian takes none"),
        (["fit", "gaussian", "flow", "--target", "label"], 2, "gaussian takes none"),
        (["fit", "gaussian", "flow", "--seed", "-1"], 2, "--seed"),
        (["fit", "gaussian", "flow", "--device", "gpu"], 2, "'cpu', 'cuda'"),
        (["fit", "gaussian", "flow", "--split", "a=b"], 1, "--split 'a=b': no column 'a'"),
        (
            ["features", "flow", "--view=scattering", "--as=x", "--set=dtype=float16"],
            1,
            "one of float32, float64",
        ),
        (["features", "flow", "--view=scattering", "--as=x", "--set=J=1000000"], 1, "1 to 63"),
        (["features", "flow", "--view=scattering", "--as=x", f"--set=J={2**70}"], 1, "valid int"),
        (["up", "--every", "soon"], 1, "write 45s, 15m, 2h or 1d"),
        (["up", "--every", "0s"], 1, "--every 0s: runs need a second"),
        (["up", "--port", "99999999"], 2, "--port"),
        (["gc", "--grace", "-5"], 1, "--grace '-5' is not a duration"),
        (["verify", "flaw"], 1, "'flaw' is not a dataset"),
        (["frobnicate"], 2, "No such command"),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else "",
)
def test_errors_are_one_line_with_the_way_out(
    place: Path,
    arguments: list[str],
    status: int,
    said: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    place_of = [] if arguments == ["frobnicate"] else ["--store", str(place / "store")]
    message = told(capsys, *arguments, *place_of, status=status)
    assert said in " ".join(message.replace("│", " ").split())
    assert "Traceback" not in message
    if status == 1:
        assert message.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["features", "nothing", "--view", "spectrum"], "no dataset 'nothing' in"),
        (["fit", "gaussian", "nothing"], "no dataset 'nothing' in"),
        (["evaluate", "gaussian/flow@latest", "nothing"], "no dataset 'nothing' in"),
        (["compare", "nothing", "--models", "gaussian"], "no dataset 'nothing' in"),
        (["ingest", "turbulence", ".", "--name", "../flow"], "'../flow' is not a name"),
        (["ingest", "images", "/no/such/folder", "--name", "x"], "does not exist (looked at"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_what_is_not_there_is_refused_before_a_server_starts(
    place: Path,
    arguments: list[str],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("flows.server.prefect_server", None)  # it must not be called
    message = told(capsys, *arguments, "--store", str(place / "store"), status=1)
    assert said in message
    assert message.startswith("error: ")
    assert message.count("\n") == 1


@pytest.mark.parametrize(
    "address",
    [
        "http://alice:hunter2@127.0.0.1:9/a.npy",
        "s3://key:hunter2@bucket/x",
        "https://host/a.npy?X-Amz-Expires=60&X-Amz-Signature=hunter2",
        "https://host/a.npy?sv=2&sig=hunter2",
    ],
)
@pytest.mark.parametrize(
    "command",
    [
        "ls --store",
        "ingest turbulence --name x",
        "ingest molecules . --name x --table",
        "up --store",
    ],
)
def test_an_address_that_holds_a_secret_is_refused_and_not_repeated(
    address: str, command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("flows.server.prefect_server", None)  # it would keep the secret
    message = told(capsys, *command.split(), address, status=1)
    assert "would be kept in the store, by Prefect and in messages" in message
    assert "hunter2" not in message


def test_a_relative_store_is_made_absolute(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    assert run(["ls", "--store", "store", "-q"]) == 0
    monkeypatch.setenv("WAVEMILL_STORE", "store")
    assert run(["ls", "-q"]) == 0


@pytest.mark.parametrize("command", ["ls", "verify", "gc", "query", "show"])
def test_a_store_that_is_not_there_is_no_empty_one(
    tmp_path: Path, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    named = [command, "flow"] if command in ("query", "show") else [command]
    (tmp_path / "store" / "datasets").mkdir(parents=True)
    for url in (str(tmp_path / "mistyped"), __file__, str(tmp_path)):
        assert "there is no store at" in told(capsys, *named, "--store", url, status=1)
    assert [path.name for path in tmp_path.iterdir()] == ["store"]


@pytest.mark.parametrize(
    ("url", "endpoint", "said"),
    [("s3://", "", "write s3://bucket/prefix"), ("s3://b/p", "host:9", "check AWS_ENDPOINT_URL")],
)
def test_addresses_that_are_none_are_named(
    url: str,
    endpoint: str,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    s3fs.S3FileSystem.clear_instance_cache()  # connections of other tests
    message = told(capsys, "ls", "--store", url, status=1)
    assert message.startswith(f"error: {url}")
    assert said in message


@pytest.mark.parametrize(
    "command",
    [
        *(["query", "flow"], ["synthesize", "a"], ["predict", "a", "b"], ["generate", "a"]),
        *(["evaluate", "a", "flow"], ["compare", "flow", "--models", "gaussian"], ["demo"]),
    ],
    ids=lambda command: command[0],
)
def test_a_url_is_no_file_to_write(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    message = told(capsys, *command, "--to", "s3://bucket/out.csv", status=2)
    assert "not a path on this machine" in " ".join(message.replace("│", " ").split())


def test_a_prefect_server_that_does_not_answer_is_named(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nobody = {PREFECT_API_URL: "http://127.0.0.1:9/api", PREFECT_CLIENT_MAX_RETRIES: 0}
    with temporary_settings(nobody):
        features = ["features", "flow", "--view=spectrum", f"--store={place / 'store'}"]
        message = told(capsys, *features, status=1)
    assert "Prefect's server at http://127.0.0.1:9/api does not answer: start it" in message
    assert message.count("\n") == 1


@pytest.mark.slow
@pytest.mark.parametrize("url", [None, "http://127.0.0.1:9/api"])
@pytest.mark.parametrize(
    "error",
    ["RuntimeError('Failed to reach API at x')", "httpx.ConnectError('Connection refused')"],
)
def test_a_prefect_server_that_goes_away_is_told_from_one_that_the_command_started(
    url: str | None, error: str, prefect_home: Path
) -> None:
    """The first is started again by who runs it; the second had a reason, such as a full disk."""
    program = f"import httpx, flows.server\nwith flows.server.prefect_server(): raise {error}"
    kept = {key: value for key, value in os.environ.items() if not key.startswith("PREFECT")}
    given = {} if url is None else {"PREFECT_API_URL": url}
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**kept, **given, "PREFECT_HOME": str(prefect_home)},
        capture_output=True,
        text=True,
        check=False,
    )
    message = done.stderr.splitlines()[-1]
    assert ("start it (`wavemill up`)" in message) is (url is not None)
    assert (f"the disk of {prefect_home} is full" in message) is (url is None)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file", "settings"),
    [
        ("home/profiles.toml", 'active = "mine"\n[profiles.mine]\nPREFECT_API_URL = "{}"\n'),
        ("prefect.toml", '[api]\nurl = "{}"\n'),
    ],
    ids=["profile", "folder"],
)
def test_a_server_that_prefect_was_told_of_is_asked_wherever_it_was_told(
    place: Path, file: str, settings: str, tmp_path: Path
) -> None:
    """Even if the command has started one of its own before the settings are read."""
    (tmp_path / "home").mkdir()
    (tmp_path / file).write_text(settings.format("http://127.0.0.1:9/api"))
    kept = {key: value for key, value in os.environ.items() if not key.startswith("PREFECT")}
    features = ["features", "flow", "--view=spectrum", f"--store={place / 'store'}"]
    done = subprocess.run(
        [sys.executable, "-m", "flows.cli", *features],
        cwd=tmp_path,
        env={**kept, "PREFECT_HOME": str(tmp_path / "home"), "PREFECT_CLIENT_MAX_RETRIES": "0"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "server at http://127.0.0.1:9/api does not answer" in done.stderr


@pytest.mark.slow
def test_packages_of_the_present_folder_do_not_stand_for_ours(
    place: Path, prefect_home: Path, tmp_path: Path
) -> None:
    """As those of a project with `flows`, `tasks` or `storage` of its own."""
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "__init__.py").touch()
    (tmp_path / "storage.py").touch()
    command = "from flows.cli import main; main()"
    kept = {key: value for key, value in os.environ.items() if not key.startswith("PREFECT")}
    features = ["features", "flow", "--view=spectrum", f"--store={place / 'store'}"]
    done = subprocess.run(
        [sys.executable, "-P", "-c", command, *features],  # -P: as what is installed begins
        cwd=tmp_path,
        env={**kept, "PREFECT_HOME": str(prefect_home)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (lambda home: home.write_text("a file"), "cannot be written (Not a directory)"),
        (lambda home: (home.mkdir(), (home / "prefect.db").write_bytes(b"garbage" * 99)),
         "has a prefect.db that cannot be opened (file is not a database)"),
        (lambda home: None, ""),
    ],
    ids=["no-folder", "no-database", "new"],
)  # fmt: skip
def test_prefect_is_given_a_home_that_it_can_use(
    tmp_path: Path,
    harm: Callable[[Path], object],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    harm(home := tmp_path / "home")
    if said.startswith("cannot"):
        home /= "prefect"
    monkeypatch.setenv("PREFECT_HOME", str(home))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    choose_prefect_home()
    message = capsys.readouterr().err
    assert message.count("\n") == bool(said)
    assert said in message
    assert (os.environ["PREFECT_HOME"] == str(home)) is not bool(said)
    assert Path(os.environ["PREFECT_HOME"]).is_dir()


def test_a_disk_without_room_for_prefects_database_is_no_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file may be made there, but not filled; the server would end as it starts."""
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, limits[1]))
    try:
        choose_prefect_home()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (
        "home cannot be written (File too large): this run is noted in" in capsys.readouterr().err
    )
    assert os.environ["PREFECT_HOME"] != str(tmp_path / "home")


@pytest.mark.parametrize(
    ("harm", "kept"),
    [
        (lambda folder: None, True),
        (lambda folder: folder.chmod(0o755), False),  # others may have put something there
        (lambda folder: (folder.rename(folder.parent / "x"), folder.symlink_to("x")), False),
        (lambda folder: (folder / "prefect.db").write_bytes(b"garbage" * 99), False),
    ],
)
def test_a_temporary_home_is_taken_again_if_it_is_ones_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, harm: Callable[[Path], object], kept: bool
) -> None:
    (tmp_path / "home").write_text("a file")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    taken = []
    for _ in range(2):
        monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "home"))
        choose_prefect_home()
        taken.append(Path(os.environ["PREFECT_HOME"]))
        if len(taken) == 1:
            harm(taken[0])
    assert (taken[0] == taken[1]) is kept
    assert taken[1].stat().st_mode & 0o777 == 0o700


def test_json_has_no_numbers_that_are_not_finite(capsys: pytest.CaptureFixture[str]) -> None:
    tell({"x": [float("nan"), 1.5], "y": float("-inf")}, [], as_json=True, quiet=False)
    assert json.loads(capsys.readouterr().out) == {"x": [None, 1.5], "y": None}


@pytest.mark.parametrize("text", [b"# \xe9\n", b"J = %d\n" % 2**70, b"a = [{b = -%d}]\n" % 2**70])
def test_files_that_no_run_could_take_are_refused(
    tmp_path: Path, text: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "view.toml").write_bytes(text)
    features = ["features", "flow", "--view=scattering", f"--config={tmp_path / 'view.toml'}"]
    assert "--config" in told(capsys, *features, status=2)


def test_settings_come_from_a_file_and_from_the_line(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "view.toml"
    config.write_bytes(b"\xef\xbb\xbfJ = 3\r\nL = 2\r\n")  # as editors of Windows save it
    features = ["features", "flow", f"--store={place / 'store'}", "--cluster=threads", "--json"]
    made = json.loads(
        told(
            capsys, *features, "--view=scattering", "--as=small", f"--config={config}", "--set=J=1"
        )
    )
    assert made["spec"]["parameters"] == {"J": 1, "L": 2}


def test_a_command_with_closed_outputs_ends_as_with_open_ones(place: Path) -> None:
    command = [sys.executable, "-m", "flows.cli", "ls", f"--store={place / 'store'}"]
    for closed in (">&-", ">&- 2>&-"):
        done = subprocess.run(
            ["/bin/sh", "-c", f'"$@" {closed}', "sh", *command], capture_output=True, check=False
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


@pytest.mark.slow
def test_what_runs_log_is_in_the_ui_and_not_in_the_terminal(
    tmp_path: Path, prefect_home: Path
) -> None:
    command = [sys.executable, "-m", "flows.cli", "ingest", "turbulence", "simulate:n=2,N=16,k0=3"]
    kept = {key: value for key, value in os.environ.items() if not key.startswith("PREFECT")}
    done = subprocess.run(
        [*command, "--name", "logged", "--store", str(tmp_path / "store"), "--cluster", "threads"],
        env={**kept, "PREFECT_HOME": str(prefect_home)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    with contextlib.closing(sqlite3.connect(prefect_home / "prefect.db")) as database:
        logged = {message for (message,) in database.execute("SELECT message FROM log")}
    assert "ingest parts: 1 of 1 " in logged
    assert "dataset logged: 2 samples in version 1, 2 new" in logged


@pytest.mark.slow
def test_a_run_that_is_refused_is_a_line_and_no_more(place: Path) -> None:
    """Prefect still has events to send then, and would say so."""
    command = ["features", "flow", "--view=scaterring", f"--store={place / 'store'}"]
    done = subprocess.run(
        [sys.executable, "-m", "flows.cli", *command], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: no view 'scaterring': choose one of ")
    assert done.stderr.count("\n") == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "whole"),
    [
        *((signal.SIGINT, True), (signal.SIGTERM, True)),
        *((signal.SIGTERM, False), (signal.SIGHUP, True), (signal.SIGKILL, False)),
    ],
    ids=["ctrl-c", "terminated", "terminated-alone", "hung-up", "killed"],
)
def test_a_stopped_command_leaves_no_lease_and_no_process(
    tmp_path: Path, number: int, whole: bool
) -> None:
    """While workers simulate: exit 130, and the collector may run at once.

    A run that is killed leaves its lease, which expires; its server and workers end, too.
    """
    store = tmp_path / "store"
    command = [sys.executable, "-m", "flows.cli", "ingest", "turbulence", "simulate:n=64,N=64"]
    command += ["--part-size", "64KiB"]  # of 4 fields each: the first comes soon
    process = subprocess.Popen(
        [*command, "--name", "flow", "--store", str(store), "--cluster", "local:1"],
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=listen_to_interrupts,
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + 240
        while not list(store.glob("parts/*/*/*")) and time.monotonic() < deadline:
            assert process.poll() is None, process.communicate()[1]
            time.sleep(0.1)
        family = psutil.Process(process.pid).children(recursive=True)
        if whole:  # as terminals do, and some service managers
            os.killpg(process.pid, number)
        else:
            process.send_signal(number)
        _, errors = process.communicate(timeout=60)
    finally:
        process.terminate()
    assert len(family) > 1
    assert psutil.wait_procs(family, timeout=10)[1] == []
    if number == signal.SIGKILL:
        assert process.returncode == -number
        return
    assert process.returncode == 130
    assert "stopped" in errors.splitlines()
    assert list(store.glob("leases/*")) == []
