"""Errors of the store, classed by what a caller does about them.

Each subclasses the built-in a caller already catches and survives pickling, because Dask
ships exceptions between processes.
"""

import contextlib
import errno
from collections.abc import Iterator
from pathlib import Path

from storage.text import writable

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS}


class StorageError(Exception):
    """Anything that the store refuses or fails at."""


class BadInput(StorageError, ValueError):
    """One input cannot become a sample: it is quarantined, and the others are kept.

    Parameters
    ----------
    reason
        One word that tables and tests count by, such as ``truncated`` or ``shape``.
    message
        What was found, the values, and the way out.
    """

    def __init__(self, reason: str, message: str) -> None:
        self.reason = reason
        self.message = writable(message)
        super().__init__(reason, self.message)

    def __str__(self) -> str:
        return f"{self.reason}: {self.message}"


class InvalidRequest(StorageError, ValueError):
    """The request cannot be carried out as written: change the request."""


class NotFound(StorageError, KeyError):
    """Nothing is stored under that name: look at what there is, or make it first."""

    def __str__(self) -> str:  # KeyError would print the repr, quotes and all
        return str(self.args[0]) if self.args else ""


class Conflict(StorageError, RuntimeError):
    """Another writer is in the way: wait for it, or ask again."""


class Newer(StorageError, RuntimeError):
    """A newer version wrote it, in a format that this one does not know: upgrade."""


class NoRoom(StorageError, OSError):
    """A disk takes no more: make room, or write elsewhere."""


@contextlib.contextmanager
def room_for(target: Path, elsewhere: str) -> Iterator[None]:
    """Name the file that a full disk does not take, and what else to do than to make room."""
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        way_out = f"make room there, or {elsewhere}"
        raise NoRoom(f"{target} cannot be written: {error.strerror}: {way_out}") from error


class Damaged(StorageError, OSError):
    """Stored bytes are not the ones that were written: recompute what the message names."""
