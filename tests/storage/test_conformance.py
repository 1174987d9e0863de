"""What every backend must do: one class, run against each."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import resource
import stat
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import numpy as np
import pandas as pd
import pytest
import s3fs
import torch
import xarray as xr
import zarr
from botocore.exceptions import ClientError, EndpointConnectionError
from zarr.codecs import BloscCodec, Crc32cCodec

from storage import (
    Change,
    Conflict,
    Damaged,
    InvalidRequest,
    Newer,
    NoRoom,
    NotFound,
    PartRef,
    Schema,
    Store,
    ViewVersion,
    open_store,
)
from storage.arrays import create_array, layout
from storage.backends import open_backend
from storage.collect import Retention, collect
from storage.documents import read_document, seal
from storage.export import replacing
from storage.keys import derivation_key, digest
from storage.leases import collector_lease, run_lease
from storage.parts import part_home, read_rows, read_whole
from storage.patches import CORNER
from storage.removal import named, remove
from storage.shards import write_rows, write_shard
from storage.verify import repair, verify

SCHEMA = Schema("vorticity", ("vorticity",), (8, 6), spacing=(0.5, 0.25))
INGEST = {"kind": "ingest", "parameters": {}, "algorithm": 1}
VIEW = {"kind": "double", "parameters": {"by": 2}, "algorithm": 1}


@pytest.fixture(params=["local", "memory", "s3"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty place for a store on each backend."""
    match request.param:
        case "local":
            return str(tmp_path / "store")
        case "memory":
            return f"memory://{uuid4().hex}"
        case _:
            return str(request.getfixturevalue("bucket")) + "/store"


@pytest.fixture
def store(url: str) -> Store:
    """An empty store, open for writing."""
    return open_store(url, writable=True)


def fields(rows: int, seed: int) -> np.ndarray[Any, Any]:
    """Random fields of the schema's shape."""
    return np.random.default_rng(seed).standard_normal((rows, 8, 6)).astype("float32")


def filler(data: np.ndarray[Any, Any], name: str, dims: list[str]) -> Callable[[zarr.Group], Any]:
    """Return a function that writes ``data`` as a part's array."""

    def write(group: zarr.Group) -> dict[str, Any]:
        array = create_array(group, name, len(data), data.shape[1:], str(data.dtype), dims)
        array[:] = data
        return {"rows": len(data)}

    return write


def add_part(store: Store, seed: int, rows: int = 5) -> tuple[PartRef, pd.DataFrame]:
    """Write a part of fields and return it with its rows of the sample table."""
    write = filler(fields(rows, seed), "fields", ["sample", "y", "x"])
    manifest, _ = store.write_part(INGEST, [seed], write)
    table = pd.DataFrame(
        {
            "sample_id": [f"s{seed}-{row}" for row in range(rows)],
            "part": manifest["key"],
            "row": range(rows),
            "unit": [f"file{seed}"] * rows,
            "sha256": f"{seed}" * 4,
            "reynolds": [100.0 * seed + row for row in range(rows)],
        }
    )
    return PartRef(manifest["key"], rows), table


def add_dataset(store: Store, seeds: tuple[int, ...] = (1, 2), name: str = "flow") -> None:
    """Publish a version with a part for each seed."""
    parts, tables = zip(*(add_part(store, seed) for seed in seeds), strict=True)
    samples = pd.concat(tables, ignore_index=True)
    store.change_dataset(name, Change(SCHEMA, parts=tuple(parts), samples=samples))


def add_view(store: Store, name: str = "flow", view: str = "double") -> ViewVersion:
    """Publish a view whose two coefficients are the field and twice the field."""
    dataset = store.dataset(name)
    parts = {}
    for part in dataset.version.parts:
        data = np.stack([fields_of(store, part.key), 2 * fields_of(store, part.key)], axis=1)
        write = filler(data, "features", ["sample", "coefficient", "y", "x"])
        manifest, _ = store.write_part(VIEW, [part.key], write)
        parts[part.key] = manifest["key"]
    table = pd.DataFrame({"name": ["S0", "S1"], "order": [0, 1], "j1": [-1, 0]})
    version = ViewVersion(
        VIEW, dataset.version.version, store.write_table(table), (2, 8, 6), "float32", parts
    )
    return store.publish_view(name, view, version)


def fields_of(store: Store, key: str) -> np.ndarray[Any, Any]:
    """Read a whole part."""
    rows = store.part_manifest(key)["meta"]["rows"]
    return read_rows(store.url, key, "fields", range(rows))


