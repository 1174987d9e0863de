"""Pictures of generators: tiles of images, curves of learning, eigenvalues of codes."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from itertools import cycle

import matplotlib
import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.image import imsave

from storage.typing import Array
from tasks.figures import MAPS, png
from wavemill.generation.whitening import eigenvalues as nonzero_eigenvalues

GAP = 4  # pixels between tiles
LONGEST = 8  # pictures of a table's only row: more are wrapped into a square
ENLARGED, VISIBLE = 2, 64  # pixels for a sample's point; at least pixels of a tile


def tiles(rows: Array) -> bytes:
    """Draw a table of pictures ``(rows, columns, component, y, x)``, enlarged, the small ones more.

    A single long row is wrapped.
    Three components between 0 and 1 are red, green and blue; of others the first is drawn, on a
    scale of colours symmetric about the mean of the first row.
    """
    coloured = _wrapped(_coloured(np.asarray(rows, dtype="float64")))
    factor = max(ENLARGED, VISIBLE // coloured.shape[2])
    coloured = coloured.repeat(factor, 2).repeat(factor, 3)
    count, columns, height, width = coloured.shape[:4]
    canvas = np.ones(
        (count * (height + GAP) - GAP, columns * (width + GAP) - GAP, 3), dtype="float64"
    )
    for row, column in np.ndindex(count, columns):
        y, x = row * (height + GAP), column * (width + GAP)
        canvas[y : y + height, x : x + width] = coloured[row, column]
    buffer = io.BytesIO()
    imsave(buffer, canvas, format="png")
    return buffer.getvalue()


def _wrapped(coloured: Array) -> Array:
    """Wrap a single long row into a table of about as many rows as columns, white at its end."""
    rows, columns = coloured.shape[:2]
    if rows > 1 or columns <= LONGEST:
        return coloured
    side = math.isqrt(columns - 1) + 1
    tiles = -(-columns // side) * side
    white = np.ones((tiles - columns, *coloured.shape[2:]))
    return np.concatenate([coloured[0], white]).reshape(-1, side, *coloured.shape[2:])


def _coloured(rows: Array) -> Array:
    """Return ``(rows, columns, y, x, 3)`` between 0 and 1."""
    if rows.shape[2] == 3 and rows.min() >= 0 and rows.max() <= 1:
        return np.moveaxis(rows, 2, -1)
    field = rows[:, :, 0]
    centre = field[0].mean()
    spread = max(float(np.quantile(np.abs(field[0] - centre), 0.995)), 1e-12)
    scaled = np.clip((field - centre) / (2 * spread) + 0.5, 0, 1)
    coloured: Array = matplotlib.colormaps[MAPS](scaled)[..., :3]
    return coloured


def curves(runs: Mapping[str, Sequence[tuple[int, float]]]) -> bytes:
    """Draw validation PSNR over epochs, one line a run; a run without epochs is a level."""
    figure = Figure(figsize=(4.8, 3.2), layout="constrained")
    axes = figure.add_subplot()
    styles = cycle((":", "--", "-."))
    for label, points in runs.items():
        if len(points) == 1 and points[0][0] == 0:
            axes.axhline(points[0][1], color="k", ls=next(styles), lw=1, label=label)
        else:
            axes.plot(*np.array(points, dtype=float).T, marker=".", label=label)
    axes.set(xlabel="epoch", ylabel="validation PSNR (dB)")
    axes.legend(frameon=False, fontsize=8)
    axes.grid(alpha=0.25)
    return png(figure)


def eigenvalues(sides: Mapping[str, Array]) -> bytes:
    """Draw distributions of eigenvalues of codes' covariances beside Marchenko and Pastur's.

    Parameters
    ----------
    sides
        Codes ``(n, m)`` of each side.
    """
    figure = Figure(figsize=(4.8, 3.2), layout="constrained")
    axes = figure.add_subplot()
    for label, w in sides.items():
        values, white = (spectrum(codes) for codes in (w, _noise(*w.shape)))
        place, dot = np.linspace(0, 1, len(values)), "." if len(values) == 1 else ""
        (line,) = axes.plot(place, values, f"{dot}-", label=f"{label}, n = {len(w):,}")
        axes.plot(place, white, f"{dot}:", color=line.get_color())
    axes.set(xlabel="part of the eigenvalues below", ylabel="eigenvalue", ylim=(0, None))
    axes.set_title("dotted: white noise of the same size", fontsize=9)
    axes.legend(frameon=False, fontsize=8)
    axes.grid(alpha=0.25)
    return png(figure)


def spectrum(w: Array) -> Array:
    """Return the eigenvalues of the covariance of codes ``(n, m)``, ascending.

    With few codes, those that must be 0 are left out.
    """
    n, m = w.shape
    covariance = torch.from_numpy(w.astype("float64")).T.cov(correction=0).reshape(m, m)
    values: Array = nonzero_eigenvalues(covariance, n).numpy()
    return values


def _noise(n: int, m: int) -> Array:
    return np.random.default_rng(0).standard_normal((n, m))


def scores(sides: Mapping[str, Array]) -> bytes:
    """Draw distributions of PSNR over pictures, except those that are made exactly."""
    figure = Figure(figsize=(4.8, 3.2), layout="constrained")
    axes = figure.add_subplot()
    defined = {label: values[np.isfinite(values)] for label, values in sides.items()}
    everything = np.concatenate(list(defined.values()))
    for label, values in defined.items():
        if not len(values):
            axes.plot([], label=f"{label}: none")
            continue
        edges = np.linspace(everything.min(), everything.max() + 1e-9, 40)
        shown = f"{label}: {values.mean():.2f} dB"
        axes.hist(values, list(edges), density=True, histtype="step", lw=1.5, label=shown)
    axes.set(xlabel="PSNR (dB)", ylabel="density")
    axes.legend(frameon=False, fontsize=8)
    axes.grid(alpha=0.25)
    return png(figure)
