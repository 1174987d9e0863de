"""Checkpoints: what a long computation goes on from, should it be interrupted.

A checkpoint lies where an attempt at the artifact, or the part, would, in ``<home>/checkpoint/``,
and is replaced as a whole. No manifest names it: whoever reads does not see it, and a collection
removes what was left behind, like any attempt that did not win.
"""

from __future__ import annotations

from storage.backends import Backend

NAME = "checkpoint/state"


class Checkpoint:
    """The checkpoint of what is to lie at ``home``."""

    def __init__(self, backend: Backend, home: str) -> None:
        self.backend = backend
        self.path = f"{home}/{NAME}"

    def read(self) -> bytes | None:
        """Return what was written last; None if there is nothing."""
        try:
            return self.backend.read(self.path)
        except FileNotFoundError:
            return None

    def write(self, data: bytes) -> None:
        """Replace what is there."""
        self.backend.write(self.path, data)

    def clear(self) -> None:
        """Remove it: what it was for is made."""
        self.backend.delete([self.path])
