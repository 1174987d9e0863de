"""Features and fits through the flows equal the transforms and models called directly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pandas as pd
import pytest
import torch

import wavemill as wm
from flows import features, fit, ingest, turbulence
from flows.draws import synthesize
from storage import InvalidRequest, open_store
from storage.verify import verify
from tasks import figures
from tasks.fields import FieldOptions
from tasks.progress import hearing
from tests.flows.conftest import write_snapshots

SMALL = FieldOptions(part_size=4 * (4 * 16 * 16 + 128))
DIRECT: dict[str, tuple[dict[str, Any], Any]] = {
    "scattering": ({"J": 2, "L": 3}, lambda: wm.Scattering2D((16, 16), 2, 3)),
    "spectrum": ({}, lambda: wm.PowerSpectrum((16, 16))),
    "phase-harmonics": ({"J": 2, "L": 2}, lambda: wm.PhaseHarmonicCovariance((16, 16), 2, 2)),
}


@pytest.mark.parametrize("kind", DIRECT)
def test_features_equal_the_transform_called_directly(
    snapshots: Path, store_url: str, kind: str
) -> None:
    parameters, build = DIRECT[kind]
    ingest("flow", [str(snapshots)], store_url, SMALL, "threads")
    made = features("flow", kind, store_url, None, parameters, "threads")
    assert len(made.parts) == 3
    array = open_store(store_url).get_historical_features("flow", kind).to_xarray()
    fields = [np.load(snapshots / f"{name}.npy") for name in array.sample_id.values]
    expected = build()(torch.from_numpy(np.stack(fields))).numpy()
    np.testing.assert_allclose(array.values, expected, rtol=1e-5, atol=1e-6)
    for column, values in build().coefficients.items():
        np.testing.assert_array_equal(array[column].values, values)


def test_names_tell_harmonics_and_shifts_of_either_sign(snapshots: Path, store_url: str) -> None:
    ingest("flow", [str(snapshots)], store_url, SMALL, "threads")
    features("flow", "phase-harmonics", store_url, None, {"J": 2, "L": 4}, "threads")
    table = open_store(store_url).get_historical_features("flow", "phase-harmonics").coefficients
    signed = ["k1", "k2", "shift_y", "shift_x"]
    assert (table[signed] == -1).any().to_list() == [False, True, True, True]
    told = [dict(part.split("=") for part in name.split(",")) for name in table["name"]]
    assert table[signed].astype(str).to_dict("records") == [
        {column: row[column] for column in signed} for row in told
    ]
    assert [row.get("l1", "-1") for row in told] == list(table["l1"].astype(str))


def test_components_are_coefficients_of_their_own(store_url: str, tmp_path: Path) -> None:
    velocity = np.random.default_rng(0).standard_normal((5, 2, 16, 16)).astype("float32")
    np.savez(tmp_path / "v.npz", u=velocity[:, 0], v=velocity[:, 1])
    options = FieldOptions(variable=("u", "v"), slice="0:all")
    ingest("flow", [str(tmp_path / "v.npz")], store_url, options, "threads")
    features("flow", "scattering", store_url, None, {"J": 2, "L": 3}, "threads")
    frame = open_store(store_url).get_historical_features(
        "flow", "scattering", coefficients="component = 'v' and order <= 1"
    )
    expected = wm.Scattering2D((16, 16), 2, 3, max_order=1)(torch.from_numpy(velocity[:, 1]))
    np.testing.assert_allclose(frame.to_xarray().values, expected, rtol=1e-5, atol=1e-6)


def test_new_samples_cost_their_own_features_only(snapshots: Path, store_url: str) -> None:
    store = open_store(store_url)
    parameters = {"J": 2, "L": 3}
    for names in ([], ["a0", "z0"]):
        write_snapshots(snapshots, names)
        ingest("flow", [str(snapshots)], store_url, SMALL, "threads")
        made = features("flow", "scattering", store_url, None, parameters, "threads")
    first, second = (store.view("flow", "scattering", as_of=n) for n in (1, 2))
    assert (len(first.parts), len(second.parts)) == (3, 4)
    assert set(first.parts.items()) < set(second.parts.items())
    assert second == made
    old = store.get_historical_features("flow", "scattering", as_of=1)
    assert (len(old), old.missing) == (10, 0)


def test_a_view_without_the_newest_samples_says_so(snapshots: Path, store_url: str) -> None:
    ingest("flow", [str(snapshots)], store_url, SMALL, "threads")
    features("flow", "spectrum", store_url, None, None, "threads")
    write_snapshots(snapshots, ["z0"])
    ingest("flow", [str(snapshots)], store_url, SMALL, "threads")
    frame = open_store(store_url).get_historical_features("flow", "spectrum")
    assert (len(frame), frame.missing) == (10, 1)


def test_a_spectrum_is_in_the_units_of_the_dataset(snapshots: Path, store_url: str) -> None:
    options = FieldOptions(spacing=(0.25, 0.5))
    ingest("flow", [str(snapshots)], store_url, options, "threads")
    made = features("flow", "spectrum", store_url, None, None, "threads")
    assert made.spec["parameters"] == {"spacing": [0.25, 0.5]}


def test_views_that_let_opposite_borders_meet_warn_of_it(snapshots: Path, store_url: str) -> None:
    wrapped = FieldOptions(periodic=True)
    ingest("flow", [str(snapshots)], store_url, SMALL, "threads")
    ingest("wrapped", [str(snapshots)], store_url, wrapped, "threads")
    heard: list[str] = []
    with hearing(heard.append):
        for name in ("wrapped", "flow"):
            features(name, "spectrum", store_url, None, {}, "threads")
        features("flow", "scattering", store_url, None, {"J": 2, "L": 3}, "threads")
    (warning,) = heard
    assert warning.startswith("flow is not periodic: spectrum takes opposite borders to meet")


def test_a_fit_learns_from_the_selected_samples(snapshots: Path, store_url: str) -> None:
    ingest("flow", [str(snapshots)], store_url, SMALL, "threads")
    made = fit("gaussian", "flow", store_url, {"dtype": "float64"}, "sample_id < 'm03'", None, 5)
    chosen = np.stack([np.load(snapshots / f"m0{i}.npy") for i in range(3)])
    direct = wm.Gaussian({"dtype": "float64"}).fit(torch.from_numpy(chosen))
    drawn = synthesize(store_url, f"gaussian/{made.key[:10]}", 2, 7)
    np.testing.assert_allclose(drawn, direct.sample(2, 7).numpy(), rtol=1e-12, atol=1e-12)
    artifact = open_store(store_url).artifact("gaussian/flow@latest")
    assert artifact.manifest["samples"] == 3
    assert artifact.manifest["selection"] == "(sample_id < 'm03')"
    pictures = {"figures/pdf.png", "figures/spectrum.png", "figures/synthesis.png"}
    assert pictures | {"weights.safetensors", "metrics.json"} <= set(artifact.files())


def test_the_same_fit_is_kept_and_another_is_not(snapshots: Path, store_url: str) -> None:
    ingest("flow", [str(snapshots)], store_url, SMALL, "threads")
    first = fit("gaussian", "flow", store_url)
    assert first.written
    assert fit("gaussian", "flow", store_url).written is False
    others = [
        fit("gaussian", "flow", store_url, seed=1),
        fit("gaussian", "flow", store_url, where="sample_id <> 'm00'"),
        fit("gaussian", "flow", store_url, {"method": "phases"}),
    ]
    assert len({first.key, *(other.key for other in others)}) == 4
    write_snapshots(snapshots, ["z0"])
    ingest("flow", [str(snapshots)], store_url, SMALL, "threads")
    same_rows = fit("gaussian", "flow", store_url, where="sample_id < 'z'")
    assert (same_rows.key, same_rows.written) == (first.key, False)


def test_phase_harmonics_are_fitted_and_drawn_again_from_the_store(store_url: str) -> None:
    ingest("flow", ["simulate:n=2,N=32,t=0.4"], store_url, None, "threads")
    parameters = {"J": 3, "iterations": 20}
    made = fit("phase-harmonics", "flow", store_url, parameters, seed=3)
    assert made.metrics["moments"] > 100
    data = open_store(store_url).dataset("flow").to_xarray().values
    direct = wm.Microcanonical(parameters).fit(torch.from_numpy(data)).sample(1, 3).numpy()
    drawn = synthesize(store_url, made.key[:12], 1, 3)
    np.testing.assert_allclose(drawn, direct, rtol=1e-5, atol=1e-4)


def test_features_that_are_not_finite_are_refused_with_the_sample(
    store_url: str, tmp_path: Path
) -> None:
    for name, unit in (("a", 1.0), ("b", 1e25)):
        np.save(tmp_path / f"{name}.npy", unit * np.random.default_rng(0).standard_normal((8, 8)))
    options = FieldOptions(dtype="float32")
    ingest("flow", [str(tmp_path / "?.npy")], store_url, options, "threads")
    with pytest.raises(InvalidRequest, match=r"features of b of flow .* --set dtype=float64"):
        features("flow", "spectrum", store_url, None, None, "threads")
    features("flow", "spectrum", store_url, "double", {"dtype": "float64"}, "threads")
    open_store(store_url).dataset("flow").withdraw(["b"])
    features("flow", "spectrum", store_url, None, None, "threads")


@pytest.mark.parametrize("unit", [0.0, 1e-30, 1e30])
def test_pictures_of_fields_in_any_unit_warn_of_nothing(unit: float) -> None:
    x = (unit * np.random.default_rng(0).standard_normal((3, 8, 8))).astype("float32")
    for periodic in (True, False):
        assert figures.spectra({"x": x}, periodic).startswith(b"\x89PNG")
    assert figures.distributions({"x": x}).startswith(b"\x89PNG")
    assert figures.coefficients(pd.DataFrame(index=range(8)), x).startswith(b"\x89PNG")


def test_a_share_of_a_gaussian_in_an_energy_is_warned_of(
    store_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wavemill.maxent.energy.ROUNDS", 1)
    np.save(tmp_path / "x.npy", np.random.default_rng(0).standard_normal((8, 8)) ** 3)
    ingest("flow", [str(tmp_path / "x.npy")], store_url, None, "threads")
    heard: list[str] = []
    with hearing(heard.append):
        for written in (True, False):
            made = fit("energy", "flow", store_url, {"J": 2, "L": 2, "lags": 0, "steps": 2})
            assert made.written == written
    said = f"{made.metrics['gaussian_share']:.0%} of this energy is a Gaussian's"
    shares = [text for text in heard if text.startswith(said)]
    assert len(shares) == 2


@pytest.mark.slow
def test_everything_runs_on_s3_with_processes(bucket: str, tmp_path: Path) -> None:
    """Snapshots on S3 into a store on S3, by two worker processes, compared with a folder."""
    (tmp_path / "in").mkdir()
    write_snapshots(tmp_path / "in", [f"m{i}" for i in range(6)])
    fsspec.filesystem("s3").put(str(tmp_path / "in"), f"{bucket}/raw/", recursive=True)
    views, models = {"scattering": {"J": 2, "L": 3}, "spectrum": {}}, {"gaussian": {}}
    remote, local = f"{bucket}/store", str(tmp_path / "store")
    turbulence("flow", [f"{bucket}/raw/in/"], remote, SMALL, views, models, cluster="local:2")
    turbulence("flow", [str(tmp_path / "in")], local, SMALL, views, models, cluster="threads")
    stores = [open_store(remote), open_store(local)]
    for view in views:
        there, here = (
            store.get_historical_features("flow", view).to_xarray().sortby("sample_id")
            for store in stores
        )
        np.testing.assert_allclose(there.values, here.values, rtol=1e-5, atol=1e-6)
    assert stores[0].artifact("gaussian/flow@latest").manifest["samples"] == 6
    assert list(verify(stores[0])) == []
    again = turbulence(
        "flow", [f"{bucket}/raw/in/"], remote, SMALL, views, models, cluster="local:2"
    )
    assert (again["dataset"].unchanged, again["dataset"].added) == (6, 0)
    assert again["gaussian model"].written is False


def test_a_store_in_memory_is_for_this_process_alone(snapshots: Path) -> None:
    with pytest.raises(InvalidRequest, match="--cluster threads"):
        ingest("flow", [str(snapshots)], "memory://alone", SMALL, "local:1")
    ingest("flow", [str(snapshots)], "memory://alone", SMALL, "threads")
    features("flow", "spectrum", "memory://alone", None, None, "threads")
    assert open_store("memory://alone").views("flow") == ["spectrum"]


@pytest.mark.slow
def test_reference_fields_give_the_statistics_that_numpy_gives(
    shared: Path, store_url: str
) -> None:
    """Twenty maps of each kind through the pipeline, compared with sums written out by hand."""
    for name, folder in (("flow", "vorticity2d"), ("web", "cosmic_web_quijote_log256")):
        source = shared / "data" / "turbulence" / folder
        options = FieldOptions(periodic=True)
        ingest(name, [str(source)], store_url, options, "threads")
        features(name, "spectrum", store_url, None, None, "threads")
        features(name, "scattering", store_url, None, {"J": 4, "L": 4, "max_order": 1}, "threads")
        maps = np.stack([np.load(file) for file in sorted(source.glob("*.npy"))]).astype(float)
        store = open_store(store_url)
        power = store.get_historical_features(name, "spectrum").to_xarray()
        np.testing.assert_allclose(power[:, 0], maps.mean((1, 2)), rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(power[:, 1:].sum("coefficient"), maps.var((1, 2)), rtol=1e-5)
        scattering = store.get_historical_features(name, "scattering").to_xarray()
        means = scattering[:, 0].mean(("y", "x")).values
        # The low pass weighs the mirrored margin too: close to the mean, not equal.
        assert np.abs(means - maps.mean((1, 2))).max() < 0.2 * maps.std()
