"""Labels of samples: set, cleared, refused; and as coordinates, targets and in files."""

from __future__ import annotations

import datetime
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import xarray as xr

from storage import Change, InvalidRequest, NotFound, PartRef, Store, datasets, open_store
from storage.backends import Backend
from storage.export import export
from tests.storage.test_conformance import SCHEMA, add_dataset, add_part, add_view


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A store with a dataset of two tables, five samples each, and a view."""
    made = open_store(str(tmp_path / "store"), writable=True)
    add_dataset(made, (1,))
    add_dataset(made, (1, 2))
    add_view(made)
    return made


def relabelled(store: Store, rows: int = 10, **columns: list[Any]) -> pd.DataFrame:
    """Set columns of the first ``rows`` samples and return the new table."""
    dataset = store.dataset("flow")
    ids = dataset.samples()["sample_id"].head(rows)
    return dataset.relabel(pd.DataFrame({"sample_id": ids, **columns})).samples()


def test_a_store_is_opened_by_a_path(store: Store) -> None:
    assert open_store(Path(store.url), existing=True).url == store.url
    assert open_store(Path(store.url), single_writer=True).datasets() == ["flow"]


@pytest.mark.parametrize("suffix", ["nc", "zarr", "parquet", "csv", "npz"])
def test_labels_of_every_type_with_gaps_are_written(
    store: Store, tmp_path: Path, suffix: str
) -> None:
    """In arrays, truth values become floats if some are unknown, as whole numbers do."""
    relabelled(store, smiling=[True, None] * 5, tall=[True, False] * 5, n=[1, None] * 5)
    relabelled(store, 3, name=["a", "b", None], day=[datetime.date(2020, 1, d) for d in (1, 2, 3)])
    frame = store.get_historical_features("flow", "double")
    target = export(frame, tmp_path / f"labels.{suffix}")
    if suffix in ("nc", "zarr"):
        with xr.open_dataset(target, **({"consolidated": False} if suffix == "zarr" else {})) as x:
            np.testing.assert_array_equal(x["smiling"], [1, np.nan] * 5)
            assert x["tall"].values.tolist() == [True, False] * 5
            assert x["sample_name"].values.tolist()[:4] == ["a", "b", "", ""]
            assert str(x["day"].values[2])[:10] == "2020-01-03"
            assert x["name"].dims == ("coefficient",)


@pytest.mark.parametrize("suffix", ["nc", "zarr"])
def test_a_name_with_a_slash_is_kept_in_files_of_arrays(
    store: Store, tmp_path: Path, suffix: str
) -> None:
    relabelled(store, **{"gap/eV": [0.5] * 10, "gap_Ha": [0.1] * 10, "gap/Ha": [0.2] * 10})
    target = export(store.get_historical_features("flow", "double"), tmp_path / f"gap.{suffix}")
    with xr.open_dataset(target, **({"consolidated": False} if suffix == "zarr" else {})) as found:
        assert found["gap_eV"].values.tolist() == [0.5] * 10
        assert found["gap_Ha"].values.tolist() == [0.1] * 10
        assert found["gap_Ha_"].values.tolist() == [0.2] * 10


def test_a_single_id_is_not_taken_for_its_letters(tmp_path: Path) -> None:
    """Samples named 1 and 2 stay where 12 was to go."""
    store = open_store(tmp_path, writable=True)
    part, table = add_part(store, 1, 3)
    numbered = table.assign(sample_id=["1", "2", "12"])
    dataset = store.change_dataset("flow", Change(SCHEMA, parts=(part,), samples=numbered))
    with pytest.raises(InvalidRequest, match=r"a list is expected, as in \['12'\]"):
        dataset.withdraw("12")
    assert dataset.withdraw(["12"]).samples()["sample_id"].tolist() == ["1", "2"]


def test_relabelling_sets_clears_and_keeps(store: Store) -> None:
    """A null clears; what is left out stays; columns keep the order in which they came."""
    table = relabelled(store, zeta=list(range(10)), alpha=list("abcdefghij"))
    assert list(table)[-2:] == ["zeta", "alpha"]
    table = relabelled(store, 2, zeta=[None, 70], beta=[1, 2])
    assert list(table)[-3:] == ["zeta", "alpha", "beta"]
    assert table["zeta"].isna().tolist() == [True] + [False] * 9
    assert table["zeta"].tolist()[1:] == [70, *range(2, 10)]
    assert table["alpha"].tolist() == list("abcdefghij")
    assert table["beta"].dropna().tolist() == [1, 2]
    assert relabelled(store, zeta=list("abcdefghij"))["zeta"].tolist() == list("abcdefghij")


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"y": [1] * 10}, "columns .'y'. have names of axes .* as y_label"),
        ({"part": [1] * 10}, "state provenance"),
        ({"both": [1, "x"] * 5}, "of one type a column: .*column both"),
    ],
)
def test_labels_that_no_array_could_carry_are_refused(
    store: Store, columns: dict[str, Any], said: str
) -> None:
    with pytest.raises(InvalidRequest, match=said):
        relabelled(store, **columns)
    assert store.dataset("flow").version.version == 2


@pytest.mark.parametrize("rows", [3, 5])
def test_labels_of_another_type_than_the_other_samples_are_refused(store: Store, rows: int) -> None:
    """For some samples of a table or all: a column has one type over the whole dataset."""
    relabelled(store, grade=list(range(10)))
    with pytest.raises(InvalidRequest, match="'grade' is text here and number of the other"):
        relabelled(store, rows, grade=list("abcde"[:rows]))
    assert relabelled(store, rows, grade=[0.5] * rows)["grade"].tolist()[rows:] == [
        *range(rows, 10)
    ]


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("label", "label is text, .* its numbers are in label_index"),
        ("kind", "kind is text, .* by relabel"),
        ("day", "day is date, .* by relabel"),
        ("smiling", "5 of 10 samples have no smiling: select"),
    ],
)
def test_targets_that_are_no_numbers_are_refused_at_once(
    store: Store, target: str, said: str
) -> None:
    day = pd.date_range("2020", periods=10).tolist()
    letters = list("abababcccc")
    relabelled(store, label=letters, label_index=[0] * 10, kind=letters, day=day)
    relabelled(store, smiling=[True, None] * 5, score=[1.5, None] * 5)
    with pytest.raises(InvalidRequest, match=said):
        store.dataset("flow").to_torch(target=target)
    assert store.dataset("flow").to_torch(target="score")[2][1] == 1.5
    assert np.isnan(float(store.dataset("flow").to_torch(target="score")[1][1]))
    known = store.dataset("flow").to_torch("smiling IS NOT NULL", "smiling")
    assert int(known[0][1]) == 1


def test_columns_that_differ_in_capitals_alone_are_told_apart(store: Store) -> None:
    """To DuckDB they are one: the first answered for both."""
    relabelled(store, Re=list(range(10)), RE=[5] * 10)
    count = {e: len(store.dataset("flow").samples(e)) for e in ("Re > 6", "RE > 4", '"Re" < RE')}
    assert count == {"Re > 6": 3, "RE > 4": 10, '"Re" < RE': 5}
    with pytest.raises(InvalidRequest, match='"re" not found'):
        store.dataset("flow").samples("re > 1")


def test_moments_with_a_zone_are_utc_in_arrays(store: Store, tmp_path: Path) -> None:
    relabelled(store, when=list(pd.date_range("2020-01-01T01", periods=10, tz="Europe/Paris")))
    frame = store.get_historical_features("flow", "double")
    found = frame.to_xarray().when
    assert found.dtype.kind == "M"
    assert found.values[0] == np.datetime64("2020-01-01T00:00")
    written = xr.open_dataset(export(frame, tmp_path / "a.nc"), engine="h5netcdf")
    np.testing.assert_array_equal(written.when, found)


def test_what_a_notebook_asks_for_is_given_or_refused_with_the_way_out(store: Store) -> None:
    dataset, frame = store.dataset("flow"), store.get_historical_features("flow", "double")
    later, ids = datetime.datetime(2999, 1, 1), list(frame.samples["sample_id"])
    for when in (later, pd.Timestamp(later, tz="UTC"), np.int64(dataset.version.version)):
        assert store.dataset("flow", when).version.version == dataset.version.version
        assert len(store.get_historical_features("flow", "double", as_of=when)) == len(frame)
    np.testing.assert_array_equal(frame.lookup(i for i in ids[:2]), frame.lookup(ids[:2]))
    assert len(store.get_online_features("flow", iter(ids[:2]), "double")) == 2
    asked: Any = frame.samples
    for refused, message in (
        (lambda: dataset.samples(asked["sample_id"] == "a"), "where is a Series: an expression is"),
        (lambda: list(frame.batches(-1)), "1 sample or more, not -1"),
        (lambda: list(dataset.to_torch().shuffled(0, seed=0)), "1 sample or more, not 0"),
        (lambda: frame.join(asked["sample_id"]), "a table is expected, not a Series"),
    ):
        with pytest.raises(InvalidRequest, match=message):
            refused()


def test_what_a_notebook_shows_is_a_line_however_many_parts_there_are(store: Store) -> None:
    dataset, frame = store.dataset("flow"), store.get_historical_features("flow", "double")
    assert repr(dataset) == "Dataset('flow', version 2: 10 samples, vorticity 8x6)"
    sizes = "sample: 10, coefficient: 2, y: 8, x: 6"
    assert repr(frame) == f"FeatureFrame(double of 'flow'; {sizes}; not read)"
    assert repr(frame.load()) == f"FeatureFrame(double of 'flow'; {sizes}; in memory)"


def test_a_view_that_was_not_there_yet_is_said_to_be_of_later(store: Store) -> None:
    with pytest.raises(NotFound, match=r"no view 'double' on 'flow' as of 1 in .*; views: double"):
        store.get_historical_features("flow", "double", as_of=1)


def test_texts_of_samples_lie_in_one_piece(store: Store) -> None:
    """Of several, Arrow copies whole columns whenever rows are taken: with every batch."""
    for where in (None, "row > 0"):
        samples = store.dataset("flow").samples(where)
        texts = [name for name in samples if samples[name].dtype == "str"]
        assert "part" in texts
        assert "sha256" in texts
        assert {pa.chunked_array(pa.array(samples[name])).num_chunks for name in texts} == {1}


def test_tables_of_many_runs_are_read_together(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From S3 each takes a while, and every run that finds something new adds one."""
    both, read = threading.Barrier(2), datasets.read_table

    def waiting(backend: Backend, key: str) -> pd.DataFrame:
        both.wait(30)
        return read(backend, key)

    monkeypatch.setattr(datasets, "read_table", waiting)
    assert len(store.dataset("flow").samples()) == 10


