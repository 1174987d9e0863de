"""Pictures of molecules and of predictions for them, as PNG."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from storage.typing import Array
from tasks.figures import png


def population(samples: pd.DataFrame) -> bytes:
    """Draw how many molecules there are of each size, and the commonest formulas."""
    figure = Figure(figsize=(7.2, 2.9), layout="constrained")
    sizes, formulas = figure.subplots(1, 2)
    counts = samples["n_atoms"].value_counts().sort_index()
    sizes.bar(counts.index.to_numpy(), counts.to_numpy(), color="tab:blue")
    sizes.set(xlabel="atoms", ylabel="molecules", title=f"{len(samples):,} molecules")
    common = samples["formula"].value_counts().head(12)[::-1]
    formulas.barh(list(map(str, common.index)), common.to_numpy(), color="tab:orange")
    formulas.set(xlabel="molecules", title="commonest formulas")
    formulas.tick_params(axis="y", labelsize=7)
    return png(figure)


def parity(truth: Array, predicted: Array, target: str, unit: str) -> bytes:
    """Draw predictions against the truth, and the distribution of errors."""
    figure = Figure(figsize=(7.2, 3.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    span = [float(min(truth.min(), predicted.min())), float(max(truth.max(), predicted.max()))]
    left.plot(span, span, color="grey", lw=0.8)
    left.plot(truth, predicted, ".", ms=2, alpha=0.5)
    left.set(xlabel=f"{target} ({unit})", ylabel="predicted", title="held-out molecules")
    error = predicted - truth
    reach = max(float(np.quantile(np.abs(error), 0.995)), 1e-12)
    right.hist(np.clip(error, -reach, reach), bins=60, color="tab:blue")
    right.set(xlabel=f"error ({unit})", ylabel="molecules", title=f"MAE {np.abs(error).mean():.3g}")
    return png(figure)


def errors_by(groups: Mapping[str, pd.Series], unit: str) -> bytes:
    """Draw the mean absolute error of groups of molecules, such as by size and by element."""
    figure = Figure(figsize=(3.6 * len(groups), 3.0), layout="constrained")
    for axes, (name, errors) in zip(
        figure.subplots(1, len(groups), squeeze=False)[0], groups.items(), strict=True
    ):
        axes.bar(list(map(str, errors.index)), errors.to_numpy(), color="tab:blue")
        axes.set(xlabel=name, ylabel=f"MAE ({unit})")
        axes.tick_params(axis="x", labelsize=7)
    return png(figure)


def learning(curve: pd.DataFrame, unit: str) -> bytes:
    """Draw the mean absolute error against the number of molecules learnt from."""
    figure = Figure(figsize=(3.8, 3.0), layout="constrained")
    axes = figure.subplots()
    axes.loglog(curve["molecules"], curve["mae"], "o-", color="tab:blue")
    axes.set(xlabel="molecules learnt from", ylabel=f"MAE ({unit})", title="held-out molecules")
    axes.set_xticks(curve["molecules"], [f"{count:,}" for count in curve["molecules"]])
    axes.set_xticks([], minor=True)
    axes.yaxis.set_minor_locator(LogLocator(subs=(2, 3, 5)))
    for side in (axes.yaxis.set_major_formatter, axes.yaxis.set_minor_formatter):
        side("{x:g}")
    axes.grid(which="both", alpha=0.3)
    return png(figure)
