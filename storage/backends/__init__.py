"""Where bytes are kept: a folder, S3, or the memory of this process."""

from __future__ import annotations

from storage.addresses import without_secrets
from storage.backends.base import SINGLE_WRITER, Backend, ObjectInfo
from storage.backends.local import LocalBackend
from storage.backends.memory import MemoryBackend
from storage.errors import InvalidRequest

__all__ = [
    "SINGLE_WRITER",
    "Backend",
    "LocalBackend",
    "MemoryBackend",
    "ObjectInfo",
    "open_backend",
]


def open_backend(url: str) -> Backend:
    """Return the backend that ``url`` names.

    Parameters
    ----------
    url
        A path or ``file://`` (made absolute), ``s3://bucket/prefix``, or ``memory://name``. With
        ``?single-writer`` at its end, the store need not enforce exclusive creation, and only
        one process may write; the mark travels to the workers with the address.

    Raises
    ------
    InvalidRequest
        If the scheme is not one of these, or the address holds a password.
    """
    without_secrets(url)
    address, single_writer = url.removesuffix(SINGLE_WRITER), url.endswith(SINGLE_WRITER)
    scheme, separator, rest = address.partition("://")
    match scheme if separator else "file":
        case "file":
            return LocalBackend(rest if separator else address, single_writer=single_writer)
        case "s3":
            from storage.backends.s3 import S3Backend  # its client takes long to load

            return S3Backend(rest, single_writer=single_writer)
        case "memory":
            return MemoryBackend(rest)
        case _:
            raise InvalidRequest(f"no backend for {url!r}: use a folder, s3://... or memory://...")
