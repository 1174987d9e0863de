"""Bytes to fields: each claim about a format, a choice or a damaged file."""

from __future__ import annotations

import gzip
import io
import json
import random
import struct
import tomllib
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
import pytest
import scipy.io
import xarray as xr
import zarr
from astropy.io import fits as astropy_fits
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from storage.errors import BadInput, InvalidRequest
from storage.readers import (
    EXTENSIONS,
    Found,
    Frame,
    Header,
    ReadOptions,
    read_frames,
    read_header,
    read_headers,
)
from storage.readers.coordinates import Coordinate
from storage.sources import SourceFile, Unit, discover, read_units
from storage.sources.filesystem import read_folder
from tests.storage.test_sources import archive_bytes

Array = npt.NDArray[Any]
FLOW = np.random.default_rng(0).normal(size=(7, 9, 2)).astype(np.float32)
FIELD = np.random.default_rng(1).normal(size=(6, 11))


def unit(name: str, *payload: bytes) -> Unit:
    files = [SourceFile(f"/none/{i}/{name}", None, name, len(d)) for i, d in enumerate(payload)]
    return Unit(name.rpartition(".")[0], tuple(files))


def read(name: str, data: bytes, **options: Any) -> Found[Frame]:
    return read_frames(unit(name, data), [data], ReadOptions(**options))


def header(name: str, data: bytes, **options: Any) -> Header:
    return read_header(unit(name, data), [data], ReadOptions(**options))


def reason(name: str, data: bytes, **options: Any) -> str:
    with pytest.raises(BadInput) as caught:
        read(name, data, **options)
    assert name in caught.value.message
    return caught.value.reason


def npy(array: Any, **options: Any) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, **options)
    return buffer.getvalue()


def npz(**arrays: Any) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def mat(**arrays: Any) -> bytes:
    buffer: Any = io.BytesIO()  # SciPy takes files, though its annotations know only paths
    scipy.io.savemat(buffer, arrays, do_compression=True)
    return bytes(buffer.getvalue())


def hdf5(fill: Callable[[Any], Any]) -> bytes:
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        fill(file)
    return buffer.getvalue()


def mat73(**arrays: Array) -> bytes:
    def fill(file: Any) -> None:
        for name, array in arrays.items():
            dataset = file.create_dataset(name, data=array.T)
            dataset.attrs["MATLAB_class"] = np.bytes_("single" if array.itemsize == 4 else "double")
        file.create_group("#refs#").create_dataset("a", data=np.zeros((5, 5)))

    with h5py.File(buffer := io.BytesIO(), "w", userblock_size=512) as file:
        fill(file)
    return b"MATLAB 7.3 MAT-file".ljust(512) + buffer.getvalue()[512:]


def flo(flow: Array) -> bytes:
    head = struct.pack("<fii", 202021.25, flow.shape[1], flow.shape[0])
    return head + flow.astype("<f4").tobytes()


def fits(*units: Any, **options: Any) -> bytes:
    buffer = io.BytesIO()
    astropy_fits.HDUList(list(units)).writeto(buffer, **options)
    return buffer.getvalue()


def fits_image(array: Array, **keywords: Any) -> Any:
    found = astropy_fits.PrimaryHDU(array)
    found.header.update(keywords)
    return found


def netcdf(dataset: xr.Dataset, version: int, tmp_path: Path, **options: Any) -> bytes:
    path = tmp_path / "written.nc"
    engine: Any = "scipy" if version == 3 else "h5netcdf"
    dataset.to_netcdf(path, engine=engine, **options)
    return path.read_bytes()


def zarr_folder(dataset: xr.Dataset, version: int, tmp_path: Path, **options: Any) -> bytes:
    path = tmp_path / "written.zarr"
    form: Any = version
    dataset.to_zarr(path, zarr_format=form, consolidated=version == 2, mode="w", **options)
    return read_folder(str(path))


# --- FITS ---------------------------------------------------------------------------------

COUNTS = (1000 * FIELD).astype(np.int16)


@pytest.mark.parametrize(
    ("name", "data", "expected"),
    [
        ("float.fits", fits(fits_image(FIELD)), FIELD),
        ("packed.fits.gz", gzip.compress(fits(fits_image(FIELD))), FIELD),
        ("unsigned.fit", fits(fits_image(COUNTS.view(np.uint16))), COUNTS.view(np.uint16)),
        ("scaled.fts", fits(fits_image(COUNTS, BSCALE=0.001, BZERO=5)), 0.001 * COUNTS + 5),
        (
            "rice.fits.fz",
            fits(
                astropy_fits.PrimaryHDU(),
                astropy_fits.CompImageHDU(COUNTS, compression_type="RICE_1"),
                checksum=True,
            ),
            COUNTS,
        ),
    ],
)
def test_images_of_fits_have_their_physical_values(name: str, data: bytes, expected: Array) -> None:
    (frame,) = read(name, data)
    assert header(name, data).shape == expected.shape
    np.testing.assert_allclose(frame.array[0], expected, rtol=1e-12, atol=1e-12)


def test_axes_of_fits_have_names_and_positions_and_stokes_are_components() -> None:
    """The first axis of FITS is the last; positions are CRVAL + CDELT (i - CRPIX), i from 1."""
    sky = {"CTYPE1": "RA---TAN", "CRVAL1": 10.0, "CDELT1": -0.1, "CRPIX1": 3.0, "BUNIT": "K"}
    sky |= {"CTYPE2": "DEC--TAN", "CRVAL2": 0.0, "CDELT2": 0.1, "CRPIX2": 3.0}
    third = {"CRVAL3": 2.0, "CRPIX3": 1.0}
    cube = np.random.default_rng(2).normal(size=(3, 6, 11))
    spectral = {"CTYPE3": "FREQ", "CDELT3": 0.5, "CUNIT3": "GHz"}
    data = fits(fits_image(cube, **sky, **third, **spectral))
    assert reason("cube.fits", data) == "needs-slice"
    (frame,) = read("cube.fits", data, slice="freq:2")
    np.testing.assert_array_equal(frame.array[0], cube[2])
    assert (frame.axes, frame.units, frame.positions) == (("dec", "ra"), ("K",), {"freq": 3e9})
    assert frame.steps == pytest.approx((0.1, -0.1))
    polarised = fits(fits_image(cube, **sky, **third, CTYPE3="STOKES", CDELT3=1.0))
    (frame,) = read("iqu.fits", polarised)
    np.testing.assert_array_equal(frame.array, cube)
    assert frame.components == ("Q", "U", "V")
    for turn in ({"PC1_2": 0.1}, {"CROTA2": 30.0}, {"CDELT1": 0.0}):
        (frame,) = read("turned.fits", fits(fits_image(FIELD, **(sky | turn))))
        assert (frame.axes, frame.steps) == (("dec", "ra"), ())


