"""Labels: from tables to samples, from numbers to names, and from names to indices."""

from __future__ import annotations

import io
import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from storage import InvalidRequest, Store
from storage.readers.images.annotations import NUMBER
from storage.sources.filesystem import absolute, read_bytes, without_query

LabelOrder = Literal["sorted", "devkit"]
Rows = npt.NDArray[np.intp]
Classes = Mapping[str, str] | None
_FURTHER = re.compile(r" \+ (?=/|\w+://)")  # between the files of one input
_VALIDATION = re.compile(r"ILSVRC2012_val_\d{8}")
_TWO_ORDERS = (
    "labels of ILSVRC2012's validation images come in two orders: say --label-order sorted (from "
    "0, wnids ascending) or --label-order devkit (from 1, in the order of meta.mat)"
)


def numbered(
    table: pd.DataFrame, classes: Classes, order: LabelOrder | None, samples: pd.DataFrame
) -> pd.DataFrame:
    """Return a table of numbers as one of labels, any other table as it is.

    Raises
    ------
    InvalidRequest
        If the order of the numbers is not given, or contradicts the numbers or the classes.
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


def joined(samples: pd.DataFrame, table: pd.DataFrame) -> pd.DataFrame:
    """Return samples with a table's columns where it has a row for their file."""
    rows = rows_of(samples, table)
    covered = rows >= 0
    if not covered.any():
        return samples
    said = table.iloc[rows].set_axis(samples.index)  # for -1 the last row, left out next
    columns = {str(name): said[name].where(covered, samples.get(name)) for name in said}
    return samples.assign(**columns)


def rows_of(samples: pd.DataFrame, table: pd.DataFrame) -> Rows:
    """Return the number of each sample's row in a table, -1 where there is none.

    Paths are compared by their ends, in whole names: a row belongs to the images with which it
    shares most, and an image has the row with which it shares most, if there is only one. Some
    tables leave extensions out.
    """
    first = samples["source"].map(lambda place: _FURTHER.split(str(place))[0].replace("!", "/"))
    stems = first.str.replace(r"\.[^./]*$", "", regex=True)
    found = [_matched(_names(paths), _names(table.index)) for paths in (first, stems)]
    return max(found, key=lambda rows: int((rows >= 0).sum()))


def _names(paths: Iterable[object]) -> list[list[str]]:
    return [str(path).strip("/").split("/") for path in paths]


def _matched(images: list[list[str]], rows: list[list[str]]) -> Rows:
    found = np.full(len(images), -1)
    left, free = list(range(len(images))), list(range(len(rows)))
    for depth in range(max(map(len, rows), default=0), 0, -1):
        ends: dict[tuple[str, ...], int] = {}
        for row in free:
            if len(rows[row]) >= depth:
                end = tuple(rows[row][-depth:])
                ends[end] = -1 if end in ends else row  # if two end so, neither
        for image in left:
            found[image] = ends.get(tuple(images[image][-depth:]), -1)
        taken = set(found[left].tolist())
        left = [image for image in left if found[image] < 0]
        free = [row for row in free if row not in taken]
    return found


def with_index(samples: pd.DataFrame, classes: Classes, order: LabelOrder | None) -> pd.DataFrame:
    """Return samples with ``label_index``, and with what ``classes`` say of it as ``class_name``.

    The index is the label's place in ``classes`` if given, else the number that the source gives
    (``class_index``), else its place among all labels, sorted. Labels that are the source's numbers
    and not in ``classes`` are places in it. Indices are whole numbers, null without a label.

    Raises
    ------
    InvalidRequest
        If none of the labels is in ``classes``.
    """
    if "label" not in samples:
        return samples
    labels = samples["label"]
    if classes is None:
        return samples.assign(label_index=_whole(labels.map(_numbers(samples))))
    names = list(classes)
    if _are_places(samples, names):
        words = pd.Series([classes[name] or name for name in names])
        index = _whole(samples["class_index"].where(labels.notna()))
        return samples.assign(class_name=index.map(words.to_dict()), label_index=index)
    places = {
        name: place for place, name in enumerate(sorted(names) if order == "devkit" else names)
    }
    index = _whole(labels.map(places))
    if labels.notna().any() and index.isna().all():
        raise InvalidRequest(
            f"--classes: none of the labels is in the list: labels such as "
            f"{_few(labels.dropna().unique())}, the list of {len(names)} begins with {_few(names)}"
        )
    return samples.assign(class_name=labels.map(classes), label_index=index)


def _whole(values: pd.Series) -> pd.Series:
    return pd.to_numeric(values).astype("Int64")


def _numbers(samples: pd.DataFrame) -> dict[str, int]:
    """Return a number for each label, different for all.

    Those of the source are kept if every label has only one of them, and every number one label.
    """
    labels = sorted(samples["label"].dropna().unique())
    own: dict[str, int] = {}
    if "class_index" in samples:
        pairs = samples[["label", "class_index"]].dropna().drop_duplicates()
        if pairs["label"].is_unique and pairs["class_index"].is_unique:
            own = dict(zip(pairs["label"], pairs["class_index"].astype(int), strict=True))
    free = itertools.count(max(own.values(), default=-1) + 1)
    return {label: own[label] if label in own else next(free) for label in labels}


