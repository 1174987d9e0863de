"""One vorticity map, and one sample of each family of moments fitted to it: a picture and a table.

64^2 points, the low frequencies of one map of ../shared; J = 4, L = 4, lags 1, 100 gradients.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("WAVEMILL_QUALITY_SIDE", "64")  # before maps are asked for

import torch
from torch import Tensor

from benchmarks import tables
from benchmarks.quality import maps
from tasks import figures
from wavemill.maxent import Gaussian, Microcanonical
from wavemill.spectra import flatness

IMAGE = Path(__file__).parents[1] / "docs" / "images" / "models.png"
BANK = {"J": 4, "L": 4, "lags": 1}
SETS = ("H", "rectifier", "scattering", "C", "C+L")


def main() -> None:
    """Fit, draw, write the picture and the table."""
    x = maps("vorticity")[:1]
    shown: dict[str, Tensor] = {"one map of vorticity": x[0]}
    rows: list[dict[str, Any]] = [row("one map of vorticity", "", x, 0.0)]
    models: dict[str, Any] = {
        "Gaussian": Gaussian(),
        "Gaussian of bands": Gaussian({"method": "bands", **BANK}),
    }
    models |= {name: Microcanonical({"set": name, **BANK, "iterations": 100}) for name in SETS}
    for name, model in models.items():
        start = time.process_time()
        drawn = model.fit(x).sample(1)
        seconds = time.process_time() - start
        count = model.metrics_.get("moments", "")
        rows.append(row(name, str(count).removesuffix(".0"), drawn, seconds))
        shown[name] = drawn[0]
    IMAGE.write_bytes(figures.fields({name: field.numpy() for name, field in shown.items()}))
    text = (__doc__ or "").split("\n\n")[1].strip() + " s is seconds of one processor."
    using = tables.versions("torch", "numpy")
    tables.write("families", "Families of moments side by side", text, rows, using)


def row(name: str, count: str, x: Tensor, seconds: float) -> dict[str, Any]:
    """Return the row of a field."""
    return {
        "field": name,
        "real moments": count,
        "flatness": f"{float(flatness(x.double()).mean()):.2f}",
        "s": f"{seconds:.1f}" if seconds else "",
    }


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
