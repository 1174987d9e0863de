"""Members of ``.zip`` and ``.tar`` archives, listed and read in place: nothing is extracted."""

from __future__ import annotations

import bz2
import gzip
import lzma
import math
import re
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Any, BinaryIO, cast

from storage.errors import BadInput
from storage.sources.filesystem import Entry, fold, open_binary, without_query
from storage.sources.rows import list_rows

HEADER_LIMIT = 2**20  # bytes; names and attributes of one member of a tar
MEMBER_LIMIT = 4 * 2**30  # bytes; a field of 23,000 x 23,000 in float64
DECOMPRESSORS: dict[str, Callable[..., Any]] = {
    ".tar.gz": gzip.open,
    ".tgz": gzip.open,
    ".tar.bz2": bz2.open,
    ".tbz2": bz2.open,
    ".tar.xz": lzma.open,
    ".txz": lzma.open,
}
_DAMAGE = (
    zipfile.BadZipFile,
    tarfile.TarError,
    lzma.LZMAError,
    zlib.error,
    NotImplementedError,  # a compression method that zipfile does not know
    RuntimeError,  # an encrypted member
    ValueError,
    MemoryError,
)
_ABSOLUTE = re.compile(r"/|\\\\|[A-Za-z]:")  # for either kind of system
_BLOCK = 512  # bytes; a tar consists of these
_NESTED = "is a tar within a tar, read only if neither is compressed: decompress it (gunzip)"
Refusal = tuple[str, BadInput]


def kind(path: str) -> str | None:
    """Return ``zip``, ``tar``, ``stream`` (a compressed tar) or None for anything else."""
    path = without_query(path).lower()
    if path.endswith(".zip") and not path.endswith(".zarr.zip"):
        return "zip"
    if path.endswith(tuple(DECOMPRESSORS)):
        return "stream"
    return "tar" if path.endswith(".tar") else None


def list_members(url: str) -> tuple[list[Entry], list[Refusal]]:
    """List what an archive holds without unpacking it.

    Returns
    -------
    entries
        Files, each with its place in the (decompressed) tar; ``x.zarr/`` is one entry.
    refusals
        Members that would leave their folder, links and bombs; and the archive itself,
        named ``""``, when it is damaged. What lies before a cut stays readable; where a
        header or a checksum is wrong no member can be trusted.
    """
    entries: dict[str, Entry] = {}
    refusals: list[Refusal] = []
    try:
        with damage_as_bad_input(url):
            for found in _listing(url):
                if isinstance(found, Entry):
                    entries[found.path] = found  # the last of a name counts, as for tar
                else:
                    refusals.append(found)
    except BadInput as error:
        refusals.append(("", error))
        if error.reason != "truncated":
            entries.clear()
    return fold(entries.values()), refusals


def _listing(url: str) -> Iterator[Entry | Refusal]:
    match kind(url):
        case "zip":
            return _zip_listing(url)
        case None:
            return list_rows(url)
        case _:
            return _tar_listing(url)


@contextmanager
def damage_as_bad_input(url: str) -> Iterator[None]:
    """Turn what damaged bytes raise into `BadInput`; failures of disk or network pass."""
    try:
        yield
    except (PermissionError, TimeoutError, ConnectionError):  # a store's have no number
        raise
    except FileNotFoundError as error:
        raise BadInput("missing", f"{url} was listed but is gone, or a link to nothing") from error
    except EOFError as error:
        raise BadInput("truncated", f"{url} ends early: {error}") from error
    except (*_DAMAGE, OSError) as error:
        if isinstance(error, BadInput) or (isinstance(error, OSError) and error.errno is not None):
            raise
        reason = "truncated" if "unexpected end of data" in str(error) else "archive"
        raise BadInput(reason, f"{url} is damaged: {str(error) or type(error).__name__}") from error


