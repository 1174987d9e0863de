"""The pins are complete, hold, and can be met anywhere."""

from __future__ import annotations

import importlib.metadata
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version


@pytest.fixture(scope="module")
def pins(root: Path) -> dict[str, str]:
    """Package name to the one version allowed."""
    lines = (root / "constraints.txt").read_text().splitlines()
    pinned = [Requirement(line) for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(p.name): str(p.specifier).removeprefix("==") for p in pinned}


@pytest.fixture(scope="module")
def project(root: Path) -> dict:
    """The project's table of pyproject.toml."""
    return tomllib.loads((root / "pyproject.toml").read_text())["project"]


def needed(requirements: list[str], extras: frozenset[str] = frozenset()) -> dict[str, set[str]]:
    """Return every installed package that the requirements lead to, with the extras asked for."""
    seen: dict[str, set[str]] = {}
    waiting = [(Requirement(text), extras) for text in requirements]
    while waiting:
        requirement, context = waiting.pop()
        if requirement.marker and not any(
            requirement.marker.evaluate({"extra": extra}) for extra in context | {""}
        ):
            continue
        name = canonicalize_name(requirement.name)
        if name in seen and requirement.extras <= seen[name]:
            continue
        seen.setdefault(name, set()).update(requirement.extras)
        below = importlib.metadata.requires(name) or []
        if name == "torch":  # it chooses what its builds for GPUs bring along
            below = [text for text in below if "platform_system" not in text]
        waiting += [(Requirement(text), frozenset(requirement.extras)) for text in below]
    return seen


def test_every_package_that_a_test_environment_needs_is_pinned(
    project: dict, pins: dict[str, str]
) -> None:
    requirements = project["dependencies"] + project["optional-dependencies"]["test"]
    found = needed(requirements)
    assert len(found) > len(requirements)
    assert sorted(set(found) - set(pins)) == []


def test_the_environment_of_these_tests_is_the_pinned_one(
    project: dict, pins: dict[str, str]
) -> None:
    requirements = project["dependencies"] + project["optional-dependencies"]["test"]
    installed = {name: importlib.metadata.version(name) for name in needed(requirements)}
    public = {name: Version(version).public for name, version in installed.items()}
    assert {name: public[name] for name in public if public[name] != pins[name]} == {}


@pytest.mark.parametrize("extra", ["test", "dashboard", "bench"])
def test_pins_are_within_what_the_project_declares(
    extra: str, project: dict, pins: dict[str, str]
) -> None:
    declared = project["dependencies"] + project["optional-dependencies"][extra]
    requirements = [Requirement(text) for text in declared]
    outside = [
        str(requirement)
        for requirement in requirements
        if not requirement.specifier.contains(pins[canonicalize_name(requirement.name)])
    ]
    assert outside == []


def test_pins_name_no_build_and_no_place(root: Path) -> None:
    """A local part such as ``+cpu`` or an address would tie them to one machine."""
    text = (root / "constraints.txt").read_text()
    assert "torch==2.13.0\n" in text
    assert [line for line in text.splitlines() if "+" in line or "://" in line] == []
    assert [line for line in text.splitlines() if line.startswith("-")] == []
