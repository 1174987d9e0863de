"""Files that people asked for: synthesised fields as arrays or as a picture."""

from __future__ import annotations

from pathlib import Path

import zarr

from storage import InvalidRequest
from storage.export import replacing
from storage.typing import Array
from tasks import figures
from tasks.artifacts import npy
from tasks.figures import first_component

FORMATS = (".npy", ".zarr", ".png")
PANELS = 16


def write_fields(fields: Array, target: Path) -> None:
    """Write fields ``(n[, component], y, x)``; a picture shows the first component of at most 16.

    Raises
    ------
    InvalidRequest
        If the ending is not one of ``.npy .zarr .png``.
    """
    if target.suffix not in FORMATS:
        raise InvalidRequest(f"--to {target}: choose one of {' '.join(FORMATS)}")
    with replacing(target) as partial:
        match target.suffix:
            case ".npy":
                partial.write_bytes(npy(fields))  # np.save does not say that a disk is full
            case ".zarr":
                array = zarr.create_array(partial, shape=fields.shape, dtype=fields.dtype)
                array[:] = fields
            case _:
                shown = first_component(fields)[:PANELS]
                panels = {f"sample {i}": field for i, field in enumerate(shown)}
                partial.write_bytes(figures.fields(panels))
