"""The scattering transform against kymatio's torch backend: one process, taking turns, medians."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import scipy.special
import torch

from benchmarks import tables
from benchmarks.measure import clock, peak_allocation, seconds
from wavemill import Scattering2D

CASES = ((128, 32, 2), (16, 256, 4), (16, 224, 4), (4, 512, 6))  # batch, side, J; L = 8, order 2
ROUNDS = 3
Transform = Callable[[torch.Tensor], torch.Tensor]


def peer(side: int, J: int) -> Transform:
    """Return kymatio's transform; it needs a name that scipy has renamed."""
    if not hasattr(scipy.special, "sph_harm"):
        scipy.special.sph_harm = lambda m, n, azimuth, polar: scipy.special.sph_harm_y(
            n, m, polar, azimuth
        )
    from kymatio.torch import Scattering2D as Kymatio

    return Kymatio(J, (side, side), L=8, max_order=2)  # type: ignore[no-any-return]


def measure(batch: int, side: int, J: int) -> dict[str, Any]:
    """Return one row: times an image, filters, memory, and how far the numbers are apart."""
    x = torch.randn(batch, side, side)
    builders = {
        "wavemill": lambda: Scattering2D((side, side), J, 8),
        "kymatio": lambda: peer(side, J),
    }
    built: dict[str, float] = {}
    transforms: dict[str, Transform] = {}
    for name, build in builders.items():
        start = time.process_time()
        transforms[name] = build()
        built[name] = time.process_time() - start
    row: dict[str, Any] = {"images": f"{batch} x {side}^2", "J": J}
    for label, run in (("forward", forward), ("gradient", gradient)):
        calls = {name: run(transform, x) for name, transform in transforms.items()}
        spent = seconds(calls, ROUNDS)
        row |= {
            f"{label} (ms)": f"{1e3 * spent['wavemill'] / batch:.2f}",
            f"{label}, kymatio (ms)": f"{1e3 * spent['kymatio'] / batch:.2f}",
            f"{label} ratio": f"{spent['kymatio'] / spent['wavemill']:.1f}",
        }
        peak = {name: peak_allocation(call) / 2**20 for name, call in calls.items()}
        row[f"{label} MiB"] = f"{peak['wavemill']:.0f} / {peak['kymatio']:.0f}"
    row["MiB on 2 threads"] = f"{on_threads(2, forward(transforms['wavemill'], x)):.0f}"
    row["filters (s)"] = f"{built['wavemill']:.2f} / {built['kymatio']:.2f}"
    row["ratio of filters"] = f"{built['kymatio'] / built['wavemill']:.0f}"
    mine, other = (forward(transforms[name], x)() for name in ("wavemill", "kymatio"))
    row["apart"] = f"{float((mine - other).abs().max() / other.abs().max()):.0e}"
    return row


def on_threads(count: int, call: Callable[[], torch.Tensor]) -> float:
    """Return the MiB that a call takes on this many threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        return peak_allocation(call) / 2**20
    finally:
        torch.set_num_threads(threads)


def forward(transform: Transform, x: torch.Tensor) -> Callable[[], torch.Tensor]:
    """Return a call without gradients."""

    def call() -> torch.Tensor:
        with torch.inference_mode():
            return transform(x)

    return call


def gradient(transform: Transform, x: torch.Tensor) -> Callable[[], torch.Tensor]:
    """Return a call that differentiates the sum of the coefficients."""

    def call() -> torch.Tensor:
        leaf = x.detach().clone().requires_grad_()
        return torch.autograd.grad(transform(leaf).sum(), leaf)[0]

    return call


def on_gpu(batch: int, side: int = 256, J: int = 4, L: int = 8) -> dict[str, Any]:
    """Return images a second, and the share of what the memory's bandwidth allows."""
    op, x = Scattering2D((side, side), J, L).cuda(), torch.randn(batch, side, side, device="cuda")
    spent = seconds({"op": forward(op, x), "copy": _copy()}, 20, "cuda")
    limit = 2 * _COPIED / spent["copy"] / moved(op)
    rate = batch / spent["op"]
    return {
        "images": f"{batch} x {side}^2",
        "J": J,
        "images / s": f"{rate:.0f}",
        "bandwidth's limit": f"{limit:.0f}",
        "share": f"{rate / limit:.0%}",
    }


def moved(op: Scattering2D) -> float:
    """Return the bytes an image moves if each step reads and writes its arrays once.

    For a wave: folding writes 8 bytes a point, the transform reads and writes 8, the modulus reads
    8 and writes 4, the average reads 4; the transform of a modulus reads 4 and writes 8.
    """
    points = math.prod(op.grid)
    first = op.L * sum(0.25**j for j in range(op.J))
    second = op.L**2 * sum(j * 0.25**j for j in range(op.J))
    return points * (40 * (first + second) + 12 * first)


_COPIED = 1 << 30


def _copy() -> Callable[[], torch.Tensor]:
    a, b = (torch.empty(_COPIED, dtype=torch.uint8, device="cuda") for _ in range(2))
    return lambda: a.copy_(b)


def write(rows: list[dict[str, Any]]) -> None:
    """Write the table of the CPU."""
    text = (
        "Milliseconds an image and their ratio, forward and with the gradient of the sum: L = 8, "
        f"order 2, float32, CPU, {clock()}, medians of {ROUNDS} rounds, taking turns. In pairs "
        "wavemill's number comes first: MiB of the largest sum of live tensors, and seconds of CPU "
        "time to build the filters. 'Apart' is the largest difference relative to the largest "
        "value, and comes from kymatio's pi, 3.1415. "
        + ("" if torch.cuda.is_available() else "No GPU was available: its part was left out.")
    )
    using = tables.versions("torch", "kymatio", "numpy")
    tables.write("scattering2d", "Scattering against kymatio", text, rows, using)


def main() -> None:
    """Measure and write the tables."""
    write([measure(*case) for case in CASES])
    if torch.cuda.is_available():
        text = "float32, order 2, L = 8, CUDA events; the limit is that of a copy of 1 GiB."
        rows = [on_gpu(batch) for batch in (1, 16, 256)]
        tables.write(
            "scattering2d-gpu", "Scattering on a GPU", text, rows, tables.versions("torch")
        )


if __name__ == "__main__":
    main()
