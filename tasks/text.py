"""Parameters written in a line of text, and columns that have to become text."""

from __future__ import annotations

import datetime
from typing import Any

import pandas as pd

from storage import InvalidRequest


def keyed(text: str, whole: str, example: str) -> dict[str, str]:
    """Return what ``KEY=VALUE,KEY=VALUE`` says.

    Parameters
    ----------
    text
        The pairs. A piece without ``=`` goes on with the value before, as in ``spacing=1,1``.
    whole, example
        What the user wrote, and what it should look like, for the message.

    Raises
    ------
    InvalidRequest
        If it does not begin with a key, or a key comes twice.
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


def of_one_kind(samples: pd.DataFrame) -> pd.DataFrame:
    """Return samples whose columns are each of numbers, of moments or of texts.

    Of texts where they are of several kinds: a table's file has no such columns.
    """
    mixed = {}
    for name in samples:
        if not pd.api.types.is_object_dtype(samples[name]):
            continue
        if samples[name].dropna().map(_kind).nunique() > 1:
            mixed[str(name)] = samples[name].map(_text, na_action="ignore")
    return samples.assign(**mixed)


def _kind(value: Any) -> str:
    if isinstance(value, str):
        return "text"
    return "moment" if isinstance(value, datetime.datetime) else "number"


def _text(value: Any) -> str:
    if isinstance(value, datetime.datetime):
        return value.isoformat()
    whole = isinstance(value, float) and value.is_integer()
    return str(int(value) if whole else value)
