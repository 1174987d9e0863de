"""Molecules in arrays: MATLAB's QM7, ``.npz`` and HDF5 in the layouts in common use.

Positions, charges and sizes are recognised by their names; arrays of one number for each molecule
are properties. Charges of 0 are padding. Layouts:

- QM7 ``.mat``: ``R (molecule, 23, 3)`` in Bohr, ``Z (molecule, 23)``, ``T (1, molecule)``;
- ``.npz`` of one molecule in many geometries: ``R (molecule, atom, 3)``, ``z (atom,)``, ``E``;
- padded ``.npz``: ``positions (molecule, most, 3)``, ``charges (molecule, most)``, energies;
- flat: ``positions (atom, 3)``, ``charges (atom,)`` of molecules one after another, with the
  number of atoms of each, or where each begins;
- HDF5 of ANI and QM7-X: a group a molecule or a formula, with ``coordinates`` or ``atXYZ``,
  ``species`` or ``atNUM``, and energies. Positions are in the length that their attribute ``units``
  names.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
import scipy.io

from storage.errors import BadInput
from storage.readers.found import Found
from storage.readers.hdf5 import check_stored, open_file
from storage.readers.matlab import TYPES, check_elements
from storage.readers.molecules.molecule import BOHR, Molecule, molecule, nuclear_charge
from storage.readers.packing import text
from storage.units import metres

POSITIONS = ("r", "positions", "coordinates", "coords", "xyz", "atxyz", "pos")
CHARGES = ("z", "nuclear_charges", "atomic_numbers", "atnum", "numbers", "species", "charges")
SIZES = ("n", "num_atoms", "n_atoms", "natoms")
OFFSETS = ("offsets", "offset", "ptr")
NAMES = ("id", "ids", "name", "names", "index")
_ATOMIC = {"au", "a.u.", "a0", "atomic units"}
Arrays = Mapping[str, npt.NDArray[Any]]


def read_npz(data: bytes) -> Found[Molecule]:
    """Read the molecules of an ``.npz``; pickled objects are refused."""
    with np.load(io.BytesIO(data), allow_pickle=False) as archive:
        return _found("", {name: archive[name] for name in archive.files})


def read_mat(data: bytes) -> Found[Molecule]:
    """Read the molecules of a ``.mat``: version 7.3 is HDF5 with reversed axes."""
    if data[:8] == b"\x89HDF\r\n\x1a\n" or data[512:520] == b"\x89HDF\r\n\x1a\n":
        with open_file(data) as file:
            arrays = {name: array.T for name, array in _arrays(file).items()}
    else:
        check_elements(data)
        content: Any = io.BytesIO(data)
        plain = [name for name, _, kind in scipy.io.whosmat(content) if kind in {*TYPES, "char"}]
        loaded = scipy.io.loadmat(content, variable_names=plain)
        arrays = {k: v for k, v in loaded.items() if not k.startswith("__")}
    found = _found("", arrays)
    if {"R", "Z", "T"} <= set(arrays):  # QM7, which is in Bohr
        for item in found:
            item.positions *= BOHR
    return found


def read_hdf5(data: bytes) -> Found[Molecule]:
    """Read the molecules of every group that holds positions."""
    found: Found[Molecule] = Found()
    with open_file(data) as file:
        for path, group, arrays in _groups(file, ""):
            try:
                some = _found(path, arrays, _angstrom(group))
            except BadInput as error:
                some = Found(refused=[(path, error)])
            found.extend(some)
            found.refused.extend(some.refused)
    if not found and not found.refused:
        raise BadInput("variable", f"no group holds one of {', '.join(POSITIONS)} (any case)")
    return found


def _groups(group: h5py.Group, path: str) -> Iterator[tuple[str, h5py.Group, Arrays]]:
    arrays = _arrays(group)
    if _named(arrays, POSITIONS) is not None:
        yield path, group, arrays
    for name, item in _own(group):
        if isinstance(item, h5py.Group):
            yield from _groups(item, f"{path}/{name}".strip("/"))


def _angstrom(group: h5py.Group) -> float:
    """Return the Angstrom in the unit that positions are said to be in, 1 if in none we know."""
    by_name = {name.lower(): item for name, item in _own(group)}
    said = next(by_name[name] for name in POSITIONS if name in by_name).attrs
    unit = (text(said.get("units", said.get("unit"))) or "").strip()
    if unit.lower() in _ATOMIC:
        return BOHR
    return 1e10 * (metres(unit) or 1e-10)


def _own(group: h5py.Group) -> Iterator[tuple[str, Any]]:
    """Yield what is in a group itself: links, perhaps to other files, are not followed."""
    for name in group:
        if isinstance(group.get(name, getlink=True), h5py.HardLink):
            yield name, group[name]


def _arrays(group: h5py.Group) -> dict[str, npt.NDArray[Any]]:
    found = {}
    for name, item in _own(group):
        if (
            isinstance(item, h5py.Dataset)
            and item.shape is not None
            and item.dtype.kind in "biufSO"
        ):
            check_stored(name, item)
            found[name] = np.asarray(item)
    return found


def _named(arrays: Arrays, names: tuple[str, ...]) -> npt.NDArray[Any] | None:
    by_name = {name.lower(): array for name, array in arrays.items()}
    return next((by_name[name] for name in names if name in by_name), None)


def _found(path: str, arrays: Arrays, angstrom: float = 1.0) -> Found[Molecule]:
    positions, charges = _named(arrays, POSITIONS), _named(arrays, CHARGES)
    if positions is None or charges is None:
        raise BadInput(
            "variable",
            f"holds {', '.join(arrays)}: positions are one of {', '.join(POSITIONS)}, charges one "
            f"of {', '.join(CHARGES)} (any case)",
        )
    positions = positions if angstrom == 1 else positions * angstrom
    misfit = BadInput("shape", f"positions {positions.shape} do not fit charges {charges.shape}")
    if positions.ndim not in (2, 3):
        raise misfit
    bounds = _bounds(arrays, len(positions)) if positions.ndim == 2 else None
    if bounds is not None:
        if len(charges.ravel()) != len(positions):
            raise misfit
        pieces = [slice(start, stop) for start, stop in pairwise(bounds)]
        places, elements = [positions[p] for p in pieces], [charges.ravel()[p] for p in pieces]
    else:
        stacked = positions[None] if positions.ndim == 2 else positions
        if charges.shape not in (stacked.shape[1:2], (1, *stacked.shape[1:2]), stacked.shape[:2]):
            raise misfit
        places, elements = list(stacked), list(np.broadcast_to(charges, stacked.shape[:2]))
    names = _names(path, arrays, len(places), positions.ndim == 2 and bounds is None)
    found: Found[Molecule] = Found()
    for row, name in enumerate(names):
        try:
            found.append(_one(name, row, places[row], elements[row], arrays, len(names)))
        except BadInput as error:
            found.refused.append((name, error))
    return found


def _bounds(arrays: Arrays, atoms: int) -> list[int] | None:
    """Return where molecules that lie one after another begin and end; None for one alone."""
    sizes, offsets = _named(arrays, SIZES), _named(arrays, OFFSETS)
    if sizes is not None:
        ends = np.cumsum(sizes.ravel()).tolist()
        bounds = [0, *ends]
    elif offsets is not None:
        bounds = offsets.ravel().tolist()
        bounds = bounds if bounds[-1:] == [atoms] else [*bounds, atoms]
    else:
        return None
    if bounds[0] != 0 or bounds[-1] != atoms or min(np.diff(bounds)) < 0:
        raise BadInput("shape", f"sizes or offsets make {bounds[-1]} atoms, positions {atoms}")
    return [int(bound) for bound in bounds] if len(bounds) > 2 else None


def _numbers(charges: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return charges as numbers: ANI names elements by symbol, and pads with empty text."""
    if charges.dtype.kind not in "SUO":
        return charges
    texts = [t.decode() if isinstance(t, bytes) else str(t) for t in charges]
    return np.array([nuclear_charge(text) if text.strip() else 0 for text in texts])


def _names(path: str, arrays: Arrays, count: int, single: bool) -> list[str]:
    ids = _named(arrays, NAMES)
    if ids is not None and ids.size == count and len(set(ids.ravel().tolist())) == count:
        texts = [t.decode() if isinstance(t, bytes) else str(t) for t in ids.ravel()]
    else:
        texts = [""] if single else [str(row) for row in range(count)]
    return [f"{path}/{text}".strip("/") for text in texts]


def _one(
    name: str,
    row: int,
    places: npt.NDArray[Any],
    elements: npt.NDArray[Any],
    arrays: Arrays,
    count: int,
) -> Molecule:
    numbers, sizes = _numbers(elements), _named(arrays, SIZES)
    real = numbers > 0
    if sizes is not None and sizes.size == count:
        real = np.arange(len(numbers)) < int(sizes.ravel()[row])
    properties = {
        key: float(values.ravel()[row])
        for key, values in arrays.items()
        if key.lower() not in (*POSITIONS, *CHARGES, *SIZES, *OFFSETS, *NAMES)
        and values.size == count == max(values.shape, default=1)  # one each, and no table of all
        and values.dtype.kind in "iuf"
    }
    return molecule(name, numbers[real], places[real], properties)
