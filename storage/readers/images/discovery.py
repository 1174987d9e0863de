"""Which files are images, which describe one image, and which describe many."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import PurePosixPath

from storage.readers.images import cifar
from storage.readers.images.annotations import is_table
from storage.sources import Discovery, Refused, SourceFile, Unit, rows
from storage.sources.discover import find_files, stem_of, unique_units
from storage.sources.filesystem import without_query

EXTENSIONS = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp", ".dib", ".tif", ".tiff",
    ".ppm", ".pgm", ".pbm", ".pnm", rows.IMAGE,
)  # fmt: skip
SIDECARS = (".cls", ".json", ".txt")
ENCODED_LIMIT = 2**28  # bytes of one encoded image
_OTHERS = (
    ".parquet",
    "data.mdb",
    ".bin",
    ".csv",
    "_batch",
    *(f"batch_{number}" for number in range(1, 6)),
    "cifar-100-python/train",
    "cifar-100-python/test",
)
_PICKLE = re.compile(r"cifar-100?-(batches-py|python)/[^/.]+")


def discover_images(sources: Sequence[str]) -> Discovery:
    """Find images, alone or with the files of the same name beside them.

    ``0001.jpg`` with ``0001.cls`` or ``0001.json``, in a folder or in a shard of WebDataset, is one
    unit. Tables such as ``val_annotations.txt`` are listed separately.

    Raises
    ------
    storage.errors.InvalidRequest
        If a source does not exist, matches nothing or cannot be listed.
    """
    known = (*EXTENSIONS, *SIDECARS, *_OTHERS)
    files, refused, ignored = find_files(sources, known)
    images, beside, tables = [], {}, []
    for file in files:
        name = file.name.lower()
        if (problem := _problem(file)) is not None:
            refused.append(problem)
        elif is_table(file.name):
            tables.append(file)
        elif name.endswith(EXTENSIONS) or cifar.is_batch(name) or not name.endswith(known):
            images.append(file)
        else:
            beside[_place(file)] = file
    units = []
    for image in images:
        mates = [beside.pop((*_place(image)[:2], suffix), None) for suffix in SIDECARS]
        units.append(Unit(stem_of(image.name, known), (image, *filter(None, mates))))
    for file in beside.values():
        ignored[PurePosixPath(file.name).suffix.lower()] += 1
    return Discovery(unique_units(units), refused, ignored, tables)


def _place(file: SourceFile) -> tuple[str, str, str]:
    """Return the container, the name without its extension, and the extension."""
    stem, dot, suffix = file.name.rpartition(".")
    container = file.url if file.member is not None else ""
    return container, stem or suffix, f"{dot}{suffix}".lower()


def _problem(file: SourceFile) -> Refused | None:
    if _PICKLE.search(file.member or without_query(file.url)):
        message = "is a pickle, which is never loaded: take CIFAR's binary version"
        return Refused(file.name, file.url, "pickle", message)
    if file.size > ENCODED_LIMIT and not cifar.is_batch(file.name):
        message = f"has {file.size} bytes, more than {ENCODED_LIMIT} for one image"
        return Refused(file.name, file.url, "bomb", message)
    return None
