"""What the path of an image says of it: its class and its split."""

from __future__ import annotations

import re
from pathlib import PurePosixPath

from storage.sources import SourceFile
from storage.sources.archives import kind

SPLITS = {
    "train": "train", "training": "train",
    "val": "validation", "valid": "validation", "validation": "validation", "dev": "validation",
    "test": "test", "testing": "test",
}  # fmt: skip
NO_CLASS = {"images", "image", "imgs", "img", "jpegimages", "img_align_celeba", "."}
_WNID = re.compile(r"(n\d{8})_")
_NUMBERED = re.compile(r"(?:ILSVRC2012_)?(train|val|test)_\d+", re.IGNORECASE)
_WORDS = re.compile(r"[a-z]+")


def class_and_split(file: SourceFile) -> tuple[str | None, str | None]:
    """Return the class and the split that a path names, None for what it does not.

    The class is the last folder, or archive within an archive, below the one that names a split,
    ``images`` and the like left out; ``n01440764_10026.JPEG`` is of the class ``n01440764``. The
    split is named by a folder (``val``), an archive (``ILSVRC2012_img_train.tar``), the folder that
    was ingested, or the file (``val_17.JPEG``).
    """
    outer, inner = _folders(file)
    split, below = _split(file, outer, inner)
    wnid = _WNID.match(PurePosixPath(file.name).name)
    if wnid:
        return wnid[1], split
    classes = [name for name in below if name.lower() not in NO_CLASS]
    return (classes[-1] if classes else None), split


def _folders(file: SourceFile) -> tuple[list[str], list[str]]:
    """Return the folders above the file: outside of its archive, and within it."""
    if file.member is None:
        return list(PurePosixPath(file.name).parts[:-1]), []
    inner = list(PurePosixPath(file.member).parts[:-1])
    outer = PurePosixPath(file.name.removesuffix(file.member)).parts
    return list(outer) or [PurePosixPath(file.url).name], inner


def _split(file: SourceFile, outer: list[str], inner: list[str]) -> tuple[str | None, list[str]]:
    """Return the split, and the folders below the one that names it."""
    containers = [name for name in outer if _is_container(name)]
    plain = [name for name in outer if not _is_container(name)]
    below = [*plain, *(_without_suffix(name) for name in inner)]
    for depth, name in enumerate(below):
        if name.lower() in SPLITS:
            return SPLITS[name.lower()], below[depth + 1 :]
    for name in containers:
        for word in _WORDS.findall(name.lower()):
            if word in SPLITS:
                return SPLITS[word], below
    root = PurePosixPath(file.url.removesuffix(file.name).rstrip("/")).name.lower()
    if file.member is None and root in SPLITS:
        return SPLITS[root], below
    numbered = _NUMBERED.fullmatch(PurePosixPath(file.name).stem)
    return (SPLITS[numbered[1].lower()] if numbered else None), below


def _is_container(name: str) -> bool:
    return kind(name) is not None


def _without_suffix(name: str) -> str:
    return PurePosixPath(name).stem if kind(name) else name
