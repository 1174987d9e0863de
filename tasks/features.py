"""Features: every part of a dataset through one transform, part by part on the workers."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import zarr

from storage import InvalidRequest, Schema, Store, ViewVersion, open_store
from storage.arrays import create_array, row_bytes, shard_rows
from storage.documents import Document
from storage.molecules import read_part_atoms
from storage.parts import FEATURES, read_rows
from storage.records import PartRef
from storage.shards import write_shard
from storage.typing import Array
from tasks.mapping import giving_way
from tasks.views import Operator, operator

BATCH_BUDGET = 32 * 2**20  # small working sets stay near the processor


@dataclass(frozen=True)
class FeatureOutcome:
    """What a worker did with one part."""

    dataset_part: str
    key: str
    written: bool
    row_shape: tuple[int, ...]
    dtype: str


class NotFinite(InvalidRequest):
    """Features of a row of a part overflow, or are undefined."""

    def __init__(self, part: str, row: int) -> None:
        super().__init__(part, row)
        self.part, self.row = part, row

    def __str__(self) -> str:
        return self.of(f"row {self.row} of part {self.part[:12]}")

    def of(self, sample: str) -> str:
        """Return the message for a sample by its name."""
        return (
            f"features of {sample} are not finite: its values are too large or too small for their "
            "precision; --set dtype=float64, or ingest it in other units"
        )


def compute_part(
    url: str, spec: Document, schema: Schema, device: str, part: PartRef
) -> FeatureOutcome:
    """Transform one part of a dataset and write the part of features (runs on a worker)."""
    store = open_store(url)
    transform = operator(spec, schema, device)

    def write(group: zarr.Group) -> dict[str, Any]:
        shape, dtype = transform_rows(url, transform, schema, part, group)
        return {"rows": part.rows, "row_shape": list(shape), "dtype": dtype}

    threads = torch.get_num_threads()
    manifest, written = store.write_part(spec, [part.key], write, device=device, threads=threads)
    meta = manifest["meta"]
    return FeatureOutcome(
        part.key, manifest["key"], written, tuple(meta["row_shape"]), meta["dtype"]
    )


def transform_rows(
    url: str, transform: Operator, schema: Schema, part: PartRef, group: zarr.Group
) -> tuple[tuple[int, ...], str]:
    """Stream a part through the transform; reading, computing and writing overlap.

    One thread reads the next shard and one writes the last while this one computes, batch by
    batch; :func:`projected_memory` counts what is held.
    """
    if schema.layout == "molecules":
        return transform_molecules(url, transform, part, group)
    size = batch_rows(transform, schema, part.rows)
    with ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(1) as writer:
        shards = _Shards(group, part, writer)
        for samples in _prefetched(reader, url, part, schema):
            for start in range(0, len(samples), size):
                shards.append(transform(samples[start : start + size]))
        array = shards.close()
    return array.shape[1:], str(array.dtype)


def transform_molecules(
    url: str, transform: Operator, part: PartRef, group: zarr.Group
) -> tuple[tuple[int, ...], str]:
    """Transform the molecules of a part, which fit in memory, batch by batch."""
    atoms = read_part_atoms(url, part.key)
    size = min(part.rows, transform.batch(_budget(transform)))
    with ThreadPoolExecutor(1) as writer:
        shards = _Shards(group, part, writer)
        for start in range(0, part.rows, size):
            rows = np.arange(start, min(start + size, part.rows))
            shards.append(transform.of_molecules(atoms.take(rows)))
        array = shards.close()
    return array.shape[1:], str(array.dtype)


class _Shards:
    """Gathers batches and writes whole shards in a thread, one at a time.

    A shard written in two pieces would be read back and compressed again. Features that are not
    finite are refused, except in withdrawn rows.
    """

    def __init__(self, group: zarr.Group, part: PartRef, writer: ThreadPoolExecutor) -> None:
        self.group, self.part, self.rows, self.writer = group, part, part.rows, writer
        self.array: zarr.Array[Any] | None = None
        self.filling: Array | None = None
        self.written = self.held = 0
        self.writing: Future[None] | None = None

    def append(self, features: Array) -> None:
        """Copy a batch into the shard being filled, writing each that is full."""
        self._check(features)
        if self.array is None:
            self.array = _create(self.group, self.rows, features)
        while len(features):
            if self.filling is None:
                size = min(_shard(self.array), self.rows - self.written)
                self.filling = np.empty((size, *features.shape[1:]), features.dtype)
            taken = features[: len(self.filling) - self.held]
            self.filling[self.held : self.held + len(taken)] = taken
            self.held += len(taken)
            features = features[len(taken) :]
            if self.held == len(self.filling):
                self._flush()

    def _check(self, features: Array) -> None:
        with np.errstate(all="ignore"):
            if np.isfinite(features.sum(dtype="float64")):  # only if all are; nothing is copied
                return
        live = set(self.part.live)
        for row, values in enumerate(features, self.written + self.held):
            if row in live and not np.isfinite(values).all():
                raise NotFinite(self.part.key, row)

    def _flush(self) -> None:
        assert self.array is not None
        assert self.filling is not None
        if self.writing is not None:
            self.writing.result()
        number = self.written // _shard(self.array)
        self.writing = self.writer.submit(write_shard, self.array, number, self.filling)
        self.written, self.held, self.filling = self.written + self.held, 0, None

    def close(self) -> zarr.Array[Any]:
        """Wait for the last shard while the worker begins another part; return the array."""
        if self.array is None or self.writing is None:
            raise ValueError("a part without rows has no features")
        with giving_way():
            self.writing.result()
        return self.array


def _prefetched(
    reader: ThreadPoolExecutor, url: str, part: PartRef, schema: Schema
) -> Iterator[Array]:
    """Yield the rows of one shard after another; the next one is read meanwhile."""
    shard, name = shard_rows(schema.row_shape, schema.dtype), schema.array
    starts = range(0, part.rows, shard)
    ranges = [range(start, min(start + shard, part.rows)) for start in starts]
    pending = reader.submit(read_rows, url, part.key, name, ranges[0])
    for following in [*ranges[1:], None]:
        samples = pending.result()
        if following is not None:
            pending = reader.submit(read_rows, url, part.key, name, following)
        yield samples


def _create(group: zarr.Group, rows: int, features: Array) -> zarr.Array[Any]:
    dims = ("sample", "coefficient", "y", "x")[: features.ndim]
    return create_array(group, FEATURES, rows, features.shape[1:], str(features.dtype), dims)


def _shard(array: zarr.Array[Any]) -> int:
    return int(array.shards[0]) if array.shards else int(array.shape[0])


def batch_rows(transform: Operator, schema: Schema, rows: int) -> int:
    """Return the rows of a batch: as many as the memory budget allows, at most an input shard."""
    return min(
        rows, transform.batch(_budget(transform)), shard_rows(schema.row_shape, schema.dtype)
    )


def _budget(transform: Operator) -> int:
    if transform.device.type == "cuda":
        return torch.cuda.mem_get_info(transform.device)[0] // 2
    return BATCH_BUDGET


def projected_memory(transform: Operator, schema: Schema, features: tuple[int, ...]) -> int:
    """Return a bound on what :func:`compute_part` holds at once, in bytes.

    It counts two shards of input and one as it was read; the transform's work and result; and of
    the output the shard being filled, the one being written, its compressed chunks and what they
    are joined to. While the part before is still being written, a worker holds that as well.
    """
    given, made = (schema.row_shape, schema.dtype), (features, transform.dtype)
    size, read = batch_rows(transform, schema, 2**62), shard_rows(*given) * row_bytes(*given)
    written = (4 * shard_rows(*made) + size) * row_bytes(*made)
    return 3 * read + transform.memory(size) + written


def publish(
    store: Store,
    dataset: str,
    view: str,
    spec: Document,
    version: int,
    outcomes: list[FeatureOutcome],
    schema: Schema,
) -> ViewVersion:
    """Publish a view version with everything that is computed."""
    table = store.write_table(operator(spec, schema).coefficients)
    parts = {outcome.dataset_part: outcome.key for outcome in outcomes}
    first = outcomes[0]
    made = ViewVersion(spec, version, table, first.row_shape, first.dtype, parts)
    return store.publish_view(dataset, view, made)


def known_parts(store: Store, dataset: str, view: str) -> dict[str, FeatureOutcome]:
    """Return the parts that the newest version of a view holds and that are still there."""
    latest = store.view_versions(dataset, view).latest()
    if latest is None:
        return {}
    version = ViewVersion.from_json(latest)
    lost = set(store.missing_parts(list(version.parts.values())))
    return {
        source: FeatureOutcome(source, key, False, version.row_shape, version.dtype)
        for source, key in version.parts.items()
        if key not in lost
    }
