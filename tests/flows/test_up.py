"""The whole service: it starts, a schedule fires, the run shows in the UI, and it stops."""

from __future__ import annotations

import importlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from prefect import Flow
from prefect.settings import get_current_settings
from prefect.utilities.callables import parameter_schema

import flows
from flows import turbulence
from flows.durations import seconds
from flows.runtime import open_cluster
from flows.up import Service, alone, deployments_file, environment_of, free_port, scheduled, url_of
from storage import InvalidRequest, open_store
from tasks.fields import FieldOptions
from tests.flows.conftest import listen_to_interrupts, write_snapshots

PATIENCE = 150


@pytest.fixture(scope="module")
def service(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[str, Path, subprocess.Popen]]:
    """A `wavemill up` that looks at a folder every 15 s: its API, its folder, its process."""
    folder = tmp_path_factory.mktemp("up")
    (folder / "snapshots").mkdir()
    (folder / "tasks").mkdir()
    (folder / "tasks" / "__init__.py").touch()  # as in a project with a package named like ours
    write_snapshots(folder / "snapshots", ["a", "b", "c"], side=32)
    environment = {key: value for key, value in os.environ.items() if "PREFECT" not in key}
    environment |= {"PREFECT_HOME": str(folder / "prefect"), "HOME": str(folder)}
    environment["TMPDIR"] = str(folder / "tmp")
    (folder / "tmp").mkdir()
    (folder / "tmp" / "runner_storage").touch()  # as if another user's: a worker cannot use it
    wavemill = [sys.executable, "-P", "-c", "from flows.cli import main; main()"]  # as installed
    command = [*wavemill, "up", "--watch", "snapshots", "--every", "15s"]
    log = (folder / "log").open("wb")
    process = subprocess.Popen(
        [*command, "--cluster", "local:1", "--port", "4400"],
        cwd=folder,
        env=environment,
        stdout=log,
        stderr=log,
        preexec_fn=listen_to_interrupts,
        start_new_session=True,
    )
    try:
        yield address(process, folder / "log"), folder, process
    finally:
        process.terminate()
        process.wait(60)
        log.close()


