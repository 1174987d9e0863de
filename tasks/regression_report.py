"""The report on a regression: its errors by group, pictures, and a model card."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd

from storage import Dataset
from tasks import molecule_figures as figures
from tasks.molecules import elements_of
from tasks.requests import FitRequest
from wavemill.specs import RegressionSpec


def metrics_of(test: pd.DataFrame) -> dict[str, float]:
    """Return errors on held-out molecules, overall and by group."""
    error = (test["predicted"] - test["truth"]).to_numpy()
    metrics = {
        "mae": float(np.abs(error).mean()),
        "rmse": float(np.sqrt(np.square(error).mean())),
        "median_error": float(np.median(np.abs(error))),
        "largest_error": float(np.abs(error).max()),
    }
    for name, group in _groups(test).items():
        metrics |= {f"mae {name} {label}": float(value) for label, value in group.items()}
    return metrics


def _groups(test: pd.DataFrame) -> dict[str, pd.Series]:
    """Return mean absolute errors by number of heavy atoms and by the elements present."""
    error = (test["predicted"] - test["truth"]).abs()
    kinds = test["formula"].str.replace(r"\d+", "", regex=True)
    common = kinds.map(kinds.value_counts()) >= max(2, len(test) // 200)
    return {
        "heavy atoms": error.groupby(test["n_heavy"]).mean(),
        "elements": error[common].groupby(kinds[common]).mean(),
    }


def pictures(test: pd.DataFrame, target: str, unit: str) -> dict[str, bytes]:
    """Return pictures of predictions and of errors."""
    truth, predicted = test["truth"].to_numpy(), test["predicted"].to_numpy()
    return {
        "parity": figures.parity(truth, predicted, target, unit),
        "errors": figures.errors_by(_groups(test), unit),
    }


def card(
    rows: pd.DataFrame,
    held: int,
    unit: str,
    request: FitRequest,
    spec: RegressionSpec,
    metrics: dict[str, float],
    source: Dataset,
) -> str:
    """Return the model card: what it is for, what it learnt from (``rows``), how wrong it is."""
    seen = f"the view `{request.view}`" if request.view else "the surroundings of its atoms"
    elements = ", ".join(map(str, elements_of(rows["formula"])))
    sizes = rows["n_atoms"]
    lines = [
        f"# {spec.model} regression of {request.target}",
        "",
        f"Predicts `{request.target}` ({unit or 'unit unknown'}) of a molecule from its "
        f"geometry, through {seen}.",
        "",
        f"- Learnt from {len(sizes):,} molecules of `{source.name}` version "
        f"{source.version.version} ({request.selection or 'all'}), seed {request.seed}, of "
        f"{sizes.min()} to {sizes.max()} atoms with nuclear charges {elements}.",
        f"- Judged by {held:,} others, held out by a hash of ids: mean "
        f"absolute error {metrics['mae']:.3g}, root mean square {metrics['rmse']:.3g}, largest "
        f"{metrics['largest_error']:.3g} {unit}; the composition alone has "
        f"{metrics['composition_mae']:.3g}.",
        "- Geometries are expected as those learnt from: relaxed by the same method. Molecules "
        "with other elements are flagged and not predicted; much larger ones are extrapolation.",
        f"- Spec: `{json.dumps(spec.to_dict(), sort_keys=True)}`.",
        "",
    ]
    return "\n".join(lines)
