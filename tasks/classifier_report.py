"""What an artifact of a classifier says of itself: tables, pictures of its codes, its card."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch

from storage import Dataset
from storage.typing import Array
from tasks import classifier_figures as figures
from tasks.feature_batches import LabelledFeatures
from tasks.figures import first_component
from tasks.requests import FitRequest, spread
from wavemill.dictionaries.classifiers import Network, Standardisation
from wavemill.specs import ClassifierSpec

if TYPE_CHECKING:
    from tasks.classifier_data import Data

LOOKED_AT = 256
SHOWN = 4


def per_class(counts: Array, classes: tuple[str, ...]) -> pd.DataFrame:
    """Return, for each class, how many samples there were, and precision and recall."""
    total, taken, right = counts.sum(1), counts.sum(0), counts.diagonal()
    return pd.DataFrame(
        {
            "samples": total,
            "recall": right / np.maximum(total, 1),
            "precision": right / np.maximum(taken, 1),
        },
        pd.Index(classes, name="class"),
    )


@torch.no_grad()
def code_pictures(
    network: Network | None,
    held: LabelledFeatures,
    data: Data,
    standardisation: Standardisation,
    source: Dataset,
) -> Iterator[tuple[str, bytes]]:
    """Yield pictures of atoms and codes, and of supports as thresholds fall.

    Atoms and codes are those of the first dictionary, which sees the features themselves.
    """
    if network is None:
        return
    network = network.cpu()
    rows = spread(len(held), LOOKED_AT)
    x = held.features(rows)
    if network.coding is not None:
        coding, maps = network.coding, network.blocks(x)
        thresholds = coding.get_buffer("thresholds").numpy()
        supports = [coding.codes(maps, n + 1) != 0 for n in range(len(thresholds))]
        sizes = [float(active.sum(1).double().mean()) for active in supports]
        uses = supports[-1].double().mean((0, 2, 3)).numpy()
        yield "supports", figures.supports(thresholds, np.array(sizes), uses)
    first = network.first
    if first is None:
        return
    z = first.codes(x)
    uses = (z != 0).double().mean((0, 2, 3)).numpy()
    atoms = first_order(first.atoms(), standardisation, data.frame.coefficients)
    yield "atoms", figures.atoms(atoms, uses)
    few = spread(len(rows), SHOWN)
    z = z[torch.from_numpy(few)]
    pictures = _shown(source, data.held.iloc[rows[few]])
    counts = (z != 0).sum(1).numpy()
    yield "codes", figures.codes(pictures, counts, z.mean((2, 3)).numpy())


def _shown(source: Dataset, rows: pd.DataFrame) -> dict[str, Array]:
    """Return samples by the ends of their names; of fields, the first component."""
    held = source.read(rows)
    held = held if source.schema.layout == "images" else first_component(held)
    return dict(zip((str(i).rpartition("/")[2] for i in rows["sample_id"]), held, strict=True))


def first_order(
    atoms: torch.Tensor, standardisation: Standardisation, table: pd.DataFrame
) -> Array:
    """Return ``(atom, scale, angle)`` of atoms ``(component, atom)``, averaged over all else.

    They are taken back to features by the transpose of the standardisation. For a view without
    wavelets of the first order: ``(atom, 1, channel)``.
    """
    if standardisation.components:
        atoms = standardisation.axes_ @ atoms
    table = table.reset_index(drop=True)
    if not {"order", "j1", "l1"} <= set(table) or not (table["order"] == 1).any():
        return atoms.T[:, None, :].numpy()
    first = table[table["order"] == 1]
    scales, angles = sorted(set(first["j1"])), sorted(set(first["l1"]))
    maps = np.zeros((atoms.shape[1], len(scales), len(angles)))
    for (scale, angle), group in first.groupby(["j1", "l1"]):
        found = atoms[torch.tensor(group.index.to_numpy())].mean(0)
        maps[:, scales.index(scale), angles.index(angle)] = found.numpy()
    return maps


def card(data: Data, spec: ClassifierSpec, request: FitRequest, metrics: dict[str, float]) -> str:
    """Return the model card: what it is for, what it learnt from, how often it is wrong."""
    lines = [
        f"# {spec.model} classifier of {request.target}",
        "",
        f"Tells {len(data.classes)} classes of `{data.frame.dataset}` apart by the view "
        f"`{request.view}`.",
        "",
        f"- Learnt from {len(data.learnt):,} samples ({request.selection or 'all'}), seed "
        f"{request.seed}; {int(metrics['epochs'])} epochs.",
        f"- Judged by {len(data.held) + data.unlearnt:,} others, held out by a hash of ids: top-1 "
        f"{metrics['top1']:.4f}, top-5 {metrics['top5']:.4f}. Where several models or epochs were "
        "compared by these, they are no independent estimate.",
        f"- Of these {data.unlearnt:,} are of classes it did not learn, and count as wrong.",
        "- It answers with one of its classes whatever it is shown.",
        f"- Spec: `{json.dumps(spec.to_dict(), sort_keys=True)}`.",
        "",
    ]
    return "\n".join(lines)