def index_zip(archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """Return the files of a zip by normalised path."""
    return {_normal(info.filename): info for info in archive.infolist() if not info.is_dir()}


def walk_tar(url: str) -> Generator[tuple[tarfile.TarFile, tarfile.TarInfo]]:
    """Yield the members of a tar in one forward pass and check that it ends as it should.

    Raises
    ------
    EOFError, tarfile.ReadError
        If the archive is cut or a header is wrong; tarfile itself would just stop there.
    """
    with open_binary(url) as raw, _decompressed(url, raw) as content:
        yield from _walk(content)
        while content.read(2**20):  # the checksum of a compressed stream comes last
            pass


def _walk(content: BinaryIO) -> Generator[tuple[tarfile.TarFile, tarfile.TarInfo]]:
    file = _Watched(content)
    with tarfile.open(fileobj=cast(BinaryIO, file), mode="r:") as archive:
        while (info := archive.next()) is not None:
            archive.members = []  # type: ignore[attr-defined]  # a million members must not pile up
            file.left = math.inf
            yield archive, info
            file.left = HEADER_LIMIT
    if len(file.last) < _BLOCK:
        raise EOFError("there is no end marker")
    if file.last.strip(b"\0"):
        raise tarfile.ReadError("the header of a member is wrong")


class _Watched:
    """A file that remembers the last block read, since tarfile hides why it stopped.

    tarfile reads a member's headers whole; this refuses to read more than ``left`` bytes of them.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.last = b""
        self.left: float = HEADER_LIMIT
        self.seek, self.tell, self.seekable = file.seek, file.tell, file.seekable

    def read(self, size: int = -1) -> bytes:
        self.left -= size
        if self.left < 0:
            raise tarfile.ReadError(f"a member has more than {HEADER_LIMIT} bytes of headers")
        self.last = self._file.read(size)
        return self.last


@contextmanager
def _decompressed(url: str, raw: BinaryIO) -> Iterator[BinaryIO]:
    for suffix, decompressor in DECOMPRESSORS.items():
        if without_query(url).lower().endswith(suffix):
            with decompressor(raw, "rb") as content:
                yield cast(BinaryIO, content)
            return
    yield raw


def _tar_listing(url: str) -> Iterator[Entry | Refusal]:
    for archive, info in walk_tar(url):
        if kind(url) == kind(info.name) == "tar" and info.isreg():
            yield from _nested_listing(url, archive, info)
        elif kind(info.name) in ("tar", "stream") and info.isreg():
            yield info.name, BadInput("archive", f"{info.name} {_NESTED}")
        elif not info.isdir():
            yield _tar_member(info)


def _nested_listing(
    url: str, outer: tarfile.TarFile, holder: tarfile.TarInfo
) -> Iterator[Entry | Refusal]:
    """List a tar within a tar; its members are read by their place in the outer one."""
    content = outer.extractfile(holder)
    assert content is not None
    try:
        with damage_as_bad_input(f"{url}/{holder.name}"):
            for _, info in _walk(cast(BinaryIO, content)):
                whole = info.offset_data + info.size <= holder.size  # else it is beyond a cut
                if whole and not info.isdir():
                    yield _within(holder, _tar_member(info))
    except BadInput as error:
        yield holder.name, error


def _within(holder: tarfile.TarInfo, found: Entry | Refusal) -> Entry | Refusal:
    if not isinstance(found, Entry):
        return f"{holder.name}/{found[0]}", found[1]
    place = holder.offset_data + (found.offset or 0)
    return replace(found, path=f"{_normal(holder.name)}/{found.path}", offset=place)


def _tar_member(info: tarfile.TarInfo) -> Entry | Refusal:
    link = not info.isreg() or info.issparse()
    return _checked(info.name, info.size, "is no plain file" if link else "", info)


def _zip_listing(url: str) -> Iterator[Entry | Refusal]:
    with open_binary(url) as file, zipfile.ZipFile(file) as archive:
        for info in archive.infolist():
            problem = ""
            if stat.S_ISLNK(info.external_attr >> 16):
                problem = "is a link"
            elif info.flag_bits & 1:
                problem = "is encrypted"
            if not info.is_dir():
                yield _checked(info.filename, info.file_size, problem, None)


def _checked(name: str, size: int, problem: str, place: tarfile.TarInfo | None) -> Entry | Refusal:
    if _ABSOLUTE.match(name):
        problem = "has an absolute path"
    elif ".." in name and ".." in re.split(r"[\\/]", name):
        problem = "would leave its folder"
    elif size > MEMBER_LIMIT:
        problem = f"declares {size} bytes, more than {MEMBER_LIMIT}"
    if problem:
        return name, BadInput(
            "archive", f"member {name!r} {problem}; unpack it yourself if trusted"
        )
    return Entry(_normal(name), size, offset=place.offset_data if place else None)


def _normal(name: str) -> str:
    plain = not name.startswith("./") and not name.endswith("/") and "//" not in name
    return name if plain and "/." not in name else PurePosixPath(name).as_posix()