def address(process: subprocess.Popen, log: Path) -> str:
    """Wait until the UI's address is printed."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline and process.poll() is None:
        if found := re.search(r"Prefect UI: (http://\S+)\n(.*\n)*Ctrl-C", log.read_text()):
            return found[1]
        time.sleep(0.2)
    raise AssertionError(f"no address within {PATIENCE} s: {log.read_text()}")


def ask(url: str, path: str, **body: Any) -> list[dict[str, Any]]:
    request = urllib.request.Request(
        f"{url}/api/{path}", json.dumps(body).encode(), {"content-type": "application/json"}
    )
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)


@pytest.fixture(scope="module")
def run(service: tuple[str, Path, subprocess.Popen]) -> dict[str, Any]:
    """The first run that the schedule started, when it has ended."""
    url, folder, _ = service
    deadline = time.monotonic() + PATIENCE
    ended = {"state": {"type": {"any_": ["COMPLETED", "FAILED", "CRASHED"]}}}
    nightly = {"name": {"any_": ["nightly"]}}
    while time.monotonic() < deadline:
        if found := ask(url, "flow_runs/filter", flow_runs=ended, deployments=nightly):
            return found[0]
        time.sleep(0.5)
    raise AssertionError(f"no run ended within {PATIENCE} s: {(folder / 'log').read_text()}")


@pytest.mark.slow
def test_an_interval_schedule_fires_and_completes(
    service: tuple[str, Path, subprocess.Popen], run: dict[str, Any]
) -> None:
    url, folder, _ = service
    assert (run["state_name"], run["auto_scheduled"]) == ("Completed", True)
    store = open_store(str(folder / "wavemill-store"))
    assert store.dataset("snapshots").version.count == 3
    assert store.views("snapshots") == ["scattering", "spectrum"]
    keys = {artifact["key"] for artifact in ask(url, "artifacts/latest/filter", limit=200)}
    assert {
        "dataset-snapshots",
        "samples-snapshots",
        "view-snapshots-scattering",
        "features-snapshots-spectrum",
        "lineage-gaussian-snapshots",
        "synthesis-gaussian-snapshots",
        "dask-dashboard",
    } <= keys


@pytest.mark.slow
def test_what_workers_log_is_in_the_run(
    service: tuple[str, Path, subprocess.Popen], run: dict[str, Any]
) -> None:
    del run
    messages = [entry["message"] for entry in ask(service[0], "logs/filter", limit=200)]
    assert any(re.fullmatch(r"[a-z-]+ part \w{12} in \S+ s", text) for text in messages), messages
    assert any(text.startswith("dataset snapshots: 3 samples") for text in messages)


@pytest.mark.slow
def test_every_flow_is_deployed_with_a_schedule_and_a_limit(
    service: tuple[str, Path, subprocess.Popen], run: dict[str, Any]
) -> None:
    del run
    made = {entry["name"]: entry for entry in ask(service[0], "deployments/filter")}
    flows = {entry["entrypoint"].split(".")[1] for entry in made.values()}
    assert flows == {
        *("turbulence", "ingest", "features", "fit", "evaluate", "compare_models"),
        *("molecules", "images", "generation", "demo"),
    }
    for entry in made.values():
        assert entry["global_concurrency_limit"]["limit"] == 1
        assert entry["schedules"][0]["schedule"]["timezone"] == "UTC"
    assert [n for n, entry in made.items() if entry["schedules"][0]["active"]] == ["nightly"]


@pytest.mark.slow
def test_the_page_of_a_run_renders(
    service: tuple[str, Path, subprocess.Popen], run: dict[str, Any], tmp_path: Path
) -> None:
    browser = next(
        filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
    )
    if browser is None:
        pytest.skip("no Chromium is installed: the page cannot be rendered")
    page = f"{service[0]}/runs/flow-run/{run['id']}"
    options = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}"]
    done = subprocess.run(
        [browser, *options, "--virtual-time-budget=20000", "--dump-dom", page],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert run["name"] in done.stdout
    assert "Completed" in done.stdout
    assert "nightly" in done.stdout


@pytest.mark.slow
def test_it_listens_on_loopback_only_and_stops_cleanly(
    service: tuple[str, Path, subprocess.Popen], run: dict[str, Any]
) -> None:
    del run
    _, folder, process = service
    family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    sockets = [c for member in family for c in member.net_connections("inet")]
    listening = {c.laddr.ip for c in sockets if c.status == psutil.CONN_LISTEN}
    assert listening == {"127.0.0.1"}
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    assert process.wait(90) == 130
    assert psutil.wait_procs(family, timeout=10)[1] == []
    assert (folder / "log").read_text().endswith("stopped\n")
    assert [e.path for e in open_store(str(folder / "wavemill-store")).backend.walk("leases")] == []


def test_the_nightly_run_waits_for_a_folder() -> None:
    description = yaml.safe_load(deployments_file().read_text())
    service = Service("store", dataset="mine")
    assert not nightly(scheduled(description, service))["schedules"][0]["active"]
    watching = replace(service, watch="folder", every="15m")
    made = nightly(scheduled(description, watching))
    assert made["schedules"] == [{"interval": 900, "timezone": "UTC", "active": True}]
    assert made["parameters"]["dataset"] == "mine"


def test_flows_compute_on_the_device_of_the_service() -> None:
    description = yaml.safe_load(deployments_file().read_text())
    for device in ("cpu", "cuda"):
        made = scheduled(description, Service("store", device=device))["deployments"]
        for entry in made:
            module, _, name = entry["entrypoint"].rpartition(".")
            flow = getattr(importlib.import_module(module), name)
            asked = {"device": device} if "device" in flow.parameters.properties else {}
            assert {k: v for k, v in entry["parameters"].items() if k == "device"} == asked


def test_what_is_deployed_can_be_called_from_python() -> None:
    """``from flows import demo`` had given the module."""
    for entry in yaml.safe_load(deployments_file().read_text())["deployments"]:
        module, _, name = entry["entrypoint"].rpartition(".")
        flow = getattr(importlib.import_module(module), name)
        assert getattr(flows, name) is flow


def test_the_deployed_demo_is_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Its folder is not that of the run, which Prefect removes."""
    entries = yaml.safe_load(deployments_file().read_text())["deployments"]
    folder = next(e["parameters"]["folder"] for e in entries if e["name"] == "demo")
    stores: list[str] = []

    def ingest_and_fit(dataset: str, sources: list[str], store: str, *_: Any, **__: Any) -> None:
        stores.append(store)
        raise InterruptedError

    monkeypatch.setenv("HOME", str(tmp_path))
    module = importlib.import_module("flows.demo")
    monkeypatch.setattr(module, "turbulence", ingest_and_fit)
    with pytest.raises(InterruptedError):
        module.demo.fn(folder)
    assert stores == [str(tmp_path / "wavemill-demo" / "store")]


