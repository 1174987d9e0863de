"""A worker's memory stays within what is projected, however long the part."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from PIL import Image

from flows.runtime import MALLOC
from storage import open_store
from storage.arrays import create_array
from storage.parts import FIELDS
from tasks.features import BATCH_BUDGET
from tests.tasks.memory_probe import SCHEMA

PROBE = Path(__file__).with_name("memory_probe.py")
ALONE = {"OMP_NUM_THREADS": "1", "PATH": "/usr/bin", "PYTHONPATH": str(PROBE.parents[2])}
if not Path("/proc/self/clear_refs").exists():
    pytest.skip("the peak of a process can be measured on Linux only", allow_module_level=True)


ROWS = (8, 240)


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """A store with a short part and a long one of fields of 256^2, 2 and 60 MiB: URL, parts."""
    url = str(tmp_path_factory.mktemp("memory") / "store")
    return url, json.dumps([[add(url, rows), rows] for rows in ROWS])


def add(url: str, rows: int) -> str:
    noise = np.random.default_rng(0).standard_normal((rows, *SCHEMA.shape), dtype=np.float32)

    def write(group: zarr.Group) -> dict[str, Any]:
        array = create_array(group, FIELDS, rows, SCHEMA.row_shape, SCHEMA.dtype, SCHEMA.dims)
        array[:] = noise
        return {"rows": rows}

    spec = {"kind": "noise", "parameters": {}, "algorithm": 1}
    return str(open_store(url).write_part(spec, [rows], write)[0]["key"])


@pytest.mark.slow
@pytest.mark.parametrize(
    "spec",
    [
        {"kind": "spectrum", "parameters": {}, "algorithm": 1},
        {"kind": "scattering", "parameters": {"J": 3, "L": 4}, "algorithm": 1},
        {"kind": "phase-harmonics", "parameters": {"J": 3, "L": 2}, "algorithm": 1},
    ],
    ids=lambda spec: spec["kind"],
)
def test_a_worker_grows_within_the_projection(parts: tuple[str, str], spec: dict[str, Any]) -> None:
    """Growth at the peak over the warmed state, against 1.2 times the projected bytes."""
    done = subprocess.run(
        [sys.executable, str(PROBE), parts[0], json.dumps(spec), parts[1]],
        capture_output=True,
        text=True,
        check=True,
        env={**ALONE, **{name: str(value) for name, value in MALLOC.items()}},  # as workers have
    )
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["grown"] < 1.2 * found["projected"]
    assert found["projected"] < BATCH_BUDGET + 3 * 2**27  # whatever the part: it is streamed


@pytest.mark.slow
def test_ingestion_of_images_holds_a_part_and_two_shards(tmp_path: Path) -> None:
    """However large the images are as found: they are decoded one at a time."""
    buffer = io.BytesIO()
    Image.new("RGB", (3000, 3000)).save(buffer, "JPEG")  # 27 MB decoded, 140 kB encoded
    for number in range(28):
        (tmp_path / f"{number:03d}.jpg").write_bytes(buffer.getvalue())
    probe = Path(__file__).with_name("image_memory_probe.py")
    done = subprocess.run(
        [sys.executable, str(probe), str(tmp_path), str(tmp_path / "store"), "[4, 24]"],
        capture_output=True,
        text=True,
        check=True,
        env=ALONE,
    )
    grown = json.loads(done.stdout.splitlines()[-1])[1]
    row, image = 3 * 224**2, 3 * 3000**2
    # decoded: the image, once more while Pillow resizes it; rows: held, stacked, and as written
    assert grown < 2 * image + 3 * 24 * row + 2**24
