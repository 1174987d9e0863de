"""Folders that libraries want to write to, where they cannot."""

from __future__ import annotations

import atexit
import contextlib
import os
import shutil
import sqlite3
import sys
import tempfile
from pathlib import Path

_HOME = "PREFECT_HOME"


def prefect_home() -> Path:
    """Return where Prefect keeps its notes."""
    return Path(os.environ.get(_HOME, "~/.prefect")).expanduser().absolute()


def choose_prefect_home() -> None:
    """Have Prefect keep its notes in a temporary folder if its home is unusable, and say so.

    Before Prefect is imported, which reads its settings once.
    """
    home = prefect_home()
    if problem := _problem(home):
        folder = tempfile.mkdtemp(prefix="wavemill-prefect-")
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        os.environ[_HOME] = folder
        print(
            f"warning: Prefect's home {home} {problem}: this run is noted in a temporary folder; "
            f"mend it, or set {_HOME} to another folder",
            file=sys.stderr,
        )


def _problem(home: Path) -> str:
    """Say why a home is of no use, if it is."""
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=home):
            pass
    except OSError as error:
        return f"cannot be written ({error.strerror})"
    database = home / "prefect.db"
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
