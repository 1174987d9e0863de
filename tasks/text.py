"""Parameters written in a line of text."""

from __future__ import annotations

from storage import InvalidRequest


def keyed(text: str, whole: str, example: str) -> dict[str, str]:
    """Return what ``KEY=VALUE,KEY=VALUE`` says.

    Parameters
    ----------
    text
        The pairs. A piece without ``=`` continues the value before it, as in ``spacing=1,1``.
    whole, example
        What the user wrote, and what it should look like, for the message.

    Raises
    ------
    InvalidRequest
        If it does not begin with a key, or a key occurs twice.
    """
    found: dict[str, str] = {}
    key = ""
    for piece in filter(None, text.split(",")):
        name, separator, value = piece.partition("=")
        if separator and name in found:
            raise InvalidRequest(f"{whole!r}: {name!r} comes twice")
        if not (name if separator else key):
            raise InvalidRequest(f"{whole!r}: {piece!r} is not KEY=VALUE, as in {example}")
        key = name if separator else key
        found[key] = value if separator else f"{found[key]},{piece}"
    return found
