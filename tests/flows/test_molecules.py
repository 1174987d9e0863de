"""Molecules from end to end: raw files of every form to samples, features, models, predictions."""

from __future__ import annotations

import io
import json
import os
import tarfile
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from flows import cli, evaluate, features, fit, ingest
from flows import molecules as flow
from flows.commands.ingest import _ingest_lines
from storage import InvalidRequest, open_store
from storage.verify import verify
from tasks.molecules import EXCLUDED, MoleculeOptions
from tasks.prediction import predict_to
from tasks.regression import split
from tasks.report import regression_chapter, write_report
from tasks.requests import FitRequest
from wavemill.specs import RegressionSpec

CASES = tomllib.loads((Path(__file__).parents[1] / "cases" / "molecules.toml").read_text())["case"]
WATER = "3\n\nO 0 0 0.1173\nH 0 0.7572 -0.4692\nH 0 -0.7572 -0.4692"


def run(url: str, *sources: Path | str, **options: Any) -> Any:
    """Ingest into ``set`` in this process."""
    return ingest("set", list(map(str, sources)), url, MoleculeOptions(**options), "threads")


def xyz(seed: int, atoms: int = 4) -> str:
    """A made-up molecule: carbon and hydrogen on a line, apart by more than 0.9 Angstrom."""
    steps = np.random.default_rng(seed).uniform(0.9, 1.4, atoms)
    rows = [f"{'C' if i % 2 else 'H'} {x:.10f} 0. 1.*^-6" for i, x in enumerate(steps.cumsum())]
    return "\n".join([str(atoms), "", *rows])


@pytest.fixture
def molecules(tmp_path: Path) -> Path:
    """A folder of twelve geometries ``m_000.xyz`` ... without a final newline."""
    folder = tmp_path / "molecules"
    folder.mkdir()
    for i in range(12):
        (folder / f"m_{i:03d}.xyz").write_text(xyz(i, 3 + i % 4))
    return folder


def table(folder: Path, rows: int = 12) -> str:
    """A table of energies by name, in another order than the files."""
    names = [f"m_{i:03d}" for i in reversed(range(rows))]
    path = folder.parent / "energies.csv"
    frame = pd.DataFrame({"molecule_name": names, "energy": -10.0 - np.arange(rows)[::-1]})
    frame.to_csv(path, index=True)
    return str(path)


@pytest.mark.parametrize(
    "case", [pytest.param(c, id=c["name"]) for c in CASES if not c.get("slow")]
)
def test_reference_folders_become_what_the_table_says(
    case: dict[str, Any], shared: Path, store_url: str
) -> None:
    options = dict(case["options"])
    for name in ("table", "exclude"):
        if name in options:
            paths = options[name] if isinstance(options[name], list) else [options[name]]
            found = [str(shared / "data" / path) for path in paths]
            options[name] = tuple(found) if name == "exclude" else found[0]
    options["target"] = tuple(options.get("target", ()))
    source = shared / "data" / case["source"]
    if "refused" in case:
        with pytest.raises(InvalidRequest, match=case["refused"]):
            run(store_url, source, **options)
        assert open_store(store_url).datasets() == []
        return
    made = run(store_url, source, **options)
    dataset = open_store(store_url).dataset("set")
    first = dataset.samples().iloc[0]
    assert (made.samples, made.quarantined) == (case["count"], case["quarantined"])
    assert first["sample_id"] == case["first"]
    for name, value in case["properties"].items():
        assert first[name] == pytest.approx(value, abs=0.02 if name.endswith("_atom") else 1e-9)
    assert set(case["properties"]) <= {name for name, _ in dataset.schema.properties}


def test_atoms_come_back_as_they_were_in_the_files(molecules: Path, store_url: str) -> None:
    run(store_url, molecules, part_size=400)  # several parts
    dataset = open_store(store_url).dataset("set")
    assert len(dataset.version.parts) > 1
    rows = dataset.samples()
    for (positions, charges), name in zip(dataset.atoms(), rows["sample_id"], strict=True):
        lines = (molecules / f"{name}.xyz").read_text().split("\n")[2:]
        expected = [[float(w.replace("*^", "e")) for w in line.split()[1:]] for line in lines]
        np.testing.assert_array_equal(positions, expected)
        assert [{"H": 1, "C": 6}[line.split()[0]] for line in lines] == charges.tolist()
    few = dataset.atoms("n_atoms = 4")
    assert np.diff(few.offsets).tolist() == [4] * int((rows["n_atoms"] == 4).sum())
    assert list(verify(open_store(store_url))) == []


