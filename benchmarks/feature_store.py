"""Features by table and by id against Feast's, and batches of patches against xbatcher's.

Both sides hold the same numbers on the same disk and take turns in one process; times are medians
by the clock. *Rows of a table*: features of 5,000 of 20,000 samples in random order, beside the
table's own column, as a pandas frame (Feast: one column of lists in Parquet, its file store, joined
at a point in time). *By id*: what a service asks for. Feast reads SQLite, into which everything had
to be copied first; wavemill reads the store, or memory if everything was loaded first. *Patches*:
an epoch of all squares of fields, in batches for torch; xbatcher reads the Zarr folder that xarray
writes of the same fields, with chunks that xarray chooses.

Feast and xbatcher are not dependencies: install them yourself (``pip install feast xbatcher``).
"""

from __future__ import annotations

import contextlib
import datetime
import io
import tempfile
import time
import warnings
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import xarray as xr
from torch.utils.data import DataLoader

from benchmarks import measure, tables
from flows import features, ingest
from storage import FeatureFrame, open_store
from tasks.fields import FieldOptions

SAMPLES, SIDE, J = 20_000, 16, 4  # 417 coefficients, one number each
ASKED = (1, 100, 1000)
JOINED = 5_000
FIELDS, WIDTH, PATCH, BATCH = 512, 128, 32, 64
ROUNDS = 7
MOMENT = pd.Timestamp("2026-01-01", tz="UTC")


def main() -> None:
    """Measure and write the table."""
    warnings.filterwarnings("ignore")  # Feast's own use of pandas
    with tempfile.TemporaryDirectory() as folder:
        rows = [*by_table_and_id(Path(folder)), *by_patches(Path(folder))]
    using = tables.versions("feast", "xbatcher", "zarr", "pandas", "xarray", "numpy")
    tables.write("feature_store", "Feature store", (__doc__ or "").split("\n\n")[1], rows, using)


def by_table_and_id(folder: Path) -> Iterator[dict[str, Any]]:
    """Compare queries of features."""
    frame = stored(folder)
    generator = np.random.default_rng(0)
    ids = generator.permutation(frame.samples["sample_id"].to_numpy(dtype=object))
    feast, copying = fed(folder / "feast", frame)
    table = pd.DataFrame({"sample_id": ids[:JOINED], "weight": np.arange(JOINED)})
    moments = table.assign(event_timestamp=MOMENT + pd.Timedelta(days=1))
    names = ["scattering:values"]
    ours = frame.join(table).read(frame.join(table).samples)
    theirs = feast.get_historical_features(entity_df=moments, features=names).to_df()
    theirs = theirs.set_index("sample_id").loc[list(table["sample_id"]), "values"]
    np.testing.assert_array_equal(ours.reshape(JOINED, -1), np.stack(list(theirs)))

    def as_table() -> object:
        return frame.join(table).to_pandas()

    def as_table_by_feast() -> object:
        return feast.get_historical_features(entity_df=moments, features=names).to_df()

    calls = {"wavemill": as_table, "peer": as_table_by_feast}
    width = len(frame.coefficients)
    yield row(f"{JOINED} rows of a table, {width} features", "Feast", calls)
    start = time.perf_counter()
    held = frame.load()
    loading = 1e3 * (time.perf_counter() - start)
    for count in ASKED:
        asked = [list(ids[start : start + count]) for start in range(0, 4 * count, count)]

        def by_id(of: FeatureFrame, asked: list[list[str]] = asked) -> None:
            for some in asked:
                of.lookup(some)

        def by_id_by_feast(asked: list[list[str]] = asked) -> None:
            for some in asked:
                rows = [{"sample_id": name} for name in some]
                feast.get_online_features(features=names, entity_rows=rows).to_dict()

        for of, before in ((frame, ""), (held, f", loaded (in {loading:.0f} ms)")):
            calls = {"wavemill": partial(by_id, of), "peer": by_id_by_feast}
            what = f"{count} by id{before}"
            yield row(what, f"Feast (copied in {copying:.0f} s)", calls, len(asked))


def row(
    what: str, peer: str, calls: dict[str, measure.Call], each: int = 1, rounds: int = ROUNDS
) -> dict[str, Any]:
    """Return a line of the table."""
    spent = measure.seconds(calls, rounds)
    ours, theirs = spent["wavemill"] / each, spent["peer"] / each
    return {
        "what": what,
        "peer": peer,
        "wavemill (ms)": f"{1e3 * ours:.3g}",
        "peer (ms)": f"{1e3 * theirs:.3g}",
        "ratio": f"{theirs / ours:.1f}",
    }


