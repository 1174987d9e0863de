"""Text from outside, as files and tables can hold it."""

from __future__ import annotations


def writable(text: str) -> str:
    """Return text as UTF-8 can hold it: bytes that are not part of a character are written out."""
    return text.encode("utf-8", "backslashreplace").decode()
