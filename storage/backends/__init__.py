"""Where bytes are kept: a folder, S3, or the memory of this process."""

from __future__ import annotations

from storage.backends.base import Backend, ObjectInfo
from storage.backends.local import LocalBackend
from storage.backends.memory import MemoryBackend
from storage.backends.s3 import S3Backend
from storage.errors import InvalidRequest

__all__ = ["Backend", "LocalBackend", "MemoryBackend", "ObjectInfo", "S3Backend", "open_backend"]


def open_backend(url: str, *, single_writer: bool = False) -> Backend:
    """Return the backend that ``url`` names.

    Parameters
    ----------
    url
        A path or ``file://`` (made absolute), ``s3://bucket/prefix``, or ``memory://name``.
    single_writer
        Accept a store that cannot create exclusively; then only one process may write.

    Raises
    ------
    InvalidRequest
        If the scheme is not one of these.
    """
    scheme, separator, rest = url.partition("://")
    match scheme if separator else "file":
        case "file":
            return LocalBackend(rest if separator else url, single_writer=single_writer)
        case "s3":
            return S3Backend(rest, single_writer=single_writer)
        case "memory":
            return MemoryBackend(rest)
        case _:
            raise InvalidRequest(f"no backend for {url!r}: use a folder, s3://... or memory://...")
