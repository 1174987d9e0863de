"""Bytes to molecules, one file a format family."""

from storage.readers.molecules.molecule import Molecule
from storage.readers.molecules.reading import EXTENSIONS, read_molecules, through_ase

__all__ = ["EXTENSIONS", "Molecule", "read_molecules", "through_ase"]
