"""What a dataset is read from: files, members of archives, and stacks of them."""

from __future__ import annotations

import hashlib
import tarfile
import zipfile
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from itertools import groupby
from pathlib import PurePosixPath

from storage.errors import BadInput
from storage.sources import rows
from storage.sources.archives import damage_as_bad_input, index_zip, kind, walk_tar
from storage.sources.embedded import EMBEDDED, read_embedded
from storage.sources.filesystem import (
    is_remote,
    open_binary,
    pack,
    read_bytes,
    read_folder,
    sends_parts,
)

AHEAD = 8  # remote files asked for before they are needed
SMALL = 8 * 2**20  # bytes; larger ones are worth a request of their own


@dataclass(frozen=True)
class SourceFile:
    """One file, wherever it lies; small and picklable, so that it can travel to a worker.

    Parameters
    ----------
    url
        Absolute path or URL of the file, or of the archive that holds it.
    member
        Path inside the archive, or None.
    name
        Path relative to the source that was asked for, in POSIX form.
    size
        Bytes, of the member where there is one.
    mtime, etag
        Of the file or of the archive: an unchanged ``(url, size, mtime or etag)`` need not
        be read again. For a folder the tag is a digest over the listing of all files in it.
    offset
        Place of a member in the decompressed tar.
    folder
        Whether this is a folder such as ``x.zarr``, read as one container.
    """

    url: str
    member: str | None
    name: str
    size: int
    mtime: float | None = None
    etag: str | None = None
    offset: int | None = None
    folder: bool = False

    def read(self, stop: int | None = None) -> bytes:
        """Read the content, or its first ``stop`` bytes.

        A folder is read as an uncompressed zip of its files, sorted and without times.

        Raises
        ------
        BadInput
            If the file is gone, cut, or its archive is damaged.
        """
        if stop is not None and self.member is None and not self.folder:
            with damage_as_bad_input(self.url):
                return read_bytes(self.url, 0, stop)
        _, content = next(iter(read_many([self])))
        if isinstance(content, BadInput):
            raise content
        return content[:stop]


