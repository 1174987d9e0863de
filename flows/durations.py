"""Durations as people write them."""

from __future__ import annotations

import re

from storage.errors import InvalidRequest

UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def seconds(text: str, option: str, bare: str) -> float:
    """Return the seconds in ``45s``, ``15m``, ``2h`` or ``1d``; a bare number counts ``bare``.

    Raises
    ------
    InvalidRequest
        If it is none of these; the message names the option.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd]?)", text.strip())
    if not found:
        raise InvalidRequest(
            f"{option} {text!r} is not a duration: write 45s, 15m, 2h or 1d; a plain number counts "
            f"{UNITS[bare]}"
        )
    return float(found[1]) * _SECONDS[found[2] or bare]
