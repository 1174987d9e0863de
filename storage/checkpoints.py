"""Checkpoints: what a long computation continues from if it was interrupted.

A checkpoint lies beside the attempts at its artifact or part, in ``<home>/checkpoint/``, and is
replaced as a whole. No manifest names it: readers do not see it, and a collection removes one that
was left behind, like any attempt that did not win.
"""

from __future__ import annotations

from storage.backends import Backend
from storage.errors import Damaged
from storage.keys import quick_digest

NAME = "checkpoint/state"
_MARK = b"wavemill checkpoint, XXH3 "  # then 32 digits and a line's end; older ones have none
_HEAD = len(_MARK) + 33


class Checkpoint:
    """The checkpoint of what is to lie at ``home``."""

    def __init__(self, backend: Backend, home: str) -> None:
        self.backend = backend
        self.path = f"{home}/{NAME}"

    def read(self) -> bytes | None:
        """Return what was written last; None if there is nothing.

        Raises
        ------
        Damaged
            If it is not what was written.
        """
        try:
            data = self.backend.read(self.path)
        except FileNotFoundError:
            return None
        if not data.startswith(_MARK):
            return data
        state = data[_HEAD:]
        if _head(state) != data[:_HEAD]:
            raise Damaged(f"{self.path} differs from what was written")
        return state

    def write(self, data: bytes) -> None:
        """Replace what is there."""
        self.backend.write(self.path, _head(data) + data)

    def clear(self) -> None:
        """Remove it: what it was kept for is finished."""
        self.backend.delete([self.path])


def _head(data: bytes) -> bytes:
    return _MARK + quick_digest(data).encode() + b"\n"
