"""Folders of a local store that a collector removes while others write into them."""

from __future__ import annotations

from pathlib import Path

import pytest

from storage.backends import local, open_backend


def test_a_folder_that_vanishes_before_a_file_is_opened_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when a collector removes the last lease between making the folder and opening the file."""
    backend, made = open_backend(str(tmp_path)), []

    def and_removed(folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        made.append(folder)
        if len(made) == 1:
            folder.rmdir()

    monkeypatch.setattr(local, "make_folder", and_removed)
    backend.write("leases/one", b"held")
    assert backend.read("leases/one") == b"held"
    assert len(made) == 2