def test_metadata_answers_questions(molecules: Path, store_url: str) -> None:
    (molecules / "water.xyz").write_text(WATER)
    run(store_url, molecules)
    dataset = open_store(store_url).dataset("set")
    found = dataset.samples("formula = 'H2O' and n_heavy = 1 and n_atoms = 3")
    assert list(found["sample_id"]) == ["water"]


@pytest.mark.parametrize("mode", ["w:gz", "w:bz2", "w"])
def test_archives_hold_the_same_molecules_as_folders(
    mode: str, molecules: Path, store_url: str, tmp_path: Path
) -> None:
    name = {"w:gz": "all.tar.gz", "w:bz2": "all.tar.bz2", "w": "all.tar"}[mode]
    with tarfile.open(tmp_path / name, mode) as archive:
        archive.add(molecules, "inside")
    run(store_url, tmp_path / name)
    ingest("folder", [str(molecules)], store_url, MoleculeOptions(), "threads")
    one, other = (open_store(store_url).dataset(n) for n in ("set", "folder"))
    assert list(one.samples()["sample_id"]) == list(other.samples()["sample_id"])
    np.testing.assert_array_equal(one.atoms().positions, other.atoms().positions)


def test_a_second_run_reads_nothing_and_new_files_cost_their_own_part(
    molecules: Path, store_url: str
) -> None:
    run(store_url, molecules)
    for file in molecules.iterdir():  # unreadable now: a second reading would end in quarantine
        stat = file.stat()
        file.write_bytes(b"?" * stat.st_size)
        os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    again = run(store_url, molecules)
    assert (again.version, again.parts_written, again.unchanged) == (1, 0, 12)
    (molecules / "a_new.xyz").write_text(WATER)
    more = run(store_url, molecules)
    assert (more.version, more.parts_written, more.added, more.samples) == (2, 1, 1, 13)


def test_bad_molecules_are_quarantined_with_their_reasons(molecules: Path, store_url: str) -> None:
    bad = {
        "truncated": "5\n\nH 0 0 0\n",
        "coincident": "2\n\nH 0 0 0\nH 0 0 0.01\n",
        "element": "1\n\nQq 0 0 0\n",
        "number": "1\n\nH 0 zero 0\n",
        "format": "hello\n",
        "nan": "1\n\nH 0 nan 0\n",
    }
    for reason, text in bad.items():
        (molecules / f"{reason}.xyz").write_text(text)
    made = run(store_url, molecules)
    assert (made.samples, made.quarantined) == (12, dict.fromkeys(sorted(bad), 1))
    kept = open_store(store_url).dataset("set").quarantine()
    assert {Path(u).stem: r for u, r in zip(kept["unit"], kept["reason"], strict=True)} == {
        reason: reason for reason in bad
    }


def test_one_id_twice_is_refused(molecules: Path, store_url: str) -> None:
    other = molecules / "again"
    other.mkdir()
    (other / "m_003.xyz").write_text(xyz(99))
    made = run(store_url, molecules)
    assert (made.samples, made.quarantined) == (12, {"duplicate": 1})


def test_a_table_joins_by_id_whatever_its_order(molecules: Path, store_url: str) -> None:
    run(store_url, molecules, table=table(molecules, 12), target=("E0=energy:hartree",))
    dataset = open_store(store_url).dataset("set")
    rows = dataset.samples().set_index("sample_id")["E0"]
    assert dict(rows) == {f"m_{i:03d}": -10.0 - i for i in range(12)}
    assert dict(dataset.schema.properties)["E0"] == "hartree"


def test_molecules_that_a_table_lacks_are_quarantined(molecules: Path, store_url: str) -> None:
    made = run(store_url, molecules, table=table(molecules, 10))
    assert (made.samples, made.quarantined) == (10, {"target": 2})
    atoms = open_store(store_url).dataset("set").atoms()
    assert len(atoms) == 10
    assert run(store_url, molecules, table=table(molecules, 12)).samples == 12
    assert len(open_store(store_url).dataset("set").quarantine()) == 0


def test_a_corrected_table_relabels_without_copying_arrays(molecules: Path, store_url: str) -> None:
    path = table(molecules)
    run(store_url, molecules, table=path)
    parts = open_store(store_url).dataset("set").version.parts
    frame = pd.read_csv(path, index_col=0)
    frame["energy"] += 1
    frame.to_csv(path)
    made = run(store_url, molecules, table=path)
    dataset = open_store(store_url).dataset("set")
    assert (made.version, made.parts_written, dataset.version.parts) == (2, 0, parts)
    assert dataset.samples()["energy"].max() == -9.0


