"""Labelled images of published archives, and their scattering, chunk by chunk in a folder."""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from wavemill import Scattering2D, as_float
from wavemill.dictionaries.classifiers import Standardisation
from wavemill.images import Augmentation, opponent
from wavemill.specs import ClassifierSpec

CHUNK, SEEN, TOGETHER, SHIFT = 2000, 10_000, 50, 3
MEAN, SPREAD = 0.47, 0.25  # of pixels


class OutOfTime(Exception):
    """The piece is done; the rest is for the next run."""


@dataclass
class Clock:
    """How much time is left in this run."""

    stop: float

    def check(self, needed: float = 0.0) -> None:
        """Raise `OutOfTime` unless so much time is left."""
        if time.monotonic() + needed > self.stop:
            raise OutOfTime("run it again to go on")


@dataclass(frozen=True)
class Setting:
    """A data set: where it lies, what is held out, and which classifiers learn it.

    Attributes
    ----------
    name
        Of the table, and of the folder where everything is kept.
    archives, suffix
        Tars, and how the names of their images end.
    label
        Returns the class of an image by its name.
    held
        Images held out: the last in order.
    square
        Pixels a side of the squares that are averaged before anything else.
    sides
        Versions of an image: itself, its mirror image, then shifted copies of either in turn.
    last
        Says whether a name comes after all others; otherwise the order is that of a hash.
    transform
        What `Scattering2D` is made of.
    cases
        The specs of classifiers by what they are called.
    """

    name: str
    archives: tuple[Path, ...]
    suffix: str
    label: Callable[[str], str]
    classes: int
    held: int
    transform: dict[str, Any]
    cases: dict[str, dict[str, Any]]
    last: Callable[[str], bool] = field(default=lambda name: False)
    square: int = 1
    sides: int = 2

    @property
    def folder(self) -> Path:
        """Where pieces are kept."""
        return Path(os.environ.get("WAVEMILL_BENCH_FOLDER", f"bench-{self.name}"))


class Images:
    """The images and classes in the order of a hash, and their features in files."""

    def __init__(self, setting: Setting) -> None:
        self.setting, self.folder = setting, setting.folder
        self.folder.mkdir(parents=True, exist_ok=True)

    @cached_property
    def names(self) -> list[str]:
        """Names of members of the archives."""
        if not (self.folder / "ids.json").exists():
            self._decode()
        found: list[str] = json.loads((self.folder / "ids.json").read_text())
        return found

    def _decode(self) -> None:
        found: dict[str, np.ndarray[Any, Any]] = {}
        for place in self.setting.archives:
            with tarfile.open(place) as archive:
                for member in archive:
                    file = archive.extractfile(member)
                    if member.name.endswith(self.setting.suffix) and file is not None:
                        picture = Image.open(io.BytesIO(file.read())).convert("RGB")
                        found[member.name] = np.asarray(picture)
        names = sorted(found)
        np.save(self.folder / "images.npy", np.stack([found[name] for name in names]))
        (self.folder / "ids.json").write_text(json.dumps(names))

    @cached_property
    def order(self) -> np.ndarray[Any, Any]:
        """Places of the images in the order of the hash, with those that come last at the end."""
        marks = [hashlib.sha256(f"0:{name}".encode()).hexdigest() for name in self.names]
        return np.lexsort((marks, [self.setting.last(name) for name in self.names]))

    @cached_property
    def labels(self) -> Tensor:
        """Classes, in that order."""
        kinds = [self.setting.label(name) for name in self.names]
        known = sorted(set(kinds))
        return torch.tensor([known.index(kinds[place]) for place in self.order])

    @cached_property
    def pixels(self) -> Tensor:
        """Images ``(n, 3, y, x)``, in that order, standardised with all others."""
        assert self.names
        x = as_float(torch.from_numpy(np.load(self.folder / "images.npy")[self.order]))
        x = nn.functional.avg_pool2d(x, self.setting.square)
        return (x - MEAN) / SPREAD

    def features(self, side: int, clock: Clock) -> list[np.ndarray[Any, Any]]:
        """Return the chunks of features of one side of the images; compute those missing."""
        transform, found = Scattering2D(**self.setting.transform), []
        scales = self.setting.transform["J"]
        for chunk in range(len(self.names) // CHUNK):
            path = self.folder / f"opponent_J{scales}_{side}_{chunk:02d}.npy"
            if not path.exists():
                clock.check(30)
                some = self.order[chunk * CHUNK : (chunk + 1) * CHUNK]
                images = as_float(torch.from_numpy(np.load(self.folder / "images.npy")[some]))
                images = nn.functional.avg_pool2d(images, self.setting.square)
                images = opponent(self.turned(images, side, chunk))
                replace(path, partial(np.save, arr=self._transformed(transform, images)))
            found.append(np.load(path, mmap_mode="r"))
        return found

    @staticmethod
    def turned(images: Tensor, side: int, chunk: int) -> Tensor:
        """Return images ``(n, 3, y, x)`` mirrored on odd sides, shifted at random from 2 on."""
        images = images.flip(-1) if side % 2 else images
        if side < 2:
            return images
        generator = torch.Generator().manual_seed(CHUNK * side + chunk)
        shifted = Augmentation(flip=False, shift=SHIFT)(images.movedim(1, -1), generator)
        return shifted.movedim(-1, 1)

    @staticmethod
    @torch.inference_mode()
    def _transformed(transform: Scattering2D, images: Tensor) -> np.ndarray[Any, Any]:
        parts = [transform(part).flatten(1, 2).half() for part in torch.split(images, TOGETHER)]
        return torch.cat(parts).numpy()

    def standardised(self, spec: ClassifierSpec, clock: Clock) -> list[Tensor]:
        """Return float16 features ``(n, component, y, x)`` of each side, made once and kept.

        The standardisation is learnt from the first images.
        """
        stem = f"standard_{spec.components}_{spec.power}"
        paths = [self.folder / f"{stem}_{side}.npy" for side in range(self.setting.sides)]
        if not all(path.exists() for path in paths):
            model = Standardisation(spec.components, spec.power)
            for part in self.features(0, clock)[: SEEN // CHUNK]:
                model.update(torch.from_numpy(np.array(part)))
            model.solve()
            for side, path in enumerate(paths):
                if not path.exists():
                    chunks = self.features(side, clock)
                    clock.check(60)
                    found = [model(torch.from_numpy(np.array(chunk))).half() for chunk in chunks]
                    replace(path, partial(np.save, arr=torch.cat(found).numpy()))
        return [torch.from_numpy(np.load(path, mmap_mode="c")) for path in paths]


def replace(path: Path, write: Any) -> None:
    """Write a file whole or not at all."""
    fresh = path.with_name(f"partial-{path.name}")
    write(fresh)
    fresh.replace(path)
