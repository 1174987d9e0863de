"""A process of its own, whose peak memory is that of one loss: ``python probe.py SIDE SET``.

Prints bytes beyond the operator's: of the covariances, of the loss with its gradient, and what
:meth:`PhaseHarmonicCovariance.memory` says of either.
"""

from __future__ import annotations

import resource
import sys
from pathlib import Path

import torch

from wavemill.phase_harmonics import PhaseHarmonicCovariance


def main() -> None:
    """Measure."""
    torch.set_num_threads(1)
    side, kind = int(sys.argv[1]), sys.argv[2]
    warm_up(kind)
    op, x = PhaseHarmonicCovariance((side, side), 4, 4, kind), torch.randn(side, side)
    before = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    op(x)
    forward = peak() - before
    moments = op.measure(x)
    op.loss_and_gradient(x, moments)
    print(forward, peak() - before, op.memory(1), op.memory(1, gradient=True))


def warm_up(kind: str) -> None:
    """Let libraries load and allocate what they keep."""
    op, x = PhaseHarmonicCovariance((32, 32), 2, 2, kind), torch.randn(32, 32)
    op.loss_and_gradient(x, op.measure(x))


def peak() -> int:
    """Return the most bytes held until now."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    main()