def stored(folder: Path) -> FeatureFrame:
    """Ingest small fields and compute a view of them."""
    np.save(folder / "small.npy", noise(SAMPLES, SIDE))
    url = str(folder / "store")
    options = FieldOptions(slice="0:all", periodic=True)
    ingest("small", [str(folder / "small.npy")], url, options, cluster="threads")
    features("small", "scattering", store=url, parameters={"J": J}, cluster="threads")
    return open_store(url).get_historical_features("small", view="scattering")


def fed(folder: Path, frame: FeatureFrame) -> tuple[Any, float]:
    """Give the same features to Feast; return its store, and the seconds that copying took."""
    from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig
    from feast.types import Array, Float32

    folder.mkdir()
    values = frame.read(frame.samples).reshape(len(frame), -1)
    lists = pa.FixedSizeListArray.from_arrays(values.ravel(), values.shape[1])
    columns = {
        "sample_id": list(frame.samples["sample_id"]),
        "event_timestamp": pa.array([MOMENT] * len(frame)),
        "values": lists.cast(pa.list_(pa.float32())),
    }
    pq.write_table(pa.table(columns), folder / "features.parquet")
    store = FeatureStore(
        config=RepoConfig(
            project="benchmark",
            provider="local",
            registry=str(folder / "registry.db"),
            online_store={"type": "sqlite", "path": str(folder / "online.db")},
            offline_store={"type": "file"},
            entity_key_serialization_version=3,
        )
    )
    entity = Entity(name="sample", join_keys=["sample_id"])
    source = FileSource(path=str(folder / "features.parquet"), timestamp_field="event_timestamp")
    view = FeatureView(
        name="scattering",
        entities=[entity],
        schema=[Field(name="values", dtype=Array(Float32))],
        source=source,
        ttl=datetime.timedelta(days=10_000),
    )
    start = time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        store.apply([entity, view])
        day = datetime.timedelta(days=1)
        store.materialize(MOMENT.to_pydatetime() - day, MOMENT.to_pydatetime() + day)
    return store, time.perf_counter() - start


def by_patches(folder: Path) -> Iterator[dict[str, Any]]:
    """Compare epochs of patches."""
    import xbatcher
    from xbatcher.loaders.torch import MapDataset

    fields = noise(FIELDS, WIDTH)
    np.save(folder / "large.npy", fields)
    url = str(folder / "store")
    options = FieldOptions(slice="0:all", periodic=True)
    ingest("large", [str(folder / "large.npy")], url, options, cluster="threads")
    ours = open_store(url).dataset("large").to_torch(patch=PATCH)
    xr.DataArray(fields, dims=("sample", "y", "x"), name="field").to_zarr(folder / "large.zarr")
    lazy = xr.open_zarr(folder / "large.zarr")["field"]

    def patches(array: xr.DataArray, samples: int) -> Any:
        squares = {"sample": samples, "y": PATCH, "x": PATCH}
        return MapDataset(xbatcher.BatchGenerator(array, squares, preload_batch=False))

    def mixed() -> None:
        assert sum(len(batch) for batch in ours.shuffled(BATCH, seed=0)) == len(ours)

    def ordered() -> None:
        assert sum(len(batch) for batch in DataLoader(ours, BATCH)) == len(ours)

    def mixed_by_xbatcher(array: xr.DataArray) -> None:
        batches = DataLoader(patches(array, 1), BATCH, shuffle=True)
        assert sum(len(batch) for batch in batches) == len(ours)

    def ordered_by_xbatcher() -> None:
        batches = DataLoader(patches(lazy, BATCH), batch_size=None)
        assert sum(len(batch) for batch in batches) == len(ours)

    many = f"{len(ours)} patches of {PATCH}^2"
    held = lazy.compute()
    for what, call, peer in (
        ("in random order", mixed, lambda: mixed_by_xbatcher(lazy)),
        ("in random order, xbatcher's from memory", mixed, lambda: mixed_by_xbatcher(held)),
        ("in order, xbatcher's of 64 samples", ordered, ordered_by_xbatcher),
    ):
        yield row(f"{many} {what}", "xbatcher", {"wavemill": call, "peer": peer}, rounds=3)


def noise(count: int, side: int) -> Any:
    """Return white fields ``(count, side, side)``."""
    values = np.random.default_rng(0).standard_normal((count, side, side), dtype=np.float32)
    return values


if __name__ == "__main__":
    main()
