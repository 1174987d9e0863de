"""Files where they lie: local paths and remote URLs, listed and read alike."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import re
import shutil
import tempfile
import zipfile
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from glob import escape, has_magic, iglob
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, cast

import fsspec
from fsspec.asyn import sync

from storage.addresses import without_secrets
from storage.errors import InvalidRequest

FOLDER_FORMATS = (".zarr",)  # folders that are one file to a user
_OF_A_STORE = re.compile(
    r"(^|/)((parts|artifacts)/[^/]+/[0-9a-f]{64}/|tables/[0-9a-f]{64}\.parquet$)"
)
_WEB = ("http://", "https://")
_IN_MEMORY = 2**26  # bytes; what is larger is fetched to a disk


@dataclass(frozen=True)
class Entry:
    """One file of a listing: ``path`` is relative to what was listed, in POSIX form."""

    path: str
    size: int
    mtime: float | None = None
    etag: str | None = None
    offset: int | None = None
    folder: bool = False


@dataclass(frozen=True)
class Listing:
    """The entries found in ``folder``; ``named`` if the source was one file, called by name.

    ``query`` is what follows the path in links to download, as ``?download=1``.
    """

    folder: str
    entries: list[Entry]
    named: bool = False
    query: str = ""


def absolute(source: str) -> str:
    """Return a local path made absolute, or a remote URL as it is.

    Raises
    ------
    InvalidRequest
        If a URL holds a password or a signature.
    """
    if source.startswith("file://"):
        source = source.removeprefix("file://")
    if is_remote(source):
        return without_secrets(source)
    return os.path.abspath(Path(source).expanduser())  # noqa: PTH100 (keeps links)


def is_remote(url: str) -> bool:
    """Tell a URL such as ``s3://bucket/key`` from a local path."""
    return "://" in url


def without_query(url: str) -> str:
    """Return the part of a path or URL that names a file, without the query of a download link."""
    return re.split(r"[?#]", url, maxsplit=1)[0] if url.startswith(_WEB) else url


def open_binary(url: str) -> BinaryIO:
    """Open a file for reading, seekable: fetched first from a server that sends files whole."""
    if not is_remote(url):
        return Path(url).open("rb")
    filesystem, path = _remote(url)
    if not sends_parts(url):
        fetched = tempfile.SpooledTemporaryFile(_IN_MEMORY)  # noqa: SIM115 (the caller closes it)
        with filesystem.open(path, "rb", block_size=0) as whole:
            shutil.copyfileobj(whole, fetched)
        fetched.seek(0)
        return cast(BinaryIO, fetched)
    return cast(BinaryIO, filesystem.open(path, "rb"))


def read_bytes(url: str, start: int = 0, stop: int | None = None) -> bytes:
    """Read the bytes ``start:stop`` of a file, fewer where it ends before."""
    if is_remote(url):
        filesystem, path = _remote(url)
        content = bytes(filesystem.cat_file(path, start=start or None, end=stop))
        sent_whole = stop is not None and len(content) > stop - start
        return content[start:stop] if sent_whole else content
    with Path(url).open("rb") as file:
        file.seek(start)
        return file.read(-1 if stop is None else stop - start)


@lru_cache(1024)
def sends_parts(url: str) -> bool:
    """Say whether parts of a file can be asked for: only simple web servers send files whole."""
    if not url.startswith(_WEB):
        return True
    filesystem, path = _remote(url)

    async def asked() -> bool:
        session = await filesystem.set_session()
        async with session.get(path, headers={"Range": "bytes=0-0"}) as answer:
            filesystem._raise_not_found_for_status(answer, path)
            return bool(answer.status == 206)

    return bool(sync(filesystem.loop, asked))


def read_folder(url: str) -> bytes:
    """Read a folder as one container, the same bytes for the same content."""
    paths = sorted(entry.path for entry in _files_under(url))
    return pack((path, read_bytes(f"{url}/{path}")) for path in paths)