@pytest.mark.parametrize("rows", [11, 13])
def test_a_table_without_ids_must_have_a_row_for_each(
    rows: int, molecules: Path, store_url: str, tmp_path: Path
) -> None:
    path = tmp_path / "bare.txt"
    path.write_text("\n".join(f"{-1.5 * i}" for i in range(rows)))
    with pytest.raises(InvalidRequest, match=f"{rows} rows for 12 molecules"):
        run(store_url, molecules, table=str(path))
    assert open_store(store_url).datasets() == []


def test_listed_ids_are_left_out_by_their_number(
    molecules: Path, store_url: str, tmp_path: Path
) -> None:
    path = tmp_path / "bad.txt"
    path.write_text("Prose about 3 molecules\n=====\n   2   CCO  x\n  m_005 c\n\n11 C\n===")
    made = run(store_url, molecules, exclude=(str(path),))
    assert (made.samples, made.ignored, made.quarantined) == (9, {EXCLUDED: 3}, {})
    again = run(store_url, molecules, exclude=(str(path),))
    assert (again.version, again.unchanged) == (1, 9)


def test_units_and_atomise_and_exclude_count_in_a_later_run_too(
    molecules: Path, store_url: str
) -> None:
    """They had done nothing to molecules that were stored, and nothing said so."""
    path, listed = table(molecules), molecules.parent / "ids.txt"
    listed.write_text("m_003\nm_011\n")
    run(store_url, molecules, table=path)
    stated = {"table": path, "target": ("energy:eV",)}
    made = run(store_url, molecules, **stated, atomise=("energy",), exclude=(str(listed),))
    assert (made.samples, made.withdrawn) == (10, 2)
    assert "  ignored: 2 on the list of exclusions" in _ingest_lines(made)
    dataset = open_store(store_url).dataset("set")
    assert dataset.schema.properties == (("energy", "eV"), ("energy_atom", "kcal/mol"))
    rows = dataset.samples()
    free = rows["formula"].map({"CH2": -38.847318, "C2H2": -76.69409, "C2H3": -77.194363})
    expected = 23.060548 * rows["energy"] - 627.5095 * free
    known = free.notna()
    assert known.any()
    assert rows["energy_atom"][known].tolist() == pytest.approx(expected[known].tolist())
    again = run(store_url, molecules, **stated, atomise=("energy",), exclude=(str(listed),))
    assert (again.version, again.withdrawn) == (made.version, 0)
    with pytest.raises(InvalidRequest, match="energy is in eV in this dataset"):
        run(store_url, molecules, table=path, target=("energy:hartree",))
    assert run(store_url, molecules, table=path).restored == 2


def test_atomisation_energies_take_the_free_atoms_away(
    molecules: Path, store_url: str, tmp_path: Path
) -> None:
    reference = tmp_path / "atomref.txt"
    reference.write_text("Ele- ZPVE U0 U H G\n H 0. -0.5 -0.4 -0.4 -0.6\n C 0. -38. -37 -37 -39\n")
    options = {"table": table(molecules), "atomise": ("energy",), "atomref": str(reference)}
    run(store_url, molecules, **options)
    row = open_store(store_url).dataset("set").samples("sample_id = 'm_000'").iloc[0]
    assert row["formula"] == "CH2"
    assert row["energy_atom"] == pytest.approx(627.5095 * (-10 + 0.5 * 2 + 38), rel=1e-12)


def test_the_embedded_molecules_are_ingested_by_name(store_url: str) -> None:
    made = run(store_url, "ase:g2")
    dataset = open_store(store_url).dataset("set")
    assert made.samples > 150
    assert dataset.samples("sample_id = 'C6H6'")["formula"].tolist() == ["C6H6"]
    assert run(store_url, "ase:g2").unchanged == made.samples


