"""Clusters are opened by a word, on loopback; the parts that they map survive failures."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import dask
import psutil
import pytest
from distributed import Client, Security, get_worker

from flows.runtime import open_cluster, visible_devices
from flows.session import session
from storage import InvalidRequest, NoRoom
from tasks.mapping import map_parts


def square(x: int) -> int:
    """Return the square."""
    return x * x


def fail_once(folder: str) -> str:
    """Fail the first time."""
    marker = Path(folder) / "tried"
    if not marker.exists():
        marker.touch()
        raise OSError("a disk that was away for a moment")
    return "done"


def always_fail(x: int) -> int:
    """Fail for one item."""
    if x == 3:
        raise OSError("item 3 is bad")
    return x


def no_room(folder: str) -> None:
    """Fail as a store on a full disk does, leaving a mark each time."""
    Path(folder, f"{os.getpid()}-{time.monotonic_ns()}").touch()
    raise NoRoom("the disk is full")


def lose(what: str) -> None:
    """Close the worker, as one that cannot load what it is sent, or the scheduler."""
    worker = get_worker()
    if what == "worker":
        worker.loop.add_callback(worker.close, executor_wait=False)
    else:
        worker.loop.add_callback(worker.scheduler.terminate)
    time.sleep(2)


def threads() -> tuple[int, str]:
    """Return how many threads torch uses, and OMP's setting."""
    import torch

    return torch.get_num_threads(), os.environ.get("OMP_NUM_THREADS", "")


@pytest.mark.parametrize("cluster", ["threads", "local:2"])
def test_results_come_in_order_whatever_the_window(cluster: str) -> None:
    seen: list[tuple[int, int]] = []
    with open_cluster(cluster) as address:
        results = map_parts(
            square, range(50), address=address, window=3, progress=lambda *at: seen.append(at)
        )
    assert results == [x * x for x in range(50)]
    assert seen == [(done, 50) for done in range(1, 51)]


def test_a_passing_failure_is_tried_again(tmp_path: Path) -> None:
    with open_cluster("threads") as address:
        assert map_parts(fail_once, [str(tmp_path)], address=address) == ["done"]


def test_a_lasting_failure_is_raised_as_itself() -> None:
    with open_cluster("threads") as address, pytest.raises(OSError, match="item 3 is bad"):
        map_parts(always_fail, range(6), address=address, retries=1)


