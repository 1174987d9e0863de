"""The scattering transform against kymatio's torch backend: one process, taking turns, medians."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import scipy.special
import torch

from benchmarks import tables
from wavemill import Scattering2D

CASES = ((128, 32, 2), (16, 256, 4), (16, 224, 4), (4, 512, 6))  # batch, side, J; L = 8, order 2
ROUNDS = 5


def peer(side: int, J: int) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return kymatio's transform; it needs a name that scipy has renamed."""
    if not hasattr(scipy.special, "sph_harm"):
        scipy.special.sph_harm = lambda m, n, azimuth, polar: scipy.special.sph_harm_y(
            n, m, polar, azimuth
        )
    from kymatio.torch import Scattering2D as Kymatio

    return Kymatio(J, (side, side), L=8, max_order=2)  # type: ignore[no-any-return]


def measure(batch: int, side: int, J: int) -> dict[str, Any]:
    """Return times of one image, forward, and how far the numbers are apart."""
    x = torch.randn(batch, side, side)
    start = time.perf_counter()
    ours = Scattering2D((side, side), J, 8)
    build = [time.perf_counter() - start]
    start = time.perf_counter()
    theirs = peer(side, J)
    build.append(time.perf_counter() - start)
    seconds: dict[str, list[float]] = {"ours": [], "theirs": []}
    with torch.inference_mode():
        apart = (ours(x) - theirs(x)).abs().max() / theirs(x).abs().max()
        for _ in range(ROUNDS):
            for name, op in (("ours", ours), ("theirs", theirs)):
                start = time.perf_counter()
                op(x)
                seconds[name].append((time.perf_counter() - start) / batch)
    mine, other = (statistics.median(values) for values in seconds.values())
    return {
        "images": f"{batch} x {side}^2",
        "J": J,
        "wavemill (ms)": f"{1e3 * mine:.2f}",
        "kymatio (ms)": f"{1e3 * other:.2f}",
        "ratio": f"{other / mine:.2f}",
        "filters (s)": f"{build[0]:.2f}",
        "kymatio's (s)": f"{build[1]:.2f}",
        "apart": f"{float(apart):.0e}",
    }


def main() -> None:
    """Measure and write the table."""
    text = (
        "Milliseconds an image, forward, L = 8, order 2, float32, CPU, "
        f"{torch.get_num_threads()} threads. kymatio writes pi as 3.1415, hence 'apart'."
    )
    rows = [measure(*case) for case in CASES]
    using = tables.versions("torch", "kymatio", "numpy")
    tables.write("scattering2d", "Scattering against kymatio", text, rows, using)


if __name__ == "__main__":
    main()