def test_features_follow_the_dataset_and_only_new_parts_are_computed(
    molecules: Path, store_url: str
) -> None:
    small = {"J": 2, "L": 1}
    run(store_url, molecules, part_size=500)
    first = features("set", "atomic-harmonics", store_url, None, small, "threads")
    assert first.spec["parameters"]["elements"] == [1, 6]
    (molecules / "z_new.xyz").write_text(xyz(50))
    run(store_url, molecules, part_size=500)
    second = features("set", "atomic-harmonics", store_url, None, small, "threads")
    assert set(first.parts.items()) < set(second.parts.items())
    counts = open_store(store_url).get_historical_features(
        "set", "atomic-harmonics", "n_atoms = 4", '"order" = 0'
    )
    assert counts.to_pandas().iloc[:, -2:].sum(axis=1).tolist() == [4.0] * len(counts)


def test_a_view_of_fields_is_refused_on_molecules(molecules: Path, store_url: str) -> None:
    run(store_url, molecules)
    with pytest.raises(InvalidRequest, match="choose one of solid-harmonics, atomic-harmonics"):
        features("set", "scattering", store_url, None, None, "threads")


def test_a_molecule_of_a_new_element_is_refused_with_the_way_out(
    molecules: Path, store_url: str
) -> None:
    run(store_url, molecules)
    features("set", "atomic-harmonics", store_url, None, {"J": 1, "L": 0}, "threads")
    (molecules / "water.xyz").write_text(WATER)
    run(store_url, molecules)
    with pytest.raises(ValueError, match=r"cannot see \[8\]: name all elements"):
        features("set", "atomic-harmonics", store_url, None, {"J": 1, "L": 0}, "threads")


def test_every_format_gives_the_same_molecules(store_url: str, tmp_path: Path) -> None:
    places = np.array([[0.0, 0, 0.1173], [0, 0.7572, -0.4692], [0, -0.7572, -0.4692]])
    folder = tmp_path / "forms"
    folder.mkdir()
    (folder / "plain.xyz").write_text(WATER)
    lattice = 'Lattice="9 0 0 0 9 0 0 0 9" Properties=species:S:1:pos:R:3 energy=-14.2'
    (folder / "extended.extxyz").write_text(WATER.replace("\n\n", f"\n{lattice}\n", 1) + "\n")
    np.savez(folder / "arrays.npz", R=places[None], z=np.array([8, 1, 1]), E=np.array([[-14.2]]))
    rows = [
        f"{x:10.4f}{y:10.4f}{z:10.4f} {s}   0  0"
        for (x, y, z), s in zip(places, "OHH", strict=True)
    ]
    sdf = ["water", "", "", "  3  0  0  0  0  0  0  0  0  0999 V2000", *rows, "M  END",
           "> <energy>", "-14.2", "", "$$$$", ""]  # fmt: skip
    (folder / "record.sdf").write_text("\n".join(sdf))
    run(store_url, folder)
    dataset = open_store(store_url).dataset("set")
    assert len(dataset.samples()) == 4
    for positions, charges in dataset.atoms():
        np.testing.assert_allclose(positions, places, atol=1e-12)
        assert charges.tolist() == [8, 1, 1]
    assert set(dataset.samples()["energy"].dropna()) == {-14.2}


def test_archives_are_read_without_unpacking(molecules: Path, store_url: str) -> None:
    """A member named out of its folder is refused, the others are read."""
    path = molecules.parent / "unsafe.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        archive.add(molecules / "m_000.xyz", "m_000.xyz")
        info = tarfile.TarInfo("../m_001.xyz")
        content = xyz(1).encode()
        info.size = len(content)
        archive.addfile(info, io.BytesIO(content))
    made = run(store_url, path)
    assert (made.samples, made.quarantined) == (1, {"archive": 1})


@pytest.fixture
def learnable(molecules: Path, store_url: str) -> tuple[str, Path]:
    """A store with 120 molecules, their energies (of distances) and small features."""
    for i in range(12, 120):
        (molecules / f"m_{i:03d}.xyz").write_text(xyz(i, 3 + i % 4))
    rows = []
    for i in range(120):
        steps = np.random.default_rng(i).uniform(0.9, 1.4, 3 + i % 4)
        rows.append({"molecule_name": f"m_{i:03d}", "energy": float((0.1 * steps**2)[1:].sum())})
    path = molecules.parent / "energies.csv"
    pd.DataFrame(rows).to_csv(path, index=False)
    run(store_url, molecules, table=str(path), target=("energy:hartree",))
    features("set", "atomic-harmonics", store_url, None, {"J": 3, "L": 1}, "threads")
    return store_url, molecules


