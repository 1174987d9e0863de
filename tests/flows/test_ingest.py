"""Ingestion from end to end: what is new is read, what is bad is named, nothing is lost."""

from __future__ import annotations

import os
import shutil
import tarfile
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from prefect import get_client
from prefect.client.schemas.filters import (
    ArtifactFilter,
    ArtifactFilterKey,
    FlowRunFilter,
    FlowRunFilterName,
)

from flows import ingest, turbulence
from storage import InvalidRequest, open_store
from storage.verify import verify
from tasks.fields import FieldOptions
from tasks.images import ImageOptions
from tasks.progress import hearing
from tasks.publish import publish
from tests.flows.conftest import write_snapshots
from wavemill.fields import vorticity

FOUR_ROWS = FieldOptions(part_size=4 * (4 * 16 * 16 + 128))
"""Four snapshots of 16 x 16 float32, with their headers, make a part."""


def read(url: str, name: str = "flow") -> dict[str, np.ndarray[Any, Any]]:
    """Return the samples of a dataset by id."""
    array = open_store(url).dataset(name).to_xarray().compute()
    return dict(zip(array.sample_id.values, array.values, strict=True))


def run(url: str, source: Path | str, options: FieldOptions = FOUR_ROWS, name: str = "flow") -> Any:
    """Ingest one source in this process."""
    return ingest(name, [str(source)], url, options, "threads")


@pytest.mark.parametrize(
    ("offset", "kind", "dtype", "warned"),
    [
        (1e6, "f8", None, True),
        (1e6, "f4", None, False),  # rounded before
        (1e6, "f8", "float64", False),
        (1.0, "f8", None, False),
    ],
)
def test_deviations_that_float32_rounds_away_are_warned_of(
    offset: float, kind: str, dtype: str | None, warned: bool, store_url: str, tmp_path: Path
) -> None:
    field = np.random.default_rng(0).standard_normal((8, 8)) + offset
    np.save(tmp_path / "x.npy", field.astype(kind))
    heard: list[str] = []
    with hearing(heard.append):
        ingest("far", [str(tmp_path / "x.npy")], store_url, FieldOptions(dtype=dtype), "threads")
    assert ["as float32" in text for text in heard] == [True] * warned


def test_snapshots_become_samples_bit_for_bit(snapshots: Path, store_url: str) -> None:
    made = run(store_url, snapshots)
    assert (made.samples, made.parts_written, made.quarantined) == (10, 3, {})
    for name, field in read(store_url).items():
        np.testing.assert_array_equal(field, np.load(snapshots / f"{name}.npy"))


def test_a_second_run_reads_and_writes_nothing(snapshots: Path, store_url: str) -> None:
    run(store_url, snapshots)
    for file in snapshots.iterdir():  # unreadable now: a second reading would end in quarantine
        stat = file.stat()
        file.write_bytes(b"\0" * stat.st_size)
        os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    again = run(store_url, snapshots)
    assert (again.version, again.parts_written, again.parts_reused) == (1, 0, 0)
    assert (again.unchanged, again.added, again.quarantined) == (10, 0, {})


def test_what_is_not_new_is_not_shown_again(snapshots: Path, store_url: str) -> None:
    def shown() -> int:
        asked = ArtifactFilter(key=ArtifactFilterKey(like_="%shown-once%"))
        runs = FlowRunFilter(name=FlowRunFilterName(any_=["shown-once", "spectrum of shown-once"]))
        with get_client(sync_client=True) as client:
            assert client.read_flow_runs(flow_run_filter=runs)
            return len(client.read_artifacts(artifact_filter=asked))

    sources, threads = [str(snapshots)], {"cluster": "threads"}
    turbulence("shown-once", sources, store_url, **threads)
    first = shown()
    assert first >= 7
    turbulence("shown-once", sources, store_url, **threads)
    assert shown() == first
    write_snapshots(snapshots, ["new"])
    turbulence("shown-once", sources, store_url, **threads)
    assert shown() == 2 * first