@pytest.mark.parametrize("cluster", ["threads", "local:1"])
def test_what_no_attempt_cures_is_tried_once(
    tmp_path: Path, cluster: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with open_cluster(cluster) as address, pytest.raises(NoRoom, match="the disk is full"):
        map_parts(no_room, [str(tmp_path)], address=address)
    assert len(list(tmp_path.iterdir())) == 1
    assert "Traceback" not in capfd.readouterr().err


def end_the_worker(x: int) -> int:
    """End the process at one item, like a library that reads where it must not."""
    if x == 2:
        os._exit(139)
    return x


@pytest.mark.timeout(120)
def test_an_item_that_ends_its_workers_ends_the_run_and_is_named() -> None:
    with (
        open_cluster("local:1") as address,
        pytest.raises(ChildProcessError, match="died, one after another, at item 2: "),
    ):
        map_parts(end_the_worker, range(6), address=address, named=lambda x: f"item {x}")


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    ("what", "said"), [("worker", "has no worker for this"), ("scheduler", "has gone or was")]
)
def test_a_cluster_that_loses_its_workers_or_its_scheduler_ends_the_run(
    what: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A scheduler keeps tasks for workers that may come, which was waited for without end."""
    monkeypatch.setattr("tasks.mapping._LOOK", 1.0)
    monkeypatch.setattr("tasks.mapping._PATIENCE", 1.0)
    with (
        dask.config.set({"distributed.comm.timeouts.connect": "2s"}),
        open_cluster("threads") as address,
        pytest.raises(ConnectionError, match=said),
    ):
        map_parts(lose, [what], address=address)


def test_workers_that_offer_no_gpu_are_not_waited_for_without_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("tasks.mapping._PATIENCE", 0.5)
    said = r"has no worker for this, .*`dask worker inproc://\S+ --resources GPU=1`"
    with open_cluster("threads") as address, pytest.raises(ConnectionError, match=said):
        map_parts(square, [3], address=address, resources={"GPU": 1})


def test_worker_processes_compute_on_one_thread_and_listen_on_loopback() -> None:
    with open_cluster("local:2") as address, Client(address, set_as_default=False) as client:
        assert set(client.run(threads).values()) == {(1, "1")}
        me = psutil.Process()
        sockets = [c for p in (me, *me.children(recursive=True)) for c in p.net_connections("inet")]
        listening = {c.laddr.ip for c in sockets if c.status == psutil.CONN_LISTEN}
        assert listening == {"127.0.0.1"}


def test_other_users_of_the_machine_are_not_let_in() -> None:
    """A scheduler runs what it is sent: whoever has another key, or none, is refused."""
    with open_cluster("local:1") as address:
        assert map_parts(square, [3], address=address) == [9]
        stranger = Security.temporary()
        stranger.tls_ca_file = dask.config.get("distributed.comm.tls.ca-file")  # it is public
        plain = Security(require_encryption=False)
        for there, key in ((address, stranger), (address.replace("tls", "tcp"), plain)):
            with pytest.raises(OSError):  # noqa: PT011 - of TLS, or of waiting for an answer
                Client(there, security=key, timeout="2s", set_as_default=False)


def test_a_running_cluster_is_used_by_its_address() -> None:
    with open_cluster("local:1") as first, open_cluster(first) as second:
        assert second == first
        assert map_parts(square, [3], address=second) == [9]


def test_a_run_has_no_more_workers_than_tasks_and_more_when_there_are_more(store_url: str) -> None:
    """On a machine with many cores each is a process that takes seconds and memory to start."""

    def workers(address: str) -> int:
        with Client(address, set_as_default=False) as client:
            return len(client.nthreads())

    with session(store_url, "local:3") as run:
        first = run.address(1)
        assert workers(first) == 1
        second = run.address(2)
        assert workers(second) == 2
        assert run.address(1) == second
        assert workers(run.address()) == 3
    with session(store_url, "threads") as run:
        assert run.address(1) == run.address(2)


@pytest.mark.parametrize(
    ("cluster", "said"),
    [
        ("moon", "use threads, local"),
        ("local:many", "local:4"),
        ("local:0", "local:4"),
        ("tcp://host", "tcp://HOST:8786"),
    ],
)
def test_unknown_clusters_are_refused(cluster: str, said: str) -> None:
    with pytest.raises(InvalidRequest, match=said), open_cluster(cluster):
        pass


def test_a_gpu_that_is_not_there_is_refused() -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("a GPU is here")
    for cluster, device in (("cuda", "cpu"), ("local:1", "cuda")):
        with (
            pytest.raises(InvalidRequest, match="--device cpu"),
            open_cluster(cluster, device=device),
        ):
            pass


def test_a_worker_is_given_one_of_the_visible_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,MIG-7")
    assert visible_devices(2) == ["4", "MIG-7"]
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert visible_devices(3) == ["0", "1", "2"]


def test_flows_in_python_send_nothing_unless_told_to() -> None:
    """Prefect's settings in a script that only imports a flow."""
    script = "from flows import ingest; from prefect.settings import get_current_settings as s; "
    script += "print(s().server.analytics_enabled)"
    names = ("DO_NOT_TRACK", "PREFECT_SERVER_ANALYTICS_ENABLED")
    plain = {name: value for name, value in os.environ.items() if name not in names}
    for environment, said in ((plain, "False"), ({**plain, names[1]: "true"}, "True")):
        found = subprocess.run(
            [sys.executable, "-c", script], env=environment, capture_output=True, text=True
        )
        assert found.stdout.strip() == said, found.stderr


def test_a_process_that_is_forked_after_a_flow_ends_well() -> None:
    """As workers of a DataLoader do: Prefect's threads, which it would wait for, are not in it."""
    code = (
        "import multiprocessing, os, threading\n"
        "from flows.ending import forks_end_well\n"
        "forks_end_well()\n"
        "def drain(): raise AssertionError\n"
        "drain.__module__ = 'prefect._internal.concurrency.services'\n"
        "threading._register_atexit(drain)\n"
        "forked = multiprocessing.get_context('fork').Process(target=int)\n"
        "forked.start()\n"
        "forked.join()\n"
        "os._exit(forked.exitcode)\n"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
