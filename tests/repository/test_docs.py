"""What the documents show is run, what they link to exists, and all that is public is named."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

import wavemill

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / name for name in ("README.md", "ARCHITECTURE.md", "CHANGELOG.md")]
PAGES += sorted((ROOT / "docs").rglob("*.md")) + sorted((ROOT / "deployments").rglob("*.md"))
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
RUN = ("python", "console")


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def program(page: Path) -> str:
    """One Python program of a page's blocks: Python as it is, each line of console as a command."""
    pieces = ["from flows.cli import run"]
    for language, text in BLOCK.findall(page.read_text()):
        if language == "python":
            pieces.append(text)
        elif language == "console":
            commands = [shlex.split(line) for line in text.splitlines() if line.strip()]
            assert all(command[0] == "wavemill" for command in commands)
            pieces += [f"assert run({command[1:]!r}) == 0, {command!r}" for command in commands]
    return "\n".join(pieces)


@pytest.mark.slow
@pytest.mark.parametrize(
    "page",
    [page for page in PAGES if any(lang in RUN for lang, _ in BLOCK.findall(page.read_text()))],
    ids=name,
)
def test_the_blocks_of_a_page_run_in_order(page: Path, tmp_path: Path) -> None:
    """In a folder with snapshots in ``runs/``, as a reader has; ``sh`` blocks are only shown."""
    (tmp_path / "runs").mkdir()
    for number in range(4):
        field = np.random.default_rng(number).standard_normal((32, 32), dtype=np.float32)
        np.save(tmp_path / "runs" / f"run{number}.npy", field)
    (tmp_path / "page.py").write_text(program(page))
    kept = {key: value for key, value in os.environ.items() if not key.startswith("WAVEMILL")}
    environment = {**kept, "WAVEMILL_CLUSTER": "threads"}
    done = subprocess.run(
        [sys.executable, "page.py"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_and_pictures_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#\s]+)", page.read_text())
    local = [target for target in targets if not target.startswith(("http://", "https://"))]
    assert [target for target in local if not (page.parent / target).exists()] == []


def test_every_public_name_is_in_the_interface() -> None:
    text = (ROOT / "docs" / "api.md").read_text()
    named = set(re.findall(r"`(\w+)`", text))
    public = {name for name in wavemill.__all__ if not name.endswith("Spec")}
    errors = {name for name in public if issubclass_of_error(name)}
    assert sorted(public - errors - named) == []


def issubclass_of_error(name: str) -> bool:
    value = getattr(wavemill, name)
    return isinstance(value, type) and issubclass(value, Exception)


def test_every_public_name_says_what_it_is() -> None:
    silent = [name for name in wavemill.__all__ if not getattr(wavemill, name).__doc__]
    assert silent == []


@pytest.mark.parametrize("file", sorted((ROOT / "deployments").rglob("*.yaml")), ids=name)
def test_deployment_files_are_sound(file: Path) -> None:
    documents = list(yaml.safe_load_all(file.read_text()))
    assert documents
    assert all(isinstance(document, dict) for document in documents)


def test_no_secret_and_no_place_of_one_machine_is_committed(tracked: list[Path]) -> None:
    """Keys, home folders and addresses of package indexes do not belong here."""
    here = "/" + ROOT.parts[1] + "/"
    patterns = [r"AKIA[0-9A-Z]{16}", r"-----BEGIN [A-Z ]*PRIVATE KEY", r"/home/\w+/\.", r"/simple/"]
    if len(ROOT.parts) > 3:  # a tree directly below the root would forbid every such path
        patterns.append(re.escape(f"{here}{ROOT.parts[2]}/"))
    found = [
        f"{path.relative_to(ROOT)}: {pattern}"
        for path in tracked
        if path.suffix not in (".png",) and path != Path(__file__)
        for pattern in patterns
        if re.search(pattern, path.read_text(errors="replace"))
    ]
    assert found == []
