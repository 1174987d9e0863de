"""From a unit and its bytes to images, whatever the format."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Any

from storage.errors import BadInput
from storage.readers.found import Found
from storage.readers.images import cifar
from storage.readers.images.decoding import decode, read_size
from storage.readers.images.framing import Framing, Size
from storage.readers.images.paths import class_and_split
from storage.readers.images.picture import Picture
from storage.records import OWN_COLUMNS
from storage.sources import SourceFile, Unit, read_units
from storage.text import writable

_WHOLE = re.compile(r"[0-9]{1,18}")  # fits 64 bits


def read_images(unit: Unit, payload: Sequence[bytes], framing: Framing) -> Found[Picture]:
    """Read the images of a unit.

    Parameters
    ----------
    unit
        An image, alone or with files that describe it; or a batch of CIFAR.
    payload
        The content of each of its files.
    framing
        The size that images are brought to.

    Raises
    ------
    BadInput
        If nothing good is in it; whatever the bytes, no other error is raised.
    """
    file = unit.files[0]
    try:
        if cifar.is_batch(file.name):
            return cifar.read_batch(file.name, payload[0], framing)
        image, found = decode(payload[0])
        label, split = class_and_split(file)
        columns = {"label": label, "split": split, **found}
        for mate, data in zip(unit.files[1:], payload[1:], strict=True):
            columns |= _said_beside(mate, data)
        return Found([Picture("", framing(image), columns, payload[0])])
    except BadInput as error:
        raise BadInput(error.reason, f"{file.name}: {error.message}") from error


def _said_beside(file: SourceFile, data: bytes) -> dict[str, Any]:
    """Return the columns of a ``.cls``, ``.json`` or ``.txt`` beside an image."""
    text = data.decode("utf-8", "replace").strip()
    match PurePosixPath(file.name).suffix.lower():
        case ".cls":
            return with_class({"label": text})
        case ".json":
            return _scalars(file, text)
        case _:
            return {"text": text}


def _scalars(file: SourceFile, text: str) -> dict[str, Any]:
    """Return the numbers, texts and truth values of a JSON object."""
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadInput("sidecar", f"{file.name} is not JSON: {error}") from error
    if not isinstance(values, dict):
        raise BadInput("sidecar", f"{file.name} is not a JSON object")
    kept = {
        key: value
        for key, value in values.items()
        if (isinstance(value, str | int | float | bool) and key not in OWN_COLUMNS)
        or (key == "label" and value is None)  # no label, whatever the folder is called
    }
    for key, value in kept.items():
        if writable(f"{key}{value}") != f"{key}{value}":
            raise BadInput("sidecar", f"{file.name}: {key} is not in UTF-8")
        if isinstance(value, int) and abs(value) >= 2**63:
            raise BadInput("sidecar", f"{file.name}: {key} has more than 64 bits")
    return with_class(kept)


def with_class(columns: dict[str, Any]) -> dict[str, Any]:
    """Return columns in which a numeric label also gives the class's index."""
    label = columns.get("label", columns.pop("cls", None))
    if label is None:
        return columns
    number = int(label) if _WHOLE.fullmatch(str(label)) else None
    return {**columns, "label": str(label), **({} if number is None else {"class_index": number})}


def count_images(unit: Unit) -> int:
    """Return how many images a unit holds, by its size."""
    file = unit.files[0]
    return file.size // cifar.record_bytes(file.name) if cifar.is_batch(file.name) else 1


def read_sizes(units: Sequence[Unit]) -> list[Size | BadInput]:
    """Return ``(y, x)`` of the images of some units, from their headers."""
    sizes: list[Size | BadInput] = []
    for unit, payload in read_units(units):
        try:
            if isinstance(payload, BadInput):
                raise payload
            batch = cifar.is_batch(unit.files[0].name)
            sizes.append((cifar.SIDE, cifar.SIDE) if batch else read_size(payload[0]))
        except BadInput as error:
            sizes.append(error)
    return sizes