def test_many_runs_that_add_little_leave_few_tables_to_read(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a table a run, each later run would read all, several times."""
    monkeypatch.setattr(Store, "_check_present", lambda *_: None)
    schema, first = store.dataset("flow").schema, store.dataset("flow").samples().head(1)
    for number in range(64):
        key = f"{number:064x}"
        row = first.assign(sample_id=f"s{number:02d}", part=key, unit=str(number))
        if number == 20:
            row["mine"] = "a column that others lack"
        store.change_dataset("many", Change(schema, (PartRef(key, 1),), row))
    many = store.dataset("many")
    assert many.samples()["sample_id"].tolist() == [f"s{number:02d}" for number in range(64)]
    assert many.samples()["mine"].notna().sum() == 1
    assert len(many.version.samples) < 20
    assert len(store.dataset("many", 7).version.samples) == 7
    assert len(store.dataset("many", 30).samples()) == 30


def test_arrays_say_their_units(store: Store) -> None:
    dataset = store.dataset("flow")
    assert dataset.to_xarray().attrs == {"dataset": "flow", "version": 2}
    for units, said in ((("1/s",), {"units": "1/s"}), ((None,), {}), (("m", "s"), {})):
        schema = replace(dataset.schema, units=units)
        other = replace(dataset, version=replace(dataset.version, schema=schema))
        assert other.to_xarray().attrs == {"dataset": "flow", "version": 2, **said}
