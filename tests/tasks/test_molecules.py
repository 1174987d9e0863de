"""Files and tables of molecules as options see them: what is joined, left out and made."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from storage import InvalidRequest
from storage.sources import read_units
from tasks.molecules import SCHEMA, MoleculeOptions
from tasks.progress import hearing

HYDROGEN = "2\n\nH 0 0 0\nH 0 0 0.74\n"
QM9 = (
    "2\ngdb {0}\t1\t1\t1\t0\t1\t1\t1\t1\t1\t1\t-1.5\t-1\t-1\t-1\t1\n"
    "H 0 0 0 0.1\nH 0 0 0.7{0} -0.1\n4000.5\n[H][H]\t[H][H]\nInChI=1\tInChI=1\n"
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "in"


def write(folder: Path, files: dict[str, str]) -> None:
    folder.mkdir(exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(text)


def named(*names: str) -> dict[str, str]:
    return {f"{name}.xyz": HYDROGEN for name in names}


def samples(options: MoleculeOptions, folder: Path) -> pd.DataFrame:
    """The table of samples as it is before it is completed."""
    rows = []
    for unit, payload in read_units(options.find([str(folder)])):
        assert isinstance(payload, list)
        for index, _, columns in options.decode(unit, payload, SCHEMA).good:
            sample = f"{unit.name}#{index}" if index else unit.name
            row = {"sample_id": sample, "index": index, "source": unit.files[0].url}
            rows.append({**row, **columns})
    return pd.DataFrame(rows).sort_values("sample_id", ignore_index=True)


def completed(folder: Path, **options: Any) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The rows that are kept, by id, and those refused."""
    for name in {"table", "exclude"} & set(options):
        path = folder.parent / name
        path.write_text(options[name])
        options[name] = str(path) if name == "table" else (str(path),)
    made = MoleculeOptions(**options)
    kept, bad, _ = made.informed(made.find([str(folder)])).complete(samples(made, folder), SCHEMA)
    return kept.set_index("sample_id"), bad.set_index("sample_id")


def joined(folder: Path, names: Sequence[str], table: str, **options: Any) -> list[float]:
    """The values that files of these names get in column E."""
    write(folder, named(*names))
    kept, _ = completed(folder, table=table, **options)
    return [float(kept["E"][name]) for name in names]


@pytest.mark.parametrize(
    ("names", "ids"),
    [
        ("0001 0002 0003", "3 1 2"),
        ("0001 0002 0003", "0003 0001 0002"),
        ("1 2 3", "03 01 02"),
        ("dsgdb9nsd_000001 dsgdb9nsd_000002 dsgdb9nsd_000003", "3 1 2"),
        ("dsgdb9nsd_000001 dsgdb9nsd_000002 dsgdb9nsd_000003", "gdb_3 gdb_1 gdb_2"),
        ("a b c", "c.xyz a.xyz b.xyz"),
    ],
)
@pytest.mark.parametrize("column", ["mol_id", "key"])
def test_a_table_joins_by_names_then_by_numbers(
    names: str, ids: str, column: str, folder: Path
) -> None:
    rows = zip(ids.split(), (3.5, 1.5, 2.5), strict=True)
    table = f"{column},E\n" + "".join(f"{name},{value}\n" for name, value in rows)
    assert joined(folder, names.split(), table) == [1.5, 2.5, 3.5]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("mol_id,E\nx_1,1\nx_2,2\nx_3,3\n", "'mol_id' holds ids such as 'x_1', and none"),
        ("E,key\n1,x_1.xyz\n2,x_2.xyz\n3,x_3.xyz\n", "'key' holds ids such as 'x_1.xyz'"),
        ("id,E\nm_1,1\nm_1,2\nm_2,2\nm_2,3\nm_3,4\nm_3,5\n", "several rows for 'm_1'"),
        ("id,E\nm_1,1\nm_2,2,9\nm_3,1\n", "is not a table"),
        ("n,k,E\n1,3,1\n2,2,2\n3,1,3\n", "columns 'n' and 'k' identify molecules differently"),
        ("", "has no rows"),
    ],
)
def test_a_table_that_would_join_wrongly_is_refused(table: str, message: str, folder: Path) -> None:
    with pytest.raises(InvalidRequest, match=message):
        joined(folder, ["m_1", "m_2", "m_3"], table)