def test_what_is_blank_in_fits_is_a_gap() -> None:
    data = fits(fits_image(COUNTS, BLANK=int(COUNTS[0, 0])))
    assert reason("gap.fits", data) == "nan"
    (frame,) = read("gap.fits", data, fill="0")
    assert frame.valid == pytest.approx(1 - 1 / COUNTS.size)


# --- the table of reference folders -------------------------------------------------------

CASES = tomllib.loads((Path(__file__).parents[1] / "cases/turbulence.toml").read_text())["case"]


def plain(path: Path) -> Array:
    """Load a file without any of our code, with axes in the file's order."""
    match path.suffix:
        case ".npy":
            return np.asarray(np.load(path))[None]
        case ".flo":
            raw = np.fromfile(path, "<f4")[1:]
            width, height = (int(n) for n in raw[:2].view("<i4"))
            return np.stack([raw[2::2].reshape(height, width), raw[3::2].reshape(height, width)])
        case ".mat":
            return np.asarray(scipy.io.loadmat(path)["imgs"])[None]
    raise AssertionError(path)


def jhtdb(path: Path, name: str) -> Array:
    with h5py.File(path) as file:
        return np.asarray(file[name])


@pytest.fixture(scope="session")
def wind(shared: Path) -> xr.Dataset:
    with pytest.warns(xr.SerializationWarning):  # it drops the fill values; none is missing here
        return xr.open_dataset(
            shared / "data/turbulence/netcdf/eraint_uvz.nc", engine="scipy"
        ).load()


def expected(case: dict[str, Any], folder: Path, wind: Callable[[], xr.Dataset]) -> list[Array]:
    """Return what a case must give, by other libraries."""
    era = {
        "packed NetCDF, zonal wind on every level": lambda: wind().u.values[0][:, None],
        "packed NetCDF, wind of two months on one level": lambda: np.stack(
            [wind().u.values[:, 1], wind().v.values[:, 1]], axis=1
        ),
        "packed NetCDF, wind of every month and level, renamed": lambda: np.stack(
            [wind().u.values, wind().v.values], axis=2
        ).reshape(6, 2, 241, 480),
    }
    small, cube = folder / "isotropic1024coarse.h5", folder / "u_dim32_fm15.h5"
    cubes = {
        "JHTDB folder, velocity of one step": lambda: np.moveaxis(jhtdb(small, "u01000"), -1, 1),
        "JHTDB folder, pressure": lambda: np.moveaxis(jhtdb(small, "p01000"), -1, 1),
        "JHTDB cut-out with one plane, sliced all the same": lambda: np.moveaxis(
            jhtdb(small, "u01000"), -1, 1
        ),
        "components first, every plane across z": lambda: np.moveaxis(jhtdb(cube, "u00000"), 0, 1),
        "components first, one plane across y by the number of the axis": lambda: jhtdb(
            cube, "u00000"
        )[None, :, :, 7],
        "components first, one component only": lambda: jhtdb(cube, "u00000")[None, 2:, :, :, -1],
    }
    known: dict[str, Callable[[], Array]] = era | cubes
    if case["name"] in known:
        return list(known[case["name"]]())
    files = [path for path in sorted(folder.iterdir()) if path.name not in case["quarantined"]]
    if case["name"] == "dust polarisation stacked by stem":
        return [np.concatenate([plain(path) for path in files])]
    return [plain(path) for path in files[: case["count"]]]


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_reference_folders_become_what_the_table_says(
    case: dict[str, Any], shared: Path, request: pytest.FixtureRequest
) -> None:
    source = shared / "data" / case["source"]
    flags = {
        key: tuple(v.split(",")) if key == "components" else v for key, v in case["flags"].items()
    }
    options = ReadOptions(**flags)
    quarantined: dict[str, str] = {}
    frames = []
    for found, payload in read_units(
        discover([str(source)], extensions=EXTENSIONS, components=options.components)
    ):
        assert not isinstance(payload, BadInput)
        try:
            described = read_header(found, None, options)
            frames_here = read_frames(found, payload, options)
        except BadInput as error:
            quarantined[found.files[0].name] = error.reason
            continue
        assert described == read_header(found, payload, options)
        assert described.frames == len(frames_here)
        for frame in frames_here:
            assert frame.array.shape[1:] == described.shape
            assert frame.array.dtype == described.dtype
            assert frame.components == described.components
            assert frame.units == described.units
            frames.append((found.files[0].name, frame))
    commonest = Counter(frame.array.shape for _, frame in frames).most_common(1)
    kept = [(name, frame) for name, frame in frames if frame.array.shape == commonest[0][0]]
    quarantined |= {n: "shape" for n, frame in frames if frame.array.shape != commonest[0][0]}
    assert quarantined == case["quarantined"]
    assert len(kept) == case["count"]
    if not kept:
        return
    folder = source if source.is_dir() else source.parent
    reference = expected(case, folder, partial(request.getfixturevalue, "wind"))
    for (_, frame), array in zip(kept, reference, strict=True):
        assert list(frame.components) == case["components"]
        assert list(frame.array.shape) == [len(case["components"]), *case["shape"]]
        assert frame.array.dtype == case["dtype"]
        assert list(frame.units) == case.get("units", [None] * len(frame.units))
        np.testing.assert_array_equal(frame.array, array)


# --- formats ------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize(
    "dtype", ["<f4", ">f4", "<f8", ">f8", "<f2", "i1", "<i2", ">u2", "<i4", "?"]
)
def test_npy_of_any_order_and_type_gives_native_floats(dtype: str, order: Any) -> None:
    array = np.asarray(FIELD * 20, dtype=dtype, order=order)
    (frame,) = read("a.npy", npy(array))
    wide = np.dtype(dtype).itemsize > (4 if "f" in dtype else 2)
    assert frame.array.dtype == (np.float64 if wide else np.float32)
    assert frame.array.dtype.isnative
    assert frame.array.flags.c_contiguous
    assert frame.array.flags.writeable
    assert frame.index == ""
    np.testing.assert_array_equal(frame.array[0], array.astype(np.float64))


def test_npz_gives_the_variable_that_is_named() -> None:
    data = npz(vorticity=FIELD, mask=FIELD > 0, time=np.array(3.0))
    assert reason("a.npz", data) == "variable"
    (frame,) = read("a.npz", data, variable="vorticity")
    assert frame.components == ("vorticity",)
    np.testing.assert_array_equal(frame.array[0], FIELD)
    np.testing.assert_array_equal(read("a.npz", npz(w=FIELD, t=np.arange(3)))[0].array[0], FIELD)


