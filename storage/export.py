"""Writing a query's result to a file, streaming where the format allows."""

from __future__ import annotations

import contextlib
import shutil
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from storage.errors import InvalidRequest, room_for
from storage.features import FeatureFrame


def export(frame: FeatureFrame, target: Path) -> Path:
    """Write features in the format that the ending of ``target`` names.

    ``.parquet`` and ``.csv`` hold one row a sample, maps averaged over space; ``.nc``,
    ``.zarr`` and ``.npz`` hold the maps. An existing file is replaced once the new one is
    whole.

    Raises
    ------
    InvalidRequest
        If the ending is none of these.
    """
    writers: dict[str, Callable[[FeatureFrame, Path], None]] = {
        ".parquet": _parquet,
        ".csv": _csv,
        ".nc": _netcdf,
        ".zarr": _zarr,
        ".npz": _npz,
    }
    if target.suffix not in writers:
        raise InvalidRequest(f"--to {target}: choose one of {' '.join(writers)}")
    with replacing(target) as partial:
        writers[target.suffix](frame, partial)
    return target


@contextlib.contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """Yield a path to write to, which takes the place of ``target`` once the block has succeeded.

    A file is replaced at one instant; a Zarr folder is removed before the new one takes its place.

    Raises
    ------
    InvalidRequest
        If ``target`` is a folder of anything else.
    NoRoom
        If the disk is full.
    """
    if target.is_dir() and not (target.suffix == ".zarr" and (target / "zarr.json").is_file()):
        raise InvalidRequest(f"{target} is a folder, which is not replaced: choose another name")
    partial = target.with_name(f".{uuid.uuid4().hex[:8]}-{target.name}")
    try:
        with room_for(target, "write it elsewhere"):
            target.parent.mkdir(parents=True, exist_ok=True)
            yield partial
            if target.is_dir():
                shutil.rmtree(target)
            partial.replace(target)
    finally:
        if partial.is_dir():
            shutil.rmtree(partial)
        partial.unlink(missing_ok=True)


def _parquet(frame: FeatureFrame, target: Path) -> None:
    writer = None
    for samples, features in frame.batches():
        table = pa.Table.from_pandas(frame.table(samples, features), preserve_index=False)
        writer = writer or pq.ParquetWriter(target, table.schema, compression="zstd")
        writer.write_table(table.cast(writer.schema))
    if writer is None:
        frame.to_pandas().to_parquet(target)
    else:
        writer.close()


def _csv(frame: FeatureFrame, target: Path) -> None:
    header = True
    for samples, features in frame.batches():
        frame.table(samples, features).to_csv(target, mode="a", header=header, index=False)
        header = False
    if header:
        frame.to_pandas().to_csv(target, index=False)


def _netcdf(frame: FeatureFrame, target: Path) -> None:
    frame.to_xarray().to_dataset(name="features").to_netcdf(target, engine="h5netcdf")


def _zarr(frame: FeatureFrame, target: Path) -> None:
    array = frame.to_xarray()
    for name, coordinate in array.coords.items():
        if coordinate.dtype == object:  # Zarr v3 specifies text of variable width, not objects
            array[name] = coordinate.astype(np.dtypes.StringDType())
    array = array.chunk({"sample": max(1, min(1024, len(frame)))})
    array.to_dataset(name="features").to_zarr(target, consolidated=False, zarr_format=3)


def _npz(frame: FeatureFrame, target: Path) -> None:
    features = frame.to_xarray().compute()
    names = frame.coefficients["name"].to_numpy(dtype=str)
    ids = frame.samples["sample_id"].to_numpy(dtype=str)
    with target.open("wb") as file:
        np.savez_compressed(file, features=features.values, sample_id=ids, coefficient=names)