def learn(url: str, model: str, **parameters: Any) -> Any:
    """Fit a regression of the energies on the harmonics."""
    values = {
        "model": model,
        "test": 0.25,
        "landmarks": 60,
        "products": 60,
        "epochs": 3,
        **parameters,
    }
    view = None if model == "products" else "atomic-harmonics"
    return fit("regression", "set", url, values, None, None, 0, "cpu", view, "energy")


@pytest.mark.parametrize("model", ["composition", "ridge", "multilinear", "kernel", "products"])
def test_a_regression_is_an_artifact_that_predicts_files_and_datasets(
    model: str, learnable: tuple[str, Path], tmp_path: Path
) -> None:
    url, folder = learnable
    made = learn(url, model)
    again = learn(url, model)
    assert (made.written, again.written, again.key) == (True, False, made.key)
    baseline = made.metrics["composition_mae"]
    assert made.metrics["mae"] <= (1.0001 if model == "composition" else 0.5) * baseline
    store = open_store(url)
    artifact = store.artifact(f"regression/{made.key[:12]}")
    assert "Learnt from 90 molecules" in artifact.read("card.md").decode()
    pictures = {f"figures/{name}.png" for name in ("parity", "errors", "learning")}
    assert pictures <= set(artifact.files())
    curve = pd.read_csv(io.BytesIO(artifact.read("learning.csv")))
    assert curve["molecules"].tolist() == [22, 45, 90]
    assert curve["mae"].iloc[-1] == pytest.approx(made.metrics["mae"])
    page = write_report(tmp_path / "r.html", "", "", [regression_chapter(store, artifact)])
    assert "mean absolute error, kcal/mol" in page.read_text()
    held = pd.read_csv(io.BytesIO(artifact.read("predictions.csv")))
    learnt = set(json.loads(artifact.read("samples.json")))
    assert (len(held), learnt & set(held["sample_id"])) == (30, set())
    whole = predict_to(store, artifact.key, "set", tmp_path / "all.csv").set_index("sample_id")
    one = held["sample_id"][0]
    alone = predict_to(store, artifact.key, str(folder / f"{one}.xyz"), tmp_path / "one.parquet")
    close = pytest.approx(held["predicted"][0], abs=1e-3)  # single precision in other batches
    assert whole.loc[one, "energy"] == close
    assert alone["energy"].tolist() == [close]
    assert alone["unit"].tolist() == ["kcal/mol"]