def test_new_files_write_only_their_own_parts(snapshots: Path, store_url: str) -> None:
    run(store_url, snapshots)
    before = {part.key for part in open_store(store_url).dataset("flow").version.parts}
    write_snapshots(snapshots, [f"a{i}" for i in range(5)] + [f"z{i}" for i in range(5)])
    made = run(store_url, snapshots)
    parts = open_store(store_url).dataset("flow").version.parts
    assert (made.samples, made.added, made.unchanged, made.parts_written) == (20, 10, 10, 3)
    assert [part.key for part in parts[:3]] == [
        p for p in (part.key for part in parts) if p in before
    ]
    for name, field in read(store_url).items():
        np.testing.assert_array_equal(field, np.load(snapshots / f"{name}.npy"))


def test_a_changed_file_replaces_its_sample(snapshots: Path, store_url: str) -> None:
    run(store_url, snapshots)
    old = np.load(snapshots / "m03.npy")
    np.save(snapshots / "m03.npy", old + 1)
    made = run(store_url, snapshots)
    assert (made.version, made.samples, made.unchanged) == (2, 10, 9)
    assert (made.added, made.replaced) == (0, 1)
    np.testing.assert_array_equal(read(store_url)["m03"], old + 1)
    earlier = open_store(store_url).dataset("flow", as_of=1).to_xarray()
    np.testing.assert_array_equal(earlier[3].values, old)


def test_a_file_that_holds_again_what_it_once_held_is_that_sample(
    store_url: str, tmp_path: Path
) -> None:
    """Its part is there, of rows that were replaced: the newer contents stayed, night by night."""
    file = tmp_path / "fields" / "m.npy"
    file.parent.mkdir()
    made = []
    for number, contents in enumerate((0.0, 1.0, 0.0, 0.0)):
        np.save(file, np.eye(8) + contents)
        os.utime(file, (number, number))
        made.append(run(store_url, file.parent))
    assert [(one.version, one.replaced, one.unchanged) for one in made] == [
        (1, 0, 0),
        (2, 1, 0),
        (3, 1, 0),
        (4, 0, 1),  # touched
    ]
    assert made[2].parts_written == 0
    np.testing.assert_array_equal(read(store_url)["m"], np.eye(8))


def test_a_store_in_the_folder_that_is_ingested_is_not_read(tmp_path: Path) -> None:
    """There it lies by default, if the folder is the present one: its parts became samples."""
    np.save(tmp_path / "m.npy", np.eye(8))
    store_url = str(tmp_path / "wavemill-store")
    made = [run(store_url, tmp_path) for _ in range(2)]
    assert [(one.version, one.samples, one.quarantined) for one in made] == [(1, 1, {})] * 2
    part = next(tmp_path.glob("wavemill-store/parts/*/*/*/data.zarr/fields"))
    assert run(store_url, part.parent, FieldOptions(slice="sample:0"), "named").samples == 1


