"""Bytes to arrays, one file a format family."""

from storage.readers.frames import Frame, Frames, Header, ReadOptions
from storage.readers.reading import EXTENSIONS, read_frames, read_header

__all__ = [
    "EXTENSIONS",
    "Frame",
    "Frames",
    "Header",
    "ReadOptions",
    "read_frames",
    "read_header",
]
