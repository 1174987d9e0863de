"""Pictures: fields, spectra, distributions and coefficients, as PNG."""

from __future__ import annotations

import base64
import io
import warnings
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text

from storage import Dataset
from storage.typing import Array
from tasks.requests import spread

MAPS = "RdBu_r"
SHOWN = 4  # samples of a dataset in a picture


def png(figure: Figure) -> bytes:
    """Render a figure."""
    buffer, software = io.BytesIO(), {"Software": None}
    for text in figure.findobj(Text):
        assert isinstance(text, Text)
        if "$" in text.get_text():  # in a name from the data: not a formula
            text.set_parse_math(False)
    with warnings.catch_warnings():  # class names in scripts that the font lacks become boxes
        warnings.filterwarnings("ignore", r"Glyph \d+ .* missing from", UserWarning)
        figure.savefig(buffer, format="png", dpi=110, bbox_inches="tight", metadata=software)
    return buffer.getvalue()


def data_uri(image: bytes) -> str:
    """Return a PNG as a URI that HTML and the Prefect UI show without a server."""
    return "data:image/png;base64," + base64.b64encode(image).decode()


def shown(dataset: Dataset, count: int = SHOWN) -> dict[str, Array]:
    """Return a few samples of a dataset, by id, for a picture."""
    rows = dataset.samples()
    rows = rows.iloc[spread(len(rows), count)]
    return dict(zip(rows["sample_id"], first_component(dataset.read(rows)), strict=True))


def first_component(fields: Array) -> Array:
    """Return ``(n, y, x)`` of fields that may have a component axis."""
    return fields if fields.ndim == 3 else fields[:, 0]


def fields(panels: Mapping[str, Array], columns: int = 4) -> bytes:
    """Draw fields ``(y, x)`` side by side on one colour scale, symmetric about their mean."""
    count = len(panels)
    columns = min(columns, count)
    rows = -(-count // columns)
    figure = Figure(figsize=(2.6 * columns, 2.75 * rows), layout="constrained")
    centre, reach = _scale(list(panels.values()))
    for index, (title, field) in enumerate(panels.items()):
        axes = figure.add_subplot(rows, columns, index + 1)
        image = axes.imshow(
            field, cmap=MAPS, vmin=centre - reach, vmax=centre + reach, origin="lower"
        )
        axes.set_title(title, fontsize=9)
        axes.set_xticks([])
        axes.set_yticks([])
    figure.colorbar(image, ax=figure.axes, shrink=0.8, aspect=25)
    return png(figure)


def _scale(panels: Sequence[Array]) -> tuple[float, float]:
    """Return the mean and the 99.5th percentile of the deviation, over the first panel."""
    values = np.asarray(panels[0], dtype=float)
    centre = float(values.mean())
    return centre, float(np.quantile(np.abs(values - centre), 0.995)) or abs(centre) or 1.0


def spectra(groups: Mapping[str, Array], periodic: bool) -> bytes:
    """Draw isotropic power spectra of groups of fields ``(n, y, x)``, with their scatter.

    Fields that are not ``periodic`` are tapered first, as when models are judged.
    """
    import torch

    from wavemill.spectra import isotropic_spectrum, tapered

    figure = Figure(figsize=(4.6, 3.4), layout="constrained")
    axes = figure.add_subplot()
    for label, group in groups.items():
        x = torch.from_numpy(group.astype("float64"))
        wavenumbers, density = isotropic_spectrum(x if periodic else tapered(x))
        band(axes, wavenumbers.numpy(), density.numpy(), label)
    axes.set(xscale="log", xlabel="wavenumber (radians a sample)", ylabel="variance density")
    _logarithmic(axes, 9)
    axes.legend(frameon=False, fontsize=8)
    axes.grid(alpha=0.25)
    return png(figure)


def distributions(groups: Mapping[str, Array]) -> bytes:
    """Draw the distributions of values beside the normal law.

    All are centred on the mean of the first group, in units of its standard deviation.
    """
    import torch

    from wavemill.spectra import pdf

    figure = Figure(figsize=(4.6, 3.4), layout="constrained")
    axes = figure.add_subplot()
    centres = np.zeros(0)
    first = next(iter(groups.values())).astype("float64")
    mean, deviation = first.mean(), first.std() or 1.0
    for label, group in groups.items():
        standard = torch.from_numpy((group.astype("float64") - mean) / deviation)
        laws = [pdf(field, 96, (-8.0, 8.0)) for field in standard]
        centres = laws[0][0].numpy()
        band(axes, centres, np.stack([density.numpy() for _, density in laws]), label)
    normal = np.exp(-(centres**2) / 2) / np.sqrt(2 * np.pi)
    axes.plot(centres, normal, "k:", lw=1, label="normal")
    axes.set(yscale="log", xlabel="value / standard deviation", ylabel="density", ylim=(1e-5, 1))
    axes.legend(frameon=False, fontsize=8)
    axes.grid(alpha=0.25)
    return png(figure)


def band(axes: Axes, x: Array, curves: Array, label: str, positive: bool = True) -> None:
    """Draw the mean of curves and, where there are several, one standard deviation about it.

    If ``positive``, as for a logarithmic axis, the band stays positive.
    """
    curves = curves.astype("float64")  # squares of large values overflow single precision
    mean = curves.mean(axis=0)
    shown = np.where(mean > 0, mean, np.nan) if positive else mean
    (line,) = axes.plot(x, shown, lw=1.6, label=label)
    if len(curves) > 1:
        spread = curves.std(axis=0)
        low = np.maximum(mean - spread, mean * 1e-2) if positive else mean - spread
        axes.fill_between(x, low, mean + spread, color=line.get_color(), alpha=0.2, lw=0)


def _logarithmic(axes: Axes, decades: int) -> None:
    """Make the axis logarithmic, over at most so many decades, if any line is positive anywhere."""
    if any((np.asarray(line.get_ydata()) > 0).any() for line in axes.lines):
        axes.set_yscale("log")
        low, high = axes.get_ylim()
        axes.set_ylim(max(low, high * 10.0**-decades), high)


def coefficients(table: pd.DataFrame, features: Array) -> bytes:
    """Draw the mean of each coefficient over samples (and space), with its scatter.

    First-order wavelet coefficients are laid out as scale by angle; anything else is a curve.
    """
    values = features.reshape(*features.shape[:2], -1).mean(axis=2, dtype="float64")
    figure = Figure(figsize=(6.4, 3.2), layout="constrained")
    axes = figure.add_subplot()
    first = table[table["order"] == 1] if "order" in table and "j1" in table else table[:0]
    if len(first) and "l1" in first:
        positions = [int(position) for position in first.index]
        grid = first.assign(value=values[:, positions].mean(axis=0))
        pivot = grid.pivot_table(index="j1", columns="l1", values="value", aggfunc="mean")
        image = axes.imshow(pivot.to_numpy(), cmap="viridis", aspect="auto")
        axes.set(xlabel="angle l1", ylabel="scale j1", title="mean first-order coefficients")
        axes.set_xticks(range(len(pivot.columns)), list(map(str, pivot.columns)))
        axes.set_yticks(range(len(pivot.index)), list(map(str, pivot.index)))
        figure.colorbar(image, ax=axes)
    else:
        index = np.arange(values.shape[1])
        band(axes, index, np.abs(values), "mean over samples")
        axes.set(xlabel="coefficient", ylabel="magnitude")
        _logarithmic(axes, 9)
        axes.legend(frameon=False, fontsize=8)
    return png(figure)
