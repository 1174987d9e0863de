"""Features through the whole pipeline, against the bare transform on the same threads.

The pipeline reads Zarr parts, transforms them and writes Zarr parts with checksums and manifests,
one Dask task a part, on worker processes of one thread; its time is from the first submission to
the last manifest, with workers that have computed before. Bare: as many processes of one thread
that transform fields already in memory, at the batch size that is best for them, and drop the
results. The two take turns.
"""

from __future__ import annotations

import multiprocessing
import statistics
import tempfile
import time
from functools import partial
from typing import Any

import numpy as np
import torch
import zarr

from benchmarks import tables
from flows.runtime import open_cluster
from storage import PartRef, Schema, open_store
from storage.arrays import create_array
from storage.parts import FIELDS
from tasks.features import compute_part
from tasks.mapping import map_parts
from wavemill import Scattering2D

WORKERS = 2
ROUNDS = 2
CASES = (  # side, J, L, fields of a part, parts: each at least 60 s of work on two cores
    (64, 3, 8, 4096, 12),
    (256, 4, 8, 256, 16),
)


def main() -> None:
    """Measure and write the table."""
    rows = [measure(*case) for case in CASES]
    using = tables.versions("torch", "dask", "distributed", "zarr", "numpy")
    tables.write("pipeline", "Pipeline overhead", (__doc__ or "").split("\n\n")[1], rows, using)


def measure(side: int, J: int, L: int, rows: int, parts: int) -> dict[str, Any]:
    """Return the throughputs of one case, in fields a second."""
    batch = best_batch(side, J, L)
    bare, whole, seconds = [], [], []
    for _ in range(ROUNDS):
        bare.append(bare_throughput(side, J, L, batch, rows * parts))
        seconds.append(pipeline_seconds(side, J, L, rows, parts))
        whole.append(rows * parts / seconds[-1])
    ratio = statistics.median(w / b for w, b in zip(whole, bare, strict=True))
    return {
        "field": f"{side}^2 float32",
        "view": f"scattering J={J} L={L}",
        "fields": f"{rows * parts} in {parts} parts",
        "bare (fields/s)": f"{statistics.median(bare):.1f} (batches of {batch})",
        "pipeline (fields/s)": f"{statistics.median(whole):.1f}",
        "work (s)": f"{statistics.median(seconds):.0f}",
        "ratio": f"{100 * ratio:.0f} %",
    }


def best_batch(side: int, J: int, L: int) -> int:
    """Return the batch size of the highest throughput on one thread."""
    sizes = (1, 2, 4, 8) if side > 128 else (8, 16, 32, 64)
    torch.set_num_threads(1)
    return max(sizes, key=lambda size: transform(side, J, L, size, 3.0))


def transform(side: int, J: int, L: int, batch: int, seconds: float) -> float:
    """Transform one batch again and again; return fields a second."""
    op, x = Scattering2D((side, side), J, L), torch.randn(batch, side, side)
    count = 0
    with torch.inference_mode():
        op(x)
        start = time.perf_counter()
        while time.perf_counter() - start < seconds:
            op(x)
            count += batch
    return count / (time.perf_counter() - start)


def bare_throughput(side: int, J: int, L: int, batch: int, fields: int) -> float:
    """Return the fields a second of all processes together, over about as long as the pipeline."""
    with multiprocessing.get_context("spawn").Pool(WORKERS, torch.set_num_threads, (1,)) as pool:
        quick = sum(pool.starmap(transform, [(side, J, L, batch, 5.0)] * WORKERS))
        work = [(side, J, L, batch, fields / quick)] * WORKERS
        return float(sum(pool.starmap(transform, work, chunksize=1)))


def pipeline_seconds(side: int, J: int, L: int, rows: int, parts: int) -> float:
    """Return the time from the first submission to the last manifest, with warm workers."""
    spec = {"kind": "scattering", "parameters": {"J": J, "L": L}, "algorithm": 1}
    schema = Schema("noise", ("noise",), (side, side))
    with tempfile.TemporaryDirectory() as url, open_cluster(f"local:{WORKERS}") as address:
        warm = [add_part(url, schema, 8, number) for number in range(100, 100 + 4 * WORKERS)]
        made = [add_part(url, schema, rows, number) for number in range(parts)]
        work = partial(compute_part, url, spec, schema, "cpu")
        map_parts(work, warm, address=address)
        start = time.perf_counter()
        map_parts(work, made, address=address)
        return time.perf_counter() - start


def add_part(url: str, schema: Schema, rows: int, number: int) -> PartRef:
    """Write a part of noise."""

    def write(group: zarr.Group) -> dict[str, Any]:
        array = create_array(group, FIELDS, rows, schema.row_shape, schema.dtype, schema.dims)
        generator = np.random.default_rng(number)
        array[:] = generator.standard_normal((rows, *schema.shape), dtype=np.float32)
        return {"rows": rows}

    spec = {"kind": "noise", "parameters": {}, "algorithm": 1}
    manifest, _ = open_store(url).write_part(spec, [number, rows], write)
    return PartRef(str(manifest["key"]), rows)


if __name__ == "__main__":
    main()
