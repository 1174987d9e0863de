"""A folder on a POSIX file system."""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from storage.backends.base import SINGLE_WRITER, TEMPORARY, ObjectInfo, below, probe
from storage.errors import NoRoom, room_for

_TRIES = 20
_LARGE = 2**20


class LocalBackend:
    """Objects as files; ``os.link`` publishes because it fails when the name is taken."""

    shared = True

    def __init__(self, root: str, *, single_writer: bool = False) -> None:
        self.root = Path(root).expanduser().absolute()
        self.url = f"{self.root}{SINGLE_WRITER if single_writer else ''}"
        self.single_writer = single_writer

    def _file(self, path: str) -> Path:
        return self.root / below(path)

    def read(self, path: str, start: int = 0, stop: int | None = None) -> bytes:
        """Return bytes ``start:stop`` of a file."""
        try:
            with self._file(path).open("rb") as file:
                if start < 0:  # a shorter file is read whole
                    start = max(0, start + os.fstat(file.fileno()).st_size)
                file.seek(start)
                return file.read() if stop is None else file.read(stop - start)
        except NotADirectoryError as error:  # a file lies where a folder would
            raise FileNotFoundError(*error.args, error.filename) from None

    def write(self, path: str, data: bytes | memoryview) -> None:
        """Write to a temporary file, then rename it into place."""
        with self._temporary(path, data) as temporary:
            temporary.replace(self._file(path))

    def create(self, path: str, data: bytes) -> bool:
        """Write to a temporary file, then link it under its name unless that is taken."""
        if self.single_writer and self.exists(path):
            return False
        with self._temporary(path, data) as temporary:
            try:
                if self.single_writer:
                    temporary.replace(self._file(path))
                else:
                    os.link(temporary, self._file(path))
            except FileExistsError:
                return False
        return True

    @contextlib.contextmanager
    def _temporary(self, path: str, data: bytes | memoryview) -> Iterator[Path]:
        """Yield a durable temporary file beside ``path``; afterwards make the folder durable."""
        target = self._file(path)
        temporary = target.parent / f"{TEMPORARY}{uuid.uuid4().hex}"
        try:
            with room_for(target, "pass another --store"):
                with _opened(temporary) as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                    if len(data) >= _LARGE:
                        _leave_cache(file)
                yield temporary
        finally:
            if temporary.exists():  # else a read-only file system would have its say again
                temporary.unlink(missing_ok=True)
        sync_folder(target.parent)

    def exists(self, path: str) -> bool:
        """Say whether a file is there."""
        return self._file(path).is_file()

    def names(self, folder: str) -> list[str]:
        """Return the names in a folder."""
        try:
            names = (entry.name for entry in self._file(folder).iterdir())
            return sorted(name for name in names if not name.startswith(TEMPORARY))
        except (FileNotFoundError, NotADirectoryError):
            return []

    def walk(self, folder: str) -> Iterator[ObjectInfo]:
        """Yield every file below a folder; what vanishes meanwhile is passed over."""
        for parent, _, files in os.walk(self._file(folder)):
            for name in files:
                file = Path(parent, name)
                with contextlib.suppress(FileNotFoundError):
                    stat = file.stat()
                    path = file.relative_to(self.root).as_posix()
                    yield ObjectInfo(path, stat.st_size, stat.st_mtime)

    def delete(self, paths: Iterable[str]) -> None:
        """Remove files, then the folders that this empties.

        Those at the top stay: on a full disk there may be no room to make the one for leases again.
        """
        for path in paths:
            self._file(path).unlink(missing_ok=True)
            for folder in self._file(path).parents:
                if self.root in (folder, folder.parent):
                    break
                try:
                    folder.rmdir()
                except OSError:
                    break

    def enforces_exclusive_creation(self) -> bool:
        """Try to link the same name twice (some network and FAT file systems cannot)."""
        try:
            return probe(self, f"leases/{TEMPORARY}probe-{uuid.uuid4().hex}")
        except NoRoom:
            raise
        except PermissionError as error:
            leases = self.root / "leases"  # perhaps another user's, in a group's folder
            if os.access(leases if leases.exists() else self.root, os.W_OK):
                return False  # the file system has no hard links
            raise PermissionError(f"{self.url} is not writable: {error}") from error
        except OSError:
            return False


def make_folder(folder: Path) -> None:
    """Create a folder and its parents, and make their names durable."""
    missing = [f for f in (folder, *folder.parents) if not f.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for created in missing:
        sync_folder(created.parent)


def sync_folder(folder: Path) -> None:
    """Make names in a folder survive a power cut."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except FileNotFoundError:  # emptied and removed by a collector: nothing to make durable
        return
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _leave_cache(file: BinaryIO) -> None:
    """Let the system forget a file that is on the disk.

    Data sets are larger than memory, so that little would be read again before it is evicted.
    Until then it would take up fresh pages, which a virtual machine fills four times slower than
    pages used before.
    """
    if hasattr(os, "posix_fadvise"):
        with contextlib.suppress(OSError):  # advice that a file system may not take
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _opened(file: Path) -> BinaryIO:
    """Open a new file; make its folder again if a collector, finding it empty, removes it."""
    for _ in range(_TRIES):
        make_folder(file.parent)
        with contextlib.suppress(FileNotFoundError):
            return file.open("wb")
    return file.open("wb")
