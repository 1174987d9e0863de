"""What tests of the repository itself share."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

Report = Callable[[str], None]


@pytest.fixture(scope="session")
def root() -> Path:
    """The folder of the repository."""
    return ROOT


@pytest.fixture(scope="session")
def tracked() -> list[Path]:
    """Every file that git tracks and that exists, or a visible skip outside a clone."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a git clone: its files cannot be listed")
    listing = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True
    )
    return [path for name in listing.stdout.split("\0") if name and (path := ROOT / name).is_file()]


@pytest.fixture
def report(record_property: Callable[[str, object], None]) -> Report:
    """Show a measured figure in the summary that closes the run."""
    return lambda figure: record_property("figure", figure)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    calls = [report for report in terminalreporter.getreports("passed") if report.when == "call"]
    figures = [
        f"{call.nodeid}: {figure}"
        for call in calls
        for name, figure in call.user_properties
        if name == "figure"
    ]
    if figures:
        terminalreporter.section("figures")
        terminalreporter.write_line("\n".join(figures))
