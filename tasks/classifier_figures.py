"""Pictures of classifiers: curves, confusion, atoms, sparse codes and supports, as PNG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from storage.typing import Array
from tasks.figures import MAPS, png

COLUMNS, ROWS = 16, 8  # of atoms drawn


def curves(history: Sequence[Mapping[str, float]]) -> bytes:
    """Draw loss and errors by epoch, for the samples learnt from and for those held out."""
    figure = Figure(figsize=(7.2, 2.9), layout="constrained")
    left, right = figure.subplots(1, 2)
    epochs = [row["epoch"] for row in history]
    for axes, name in ((left, "loss"), (right, "top1")):
        for group in ("train", "held"):
            values = [row.get(f"{group}_{name}", np.nan) for row in history]
            axes.plot(epochs, values, ".-", label="learnt from" if group == "train" else "held out")
        axes.set(xlabel="epoch", ylabel="cross-entropy" if name == "loss" else "top-1")
        axes.grid(alpha=0.25)
    left.legend(frameon=False, fontsize=8)
    return png(figure)


def confusion(counts: Array, classes: Sequence[str]) -> bytes:
    """Draw, for each class (row), what part of it was taken for each class (column)."""
    share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    side = min(9.0, 2.6 + 0.28 * len(classes))
    figure = Figure(figsize=(side + 0.9, side), layout="constrained")
    axes = figure.add_subplot()
    image = axes.imshow(share, cmap="magma_r", vmin=0, vmax=1)
    axes.set(xlabel="taken for", ylabel="class")
    if len(classes) <= 30:
        axes.set_xticks(range(len(classes)), classes, rotation=90, fontsize=7)
        axes.set_yticks(range(len(classes)), classes, fontsize=7)
    if len(classes) <= 12:
        for (row, column), value in np.ndenumerate(share):
            if not value:
                continue
            colour = "white" if value > 0.5 else "black"
            axes.text(column, row, f"{value:.2f}"[1:] if value < 1 else "1", ha="center",
                      va="center", fontsize=6, color=colour)  # fmt: skip
    figure.colorbar(image, ax=axes, shrink=0.8)
    return png(figure)


def atoms(maps: Array, uses: Array) -> bytes:
    """Draw atoms as maps ``(atom, scale, angle)``, the most used first, each in its own scale."""
    order = np.argsort(-uses)[: COLUMNS * ROWS]
    rows = -(-len(order) // COLUMNS)
    height, width = maps.shape[1:]
    mosaic = np.full((rows * (height + 1), min(COLUMNS, len(order)) * (width + 1)), np.nan)
    for place, atom in enumerate(order):
        row, column = divmod(place, COLUMNS)
        top, left = row * (height + 1), column * (width + 1)
        reach = max(float(np.abs(maps[atom]).max()), 1e-12)
        mosaic[top : top + height, left : left + width] = maps[atom] / reach
    figure = Figure(figsize=(7.2, 0.5 + 0.42 * rows), layout="constrained")
    axes = figure.add_subplot()
    axes.imshow(mosaic, cmap=MAPS, vmin=-1, vmax=1, interpolation="nearest", aspect="auto")
    axes.set_axis_off()
    least, most = 100 * uses[order[-1]], 100 * uses[order[0]]
    title = f"{len(order)} atoms active at {most:.1f} to {least:.1f} % of positions"
    axes.set_title(f"{title}: scale down, angle across", fontsize=9)
    return png(figure)


def codes(images: Mapping[str, Array], active: Array, values: Array) -> bytes:
    """Draw images, how many atoms are active at each of their positions, and their largest codes.

    Parameters
    ----------
    images
        Pictures ``(y, x[, rgb])`` by title.
    active
        Numbers ``(image, y, x)``.
    values
        Codes of each image averaged over positions, ``(image, atom)``.
    """
    figure = Figure(figsize=(7.2, 1.5 * len(images)), layout="constrained")
    panels = figure.subplots(
        len(images), 3, squeeze=False, gridspec_kw={"width_ratios": [1, 1, 3.4]}
    )
    for index, (title, image) in enumerate(images.items()):
        shown, counts, bars = panels[index]
        shown.imshow(image, cmap="gray" if image.ndim == 2 else None)
        shown.set_title(title, fontsize=7)
        counts.imshow(active[index], cmap="viridis", vmin=0, vmax=max(active.max(), 1))
        counts.set_title(f"{active[index].mean():.0f} atoms a position", fontsize=7)
        for axes in (shown, counts):
            axes.set_xticks([])
            axes.set_yticks([])
        bars.vlines(np.arange(values.shape[1]), 0, values[index], lw=0.7)
        bars.set_xlim(0, values.shape[1])
        bars.tick_params(labelsize=6)
    panels[-1][2].set_xlabel("atom", fontsize=7)
    return png(figure)


def supports(thresholds: Array, sizes: Array, uses: Array) -> bytes:
    """Draw how supports grow as thresholds fall, and how evenly atoms are used."""
    figure = Figure(figsize=(7.2, 2.9), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot(thresholds, sizes, "o-", ms=3)
    left.set(xscale="log", xlabel="threshold", ylabel="atoms a position", title="support")
    shown = thresholds[:: max(1, len(thresholds) // 4)]
    left.set_xticks(shown, [f"{value:.2g}" for value in shown], minor=False)
    left.set_xticks([], minor=True)
    left.invert_xaxis()
    right.plot(np.sort(uses)[::-1])
    right.set(xlabel="atom, most used first", ylabel="part of positions", title="use of atoms")
    for axes in (left, right):
        axes.grid(alpha=0.25)
    return png(figure)
