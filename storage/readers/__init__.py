"""Bytes to arrays, one file a format family."""

from storage.readers.found import Found
from storage.readers.frames import Frame, Header, ReadOptions
from storage.readers.reading import EXTENSIONS, read_frames, read_header, read_headers

__all__ = [
    "EXTENSIONS",
    "Found",
    "Frame",
    "Header",
    "ReadOptions",
    "read_frames",
    "read_header",
    "read_headers",
]
