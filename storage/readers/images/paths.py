"""What the path of an image says of it: its class and its split."""

from __future__ import annotations

import re
from functools import lru_cache

from storage.sources import SourceFile, rows
from storage.sources.archives import kind
from storage.sources.filesystem import without_query

SPLITS = {
    "train": "train", "training": "train",
    "val": "validation", "valid": "validation", "validation": "validation", "dev": "validation",
    "test": "test", "testing": "test",
}  # fmt: skip
NO_CLASS = {"images", "image", "imgs", "img", "jpegimages", "img_align_celeba", "data", "."}
_WNID = re.compile(r"(n\d{8})_")
_NUMBERED = re.compile(r"(?:ILSVRC2012_)?(train|val|test)_\d+\.\w+$", re.IGNORECASE)
_LSUN = re.compile(r"([^/]+)_(train|val|test)_lmdb/data\.mdb$")
_WORDS = re.compile(r"[a-z]+")


def class_and_split(file: SourceFile) -> tuple[str | None, str | None]:
    """Return the class and the split that a path names, None for what it does not.

    The class is the last folder, or archive within an archive, below the one that names a split,
    ``images`` and the like left out; ``n01440764_10026.JPEG`` is of the class ``n01440764``. The
    split is named by a folder (``val``), an archive (``ILSVRC2012_img_train.tar``), the folder that
    was ingested, or the file (``val_17.JPEG``).
    """
    if lsun := _LSUN.search(file.url):
        return lsun[1], SPLITS[lsun[2]]
    outer, inner = _folders(file)
    name = file.name.rpartition("/")[2]
    split, below = _split(file, outer, inner)
    if wnid := _WNID.match(name):
        return wnid[1], split
    classes = [folder for folder in below if folder.lower() not in NO_CLASS]
    return (classes[-1] if classes else None), split


def _folders(file: SourceFile) -> tuple[list[str], list[str]]:
    """Return the folders above the file: outside of its archive, and within it."""
    if file.member is None:
        return file.name.split("/")[:-1], []
    outer = [part for part in file.name.removesuffix(file.member).split("/") if part]
    return outer or [without_query(file.url).rpartition("/")[2]], file.member.split("/")[:-1]


def _split(file: SourceFile, outer: list[str], inner: list[str]) -> tuple[str | None, list[str]]:
    """Return the split, and the folders below the one that names it."""
    below = [name for name in outer if not _holds_others(name)]
    below += [name.removesuffix(".tar") for name in inner]
    for depth, name in enumerate(below):
        if name.lower() in SPLITS:
            return SPLITS[name.lower()], below[depth + 1 :]
    for name in outer:
        words = _WORDS.findall(name.lower()) if _holds_others(name) else []
        if found := [SPLITS[word] for word in words if word in SPLITS]:
            return found[0], below
    root = without_query(file.url).removesuffix(file.name).rstrip("/").rpartition("/")[2].lower()
    if file.member is None and root in SPLITS:
        return SPLITS[root], below
    numbered = _NUMBERED.match(file.name.rpartition("/")[2])
    return (SPLITS[numbered[1].lower()] if numbered else None), below


@lru_cache(4096)
def _holds_others(name: str) -> bool:
    return kind(name) is not None or rows.kind(name) is not None
