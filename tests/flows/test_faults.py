"""Killed workers, killed flows, two flows at once, a collector beside them: nothing is lost."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from prefect.settings import PREFECT_API_URL

from flows import features, ingest
from flows.runtime import open_cluster
from storage import Conflict, NotFound, Store, leases, open_store
from storage.collect import collect
from storage.verify import verify
from tests.flows.driver import PARTS, SOURCE, THREE_FIELDS, VIEW

DRIVER = Path(__file__).with_name("driver.py")


def start(url: str, cluster: str = "threads") -> subprocess.Popen[bytes]:
    """Start the flow in a process group of its own."""
    environment = {**os.environ, "PREFECT_API_URL": PREFECT_API_URL.value() or ""}
    environment["OMP_NUM_THREADS"] = "1"
    command = [sys.executable, str(DRIVER), url, cluster]
    return subprocess.Popen(command, env=environment, start_new_session=True)


def wait_for(happened: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    """Wait until something is seen in the store, or the process has ended."""
    while process.poll() is None and not happened():
        time.sleep(0.005)


def kill(process: subprocess.Popen[bytes]) -> None:
    """Kill the flow and all its workers at once."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def manifests(store: Store) -> dict[str, float]:
    """Return when each part was published."""
    walked = list(store.backend.walk("parts"))
    return {e.path: e.modified for e in walked if e.path.endswith("/manifest.json")}


def readable(store: Store) -> int:
    """Read whatever version is newest, all of it; return how many samples have features."""
    try:
        dataset = store.dataset("flow")
    except NotFound:
        return 0
    assert dataset.to_xarray().compute().shape == (36, 32, 32)
    try:
        frame = store.get_historical_features("flow", "phase-harmonics")
    except NotFound:
        return 0
    assert np.isfinite(frame.to_xarray().values).all()
    return len(frame)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> np.ndarray[Any, Any]:
    """The features of an undisturbed run, on one worker process."""
    url = str(tmp_path_factory.mktemp("undisturbed") / "store")
    ingest("flow", [SOURCE], url, THREE_FIELDS, "local:1")
    features("flow", "phase-harmonics", url, None, VIEW, "local:1")
    return values(url)


def values(url: str) -> np.ndarray[Any, Any]:
    """Return all features of a store."""
    frame = open_store(url).get_historical_features("flow", "phase-harmonics")
    return np.asarray(frame.to_xarray().values)


@contextlib.contextmanager
def collecting(store: Store) -> Iterator[list[int]]:
    """Collect again and again, with no grace, as long as the block runs."""
    stop, counts = threading.Event(), []

    def loop() -> None:
        while not stop.wait(0.05):
            with contextlib.suppress(Conflict):
                counts.append(len(collect(store, grace=timedelta(seconds=-1), delete=True)))

    thread = threading.Thread(target=loop)
    thread.start()
    try:
        yield counts
    finally:
        stop.set()
        thread.join()


def test_a_killed_worker_changes_no_bit(store_url: str, undisturbed: np.ndarray[Any, Any]) -> None:
    """kill -9 of a worker in mid-part: the run completes, with the same bits."""
    ingest("flow", [SOURCE], store_url, THREE_FIELDS, "threads")
    store = open_store(store_url)
    with open_cluster("local:2") as address:
        from distributed import Client

        def assassinate() -> None:
            with Client(address, set_as_default=False) as client:
                pids = list(client.run(os.getpid).values())
                while len(manifests(store)) < PARTS + 2:
                    time.sleep(0.002)
                os.kill(pids[0], signal.SIGKILL)

        killer = threading.Thread(target=assassinate)
        killer.start()
        features("flow", "phase-harmonics", store_url, None, VIEW, address)
        killer.join()
    np.testing.assert_array_equal(values(store_url), undisturbed)
    assert list(verify(store)) == []


@pytest.mark.slow
@pytest.mark.parametrize("beside_gc", [False, True], ids=["alone", "beside-gc"])
def test_a_killed_flow_leaves_the_old_version_or_the_new(
    store_url: str,
    undisturbed: np.ndarray[Any, Any],
    beside_gc: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """kill -9 at ten random instants, then once to the end; finished parts are never redone."""
    monkeypatch.setattr(leases, "LIFETIME", 1.2)
    monkeypatch.setattr("storage.collect.LIFETIME", 1.2)
    store, chance = open_store(store_url), random.Random(7)
    with collecting(store) if beside_gc else contextlib.nullcontext([]):
        for _ in range(10):
            before = manifests(store)
            process = start(store_url)
            wait_for(lambda: any(True for _ in store.backend.walk("leases")), process)
            time.sleep(chance.uniform(0, 1.5))
            kill(process)
            readable(store)
            if not beside_gc:  # a part not yet in any version may be collected between two runs
                kept = {path: when for path, when in manifests(store).items() if path in before}
                assert kept == before
        last = start(store_url)
        assert last.wait(timeout=120) == 0
    assert readable(store) == 36
    assert len(manifests(store)) == 2 * PARTS
    assert list(verify(store)) == []
    np.testing.assert_allclose(values(store_url), undisturbed, rtol=1e-6, atol=1e-9)


def test_two_identical_flows_at_once_make_one_set_of_parts(store_url: str) -> None:
    """Both end well; each part has one manifest and one attempt."""
    both = [start(store_url), start(store_url)]
    assert [process.wait(timeout=120) for process in both] == [0, 0]
    store = open_store(store_url)
    assert len(manifests(store)) == 2 * PARTS
    attempts = {tuple(e.path.split("/")[2:4]) for e in store.backend.walk("parts")}
    assert len(attempts) == 2 * 2 * PARTS  # of each part: its manifest and one folder
    assert [v.version for v in store.versions("flow")] == [1]
    assert readable(store) == 36
    assert list(verify(store)) == []


def test_a_second_identical_run_computes_nothing(store_url: str) -> None:
    """No part is written, no version is published, and no worker is started."""
    ingest("flow", [SOURCE], store_url, THREE_FIELDS, "threads")
    first = features("flow", "phase-harmonics", store_url, None, VIEW, "threads")
    before = manifests(open_store(store_url))
    again = ingest("flow", [SOURCE], store_url, THREE_FIELDS, "tcp://127.0.0.1:1")  # nobody there
    second = features("flow", "phase-harmonics", store_url, None, VIEW, "tcp://127.0.0.1:1")
    assert (again.parts_written, again.parts_reused, again.unchanged) == (0, 0, 36)
    assert second == first
    assert manifests(open_store(store_url)) == before


def test_parts_on_two_workers_equal_one_piece(store_url: str, tmp_path: Path) -> None:
    """Twelve parts on two processes equal one part in this one, to float32 rounding."""
    ingest("flow", [SOURCE], store_url, THREE_FIELDS, "local:2")
    features("flow", "phase-harmonics", store_url, None, VIEW, "local:2")
    whole = str(tmp_path / "whole")
    ingest("flow", [SOURCE], whole, None, "threads")
    features("flow", "phase-harmonics", whole, None, VIEW, "threads")
    assert len(open_store(whole).dataset("flow").version.parts) == 1
    expected = values(whole)
    np.testing.assert_allclose(values(store_url), expected, rtol=1e-6, atol=1e-6 * expected.std())