def test_clients_know_the_password_of_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else deploying and the worker would be refused, and nothing would come up."""
    monkeypatch.setenv("PREFECT_SERVER_API_AUTH_STRING", "user:word")
    assert (
        environment_of(Service("store"), 4200, "inproc://")["PREFECT_API_AUTH_STRING"]
        == "user:word"
    )
    monkeypatch.delenv("PREFECT_SERVER_API_AUTH_STRING")
    monkeypatch.setenv("PREFECT_API_AUTH_STRING", "as:before")
    assert (
        environment_of(Service("store"), 4200, "inproc://")["PREFECT_API_AUTH_STRING"]
        == "as:before"
    )


def test_runs_of_an_earlier_service_compute_on_the_cluster_of_this_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Those that wait, or are tried again, keep their parameters: an address there has gone."""
    elsewhere = environment_of(Service("store", cluster="tls://host:1"), 4200, "tls://host:1")
    assert not [name for name in elsewhere if name.startswith("DASK_DISTRIBUTED__COMM__TLS")]
    made = environment_of(Service("store", cluster="local:1"), 4200, "tls://127.0.0.1:1")
    assert made["WAVEMILL_CLUSTER"] == "local:1"
    monkeypatch.setattr(os, "environ", {**os.environ, **made})
    with open_cluster("local:1") as address:
        assert address == "tls://127.0.0.1:1"
    with open_cluster("tcp://127.0.0.1:2") as address:
        assert address == "tcp://127.0.0.1:2"


def test_the_place_of_a_run_that_died_with_its_server_is_free_again() -> None:
    """Leases of places outlive the server: else a schedule would wait for one for ever."""
    name = environment_of(Service("store"), 4200, "inproc://")[
        "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE"
    ]
    kept = importlib.import_module(name).ConcurrencyLeaseStorage()
    assert kept.storage_path.is_relative_to(get_current_settings().home)


def test_what_containers_know_outlives_them() -> None:
    """Their server's leases lie on a volume, as its database does; their worker hears of a stop."""
    compose = yaml.safe_load(deployments_file().with_name("compose.yaml").read_text())
    server, worker = compose["services"]["server"], compose["services"]["worker"]
    volume, _, folder = server["volumes"][0].partition(":")
    assert server["environment"]["PREFECT_HOME"] == folder
    assert volume in compose["volumes"]
    assert "&& exec prefect worker start" in worker["command"]  # else a shell has the signal


def test_the_image_has_what_the_chart_of_prefect_starts() -> None:
    """Its container begins with `/usr/bin/tini -g -- /opt/prefect/entrypoint.sh prefect ...`."""
    lines = deployments_file().with_name("Dockerfile").read_text().splitlines()
    assert any("apt-get install" in line and "tini" in line.split() for line in lines)
    assert any("chmod 755 /opt/prefect/entrypoint.sh" in line for line in lines)
    assert any("useradd --uid 1001" in line for line in lines)


def test_only_flows_of_snapshots_are_of_the_watched_dataset() -> None:
    description = yaml.safe_load(deployments_file().read_text())
    made = scheduled(description, Service("store", dataset="mine"))["deployments"]
    named = {e["name"]: e["parameters"] for e in made}
    datasets = {name: given.get("dataset") for name, given in named.items()}
    assert datasets == {
        **dict.fromkeys(datasets, "mine"),
        **{"molecules": "qm9", "images": "pictures", "generators": "pictures", "demo": None},
    }
    assert named["judge"]["artifact"] == "phase-harmonics/mine@latest"


