"""Tables that describe many images: labels, attributes, splits."""

from __future__ import annotations

import io
import re
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import pandas as pd

from storage.errors import InvalidRequest

TABLES = re.compile(
    r"val_annotations\.txt|list_(attr|eval_partition|bbox|landmarks_align)_?celeba?\.(txt|csv)"
    r"|list_eval_partition\.(txt|csv)|identity_celeba\.txt|loc_val_solution\.csv"
    r"|ilsvrc2012_validation_ground_truth\.txt",
    re.IGNORECASE,
)
NUMBER = "number"  # column of labels given as numbers, whose order is not known here
_OURS = {"partition": "split", "class": "label", "width": "box_width", "height": "box_height"}
PARTITIONS = ("train", "validation", "test")
WNID = re.compile(r"n\d{8}")
Rows = list[list[str]]


def is_table(name: str) -> bool:
    """Say whether a file is called like one of the known tables."""
    return TABLES.fullmatch(name.rpartition("/")[2]) is not None


def read_annotations(name: str, data: bytes) -> pd.DataFrame:
    """Return what a table says, one row an image, indexed by the image's path as it is written.

    Columns are ``label``, ``split``, attributes; ``number`` where labels are numbers. A bare list
    of numbers belongs to ``ILSVRC2012_val_00000001.JPEG`` and so on.

    Raises
    ------
    InvalidRequest
    If it has none of the known forms.
    """
    text = data.decode("utf-8-sig", "replace")
    lines = [line for line in text.splitlines() if line.strip()]
    try:
        table = _parsed(PurePosixPath(name).name.lower(), lines)
    except (ValueError, IndexError, KeyError) as error:
        raise InvalidRequest(f"{name}: cannot be read as a table of images: {error}") from None
    table.index = table.index.map(lambda place: PurePosixPath(str(place)).as_posix())
    if table.index.duplicated().any():
        twice = table.index[table.index.duplicated()][0]
        raise InvalidRequest(f"{name}: {twice!r} has two rows")
    return table


def _parsed(name: str, lines: list[str]) -> pd.DataFrame:
    if name.endswith(".csv"):
        first = lines[0].split(",")[0].strip('"')
        table = pd.read_csv(io.StringIO("\n".join(lines)), dtype={first: str})
        return _named(table.set_index(first))
    if "\t" in lines[0]:
        return _boxes([line.split("\t") for line in lines])
    if len(lines) > 1 and lines[0].strip().isdigit() and not lines[1].strip().isdigit():
        return _celeba(lines)
    rows = [line.split() for line in lines]
    if all(len(row) == 1 for row in rows):
        names = [f"ILSVRC2012_val_{number:08d}.JPEG" for number in range(1, len(rows) + 1)]
        return pd.DataFrame({NUMBER: [int(row[0]) for row in rows]}, index=names)
    return _two_columns(name, rows)


def _boxes(rows: Rows) -> pd.DataFrame:
    """Return labels and boxes of Tiny ImageNet's validation images."""
    table = pd.DataFrame({"label": [row[1] for row in rows]}, index=[row[0] for row in rows])
    if all(len(row) == 6 for row in rows):
        corners = np.array([row[2:] for row in rows]).astype(int)
        for position, corner in enumerate(("left", "top", "right", "bottom")):
            table[f"box_{corner}"] = corners[:, position]
    return table


def _celeba(lines: list[str]) -> pd.DataFrame:
    """Return CelebA's columns: a count, the names, then a name and a number for each."""
    names = [name for name in lines[1].split() if name != "image_id"]
    rows = [line.split() for line in lines[2:]]
    if len(rows) != int(lines[0]) or any(len(row) != 1 + len(names) for row in rows):
        raise ValueError(f"{int(lines[0])} rows of {len(names)} values are declared")
    values = np.array([row[1:] for row in rows]).astype(int)
    return _named(pd.DataFrame(values, index=[row[0] for row in rows], columns=names))


def _named(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table with headings: -1 and 1 as booleans, known headings under our names."""
    table = table.rename(columns=_OURS)
    if "PredictionString" in table:  # n01751748 111 108 230 365
        table = pd.DataFrame({"label": table["PredictionString"].str.split().str[0]})
    for column in table:
        if set(table[column].unique()) <= {-1, 1}:
            table[column] = table[column] > 0
    if "split" in table and table["split"].isin([0, 1, 2]).all():
        table["split"] = [PARTITIONS[int(number)] for number in table["split"]]
    return table


def _two_columns(name: str, rows: Rows) -> pd.DataFrame:
    index, values = [row[0] for row in rows], [row[1] for row in rows]
    if "partition" in name:
        return pd.DataFrame({"split": [PARTITIONS[int(value)] for value in values]}, index=index)
    if "identity" in name:
        return pd.DataFrame({"identity": list(map(int, values))}, index=index)
    if all(value.isdigit() for value in values):
        return pd.DataFrame({NUMBER: list(map(int, values))}, index=index)
    return pd.DataFrame({"label": values}, index=index)


def read_classes(name: str, data: bytes) -> dict[str, str]:
    """Return the classes in a list's order, each with the words that describe it.

    A line holds a class and, after a space or tab, what it is: ``n01440764 tench, Tinca tinca``.
    A line that does not begin with a wnid is a name as a whole. ``meta.mat`` of ILSVRC2012's devkit
    holds its classes in the order of the devkit.

    Raises
    ------
    InvalidRequest
        If a class occurs twice, or there is none.
    """
    if name.lower().endswith(".mat"):
        return _devkit_classes(data)
    lines = [
        line.strip() for line in data.decode("utf-8-sig", "replace").splitlines() if line.strip()
    ]
    pairs = [re.split(r"\s+", line, maxsplit=1) if WNID.match(line) else [line] for line in lines]
    classes = {pair[0]: pair[1] if len(pair) > 1 else "" for pair in pairs}
    if len(classes) < len(lines) or not classes:
        raise InvalidRequest(f"{name}: {len(lines)} lines name {len(classes)} classes")
    return classes


def _devkit_classes(data: bytes) -> dict[str, str]:
    from scipy.io import loadmat

    content: Any = io.BytesIO(data)
    synsets = loadmat(content, squeeze_me=True)["synsets"]
    leaves = [row for row in synsets if int(row["num_children"]) == 0]
    leaves.sort(key=lambda row: int(row["ILSVRC2012_ID"]))
    return {str(row["WNID"]): str(row["words"]) for row in leaves}
