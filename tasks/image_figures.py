"""Pictures of image datasets, as PNG."""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from storage import Dataset
from tasks.figures import png
from tasks.requests import spread

COLUMNS, ROWS = 8, 4


def contact_sheet(dataset: Dataset) -> bytes:
    """Draw samples spread over a dataset, with their labels, and how many each class has."""
    samples = dataset.samples()
    chosen = samples.iloc[spread(len(samples), COLUMNS * ROWS)]
    figure = Figure(figsize=(COLUMNS * 1.15, ROWS * 1.3 + 2.4))
    sheet, below = figure.subplots(2, 1, height_ratios=[ROWS * 1.3, 1.6])
    sheet.set_axis_off()
    sheet.set(xlim=(0, COLUMNS), ylim=(ROWS, 0))
    images = dataset.read(chosen)
    for place, (_, sample) in enumerate(chosen.iterrows()):
        row, column = divmod(place, COLUMNS)
        sheet.imshow(images[place], extent=(column, column + 0.94, row + 0.94, row + 0.1))
        sheet.text(column, row + 0.07, _caption(sample), fontsize=6)
    sheet.set(xlim=(0, COLUMNS), ylim=(ROWS, 0), aspect="auto")
    _draw_counts(below, samples)
    return png(figure)


def _caption(sample: pd.Series) -> str:
    label = sample.get("label")
    name = str(label) if isinstance(label, str) else str(sample["sample_id"]).rpartition("/")[2]
    return name if len(name) <= 16 else f"{name[:15]}…"


def _draw_counts(axes: Any, samples: pd.DataFrame) -> None:
    """Draw the number of images of each class, or of each shape where classes are unknown."""
    if "label" in samples and samples["label"].notna().any():
        counts, what = samples["label"].value_counts().sort_index(), "classes"
    else:
        shapes = samples["width"].astype(str) + "x" + samples["height"].astype(str)
        counts, what = shapes.value_counts(), "sizes as found"
    axes.bar(range(len(counts)), counts.to_numpy(), color="tab:blue")
    axes.set(ylabel="images", title=f"{len(samples):,} images, {len(counts)} {what}")
    few = len(counts) <= 25
    axes.set_xticks(range(len(counts)) if few else [], list(map(str, counts.index)) if few else [])
    axes.tick_params(axis="x", labelsize=6, rotation=30 if few else 0)
