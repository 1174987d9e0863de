"""Ingestion of images in a process of its own: ``python image_memory_probe.py FOLDER STORE SIZES``.

Prints how much the process grew at its peak while it made each part, after a first one.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from storage import open_store
from tasks.images import SCHEMA, ImageOptions
from tasks.ingest import ingest_part
from tests.tasks.memory_probe import resident


def main(folder: str, url: str, sizes: str) -> None:
    """Make a part of each number of images."""
    units = ImageOptions().find([folder])
    open_store(url)
    grown = []
    for size in json.loads(sizes):
        batch, units = tuple(units[:size]), units[size:]
        before = resident("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from here
        assert len(ingest_part(url, SCHEMA, ImageOptions(), (batch, {})).rows) == size
        grown.append(resident("VmHWM") - before)
    print(json.dumps(grown))


if __name__ == "__main__":
    main(*sys.argv[1:])
