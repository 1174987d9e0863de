"""A worker's part of the work in a process of its own: ``python memory_probe.py STORE SPEC PARTS``.

Prints how much the process grew at its peak beyond its warmed state, and what was projected.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch

from storage import PartRef, Schema
from tasks.features import compute_part, projected_memory
from tasks.views import operator

SCHEMA = Schema("noise", ("noise",), (256, 256))
STATUS = Path("/proc/self/status")


def resident(field: str) -> int:
    """Return VmRSS or VmHWM in bytes."""
    line = next(text for text in STATUS.read_text().splitlines() if text.startswith(field))
    return int(line.split()[1]) * 1024


def main(url: str, spec: str, parts: str) -> None:
    """Warm up on the first part, then transform the second."""
    torch.set_num_threads(1)
    for key, rows in json.loads(parts):
        before = resident("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from here
        done = compute_part(url, json.loads(spec), SCHEMA, "cpu", PartRef(key, rows))
        grown = resident("VmHWM") - before
    transform = operator(json.loads(spec), SCHEMA)
    projected = projected_memory(transform, SCHEMA, done.row_shape)
    print(json.dumps({"grown": grown, "projected": projected}))


if __name__ == "__main__":
    main(*sys.argv[1:])
