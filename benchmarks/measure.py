"""How the time and memory of calls are measured: taking turns, in one process."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping

import torch

from wavemill.kernels import forget_room

Call = Callable[[], object]


def seconds(calls: Mapping[str, Call], rounds: int, device: str = "cpu") -> dict[str, float]:
    """Return the median time of each call, the calls taking turns after one round unmeasured.

    On one thread it is the thread's processor time, which other work disturbs least; on several,
    the clock's; on a GPU, the device's.
    """
    timed = _on_device if device == "cuda" else _on_host
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(rounds + 1):
        for name, call in calls.items():
            spent = timed(call)
            if turn:
                taken[name].append(spent)
    return {name: statistics.median(values) for name, values in taken.items()}


def clock() -> str:
    """Say what :func:`seconds` measures on a CPU."""
    threads = torch.get_num_threads()
    return "1 thread, processor time" if threads == 1 else f"{threads} threads, wall clock"


def _on_host(call: Call) -> float:
    now = time.thread_time if torch.get_num_threads() == 1 else time.perf_counter
    start = now()
    call()
    return now() - start


def _on_device(call: Call) -> float:
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    call()
    end.record()
    end.synchronize()
    return float(start.elapsed_time(end)) / 1e3


def peak_allocation(call: Call) -> int:
    """Return the largest sum in bytes of live tensors on the CPU while ``call`` runs.

    Tensors that were there before are not counted; what loops work in is, though a thread keeps it.
    """
    call()
    forget_room()
    with torch.profiler.profile(
        profile_memory=True, activities=[torch.profiler.ProfilerActivity.CPU]
    ) as profile:
        kept = call()
    assert kept is not None
    live = peak = 0
    for event in profile.profiler.kineto_results.events():
        if event.name() == "[memory]":
            live += event.nbytes()
            peak = max(peak, live)
    return peak
