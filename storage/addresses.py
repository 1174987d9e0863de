"""Names and addresses, which records, logs and messages repeat."""

from __future__ import annotations

import re
from collections.abc import Iterable

from storage.errors import InvalidRequest

_LONGEST = 200  # characters of a name; file systems hold 255 bytes
_NAME_CHARACTERS = set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")
_USER = re.compile(r"://[^/?#]*@")
_SIGNED = re.compile(
    r"[?&;]([\w.-]*(signature|credential|token|secret|password|passwd)|sig|key|[\w-]*api_?key)=",
    re.IGNORECASE,
)
_KEPT = "an address that holds a {} would be kept in the store, by Prefect and in messages: "


def without_secrets(address: str) -> str:
    """Return an address as it is.

    Raises
    ------
    InvalidRequest
        If it holds a password or a signature; the message does not repeat it.
    """
    if "://" in address and _USER.search(address):
        raise InvalidRequest(
            _KEPT.format("user or password") + "leave it out and put it into ~/.netrc for https, "
            "into AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY for s3"
        )
    if "://" in address and _SIGNED.search(address):
        raise InvalidRequest(
            _KEPT.format("signature or key") + "download the file (curl -o FILE) and name that, "
            "or use s3:// with the credentials in the environment"
        )
    return address


def checked_name(name: str) -> str:
    """Return a name that can be part of a path, or raise InvalidRequest."""
    if not name or name[0] in ".-" or set(name) - _NAME_CHARACTERS or len(name) > _LONGEST:
        shown = repr(name if len(name) <= _LONGEST else f"{name[:20]}...")
        raise InvalidRequest(
            f"{shown} is not a name: use letters, digits, '.', '_' and '-', {_LONGEST} at most"
        )
    return name


def listed(ids: Iterable[str]) -> list[str]:
    """Return ids as a list; a single string would be taken for ids of one letter each."""
    if isinstance(ids, str):
        raise InvalidRequest(f"ids is {ids!r}: a list is expected, as in [{ids!r}]")
    return list(ids)
