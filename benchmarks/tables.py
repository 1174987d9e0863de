"""Tables of results, with what they were measured on."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
import torch

RESULTS = Path(__file__).with_name("results")


def machine() -> str:
    """Return processor, cores, memory and device in one line."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    memory = psutil.virtual_memory().total / 2**30
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    name = models[0] if models else platform.processor()
    return (
        f"{name}, {len(psutil.Process().cpu_affinity() or [0])} cores, {memory:.0f} GiB, {device}"
    )


def versions(*packages: str) -> str:
    """Return the versions of packages in one line."""
    return ", ".join(f"{name} {importlib.metadata.version(name)}" for name in packages)


def read(name: str) -> list[dict[str, str]]:
    """Return the rows of a table that was written; none if there is no such table."""
    path = RESULTS / f"{name}.md"
    lines = path.read_text().splitlines() if path.exists() else []
    columns, *rows = [line[2:-2].split(" | ") for line in lines if line[:2] == "| "] or [[]]
    return [dict(zip(columns, row, strict=True)) for row in rows]


def write(name: str, title: str, text: str, rows: Sequence[Mapping[str, Any]], using: str) -> None:
    """Print a table and write it to ``results/<name>.md``."""
    columns = list(rows[0])
    lines = [
        f"# {title}",
        "",
        text,
        "",
        "| " + " | ".join(columns) + " |",
        "|" + "---|" * len(columns),
        *("| " + " | ".join(str(row[column]) for column in columns) + " |" for row in rows),
        "",
        f"{machine()}; Python {platform.python_version()}, {using}; {datetime.now(UTC):%Y-%m-%d}.",
        "",
    ]
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.md").write_text("\n".join(lines))
    print("\n".join(lines))