def _are_places(samples: pd.DataFrame, names: Sequence[str]) -> bool:
    """Say whether labels are the source's numbers, and places in a list that names none of them.

    CIFAR-100's are: its names lie in a file of their own.
    """
    if "class_index" not in samples:
        return False
    pairs = samples[["label", "class_index"]][samples["label"].notna()].drop_duplicates()
    numbers = pairs["class_index"]
    return bool(
        len(pairs)
        and numbers.notna().all()
        and (numbers.astype(int).astype(str) == pairs["label"]).all()
        and numbers.max() < len(names)
        and not pairs["label"].isin(names).any()
    )


def _few(names: Iterable[object]) -> str:
    return ", ".join(map(repr, itertools.islice(map(str, names), 3)))


@dataclass(frozen=True)
class Labelled:
    """What a table said of a dataset: how many rows found samples, and how many these are."""

    dataset: str
    version: int
    rows: int
    matched: int
    samples: int
    reached: int
    columns: tuple[str, ...]


def label(store: Store, name: str, place: str, on: str | None = None) -> Labelled:
    """Publish a version of a dataset whose samples carry the columns of a user's table.

    Parameters
    ----------
    place
        A ``.csv`` file with headings, or a ``.parquet`` file.
    on
        Its column of sample ids, or of names of files as `rows_of` takes them; by default
        ``sample_id`` if there is one, else the first.

    Raises
    ------
    InvalidRequest
        If none of its rows belongs to a sample, or its columns cannot be labels.
    """
    table = _own_labels(place, on)
    dataset = store.dataset(name)
    samples = dataset.samples()
    rows = _reached(samples, table, place)
    said = _columns(samples, table, rows, dataset.schema.layout == "images")
    fresh = samples[["sample_id"]].assign(**said)
    made = dataset.relabel(fresh, f"labelled by {place.rpartition('/')[2]}")
    return Labelled(
        name,
        made.version.version,
        rows=len(table),
        matched=len(set(rows[rows >= 0].tolist())),
        samples=len(samples),
        reached=int((rows >= 0).sum()),
        columns=tuple(said),
    )


def _own_labels(place: str, on: str | None) -> pd.DataFrame:
    """Return the labels of a table, indexed by the column that identifies samples."""
    table, on = _own_table(place, on)
    columns = [str(column) for column in table if column != on]
    if on not in table or not columns or "sample_id" in columns:
        raise InvalidRequest(
            f"{place} has the columns {', '.join(map(str, table))}: one of ids or of files (--on) "
            "and labels beside it are expected"
        )
    table = table.set_index(table[on].astype(str))[columns]
    if table.index.has_duplicates:
        twice = table.index[table.index.duplicated()][0]
        raise InvalidRequest(f"{place}: {twice!r} has two rows")
    return table


def _reached(samples: pd.DataFrame, table: pd.DataFrame, place: str) -> Rows:
    """Return the number of each sample's row, found by id or else by file, -1 if it has none."""
    rows: Rows = table.index.get_indexer(pd.Index(samples["sample_id"]))
    if (rows < 0).all() and len(table):
        rows = rows_of(samples, table)
    if (rows < 0).all():
        raise InvalidRequest(
            f"{place}: none of the {table.index.name} of its {len(table)} rows, such as "
            f"{_few(table.index)}, is the id or the file of one of {len(samples)} samples, such as "
            f"{_few(samples['sample_id'])}: name the column by --on"
        )
    return rows


def _columns(
    samples: pd.DataFrame, table: pd.DataFrame, rows: Rows, images: bool
) -> dict[str, pd.Series]:
    """Return columns that all samples are to carry; labels of images are texts with an index."""
    if images and "label" in table:
        table = table.assign(label=table["label"].astype("string"))
    said = {str(c): _said(table[c], rows, samples.get(c)) for c in table}
    if images and "label" in said and "label_index" not in said:
        said["label_index"] = with_index(samples.assign(**said), None, None)["label_index"]
    return said


def _own_table(place: str, on: str | None) -> tuple[pd.DataFrame, str]:
    """Return a table, and the name of its column of ids or files."""
    try:
        data = read_bytes(absolute(place))
        if without_query(place).endswith(".parquet"):
            table = pd.read_parquet(io.BytesIO(data), dtype_backend="numpy_nullable")
            return table, _key(table, on)
        text = data.decode("utf-8-sig")
        first = text.split("\n", 1)[0]
        mark = max(",;\t", key=first.count)
        key = _key(pd.read_csv(io.StringIO(text), sep=mark, nrows=0), on)
        return pd.read_csv(
            io.StringIO(text), sep=mark, dtype={key: "string"}, dtype_backend="numpy_nullable"
        ), key
    except FileNotFoundError:
        raise InvalidRequest(f"{place} does not exist") from None
    except (ValueError, OSError) as error:
        raise InvalidRequest(
            f"{place} is neither .csv with headings nor .parquet: {error}"
        ) from None


def _key(table: pd.DataFrame, on: str | None) -> str:
    return on or ("sample_id" if "sample_id" in table else str(table.columns[0]))


def _said(column: pd.Series, rows: Rows, held: pd.Series | None) -> pd.Series:
    """Return a table's values for samples that have a row, else those that are held."""
    reached = pd.Series(rows >= 0)
    said = column.iloc[rows].set_axis(reached.index)[reached]  # -1 is the last row, left out
    kept = [] if held is None or reached.all() else [held[~reached]]
    together: pd.Series = pd.concat([said, *kept])
    return together.reindex(reached.index)