def test_scores_of_a_regression_are_errors_on_molecules_not_learnt_from(
    learnable: tuple[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """From the command line; those held out at the fit score as they did; water is flagged."""
    url, folder = learnable
    made = learn(url, "ridge")
    page = tmp_path / "r.html"
    command = ["evaluate", f"regression/{made.key[:12]}", "set", "--to", str(page), "--store", url]
    assert cli.run(command) == 0
    assert "held out when fitted" in capsys.readouterr().out
    found = open_store(url).artifact("scores/set@latest")
    scores = json.loads(found.read("metrics.json"))
    assert (scores["model"]["samples"], scores["model"]["flagged"]) == (30, 0)
    for name in ("mae", "rmse", "largest_error"):
        assert scores["model"][name] == pytest.approx(made.metrics[name], rel=1e-3)
    assert page.read_text().count("data:image/png") == 2
    (folder / "water.xyz").write_text(WATER)
    run(url, folder / "water.xyz")
    rows = open_store(url).dataset("set").samples("sample_id = 'water'")
    open_store(url).dataset("set").relabel(rows[["sample_id"]].assign(energy=1.0))
    with pytest.raises(InvalidRequest, match="none of 1 molecules can be predicted: elements"):
        evaluate(f"regression/{made.key}", "set", url, None, "sample_id = 'water'")
    whole = evaluate(f"regression/{made.key}", "set", url)
    assert (whole.table["model"]["samples"], whole.table["model"]["flagged"]) == (30, 1)


def test_molecules_learnt_from_judge_in_no_other_dataset(
    learnable: tuple[str, Path], caplog: pytest.LogCaptureFixture
) -> None:
    url, folder = learnable
    made = learn(url, "ridge")
    table = str(folder.parent / "energies.csv")
    options = MoleculeOptions(table=table, target=("energy:hartree",))
    ingest("again", [str(folder)], url, options, "threads")
    scores = evaluate(f"regression/{made.key}", "again", url).table["model"]
    assert scores["samples"] == 30
    assert scores["mae"] == pytest.approx(made.metrics["mae"], rel=1e-3)
    assert "90 samples of again do not judge" in caplog.text


def test_an_unknown_unit_is_refused_with_the_way_to_state_it(
    learnable: tuple[str, Path],
) -> None:
    url, folder = learnable
    made, path = learn(url, "ridge"), str(folder.parent / "energies.csv")
    (folder / "m_200.xyz").write_text(xyz(200))
    with Path(path).open("a") as file:
        file.write("m_200,0.3\n")
    ingest("other", [str(folder)], url, MoleculeOptions(table=path), "threads")
    with pytest.raises(InvalidRequest, match="again with --target energy:kcal/mol"):
        evaluate(f"regression/{made.key}", "other", url)
    stated = MoleculeOptions(table=path, target=("energy:hartree",))
    ingest("other", [str(folder)], url, stated, "threads")
    assert evaluate(f"regression/{made.key}", "other", url).table["model"]["samples"] == 31


def test_what_cannot_be_judged_is_flagged_not_predicted(
    learnable: tuple[str, Path], tmp_path: Path
) -> None:
    url, folder = learnable
    made = learn(url, "ridge", alpha=1e-6)
    (folder / "water.xyz").write_text(WATER)
    (folder / "bad.xyz").write_text("5\n\nH 0 0 0\n")
    (folder / "again").mkdir()
    (folder / "again" / "m_003.xyz").write_text(xyz(99))
    rows = predict_to(open_store(url), made.key, str(folder), tmp_path / "p.csv")
    assert {"m_000", "m_003.xyz", "again/m_003.xyz"} < set(rows["sample_id"])
    assert not rows["sample_id"].duplicated().any()
    strange = rows[rows["flag"] != ""].set_index("sample_id")
    assert set(strange.index) == {"water", "bad"}
    assert strange["flag"]["water"] == "elements never learnt from: [8]"
    assert strange["flag"]["bad"].startswith("truncated: bad.xyz: announces 5 atoms and has 1")
    assert strange["energy"].isna().all()
    assert rows["energy"].notna().sum() == 121
    alone = predict_to(open_store(url), made.key, str(folder / "bad.xyz"), tmp_path / "b.csv")
    assert alone["flag"].str.startswith("truncated").tolist() == [True]


def test_the_split_does_not_depend_on_the_order_of_the_archive(
    learnable: tuple[str, Path],
) -> None:
    url, _ = learnable
    frame = open_store(url).get_historical_features("set", "atomic-harmonics")
    request = FitRequest("regression", target="energy")
    spec = RegressionSpec(test=20, train=50)
    dataset = open_store(url).dataset("set")
    one = split(frame.samples, dataset, request, spec)
    other = split(frame.samples[::-1], dataset, request, spec)
    assert one.rows["sample_id"].tolist() == other.rows["sample_id"].tolist()
    assert (one.train, one.test) == (slice(0, 50), slice(100, 120))
    assert one.rows["sample_id"].tolist() != sorted(one.rows["sample_id"])


@pytest.mark.parametrize(
    ("change", "message"),
    [({"target": "nothing"}, "no column 'nothing'"), ({"view": None}, "needs --view and --target")],
)
def test_a_regression_that_cannot_be_is_refused(
    change: dict[str, Any], message: str, learnable: tuple[str, Path]
) -> None:
    asked = {"view": "atomic-harmonics", "target": "energy", **change}
    with pytest.raises(InvalidRequest, match=message):
        fit("regression", "set", learnable[0], {}, None, None, 0, "cpu", **asked)


def test_the_flow_does_all_of_it_and_a_second_run_only_what_is_new(
    molecules: Path, store_url: str
) -> None:
    options = MoleculeOptions(table=table(molecules))
    models = {"plain": {"model": "composition", "test": 0.25}}
    arguments = ("set", [str(molecules)], "energy", store_url, options, {"J": 1, "L": 0}, models)
    first = flow(*arguments, cluster="threads")
    second = flow(*arguments, cluster="threads")
    assert first["plain model"].written
    assert not second["plain model"].written
    assert (second["dataset"].version, second["atomic-harmonics"].version) == (1, 1)


def test_the_flow_computes_features_only_for_those_that_read_them(
    molecules: Path, store_url: str
) -> None:
    options = MoleculeOptions(table=table(molecules))
    arguments = ("set", [str(molecules)], "energy", store_url, options, None)
    small = {"test": 0.25, "products": 8, "halvings": 0}
    made = flow(*arguments, {"best": {"kind": "products", **small}}, cluster="threads")
    assert set(made) == {"dataset", "best model"}
    assert open_store(store_url).views("set") == []
