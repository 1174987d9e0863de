"""A process of its own, whose peak memory is that of one loss: ``probe.py SIDE SET [BUDGET]``.

Prints bytes beyond the operator's: of the covariances, of the loss with its gradient, and what
:meth:`PhaseHarmonicCovariance.memory` says of either.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from wavemill.moments.phase_harmonics import PhaseHarmonicCovariance


def main() -> None:
    """Measure."""
    torch.set_num_threads(1)
    side, kind = int(sys.argv[1]), sys.argv[2]
    warm_up(kind)
    budget = {"budget": int(sys.argv[3])} if len(sys.argv) > 3 else {}
    op, x = PhaseHarmonicCovariance((side, side), 4, 4, kind, **budget), torch.randn(side, side)
    before = resident("VmRSS")
    op(x)
    forward = resident("VmHWM") - before
    moments = op.measure(x)
    op.loss_and_gradient(x, moments)
    print(forward, resident("VmHWM") - before, op.memory(1), op.memory(1, gradient=True))


def warm_up(kind: str) -> None:
    """Let libraries load and allocate what they keep."""
    op, x = PhaseHarmonicCovariance((32, 32), 2, 2, kind), torch.randn(32, 32)
    op.loss_and_gradient(x, op.measure(x))


def resident(field: str) -> int:
    """Return VmRSS, or VmHWM, its peak, in bytes (``ru_maxrss`` begins at the parent's)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(field)).split()[1]) * 1024


if __name__ == "__main__":
    main()
