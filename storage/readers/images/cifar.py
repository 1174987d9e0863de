"""CIFAR's binary batches: records of label bytes and 3 planes of 32 x 32.

CIFAR-10: one label; CIFAR-100: a coarse and a fine one. Learning Multiple Layers of Features from
Tiny Images, A. Krizhevsky, 2009. The versions for Python are pickles and are never loaded.
"""

from __future__ import annotations

import re
from pathlib import PurePosixPath

import numpy as np
from PIL import Image

from storage.errors import BadInput
from storage.readers.found import Found
from storage.readers.images.framing import Framing
from storage.readers.images.picture import Picture

SIDE = 32
PIXELS = 3 * SIDE**2
CLASSES = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip
NAMES = re.compile(r"(data_batch_\d+|test_batch|train|test)\.bin")


def is_batch(name: str) -> bool:
    """Say whether a file is called like a binary batch."""
    return name.endswith(".bin") and NAMES.fullmatch(name.rpartition("/")[2]) is not None


def record_bytes(name: str) -> int:
    """Return the bytes of a record: two labels in the files of CIFAR-100."""
    two = PurePosixPath(name).name in ("train.bin", "test.bin")
    return PIXELS + (2 if two else 1)


def read_batch(name: str, data: bytes, framing: Framing) -> Found[Picture]:
    """Read a batch; each image is numbered by its record.

    Raises
    ------
    BadInput
        If the file does not consist of whole records, or a label is not a class's.
    """
    size = record_bytes(name)
    if not data or len(data) % size:
        raise BadInput("truncated", f"{len(data)} bytes are not whole records of {size}")
    records = np.frombuffer(data, np.uint8).reshape(-1, size)
    labels, planes = records[:, : size - PIXELS], records[:, size - PIXELS :]
    if size - PIXELS == 1 and labels.max() >= len(CLASSES):
        raise BadInput("label", f"a label is {labels.max()}; CIFAR-10 has {len(CLASSES)} classes")
    split = "test" if PurePosixPath(name).name.startswith("test") else "train"
    images = planes.reshape(-1, 3, SIDE, SIDE).transpose(0, 2, 3, 1)
    found: Found[Picture] = Found()
    for number, (label, image) in enumerate(zip(labels, images, strict=True)):
        array = framing(Image.fromarray(np.ascontiguousarray(image)))
        columns = {"width": SIDE, "height": SIDE, "format": "cifar", "mode": "RGB", "split": split}
        found.append(Picture(f"{number:05d}", array, {**columns, **_label(label)}, image.tobytes()))
    return found


def _label(label: np.ndarray[tuple[int], np.dtype[np.uint8]]) -> dict[str, object]:
    index = int(label[-1])
    if len(label) == 1:
        return {"label": CLASSES[index], "class_index": index}
    return {"label": str(index), "class_index": index, "coarse_index": int(label[0])}
