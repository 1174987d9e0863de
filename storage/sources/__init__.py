"""Where samples come from: files, folders, globs, archives and object stores."""

from storage.sources.discover import Discovery, Refused, discover
from storage.sources.files import SourceFile, Unit, fingerprint, read_many, read_units

__all__ = [
    "Discovery",
    "Refused",
    "SourceFile",
    "Unit",
    "discover",
    "fingerprint",
    "read_many",
    "read_units",
]