@pytest.mark.parametrize(
    "table",
    [
        "n,id,E\n3,1,1.5\n2,2,2.5\n1,3,3.5\n",
        "n,id,E\n3,m_1,1.5\n2,m_2,2.5\n1,m_3,3.5\n",
        "id,E,1\nm_1,1.5,0\nm_2,2.5,0\nm_3,3.5,0\n",  # a column called 1
        "index,E\n0,1.5\n1,2.5\n2,3.5\n",  # counts rows
        "E\n1.5\n2.5\n3.5\n",
        "E,F\n1.5,3\n2.5,7\n3.5,1\n",
        "id,E,row,n_atoms,part\nm_1,1.5,7,7,7\nm_2,2.5,7,7,7\nm_3,3.5,7,7,7\n",
    ],
)
def test_a_table_joins_by_the_column_of_ids(table: str, folder: Path) -> None:
    assert joined(folder, ["m_1", "m_2", "m_3"], table) == [1.5, 2.5, 3.5]
    kept, _ = completed(folder, table=table)
    assert kept["n_atoms"].tolist() == [2] * 3
    assert not {"row", "part"} & set(kept)


def test_columns_of_the_datasets_own_are_not_targets(folder: Path) -> None:
    write(folder, named("m_1", "m_2"))
    table = "id,row\nm_1,5\nm_2,6\n"
    with pytest.raises(InvalidRequest, match="my_row=row"):
        completed(folder, table=table, target=("row",))
    kept, _ = completed(folder, table=table, target=("level=row",))
    assert kept["level"].tolist() == [5, 6]


def test_columns_of_no_table_are_refused() -> None:
    with pytest.raises(InvalidRequest, match="give --table as well"):
        MoleculeOptions(target=("E:hartree",))


def test_only_what_is_asked_for_must_be_there(folder: Path) -> None:
    write(folder, named("m_1", "m_2", "m_3", "m_4"))
    table = "id,E,F\nm_1,1,\nm_2,inf,2\nm_3,3,3\n"
    kept, bad = completed(folder, table=table)
    assert kept.index.tolist() == ["m_1", "m_2", "m_3"]
    assert np.isnan([kept["E"]["m_2"], kept["F"]["m_1"]]).all()
    assert "has no row" in bad["message"]["m_4"]
    kept, bad = completed(folder, table=table, target=("E",))
    assert kept.index.tolist() == ["m_1", "m_3"]
    assert "no value of E" in bad["message"]["m_2"]


@pytest.mark.parametrize(
    "listed",
    ["2", "000002", "gdb_2", "dsgdb9nsd_000002", "dsgdb9nsd_000002.xyz", "2,C\n", "\ufeff2"],
)
def test_ids_are_left_out_however_they_are_written(listed: str, folder: Path) -> None:
    write(folder, {f"dsgdb9nsd_00000{i}.xyz": QM9.format(i) for i in (1, 2, 3)})
    kept, _ = completed(folder, exclude=f"{listed}\nGDB9 molecules\n")
    assert kept["gdb"].tolist() == [1, 3]


@pytest.mark.parametrize(
    ("files", "kept"),
    [
        ({"batch_2.xyz": HYDROGEN * 3, "batch_3.xyz": HYDROGEN}, 4),
        ({"all.xyz": "".join(map(QM9.format, (4, 2, 5)))}, 2),  # by their own numbers
        ({"m_2.xyz": QM9.format(7), "x.xyz": QM9.format(2)}, 1),
    ],
)
def test_a_place_in_a_file_is_no_id(files: dict[str, str], kept: int, folder: Path) -> None:
    write(folder, files)
    assert len(completed(folder, exclude="2\n")[0]) == kept