def test_several_variables_become_the_components_of_one_field() -> None:
    data = npz(u=FLOW[..., 0], v=FLOW[..., 1], other=FIELD)
    (frame,) = read("a.npz", data, variable="u,v")
    assert frame.components == ("u", "v")
    np.testing.assert_array_equal(frame.array, np.moveaxis(FLOW, -1, 0))
    (renamed,) = read("a.npz", data, variable=("v", "u"), components=("y", "x"))
    assert renamed.components == ("y", "x")
    np.testing.assert_array_equal(renamed.array, np.moveaxis(FLOW, -1, 0)[::-1])
    assert reason("a.npz", data, variable="u,other") == "shape"


def test_flo_gives_velocity_row_by_row() -> None:
    (frame,) = read("a.flo", flo(FLOW))
    assert frame.components == ("u", "v")
    np.testing.assert_array_equal(frame.array, np.moveaxis(FLOW, -1, 0))
    assert header("a.flo", flo(FLOW)).shape == (7, 9)


@pytest.mark.parametrize("write", [mat, mat73], ids=["version 5", "version 7.3"])
def test_mat_keeps_rows_as_y_and_columns_as_x(write: Callable[..., bytes]) -> None:
    (frame,) = read("a.mat", write(w=FIELD))
    assert frame.components == ("w",)
    np.testing.assert_array_equal(frame.array[0], FIELD)
    stack = np.random.default_rng(2).normal(size=(6, 11, 5)).astype(np.float32)
    frames = read("a.mat", write(w=stack), slice="2:all")
    assert [frame.index for frame in frames] == [f"axis2={i}" for i in range(5)]
    np.testing.assert_array_equal([f.array[0] for f in frames], np.moveaxis(stack, 2, 0))
    assert reason("a.mat", write(w=stack)) == "needs-slice"
    (velocity,) = read("a.mat", write(w=FLOW), components=("u", "v"))
    np.testing.assert_array_equal(velocity.array, np.moveaxis(FLOW, -1, 0))


def test_mat_of_other_writers_lacks_classes_and_is_reversed_all_the_same() -> None:
    (frame,) = read("a.mat", hdf5(lambda file: file.create_dataset("w", data=FIELD.T)))
    np.testing.assert_array_equal(frame.array[0], FIELD)


@pytest.mark.parametrize("write", [mat, mat73], ids=["version 5", "version 7.3"])
def test_mat_without_arrays_is_said_to_have_none(write: Callable[..., bytes]) -> None:
    with pytest.raises(BadInput, match=r"has no array of numbers with two or more axes$"):
        read("a.mat", write())


def test_mat_offers_only_numeric_arrays() -> None:
    data = mat(
        w=FIELD,
        nu=1e-3,
        times=np.arange(9.0),
        name="text",
        cells=np.array([1, "x"], object),
        record={"f": FIELD},
    )
    np.testing.assert_array_equal(read("a.mat", data)[0].array[0], FIELD)
    assert reason("a.mat", data, variable="cells") == "variable"


CUBE = np.random.default_rng(3).normal(size=(5, 6, 8, 3)).astype(np.float32)


def new_cutout(file: Any) -> None:
    for axis, count in {"x": 8, "y": 6, "z": 5}.items():
        file[f"{axis}coor"] = (np.arange(count) * 0.25 * (2 if axis == "y" else 1)).astype("f4")
    for step in (1, 2):
        file[f"Velocity_{step:04}"] = CUBE * step
        file[f"Pressure_{step:04}"] = CUBE[..., :1] * step


def old_cutout(file: Any) -> None:
    file["_start"], file["_size"] = np.arange(4, dtype="i4"), np.arange(4, dtype="i4")
    file["u01000"], file["p01000"] = CUBE, CUBE[..., :1]


def test_new_jhtdb_cutouts_give_every_step_with_spacing() -> None:
    data = hdf5(new_cutout)
    frames = read("a.h5", data, variable="Velocity", slice="z:3")
    assert [frame.index for frame in frames] == ["Velocity_0001,z=3", "Velocity_0002,z=3"]
    assert frames[0].components == ("u", "v", "w")
    assert frames[0].spacing == (0.5, 0.25)
    np.testing.assert_array_equal(frames[1].array, 2 * np.moveaxis(CUBE[3], -1, 0))
    (pressure,) = read("a.h5", data, variable="Pressure_0002", slice="y:1")
    assert pressure.components == ("Pressure",)
    assert pressure.axes == ("z", "x")
    assert pressure.spacing == (0.25, 0.25)
    np.testing.assert_array_equal(pressure.array[0], 2 * CUBE[:, 1, :, 0])
    assert reason("a.h5", data) == "variable"


@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize(("name", "axis"), [("z", 0), ("y", 1), ("x", 2)])
def test_velocity_is_cut_across_any_axis_by_name_or_number(
    first: bool, name: str, axis: int
) -> None:
    stored = np.moveaxis(CUBE, -1, 0) if first else CUBE
    data = hdf5(lambda file: file.create_dataset("u00000", data=stored))
    frames = read("a.h5", data, slice=f"{name}:all")
    assert len(frames) == CUBE.shape[axis]
    for index, frame in enumerate(frames):
        assert frame.index == f"{name}={index}"
        assert frame.components == ("u", "v", "w")
        plane = np.take(CUBE, index, axis=axis)
        np.testing.assert_array_equal(frame.array, np.moveaxis(plane, -1, 0))
    (last,) = read("a.h5", data, slice=f"{axis + first}:-1")
    np.testing.assert_array_equal(last.array, frames[-1].array)
    assert last.index == frames[-1].index


def test_old_jhtdb_cutouts_name_their_variables_without_the_step() -> None:
    data = hdf5(old_cutout)
    for variable, components in (
        ("u", ("u", "v", "w")),
        ("u01000", ("u", "v", "w")),
        ("p", ("p",)),
    ):
        frames = read("a.hdf5", data, variable=variable, slice="z:all")
        assert [frame.index for frame in frames] == [f"z={i}" for i in range(5)]
        assert frames[0].components == components
    assert reason("a.h5", data, variable="u") == "needs-slice"
    assert reason("a.h5", data, variable="_size") == "variable"


