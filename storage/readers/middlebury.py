"""Middlebury optical flow ``.flo``: velocity as interleaved float32 pairs, row by row.

Layout (little-endian): float32 202021.25, int32 width, int32 height, then u, v of each
point; a magnitude above 1e9 means unknown (Baker et al., IJCV 92, 2011, the benchmark's
format description).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from storage.errors import BadInput
from storage.readers.frames import ReadOptions
from storage.readers.variables import COMPONENT, Selector, Variable
from storage.typing import Array

MAGIC = struct.pack("<f", 202021.25)
UNKNOWN = 1e9
HEADER_BYTES = 12


@contextmanager
def open_flo(data: bytes, size: int, options: ReadOptions) -> Iterator[list[Variable]]:
    """Give the velocity of a file of ``size`` bytes; ``data`` may be its beginning."""
    if data[:4] != MAGIC[: len(data)]:
        raise BadInput("magic", "does not begin with float32 202021.25 as .flo files do")
    if size < HEADER_BYTES:
        raise BadInput("truncated", f"only {size} bytes of a header")
    width, height = struct.unpack("<ii", data[4:HEADER_BYTES])
    _check_length(width, height, size - HEADER_BYTES)
    shape = (height, width, 2)

    def load(selector: Selector) -> Array:
        values = np.frombuffer(data, "<f4", offset=HEADER_BYTES).reshape(shape)[selector]
        return np.where(np.abs(values) > UNKNOWN, np.float32(np.nan), values)

    yield [Variable("", shape, np.dtype("<f4"), load, ("y", "x", COMPONENT))]


def _check_length(width: int, height: int, present: int) -> None:
    if width < 1 or height < 1:
        raise BadInput("shape", f"declares {width} x {height} points")
    declared = 8 * width * height
    if present < declared:
        raise BadInput(
            "truncated", f"{present} of the {declared} bytes of {width} x {height} points"
        )
    if present > declared:
        raise BadInput(
            "trailing", f"{present - declared} bytes follow the {width} x {height} points"
        )
