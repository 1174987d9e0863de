"""Flows run against a Prefect server of the test session's own."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings
from prefect.testing.utilities import prefect_test_harness


@pytest.fixture(scope="session", autouse=True)
def prefect_server() -> Iterator[None]:
    """One temporary server and database for all tests of flows."""
    settings = temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None})
    with settings, prefect_test_harness(server_startup_timeout=60):
        yield


@pytest.fixture
def store_url(tmp_path: Path) -> str:
    """Where a new store may be."""
    return str(tmp_path / "store")


@pytest.fixture
def snapshots(tmp_path: Path) -> Path:
    """A folder with ten small snapshots, ``m00.npy`` to ``m09.npy``."""
    folder = tmp_path / "snapshots"
    folder.mkdir()
    write_snapshots(folder, [f"m{i:02d}" for i in range(10)])
    return folder


def listen_to_interrupts() -> None:
    """Let a process hear Ctrl-C and the end of its terminal: tests in the background do not."""
    for number in (signal.SIGINT, signal.SIGHUP):  # a shell takes the first, nohup the second
        signal.signal(number, signal.SIG_DFL)


def write_snapshots(folder: Path, names: list[str], side: int = 16) -> None:
    """Write random fields, each determined by its name."""
    for name in names:
        seed = int.from_bytes(name.encode(), "little") % 2**31
        field = np.random.default_rng(seed).standard_normal((side, side)).astype("float32")
        np.save(folder / f"{name}.npy", field)
