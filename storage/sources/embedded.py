"""Samples that come with a dependency: ``ase:g2`` are molecules, ``sklearn:digits`` images.

G2: L. A. Curtiss et al., "Assessment of Gaussian-2 and density functional theories for the
computation of enthalpies of formation", J. Chem. Phys. 106, 1063 (1997): molecules and atoms at
their MP2(full)/6-31G(d) geometries, with the measured enthalpy of formation (of molecules at
298 K, of atoms at 0 K), as ASE ships them.

Digits: E. Alpaydin and C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning
Repository (1998): 1,797 test digits of 8 x 8 pixels in 17 greys, as scikit-learn ships them.
"""

from __future__ import annotations

import importlib.metadata
from functools import cache
from typing import Any

from storage.errors import InvalidRequest

EMBEDDED = ("ase:", "sklearn:")
COLLECTIONS = ("ase:g2", "sklearn:digits")
UNITS = {"formation_enthalpy": "kcal/mol"}


def embedded(source: str) -> tuple[list[str], str]:
    """Return the names of a collection's samples, and a tag that changes when these may change.

    Raises
    ------
    InvalidRequest
        If there is no such collection.
    """
    if source == "ase:g2":
        return sorted(_g2().names), f"ase {importlib.metadata.version('ase')}"
    if source == "sklearn:digits":
        names = [f"{label}/{place:04d}.pgm" for place, label in enumerate(_digits().target)]
        return sorted(names), f"scikit-learn {importlib.metadata.version('scikit-learn')}"
    raise InvalidRequest(f"{source!r}: embedded data are {', '.join(COLLECTIONS)}")


def read_embedded(source: str, name: str) -> bytes:
    """Return a sample as the bytes of a file: an extended ``.xyz``, a grey ``.pgm``."""
    return _read_molecule(name) if source == "ase:g2" else _read_digit(name)


def _read_molecule(name: str) -> bytes:
    from ase.data.g2 import data

    atoms = _g2()[name]
    rows = zip(atoms.symbols, atoms.positions.tolist(), strict=True)
    lines = [f"{symbol} {x!r} {y!r} {z!r}" for symbol, (x, y, z) in rows]
    known: Any = data[name]
    enthalpy = float(known["enthalpy"])
    comment = f"Properties=species:S:1:pos:R:3 formation_enthalpy={enthalpy!r}"
    return "\n".join([str(len(lines)), comment, *lines, ""]).encode()


def _read_digit(name: str) -> bytes:
    """Return one digit, its greys of 0 to 16 as the nearest of 0 to 255."""
    greys = _digits().images[int(name.partition("/")[2].partition(".")[0])]
    return b"P5 8 8 255\n" + bytes(int(grey * 255 / 16 + 0.5) for grey in greys.ravel())


def _g2() -> Any:
    from ase.collections import g2

    return g2


@cache
def _digits() -> Any:
    from sklearn.datasets import load_digits

    return load_digits()
