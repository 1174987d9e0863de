"""Classifiers of Tiny ImageNet by scattering, in pieces: run it until its table is complete.

The training archive, 150 images of each of 200 classes, is learnt from; the 2,000 images of the
validation archive judge.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from benchmarks.classification import DATA, DEEP, SPARSE, STANDARD, TRAINED, run
from benchmarks.labelled_images import Setting

FOLDER = DATA / "tiny_imagenet"
CASES: dict[str, dict[str, Any]] = {
    "linear, ridge": {**STANDARD, "model": "ridge"},
    "sparse codes, W free": {
        **SPARSE,
        "free": True,
        "epochs": 4,
        "thin": 0.2,
        "decay": 1e-3,
    },
    "deep, four blocks": {**TRAINED, **DEEP},
}


def label(name: str) -> str:
    """Return the class of an image by its name."""
    if "/train/" in name:
        return name.split("/")[2]
    return _annotated()[name.rsplit("/", 1)[-1]]


@cache
def _annotated() -> dict[str, str]:
    lines = (FOLDER / "val_annotations.txt").read_text().splitlines()
    return {line.split()[0]: line.split()[1] for line in lines}


SETTING = Setting(
    name="tiny_imagenet",
    archives=(FOLDER / "train.tar.gz", FOLDER / "val.tar.gz"),
    suffix=".JPEG",
    label=label,
    classes=200,
    held=2000,
    square=2,
    transform={"shape": (32, 32), "J": 3, "L": 8, "nonlinearity": "rectifier"},
    cases=CASES,
    last=lambda name: "/val/" in name,
)
TEXT = """\
30,000 images of 200 classes are learnt from, and 2,000 of the validation archive judge, all
averaged to 32^2 (at 64^2 a processor takes five times as long to scatter them). Opponent colours,
scattering J = 3, L = 8, rectifier of 4 phases at order 1, 867 channels at 4 x 4, their roots
whitened to 256 components; mirror images are learnt from too, and scores are means over both.
Sparse codes: a 3 x 3 projection to 128 channels, 512 atoms, 12 iterations to 0.1, batch norm, 256
units, a linear layer. Deep: as for CIFAR-10, from images, their mirror images, and four copies of
either shifted by up to 3 pixels. The images that judge choose the penalty of ridge, too.
"""


def main() -> None:
    """Continue with the pieces, and write the table of what is done."""
    run(SETTING, "Tiny ImageNet by scattering", " ".join(TEXT.split()))


if __name__ == "__main__":
    main()
