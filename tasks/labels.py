"""Labels: from the numbers of a table to names, and from names to indices."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal

import pandas as pd

from storage import InvalidRequest
from storage.readers.images.annotations import NUMBER

LabelOrder = Literal["sorted", "devkit"]
Classes = Mapping[str, str] | None
_VALIDATION = re.compile(r"ILSVRC2012_val_\d{8}")
_TWO_ORDERS = (
    "labels of ILSVRC2012's validation images come in two orders: say --label-order sorted (from "
    "0, wnids ascending) or --label-order devkit (from 1, in the order of meta.mat)"
)


def numbered(
    table: pd.DataFrame, classes: Classes, order: LabelOrder | None, samples: pd.DataFrame
) -> pd.DataFrame:
    """Return a table of numbers as one of labels; any other as it is.

    Raises
    ------
    InvalidRequest
        If the order of the numbers is not said, or contradicts them, or the classes.
    """
    if NUMBER not in table:
        return table
    if not samples["source"].map(lambda place: _VALIDATION.search(str(place)) is not None).any():
        return table[:0]
    if order is None:
        raise InvalidRequest(_TWO_ORDERS)
    if classes is None:
        raise InvalidRequest(
            "numbers of validation labels need --classes: LOC_synset_mapping.txt for --label-order "
            "sorted, the devkit's meta.mat for devkit"
        )
    names, first = list(classes), 0 if order == "sorted" else 1
    if (names == sorted(names)) != (order == "sorted"):
        raise InvalidRequest(f"--label-order {order}: --classes are not in that order")
    numbers = table[NUMBER] - first
    if numbers.min() < 0 or numbers.max() >= len(names):
        raise InvalidRequest(
            f"--label-order {order} counts from {first} to {len(names) - 1 + first}; the table "
            f"has {table[NUMBER].min()} to {table[NUMBER].max()}: it is in the other order"
        )
    return table.assign(label=[names[number] for number in numbers]).drop(columns=NUMBER)


def with_index(samples: pd.DataFrame, classes: Classes, order: LabelOrder | None) -> pd.DataFrame:
    """Return samples with ``label_index``, and what ``classes`` say of a label as ``class_name``.

    The index is the place in ``classes`` where there are any, else the number that the source
    gives (``class_index``), else the place among all labels sorted.
    """
    if "label" not in samples:
        return samples
    labels = samples["label"]
    if classes is not None:
        known = sorted(classes) if order == "devkit" else list(classes)
        samples = samples.assign(class_name=labels.map(classes))
    else:
        known = sorted(labels.dropna().unique())
    index = labels.map({label: place for place, label in enumerate(known)})
    if classes is None and "class_index" in samples:
        index = samples["class_index"].where(samples["class_index"].notna(), index)
    whole = index.notna().all()
    return samples.assign(label_index=index.astype("int64" if whole else "float64"))
