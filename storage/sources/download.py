"""Published files by name: downloaded once, continued after a break, checked before use."""

from __future__ import annotations

import hashlib
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from platformdirs import user_cache_path

from storage.errors import Damaged, InvalidRequest

CHUNK = 2**20
TIMEOUT = 60  # seconds without a byte


@dataclass(frozen=True)
class Published:
    """A file at a fixed address.

    Parameters
    ----------
    url
        Where it is.
    name
        What it is called when kept.
    size, sha256
        Of its content.
    """

    url: str
    name: str
    size: int
    sha256: str


# R. Ramakrishnan et al., Scientific Data 1, 140022 (2014), figshare collection 978904 (CC0).
_FIGSHARE = "https://ndownloader.figshare.com/files"
PUBLISHED: dict[str, dict[str, Published]] = {
    "qm9": {
        "": Published(
            f"{_FIGSHARE}/3195389",
            "dsgdb9nsd.xyz.tar.bz2",
            86_144_227,
            "3a63848ac80691bdb8d41834b575afad345b9300d7a2db0c38adb7f6eaa8360c",
        ),
        "uncharacterized": Published(
            f"{_FIGSHARE}/3195404",
            "uncharacterized.txt",
            486_752,
            "3aa5115d540b356de94791d4a74c3bf1ed91c469ecf52a4f5d7cc0506fe02e24",
        ),
        "atomref": Published(
            f"{_FIGSHARE}/3195395",
            "atomref.txt",
            964,
            "af739d4a0fbe894a56f346ad6045ee1b74c58f8a8c9ef3fbfed920c9ad8b00f9",
        ),
    }
}


def fetch_published(source: str) -> Path:
    """Return the local copy of a published file such as ``qm9:`` or ``qm9:uncharacterized``.

    Copies are kept in ``downloads`` in the user's cache folder.

    Raises
    ------
    InvalidRequest
        If there is no such file, or it cannot be downloaded.
    """
    collection, _, name = source.partition(":")
    files = PUBLISHED.get(collection, {})
    if name not in files:
        known = ", ".join(f"{collection}:{key}" for key in files) or "none"
        raise InvalidRequest(f"nothing is published as {source!r}; there is {known}")
    return fetch(files[name], user_cache_path("wavemill", ensure_exists=True) / "downloads")


def fetch(file: Published, folder: Path) -> Path:
    """Download a file unless its copy is there, continuing where an earlier attempt broke off.

    Raises
    ------
    InvalidRequest
        If the server cannot be reached or refuses.
    Damaged
        If what came is not the published file; it is removed, so that the next try starts anew.
    """
    target = folder / file.name
    if target.exists() and target.stat().st_size == file.size:
        return target
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f"{file.name}.part"
    try:
        _append(file, partial)
    except (urllib.error.URLError, OSError) as error:
        held = partial.stat().st_size if partial.exists() else 0
        raise InvalidRequest(
            f"{file.url} cannot be downloaded ({error}); {held} of {file.size} bytes are kept: "
            f"run it again to continue, or put {file.name} into {folder}"
        ) from error
    if _sha256(partial) != file.sha256:
        partial.unlink()
        raise Damaged(f"{file.url} is not the published {file.name} (sha256): run it again")
    return partial.replace(target)


def _append(file: Published, partial: Path) -> None:
    """Add what is lacking; a server that ignores the range sends all of it again."""
    held = partial.stat().st_size if partial.exists() else 0
    if held >= file.size:
        return
    request = urllib.request.Request(file.url, headers={"Range": f"bytes={held}-"} if held else {})
    with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:
        resumed = answer.status == 206
        with partial.open("ab" if resumed else "wb") as output:
            lacking = file.size - output.tell()
            while block := answer.read(min(CHUNK, lacking)):  # never more: it may not end
                output.write(block)
                lacking -= len(block)
    if partial.stat().st_size < file.size:
        raise OSError(f"the connection ended after {partial.stat().st_size} bytes")


def _sha256(path: Path) -> str:
    with path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
