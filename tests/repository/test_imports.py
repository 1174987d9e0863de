"""What importing a package brings along. Who may import whom is import-linter's, in `make lint`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import json, sys, time
start = time.perf_counter()
import {package}
seconds = time.perf_counter() - start
print(json.dumps([seconds, sorted({{name.split(".")[0] for name in sys.modules}})]))
"""


def modules_after(package: str, folder: Path) -> tuple[float, set[str]]:
    """Import a package in a fresh interpreter; return the seconds and the top-level modules."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROGRAM.format(package=package)],
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
    seconds, modules = modules_after(package, tmp_path)
    report(f"imported in {seconds:.2f} s")
    assert package in modules
    assert modules & strangers == set()