@pytest.mark.parametrize("dtype", ["i2", "f2", "f8"])
def test_plain_hdf5_may_nest_compress_and_be_big_endian(dtype: str) -> None:
    def fill(file: Any) -> None:
        stored = (FIELD * 100).astype(f">{dtype}")
        file.create_dataset("run/7/w", data=stored, chunks=(4, 4), compression="gzip", shuffle=True)

    for options in ({}, {"variable": "w"}, {"variable": "run/7/w"}):
        (frame,) = read("a.h5", hdf5(fill), **options)
        np.testing.assert_array_equal(frame.array[0], (FIELD * 100).astype(dtype))


GRID = {"y": np.arange(6) * 0.5, "x": 3 - np.arange(11) * 0.25}
WIND = xr.Dataset(
    {
        "u": (("time", "y", "x"), np.stack([FIELD, 2 * FIELD]), {"units": "m s-1"}),
        "t": (("y", "x"), (FIELD * 10).round(2) + 280),
        "area": (("y", "x"), FIELD * 0 + 1),
    },
    coords=GRID,
)
WIND["t"].attrs["ancillary_variables"] = "area"
PACKING = {"dtype": "int16", "scale_factor": -0.01, "add_offset": 280.0, "_FillValue": -32768}


@pytest.mark.parametrize("version", [3, 4])
def test_netcdf_gives_named_axes_units_spacing_and_unpacked_numbers(
    version: int, tmp_path: Path
) -> None:
    data = netcdf(WIND, version, tmp_path, encoding={"t": PACKING})
    frames = read("a.nc", data, variable="u", slice="time:all")
    assert [frame.index for frame in frames] == ["time=0", "time=1"]
    assert frames[0].units == ("m s-1",)
    assert frames[0].axes == ("y", "x")
    assert frames[0].spacing == (0.5, -0.25)
    np.testing.assert_array_equal([frame.array[0] for frame in frames], WIND.u.values)
    (packed,) = read("a.nc", data, variable="t")
    assert packed.array.dtype == np.float64
    np.testing.assert_allclose(packed.array[0], WIND.t.values, rtol=0, atol=1e-9)
    with pytest.raises(BadInput, match="variable") as caught:
        read("a.nc", data)
    assert "area" not in caught.value.message


@pytest.mark.parametrize(
    ("value", "units", "calendar", "expected"),
    [
        (43890.25, "days since 1900-01-01", "standard", datetime(2020, 3, 2, 6)),
        (17522904, "hours since 1-1-1 00:00:0.0", "standard", datetime(2000, 1, 1)),
        (730119, "days since 0001-01-01", "proleptic_gregorian", datetime(2000, 1, 1)),
        (1, "hours since 2000-01-01 00:00:00 +01:00", "", datetime(2000, 1, 1)),
        (2.5, "days since 2000-02-27", "noleap", datetime(2000, 3, 1, 12)),
        (59, "days since 2000-01-01", "360_day", "2000-02-30T00:00:00"),
        (365, "days since 2001-01-01", "all_leap", "2001-12-31T00:00:00"),
        (3, "months since 2000-01-01", "standard", 3),
        (3, "days", "standard", 3),
        (np.float32(0.1), "m", "", 0.1),
        (1e300, "days since 2000-01-01", "standard", 1e300),
        (b"low", "", "", "low"),
    ],
)
def test_a_position_is_a_number_a_text_or_a_moment(
    value: Any, units: str, calendar: str, expected: Any
) -> None:
    attributes = {"units": units} | ({"calendar": calendar} if calendar else {})
    assert Coordinate(np.array([value]), attributes).at(0) == expected


@pytest.mark.parametrize("write", [netcdf, zarr_folder])
@pytest.mark.parametrize("old", [True, False])
def test_frames_know_where_they_were_cut_out_and_how_their_points_lie(
    write: Callable[..., bytes], old: bool, tmp_path: Path
) -> None:
    version = {netcdf: (4, 3), zarr_folder: (3, 2)}[write][old]
    name = "a.nc" if write is netcdf else "a.zarr"
    times = np.array(["2020-01-01", "2020-01-02T12"], "datetime64[ns]")
    north = ("lat", 10 - np.arange(6) * 0.5, {"units": "degrees_north"})
    coords = {"time": times, "level": [500.0], "lat": north, "lon": np.arange(11) * 0.25}
    field = np.stack([FIELD, FIELD])[:, None]
    dataset = xr.Dataset({"u": (("time", "level", "lat", "lon"), field)}, coords)
    first, second = read(name, write(dataset, version, tmp_path), slice="time:all")
    assert first.positions == {"time": datetime(2020, 1, 1), "level": 500}
    assert second.positions["time"] == datetime(2020, 1, 2, 12)
    assert (first.axes, first.spacing, first.steps) == (("lat", "lon"), None, (-0.5, 0.25))


@pytest.mark.parametrize("write", [netcdf, zarr_folder])
@pytest.mark.parametrize("old", [True, False])
def test_missing_values_are_found_and_never_read_as_numbers(
    write: Callable[..., bytes], old: bool, tmp_path: Path
) -> None:
    version = {netcdf: (4, 3), zarr_folder: (3, 2)}[write][old]
    name = "a.nc" if write is netcdf else "a.zarr"
    field = FIELD.copy()
    field[2, 3] = np.nan
    floats: list[dict[str, Any]] = [{"dtype": "float32", "_FillValue": f} for f in (-999.0, 0.0)]
    for encoding in (PACKING, {"_FillValue": 1e20}, *floats):
        dataset = xr.Dataset({"t": (("y", "x"), field)})
        assert reason(name, write(dataset, version, tmp_path, encoding={"t": encoding})) == "nan"
    stack = xr.Dataset({"t": (("time", "y", "x"), np.stack([FIELD, field, FIELD]))})
    data = write(stack, version, tmp_path)
    frames = read(name, data, slice="time:all")
    assert [frame.index for frame in frames] == ["time=0", "time=2"]
    assert "--fill" in frames.refused[0][1].message
    for fill, expected in (("mean", np.nanmean(field)), ("-1", -1.0)):
        _, filled, _ = read(name, data, slice="time:all", fill=fill)
        assert filled.valid == 65 / 66
        np.testing.assert_allclose(filled.array[0], np.where(np.isnan(field), expected, field))
    assert [(index, error.reason) for index, error in frames.refused] == [("time=1", "nan")]


def test_a_fill_value_that_the_packed_type_cannot_hold_masks_nothing(tmp_path: Path) -> None:
    packed = (FIELD * 100).astype("i2")
    attributes = {"scale_factor": -0.5, "_FillXalue": np.nan}
    written = netcdf(xr.Dataset({"t": (("y", "x"), packed, attributes)}), 3, tmp_path)
    data = written.replace(b"_FillXalue", b"_FillValue")  # which no library would write
    assert data != written
    np.testing.assert_array_equal(read("a.nc", data)[0].array[0], -0.5 * packed)


