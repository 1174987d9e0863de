"""Losses and gradients of maximum-entropy models against pywph, and whole syntheses.

Gradients take turns in one process: several of ours, which follow each other in a descent, too,
then one of the peer's. Times are medians. Each row has a process of its own. For a synthesis the
last column is the peak memory beyond what was held once everything was built. As in wavemill's
workers, glibc keeps freed blocks, for both.
"""

from __future__ import annotations

import multiprocessing
import os
import resource
import statistics
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import torch

from benchmarks import tables
from wavemill import Microcanonical
from wavemill.maxent.families import moments_of
from wavemill.moments.differentiated import MomentOperator
from wavemill.specs import MicrocanonicalSpec

SIDE, ROUNDS, OURS, GRADIENTS = 256, 5, 10, 500
KEEP_BLOCKS = {"MALLOC_MMAP_THRESHOLD_": str(2**25), "MALLOC_TRIM_THRESHOLD_": str(2**29)}
CASES: dict[str, tuple[str, int, int, int]] = {  # set, J, L, lags
    "pywph classes J=7 L=4 dn=2": ("pywph", 7, 4, 2),
    "model C J=5 L=8 lags 2": ("C", 5, 8, 2),
    "scattering spectra J=7 L=4": ("scattering", 7, 4, 0),
}
SYNTHESES = tuple(CASES)[:2]
ELSEWHERE = {  # seconds of the authors' codes on the same kind of machine
    "model C J=5 L=8 lags 2": 39.0,  # sixin-zh/kymatio_wph
    "scattering spectra J=7 L=4": 0.2,  # SihaoCheng/scattering_transform: 0.2 to 0.34
}


def main() -> None:
    """Measure and write the table."""
    os.environ.update(KEEP_BLOCKS)
    rows = [alone(gradient, name) for name in CASES]
    rows += [alone(synthesis, name) for name in SYNTHESES]
    text = (
        f"{SIDE}^2, float32, CPU, {torch.get_num_threads()} threads. Gradients: medians of "
        f"{ROUNDS} rounds of {OURS} of wavemill's and one of pywph's, in one process; times marked "
        "* are those of the authors' codes, measured separately on the same kind of machine. "
        f"Syntheses: one sample from white noise, {GRADIENTS} gradients. 'apart': largest "
        "difference relative to the largest value. Peak: memory of a synthesis beyond that of the "
        "operators; tests bound that of a gradient."
    )
    using = tables.versions("torch", "pywph", "numpy")
    tables.write("maxent", "Maximum-entropy models", text, rows, using)


def alone(work: Callable[[str], dict[str, Any]], name: str) -> dict[str, Any]:
    """Return what ``work`` returns in a new process, which may have children, as pywph does."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(work, name).result()


def gradient(name: str) -> dict[str, Any]:
    """Return the time of one loss with its gradient, and how far they are from the peer's."""
    operator, reference, x = build(name), noise(1, smooth=True), noise(2)
    moments = operator.measure(reference)
    peer = peers(CASES[name], reference, x) if CASES[name][0] == "pywph" else None
    operator.loss_and_gradient(x, moments)
    work = (lambda: operator.loss_and_gradient(x, moments), peer)
    (ours, theirs), (found, expected) = take_turns(*work)
    row = describe(f"gradient, {name}", operator, statistics.median(ours))
    if peer is not None:
        apart = [abs(found[0] / expected[0] - 1), (found[1] - expected[1]).abs().max()]
        other = statistics.median(theirs)
        row["peer (s)"], row["ratio"] = f"{other:.2f}", f"{other / statistics.median(ours):.0f}"
        row["loss, gradient apart"] = f"{apart[0]:.0e}, {apart[1] / found[1].abs().max():.0e}"
    elif name in ELSEWHERE:
        row["peer (s)"] = f"{ELSEWHERE[name]:g} *"
        row["ratio"] = f"{ELSEWHERE[name] / statistics.median(ours):.0f}"
    return row


def synthesis(name: str) -> dict[str, Any]:
    """Return the time of one sample."""
    kind, J, L, lags = CASES[name]
    parameters = {"set": kind, "J": J, "L": L, "lags": lags, "iterations": GRADIENTS}
    model = Microcanonical(parameters | {"start": "white"}).fit(noise(1, smooth=True))
    before, start = peak(), time.perf_counter()
    model.sample(1)
    seconds = time.perf_counter() - start
    row = describe(f"synthesis, {name}", model.operator, seconds, peak() - before)
    row["loss, gradient apart"] = f"loss down to {model.losses_[0].min():.0e}"
    return row


def describe(
    what: str, operator: MomentOperator, seconds: float, memory: float | None = None
) -> dict[str, Any]:
    """Return a row without a peer."""
    return {
        "what": what,
        "moments": len(operator.table.rows) if hasattr(operator, "table") else "",
        "real": len(operator.coefficients["part"]),
        "wavemill (s)": f"{seconds:.3g}",
        "peer (s)": "",
        "ratio": "",
        "loss, gradient apart": "",
        "peak (MB)": "" if memory is None else f"{memory:.0f}",
    }


def build(name: str) -> MomentOperator:
    """Return the operator of a case."""
    kind, J, L, lags = CASES[name]
    parameters = {"set": kind, "J": J, "L": L, "lags": lags}
    return moments_of(MicrocanonicalSpec.from_parameters(parameters), (SIDE, SIDE), 1)


def noise(seed: int, smooth: bool = False) -> torch.Tensor:
    """Return white or, with spectrum 1 / k^2, smooth noise of unit variance."""
    x = torch.randn(SIDE, SIDE, generator=torch.Generator().manual_seed(seed))
    if smooth:
        k = torch.fft.fftfreq(SIDE, 1 / SIDE)
        x_hat = torch.fft.fft2(x) / torch.hypot(k[:, None], k[None]).clamp_min(1)
        x = torch.fft.ifft2(x_hat).real
    return (x - x.mean()) / x.std(correction=0)


def peers(
    case: tuple[str, int, int, int], reference: torch.Tensor, x: torch.Tensor
) -> Callable[[], tuple[float, torch.Tensor]]:
    """Return pywph's loss and gradient, as its own synthesis example takes them."""
    warnings.simplefilter("ignore")  # it casts complex numbers to real ones
    from pywph import WPHOp

    _, J, L, lags = case
    op = WPHOp(SIDE, SIDE, J, L=L, dn=lags, device="cpu")
    held = op.apply(reference.numpy(), norm="auto")

    def evaluate() -> tuple[float, torch.Tensor]:
        field, chunks = op.preconfigure(x.clone(), requires_grad=True)
        total = 0.0
        for chunk in range(chunks):
            values, index = op.apply(field, chunk, norm="auto", ret_indices=True)
            loss = (values - held[index]).abs().square().sum()
            loss.backward(retain_graph=True)
            total += float(loss.detach())
        return total, field.grad

    return evaluate


def take_turns(
    ours: Callable[[], Any], theirs: Callable[[], Any] | None
) -> tuple[tuple[list[float], list[float]], list[Any]]:
    """Return the seconds of OURS gradients and of one of theirs a round, and what each returned."""
    seconds: tuple[list[float], list[float]] = ([], [])
    results: list[Any] = [None, None]
    for _ in range(ROUNDS):
        for side, (work, times) in enumerate(((ours, OURS), (theirs, 1))):
            for _ in range(times if work else 0):
                start = time.perf_counter()
                results[side] = work()
                seconds[side].append(time.perf_counter() - start)
    return seconds, results


def peak() -> float:
    """Return the most memory that this process has held, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
