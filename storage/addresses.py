"""Addresses of stores and sources, which records, logs and messages repeat."""

from __future__ import annotations

import re

from storage.errors import InvalidRequest

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
