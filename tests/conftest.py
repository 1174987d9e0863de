"""Fixtures that every test may ask for."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

_home = tempfile.TemporaryDirectory(prefix="wavemill-tests-", ignore_cleanup_errors=True)
os.environ.pop("PREFECT_API_URL", None)  # tests are not recorded on the server of whoever runs them
os.environ.update(  # before Prefect is imported: it reads its settings once
    PREFECT_HOME=_home.name,
    DO_NOT_TRACK="1",
    PREFECT_SERVER_ANALYTICS_ENABLED="false",
    MPLBACKEND="Agg",
)
os.environ.setdefault("OMP_NUM_THREADS", "1")  # small problems, several at once: threads would spin

import pytest  # noqa: E402
import torch  # noqa: E402

pytest_plugins = ["tests.object_store"]

SHARED = Path(__file__).parents[1].parent / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of reference data beside the project, or a visible skip."""
    if not SHARED.is_dir():
        pytest.skip("the reference data beside the project (../shared) is absent")
    return SHARED


@contextlib.contextmanager
def _doubles() -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@pytest.fixture
def doubles() -> Callable[[], contextlib.AbstractContextManager[None]]:
    """A context in which new tensors are float64 unless told."""
    return _doubles


@pytest.fixture(scope="session")
def golden(shared: Path) -> Path:
    """Reference outputs of peer implementations."""
    return shared / "golden"


@pytest.fixture(scope="session")
def prefect_home() -> Path:
    """Prefect's home for tests and their commands: in a new one each would wait for migrations."""
    return Path(_home.name)


@pytest.fixture
def set_threads() -> Iterator[Callable[[int], None]]:
    """Lets a test choose how many threads torch has, and restores their number."""
    threads = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(threads)


@pytest.fixture
def one_thread(set_threads: Callable[[int], None]) -> None:
    """Compute on one thread, so that sums are always taken in the same order."""
    set_threads(1)
