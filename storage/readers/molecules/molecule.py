"""One molecule as a file gives it: positions, charges, and what else is known of it."""

from __future__ import annotations

import math
import re
from collections import Counter
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from storage.errors import BadInput
from storage.records import OWN_COLUMNS
from storage.text import writable

RESERVED = OWN_COLUMNS | {"formula", "n_atoms", "n_heavy"}  # names that no property may have
WIDEST = 1000.0  # Angstrom; what is wider is not a molecule, or not in Angstrom
CLOSEST = 0.1  # Angstrom; nearer atoms are one atom given twice
HEAVIEST = 118
BOHR = 0.529177210903  # Angstrom (CODATA 2018)
_FORTRAN = re.compile(r"(\.\d*)[dD]")


@dataclass
class Molecule:
    """One molecule.

    Parameters
    ----------
    index
        Its name within its file; empty if it is the only one there.
    positions
        ``(atom, 3)`` float64, Angstrom.
    charges
        ``(atom,)`` nuclear charges.
    properties
        Numbers by name.
    labels
        What else names it, such as ``smiles``.
    """

    index: str
    positions: npt.NDArray[np.float64]
    charges: npt.NDArray[np.uint8]
    properties: dict[str, float] = field(default_factory=dict)
    labels: dict[str, Any] = field(default_factory=dict)

    @property
    def formula(self) -> str:
        """Hill's formula: carbon, hydrogen, then the alphabet."""
        counts = Counter(symbols()[int(charge)] for charge in self.charges)
        first = ["C", "H"] if "C" in counts else []
        order = [*first, *sorted(set(counts) - set(first))]
        return "".join(f"{s}{counts[s] if counts[s] > 1 else ''}" for s in order if s in counts)

    def columns(self) -> dict[str, Any]:
        """Return its columns of the table of samples, without what would have a reserved name."""
        heavy = int((self.charges > 1).sum())
        counts = {"formula": self.formula, "n_atoms": len(self.charges), "n_heavy": heavy}
        given = {**self.labels, **self.properties}
        return {**counts, **{k: v for k, v in given.items() if k.lower() not in RESERVED}}


@cache
def symbols() -> list[str]:
    """Return the symbols of the elements by nuclear charge, from ASE."""
    from ase.data import chemical_symbols

    return list(chemical_symbols[: HEAVIEST + 1])


@cache
def _charges_by_symbol() -> dict[str, int]:
    return {symbol: charge for charge, symbol in enumerate(symbols())}


def nuclear_charge(text: str) -> int:
    """Return the charge of a symbol (``Cl``, ``CL``, ``C1``, ``D``) or of a number.

    Raises
    ------
    BadInput
        If it is neither.
    """
    name = text.strip()
    if name.isdecimal():
        return int(name)
    letters = name.rstrip("0123456789+-*").capitalize()
    if letters in ("D", "T"):  # hydrogen's isotopes
        return 1
    known = _charges_by_symbol()
    if letters not in known or letters == "X":
        raise BadInput("element", f"{text!r} is not an element")
    return known[letters]


def molecule(
    index: str,
    charges: npt.ArrayLike,
    positions: npt.ArrayLike,
    properties: dict[str, float] | None = None,
    labels: dict[str, Any] | None = None,
) -> Molecule:
    """Return a checked molecule; a property that is not finite becomes NaN, for unknown.

    Raises
    ------
    BadInput
        If it has no atoms, a position is not finite, a charge is not an element's, two atoms
        coincide, it is wider than any molecule, or a name is not text.
    """
    places = np.array(positions, dtype=np.float64, order="C")
    numbers = np.asarray(charges)
    if not numbers.size:
        raise BadInput("empty", "has no atoms")
    if places.shape != (len(numbers), 3):
        raise BadInput("shape", f"has {len(numbers)} elements and positions {places.shape}")
    if not np.isfinite(places).all():
        raise BadInput("nan", f"{int((~np.isfinite(places)).sum())} coordinates are not finite")
    if (numbers != np.round(numbers)).any() or numbers.min() < 1 or numbers.max() > HEAVIEST:
        raise BadInput("element", f"charges {sorted(set(numbers.tolist()))[:8]}; 1 to {HEAVIEST}")
    if (extent := float(np.ptp(places, axis=0).max())) > WIDEST:
        raise BadInput("extent", f"is {extent:.3g} Angstrom wide; at most {WIDEST:g}")
    _check_apart(places)
    given = (properties or {}) | (labels or {})
    said = "".join((index, *given, *(word for word in given.values() if isinstance(word, str))))
    if writable(said) != said:
        raise BadInput("name", "its name or what is said of it is not in UTF-8")
    known = {k: v if math.isfinite(v) else math.nan for k, v in (properties or {}).items()}
    return Molecule(index, places, numbers.astype(np.uint8), known, labels or {})


def _check_apart(places: npt.NDArray[np.float64]) -> None:
    if len(places) > 2000:  # quadratic; no molecule of these data sets is so large
        raise BadInput("size", f"has {len(places)} atoms; at most 2000")
    squares = np.square(places[:, None] - places[None, :]).sum(-1)
    np.fill_diagonal(squares, np.inf)
    if len(places) > 1 and squares.min() < CLOSEST**2:
        one, other = np.unravel_index(int(squares.argmin()), squares.shape)
        raise BadInput(
            "coincident",
            f"atoms {one} and {other} are {squares.min() ** 0.5:.3g} Angstrom apart; below "
            f"{CLOSEST} they coincide (positions are read as Angstrom)",
        )


def text_of(data: bytes) -> str:
    """Return the text of a file, with any line endings, without a byte order mark."""
    text = data.decode("utf-8-sig", "replace")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def number(text: str) -> float:
    """Read a number as quantum chemistry writes it: ``5.*^-6``, ``0.``, ``1.0D-3``, ``-.5``.

    Fortran has a point before D: ``12D4`` is a name.

    Raises
    ------
    BadInput
        If it is not a number.
    """
    try:
        if "_" in text:  # a digit's neighbour for Python alone, and in files part of a name
            raise ValueError
        return float(_FORTRAN.sub(r"\1e", text).replace("*^", "e"))
    except ValueError:
        raise BadInput("number", f"{text!r} is not a number") from None
