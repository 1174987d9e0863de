"""Ingestion of photographs, against decoding and resizing them in a pool of processes.

The pipeline searches for nothing: its inputs are listed beforehand. Timed is what workers do, from
the first submission to the last manifest: read, hash, decode, resize, checksum and write, one Dask
task a part, on warm worker processes of one thread. Bare: as many processes that read the same
files, decode and resize them by the same functions of the same library, and drop the results. The
two take turns, and each turn of the pipeline is compared with the mean of the bare turns before and
after it, since the speed of a machine drifts; the ratio is the median over turns. Since others may
be using the machine, the processor time of each side, over all its processes, is given too. The
photographs are the hundred of ImageNet in `../shared/data`, repeated under new names; the result is
224 x 224, in 48 parts of 445 (64 MiB, the default).
"""

from __future__ import annotations

import contextlib
import io
import itertools
import multiprocessing
import shutil
import statistics
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from multiprocessing.pool import Pool
from pathlib import Path
from typing import Any

import psutil

from benchmarks import tables
from flows.runtime import open_cluster
from storage import open_store
from storage.readers.images import Framing, decode
from tasks.images import ImageOptions
from tasks.ingest import PartOutcome, ingest_part
from tasks.mapping import map_parts
from tasks.planning import batches, choose_schema, find_inputs, plan

WORKERS = 2
ROUNDS = 3
CLASSES, OF_A_CLASS = 80, 267  # 48 parts of 445; waiting for the last ones is 2 % of the whole
SIZE = (224, 224)
SAMPLES = Path(__file__).parents[2] / "shared" / "data" / "imagenet" / "sample_images"


def main() -> None:
    """Measure and write the table."""
    with tempfile.TemporaryDirectory() as folder:
        files = photographs(Path(folder))
        rows = [
            measure("folder of a class each", Path(folder) / "train", files),
            measure("tar of tars", archive(Path(folder)), files),
        ]
    using = tables.versions("pillow", "dask", "distributed", "zarr", "numpy")
    text = " ".join((__doc__ or "").split("\n\n")[1].split())
    tables.write("images", "Ingestion of images", text, rows, using)


def photographs(folder: Path) -> list[Path]:
    """Write the photographs and return their paths."""
    scenes = [file.read_bytes() for file in sorted(SAMPLES.glob("*.JPEG"))]
    made = []
    for number in range(CLASSES * OF_A_CLASS):
        path = folder / "train" / f"n{number % CLASSES:08d}" / f"{number:06d}.JPEG"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(scenes[number % len(scenes)])
        made.append(path)
    return made


def archive(folder: Path) -> Path:
    """Return the same photographs as a tar of tars, as ILSVRC2012 comes."""
    place = folder / "ILSVRC2012_img_train.tar"
    with tarfile.open(place, "w") as outer:
        for wnid in sorted((folder / "train").iterdir()):
            content = io.BytesIO()
            with tarfile.open(fileobj=content, mode="w") as inner:
                for file in sorted(wnid.iterdir()):
                    inner.add(file, file.name)
            info = tarfile.TarInfo(f"{wnid.name}.tar")
            info.size = content.tell()
            content.seek(0)
            outer.addfile(info, content)
    return place


def measure(what: str, source: Path, files: list[Path]) -> dict[str, Any]:
    """Return the throughputs for one source, in images a second."""
    with bare_processes(files) as decode_all, pipeline(source) as ingest_all:
        turns = [turn(files, work) for work in (decode_all, *[ingest_all, decode_all] * ROUNDS)]
    bare, whole = ([speed for speed, _ in turns[first::2]] for first in (0, 1))
    ratios = [2 * w / sum(pair) for w, pair in zip(whole, itertools.pairwise(bare), strict=True)]
    each = [statistics.median(spent for _, spent in turns[first::2]) for first in (0, 1)]
    size = sum(file.stat().st_size for file in files) / len(files)
    return {
        "source": what,
        "images": f"{ROUNDS} x {len(files)} of {size / 1e3:.0f} kB",
        "bare (images/s)": f"{statistics.median(bare):.0f}",
        "pipeline (images/s)": f"{statistics.median(whole):.0f}",
        "ratio": f"{100 * statistics.median(ratios):.0f} %",
        "ratios": ", ".join(f"{100 * ratio:.0f}" for ratio in ratios),
        "processors (ms an image)": f"{each[0]:.2f} bare, {each[1]:.2f}",
        "their ratio": f"{100 * each[0] / each[1]:.0f} %",
    }


def turn(files: list[Path], work: Callable[[], float]) -> tuple[float, float]:
    """Return the images a second of one turn, and the processor milliseconds an image."""
    before = processors()
    speed = len(files) / work()
    return speed, 1e3 * (processors() - before) / len(files)


def processors() -> float:
    """Return the processor seconds that this process and all its children have used."""
    me = psutil.Process()
    times = [process.cpu_times() for process in (me, *me.children(recursive=True))]
    return float(sum(time.user + time.system for time in times))


@contextlib.contextmanager
def bare_processes(files: list[Path]) -> Iterator[Callable[[], float]]:
    """Open a pool with its modules loaded; yield what decodes all files and returns seconds."""
    with multiprocessing.get_context("spawn").Pool(WORKERS) as pool:
        pool.map(decoded, files[: 8 * WORKERS], chunksize=1)
        yield partial(bare_seconds, pool, files)


def bare_seconds(pool: Pool, files: list[Path]) -> float:
    """Return the time that the pool takes for all files."""
    start = time.perf_counter()
    for _ in pool.imap_unordered(decoded, files, chunksize=32):
        pass
    return time.perf_counter() - start


def decoded(file: Path) -> int:
    """Read, decode and resize one photograph."""
    image, _ = decode(file.read_bytes())
    return int(Framing(SIZE)(image)[0, 0, 0])


@contextlib.contextmanager
def pipeline(source: Path) -> Iterator[Callable[[], float]]:
    """Open warm workers; yield what ingests the source anew and returns seconds.

    They count from the first submission to the last manifest.
    """
    options = ImageOptions(size=SIZE)
    with tempfile.TemporaryDirectory() as folder, open_cluster(f"local:{WORKERS}") as address:
        turns = iter(range(1000))

        def ingest_all(most: int | None = None) -> float:
            url = str(Path(folder) / str(next(turns)))
            store = open_store(url)
            inputs, _ = find_inputs([str(source)], options)
            schema = choose_schema(store, "photographs", inputs, options)
            groups = batches(plan(store, "photographs", schema, inputs, options), options)
            work = partial(ingest_part, url, schema, options)
            start = time.perf_counter()
            made: list[PartOutcome] = map_parts(
                work, [(group[:most], {}) for group in groups], address=address
            )
            spent = time.perf_counter() - start
            rows = [len(outcome.rows) for outcome in made]
            assert rows == [len(group[:most]) for group in groups]
            shutil.rmtree(url)
            return spent

        ingest_all(8)
        yield ingest_all


if __name__ == "__main__":
    main()
