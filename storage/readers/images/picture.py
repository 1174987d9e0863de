"""What a reader of images gives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt


@dataclass
class Picture:
    """One image as it is to be stored.

    Attributes
    ----------
    index
        Which image of its file; empty if it is the only one.
    array
        ``(y, x, rgb)`` uint8.
    columns
        What is known of it: size and mode as found, label, split.
    encoded
        The bytes it was decoded from.
    """

    index: str
    array: npt.NDArray[np.uint8]
    columns: Mapping[str, Any] = field(default_factory=dict)
    encoded: bytes = b""
