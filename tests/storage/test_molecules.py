"""Bytes to molecules, and tables beside them: what each form holds, and what a bad record costs."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from storage.errors import BadInput
from storage.readers import Found
from storage.readers.molecules import EXTENSIONS, Molecule, read_molecules
from storage.readers.molecules.molecule import molecule

PLACES = np.array([[0.0, 0, 0.1173], [0, 0.7572, -0.4692], [0, -0.7572, -0.4692]])
CHARGES = np.array([8, 1, 1])
ATOMS = "O 0 0 0.1173\nH 0 0.7572 -0.4692\nH 0 -0.7572 -0.4692\n"
WATER = f"3\n\n{ATOMS}"
CUT = "4\n\nO 0 0 0\nH 0 0 1\n"
EXTENDED = f"3\nProperties=species:S:1:pos:R:3 energy=-14.2 row=7 formula=junk\n{ATOMS}"
TABLE = "".join(
    f"{x:10.4f}{y:10.4f}{z:10.4f} {s}   0  0\n" for (x, y, z), s in zip(PLACES, "OHH", strict=True)
)
V2000 = f"w2\n\n\n  3  0  0  0  0  0  0  0  0  0999 V2000\n{TABLE}M  END\n"
V3000 = (
    "w3\n\n\n  0  0  0     0  0            999 V3000\nM  V30 BEGIN CTAB\nM  V30 COUNTS 3 0 0 0 0\n"
    "M  V30 BEGIN ATOM\nM  V30 1 O 0 0 -\nM  V30 0.1173 0\nM  V30 2 H 0 0.7572 -0.4692 0\n"
    "M  V30 3 H 0 -0.7572 -0.4692 0\nM  V30 END ATOM\nM  V30 END CTAB\nM  END\n"
)


def npz(**arrays: Any) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def hdf5(fill: Callable[[Any], Any]) -> bytes:
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        fill(file)
    return buffer.getvalue()


def summary(found: Found[Molecule]) -> tuple[list[str], dict[str, str]]:
    """The names of the good ones, each of them water, and why the others are refused."""
    for item in found:
        np.testing.assert_allclose(item.positions - item.positions[0], PLACES - PLACES[0])
        assert item.charges.tolist() == CHARGES.tolist()
    return [item.index for item in found], {index: bad.reason for index, bad in found.refused}


@pytest.mark.parametrize("end", ["\r\n", "\r"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize(
    ("name", "text"),
    [("a.xyz", WATER), ("a.xyz", EXTENDED), ("a.extxyz", EXTENDED), ("a.sdf", V2000)],
)
def test_lines_end_as_they_may(name: str, text: str, end: str, mark: str) -> None:
    data = (mark + text).replace("\n", end).encode()
    assert summary(read_molecules(name, data)) == ([""], {})


@pytest.mark.parametrize(
    ("name", "records", "good", "refused"),
    [
        ("a.xyz", [WATER, WATER, CUT], ["0", "1"], {"2": "truncated"}),
        ("a.xyz", [WATER, CUT, WATER], ["0", "2"], {"1": "truncated"}),
        ("a.xyz", [WATER, "3\n\nO 0 0 0\n\n", WATER], ["0", "2"], {"1": "truncated"}),
        ("a.xyz", ["# water\n", WATER], ["1"], {"0": "format"}),
        ("a.xyz", [WATER, EXTENDED.replace("O 0", "Qq 0")], ["0"], {"1": "corrupt"}),
        ("a.extxyz", [EXTENDED, EXTENDED.replace("O 0", "Qq 0")], ["0"], {"1": "corrupt"}),
        ("a.extxyz", [EXTENDED, CUT, EXTENDED], ["0", "2"], {"1": "truncated"}),
        ("a.xyz", [WATER, WATER.replace("H 0", "² 0")], ["0"], {"1": "element"}),
        ("a.xyz", [WATER, WATER.replace("0.4692", "0.46_92")], ["0"], {"1": "number"}),
        ("a.xyz", [WATER.replace("H 0", "D 0"), WATER.replace("H 0", "T 0")], ["0", "1"], {}),
        ("a.sdf", [V3000, "$$$$\n", V2000.replace(" H ", " D ")], ["w3", "w2"], {}),
        (
            "a.sdf",
            [V2000, "$$$$\n", V3000.replace("END ATOM", "END")],
            ["w2"],
            {"w3": "truncated"},
        ),
        (
            "a.sdf",
            [V2000, "$$$$\n", V3000.replace("COUNTS 3", "COUNTS 5")],
            ["w2"],
            {"w3": "truncated"},
        ),
    ],
)
def test_a_bad_record_costs_itself(
    name: str, records: list[str], good: list[str], refused: dict[str, str]
) -> None:
    assert summary(read_molecules(name, "".join(records).encode())) == (good, refused)


def test_a_drawing_has_no_positions_in_space() -> None:
    """As PubChem's and ChEMBL's files are: lengths of bonds are those on paper."""
    program = "w2\n  -OEChem-0101240000{}\n\n"
    flat = V2000.replace(TABLE, TABLE.replace("0.1173", "0.0000").replace("-0.4692", " 0.0000"))
    records = [program.format("2D") + flat[5:], program.format("2D") + V2000[5:]]
    found = read_molecules("a.sdf", "$$$$\n".join(records).encode())
    assert summary(found) == (["1"], {"0": "drawing"})
    assert len(read_molecules("a.mol", (program.format("3D") + flat[5:]).encode())) == 1


def test_an_item_of_digits_and_other_characters_is_a_text() -> None:
    items = V2000 + "> <id>\n12_34\n\n> <code>\n12D4\n\n> <E>\n-1.5D+01\n\n> <F>\n2.d3\n\n"
    (found,) = read_molecules("a.sdf", items.encode())
    assert (found.labels, found.properties) == (
        {"id": "12_34", "code": "12D4"},
        {"E": -15.0, "F": 2000.0},
    )


def test_a_bad_group_or_row_costs_itself() -> None:
    def fill(file: Any) -> None:
        for name, symbols in (("bad", b"OHQ"), ("good", b"OHH")):
            group = file.create_group(name)
            group["coordinates"] = PLACES
            group["species"] = np.array(list(symbols), "u1").view("S1")
        file.create_group("none")["coordinates"] = PLACES

    data = hdf5(fill)
    assert summary(read_molecules("a.h5", data)) == (
        ["good"],
        {"bad": "element", "none": "variable"},
    )
    symbols = np.array([["O", "H", "H"], ["O", "H", "Q"]])
    rows = npz(R=np.stack([PLACES, PLACES]), species=symbols)
    assert summary(read_molecules("a.npz", rows)) == (["0"], {"1": "element"})


@pytest.mark.parametrize("layout", [{"N": [3, 3]}, {"offsets": [0, 3, 6]}, {"offsets": [0, 3]}])
def test_molecules_one_after_another_are_told_apart(layout: dict[str, Any]) -> None:
    flat = np.concatenate([PLACES, PLACES + 20])
    arrays = {"R": flat, "Z": np.tile(CHARGES, 2), "E": [1.0, 2.0], **layout}
    found = read_molecules("a.npz", npz(**arrays))
    assert summary(found) == (["0", "1"], {})
    assert [item.properties for item in found] == [{"E": 1.0}, {"E": 2.0}]
    with pytest.raises(BadInput, match="make 5 atoms, positions 6"):
        read_molecules("a.npz", npz(**{**arrays, "N": [3, 2]}))


@pytest.mark.parametrize("name", ["atomic_numbers", "species", "Z", "nuclear_charges"])
def test_charges_beside_elements_are_formal_ones_and_no_elements(name: str) -> None:
    elements = np.array(["O", "H", "H"]) if name == "species" else CHARGES
    rows = npz(positions=PLACES[None], charges=np.array([[1, 0, 0]]), **{name: elements})
    assert summary(read_molecules("a.npz", rows)) == (["0"], {})


def test_a_table_of_as_many_numbers_as_molecules_is_no_property() -> None:
    rows = {"R": np.repeat(PLACES[None], 6, 0), "Z": np.tile(CHARGES, (6, 1)), "E": np.arange(6.0)}
    splits = np.arange(6).reshape(2, 3)  # as QM7's P, of 5 folds
    found = read_molecules("a.npz", npz(**rows, P=splits, T=np.arange(6.0)[None]))
    assert [item.properties for item in found] == [{"E": i, "T": i} for i in range(6)]


@pytest.mark.parametrize(
    ("unit", "angstrom"),
    [("bohr", 0.529177210903), ("a0", 0.529177210903), ("nm", 10), ("Angstrom", 1), ("A", 1)],
)
def test_positions_of_hdf5_are_in_the_length_that_it_names(unit: str, angstrom: float) -> None:
    def fill(file: Any) -> None:
        file["coordinates"], file["species"] = PLACES[None] / angstrom, CHARGES
        file["coordinates"].attrs["units"] = unit

    assert summary(read_molecules("a.h5", hdf5(fill))) == (["0"], {})


def test_what_is_named_as_a_column_of_the_table_is_not_taken() -> None:
    (found,) = read_molecules("a.xyz", EXTENDED.encode())
    expected = {"formula": "H2O", "n_atoms": 3, "n_heavy": 1, "energy": -14.2}
    assert found.columns() == expected
    items = V2000 + "> <n_atoms>\n7\n\n> <part>\nx\n\n> <E>\ninf\n\n"
    (found,) = read_molecules("a.sdf", items.encode())
    columns = found.columns()
    assert np.isnan(columns.pop("E"))  # not finite, so unknown
    assert columns == {"formula": "H2O", "n_atoms": 3, "n_heavy": 1}


@pytest.mark.parametrize("link", [False, True])
def test_properties_in_other_files_are_never_read(tmp_path: Path, link: bool) -> None:
    (tmp_path / "secret").write_bytes(bytes(8))
    with h5py.File(tmp_path / "other.h5", "w") as other:
        other["energy"] = [7.0]

    def fill(file: Any) -> None:
        file["coordinates"], file["species"] = PLACES[None], CHARGES
        if link:
            file["energy"] = h5py.ExternalLink(str(tmp_path / "other.h5"), "energy")
        else:
            place = [(str(tmp_path / "secret"), 0, 8)]
            file.create_dataset("energy", (1,), "f8", external=place)

    if link:
        assert read_molecules("a.h5", hdf5(fill))[0].properties == {}
    else:
        with pytest.raises(BadInput, match="refers to other files"):
            read_molecules("a.h5", hdf5(fill))


@pytest.mark.timeout(10)
def test_a_line_of_brackets_takes_no_time() -> None:
    (found,) = read_molecules("a.sdf", f"{V2000}>{'<' * 10**5}\n7\n".encode())
    assert found.properties == {}


def test_a_name_that_is_not_utf_8_refuses_its_molecule() -> None:
    rows = npz(R=np.stack([PLACES, PLACES]), Z=CHARGES, id=np.array(["a", "b\udcff"]))
    assert summary(read_molecules("a.npz", rows)) == (["a"], {"b\udcff": "name"})
    with pytest.raises(BadInput, match="UTF-8"):
        molecule("", CHARGES, PLACES, {}, {"smiles": "\udcff"})


def test_what_is_wider_than_molecules_is_refused() -> None:
    with pytest.raises(BadInput, match="1e\\+05 Angstrom wide"):
        read_molecules("a.xyz", b"2\n\nH 0 0 0\nH 0 0 1e5")


def test_databases_of_ase_are_found() -> None:
    assert ".db" in EXTENSIONS


def in_box(*sides: float, pbc: str = "T T T") -> bytes:
    lattice = " ".join(str(side * (i == j)) for i, side in enumerate(sides) for j in range(3))
    head = f'Lattice="{lattice}" pbc="{pbc}" Properties=species:S:1:pos:R:3'
    return f"3\n{head}\n{ATOMS}".encode()


def test_crystals_are_no_molecules_and_boxes_with_room_are() -> None:
    for data in (in_box(20, 20, 20), in_box(3, 3, 3, pbc="F F F"), in_box(3, 20, 20, pbc="F T T")):
        assert summary(read_molecules("a.extxyz", data)) == ([""], {})
    with pytest.raises(BadInput, match=r"periodic: .* along axis 0 with 3.0 Angstrom"):
        read_molecules("a.extxyz", in_box(3, 20, 20))
