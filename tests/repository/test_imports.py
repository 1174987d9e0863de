"""What importing a package loads. Who may import whom is for import-linter, in `make lint`."""

from __future__ import annotations

import contextlib
import importlib
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

PROGRAM = """
import json, sys, time
start = time.perf_counter()
{statement}
seconds = time.perf_counter() - start
print(json.dumps([seconds, sorted({{name.split(".")[0] for name in sys.modules}})]))
"""


def modules_after(statement: str, folder: Path) -> tuple[float, set[str]]:
    """Import in a fresh interpreter; return the seconds and the top-level modules."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROGRAM.format(statement=statement)],
        cwd=folder,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    seconds, modules = json.loads(done.stdout)
    return seconds, set(modules)


@pytest.mark.parametrize(
    ("package", "strangers"),
    [
        ("wavemill", {"prefect", "dask", "distributed", "zarr", "xarray", "storage", "flows"}),
        ("storage", {"prefect", "distributed", "matplotlib", "wavemill", "tasks", "flows"}),
    ],
)
def test_a_lower_package_imports_no_higher_one_and_no_scheduler(
    package: str, strangers: set[str], tmp_path: Path, report
) -> None:
    seconds, modules = modules_after(f"from {package} import *", tmp_path)
    report(f"imported in {seconds:.2f} s")
    assert package in modules
    assert modules & strangers == set()


@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        ("wavemill", {"torch", "numpy"}),
        ("wavemill.specs", {"torch"}),
        ("storage", {"pandas", "zarr", "s3fs"}),
        ("storage.store", {"torch", "xarray", "s3fs"}),
        ("tasks.ingest", {"torch", "prefect", "matplotlib", "xarray", "s3fs"}),  # by workers
        ("tasks.features", {"prefect", "matplotlib", "xarray", "s3fs"}),
        ("flows.ingest", {"torch", "matplotlib", "xarray", "s3fs"}),
        ("tasks.figures", {"torch", "prefect", "xarray", "s3fs"}),
        ("flows.features", {"matplotlib", "xarray", "s3fs"}),
        ("flows.cli", {"torch", "prefect", "distributed", "pandas", "numpy"}),
        ("flows.server", {"torch", "prefect", "distributed", "pandas", "numpy"}),
    ],
)
def test_what_takes_long_to_load_is_loaded_where_it_is_needed(
    module: str, heavy: set[str], tmp_path: Path
) -> None:
    """So that commands, workers and servers start soon."""
    _, modules = modules_after(f"import {module}", tmp_path)
    assert modules & heavy == set()


@pytest.mark.parametrize("package", ["wavemill", "storage", "flows"])
def test_every_name_of_a_package_is_there_and_is_no_module(package: str) -> None:
    """Even if a module has the same name as what the package gives, and is imported first."""
    module = importlib.import_module(package)
    for name in module.__all__:
        with contextlib.suppress(ModuleNotFoundError):
            importlib.import_module(f"{package}.{name}")
        assert not isinstance(getattr(module, name), ModuleType)
