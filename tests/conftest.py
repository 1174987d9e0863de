"""Fixtures that every test may ask for."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

os.environ.update(  # before Prefect is imported: it reads its settings once
    DO_NOT_TRACK="1", PREFECT_SERVER_ANALYTICS_ENABLED="false", MPLBACKEND="Agg"
)
os.environ.setdefault("OMP_NUM_THREADS", "1")  # small problems, several at once: threads would spin

import pytest
import torch

pytest_plugins = ["tests.object_store"]

SHARED = Path(__file__).parents[1].parent / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of reference data beside the project, or a visible skip."""
    if not SHARED.is_dir():
        pytest.skip("the reference data beside the project (../shared) is absent")
    return SHARED


@pytest.fixture(scope="session")
def golden(shared: Path) -> Path:
    """Reference outputs of peer implementations."""
    return shared / "golden"


@pytest.fixture(scope="session")
def prefect_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home of Prefect's that commands share: in a new one each waits for migrations."""
    return tmp_path_factory.mktemp("prefect")


@pytest.fixture
def set_threads() -> Iterator[Callable[[int], None]]:
    """Lets a test choose how many threads torch has, and puts their number back."""
    threads = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(threads)


@pytest.fixture
def one_thread(set_threads: Callable[[int], None]) -> None:
    """Compute on one thread, so that sums are taken in one order."""
    set_threads(1)
