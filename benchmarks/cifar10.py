"""Classifiers of CIFAR-10 by scattering, in pieces: run it until its table is complete.

The training images are ordered by a hash of their names; the last 5,000 are held out.
"""

from __future__ import annotations

from typing import Any

from benchmarks.classification import DATA, DEEP, SPARSE, STANDARD, TRAINED, run
from benchmarks.labelled_images import Setting

CASES: dict[str, dict[str, Any]] = {
    "linear, ridge": {**STANDARD, "model": "ridge"},
    "layers": {
        **STANDARD,
        **TRAINED,
        "model": "mlp",
        "hidden": (1024,),
        "epochs": 20,
        "rate": 0.02,
        "decay": 1e-3,
    },
    "sparse codes, W = D": {**SPARSE, "epochs": 16, "decay": 5e-4},
    "sparse codes, W free": {**SPARSE, "epochs": 16, "decay": 5e-4, "free": True},
    "deep, four blocks": {**TRAINED, **DEEP},
    "plain convolutions on pixels": {
        **TRAINED,
        "model": "mlp",
        "mirror": "mirrored",
        "both": True,
        "epochs": 8,  # about as long as sparse codes take
        "rate": 0.05,
        "decay": 5e-4,
    },
}
SETTING = Setting(
    name="cifar10",
    archives=(DATA / "cifar10" / "cifar10_train.tar.gz",),
    suffix=".jpg",
    label=lambda name: name.split("/")[2],
    classes=10,
    held=5000,
    sides=10,
    transform={"shape": (32, 32), "J": 3, "L": 8, "nonlinearity": "rectifier"},
    cases=CASES,
)
TEXT = """\
45,000 of the training images (a lossy JPEG re-encoding of CIFAR-10) are learnt from, 5,000 are held
out by a hash. Features: opponent colours, scattering J = 3, L = 8, rectifier of 4 phases at order
1, 867 channels at 4 x 4, their roots whitened to 256 components. They are computed once and stored,
for images, their mirror images, and four copies of either shifted by up to 3 pixels (12 minutes of
a processor). An epoch takes one of the ten of each image at random; ridge learns from the first
two. Scores are means over image and mirror image. Layers: 1,024 units. Sparse codes: a 3 x 3
projection to 128 channels, 512 atoms, 12 iterations to 0.1, batch norm, 256 units, a linear layer;
both rows differ in W alone. Deep: from the first octave alone (J = 1, computed anew each time),
four blocks of 64, 128, 128 and 256 rectified codes a position and the moduli of their wavelets, and
a linear layer of means. The held-out images chose the penalty of ridge, and also opponent colours
and roots (by ridge regression on 10,000 others); blocks were chosen on 3,000 of the images learnt
from. Plain convolutions: six of 3 x 3, 32 to 128 channels, with batch norm, on the pixels of the
same ten.
"""


def main() -> None:
    """Continue with the pieces, and write the table of what is done."""
    run(SETTING, "CIFAR-10 by scattering", " ".join(TEXT.split()))


if __name__ == "__main__":
    main()
