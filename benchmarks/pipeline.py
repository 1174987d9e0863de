"""Features through the whole pipeline, against the bare transform on the same threads.

The pipeline reads Zarr parts, transforms them and writes Zarr parts with checksums and manifests,
one Dask task a part, on worker processes of one thread; its time is from the first submission to
the last manifest, with workers that have computed before. Bare: as many processes of one thread
that transform fields already in memory, at the batch size that is fastest for them, and drop the
results. The two take turns, since the speed of a machine drifts; the ratio is the median over
turns.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from multiprocessing.pool import Pool
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
ROUNDS = 3
CASES = (  # side, J, L (4 and 8 are the defaults), fields of a part of 128 MiB, parts
    (64, 4, 8, 8192, 6),
    (64, 3, 8, 8192, 6),
    (256, 4, 8, 512, 6),
)


def main() -> None:
    """Measure and write the table."""
    rows = [measure(*case) for case in CASES]
    using = tables.versions("torch", "dask", "distributed", "zarr", "numpy")
    tables.write("pipeline", "Pipeline overhead", (__doc__ or "").split("\n\n")[1], rows, using)


def measure(side: int, J: int, L: int, rows: int, parts: int) -> dict[str, Any]:
    """Return the throughputs of one case, in fields a second."""
    batch = best_batch(side, J, L)
    bare, whole = [], []
    with bare_processes() as pool, pipeline(side, J, L) as compute:
        quick = bare_throughput(pool, side, J, L, batch, 5.0)
        for turn in range(ROUNDS):
            bare.append(bare_throughput(pool, side, J, L, batch, rows * parts / quick))
            whole.append(compute(rows, [turn * parts + part for part in range(parts)]))
    ratios = [w / b for w, b in zip(whole, bare, strict=True)]
    return {
        "field": f"{side}^2 float32",
        "view": f"scattering J={J} L={L}",
        "fields": f"{ROUNDS} x {rows * parts} in {parts} parts",
        "bare (fields/s)": f"{statistics.median(bare):.1f} (batches of {batch})",
        "pipeline (fields/s)": f"{statistics.median(whole):.1f}",
        "work (s)": f"{sum(rows * parts / speed for speed in whole):.0f}",
        "ratio": f"{100 * statistics.median(ratios):.0f} %",
        "ratios": ", ".join(f"{100 * ratio:.0f}" for ratio in ratios),
    }


def best_batch(side: int, J: int, L: int) -> int:
    """Return the batch size of the highest throughput on one thread."""
    sizes = (1, 2, 4, 8) if side > 128 else (8, 16, 32, 64, 128)
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


@contextlib.contextmanager
def bare_processes() -> Iterator[Pool]:
    """Open as many processes of one thread as the pipeline has workers."""
    with multiprocessing.get_context("spawn").Pool(WORKERS, torch.set_num_threads, (1,)) as pool:
        yield pool


def bare_throughput(pool: Pool, side: int, J: int, L: int, batch: int, seconds: float) -> float:
    """Return the fields a second of all processes together."""
    return sum(pool.starmap(transform, [(side, J, L, batch, seconds)] * WORKERS, chunksize=1))


@contextlib.contextmanager
def pipeline(side: int, J: int, L: int) -> Iterator[Callable[[int, list[int]], float]]:
    """Open warm workers; yield what computes numbered parts and returns fields a second."""
    spec = {"kind": "scattering", "parameters": {"J": J, "L": L}, "algorithm": 1}
    schema = Schema("noise", ("noise",), (side, side))
    with tempfile.TemporaryDirectory() as url, open_cluster(f"local:{WORKERS}") as address:
        work = partial(compute_part, url, spec, schema, "cpu")

        def compute(rows: int, numbers: list[int]) -> float:
            made = [add_part(url, schema, rows, number) for number in numbers]
            start = time.perf_counter()
            map_parts(work, made, address=address)
            return rows * len(made) / (time.perf_counter() - start)

        compute(8, list(range(100_000, 100_000 + 4 * WORKERS)))
        yield compute


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