def test_a_list_that_leaves_nothing_out_is_told(folder: Path) -> None:
    write(folder, named("m_1", "m_2"))
    told: list[str] = []
    with hearing(told.append):
        completed(folder, exclude="2\n")
        assert told == []
        completed(folder, exclude="n_2\n7\n")
    assert "lists 2 ids, and none is of a molecule such as m_1" in told[0]


@pytest.mark.parametrize(
    ("unit", "value"), [("", -1.0), (":hartree", -1.0), (":eV", -27.2114), (":kJ/mol", -2625.5)]
)
def test_energies_are_atomised_in_their_unit(unit: str, value: float, folder: Path) -> None:
    write(folder, named("m_1"))
    options = {"target": (f"E{unit}",), "atomise": ("E",)}
    kept, _ = completed(folder, table=f"id,E\nm_1,{value}\n", **options)
    assert kept["E_atom"]["m_1"] == pytest.approx(627.5095 * (-1 + 2 * 0.500273), abs=0.02)
    with pytest.raises(InvalidRequest, match="it is in debye; units of energy are hartree, eV"):
        completed(folder, table="id,E\nm_1,1\n", **{**options, "target": ("E:debye",)})


def test_only_ases_energies_are_in_electronvolts(folder: Path) -> None:
    """What an SDF calls energy is in a unit that nobody says: hartree unless told."""
    table = "m\n\n\n  2  0  0  0  0  0  0  0  0  0999 V2000\n" + "".join(
        f"{0:10.4f}{0:10.4f}{z:10.4f} H   0  0\n" for z in (0, 0.74)
    )
    write(folder, {"m_1.sdf": f"{table}M  END\n> <energy>\n-1.0\n\n$$$$\n"})
    expected = pytest.approx(627.5095 * (-1 + 2 * 0.500273), abs=0.02)
    kept, _ = completed(folder, atomise=("energy",))
    assert kept["energy_atom"]["m_1"] == expected
    write(folder, {"m_1.sdf": f"{table}M  END\n> <energy>\n-27.2114\n\n$$$$\n"})
    kept, _ = completed(folder, atomise=("energy:eV",))
    assert kept["energy_atom"]["m_1"] == expected
    extended = f"2\nProperties=species:S:1:pos:R:3 energy=-27.2114\n{HYDROGEN[3:]}"
    write(folder, {"m_2.xyz": extended})
    with pytest.raises(InvalidRequest, match="it is in eV in some files; units of energy"):
        completed(folder, atomise=("energy",))
    (folder / "m_1.sdf").unlink()
    kept, _ = completed(folder, atomise=("energy",))
    assert kept["energy_atom"]["m_2"] == pytest.approx(627.5095 * (-1 + 2 * 0.500273), abs=0.02)


def test_a_target_that_is_text_is_named(folder: Path) -> None:
    """As of a table with decimal commas."""
    write(folder, named("m_1"))
    with pytest.raises(InvalidRequest, match=r"--target E: .* has text there, such as '-1,5'"):
        completed(folder, table="id;E;q\nm_1;-1,5;2\n", target=("E",))


def test_a_molecule_without_free_atoms_costs_its_own_energy(folder: Path) -> None:
    chloride = HYDROGEN.replace("H 0 0 0\n", "Cl 0 0 0\n")
    write(folder, {"gdb_1.xyz": QM9.format(1), "HCl.xyz": chloride})
    kept, _ = completed(folder)
    assert np.isfinite(kept["u0_atom"]["gdb_1"])
    assert np.isnan(kept["u0_atom"]["HCl"])
    with pytest.raises(InvalidRequest, match="the table of free atoms lacks Cl;"):
        completed(folder, atomise=("u0",))


def test_items_that_are_numbers_here_and_words_there_are_texts(folder: Path) -> None:
    record = "x\n\n\n  1  0  0  0  0  0  0  0  0  0999 V2000\n{}M  END\n> <CAS>\n{}\n\n$$$$\n"
    atom = "    0.0000    0.0000    0.0000 H   0  0\n"
    write(folder, {"a.sdf": record.format(atom, "123") + record.format(atom, "12-3")})
    assert completed(folder)[0]["CAS"].tolist() == ["123", "12-3"]