class TestStore:
    def test_exclusive_creation_has_one_winner(self, store: Store) -> None:
        """Eight writers at once, one name, one winner."""
        gate = threading.Barrier(8)

        def create(number: int) -> bool:
            gate.wait()
            return store.backend.create("datasets/x/1.json", b"%d" % number)

        with ThreadPoolExecutor(8) as pool:
            won = list(pool.map(create, range(8)))
        assert won.count(True) == 1
        assert store.backend.read("datasets/x/1.json") == b"%d" % won.index(True)

    def test_a_lost_answer_to_the_probe_is_not_taken_for_creating_twice(
        self, store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The client asks again, and is told that the name is taken: by itself. Nothing stays."""
        create, answers = store.backend.create, iter([False])

        def unheard(path: str, data: bytes) -> bool:
            return create(path, data) and next(answers, True)

        monkeypatch.setattr(store.backend, "create", unheard)
        assert store.backend.enforces_exclusive_creation()
        assert list(store.backend.walk("leases")) == []

    def test_a_range_of_an_object_is_what_was_asked(self, store: Store) -> None:
        """Ranges from the start, from the end, and within."""
        store.backend.write("a/b", b"0123456789")
        assert store.backend.read("a/b", 2, 5) == b"234"
        assert store.backend.read("a/b", -3) == b"789"
        assert store.backend.read("a/b") == b"0123456789"
        assert [(e.path, e.size) for e in store.backend.walk("a")] == [("a/b", 10)]
        with pytest.raises(FileNotFoundError):
            store.backend.read("a/c")

    def test_fields_come_back_bit_for_bit(self, store: Store) -> None:
        """What was written is read, in order, with its labels and its grid."""
        add_dataset(store)
        array = store.dataset("flow").to_xarray()
        assert array.dims == ("sample", "y", "x")
        assert array.chunks is not None
        np.testing.assert_array_equal(array.values, np.concatenate([fields(5, 1), fields(5, 2)]))
        assert list(array.sample_id.values[:2]) == ["s1-0", "s1-1"]
        np.testing.assert_allclose(array.y, 0.5 * np.arange(8), rtol=0)
        rows = store.dataset("flow").samples().iloc[[7, 0]]
        np.testing.assert_array_equal(store.dataset("flow").read(rows), array.values[[7, 0]])
        with pytest.raises(InvalidRequest, match="holds fields"):
            store.dataset("flow").read_atoms(rows)

    def test_opening_and_listing_read_no_part(self, store: Store, url: str) -> None:
        """Damage every shard: listing and planning do not notice."""
        add_dataset(store)
        for entry in list(store.backend.walk("parts")):
            store.backend.write(entry.path, b"")
        again = open_store(url)
        assert again.datasets() == ["flow"]
        assert again.dataset("flow").to_xarray().shape == (10, 8, 6)

    def test_the_same_part_is_computed_once(self, store: Store) -> None:
        """A second writer of the same derivation uses the first one's part."""
        write = filler(fields(5, 1), "fields", ["sample", "y", "x"])
        first, wrote = store.write_part(INGEST, [1], write)
        again, rewrote = store.write_part(INGEST, [1], write)
        assert (wrote, rewrote) == (True, False)
        assert first == again
        assert first["key"] == derivation_key(INGEST, [1])

    def test_a_loser_of_a_part_removes_its_attempt(self, store: Store) -> None:
        """Two writers that both began: one manifest, one attempt left."""
        write = filler(fields(5, 1), "fields", ["sample", "y", "x"])

        def slow(group: zarr.Group) -> Any:
            store.write_part(INGEST, [1], write)
            return write(group)

        _, wrote = store.write_part(INGEST, [1], slow)
        attempts = {e.path.split("/")[3] for e in store.backend.walk("parts")}
        assert not wrote
        assert len(attempts) == 2  # manifest.json and the winner's folder

    def test_a_failed_attempt_leaves_nothing(self, store: Store) -> None:
        """An exception while writing removes what was written."""

        def fail(group: zarr.Group) -> Any:
            filler(fields(5, 1), "fields", ["sample", "y", "x"])(group)
            raise RuntimeError("disk on fire")

        with pytest.raises(RuntimeError, match="disk on fire"):
            store.write_part(INGEST, [1], fail)
        assert list(store.backend.walk("parts")) == []

    @pytest.mark.parametrize("answer", ["taken", "none"])
    def test_an_attempt_that_won_stays_whatever_its_writer_was_told(
        self, store: Store, answer: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """An answer that was lost, after which the client asked again; and a Ctrl-C meanwhile."""
        create, write = store.backend.create, filler(fields(5, 1), "fields", ["sample", "y", "x"])

        def unheard(path: str, data: bytes) -> bool:
            create(path, data)
            if answer == "none":
                raise KeyboardInterrupt
            return False

        monkeypatch.setattr(store.backend, "create", unheard)
        if answer == "none":
            with pytest.raises(KeyboardInterrupt):
                store.write_part(INGEST, [1], write)
        else:
            manifest, wrote = store.write_part(INGEST, [1], write)
            assert wrote
            assert manifest == store.part_manifest(manifest["key"])
        monkeypatch.undo()
        assert list(verify(store)) == []
        key = derivation_key(INGEST, [1])
        np.testing.assert_array_equal(fields_of(store, key), fields(5, 1))

    def test_simultaneous_changes_are_merged(self, store: Store) -> None:
        """Six writers add a part each: all six are in the newest version."""
        made = [add_part(store, seed) for seed in range(6)]

        def change(item: tuple[PartRef, pd.DataFrame]) -> None:
            store.change_dataset("flow", Change(SCHEMA, parts=(item[0],), samples=item[1]))

        with ThreadPoolExecutor(6) as pool:
            list(pool.map(change, made))
        assert store.dataset("flow").version.count == 30
        assert len(store.dataset("flow").samples()) == 30
        assert [v.version for v in store.versions("flow")] == [1, 2, 3, 4, 5, 6]

    def test_the_same_change_again_makes_no_version(self, store: Store) -> None:
        """Two identical runs publish one version."""
        add_dataset(store)
        add_dataset(store)
        assert [v.version for v in store.versions("flow")] == [1]

    def test_relabelling_and_withdrawing_copy_no_array(self, store: Store) -> None:
        """New versions, the same objects; the old versions stay as they were."""
        add_dataset(store)
        before = {e.path for e in store.backend.walk("parts")}
        labels = pd.DataFrame({"sample_id": ["s1-0", "s2-4"], "kind": ["calm", "wild"]})
        store.dataset("flow").relabel(labels)
        store.dataset("flow").withdraw(["s1-1"])
        assert {e.path for e in store.backend.walk("parts")} == before
        newest = store.dataset("flow").samples()
        assert len(newest) == 9
        assert newest.set_index("sample_id").loc["s2-4", "kind"] == "wild"
        assert newest.set_index("sample_id").loc["s2-4", "reynolds"] == 204.0
        assert len(store.dataset("flow", as_of=1).samples()) == 10
        array = store.dataset("flow").to_xarray()
        np.testing.assert_array_equal(array.values[:2], fields(5, 1)[[0, 2]])

    def test_a_changed_sample_replaces_the_old_one(self, store: Store) -> None:
        """The same id from another part: the old row is withdrawn, not overwritten."""
        add_dataset(store, (1,))
        part, table = add_part(store, 7, rows=1)
        table = table.assign(sample_id="s1-3")
        store.change_dataset("flow", Change(SCHEMA, parts=(part,), samples=table))
        frame = store.dataset("flow").samples()
        assert sorted(frame["sample_id"]) == [f"s1-{row}" for row in range(5)]
        np.testing.assert_array_equal(store.dataset("flow").to_xarray().values[-1], fields(1, 7)[0])
        assert store.dataset("flow").version.parts[0].withdrawn == ((3, "replaced"),)

    def test_what_went_missing_can_come_back(self, store: Store) -> None:
        """Restoring undoes a withdrawal for absence, not one that a person asked for."""
        add_dataset(store, (1,))
        gone = Change(SCHEMA, withdraw={"s1-0": "missing", "s1-1": "request"})
        store.change_dataset("flow", gone)
        store.change_dataset("flow", Change(SCHEMA, restore=["s1-0", "s1-1"]))
        assert list(store.dataset("flow").samples()["sample_id"]) == [
            "s1-0",
            "s1-2",
            "s1-3",
            "s1-4",
        ]

    def test_contents_that_were_replaced_can_come_back(self, store: Store) -> None:
        """A file that holds again what it once held; what a person withdrew stays so."""
        made = {seed: add_part(store, seed) for seed in (1, 7)}
        ids = [f"s{row}" for row in range(5)]

        def read_again(seed: int, stamp: str) -> pd.DataFrame:
            part, table = made[seed]
            table = table.assign(sample_id=ids, unit="file", stamp=stamp)
            store.change_dataset("flow", Change(SCHEMA, parts=(part,), samples=table))
            return store.dataset("flow").samples()

        read_again(1, "first")
        store.dataset("flow").withdraw(["s4"])
        read_again(7, "second")
        samples = read_again(1, "third")
        assert list(samples["sample_id"]) == ids[:4]
        assert set(samples["part"]) == {made[1][0].key}
        assert set(samples["stamp"]) == {"third"}

    def test_what_went_missing_and_came_back_changed_comes_once(self, store: Store) -> None:
        """The old contents are replaced, too: they came back beside the new ones."""
        add_dataset(store, (1,))
        ids = list(store.dataset("flow").samples()["sample_id"])
        store.change_dataset("flow", Change(SCHEMA, withdraw=dict.fromkeys(ids, "missing")))
        part, table = add_part(store, 7)
        table = table.assign(sample_id=ids, unit="file1")
        store.change_dataset("flow", Change(SCHEMA, parts=(part,), samples=table))
        store.change_dataset("flow", Change(SCHEMA, restore=ids))
        assert list(store.dataset("flow").samples()["part"]) == [part.key] * len(ids)

    def test_quarantine_is_merged_by_unit(self, store: Store) -> None:
        """Entries not looked at stay; those looked at are replaced."""

        def refused(*units: str) -> pd.DataFrame:
            return pd.DataFrame({"unit": units, "reason": "nan", "message": "a NaN"})

        add_dataset(store, (1,))
        store.change_dataset("flow", Change(SCHEMA, seen=["a", "b"], refused=refused("a", "b")))
        store.change_dataset("flow", Change(SCHEMA, seen=["b", "c"], refused=refused("c")))
        assert list(store.dataset("flow").quarantine()["unit"]) == ["a", "c"]

    def test_versions_are_found_by_number_and_by_time(self, store: Store) -> None:
        """As of a moment between two publications, the first is what there was."""
        add_dataset(store, (1,))
        moment = store.dataset("flow").version.published
        add_dataset(store, (1, 2))
        assert store.dataset("flow", as_of=moment).version.version == 1
        assert store.dataset("flow", as_of="2").version.count == 10
        with pytest.raises(NotFound, match="no dataset 'flow' as of 2001"):
            store.dataset("flow", as_of="2001-01-01T00:00:00Z")
        with pytest.raises(NotFound, match="neither a version number nor a time"):
            store.dataset("flow", as_of="yesterday")
        with pytest.raises(NotFound, match="neither a version number nor a time"):
            store.dataset("flow", as_of="²")

    def test_features_are_selected_by_meaning(self, store: Store) -> None:
        """Rows by metadata, columns by coefficient, values those of the fields."""
        add_dataset(store)
        add_view(store)
        frame = store.get_historical_features(
            "flow", "double", where="reynolds >= 200", coefficients="order == 1 and j1 = 0"
        )
        array = frame.to_xarray()
        assert array.shape == (5, 1, 8, 6)
        np.testing.assert_array_equal(array.values[:, 0], 2 * fields(5, 2))
        assert list(array.j1.values) == [0]
        table = frame.to_pandas()
        expected = (2 * fields(5, 2)).mean(axis=(1, 2))
        np.testing.assert_allclose(table["S1"], expected, rtol=1e-5)  # float32 means
        assert list(table["reynolds"]) == [200.0, 201.0, 202.0, 203.0, 204.0]
        rows = store.dataset("flow").samples().iloc[[9, 1]]
        expected = 2 * np.concatenate([fields(5, 2)[4:], fields(5, 1)[1:2]])
        np.testing.assert_array_equal(frame.read(rows)[:, 0], expected)

    def test_keywords_are_columns_after_any_text(self, store: Store) -> None:
        """DuckDB counts bytes, of which a letter may have several."""
        add_dataset(store, (1,))
        add_view(store)
        chosen = "name != 'Öé水' and order = 1"
        frame = store.get_historical_features("flow", "double", coefficients=chosen)
        assert list(frame.coefficients["name"]) == ["S1"]

    def test_an_empty_selection_has_the_columns_all_the_same(
        self, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """No samples, no coefficients, no ids."""
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        add_dataset(store, (1,))
        add_view(store)
        columns = list(store.get_historical_features("flow", "double").to_pandas())
        nobody = store.get_historical_features("flow", "double", where="sample_id = 'nobody'")
        assert list(nobody.to_pandas()) == columns
        assert nobody.to_xarray().compute().shape == (0, 2, 8, 6)
        nothing = store.get_historical_features("flow", "double", coefficients="order = 7")
        assert list(nothing.to_pandas()) == columns[:-2]
        assert nothing.to_xarray().compute().shape == (5, 0, 8, 6)
        assert len(store.get_online_features("flow", [], view="double").to_pandas()) == 0
        with pytest.raises(InvalidRequest, match=r"\['s1-0'\]"):
            store.get_online_features("flow", "s1-0", view="double")

    def test_features_of_new_samples_are_reported_missing(self, store: Store) -> None:
        """A dataset that grew past its view yields what there is, and says so."""
        add_dataset(store, (1,))
        add_view(store)
        add_dataset(store, (1, 2))
        frame = store.get_historical_features("flow", "double")
        assert (len(frame), frame.missing) == (5, 5)
        old = store.get_historical_features("flow", "double", as_of=1)
        assert (len(old), old.missing) == (5, 0)

    def test_online_features_come_in_the_order_asked(
        self, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """By id, through an index that can be damaged and thrown away."""
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        add_dataset(store)
        add_view(store)
        for _ in range(2):
            frame = store.get_online_features("flow", ["s2-3", "s1-0"], view="double")
            values = frame.to_xarray().values
            np.testing.assert_array_equal(values[0, 0], fields(5, 2)[3])
            np.testing.assert_array_equal(values[1, 1], 2 * fields(5, 1)[0])
            for file in (tmp_path / "cache").rglob("*.sqlite"):
                file.write_bytes(b"not a database at all, but long enough to be opened as one" * 99)
        with pytest.raises(NotFound, match="no samples"):
            store.get_online_features("flow", ["nobody"], view="double")

    @pytest.mark.parametrize("loaded", [False, True])
    def test_a_frame_serves_features_by_id(self, store: Store, loaded: bool) -> None:
        """Those of its selection and version alone, in the order asked; ids may repeat."""
        add_dataset(store)
        add_view(store)
        frame = store.get_historical_features("flow", "double", "reynolds < 203", "name = 'S1'")
        frame = frame.load() if loaded else frame
        found = frame.lookup(["s2-2", "s1-0", "s2-2"])
        assert found.shape == (3, 1, 8, 6)
        for values, field in zip(found, [(2, 2), (1, 0), (2, 2)], strict=True):
            np.testing.assert_array_equal(values[0], 2 * fields(5, field[0])[field[1]])
        assert frame.lookup([]).shape == (0, 1, 8, 6)
        with pytest.raises(NotFound, match=r"no double of \['s2-3'\] in this selection of flow"):
            frame.lookup(["s1-0", "s2-3"])
        with pytest.raises(InvalidRequest, match=r"\['s1-0'\]"):
            frame.lookup("s1-0")
        again = frame.join(pd.DataFrame({"sample_id": ["s1-0", "s1-0"]}))
        with pytest.raises(InvalidRequest, match="samples repeat"):
            again.lookup(["s1-0"])

    def test_a_loaded_frame_reads_nothing_more(self, store: Store) -> None:
        """With the parts gone it still equals the lazy one, whole, cut and joined."""
        add_dataset(store)
        add_view(store)
        table = pd.DataFrame({"sample_id": ["s2-1", "s1-2", "s2-1"], "weight": [1.0, 2.0, 3.0]})
        lazy = store.get_historical_features("flow", "double")
        several = [lambda f: f, lambda f: f.head(2), lambda f: f.join(table)]
        expected = [(of(lazy).to_pandas(), of(lazy).to_xarray().compute()) for of in several]
        loaded = lazy.load()
        store.backend.delete([found.path for found in store.backend.walk("parts")])
        for of, (pandas, xarray) in zip(several, expected, strict=True):
            pd.testing.assert_frame_equal(of(loaded).to_pandas(), pandas)
            xr.testing.assert_identical(of(loaded).to_xarray(), xarray)
            batches = np.concatenate([values for _, values in of(loaded).batches(2)])
            np.testing.assert_array_equal(batches, xarray.values)

    def test_torch_reads_batches(self, store: Store) -> None:
        """A DataLoader yields shuffled batches with targets that match their features."""
        add_dataset(store)
        add_view(store)
        data = store.get_historical_features("flow", "double").to_torch(target="reynolds")
        loader = torch.utils.data.DataLoader(
            data, batch_size=4, shuffle=True, generator=torch.Generator().manual_seed(0)
        )
        expected = {100.0 * s + r: fields(5, s)[r] for s in (1, 2) for r in range(5)}
        seen = 0
        for batch, targets in loader:
            for item, target in zip(batch, targets, strict=True):
                np.testing.assert_array_equal(item[0], expected[float(target)])
                seen += 1
        assert seen == 10

    def test_features_of_the_rows_of_a_table_come_in_its_order(self, store: Store) -> None:
        """Ids may repeat; the table's columns replace those of the samples."""
        add_dataset(store)
        add_view(store)
        table = pd.DataFrame({"sample_id": ["s2-3", "s1-0", "s2-3"], "reynolds": [7.0, 8.0, 9.0]})
        frame = store.get_historical_features("flow", "double").join(table.assign(when="now"))
        values = frame.to_xarray()
        np.testing.assert_array_equal(values["reynolds"], [7, 8, 9])
        for place, field in enumerate((fields(5, 2)[3], fields(5, 1)[0], fields(5, 2)[3])):
            np.testing.assert_array_equal(values[place, 0], field)
        pandas = frame.to_pandas()
        assert pandas["when"].tolist() == ["now"] * 3
        np.testing.assert_allclose(pandas["S0"], values[:, 0].mean(["y", "x"]), rtol=1e-6)
        assert [float(y) for _, y in frame.to_torch(target="reynolds")] == [7, 8, 9]
        first = store.get_historical_features("flow", "double", where="sample_id < 's2'")
        for wrong, message in (
            (table, "2 of 3 ids have no double in this selection of flow, such as 's2-3'"),
            (table.rename(columns={"sample_id": "id"}), "no column sample_id"),
            (
                table.rename(columns={"reynolds": "row"}),
                r"\['row'\] are columns of the store's own",
            ),
        ):
            with pytest.raises(InvalidRequest, match=message):
                first.join(wrong)

    def test_patches_cover_every_point_and_come_once_an_epoch(self, store: Store) -> None:
        """Fields of 8 x 6 in squares of 4 that share 1: corners 0, 3, 4 and 0, 2."""
        add_dataset(store)
        data = store.dataset("flow").to_torch(target="reynolds", patch=4, overlap=1)
        assert len(data) == 10 * 6
        whole = {100.0 * s + r: fields(5, s)[r] for s in (1, 2) for r in range(5)}
        rows = data.source.samples
        assert sorted(set(rows["patch_y"])) == [0, 3, 4]
        assert sorted(set(rows["patch_x"])) == [0, 2]
        covered = {name: np.zeros((8, 6), bool) for name in whole}
        seen = []
        for indices, values in data.mixed(7, seed=3):
            for index, value in zip(indices, values.numpy(), strict=True):
                name, y, x = (rows[column][index] for column in ("reynolds", *CORNER))
                np.testing.assert_array_equal(value, whole[name][y : y + 4, x : x + 4])
                covered[name][y : y + 4, x : x + 4] = True
                seen.append(index)
        assert sorted(seen) == list(range(60))
        assert all(mask.all() for mask in covered.values())
        value, target = data[7]
        assert value.shape == (4, 4)
        assert target == rows.loc[7, "reynolds"]
        for side, overlap in ((7, 0), (4, 4), (0, 0), (4, -1)):
            with pytest.raises(InvalidRequest, match="expected a side of 1 to 6"):
                store.dataset("flow").to_torch(patch=side, overlap=overlap)

    def test_a_view_is_bound_to_one_spec(self, store: Store) -> None:
        """Another spec under the same name is refused, with the way out."""
        add_dataset(store)
        add_view(store)
        with pytest.raises(InvalidRequest, match="--as"):
            store.bind_view("flow", "double", {**VIEW, "parameters": {"by": 3}})

    def test_verify_finds_a_flipped_byte_in_any_object(self, store: Store) -> None:
        """A flipped bit in each object in turn is found, and no other object is suspected."""
        add_dataset(store, (1,))
        add_view(store)
        with store.attempt_artifact("gaussian", "f" * 64) as attempt:
            attempt.write("weights.safetensors", b"weights")
            attempt.publish({"key": "f" * 64, "kind": "gaussian", "dataset": "flow"})
        assert list(verify(store)) == []
        for entry in list(store.backend.walk("")):
            good = store.backend.read(entry.path)
            place = len(good) // 2
            store.backend.write(
                entry.path, good[:place] + bytes([good[place] ^ 1]) + good[place + 1 :]
            )
            findings = list(verify(store))
            assert entry.path in {finding.path for finding in findings}, entry.path
            assert all("`wavemill" in finding.remedy for finding in findings)
            store.backend.write(entry.path, good)
        assert list(verify(store)) == []

    @pytest.mark.parametrize("older", [False, True])
    def test_verify_finds_a_whole_shard_in_the_place_of_another(
        self, store: Store, older: bool
    ) -> None:
        """By XXH3, or by sha256 in older manifests: its chunks are good, but not the right ones."""
        keys = [add_part(store, seed)[0].key for seed in (1, 2)]
        shards = [
            e.path for key in keys for e in store.backend.walk(part_home(key)) if "/c/" in e.path
        ]
        first, other = map(store.backend.read, shards)
        if older:
            path = f"{part_home(keys[0])}/manifest.json"
            manifest = read_document(store.backend, path)
            for entry in manifest["objects"].values():
                if entry.pop("xxh3_128", None):
                    entry["sha256"] = digest(first)
            store.backend.write(path, seal(manifest))
        assert list(verify(store)) == []
        store.backend.write(shards[0], other)
        assert [finding.path for finding in verify(store)] == [shards[0]]

    def test_verify_finds_a_missing_object(self, store: Store) -> None:
        """A shard, a manifest or a table that is gone is named."""
        add_dataset(store, (1,))
        for entry in list(store.backend.walk("")):
            good = store.backend.read(entry.path)
            store.backend.delete([entry.path])
            if not entry.path.startswith("datasets/"):
                assert entry.path in {finding.path for finding in verify(store)}
            store.backend.write(entry.path, good)

    def test_repair_clears_the_way_for_recomputation(self, store: Store) -> None:
        """A damaged part is removed, so that its derivation can be written again."""
        add_dataset(store, (1,))
        shard = next(e.path for e in store.backend.walk("parts") if "/c/" in e.path)
        store.backend.write(shard, b"garbage")
        repair(store, list(verify(store)))
        part, _ = add_part(store, 1)
        assert store.missing_parts([part.key]) == []
        assert list(verify(store)) == []

    @pytest.mark.parametrize("field", ["objects", "attempt", "parts"])
    def test_nothing_outside_the_store_is_read_or_removed(
        self, store: Store, tmp_path: Path, field: str
    ) -> None:
        """A record that names such a path, though its checksum is right, is itself the damage."""
        add_dataset(store, (1,))
        outside = tmp_path / "data.zarr/zarr.json"
        outside.parent.mkdir()
        outside.write_text("precious")
        folder = "datasets" if field == "parts" else "parts"
        path = next(e.path for e in store.backend.walk(folder) if e.path.count("/") in (2, 3))
        document = read_document(store.backend, path)
        astray = {
            "objects": {"../../../../../data.zarr/zarr.json": {"sha256": "0", "bytes": 8}},
            "attempt": "../../../..",
            "parts": [{"key": "../../..", "rows": 1}],
        }[field]
        changed = {**document, field: astray}
        store.backend.write(path, seal(changed))
        if field == "attempt":
            key = document["key"]
            with pytest.raises(Damaged, match="leads out of the store"):
                read_whole(store.url, key, "fields")
        findings = list(verify(store))
        assert {finding.path for finding in findings} == {path}
        assert "leads out of the store" in findings[0].problem
        repair(store, findings)
        assert outside.exists()
        assert not store.backend.exists(path)

    @pytest.mark.parametrize("damage", [None, b"", slice(9), slice(-9, None)], ids=repr)
    @pytest.mark.parametrize("damaged", ["fields/c/0/0/0", "fields/zarr.json"])
    def test_damaged_arrays_are_refused_on_reading(
        self, store: Store, damaged: str, damage: bytes | slice | None
    ) -> None:
        """Gone, empty, cut at either end: never zeros or another library's error."""
        add_dataset(store, (1,))
        path = next(e.path for e in store.backend.walk("parts") if e.path.endswith(damaged))
        good = store.backend.read(path)
        store.backend.delete([path])
        if damage is not None:
            store.backend.write(path, good[damage] if isinstance(damage, slice) else damage)
        array = store.dataset("flow").to_xarray()
        for rows in (slice(None), slice(2, 3), [0, 2]):
            with pytest.raises(Damaged, match="wavemill verify"):
                array[rows].compute()
        store.backend.write(path, good)
        np.testing.assert_array_equal(array.values, fields(5, 1))

    def test_what_a_newer_version_wrote_is_not_read(
        self, store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("storage.documents.FORMAT", 2)
        add_dataset(store, (1,))
        monkeypatch.undo()
        with pytest.raises(Newer, match=r"by a newer wavemill, in format 2.* up to 1: upgrade"):
            store.dataset("flow")

    @pytest.mark.parametrize("compressed", [True, False], ids=["lz4", "plain"])
    def test_a_flipped_byte_of_a_chunk_is_seen_on_reading(
        self, store: Store, compressed: bool
    ) -> None:
        """In the first chunk, in the middle, in the index at the end."""

        def write(group: zarr.Group) -> dict[str, Any]:
            dims = ["sample", "y", "x"]
            array = create_array(group, "fields", 5, (8, 6), "float32", dims, compressed=compressed)
            array[:] = fields(5, 1)
            return {"rows": 5}

        key = store.write_part(INGEST, [compressed], write)[0]["key"]
        path = next(e.path for e in store.backend.walk("parts") if "/c/" in e.path)
        good = store.backend.read(path)
        for place in (40, len(good) // 2, len(good) - 9):
            flipped = good[:place] + bytes([good[place] ^ 1]) + good[place + 1 :]
            store.backend.write(path, flipped)
            with pytest.raises(Damaged, match="cannot be decoded"):
                read_whole(store.url, key, "fields")

    @pytest.mark.parametrize(
        "compressors",
        [
            [BloscCodec(cname="lz4", shuffle="bitshuffle"), Crc32cCodec()],
            [BloscCodec(cname="zstd", clevel=1, shuffle="shuffle")],
            [Crc32cCodec()],
            [],
        ],
        ids=["lz4", "zstd-unchecked", "plain", "plain-unchecked"],
    )
    def test_any_rows_of_many_shards_are_read(self, store: Store, compressors: list[Any]) -> None:
        """Chunks and shards that are not full; rows in any order, repeated; some columns."""
        data = np.random.default_rng(0).standard_normal((23, 4, 3)).astype("float32")

        def write(group: zarr.Group) -> dict[str, Any]:
            array = group.create_array(
                "fields",
                shape=data.shape,
                dtype="float32",
                chunks=(3, 4, 3),
                shards=(9, 4, 3),
                compressors=compressors,
                config={"write_empty_chunks": True},
            )
            array[:] = data
            return {"rows": len(data)}

        key = store.write_part(INGEST, [repr(compressors)], write)[0]["key"]
        chosen = [[4], [8, 9], list(range(2, 20)), [22, 0, 9, 0, 13], list(range(23)), []]
        for rows in [*chosen, [1, 1, 2], [0, 1, 1], [*range(22, -1, -1)]]:
            np.testing.assert_array_equal(read_rows(store.url, key, "fields", rows), data[rows])
            some = read_rows(store.url, key, "fields", rows, [3, 1])
            np.testing.assert_array_equal(some, data[rows][:, [3, 1]])

    def test_one_repair_clears_all_that_rely_on_a_table(self, store: Store) -> None:
        """Eleven versions share it, and go in one round; their numbers are not given again."""
        add_dataset(store, (1,))
        table = store.dataset("flow").version.samples[0]
        for seed in range(2, 12):
            add_dataset(store, tuple(range(1, seed + 1)))
        add_view(store)
        path = f"tables/{table}.parquet"
        store.backend.write(path, b"garbage")
        findings = list(verify(store))
        assert [finding.path for finding in findings] == [path]
        assert findings[0].remedy.count("ingest") == 1
        assert findings[0].versions == "versions 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11 of flow"
        repair(store, findings)
        assert store.datasets() == []
        add_dataset(store, (1,))
        assert store.dataset("flow").version.version == 12
        assert list(verify(store)) == []

    def test_verify_looks_at_what_is_named(self, store: Store) -> None:
        """A dataset with its views, or keys by how they begin; a wrong name is refused."""
        add_dataset(store)
        add_view(store)
        add_dataset(store, (5,), name="other")
        checked: dict[str | None, list[str]] = {None: [], "flow": [], "other": []}
        for name, paths in checked.items():
            assert list(verify(store, name, paths.append)) == []
        assert set(checked[None]) == {entry.path for entry in store.backend.walk("")}
        assert not set(checked["flow"]) & set(checked["other"])
        assert sorted(checked["flow"] + checked["other"]) == sorted(checked[None])
        part = store.dataset("other").version.parts[0].key
        shard = next(
            e.path for e in store.backend.walk(f"parts/{part[:2]}/{part}") if "/c/" in e.path
        )
        store.backend.write(shard, b"garbage")
        assert list(verify(store, "flow")) == []
        assert [finding.path for finding in verify(store, "other")] == [shard]
        assert [finding.path for finding in verify(store, part[:8])] == [shard]
        with pytest.raises(NotFound, match="wavemill ls"):
            list(verify(store, "othr"))

    def test_a_store_that_is_not_there_is_told_from_an_empty_one(
        self, store: Store, url: str
    ) -> None:
        """A mistyped address."""
        add_dataset(store)
        assert open_store(url, existing=True).datasets() == ["flow"]
        with pytest.raises(NotFound, match="no store at"):
            open_store(url + "-mistyped", writable=True, existing=True)
        assert not open_store(url + "-mistyped").backend.names("")

    def test_a_part_made_anew_is_read_where_it_is(self, store: Store) -> None:
        """Another process may clear and recompute a part that this one has open."""
        add_dataset(store, (1,))
        array = store.dataset("flow").to_xarray()
        before = array.values
        store.backend.delete([e.path for e in store.backend.walk("parts")])
        add_part(store, 1)
        np.testing.assert_array_equal(array.values, before)

    @pytest.mark.parametrize("data", [None, b"weighty", b""], ids=["gone", "changed", "empty"])
    def test_a_damaged_artifact_is_refused_on_reading(
        self, store: Store, data: bytes | None
    ) -> None:
        """A model with other weights would draw other samples without a warning."""
        with store.attempt_artifact("gaussian", "f" * 64) as attempt:
            attempt.write("weights.safetensors", b"weights")
            attempt.publish({"key": "f" * 64, "kind": "gaussian", "dataset": "flow"})
        artifact = store.artifact("gaussian/flow@latest")
        assert artifact.read("weights.safetensors") == b"weights"
        assert repr(artifact) == "Artifact('gaussian/ffffffffffff' of 'flow': weights.safetensors)"
        with pytest.raises(NotFound, match=r"no file 'weights\.bin'; it has weights\.safetensors"):
            artifact.read("weights.bin")
        path = next(e.path for e in store.backend.walk("artifacts") if "weights" in e.path)
        store.backend.delete([path])
        if data is not None:
            store.backend.write(path, data)
        with pytest.raises(Damaged, match="wavemill verify"):
            artifact.read("weights.safetensors")

    def test_a_damaged_table_is_refused_on_reading(self, store: Store) -> None:
        """Never a wrong number: reading checks the digest."""
        add_dataset(store, (1,))
        path = next(e.path for e in store.backend.walk("tables"))
        store.backend.write(path, store.backend.read(path)[:-1] + b"?")
        with pytest.raises(Damaged, match="differs"):
            store.dataset("flow").samples()

    def test_gc_removes_only_what_no_version_names(self, store: Store) -> None:
        """An orphaned part goes; everything that can be read stays readable."""
        add_dataset(store)
        add_view(store)
        orphan, _ = add_part(store, 99)
        assert collect(store, delete=True) == []  # younger than the grace
        planned = collect(store, grace=timedelta(seconds=-1))
        assert {removal.path.split("/")[2] for removal in planned} == {orphan.key}
        assert store.missing_parts([orphan.key]) == []  # printed, not done
        collect(store, grace=timedelta(seconds=-1), delete=True)
        assert store.missing_parts([orphan.key]) == [orphan.key]
        assert list(verify(store)) == []
        assert store.get_historical_features("flow", "double").to_xarray().compute().shape[0] == 10

    def test_gc_expires_versions_on_request(self, store: Store) -> None:
        """Keeping one version drops the records, tables and parts of the others."""
        add_dataset(store, (1,))
        add_view(store)
        part, table = add_part(store, 7, rows=5)
        table = table.assign(sample_id=[f"s1-{row}" for row in range(5)])
        store.change_dataset("flow", Change(SCHEMA, parts=(part,), samples=table))
        collect(store, Retention(versions=1), timedelta(seconds=-1), delete=True)
        assert [v.version for v in store.versions("flow")] == [2]
        assert list(verify(store)) == []
        assert len(store.dataset("flow").samples()) == 5

    def test_gc_removes_in_bulk_records_then_manifests_then_shards(
        self, store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """S3 takes a thousand a request; killed between two of them, it leaves nothing astray."""
        add_dataset(store, (1, 2, 3))
        remove(store, "flow")
        add_dataset(store, (4,))
        store.dataset("flow").withdraw(["s4-0"])
        requests: list[list[str]] = []

        def deleting(paths: Iterable[str]) -> None:
            requests.append(list(paths))

        with monkeypatch.context() as patch:
            patch.setattr(store.backend, "delete", deleting)
            gone = collect(store, Retention(versions=1), timedelta(seconds=-1), delete=True)
        records, manifests, shards = (batch for batch in requests if batch[0][:6] != "leases")
        assert sorted(records + manifests + shards) == sorted(entry.path for entry in gone)
        assert all(path.startswith("datasets/") for path in records)
        assert sum(path.endswith("/manifest.json") for path in manifests) == 3
        assert not any(path.endswith("/manifest.json") for path in shards)

    def test_gc_and_runs_exclude_each_other(self, store: Store) -> None:
        """Whichever comes second sees the first."""
        with store.lease(), pytest.raises(Conflict, match="is alive"):
            collect(store, delete=True)
        released = threading.Timer(1.0, lambda: holder.__exit__(None, None, None))
        holder = collector_lease(store.backend)
        holder.__enter__()
        released.start()
        told: list[str] = []
        with store.lease(told.append):  # waits for the collector, and says so once
            released.join()
            assert [text.partition(":")[0] for text in told] == ["waiting"]
            assert [e.path for e in store.backend.walk("leases") if "gc" in e.path] == []

    def test_a_removed_name_is_free_and_its_numbers_do_not_come_again(self, store: Store) -> None:
        """A view, then the dataset and its other view; gc takes their parts, and verify agrees."""
        add_dataset(store, (1,))
        add_dataset(store)
        add_view(store)
        add_view(store, view="other")
        add_dataset(store, (3,), name="else")
        assert [entry.name for entry in remove(store, "flow/double")] == ["flow/double"]
        assert store.views("flow") == ["other"]
        store.bind_view("flow", "double", {**VIEW, "parameters": {"by": 3}})
        assert add_view(store).version == 2
        leaving = [(entry.what, entry.name) for entry in named(store, "flow")]
        assert leaving == [("view", "flow/double"), ("view", "flow/other"), ("dataset", "flow")]
        assert [(entry.what, entry.name) for entry in remove(store, "flow")] == leaving
        assert store.datasets() == ["else"]
        for gone in ("flow", "flow/double", ""):
            with pytest.raises(NotFound, match="neither a dataset nor a view is named"):
                remove(store, gone)
        assert list(verify(store)) == []
        # below 0: S3 dates objects by whole seconds, and an age of 0 does not exceed a grace of 0
        collect(store, grace=timedelta(seconds=-1), delete=True)
        assert len({entry.path.split("/")[2] for entry in store.backend.walk("parts")}) == 1
        assert list(verify(store)) == []
        add_dataset(store)
        assert [v.version for v in store.versions("flow")] == [3]
        assert store.dataset("else").to_xarray().shape == (5, 8, 6)

    @pytest.mark.parametrize("instant", range(4))
    def test_a_removal_killed_at_any_instant_is_finished_by_the_next(
        self, store: Store, monkeypatch: pytest.MonkeyPatch, instant: int
    ) -> None:
        """After any number of deletions the store is sound, and what is seen is the newest."""
        add_dataset(store, (1,))
        add_dataset(store)
        add_view(store)
        allowed, delete = iter(range(instant)), store.backend.delete

        def until(paths: list[str]) -> None:
            if next(allowed, None) is None:
                raise KeyboardInterrupt
            delete(paths)

        with monkeypatch.context() as patch, contextlib.suppress(KeyboardInterrupt):
            patch.setattr(store.backend, "delete", until)
            remove(store, "flow")
        delete([lease.path for lease in store.backend.walk("leases")])
        assert list(verify(store)) == []
        if instant < 3:  # a view and two versions
            assert store.dataset("flow").version.version == 2
            remove(store, "flow")
        assert (store.datasets(), list(verify(store))) == ([], [])
        add_dataset(store, (1,))
        assert store.dataset("flow").version.version == 3

    def test_nothing_is_removed_beside_a_run(self, store: Store) -> None:
        add_dataset(store, (1,))
        with store.lease(), pytest.raises(Conflict, match="nothing is removed meanwhile"):
            remove(store, "flow")
        assert store.datasets() == ["flow"]

    def test_a_name_without_a_published_version_is_not_listed(self, store: Store) -> None:
        """A first version in the making has a folder before it has a record."""
        add_dataset(store)
        store.backend.write("datasets/coming/.tmp", b"")
        store.backend.write("views/flow/coming/.tmp", b"")
        assert store.datasets() == ["flow"]
        assert store.views("flow") == []

    def test_names_cannot_leave_the_store(self, store: Store) -> None:
        """A name is not a path."""
        for name in ("../x", "a/b", "", ".hidden", "a b", "x" * 300):
            with pytest.raises(InvalidRequest, match="is not a name"):
                store.change_dataset(name, Change(SCHEMA))


def test_a_store_without_exclusive_creation_needs_a_single_writer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file system without hard links is refused, and accepted on request."""

    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr("os.link", refuse)
    with pytest.raises(Conflict, match="--single-writer"):
        open_store(str(tmp_path), writable=True)
    store = open_store(str(tmp_path), writable=True, single_writer=True)
    add_dataset(store)
    assert store.dataset("flow").version.count == 10


def test_a_store_of_another_user_is_not_writable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its folder may be a group's and those within not: hard links have no part in that."""

    def refuse(*_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    open_store(str(tmp_path), writable=True)
    assert (tmp_path / "leases").is_dir()
    monkeypatch.setattr("storage.backends.local._opened", refuse)
    monkeypatch.setattr("os.access", lambda path, mode: Path(path) == tmp_path)
    with pytest.raises(PermissionError, match=r"is not writable: .*Permission denied"):
        open_store(str(tmp_path), writable=True)


def test_a_full_disk_can_be_freed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such a disk has room for names of files, but not for bytes, and not always for folders."""

    def refuse(handle: int) -> None:
        status = os.fstat(handle)
        if stat.S_ISREG(status.st_mode) and status.st_size:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    add_dataset(open_store(str(tmp_path), writable=True))
    monkeypatch.setattr("os.fsync", refuse)
    store = open_store(str(tmp_path), writable=True)
    with pytest.raises(NoRoom):
        add_dataset(store, name="other")
    remove(store, "flow")
    assert collect(store, grace=timedelta(seconds=-1), delete=True)
    assert list(store.backend.walk("parts")) == []
    assert (tmp_path / "leases").is_dir()  # there may be no room to make it for the next one


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EFBIG, errno.EROFS])
def test_a_full_disk_is_named_with_the_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """With neither a bare error number nor advice about other writers."""

    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    store = open_store(str(tmp_path), writable=True)
    monkeypatch.setattr("os.fsync", refuse)
    with pytest.raises(NoRoom, match=r"datasets/x.* cannot be written: .*: make room there"):
        store.backend.write("datasets/x", b"data")
    with pytest.raises(NoRoom, match="make room there"):
        open_store(str(tmp_path), writable=True)
    assert list(store.backend.walk("datasets")) == []


def test_a_file_for_which_there_is_no_room_is_named(tmp_path: Path) -> None:
    """With what is there left as it is, and nothing half written beside it."""
    target = tmp_path / "table.csv"
    target.write_text("before")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**10, limits[1]))
    try:
        with (
            pytest.raises(NoRoom, match=r"table\.csv cannot be written: .*, or write it elsewhere"),
            replacing(target) as partial,
        ):
            partial.write_bytes(bytes(2**12))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(tmp_path.iterdir()) == [target]
    assert target.read_text() == "before"


def test_a_read_only_file_system_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It refuses to remove even what is not there, which must not be what is heard of it."""

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    (tmp_path / "leases").mkdir()
    for name in ("open", "unlink"):
        monkeypatch.setattr(Path, name, refuse)
    with pytest.raises(NoRoom, match="Read-only file system"):
        open_store(str(tmp_path), writable=True)


def test_an_s3_that_does_not_answer_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """With what to check; only botocore's failure is imitated, since a real one takes long."""

    def refuse(*_: object, **__: object) -> None:
        raise EndpointConnectionError(endpoint_url="http://127.0.0.1:9")

    backend = open_backend("s3://nowhere/x")
    monkeypatch.setattr(backend, "_fs", SimpleNamespace(ls=refuse))
    with pytest.raises(ConnectionError, match=r"s3://nowhere/x: .*check AWS_ENDPOINT_URL"):
        backend.names("")


@pytest.mark.parametrize("what", ["names", "read", "write", "create", "walk"])
def test_a_bucket_that_is_not_there_is_named_with_the_way_out(bucket: str, what: str) -> None:
    backend = open_backend(f"{bucket}-mistyped/x")
    arguments = ["datasets/x", b"data"][: 2 if what in ("write", "create") else 1]
    with pytest.raises(ConnectionError, match=r"-mistyped/x: .*: make the bucket"):
        list(getattr(backend, what)(*arguments))


def test_what_s3_refuses_names_the_store_and_what_to_look_at(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Only the refusal is imitated: the tests' server grants everything to everybody."""

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError("Access Denied")

    backend = open_backend("s3://theirs/x")
    monkeypatch.setattr(backend, "_fs", SimpleNamespace(ls=refuse))
    with pytest.raises(ConnectionError, match=r"s3://theirs/x: Access Denied: .* credentials"):
        backend.names("")


def test_a_put_that_meets_another_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """S3 says so before either has won, and neither may: nobody is then taken for the winner."""
    codes = ["ConditionalRequestConflict", "ConditionalRequestConflict", ""]
    asked = iter([*codes, "ConditionalRequestConflict", "PreconditionFailed"])

    def call_s3(*_: object, **__: object) -> None:
        if code := next(asked):
            answer: Any = {"Error": {"Code": code, "Message": "At least one of ..."}}
            raise OSError(code) from ClientError(answer, "PutObject")

    backend = open_backend("s3://theirs/x")
    monkeypatch.setattr(backend, "_fs", SimpleNamespace(call_s3=call_s3))
    assert backend.create("a", b"data")
    assert not backend.create("a", b"data")
    assert list(asked) == []


def test_a_large_object_is_one_put(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kill amid an upload in pieces would leave some, which are in no listing that gc reads."""
    backend, asked = open_backend(f"{bucket}/store"), []
    call = s3fs.S3FileSystem._call_s3

    async def noted(fs: Any, method: str, *arguments: Any, **options: Any) -> Any:
        asked.append(method)
        return await call(fs, method, *arguments, **options)

    monkeypatch.setattr(s3fs.S3FileSystem, "_call_s3", noted)
    backend.write("artifacts/weights", bytes(101 * 2**20))
    assert asked == ["put_object"]


def test_gc_removes_what_a_write_that_was_killed_left(tmp_path: Path) -> None:
    """Also among the records; only what is old, since the others are being written."""
    store = open_store(str(tmp_path), writable=True)
    add_dataset(store)
    add_view(store)
    add_dataset(store, name="gone")
    remove(store, "gone")
    folders = ("datasets/flow", "views/flow/double", "removed/datasets/gone", "tables")
    left = [tmp_path / folder / ".tmp-1f" for folder in folders]
    for file in left:
        file.write_bytes(b"{")
    assert not any(removal.path.endswith(".tmp-1f") for removal in collect(store, delete=True))
    for file in left:
        os.utime(file, (0, 0))
    collect(store, delete=True)
    assert not any(file.exists() for file in left)
    assert list(verify(store)) == []


def test_what_file_managers_leave_stops_nothing(tmp_path: Path) -> None:
    """They put files of their own into every folder, network file systems those still open."""
    store = open_store(str(tmp_path), writable=True)
    add_dataset(store)
    add_view(store)
    with store.attempt_artifact("gaussian", "f" * 64) as attempt:
        attempt.write("weights.safetensors", b"weights")
        attempt.publish({"key": "f" * 64, "kind": "gaussian", "dataset": "flow"})
    remove(store, "flow/double")
    for folder in [tmp_path, *(path for path in tmp_path.glob("**") if path.is_dir())]:
        (folder / ".DS_Store").write_bytes(b"\0\0\0\1Bud1")
    assert [store.datasets(), store.views("flow")] == [["flow"], []]
    assert [artifact.short for artifact in store.artifacts()] == [f"gaussian/{'f' * 12}"]
    assert list(verify(store)) == []
    collect(store, grace=timedelta(seconds=-1), delete=True)
    assert store.dataset("flow").version.count == 10
    assert list(verify(store)) == []


@pytest.mark.parametrize("again", [False, True], ids=["gone", "made-anew"])
def test_what_is_removed_beside_a_verification_is_not_damage(
    again: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A removal and a collection before each of its readings, one after another."""
    for instant in itertools.count():
        store = open_store(f"memory://verified-{again}-{instant}", writable=True)
        add_dataset(store, (1,))
        add_dataset(store)
        add_view(store)
        read, left = store.backend.read, list(range(instant))

        def reading(path: str, store: Store = store, read: Any = read, left: Any = left) -> bytes:
            if not left:
                store.backend.read = read  # type: ignore[method-assign]
                remove(store, "flow")
                collect(store, grace=timedelta(seconds=-1), delete=True)
                if again:
                    add_dataset(store, (1,))
            else:
                left.pop()
            return bytes(read(path))

        with monkeypatch.context() as patch:
            patch.setattr(store.backend, "read", reading)
            assert list(verify(store)) == []
        if left:  # there are no more readings
            break
    assert instant > 10


def test_a_lease_from_a_clock_that_was_ahead_holds_nobody_up(tmp_path: Path) -> None:
    """The clock was put right after its holder died: it would be alive until that time came."""
    store = open_store(str(tmp_path), writable=True)
    add_dataset(store)
    ahead = time.time() + 400 * 86400
    for kind in ("run", "gc"):
        lease = tmp_path / f"leases/{kind}-0123456789ab.json"
        lease.write_bytes(b"")
        os.utime(lease, (ahead, ahead))
    with run_lease(store.backend, patience=-1.0):
        pass
    assert {removal.why for removal in collect(store, delete=True)} == {"abandoned lease"}
    assert [path.name for path in (tmp_path / "leases").iterdir()] == []


@pytest.mark.parametrize("times", [1, 100], ids=["for-once", "for-ever"])
def test_what_s3_does_not_delete_is_tried_again_and_named(
    times: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its answer is a success that lists what it was not; only that answer is imitated."""
    asked: list[list[str]] = []

    def call_s3(_: str, Bucket: str, Delete: dict[str, Any]) -> dict[str, Any]:
        asked.append([entry["Key"] for entry in Delete["Objects"]])
        refused = {"Key": "x/b", "Code": "AccessDenied", "Message": "Access Denied"}
        return {"Errors": [refused]} if len(asked) <= times else {}

    backend = open_backend("s3://theirs/x")
    monkeypatch.setattr(backend, "_fs", SimpleNamespace(call_s3=call_s3))
    if times == 1:
        backend.delete(["a", "b", "c"])
        assert asked == [["x/a", "x/b", "x/c"], ["x/b"]]
        return
    with pytest.raises(ConnectionError, match=r"s3://theirs/x: x/b cannot be deleted: Access Den"):
        backend.delete(["a", "b", "c"])


def test_an_unknown_scheme_is_refused() -> None:
    """The message names the schemes that exist."""
    with pytest.raises(InvalidRequest, match="s3://"):
        open_store("ftp://example.org/x")


@pytest.mark.parametrize("rows", [1, 5, 225, 460])
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
@pytest.mark.parametrize("compressed", [True, False], ids=["lz4", "plain"])
def test_shards_are_written_as_zarr_writes_them(
    store: Store, rows: int, dtype: str, compressed: bool
) -> None:
    """Byte for byte: a chunk not full, a shard not full, several shards."""
    side = 448 // np.dtype(dtype).itemsize
    data = np.random.default_rng(0).integers(0, 255, (rows, 56, side, 3)).astype(dtype)
    shard = layout(rows, data[0].nbytes)[1]

    def write(group: zarr.Group) -> dict[str, Any]:
        dims = ["sample", "y", "x", "component"]
        ours, theirs = (
            create_array(group, name, rows, data.shape[1:], dtype, dims, compressed=compressed)
            for name in ("ours", "theirs")
        )
        theirs[:] = data
        write_rows(ours, data)
        write_rows(ours, iter(data))
        first = data[: min(rows, shard)]
        with pytest.raises(ValueError, match="are not shard 0"):
            write_shard(ours, 0, list(first[1:]))
        with pytest.raises(ValueError, match="shape"):
            write_shard(ours, 0, first.swapaxes(1, 2))
        with pytest.raises(TypeError, match="cast"):
            write_shard(ours, 0, list(first.view(f"i{data.itemsize}")))
        return {"rows": rows}

    manifest, _ = store.write_part(INGEST, [rows, dtype, compressed], write)
    written = manifest["objects"]
    ours = {path: entry for path, entry in written.items() if "/ours/c/" in path}
    assert len(ours) == -(-rows // shard)
    for path, entry in ours.items():
        assert entry == written[path.replace("/ours/", "/theirs/")], path