def pack(files: Iterable[tuple[str, bytes]]) -> bytes:
    """Put named files into an uncompressed zip without times, so that equal content is equal."""
    container = io.BytesIO()
    with zipfile.ZipFile(container, "w", zipfile.ZIP_STORED) as archive:
        for name, data in files:
            info = zipfile.ZipInfo(name)
            info.create_system = 3  # the writing system must not show in the bytes
            archive.writestr(info, data)
    return container.getvalue()


def expand(source: str) -> Listing:
    """List a file, a folder (recursively) or a glob; a folder such as ``x.zarr`` is one entry.

    Raises
    ------
    InvalidRequest
        If nothing is there or the listing is refused.
    """
    url = absolute(source)
    try:
        found = _expand(url)
    except Exception as error:
        if not is_remote(url) and not isinstance(error, PermissionError):
            raise
        # Remote stores fail in the words of many libraries; the user needs the source's name.
        raise InvalidRequest(
            f"source {source!r} cannot be listed ({type(error).__name__}: {error}); "
            "check the address and the credentials"
        ) from error
    if found is None:
        what = "matches nothing" if has_magic(without_query(source)) else "does not exist"
        raise InvalidRequest(f"source {source!r} {what} (looked at {url}){_way_out(url)}")
    return found


def _way_out(url: str) -> str:
    """Say so if it is the bucket that is missing."""
    if not url.startswith(("s3://", "s3a://")):
        return ""
    filesystem, path = _remote(url)
    bucket = path.partition("/")[0]
    if filesystem.exists(bucket):
        return ""
    return f": there is no bucket {bucket!r}: make it, or check the address and AWS_ENDPOINT_URL"


def fold(entries: Iterable[Entry]) -> list[Entry]:
    """Make every folder such as ``x.zarr`` one entry; drop hidden files and those of a store.

    A store may lie in the folder that is ingested, as it does by default in the present one: its
    parts would be samples of the next run.
    """
    single: list[Entry] = []
    folders: dict[str, list[Entry]] = defaultdict(list)
    for entry in entries:
        prefix = _folder_format(entry.path)
        if prefix is not None and not _hidden(prefix):
            folders[prefix].append(entry)
        elif not _hidden(entry.path):
            single.append(entry)
    return single + [_folded(path, inner) for path, inner in folders.items()]


def _expand(url: str) -> Listing | None:
    literal = _expand_one(url)
    if literal is not None or not has_magic(without_query(url)):
        return literal
    base = _glob_base(url)
    entries: dict[str, Entry] = {}
    for match in _glob(url):
        found = _expand_one(match)
        if found is not None:
            prefix = found.folder.removeprefix(base).strip("/")
            entries.update({entry.path: entry for entry in _under(prefix, found.entries)})
    return Listing(base, list(entries.values())) if entries else None


def _expand_one(url: str) -> Listing | None:
    url = url.rstrip("/") or "/"
    place = without_query(url)
    parent, _, name = place.rpartition("/")
    file = _file(url, name)
    if file is not None:
        return Listing(parent, [file], named=True, query=url.removeprefix(place))
    if not _is_folder(url):
        return None
    if name.endswith(FOLDER_FORMATS):
        return Listing(parent, fold(_under(name, _files_under(url))), named=True)
    return Listing(url, fold(_files_under(url)))


def _under(prefix: str, entries: Iterable[Entry]) -> list[Entry]:
    if not prefix:
        return list(entries)
    return [replace(entry, path=f"{prefix}/{entry.path}") for entry in entries]


def _file(url: str, name: str) -> Entry | None:
    if is_remote(url):
        filesystem, path = _remote(url)
        if not filesystem.isfile(path):
            return None
        return _remote_entry(name, filesystem.info(path))
    return _local_entry(name, Path(url))


