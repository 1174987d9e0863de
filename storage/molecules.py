"""Molecules of any sizes in one part: flat arrays of atoms, and where each molecule begins."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import zarr

from storage.arrays import create_array
from storage.parts import read_whole
from storage.shards import write_rows

POSITIONS = "positions"
CHARGES = "charges"
OFFSETS = "offsets"


class _Molecule(Protocol):
    positions: npt.NDArray[np.float64]
    charges: npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Atoms:
    """Molecules as flat arrays: molecule i has the atoms ``offsets[i]:offsets[i + 1]``.

    Attributes
    ----------
    positions
        ``(atom, 3)`` float64, Angstrom.
    charges
        ``(atom,)`` nuclear charges.
    offsets
        ``(molecule + 1,)`` int64.
    """

    positions: npt.NDArray[np.float64]
    charges: npt.NDArray[np.uint8]
    offsets: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __iter__(self) -> Iterator[tuple[npt.NDArray[np.float64], npt.NDArray[np.uint8]]]:
        for start, stop in zip(self.offsets[:-1], self.offsets[1:], strict=True):
            yield self.positions[start:stop], self.charges[start:stop]

    @classmethod
    def of(cls, molecules: Iterable[_Molecule]) -> Atoms:
        """Join molecules."""
        listed = list(molecules)
        return cls._joined(listed, [[len(item.charges)] for item in listed])

    @classmethod
    def joined(cls, pieces: Sequence[Atoms]) -> Atoms:
        """Return the molecules of all pieces, one after another."""
        return cls._joined(pieces, [np.diff(piece.offsets) for piece in pieces])

    @classmethod
    def _joined(cls, pieces: Sequence[_Molecule | Atoms], sizes: Sequence[npt.ArrayLike]) -> Atoms:
        return cls(
            np.concatenate([np.zeros((0, 3)), *(piece.positions for piece in pieces)]),
            np.concatenate([np.zeros(0, np.uint8), *(piece.charges for piece in pieces)]),
            np.concatenate([[0], np.cumsum(np.concatenate([[], *sizes]))]).astype(np.int64),
        )

    def take(self, rows: Sequence[int] | npt.NDArray[np.intp]) -> Atoms:
        """Return some molecules, in the order asked."""
        wanted = np.asarray(rows, dtype=np.intp)
        sizes = np.diff(self.offsets)[wanted]
        offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        at = np.repeat(self.offsets[wanted] - offsets[:-1], sizes) + np.arange(offsets[-1])
        return Atoms(self.positions[at], self.charges[at], offsets)


def write_atoms(group: zarr.Group, atoms: Atoms) -> None:
    """Write the arrays of a part."""
    count, rows = len(atoms.charges), len(atoms.offsets)
    arrays: dict[str, tuple[npt.NDArray[Any], tuple[str, ...]]] = {
        POSITIONS: (atoms.positions, ("atom", "axis")),
        CHARGES: (atoms.charges, ("atom",)),
        OFFSETS: (atoms.offsets, ("bound",)),
    }
    for name, (values, dims) in arrays.items():
        length = rows if name == OFFSETS else count
        array = create_array(group, name, length, values.shape[1:], str(values.dtype), dims)
        write_rows(array, values)


def read_part_atoms(url: str, key: str) -> Atoms:
    """Read all molecules of one part: some megabytes."""
    return Atoms(*(read_whole(url, key, name) for name in (POSITIONS, CHARGES, OFFSETS)))


def read_atoms(url: str, keys: Iterable[str], rows: Iterable[int]) -> Atoms:
    """Read molecules by (part, row), in the order asked, each part once."""
    places: dict[str, list[tuple[int, int]]] = {}
    for at, (key, row) in enumerate(zip(keys, rows, strict=True)):
        places.setdefault(key, []).append((at, int(row)))
    pieces, order = [], []
    for key, wanted in places.items():
        pieces.append(read_part_atoms(url, key).take([row for _, row in wanted]))
        order += [at for at, _ in wanted]
    return Atoms.joined(pieces).take(np.argsort(order))