@dataclass(frozen=True)
class Unit:
    """What one sample, or one stack of samples, is read from.

    Parameters
    ----------
    name
        Relative path without the extension: the stem of sample ids, unique in a listing.
    files
        One file, or one for each component in the order of the components.
    """

    name: str
    files: tuple[SourceFile, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of all files as they are stored."""
        return sum(file.size for file in self.files)


def fingerprint(payload: Sequence[bytes]) -> str:
    """Return the sha256 of one file's content, or for several that of their digests in order."""
    digests = [hashlib.sha256(content).hexdigest() for content in payload]
    return (
        digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()
    )


def read_many(files: Iterable[SourceFile]) -> Iterator[tuple[SourceFile, bytes | BadInput]]:
    """Read files one after another, consecutive members of one archive in one pass.

    Yields
    ------
    (SourceFile, bytes or BadInput)
        Every file once: its content, or why it cannot be read. Members of a compressed
        tar come in the order of the archive, everything else in the order asked for.
    """
    for (url, form), group in groupby(files, key=_container):
        match form:
            case "zip":
                yield from _read_zip(url, list(group))
            case "stream":
                yield from _read_stream(url, list(group))
            case "embedded":
                yield from ((file, read_embedded(url, file.member or "")) for file in group)
            case "parquet" | "lmdb":
                yield from _read_rows(url, list(group))
            case "whole":
                yield from _read_whole(url, list(group))
            case "ahead":
                yield from _read_ahead(group)
            case _:
                for file in group:
                    yield file, _read_one(file)


def read_units(units: Iterable[Unit]) -> Iterator[tuple[Unit, list[bytes] | BadInput]]:
    """Read units like `read_many`, each as soon as all its files have come."""
    asked = list(units)
    owners = {file: unit for unit in asked for file in unit.files}
    contents: dict[Unit, dict[SourceFile, bytes | BadInput]] = defaultdict(dict)
    for file, content in read_many(file for unit in asked for file in unit.files):
        unit = owners[file]
        contents[unit][file] = content
        if len(contents[unit]) == len(unit.files):
            yield unit, _joined(unit, contents.pop(unit))


def _joined(unit: Unit, contents: dict[SourceFile, bytes | BadInput]) -> list[bytes] | BadInput:
    payload: list[bytes] = []
    for file in unit.files:
        content = contents[file]
        if isinstance(content, BadInput):
            return content
        payload.append(content)
    return payload


def _container(file: SourceFile) -> tuple[str, str | None]:
    if file.url.startswith(EMBEDDED):
        return file.url, "embedded"
    form = (kind(file.url) or rows.kind(file.url)) if file.member is not None else None
    if form == "tar" and file.folder:
        form = "stream"  # its files lie anywhere in the tar
    elif form == "tar" and not sends_parts(file.url):
        form = "whole"
    if is_remote(file.url) and form in (None, "tar") and not file.folder and file.size < SMALL:
        return "", "ahead"
    return file.url, form


def _read_ahead(files: Iterable[SourceFile]) -> Iterator[tuple[SourceFile, bytes | BadInput]]:
    """Ask for the next files while one is used: a remote store is slow, but answers in parallel."""
    asked: deque[tuple[SourceFile, Future[bytes | BadInput]]] = deque()
    with ThreadPoolExecutor(AHEAD) as pool:
        for file in files:
            asked.append((file, pool.submit(_read_one, file)))
            if len(asked) > AHEAD:
                first, content = asked.popleft()
                yield first, content.result()
        for first, content in asked:
            yield first, content.result()


def _read_one(file: SourceFile) -> bytes | BadInput:
    try:
        with damage_as_bad_input(file.url):
            if file.folder:
                return read_folder(file.url)
            if file.offset is None:
                return read_bytes(file.url)
            content = read_bytes(file.url, file.offset, file.offset + file.size)
            _check_length(file.member, content, file.size)
            return content
    except BadInput as error:
        return error


def _read_whole(url: str, files: list[SourceFile]) -> Iterator[tuple[SourceFile, bytes | BadInput]]:
    """Read members of a tar that is fetched once, since its server sends no parts of it."""
    done = 0
    try:
        with damage_as_bad_input(url), open_binary(url) as raw:
            for file in files:
                raw.seek(file.offset or 0)
                content = raw.read(file.size)
                _check_length(file.member, content, file.size)
                yield file, content
                done += 1
    except BadInput as error:
        yield from ((file, error) for file in files[done:])


def _check_length(name: str | None, content: bytes, size: int) -> None:
    if len(content) < size:
        raise EOFError(f"{name} has {len(content)} of {size} bytes")


def _read_zip(url: str, files: list[SourceFile]) -> Iterator[tuple[SourceFile, bytes | BadInput]]:
    done = 0
    try:
        with damage_as_bad_input(url), open_binary(url) as raw, zipfile.ZipFile(raw) as archive:
            index = index_zip(archive)
            for file in files:
                yield file, _read_zip_member(archive, index, file)
                done += 1
    except BadInput as error:
        yield from ((file, error) for file in files[done:])


def _read_zip_member(
    archive: zipfile.ZipFile, index: dict[str, zipfile.ZipInfo], file: SourceFile
) -> bytes | BadInput:
    member = file.member or ""
    try:
        with damage_as_bad_input(f"{file.url}/{member}"):
            if not file.folder:
                return archive.read(index[member])
            inside = sorted(path for path in index if path.startswith(f"{member}/"))
            return pack((path[len(member) + 1 :], archive.read(index[path])) for path in inside)
    except KeyError:
        return BadInput("missing", f"{member} is no longer in {file.url}")
    except BadInput as error:
        return error


def _read_rows(url: str, files: list[SourceFile]) -> Iterator[tuple[SourceFile, bytes | BadInput]]:
    ordered = sorted(files, key=lambda file: (file.offset or 0, file.member or ""))
    done = 0
    try:
        with damage_as_bad_input(url):
            wanted = [(file.member or "", file.offset) for file in ordered]
            for file, content in zip(ordered, rows.read_rows(url, wanted), strict=True):
                yield file, content
                done += 1
    except BadInput as error:
        yield from ((file, error) for file in ordered[done:])


def _read_stream(
    url: str, files: list[SourceFile]
) -> Iterator[tuple[SourceFile, bytes | BadInput]]:
    single = {file.offset: file for file in files if not file.folder}
    folders: dict[SourceFile, list[tuple[str, bytes]]] = {f: [] for f in files if f.folder}
    problem = BadInput("missing", f"a member is no longer where it was listed in {url}")
    try:
        with damage_as_bad_input(url), closing(walk_tar(url)) as members:
            for archive, info in members:
                file = single.get(info.offset_data)
                if file is not None:
                    content = _content(archive, info)
                    del single[info.offset_data]
                    yield file, content
                if folders:
                    _gather(archive, info, folders)
                if not single and not folders:
                    return
    except BadInput as error:
        problem = error
        yield from ((file, problem) for file in folders)
        folders = {}
    yield from ((file, problem) for file in single.values())
    yield from ((file, pack(sorted(inside))) for file, inside in folders.items())


def _content(archive: tarfile.TarFile, info: tarfile.TarInfo) -> bytes:
    member = archive.extractfile(info)
    content = member.read() if member is not None else b""
    _check_length(info.name, content, info.size)
    return content


def _gather(
    archive: tarfile.TarFile,
    info: tarfile.TarInfo,
    folders: dict[SourceFile, list[tuple[str, bytes]]],
) -> None:
    """Add the member to the folder that it lies in, if that is wanted."""
    path = PurePosixPath(info.name).as_posix()
    for file, inside in folders.items():
        if info.isreg() and path.startswith(f"{file.member}/"):
            inside.append((path.removeprefix(f"{file.member}/"), _content(archive, info)))
