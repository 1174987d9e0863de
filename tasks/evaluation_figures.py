"""Pictures of models beside real fields: maps, spectra, distributions and shapes."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from storage.typing import Array
from tasks import figures
from wavemill.evaluation import Portrait
from wavemill.evaluation.judge import ORDERS, THRESHOLDS

FUNCTIONALS = ("area fraction", "perimeter / area", "Euler characteristic / area")


def pictures(
    fields: Mapping[str, Array], portraits: Mapping[str, Portrait], periodic: bool
) -> dict[str, bytes]:
    """Return all pictures of sets of fields ``(n, y, x)`` by name, real ones first."""
    return {
        "maps": figures.fields({name: group[0] for name, group in fields.items()}),
        "spectrum": figures.spectra(fields, periodic),
        "pdf": figures.distributions(fields),
        "structure": structure(portraits),
        "minkowski": minkowski(portraits),
    }


def structure(portraits: Mapping[str, Portrait]) -> bytes:
    """Draw structure functions over lags, each divided by its Gaussian value from order 2.

    ``S_q / S_2^{q/2}`` is flat in the lag for a Gaussian field, and rises towards small ones for
    an intermittent one.
    """
    figure = Figure(figsize=(4.6, 3.4), layout="constrained")
    axes = figure.add_subplot()
    for label, portrait in portraits.items():
        values = portrait.structure.numpy()
        lags = 2 ** np.arange(values.shape[1])
        order = ORDERS.index(4)
        flatness = values[:, :, order] / np.maximum(values[:, :, ORDERS.index(2)] ** 2, 1e-300)
        figures.band(axes, lags, flatness, label)
    axes.axhline(3, color="k", ls=":", lw=1)
    axes.set(xscale="log", yscale="log", xlabel="lag r (samples)", ylabel="S(r, 4) / S(r, 2)^2")
    axes.legend(frameon=False, fontsize=8)
    axes.grid(alpha=0.25)
    return figures.png(figure)


def minkowski(portraits: Mapping[str, Portrait]) -> bytes:
    """Draw the three Minkowski functionals over thresholds."""
    figure = Figure(figsize=(10.5, 3.2), layout="constrained")
    for index, title in enumerate(FUNCTIONALS):
        axes = figure.add_subplot(1, 3, index + 1)
        for label, portrait in portraits.items():
            values = portrait.minkowski[:, index].numpy()
            figures.band(axes, np.array(THRESHOLDS), values, label, positive=False)
        axes.set(xlabel="threshold / standard deviation", title=title)
        axes.grid(alpha=0.25)
        if index == 0:
            axes.legend(frameon=False, fontsize=8)
    return figures.png(figure)