def _is_folder(url: str) -> bool:
    if is_remote(url):
        filesystem, path = _remote(url)
        return bool(filesystem.isdir(path))
    return Path(url).is_dir()


def _files_under(url: str) -> Iterator[Entry]:
    if is_remote(url):
        filesystem, path = _remote(url)
        prefix = filesystem._strip_protocol(path).rstrip("/") + "/"
        for key, info in filesystem.find(path, detail=True).items():
            if not key.endswith("/"):  # S3 consoles leave empty objects for folders
                yield _remote_entry(key.removeprefix(prefix), info)
        return
    for folder, folders, names in os.walk(url):
        folders.sort()
        for name in sorted(names):
            file = Path(folder) / name
            place = file.relative_to(url).as_posix()
            if (found := _local_entry(place, file)) is not None:
                yield found
            elif _is_dangling(file):  # refused when it is read
                yield Entry(place, 0)


def _is_dangling(path: Path) -> bool:
    try:
        path.stat()
    except FileNotFoundError:
        return path.is_symlink()
    except OSError:  # links in a circle
        return False
    return False


def _glob(pattern: str) -> list[str]:
    if is_remote(pattern):
        filesystem, path = _remote(pattern)
        return [filesystem.unstrip_protocol(match) for match in sorted(filesystem.glob(path))]
    matches = iglob(pattern, recursive=True)  # noqa: PTH207 (the pattern is absolute)
    return sorted(Path(match).as_posix() for match in matches)


def _glob_base(pattern: str) -> str:
    """Return the folder before the first wildcard."""
    fixed: list[str] = []
    for part in pattern.split("/"):
        if escape(part) != part:
            break
        fixed.append(part)
    return "/".join(fixed)


def _local_entry(name: str, path: Path) -> Entry | None:
    """Return a plain file, None if it is none or goes meanwhile, as names of copies do."""
    with contextlib.suppress(FileNotFoundError):
        if path.is_file():  # no socket
            status = path.stat()
            return Entry(name, status.st_size, status.st_mtime)
    return None


def _remote_entry(name: str, info: dict[str, Any]) -> Entry:
    modified = info.get("LastModified", info.get("created"))
    etag = info.get("ETag", info.get("Last-Modified"))  # simple web servers send no tags
    return Entry(
        name,
        int(info["size"]),
        modified.timestamp() if modified is not None else None,
        str(etag).strip('"') if etag is not None else None,
    )


def _remote(url: str) -> tuple[Any, str]:
    options: dict[str, Any] = {}
    if url.startswith(("s3://", "s3a://")):
        options["use_listings_cache"] = False  # a schedule looks again for what is new
    elif url.startswith(("http://", "https://")):
        options["client_kwargs"] = {"trust_env": True}  # ~/.netrc and proxies
    filesystem, path = fsspec.url_to_fs(url, **options)
    return filesystem, path


def _hidden(path: str) -> bool:
    return path.startswith(".") or "/." in path or _OF_A_STORE.search(path) is not None


def _folder_format(path: str) -> str | None:
    if not any(f"{suffix}/" in path for suffix in FOLDER_FORMATS):
        return None
    parts = PurePosixPath(path).parts
    for depth, part in enumerate(parts[:-1], start=1):
        if part.endswith(FOLDER_FORMATS):
            return "/".join(parts[:depth])
    return None


def _folded(path: str, inner: list[Entry]) -> Entry:
    """Summarise a folder: the tag changes when any file in it is added, removed or changed."""
    inner = sorted(inner, key=lambda entry: entry.path)
    lines = [f"{e.path}\0{e.size}\0{e.mtime}\0{e.etag}" for e in inner]
    times = [entry.mtime for entry in inner if entry.mtime is not None]
    return Entry(
        path,
        sum(entry.size for entry in inner),
        max(times, default=None),
        hashlib.sha256("\n".join(lines).encode()).hexdigest()[:32],
        folder=True,
    )
