"""Functions of one tensor that a GPU repeats by itself.

A loss of moments and its gradient are a thousand small kernels, which Python launches more slowly
than a GPU runs them. Recorded as a CUDA graph they are launched at once. This is for descents and
small batches, which ask for the same shapes again and again.

Source: the CUDA graphs of torch (``torch.cuda.graph``).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable

import torch
from torch import Tensor

Function = Callable[[Tensor], tuple[Tensor, ...]]
Recording = tuple[torch.cuda.CUDAGraph, Tensor, tuple[Tensor, ...]]
AFTER = 3  # calls on one shape before recording; they also build what later calls reuse


class Replayed:
    """``function``, which a GPU replays from its fourth call with a shape; unchanged elsewhere.

    The function must depend on nothing but its argument and tensors that stay where they are, and
    may neither wait for the device nor copy to it. If recording fails, it is called as before.

    Parameters
    ----------
    function
        Maps a tensor to tensors.
    """

    def __init__(self, function: Function) -> None:
        self.function = function
        self._shape: tuple[object, ...] = ()
        self._calls = 0
        self._recording: Recording | None = None

    def __call__(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return what the function returns for ``x``, in new tensors."""
        if not x.is_cuda:
            return self.function(x)
        shape = (tuple(x.shape), x.dtype, x.device)
        if shape != self._shape:  # one recording at a time: each holds all it computes
            self._shape, self._calls, self._recording = shape, 0, None
        self._calls += 1
        if self._calls == AFTER + 1:
            self._recording = self._record(x)
        if self._recording is None:
            return self.function(x)
        graph, given, found = self._recording
        given.copy_(x)
        with torch.cuda.device(x.device):
            graph.replay()
        return tuple(output.clone() for output in found)

    def _record(self, x: Tensor) -> Recording | None:
        """Record a call, after one on a side stream, as torch requires; None if that fails."""
        given = x.detach().clone()
        try:
            with torch.cuda.device(x.device):  # streams and graphs belong to the current device
                graph, aside = torch.cuda.CUDAGraph(), torch.cuda.Stream()  # type: ignore[no-untyped-call]
                aside.wait_stream(torch.cuda.current_stream())
                with torch.cuda.stream(aside):
                    self.function(given)
                torch.cuda.current_stream().wait_stream(aside)
                with torch.cuda.graph(graph, stream=aside):
                    found = self.function(given)
        except RuntimeError as error:
            warnings.warn(f"not recorded as a CUDA graph, which is slower: {error}", stacklevel=3)
            return None
        return graph, given, found