@pytest.mark.parametrize("version", [3, 4])
@pytest.mark.parametrize(
    "attributes",
    [
        {"valid_range": np.array([-150, 150], "i2")},
        {"valid_min": np.int16(-150), "valid_max": np.int16(150)},
        {"valid_range": np.array([-1.5, 1.5]), "scale_factor": 0.01},
        {"valid_range": np.array([-150, 150], "i2"), "scale_factor": 0.01, "add_offset": 7.0},
    ],
)
def test_what_is_outside_the_valid_range_is_missing(
    attributes: dict[str, Any], version: int, tmp_path: Path
) -> None:
    raw = (FIELD * 100).astype("i2")
    data = netcdf(xr.Dataset({"t": (("y", "x"), raw, attributes)}), version, tmp_path)
    assert reason("a.nc", data) == "nan"
    (frame,) = read("a.nc", data, fill="-99")
    values = raw * attributes.get("scale_factor", 1) + attributes.get("add_offset", 0)
    np.testing.assert_allclose(frame.array[0], np.where(np.abs(raw) > 150, -99, values))
    assert header("a.nc", data).dtype == frame.array.dtype


def test_unsigned_bytes_of_netcdf_are_unpacked_as_unsigned(tmp_path: Path) -> None:
    raw = np.arange(64, dtype=np.uint8).reshape(8, 8) * 3
    attributes = {"_Unsigned": "true", "scale_factor": 2.0}
    dataset = xr.Dataset({"t": (("y", "x"), raw.view(np.int8), attributes)})
    np.testing.assert_array_equal(read("a.nc", netcdf(dataset, 3, tmp_path))[0].array[0], 2.0 * raw)
    dataset.t.attrs["valid_range"] = np.array([0, 150], np.uint8).view(np.int8)  # 150 is -106
    (frame,) = read("a.nc", netcdf(dataset, 3, tmp_path), fill="-1")
    np.testing.assert_array_equal(frame.array[0], np.where(raw > 150, -1, 2.0 * raw))


@pytest.mark.parametrize("group", ["", "run/7"])
@pytest.mark.parametrize("write", [netcdf, zarr_folder])
def test_what_only_locates_a_field_is_none(
    write: Callable[..., bytes], group: str, tmp_path: Path
) -> None:
    """As positions of bent grids, and the bounds of those along one axis, in any group."""
    name, version = ("a.nc", 4) if write is netcdf else ("a.zarr", 3)
    fields = {"t": (("y", "x"), FIELD, {"coordinates": "lat"}), "lat": (("y", "x"), FIELD)}
    bounds = {"x": ("x", np.arange(11.0), {"bounds": "b"}), "b": (("x", "two"), np.ones((11, 2)))}
    data = write(xr.Dataset({**fields, **bounds}), version, tmp_path, group=group or None)
    assert read(name, data)[0].components == (f"{group}/t".strip("/").rpartition("/")[2],)


def test_degrees_are_no_distance(tmp_path: Path) -> None:
    dataset = xr.Dataset({"t": (("y", "x"), FIELD)}, coords=GRID)
    dataset.x.attrs["units"] = "degrees_east"
    for version in (3, 4):
        assert read("a.nc", netcdf(dataset, version, tmp_path))[0].spacing is None


@pytest.mark.parametrize("version", [2, 3])
def test_zarr_folders_read_like_netcdf(version: int, tmp_path: Path) -> None:
    data = zarr_folder(WIND, version, tmp_path, encoding={"t": PACKING, "u": {"chunks": (1, 4, 4)}})
    frames = read("a.zarr", data, variable="u", slice="time:1")
    assert (frames[0].index, frames[0].units, frames[0].spacing) == (
        "time=1",
        ("m s-1",),
        (0.5, -0.25),
    )
    np.testing.assert_array_equal(frames[0].array[0], WIND.u.values[1])
    (packed,) = read("a.zarr.zip", data, variable="t")
    np.testing.assert_allclose(packed.array[0], WIND.t.values, rtol=0, atol=1e-9)
    assert header("a.zarr", data, variable="u", slice="time:all").frames == 2


@pytest.mark.parametrize("version", [2, 3])
def test_a_zarr_array_without_a_group_and_shards_read_as_well(version: int, tmp_path: Path) -> None:
    path = tmp_path / "w.zarr"
    options: dict[str, Any] = {"zarr_format": version, "chunks": (3, 4)}
    if version == 3:
        options["shards"] = (6, 12)
    array = zarr.create_array(path, shape=FIELD.shape, dtype="f8", **options)
    array[...] = FIELD
    (frame,) = read("w.zarr", read_folder(str(path)))
    assert frame.components == ("field",)
    np.testing.assert_array_equal(frame.array[0], FIELD)


@pytest.mark.parametrize("form", ["nc", "zarr"])
def test_an_axis_called_component_holds_the_components(form: str, tmp_path: Path) -> None:
    dataset = xr.Dataset({"w": (("component", "y", "x"), np.stack([FIELD] * 4))})
    data = netcdf(dataset, 4, tmp_path) if form == "nc" else zarr_folder(dataset, 3, tmp_path)
    (frame,) = read(f"a.{form}", data, components=("a", "b", "c", "d"))
    assert frame.components == ("a", "b", "c", "d")
    assert frame.array.shape == (4, 6, 11)


# --- choices ------------------------------------------------------------------------------


def test_more_axes_than_two_need_a_slice_and_the_message_says_which() -> None:
    data = npy(np.zeros((3, 8, 8)))
    with pytest.raises(BadInput, match=r"needs-slice.*--slice 0:INDEX.*--components u,v,w"):
        read("a.npy", data)
    assert len(read("a.npy", data, slice="0:all")) == 3
    assert read("a.npy", data, components=("u", "v", "w"))[0].array.shape == (3, 8, 8)


def test_axes_of_length_one_need_no_slice() -> None:
    for shape in ((1, 6, 11), (1, 1, 6, 11), (6, 11, 1)):
        (frame,) = read("a.npy", npy(FIELD.reshape(shape)))
        assert frame.index == ""
        np.testing.assert_array_equal(frame.array[0], FIELD)


def test_slices_combine_over_several_axes() -> None:
    stack = np.random.default_rng(4).normal(size=(2, 3, 6, 7))
    frames = read("a.npy", npy(stack), slice="1:all, 0:1")
    assert [frame.index for frame in frames] == [f"axis0=1,axis1={i}" for i in range(3)]
    np.testing.assert_array_equal([frame.array[0] for frame in frames], stack[1])
    assert len(read("a.npy", npy(stack), slice="0:all,1:all")) == 6


