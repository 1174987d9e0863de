"""What tests of several readers share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import pytest

from storage.sources import archives, files


@pytest.fixture
def note_openings(monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[str]]:
    """Return a function that begins to note which files sources open, in order."""

    def begin() -> list[str]:
        noted: list[str] = []

        def opening(url: str) -> BinaryIO:
            noted.append(url)
            return Path(url).open("rb")

        monkeypatch.setattr(archives, "open_binary", opening)
        monkeypatch.setattr(files, "open_binary", opening)
        return noted

    return begin
