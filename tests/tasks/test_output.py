"""Files that people ask for, on disks that are full."""

from __future__ import annotations

import resource
from pathlib import Path

import numpy as np
import pytest

from storage import NoRoom
from tasks.output import FORMATS, write_fields


@pytest.mark.parametrize("ending", FORMATS)
def test_a_disk_that_is_full_is_named(tmp_path: Path, ending: str) -> None:
    """Whatever writes the file; and none is left, nor half of one."""
    target, fields = tmp_path / f"drawn{ending}", np.random.default_rng(0).normal(size=(2, 64, 64))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**10, limits[1]))
    try:
        with pytest.raises(NoRoom, match=rf"drawn{ending} cannot be written: .*: make room there"):
            write_fields(fields, target)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(tmp_path.iterdir()) == []
    write_fields(fields, target)
    assert target.exists()
