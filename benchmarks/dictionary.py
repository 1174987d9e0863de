"""ISTC against the way SparseScatNet computes it: two dense 1x1 convolutions an iteration."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import conv2d, normalize

from benchmarks import tables
from benchmarks.measure import clock, seconds
from wavemill.dictionaries.dictionary import homotopy, istc

CHANNELS, ATOMS, SIDE, ITERATIONS = 256, 2048, 14, 12
IMAGES, ROUNDS = 8, 2
CASES = ((10, 0.1), (30, 0.05), (60, 0.03))  # atoms planted, last threshold


def signals(D: Tensor, planted: int, generator: torch.Generator) -> Tensor:
    """Unit vectors ``(image, y, x, channel)``: positive sums of atoms, and a fifth of noise."""
    count = IMAGES * SIDE**2
    chosen = torch.rand(count, ATOMS, generator=generator).topk(planted).indices
    z = torch.zeros(count, ATOMS).scatter_(
        1, chosen, torch.rand(count, planted, generator=generator)
    )
    beta = normalize(z @ D.T, dim=1)
    noise = normalize(torch.randn(count, CHANNELS, generator=generator), dim=1)
    return normalize(beta + 0.2 * noise, dim=1).view(IMAGES, SIDE, SIDE, CHANNELS)


def by_convolutions(x: Tensor, D: Tensor, W: Tensor, thresholds: Tensor) -> Tensor:
    """Return codes ``(image, atom, y, x)`` of ``(image, channel, y, x)`` with dense products."""
    synthesis, analysis = D[:, :, None, None], W.T.contiguous()[:, :, None, None]
    z = x.new_zeros(len(x), ATOMS, SIDE, SIDE)
    for threshold in thresholds:
        z = torch.relu(z + conv2d(x - conv2d(z, synthesis), analysis) - threshold)
    return z


def measured(planted: int, last: float) -> dict[str, Any]:
    """Return one row of the table."""
    generator = torch.Generator().manual_seed(planted)
    D = normalize(torch.randn(CHANNELS, ATOMS, generator=generator), dim=0)
    beta = signals(D, planted, generator)
    x = beta.movedim(-1, 1).contiguous()
    thresholds = homotopy(1.0, last, ITERATIONS).float()
    with torch.inference_mode():
        found, expected = istc(beta, D, thresholds), by_convolutions(x, D, D, thresholds)
        apart = float((found - expected.movedim(1, -1)).abs().max())
        taken = seconds(
            {
                "dense": lambda: by_convolutions(x, D, D, thresholds),
                "ours": lambda: istc(beta, D, thresholds),
            },
            ROUNDS,
        )
    learnt = D.clone().requires_grad_()
    few = slice(0, IMAGES // 2)
    trained = seconds(
        {
            "dense": lambda: torch.autograd.grad(
                by_convolutions(x[few], learnt, learnt, thresholds).sum(), learnt
            ),
            "ours": lambda: torch.autograd.grad(istc(beta[few], learnt, thresholds).sum(), learnt),
        },
        1,
    )
    return {
        "atoms active at the end": f"{float((found != 0).sum(-1).double().mean()):.0f}",
        "dense, ms an image": f"{1e3 * taken['dense'] / IMAGES:.0f}",
        "by supports": f"{1e3 * taken['ours'] / IMAGES:.0f}",
        "ratio": f"{taken['dense'] / taken['ours']:.1f}",
        "with gradients: dense": f"{2e3 * trained['dense'] / IMAGES:.0f}",
        "by supports ": f"{2e3 * trained['ours'] / IMAGES:.0f}",
        "ratio ": f"{trained['dense'] / trained['ours']:.1f}",
        "apart": f"{apart:.0e}",
    }


def main() -> None:
    """Measure and write the table."""
    rows = [measured(*case) for case in CASES]
    text = (
        f"Signals of {CHANNELS} channels are coded in {ATOMS} atoms at {SIDE} x {SIDE} positions: "
        f"{ITERATIONS} iterations, W = D, positive codes, float32, {IMAGES} images at a time "
        f"({IMAGES // 2} with gradients with respect to D). Medians, taking turns, {clock()}. "
        "Signals are positive sums of random atoms, with noise a fifth as large; thresholds fall "
        f"from 1 to {', '.join(f'{last:g}' for _, last in CASES)}. 'Dense' is two 1x1 convolutions "
        "an iteration, as in SparseScatNet; 'by supports' includes computing M = I - D^T W. "
        "'Apart' is the largest difference between the codes. `python -m benchmarks dictionary`."
    )
    tables.write("dictionary", "ISTC by supports", text, rows, tables.versions("torch", "numpy"))


if __name__ == "__main__":
    main()