def test_a_slice_may_be_a_range_with_both_its_ends() -> None:
    stack = np.random.default_rng(4).normal(size=(4, 6, 7))
    frames = read("a.npy", npy(stack), slice="0:1-3")
    assert [frame.index for frame in frames] == ["axis0=1", "axis0=2", "axis0=3"]
    np.testing.assert_array_equal([frame.array[0] for frame in frames], stack[1:])


@pytest.mark.parametrize("text", ["0:7", "0:-4", "0:1-3", "0:2-1", "q:0", "5:all"])
def test_a_slice_that_a_file_does_not_have_refuses_the_file(text: str) -> None:
    assert reason("a.npy", npy(np.zeros((3, 8, 8))), slice=text) == "slice"


@pytest.mark.parametrize("text", ["z", ":3", "z:", "z:one", "0:1,0:2", "0:1,", "z:0:5"])
def test_a_slice_that_cannot_be_read_refuses_the_request(text: str) -> None:
    with pytest.raises(InvalidRequest, match="AXIS:INDEX"):
        ReadOptions(slice=text)


def test_what_is_filled_is_missing_and_not_all() -> None:
    for bad in (np.inf, FIELD * np.nan):
        assert reason("a.npy", npy(np.where(FIELD > 0, bad, np.nan)), fill="mean") == "nan"
    with pytest.raises(InvalidRequest, match="neither a number nor mean"):
        ReadOptions(fill="median")


def test_slicing_a_plane_leaves_no_field() -> None:
    assert reason("a.npy", npy(FIELD), slice="0:1") == "shape"


def test_component_names_must_be_as_many_as_components() -> None:
    assert reason("a.flo", flo(FLOW), components=("u", "v", "w")) == "components"
    assert read("a.flo", flo(FLOW), components=("p", "q"))[0].components == ("p", "q")


def test_a_missing_variable_is_answered_with_what_there_is() -> None:
    with pytest.raises(BadInput, match=r"no 'w'.*u \(6, 11\).*v \(6, 11\)"):
        read("a.npz", npz(u=FIELD, v=FIELD), variable="w")


def test_stacked_files_become_components_in_the_order_of_the_unit() -> None:
    payload = [npy(FIELD), npy(2 * FIELD)]
    options = ReadOptions(components=("I", "Q"))
    (frame,) = read_frames(unit("x.npy", *payload), payload, options)
    assert frame.components == ("I", "Q")
    np.testing.assert_array_equal(frame.array, [FIELD, 2 * FIELD])
    described = read_header(unit("x.npy", *payload), payload, options)
    assert (described.components, described.shape) == (("I", "Q"), FIELD.shape)


def test_stacked_files_must_be_alike() -> None:
    for payload, why in (
        ([npy(FIELD), npy(FIELD[1:])], "shape"),
        ([npy(FIELD), npy(np.full_like(FIELD, np.nan))], "nan"),
        ([npy(FIELD), b""], "truncated"),
    ):
        with pytest.raises(BadInput) as caught:
            read_frames(unit("x.npy", *payload), payload, ReadOptions(components=("I", "Q")))
        assert caught.value.reason == why


def test_options_survive_json_and_drop_their_defaults() -> None:
    assert ReadOptions().to_dict() == {}
    options = ReadOptions(variable=("u", "v"), components=("a", "b"), slice="z:0")
    assert ReadOptions(**json.loads(json.dumps(options.to_dict()))) == options
    assert set(ReadOptions(slice="z:0").to_dict()) == {"slice"}