def test_a_run_that_finds_what_another_has_just_published_replaces_nothing(
    snapshots: Path, store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def published_meanwhile(*arguments: Any) -> Any:
        monkeypatch.undo()
        run(store_url, snapshots)
        return publish(*arguments)

    monkeypatch.setattr("tasks.steps.ingestion.publish", published_meanwhile)
    made = run(store_url, snapshots)
    assert (made.version, made.added, made.replaced) == (1, 0, 0)


def test_a_touched_file_is_read_once_and_kept(snapshots: Path, store_url: str) -> None:
    run(store_url, snapshots)
    os.utime(snapshots / "m03.npy", (1, 1))
    touched = run(store_url, snapshots)
    assert (touched.samples, touched.added, touched.unchanged) == (10, 0, 10)
    parts = open_store(store_url).dataset("flow").version.parts
    assert all(not part.withdrawn for part in parts)
    stat = (snapshots / "m03.npy").stat()
    (snapshots / "m03.npy").write_bytes(b"\0" * stat.st_size)
    os.utime(snapshots / "m03.npy", (1, 1))
    assert run(store_url, snapshots).version == touched.version  # its new time is recorded


def test_rehash_finds_a_change_that_time_and_size_hide(snapshots: Path, store_url: str) -> None:
    run(store_url, snapshots)
    file = snapshots / "m03.npy"
    stat = file.stat()
    np.save(file, np.load(file) + 1)
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert run(store_url, snapshots).replaced == 0
    rehashing = FieldOptions(part_size=FOUR_ROWS.part_size, rehash=True)
    assert run(store_url, snapshots, rehashing).replaced == 1


def test_a_missing_file_stays_unless_mirrored(snapshots: Path, store_url: str) -> None:
    run(store_url, snapshots)
    gone = snapshots / "m03.npy"
    kept = gone.rename(snapshots.parent / "aside")
    assert run(store_url, snapshots).samples == 10
    mirroring = FieldOptions(part_size=FOUR_ROWS.part_size, mirror=True)
    assert run(store_url, snapshots, mirroring).samples == 9
    kept.rename(gone)
    back = run(store_url, snapshots)
    assert (back.samples, back.restored, back.parts_written) == (10, 1, 0)


def spoil(folder: Path) -> dict[str, str]:
    """Write one bad file of each kind; return the reasons they must be refused for."""
    good = np.load(folder / "m00.npy")
    holed = good.copy()
    holed[3, 4] = np.nan
    np.save(folder / "b_nan.npy", holed)
    np.save(folder / "b_shape.npy", good[:8])
    np.save(folder / "b_pickle.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    (folder / "b_cut.npy").write_bytes((folder / "m00.npy").read_bytes()[:300])
    (folder / "b_magic.npy").write_bytes(b"not an array, whatever its name says" * 10)
    return {
        "b_nan": "nan",
        "b_shape": "shape",
        "b_pickle": "pickle",
        "b_cut": "truncated",
        "b_magic": "magic",
    }


def test_bad_files_are_quarantined_and_the_others_kept(snapshots: Path, store_url: str) -> None:
    expected = spoil(snapshots)
    made = run(store_url, snapshots)
    found = {Path(unit).stem: reason for unit, reason, _ in made.refused}
    assert found == expected
    assert made.samples == 10
    table = open_store(store_url).dataset("flow").quarantine()
    assert {Path(unit).stem for unit in table["unit"]} == set(expected)
    assert run(store_url, snapshots).version == 1  # the same refusals again make no version
    np.save(snapshots / "b_nan.npy", np.load(snapshots / "m00.npy"))
    mended = run(store_url, snapshots)
    assert (mended.samples, mended.added) == (11, 1)
    assert "b_nan" not in {
        Path(u).stem for u in open_store(store_url).dataset("flow").quarantine()["unit"]
    }


def test_what_is_whole_or_gone_leaves_quarantine(snapshots: Path, store_url: str) -> None:
    """Archives and files that were still being copied, a frame, a file removed, one elsewhere."""
    elsewhere = snapshots.parent / "elsewhere"
    elsewhere.mkdir()
    for file in snapshots.iterdir():
        np.save(file, np.load(file)[None])
    field = np.load(snapshots / "m00.npy")
    stack = np.concatenate([field, np.full_like(field, np.nan)])
    np.save(elsewhere / "far.npy", stack[1:])
    (snapshots / "removed.npy").write_bytes(b"")
    np.save(snapshots / "mended.npy", stack)
    np.save(snapshots / "stays.npy", stack)
    for name in ("a.zip", "b.tar"):
        shutil.make_archive(str(snapshots.parent / name[0]), name[2:], snapshots, "m01.npy")
    packed = {name: (snapshots.parent / name).read_bytes() for name in ("a.zip", "b.tar")}
    for name, data in packed.items():
        (snapshots / name).write_bytes(data[:600])
    options = replace(FOUR_ROWS, slice="0:all")
    ingest("flow", [str(snapshots), str(elsewhere)], store_url, options, "threads")

    def quarantined() -> list[str]:
        units = open_store(store_url).dataset("flow").quarantine()["unit"]
        return sorted(Path(unit.replace("!", "/")).name for unit in units)

    always = ["far.npy", "stays.npy#axis0=1"]
    assert quarantined() == sorted([*always, "a.zip", "b.tar", "mended.npy#axis0=1", "removed.npy"])
    for name, data in packed.items():
        (snapshots / name).write_bytes(data)
    (snapshots / "removed.npy").unlink()
    np.save(snapshots / "mended.npy", np.concatenate([field, -field]))
    assert run(store_url, snapshots, options).samples == 15
    assert quarantined() == always


def test_a_stack_that_becomes_complete_leaves_quarantine(snapshots: Path, store_url: str) -> None:
    for name in ("u_0", "v_0", "u_1"):
        np.save(snapshots / f"{name}.npy", np.load(snapshots / "m00.npy"))
    pattern, options = snapshots / "[uv]*.npy", replace(FOUR_ROWS, components=("u", "v"))
    assert run(store_url, pattern, options).quarantined == {"components": 1}
    np.save(snapshots / "v_1.npy", np.load(snapshots / "m01.npy"))
    assert run(store_url, pattern, options).samples == 2
    assert len(open_store(store_url).dataset("flow").quarantine()) == 0


def test_strict_fails_and_publishes_nothing(snapshots: Path, store_url: str) -> None:
    spoil(snapshots)
    with pytest.raises(InvalidRequest, match="--strict: nothing was published"):
        run(store_url, snapshots, FieldOptions(strict=True))
    assert open_store(store_url).datasets() == []


def test_mostly_bad_sources_publish_nothing(snapshots: Path, store_url: str) -> None:
    spoil(snapshots)
    for number in range(2, 10):
        (snapshots / f"m{number:02d}.npy").unlink()
    with pytest.raises(InvalidRequest, match="more than half"):
        run(store_url, snapshots)
    assert open_store(store_url).datasets() == []


def test_an_archive_holds_the_same_samples_as_its_folder(
    snapshots: Path, store_url: str, tmp_path: Path
) -> None:
    with tarfile.open(tmp_path / "snapshots.tar.gz", "w:gz") as archive:
        archive.add(snapshots, "snapshots")
    run(store_url, snapshots)
    run(store_url, tmp_path / "snapshots.tar.gz", name="packed")
    packed = {name.rsplit("/")[-1]: field for name, field in read(store_url, "packed").items()}
    for name, field in read(store_url).items():
        np.testing.assert_array_equal(packed[name], field)


def test_two_sources_cannot_claim_one_id(snapshots: Path, store_url: str, tmp_path: Path) -> None:
    run(store_url, snapshots)
    other = tmp_path / "other"
    other.mkdir()
    write_snapshots(other, ["m03", "new"], side=16)
    np.save(other / "m03.npy", np.load(other / "m03.npy") + 1)
    made = run(store_url, other)
    assert made.quarantined == {"duplicate": 1}
    assert made.samples == 11
    np.testing.assert_array_equal(read(store_url)["m03"], np.load(snapshots / "m03.npy"))


def test_more_realisations_extend_a_simulation(store_url: str) -> None:
    first = run(store_url, "simulate:n=3,N=32,t=0.2", FieldOptions())
    more = run(store_url, "simulate:n=5,N=32,t=0.2", FieldOptions())
    assert (first.samples, more.samples, more.added, more.unchanged) == (3, 5, 2, 3)
    run(store_url, "simulate:n=5,N=32,t=0.2", FieldOptions(), name="at-once")
    np.testing.assert_array_equal(
        np.stack(list(read(store_url).values())),
        np.stack(list(read(store_url, "at-once").values())),
    )


def test_parts_make_no_difference(snapshots: Path, store_url: str) -> None:
    run(store_url, snapshots)
    run(store_url, snapshots, FieldOptions(), name="whole")
    assert len(open_store(store_url).dataset("whole").version.parts) == 1
    whole = read(store_url, "whole")
    for name, field in read(store_url).items():
        np.testing.assert_array_equal(field, whole[name])


def test_a_lost_part_is_written_again(snapshots: Path, store_url: str) -> None:
    run(store_url, snapshots)
    store = open_store(store_url)
    lost = store.dataset("flow").version.parts[1].key
    store.backend.delete([e.path for e in store.backend.walk(f"parts/{lost[:2]}/{lost}")])
    assert [finding.problem for finding in verify(store)] == ["is missing"]
    made = run(store_url, snapshots)
    assert (made.parts_written, made.samples) == (1, 10)
    assert list(verify(store)) == []


def test_a_schema_is_not_changed_by_flags(snapshots: Path, store_url: str) -> None:
    run(store_url, snapshots)
    with pytest.raises(InvalidRequest, match="another --name"):
        run(store_url, snapshots, FieldOptions(dtype="float64"))


def write_sst(path: Path, scale: float = 1.0, **changes: Any) -> None:
    """Write 16 x 16 degrees of a sea surface temperature, with changes."""
    side = scale * np.arange(16)
    given = {"dims": ("lat", "lon"), "name": "sst", "units": "degC", "lat": side, **changes}
    coords = {"lat": ("lat", given["lat"], {"units": "degrees_north"}), "lon": side}
    field = np.random.default_rng(0).random((16, 16))
    array = xr.DataArray(field, coords, given["dims"], given["name"], {"units": given["units"]})
    array.rename(given.get("renamed", {})).to_netcdf(path)


def test_fields_of_another_kind_are_quarantined(store_url: str, tmp_path: Path) -> None:
    folder = tmp_path / "seas"
    folder.mkdir()
    for number in range(6):
        write_sst(folder / f"a{number}.nc")
    write_sst(folder / "rounded.nc", lat=np.arange(16, dtype="f4") * np.float32(1.00001))
    write_sst(folder / "unknown.nc", units="")
    write_sst(folder / "kelvins.nc", units="celsius")
    write_sst(folder / "series.nc", name="sst_0007")
    write_sst(folder / "synonyms.nc", renamed={"lat": "latitude", "lon": "longitude"})
    np.save(folder / "nameless.npy", np.ones((16, 16), "f4"))
    write_sst(folder / "b_name.nc", name="salinity", units="")
    write_sst(folder / "b_depth.nc", name="sst10")
    write_sst(folder / "b_kelvin.nc", units="K")
    write_sst(folder / "b_turned.nc", dims=("lon", "lat"))
    write_sst(folder / "b_transposed.nc", dims=("lon", "lat"), renamed={"lat": "nav_lat"})
    write_sst(folder / "b_falling.nc", lat=np.arange(16.0)[::-1])
    write_sst(folder / "b_coarse.nc", scale=2.0)
    made = run(store_url, folder, FieldOptions())
    assert {Path(unit).stem: reason for unit, reason, _ in made.refused} == {
        "b_name": "variable",
        "b_depth": "variable",
        "b_kelvin": "units",
        "b_turned": "axes",
        "b_transposed": "axes",
        "b_falling": "spacing",
        "b_coarse": "spacing",
    }
    assert made.samples == 12
    assert all("another --name" in message for _, _, message in made.refused)
    # the way out that the message names: the quantity is the same under another name
    renamed = run(store_url, folder / "b_name.nc", FieldOptions(components=("sst",)))
    assert (renamed.added, renamed.samples) == (1, 13)


@pytest.mark.parametrize(
    ("grid", "admitted"),
    [
        ({"y": ("y", np.arange(16) * 1000.0, {"units": "m"})}, True),
        ({"y": ("y", np.arange(16) * 1.0, {"units": "m"})}, False),
        ({"y": np.arange(16)}, True),  # a count of points does not say where they are
        ({}, True),
    ],
)
def test_grids_are_compared_in_metres(
    store_url: str, tmp_path: Path, grid: dict[str, Any], admitted: bool
) -> None:
    field = np.ones((16, 16), "f4")
    kilometres = ("y", np.arange(16.0), {"units": "km"})
    for name, coords in (("a", {"y": kilometres}), ("b", {"y": kilometres}), ("c", grid)):
        array = xr.DataArray(field, coords, ("y", "x"), "u")
        array.to_netcdf(tmp_path / f"{name}.nc")
    made = run(store_url, tmp_path, FieldOptions())
    assert made.samples == (3 if admitted else 2)


def test_moments_and_texts_of_one_axis_become_texts(store_url: str, tmp_path: Path) -> None:
    """Dates of two calendars, one of them unlike ours, ingested one after the other."""
    for name, calendar in (("a", "standard"), ("b", "360_day")):
        time = ("time", [30.0, 60.0], {"units": "days since 2000-01-01", "calendar": calendar})
        field = np.random.default_rng(0).random((2, 8, 8)).astype("f4")
        xr.Dataset({"u": (("time", "y", "x"), field)}, {"time": time}).to_netcdf(
            tmp_path / f"{name}.nc"
        )
        run(store_url, tmp_path / f"{name}.nc", FieldOptions(slice="time:all"))
    dataset = open_store(store_url).dataset("flow")
    assert dataset.samples()["time"].tolist() == [
        *("2000-01-31T00:00:00", "2000-03-01T00:00:00"),
        *("2000-02-01T00:00:00", "2000-03-01T00:00:00"),
    ]
    dataset.samples().to_parquet(tmp_path / "samples.parquet")
    assert len(dataset.samples("time = '2000-03-01T00:00:00'")) == 2


def test_gaps_are_filled_where_asked_and_counted(snapshots: Path, store_url: str) -> None:
    holed = np.load(snapshots / "m03.npy")
    holed[:4] = np.nan
    np.save(snapshots / "m03.npy", holed)
    made = run(store_url, snapshots)
    assert ["--fill mean" in message for _, _, message in made.refused] == [True]
    assert run(store_url, snapshots, FieldOptions(fill="mean")).added == 1
    (sample,) = open_store(store_url).dataset("flow").samples("valid_fraction < 1").itertuples()
    assert (sample.sample_id, sample.valid_fraction) == ("m03", 0.75)
    np.testing.assert_allclose(read(store_url)["m03"][0], np.nanmean(holed), rtol=1e-6)


def test_a_simulation_is_not_mixed_into_another_variable(store_url: str, tmp_path: Path) -> None:
    write_sst(tmp_path / "a.nc")
    run(store_url, tmp_path / "a.nc", FieldOptions())
    with pytest.raises(InvalidRequest, match="is vorticity where the dataset has sst"):
        run(store_url, "simulate:n=1,N=16,t=0.01,k0=3", FieldOptions())


def test_time_and_level_are_columns_to_select_by(store_url: str, tmp_path: Path) -> None:
    times = np.array([f"2020-{month:02d}-01" for month in range(1, 13)], "datetime64[s]")
    field = np.random.default_rng(0).random((12, 2, 8, 8)).astype("f4")
    coords = {"time": times, "row": [500, 850]}  # the table has a column row of its own
    dims = ("time", "row", "y", "x")
    xr.Dataset({"u": (dims, field), "v": (dims, 2 * field)}, coords).to_netcdf(tmp_path / "a.nc")
    np.save(tmp_path / "b.npy", field[0, 0])
    options = FieldOptions(variable=("u",), slice="time:all,row:all")
    run(store_url, tmp_path / "a.nc", options)
    run(store_url, tmp_path / "b.npy", FieldOptions())
    assert run(store_url, tmp_path / "a.nc", options).unchanged == 1
    dataset = open_store(store_url).dataset("flow")
    found = dataset.samples("time >= '2020-06-01' and month(time) < 12 and row_value = 850")
    assert list(found["sample_id"]) == [f"a#time={step},row=1" for step in range(5, 11)]
    array = dataset.to_xarray("time = '2020-03-01' and row_value < 600").compute()
    np.testing.assert_array_equal(array.values, field[2:3, 0])
    for flags, said in (
        (FieldOptions(variable=("v",), slice="time:all,row:all"), "--variable v: the dataset"),
        (FieldOptions(variable=("u",), slice="time:0,row:0"), "a.nc is in the dataset as read"),
        (FieldOptions(derive="vorticity"), "--derive vorticity: the dataset holds u"),
    ):
        with pytest.raises(InvalidRequest, match=said):
            run(store_url, tmp_path / "a.nc", flags)


def test_vorticity_is_that_of_the_velocity(store_url: str, tmp_path: Path) -> None:
    y, x = np.meshgrid(*(2 * np.pi * np.arange(n) / n for n in (24, 32)), indexing="ij")
    velocity = np.stack([np.sin(y), np.sin(2 * x)])  # curl: 2 cos 2x - cos y
    np.savez(tmp_path / "flow.npz", u=velocity[0], v=velocity[1])
    options = FieldOptions(
        variable=("u", "v"),
        derive="vorticity",
        spacing=(2 * np.pi / 24, 2 * np.pi / 32),
        periodic=True,
        dtype="float64",
    )
    run(store_url, tmp_path / "flow.npz", options)
    (field,) = read(store_url).values()
    np.testing.assert_allclose(field, 2 * np.cos(2 * x) - np.cos(y), atol=1e-12)  # spectral


def _cases() -> list[Any]:
    file = Path(__file__).parents[1] / "cases" / "turbulence.toml"
    return [pytest.param(case, id=case["name"]) for case in tomllib.loads(file.read_text())["case"]]


def _flags(case: dict[str, Any]) -> FieldOptions:
    flags = case["flags"]
    return FieldOptions(
        variable=tuple(flags["variable"].split(",")) if "variable" in flags else (),
        components=tuple(flags["components"].split(",")) if "components" in flags else (),
        slice=flags.get("slice"),
        dtype=case.get("dtype"),
    )


@pytest.mark.parametrize("case", _cases())
def test_reference_data_ingests_as_the_table_says(
    case: dict[str, Any], shared: Path, store_url: str
) -> None:
    source = shared / "data" / case["source"]
    if case["count"] == 0:
        (reason,) = case["quarantined"].values()
        with pytest.raises(InvalidRequest, match=reason):
            run(store_url, source, _flags(case))
        return
    made = run(store_url, source, _flags(case))
    schema = open_store(store_url).dataset("flow").schema
    assert made.samples == case["count"]
    assert list(schema.shape) == case["shape"]
    assert list(schema.components) == case["components"]
    assert list(schema.units) == case.get("units", [None] * len(schema.components))
    refused = {Path(unit.split("#")[0]).name: reason for unit, reason, _ in made.refused}
    assert refused == case["quarantined"]


@pytest.mark.parametrize(
    ("names", "options", "said"),
    [
        ("u0.npy v1.npy", FieldOptions(components=("u", "v")), "none of 2.*needs one file for"),
        ("cifar-10-batches-py/data_batch_1", ImageOptions(), "none of 1 inputs.*is a pickle"),
        ("cifar-100-python/train", ImageOptions(), "none of 1 inputs.*is a pickle"),
        ("readme.docx LICENSE", ImageOptions(), "only 1 without extension, 1 .docx"),
    ],
)
def test_sources_without_any_input_say_why(
    tmp_path: Path, store_url: str, names: str, options: Any, said: str
) -> None:
    for name in names.split():
        file = tmp_path / "sources" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"not to be read")
    with pytest.raises(InvalidRequest, match=said):
        run(store_url, tmp_path / "sources", options)
    assert open_store(store_url).datasets() == []


def test_reference_velocity_gives_its_vorticity(shared: Path, store_url: str) -> None:
    options = FieldOptions(derive="vorticity", periodic=True, dtype="float64")
    run(store_url, shared / "data/turbulence/piv_flow256", options)
    for name, field in read(store_url).items():
        data = (shared / f"data/turbulence/piv_flow256/{name}.flo").read_bytes()
        flow = np.frombuffer(data, "<f4", offset=12).reshape(256, 256, 2).transpose(2, 0, 1)
        expected = vorticity(torch.from_numpy(flow.astype("float64")), (1.0, 1.0), True)
        np.testing.assert_allclose(field, expected, atol=1e-12)
