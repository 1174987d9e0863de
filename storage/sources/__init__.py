"""Where samples come from: files, folders, globs, archives and object stores."""

from storage.sources.discover import FIELD_EXTENSIONS, Discovery, Refused, discover
from storage.sources.files import SourceFile, Unit, fingerprint, read_many, read_units

__all__ = [
    "FIELD_EXTENSIONS",
    "Discovery",
    "Refused",
    "SourceFile",
    "Unit",
    "discover",
    "fingerprint",
    "read_many",
    "read_units",
]