def test_headers_of_large_files_are_read_from_their_beginning(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    path.write_bytes(npy(np.zeros((600, 500), np.float32)))
    (found,) = discover([str(path)], extensions=EXTENSIONS)
    reads: list[int | None] = []

    class Watched(SourceFile):
        def read(self, stop: int | None = None) -> bytes:
            reads.append(stop)
            return super().read(stop)

    watched = Unit("a", (Watched(**found.files[0].__dict__),))
    assert read_header(watched).shape == (600, 500)
    assert reads == [4096]


@pytest.mark.parametrize("suffix", [".zip", ".tar.gz"])
def test_headers_of_members_take_one_pass_over_their_archive(
    tmp_path: Path, suffix: str, note_openings: Callable[[], list[str]]
) -> None:
    """Of each alone, the list of a zip would be read, and a compressed tar up to it."""
    members = {f"{i}.npy": npy(np.zeros((4, 4 + i), np.float32)) for i in (2, 0, 1)}
    path = tmp_path / f"all{suffix}"
    path.write_bytes(archive_bytes(suffix, {**members, "3.npy": b"no field"}))
    (tmp_path / "plain.npy").write_bytes(npy(np.zeros((4, 9), np.float32)))
    units = discover([str(path), str(tmp_path / "plain.npy")], extensions=EXTENSIONS)
    opened = note_openings()
    found = read_headers(units)
    assert [h.shape[1] if isinstance(h, Header) else h.reason for h in found] == [
        *(4, 5, 6),
        "magic",
        9,
    ]
    assert opened == [str(path)]


# --- bad files ----------------------------------------------------------------------------


def bad_files(tmp_path: Path) -> dict[str, tuple[str, bytes]]:
    """Return for each name the reason that it must be refused for, and its bytes."""
    spoiled = FIELD.copy()
    spoiled[1, 1] = np.inf
    whole = npy(FIELD)
    return {
        "cut.npy": ("truncated", whole[:-8]),
        "head.npy": ("truncated", whole[:5]),
        "empty.npy": ("truncated", b""),
        "long.npy": ("trailing", whole + b"\0"),
        "magic.npy": ("magic", b"\x89PNG\r\n\x1a\n" + whole),
        "inf.npy": ("nan", npy(spoiled)),
        "objects.npy": ("pickle", npy(np.array([[1, "x"]] * 9, object), allow_pickle=True)),
        "masked.npy": ("pickle", np.ma.masked_less(FIELD, 0).dumps()),
        "scalar.npy": ("shape", npy(np.array(1.0))),
        "line.npy": ("shape", npy(np.arange(9.0))),
        "thin.npy": ("shape", npy(np.zeros((3, 900)))),
        "none.npy": ("shape", npy(np.zeros((0, 9)))),
        "complex.npy": ("dtype", npy(FIELD + 1j)),
        "text.npy": ("dtype", npy(np.array([["a"] * 9] * 9))),
        "records.npy": ("dtype", npy(np.zeros((9, 9), [("a", "f4")]))),
        "times.npy": ("dtype", npy(np.zeros((9, 9), "M8[s]"))),
        "cut.npz": ("corrupt", npz(w=FIELD)[:-30]),
        "magic.npz": ("magic", whole),
        "objects.npz": ("pickle", npz(w=np.array([[1, "x"]] * 9, object))),
        "cut.flo": ("truncated", flo(FLOW)[:-1]),
        "head.flo": ("truncated", flo(FLOW)[:9]),
        "long.flo": ("trailing", flo(FLOW) + b"\0"),
        "magic.flo": ("magic", b"\0" + flo(FLOW)[1:]),
        "size.flo": ("shape", struct.pack("<fii", 202021.25, -1, 4)),
        "unknown.flo": ("nan", flo(FLOW * 1e10)),
        "cut.mat": ("truncated", mat(w=FIELD)[:-9]),
        "head.mat": ("truncated", mat(w=FIELD)[:100]),
        "magic.mat": ("magic", whole),
        "complex.mat": ("dtype", mat(w=FIELD + 1j)),
        "cut.h5": ("truncated", hdf5(old_cutout)[:-2000]),
        "magic.h5": ("magic", whole),
        "lines.h5": ("variable", hdf5(lambda file: file.create_dataset("x", data=[1.0, 2.0]))),
        "complex.h5": ("dtype", hdf5(lambda file: file.create_dataset("x", data=FIELD + 1j))),
        "unwritten.h5": ("truncated", hdf5(lambda file: file.create_dataset("x", (20, 20), "f8"))),
        "huge.h5": (
            "shape",
            hdf5(lambda file: file.create_dataset("x", (10**6, 10**6), "f8", chunks=(64, 64))),
        ),
        "elsewhere.h5": (
            "external",
            hdf5(lambda f: f.create_dataset("x", (8, 8), "f4", external=[("/etc/passwd", 0, 256)])),
        ),
        "cut.nc": ("truncated", netcdf(WIND, 3, tmp_path)[:-400]),
        "cut4.nc": ("truncated", netcdf(WIND, 4, tmp_path)[:-400]),
        "magic.nc": ("magic", whole),
        "cdf5.nc": ("format", b"CDF\x05" + bytes(60)),
        "cut.fits": ("truncated", fits(fits_image(FIELD))[:-2880]),
        "cut_sum.fits": ("truncated", fits(fits_image(FIELD), checksum=True)[:-2880]),
        "packed.fits.gz": ("truncated", gzip.compress(fits(fits_image(FIELD)))[:-9]),
        "magic.fits": ("magic", whole),
        "sum.fits": ("corrupt", fits(fits_image(FIELD), checksum=True)[:-2700] + bytes(2700)),
        "table.fits": (
            "variable",
            fits(
                astropy_fits.PrimaryHDU(),
                astropy_fits.BinTableHDU.from_columns(
                    [astropy_fits.Column("T", "E", array=np.zeros(12))]
                ),
            ),
        ),
        "magic.zarr": ("magic", whole),
        "bare.zarr": ("magic", npz(w=FIELD)),
        "what.dat": ("format", whole),
    }


def test_bad_files_are_refused_with_their_reason(tmp_path: Path) -> None:
    files = bad_files(tmp_path)
    assert {name: reason(name, data) for name, (_, data) in files.items()} == {
        name: why for name, (why, _) in files.items()
    }


def changed(container: bytes, change: Callable[[str, bytes], bytes | None]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(container)) as old, zipfile.ZipFile(buffer, "w") as new:
        for name in old.namelist():
            data = change(name, old.read(name))
            if data is not None:
                new.writestr(name, data)
    return buffer.getvalue()


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("imaginary", [False, True])
def test_numbers_of_no_type_in_mat_are_refused_where_scipy_would_end_the_process(
    compressed: bool, imaginary: bool
) -> None:
    buffer: Any = io.BytesIO()
    scipy.io.savemat(buffer, {"w": FIELD + 1j if imaginary else FIELD})
    data = bytearray(buffer.getvalue())
    place = data.rindex(struct.pack("<II", 9, FIELD.nbytes))
    data[place : place + 4] = bytes(4)
    if compressed:
        packed = zlib.compress(bytes(data[128:]))
        data[128:] = struct.pack("<II", 15, len(packed)) + packed
    assert reason("a.mat", bytes(data)) == "corrupt"


@pytest.mark.parametrize("version", [2, 3])
def test_a_lost_chunk_is_not_read_as_fill_values(version: int, tmp_path: Path) -> None:
    whole = zarr_folder(WIND[["t"]], version, tmp_path)
    chunk = {2: "t/0.0", 3: "t/c/0/0"}[version]
    lost = changed(whole, lambda name, data: None if name == chunk else data)
    cut = changed(whole, lambda name, data: data[:-20] if name == chunk else data)
    assert reason("a.zarr", lost) == "truncated"
    assert reason("a.zarr", cut) in {"corrupt", "truncated"}


@pytest.mark.parametrize("location", ["start", "end"])
def test_a_chunk_that_a_shard_lacks_is_not_read_as_fill_values(
    location: Any, tmp_path: Path
) -> None:
    path = tmp_path / "w.zarr"
    shards: Any = {"shape": (6, 12), "index_location": location}
    array = zarr.create_array(path, shape=(9, 11), dtype="f8", chunks=(3, 4), shards=shards)
    array[:6] = 1.5
    array[6:, :4] = 0.5
    data = read_folder(str(path))
    assert reason("a.zarr", data) == "truncated"
    with pytest.raises(BadInput, match="at least 2 chunks"):
        read("a.zarr", data)
    array[6:] = 0.5
    assert read("a.zarr", read_folder(str(path)))[0].array.min() == 0.5


@pytest.mark.parametrize("form", ["level.h5", "level.zarr"])
def test_positions_that_were_never_written_are_not_read_as_fill_values(
    form: str, tmp_path: Path
) -> None:
    levels = np.array([100.0, 200, 300, 500, 700, 850])
    field = np.stack([FIELD] * 6)

    def hdf(file: Any) -> None:
        for axis, name in enumerate(("level", "y", "x")):
            file.require_dataset("t", field.shape, "f8", data=field).dims[axis].label = name
        file.create_dataset("level", (6,), "f8", chunks=(2,))[:2] = levels[:2]

    if form.endswith("h5"):
        data = hdf5(hdf)
    else:
        whole = xr.Dataset({"t": (("level", "y", "x"), field)}, {"level": levels})
        encoding, lost = {"level": {"chunks": (2,)}}, {"level/c/1", "level/c/2"}
        data = zarr_folder(whole, 3, tmp_path, encoding=encoding)
        assert read(form, data, slice="level:5")[0].positions == {"level": 850}
        data = changed(data, lambda name, data: None if name in lost else data)
    assert reason(form, data, slice="level:all") == "truncated"


def test_a_position_of_zero_that_zarr_left_out_is_read(tmp_path: Path) -> None:
    field = xr.Dataset({"t": (("time", "y", "x"), FIELD[None])}, {"time": [0]})
    data = zarr_folder(field, 3, tmp_path)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert "time/c/0" not in archive.namelist()
    assert read("a.zarr", data, slice="time:0")[0].positions == {"time": 0}


@pytest.mark.parametrize("kind", ["external", "virtual", "link"])
def test_positions_in_other_files_are_never_read(kind: str, tmp_path: Path) -> None:
    other = tmp_path / "other.h5"
    with h5py.File(other, "w") as file:
        file["level"] = np.arange(3.0)

    def fill(file: Any) -> None:
        file["t"] = np.stack([FIELD] * 3)
        for axis, name in enumerate(("level", "y", "x")):
            file["t"].dims[axis].label = name
        if kind == "external":
            file.create_dataset("level", (3,), "u1", external=[(str(other), 0, 3)])
        elif kind == "virtual":
            layout = h5py.VirtualLayout((3,), "f8")
            layout[:] = h5py.VirtualSource(str(other), "level", (3,))
            file.create_virtual_dataset("level", layout)
        else:
            file["level"] = h5py.ExternalLink(str(other), "level")

    if kind == "link":
        assert read("a.h5", hdf5(fill), slice="level:1")[0].positions == {}
    else:
        assert reason("a.h5", hdf5(fill), slice="level:all") == "external"


@pytest.mark.timeout(20)
def test_what_only_a_description_makes_huge_takes_no_time_and_no_memory(tmp_path: Path) -> None:
    def scale(file: Any) -> None:
        file["t"] = FIELD
        scale = file.create_dataset("x", (2**34,), "f8", chunks=(2**20,), compression="gzip")
        file["t"].dims[1].attach_scale(scale)

    def folder(name: str, size: tuple[int, ...], chunks: tuple[int, ...]) -> bytes:
        whole = xr.Dataset({"t": (("y", "x"), FIELD)}, {"x": np.arange(11) * 0.5})

        def declare(path: str, data: bytes) -> bytes:
            if path != f"{name}/zarr.json":
                return data
            described = json.loads(data) | {"shape": size}
            described["chunk_grid"]["configuration"]["chunk_shape"] = chunks
            return json.dumps(described).encode()

        return changed(zarr_folder(whole, 3, tmp_path), declare)

    assert read("a.h5", hdf5(scale))[0].spacing is None
    assert read("a.zarr", folder("x", (2**34,), (2**20,)))[0].spacing is None
    assert reason("b.zarr", folder("t", (2800, 2800), (1, 1))) == "truncated"


def test_text_inside_a_file_that_is_not_utf_8_is_refused() -> None:
    def fill(file: Any) -> None:
        file["t"] = FIELD
        file["t"].attrs.create("units", b"m\xff", dtype=h5py.string_dtype())

    assert reason("a.h5", hdf5(fill)) == "name"


@pytest.mark.parametrize("name", ["scale_factor", "add_offset"])
def test_packing_that_is_not_one_number_is_refused(name: str) -> None:
    def fill(file: Any) -> None:
        file["t"] = (FIELD * 100).astype("i2")
        file["t"].attrs[name] = np.array([1.0, 2.0])

    assert reason("a.h5", hdf5(fill)) == "attributes"


def test_a_zarr_array_encoded_by_pickle_is_never_decoded(tmp_path: Path) -> None:
    def change(name: str, data: bytes) -> bytes:
        if name != "t/.zarray":
            return data
        return json.dumps(
            json.loads(data) | {"filters": [{"id": "pickle", "protocol": 5}]}
        ).encode()

    assert reason("a.zarr", changed(zarr_folder(WIND[["t"]], 2, tmp_path), change)) == "pickle"


@pytest.fixture(scope="module")
def whole_files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    tmp_path = tmp_path_factory.mktemp("whole")
    single = WIND[["t"]]
    return {
        "a.npy": npy(FIELD),
        "a.npz": npz(w=FIELD),
        "a.flo": flo(FLOW),
        "a.mat": mat(w=FIELD),
        "b.mat": mat73(w=FIELD),
        "a.h5": hdf5(
            lambda file: file.create_dataset("w", data=FIELD, chunks=(3, 4), compression=1)
        ),
        "a.fits": fits(fits_image(FIELD), checksum=True),
        "b.fits.gz": gzip.compress(fits(fits_image(FIELD))),
        "a.nc": netcdf(single, 3, tmp_path),
        "b.nc": netcdf(single, 4, tmp_path),
        "a.zarr": zarr_folder(single, 2, tmp_path),
        "b.zarr": zarr_folder(single, 3, tmp_path),
    }


NAMES = [
    *("a.npy", "a.npz", "a.flo", "a.mat", "b.mat", "a.h5", "a.fits", "b.fits.gz"),
    *("a.nc", "b.nc", "a.zarr", "b.zarr"),
]


@pytest.mark.parametrize("name", NAMES)
@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(cut=st.floats(0, 0.999))
def test_a_file_cut_anywhere_is_bad_input_or_still_whole(
    name: str, cut: float, whole_files: dict[str, bytes]
) -> None:
    whole = whole_files[name]
    original = read(name, whole)[0].array
    try:
        frames = read(name, whole[: int(cut * len(whole))])
    except BadInput:
        return
    np.testing.assert_array_equal(frames[0].array, original)  # only padding was lost


@pytest.mark.parametrize("name", NAMES)
def test_flipped_bytes_in_a_header_raise_nothing_but_bad_input(
    name: str, whole_files: dict[str, bytes]
) -> None:
    whole = whole_files[name]
    noise = random.Random(7)
    outcomes: Counter[str] = Counter()
    for _ in range(120):
        damaged = bytearray(whole)
        for _ in range(noise.choice((1, 1, 4))):
            damaged[noise.randrange(min(len(whole), 1500))] = noise.randrange(256)
        try:
            read(name, bytes(damaged))
        except BadInput as error:
            outcomes[error.reason] += 1
    assert sum(outcomes.values()) > 0


@pytest.mark.timeout(60)
def test_a_damaged_heap_is_refused_where_hdf5_would_loop_for_ever(
    whole_files: dict[str, bytes],
) -> None:
    damaged = bytearray(whole_files["b.nc"])
    size = damaged.index(b"GCOL") + 24  # of the first object
    for value in (64, 0, 255):
        damaged[size] = value
        assert reason("a.nc", bytes(damaged)) == "corrupt"
