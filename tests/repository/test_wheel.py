"""The wheel is complete: installed elsewhere, it works without the source tree."""

from __future__ import annotations

import importlib.metadata
import json
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

PACKAGES = ("wavemill", "storage", "tasks", "flows")

# No site module means no .pth file, so an editable installation cannot lend its source tree.
ALONE = [sys.executable, "-I", "-S", "-W", "error", "-c"]
PROLOGUE = """
import sys
sys.path[:0] = {paths!r}
"""

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the tree."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, root]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with nothing but what the wheel installs."""
    folder = tmp_path_factory.mktemp("installed")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    done = subprocess.run([*pip, "--target", folder, wheel], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def run_alone(installed: Path, elsewhere: Path, program: str) -> str:
    """Run a program that sees the installed wheel and its dependencies, from another folder."""
    paths = [str(installed), sysconfig.get_path("purelib"), sysconfig.get_path("platlib")]
    source = PROLOGUE.format(paths=paths) + program
    done = subprocess.run([*ALONE, source], cwd=elsewhere, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_four_packages_import_from_the_installed_wheel(installed: Path, tmp_path: Path) -> None:
    program = f"""
import importlib, json
print(json.dumps([importlib.import_module(name).__file__ for name in {PACKAGES!r}]))
"""
    files = json.loads(run_alone(installed, tmp_path, program))
    assert [Path(file).parent for file in files] == [installed / name for name in PACKAGES]


def test_the_installed_command_explains_itself(installed: Path, tmp_path: Path) -> None:
    (script,) = (
        entry
        for distribution in importlib.metadata.distributions(path=[str(installed)])
        for entry in distribution.entry_points.select(group="console_scripts")
    )
    module, function = script.value.split(":")
    assert script.name == "wavemill"
    assert (installed / "bin" / "wavemill").is_file()
    program = f"from {module} import {function}\n{function}(['--help'])"
    assert "ingest" in run_alone(installed, tmp_path, program)


def test_the_wheel_holds_every_tracked_file_of_the_packages(
    wheel: Path, root: Path, tracked: list[Path]
) -> None:
    names = [path.relative_to(root).as_posix() for path in tracked]
    expected = {name for name in names if name.split("/")[0] in PACKAGES}
    shipped = set(zipfile.ZipFile(wheel).namelist())
    assert {f"{name}/py.typed" for name in PACKAGES} <= expected
    assert sorted(expected - shipped) == []


def test_the_wheel_holds_nothing_but_the_packages(wheel: Path) -> None:
    tops = {name.split("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == set(PACKAGES)
