"""Molecules that come with a dependency: ``ase:g2`` names the G2 set that ASE ships.

L. A. Curtiss et al., "Assessment of Gaussian-2 and density functional theories for the
computation of enthalpies of formation", J. Chem. Phys. 106, 1063 (1997): molecules and atoms at
their MP2(full)/6-31G(d) geometries.
"""

from __future__ import annotations

import importlib.metadata
from typing import Any

from storage.errors import InvalidRequest

EMBEDDED = "ase:"
COLLECTIONS = ("g2",)


def embedded(source: str) -> tuple[list[str], str]:
    """Return the names of a collection's molecules, and a tag that changes when they may.

    Raises
    ------
    InvalidRequest
        If there is no such collection.
    """
    return sorted(_collection(source).names), f"ase {importlib.metadata.version('ase')}"


def read_embedded(source: str, name: str) -> bytes:
    """Return a molecule as the bytes of a plain ``.xyz`` file."""
    atoms = _collection(source)[name]
    rows = zip(atoms.symbols, atoms.positions.tolist(), strict=True)
    lines = [f"{symbol} {x!r} {y!r} {z!r}" for symbol, (x, y, z) in rows]
    return "\n".join([str(len(lines)), "", *lines, ""]).encode()


def _collection(source: str) -> Any:
    from ase import collections

    name = source.removeprefix(EMBEDDED)
    if name not in COLLECTIONS:
        raise InvalidRequest(f"{source!r}: ASE's collections here are {', '.join(COLLECTIONS)}")
    return getattr(collections, name)
