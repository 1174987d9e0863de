"""How strongly the components of a field are correlated, octave by octave.

    c(a, b; o) = sum over w in o of Re x_a^ x_b^* / sqrt(sum of |x_a^|^2  sum of |x_b^|^2) ,

in [-1, 1]: 0 on average for independent components, whatever their spectra.
"""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor

from wavemill.evaluation.bispectrum import shell_edges
from wavemill.spectra import tapered


def coherence(x: Tensor, periodic: bool = True) -> Tensor:
    """Return c for all pairs of components and each octave that holds a frequency.

    Parameters
    ----------
    x
        Real ``(field, component, y, x)``; sums are over fields too.
    periodic
        Whether fields wrap around; if not, they are tapered.

    Returns
    -------
    Tensor
        ``(pair, octave)`` float64.
    """
    shape = (x.shape[-2], x.shape[-1])
    field = x.double() - x.double().mean((-2, -1), keepdim=True)
    x_hat = torch.fft.fft2(field if periodic else tapered(field))
    w = [2 * math.pi * torch.fft.fftfreq(size, dtype=torch.float64) for size in shape]
    radius = torch.hypot(w[0][:, None], w[1]).to(x.device)
    edges = shell_edges(shape, max(1, int(math.log2(max(shape)))))
    shells = [
        (radius >= low) & (radius < high)
        for low, high in itertools.pairwise(edges.tolist())
        if ((radius >= low) & (radius < high)).any()
    ]
    rows = []
    for a, b in itertools.combinations(range(x.shape[1]), 2):
        cross = (x_hat[:, a] * x_hat[:, b].conj()).real.sum(0)
        powers = [x_hat[:, one].abs().square().sum(0) for one in (a, b)]
        both = [power[shell].sum() for shell in shells for power in powers]
        norm = torch.stack(both).view(-1, 2).prod(1).sqrt().clamp_min(1e-300)
        rows.append(torch.stack([cross[shell].sum() for shell in shells]) / norm)
    return torch.stack(rows)


def coherence_distance(model: Tensor, test: Tensor, periodic: bool = True) -> float:
    """Return ``|c_model - c_test| / |c_test|`` of fields ``(field, component, y, x)``.

    NaN if no components of the test fields are correlated at all, as for constants.
    """
    expected = coherence(test, periodic)
    apart, norm = (coherence(model, periodic) - expected).norm(), float(expected.norm())
    return float(apart) / norm if norm > 0 else math.nan
