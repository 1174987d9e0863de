"""What to use where libraries cannot write to their folders."""

from __future__ import annotations

import atexit
import contextlib
import os
import shutil
import sqlite3
import stat
import sys
import tempfile
from pathlib import Path

_HOME = "PREFECT_HOME"
_ROOM = 2**24  # bytes: a new database takes 9 MiB


def prefect_home() -> Path:
    """Return where Prefect keeps its notes."""
    return Path(os.environ.get(_HOME, "~/.prefect")).expanduser().absolute()


def choose_prefect_home() -> None:
    """Have Prefect keep its notes in a temporary folder if its home is unusable, and say so.

    Call it before Prefect is imported, which reads its settings once.
    """
    home = prefect_home()
    if problem := _problem(home):
        folder = _temporary()
        os.environ[_HOME] = str(folder)
        print(
            f"warning: Prefect's home {home} {problem}: this run is noted in {folder}; "
            f"mend it, or set {_HOME} to another folder",
            file=sys.stderr,
        )


def _temporary() -> Path:
    """Return a folder that only this user can use, the same for every command.

    A new database takes Prefect 13 s of a core. Where anybody may write, a folder of that name may
    be somebody else's: then this command gets one of its own.
    """
    folder = Path(tempfile.gettempdir()) / f"wavemill-prefect-{os.getuid()}"
    with contextlib.suppress(OSError):
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
        private = stat.S_ISDIR(found.st_mode) and not stat.S_IMODE(found.st_mode) & 0o077
        if private and found.st_uid == os.getuid() and not _problem(folder):
            return folder
    folder = Path(tempfile.mkdtemp(prefix="wavemill-prefect-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _problem(home: Path) -> str:
    """Say why a home is of no use, if it is."""
    database = home / "prefect.db"
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=home) as trial:
            if not database.exists():
                trial.write(bytes(_ROOM))
    except OSError as error:
        return f"cannot be written ({error.strerror})"
    if not database.exists():
        return ""
    try:
        opened = sqlite3.connect(f"{database.as_uri()}?mode=rw", uri=True, timeout=1)
        with contextlib.closing(opened):
            opened.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except sqlite3.DatabaseError as error:
        busy = "locked" in str(error)
        return "" if busy else f"has a prefect.db that cannot be opened ({error})"
    return ""