def test_a_watched_folder_is_read_as_asked() -> None:
    description = yaml.safe_load(deployments_file().read_text())
    options = {"variable": ["sst"], "slice": "time:all", "periodic": False}
    made = scheduled(description, Service("store", watch="folder", options=options))["deployments"]
    given = {e["name"]: e["parameters"] for e in made if e["parameters"].get("options") == options}
    assert set(given) == {"nightly", "hourly"}
    parameters = turbulence.validate_parameters(yaml.safe_load(yaml.safe_dump(given["nightly"])))
    assert parameters["options"] == FieldOptions(
        variable=("sst",), slice="time:all", periodic=False
    )


@pytest.mark.parametrize("flow", [getattr(flows, name) for name in flows.__all__])
def test_every_parameter_is_described_in_a_line(flow: Flow[..., Any]) -> None:
    schema = parameter_schema(flow).model_dump()  # of which the UI makes a form
    for form in (schema, *schema["definitions"].values()):
        assert "Attributes" not in form.get("description", "")
        for name, field in form["properties"].items():
            assert field.get("description"), name


def nightly(description: dict[str, Any]) -> dict[str, Any]:
    return next(entry for entry in description["deployments"] if entry["name"] == "nightly")


def test_durations_are_read_or_refused() -> None:
    texts = ("45", "45s", "15m", "2h", "1d", "0")
    assert [seconds(text, "--every", "s") for text in texts] == [45, 45, 900, 7200, 86400, 0]
    assert seconds("0.5", "--grace", "h") == 1800
    for text in ("soon", "1w", "-5m", ""):
        with pytest.raises(InvalidRequest, match=r"--grace .*15m.* counts hours"):
            seconds(text, "--grace", "h")


@pytest.mark.parametrize(
    ("host", "url"), [("127.0.0.1", "http://127.0.0.1:80"), ("::1", "http://[::1]:80")]
)
def test_a_taken_port_is_passed_over(host: str, url: str) -> None:
    assert url_of(host, 80) == url
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as taken:
        try:
            taken.bind((host, 0))
        except OSError:
            pytest.skip(f"{host} is no address here")
        taken.listen()
        port = taken.getsockname()[1]
        assert free_port(host, port) > port


@pytest.mark.parametrize("host", ["192.0.2.1", "nowhere.invalid"])
def test_an_address_of_other_machines_is_not_called_a_taken_port(host: str) -> None:
    with pytest.raises(InvalidRequest, match=f"--host {host}: cannot listen"):
        free_port(host, 4200)


def test_a_prefect_home_has_one_service(tmp_path: Path) -> None:
    with alone(tmp_path) as notes:
        print("pid 7, http://127.0.0.1:4200", file=notes, flush=True)
        with (
            pytest.raises(InvalidRequest, match=r"already serves.*\(pid 7, http.*PREFECT_HOME"),
            alone(tmp_path),
        ):
            pass
    with alone(tmp_path):
        pass


def test_what_runs_ends_with_the_pipe_that_its_starter_held() -> None:
    script = "import subprocess, sys; subprocess.run(['sleep', '600'])"
    command = [sys.executable, "-m", "flows.child", sys.executable, "-c", script]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as process:
        family: list[psutil.Process] = []
        while len(family) < 2:
            family = psutil.Process(process.pid).children(recursive=True)
            time.sleep(0.01)
        process.communicate(timeout=20)  # closes it, as the system does when a process is killed
    assert process.returncode == 0
    assert psutil.wait_procs(family, timeout=5)[1] == []


def test_what_ends_by_itself_says_how() -> None:
    command = [sys.executable, "-m", "flows.child", sys.executable, "-c", "raise SystemExit(3)"]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as process:
        assert process.wait(20) == 3


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nobody can adopt processes")
def test_what_a_killed_command_had_started_ends_with_it() -> None:
    """As a flow's run with its worker, though it is a session of its own."""
    run = "subprocess.Popen(['sleep', '600'], start_new_session=True).wait()"
    command = [
        sys.executable,
        "-m",
        "flows.child",
        sys.executable,
        "-c",
        f"import subprocess; {run}",
    ]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as process:
        family: list[psutil.Process] = []
        while len(family) < 2:
            family = psutil.Process(process.pid).children(recursive=True)
            time.sleep(0.01)
        family[0].kill()
        assert process.wait(20) == 128 + signal.SIGKILL
    assert psutil.wait_procs(family, timeout=5)[1] == []
