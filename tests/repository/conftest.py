"""What tests of the repository itself share."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FIGURES = pytest.StashKey[list[str]]()

Report = Callable[[str], None]


@pytest.fixture(scope="session")
def root() -> Path:
    """The folder of the repository."""
    return ROOT


@pytest.fixture(scope="session")
def tracked() -> list[Path]:
    """Every file that git knows and that is there, or a visible skip outside a clone."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a git clone: its files cannot be listed")
    listing = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True
    )
    return [path for name in listing.stdout.split("\0") if name and (path := ROOT / name).is_file()]


@pytest.fixture
def report(request: pytest.FixtureRequest) -> Iterator[Report]:
    """Say a measured figure in the summary that closes the run."""
    figures: list[str] = []
    yield figures.append
    request.config.stash.setdefault(FIGURES, []).extend(
        f"{request.node.name}: {figure}" for figure in figures
    )


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if figures := terminalreporter.config.stash.get(FIGURES, []):
        terminalreporter.section("figures")
        terminalreporter.write_line("\n".join(figures))
