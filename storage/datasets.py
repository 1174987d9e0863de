"""Datasets: reading one version, and changing a dataset by publishing the next."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import pandas as pd
import pyarrow as pa

from storage.addresses import listed
from storage.documents import Document
from storage.errors import InvalidRequest
from storage.images import read_encoded
from storage.molecules import Atoms, read_atoms
from storage.parts import each, lazy_rows
from storage.patches import Patches
from storage.records import AXES, OWN_COLUMNS, DatasetVersion, PartRef, Schema
from storage.tables import (
    append_rows,
    broad_kind,
    in_one_piece,
    no_samples,
    nullable,
    of_one_kind,
    read_table,
    sample_coordinates,
    select,
    write_table,
)
from storage.training import StoredSamples, TorchSamples
from storage.typing import Array

if TYPE_CHECKING:
    import xarray as xr

    from storage.store import Store

Place = tuple[str, int]  # of a sample: key of a part, row in it
Marks = dict[Place, str | None]


@dataclass(frozen=True)
class Dataset:
    """One version of a dataset, read lazily."""

    store: Store
    name: str
    version: DatasetVersion

    def __repr__(self) -> str:
        number, count = self.version.version, self.version.count
        what = f"{self.schema.variable} {self.schema.size}"
        return f"Dataset({self.name!r}, version {number}: {count} samples, {what})"

    @property
    def schema(self) -> Schema:
        """What every sample is."""
        return self.version.schema

    def all_samples(self) -> pd.DataFrame:
        """Return every sample of every part, with ``withdrawn`` (None or the reason)."""
        tables = each(lambda key: read_table(self.store.backend, key), self.version.samples)
        if not tables:
            return no_samples()
        order = {part.key: index for index, part in enumerate(self.version.parts)}
        gone = {(part.key, row): why for part in self.version.parts for row, why in part.withdrawn}
        frame = of_one_kind(pd.concat(tables, ignore_index=True))
        frame = frame[frame["part"].isin(list(order))]
        frame = frame.assign(__part=frame["part"].map(order)).sort_values(["__part", "row"])
        frame = frame.drop(columns="__part").reset_index(drop=True)
        places = zip(frame["part"], frame["row"], strict=True)
        return in_one_piece(frame).assign(
            withdrawn=pd.Series([gone.get(place) for place in places], dtype=object)
        )

    def samples(self, where: str | None = None) -> pd.DataFrame:
        """Return the table of samples, in the order of the arrays.

        Parameters
        ----------
        where
            A DuckDB expression over its columns.
        """
        frame = self.all_samples()
        frame = frame[frame["withdrawn"].isna()].drop(columns="withdrawn").reset_index(drop=True)
        return select(frame, where, "--where")

    def quarantine(self) -> pd.DataFrame:
        """Return the inputs that were refused: ``unit, reason, message``."""
        key = self.version.quarantine
        empty = pd.DataFrame({"unit": [], "reason": [], "message": []}, dtype=str)
        return read_table(self.store.backend, key) if key else empty

    def to_xarray(self, where: str | None = None) -> xr.DataArray:
        """Return the samples as a lazy array ``(sample[, component], y, x)``.

        Images are ``(sample, y, x, rgb)``.

        The sample table's columns are coordinates along ``sample``; ``y`` and ``x`` are in
        the units of the grid spacing; the attribute ``units`` is that of the values.
        """
        import xarray as xr

        frame, schema = self._stored(self.samples(where)).samples, self.schema
        places = (frame["part"], frame["row"])
        data = lazy_rows(self.store.url, schema.array, *places, schema.row_shape, schema.dtype)
        coordinates = sample_coordinates(frame)
        for axis, size, step in zip("yx", schema.shape, schema.spacing, strict=True):
            coordinates[axis] = (axis, [step * index for index in range(size)])
        if len(schema.components) > 1:
            axis = "rgb" if schema.layout == "images" else "component"
            coordinates[axis] = (axis, list(schema.components))
        attributes: dict[str, object] = {"dataset": self.name, "version": self.version.version}
        if len({*schema.units}) == 1 and schema.units[0] is not None:
            attributes["units"] = schema.units[0]
        return xr.DataArray(data, coordinates, schema.dims, schema.variable, attributes)

    def read(self, samples: pd.DataFrame) -> Array:
        """Read some rows of :meth:`samples`, fields or images, in their order.

        Raises
        ------
        InvalidRequest
            If the dataset holds molecules.
        """
        return self._stored(samples).read(samples)

    def _stored(self, samples: pd.DataFrame) -> StoredSamples:
        if self.schema.layout == "molecules":
            raise InvalidRequest(
                f"{self.name} holds molecules, which have no common shape: use .atoms(where)"
            )
        return StoredSamples(self.store.url, samples, self.schema)

    def read_atoms(self, samples: pd.DataFrame) -> Atoms:
        """Read some rows of :meth:`samples`, molecules, in their order.

        Raises
        ------
        InvalidRequest
            If the dataset holds something else.
        """
        if self.schema.layout != "molecules":
            raise InvalidRequest(f"{self.name} holds {self.schema.layout}: use .to_xarray(where)")
        return read_atoms(self.store.url, samples["part"], samples["row"])

    def atoms(self, where: str | None = None) -> Atoms:
        """Return the selected molecules, in the order of :meth:`samples`.

        Raises
        ------
        InvalidRequest
            If the dataset holds something else.
        """
        return self.read_atoms(self.samples(where))

    def encoded(self, where: str | None = None) -> Iterator[bytes]:
        """Yield the files that the selected images were decoded from, if they were kept."""
        frame = self.samples(where)
        return read_encoded(self.store.url, frame["part"], frame["row"])

    def to_torch(
        self,
        where: str | None = None,
        target: str | None = None,
        *,
        patch: int | None = None,
        overlap: int = 0,
    ) -> TorchSamples:
        """Return the selected fields, or images uint8 ``(y, x, rgb)``, as a torch data set.

        Parameters
        ----------
        where
            A DuckDB expression over sample metadata.
        target
            The column of numbers that comes with each item.
        patch, overlap
            Items are squares of ``patch`` points a side, which share ``overlap`` points with
            their neighbours and cover every point; without ``patch``, whole samples.

        Raises
        ------
        InvalidRequest
            If the dataset holds molecules, or such patches cannot be cut.
        """
        source = self._stored(self.samples(where))
        return TorchSamples(source if patch is None else Patches.of(source, patch, overlap), target)

    def relabel(self, labels: pd.DataFrame, note: str = "relabelled") -> Dataset:
        """Publish a version whose samples carry the columns of ``labels``, copying no array.

        A value that is null clears what a sample had; columns and samples that ``labels`` leaves
        out stay as they are.

        Parameters
        ----------
        labels
            One row a sample, a ``sample_id`` column, and the columns to set or to add.

        Raises
        ------
        InvalidRequest
            If an id is unknown or repeated, or a column is one that users may not set, or would
            hold values of several types.
        """
        self._check_labels(labels)
        said = labels.set_index("sample_id")

        def build(version: DatasetVersion) -> DatasetVersion | None:
            keys = [self._relabelled(key, said) for key in version.samples]
            if tuple(keys) == version.samples:
                return None
            return replace(version, samples=tuple(keys), note=note)

        return self.store.publish_dataset(self.name, build)

    def _check_labels(self, labels: pd.DataFrame) -> None:
        if "sample_id" not in labels or labels["sample_id"].duplicated().any():
            raise InvalidRequest("labels need a column sample_id without repetitions")
        if taken := (OWN_COLUMNS - {"sample_id"}) & set(labels):
            raise InvalidRequest(f"columns {sorted(taken)} state provenance: choose other names")
        if taken := AXES & set(labels):
            raise InvalidRequest(
                f"columns {sorted(taken)} have names of axes of arrays: rename them, as "
                f"{min(taken)}_label"
            )
        held = self.samples()
        if unknown := set(labels["sample_id"]) - set(held["sample_id"]):
            raise InvalidRequest(f"{self.name} has no samples {sorted(unknown)[:5]}")
        others = held[~held["sample_id"].isin(labels["sample_id"])]
        for name in set(labels) & set(others) if len(others) else ():
            kind, other = broad_kind(labels[name]), broad_kind(others[name])
            if kind != other and "empty" not in (kind, other):
                raise InvalidRequest(
                    f"labels are of one type a column: {name!r} is {kind} here and {other} of the "
                    "other samples; label all, or name another column"
                )

    def _relabelled(self, key: str, labels: pd.DataFrame) -> str:
        table = read_table(self.store.backend, key)
        rows = labels.index.get_indexer(pd.Index(table["sample_id"]))
        reached = rows >= 0
        for name, column in labels.items() if reached.any() else ():
            said = nullable(column).iloc[rows].set_axis(table.index)[reached]  # -1: left out
            held = [table[name][~reached]] if name in table and not reached.all() else []
            table[name] = pd.concat([said, *held]).reindex(table.index)
        try:
            return write_table(self.store.backend, table)
        except pa.ArrowException as error:
            raise InvalidRequest(f"labels are of one type a column: {error}") from error

    def withdraw(self, sample_ids: Iterable[str], note: str = "withdrawn") -> Dataset:
        """Publish a version without some samples, copying no array.

        Raises
        ------
        InvalidRequest
            If an id is unknown, or ``sample_ids`` is a single string.
        """
        wanted = set(listed(sample_ids))
        if unknown := wanted - set(self.samples()["sample_id"]):
            raise InvalidRequest(f"{self.name} has no samples {sorted(unknown)[:5]}")
        change = Change(self.schema, withdraw=dict.fromkeys(wanted, "request"), note=note)
        return self.store.publish_dataset(
            self.name, lambda version: change.apply(replace(self, version=version))
        )


@dataclass(frozen=True)
class Change:
    """What one run adds to and takes from a dataset, merged into the newest version.

    Attributes
    ----------
    parts, samples
        New parts and the rows of their table.
    withdraw
        Sample id to reason.
    restore
        Ids of samples withdrawn as ``missing`` that are back.
    stamps
        Unit to size and time of change, where these changed and the content did not.
    seen, refused
        Units that the run looked at, and the table of those it put in quarantine.
    """

    schema: Schema
    parts: tuple[PartRef, ...] = ()
    samples: pd.DataFrame = field(default_factory=pd.DataFrame)
    withdraw: dict[str, str] = field(default_factory=dict)
    restore: Collection[str] = ()
    stamps: dict[str, str] = field(default_factory=dict)
    seen: Collection[str] = ()
    refused: pd.DataFrame = field(default_factory=pd.DataFrame)
    note: str = ""

    def first(self, store: Store) -> DatasetVersion:
        """Return the first version of a dataset that does not exist yet."""
        return self._extended(store, DatasetVersion(self.schema, (), (), note=self.note))

    def apply(self, dataset: Dataset) -> DatasetVersion | None:
        """Return the successor of a dataset's version, or None if the change is already in it."""
        version = dataset.version
        marks = self._marks(version, dataset.all_samples())
        back = self.samples[[place in marks for place in _places(self.samples)]]
        stamps = dict(zip(back.get("unit", ()), back.get("stamp", ()), strict=False))
        after = replace(version, parts=_marked(version.parts, marks), note=self.note)
        following = replace(self, stamps={**self.stamps, **stamps})._extended(dataset.store, after)
        return None if _same(following, version) else following

    def _marks(self, version: DatasetVersion, rows: pd.DataFrame) -> Marks:
        """Say why rows are withdrawn from now on; None of those that are live again.

        A file may hold again what it once held: its rows are there, and were replaced.
        """
        why, places = rows["withdrawn"], pd.Series(_places(rows), dtype=object)
        live, missing = why.isna(), why == "missing"
        leaving = rows["sample_id"].map(self.withdraw).where(live)
        marks: Marks = dict(zip(places[leaving.notna()], leaving.dropna(), strict=True))
        marks |= dict.fromkeys(places[missing & rows["sample_id"].isin(list(self.restore))])
        if self.parts:
            again = places.isin(_places(self.samples))
            taken = pd.concat([self._added_to(version), rows[again & ~live]])
            ours = rows["sample_id"].isin(taken["sample_id"]) | rows["unit"].isin(taken["unit"])
            marks |= dict.fromkeys(places[ours & ~again & (live | missing)], "replaced")
            marks |= dict.fromkeys(places[again & (missing | (why == "replaced"))])
        return marks

    def _extended(self, store: Store, version: DatasetVersion) -> DatasetVersion:
        """Append the parts and the tables that ``version`` lacks."""
        present = {part.key for part in version.parts}
        fresh = tuple(part for part in self.parts if part.key not in present)
        tables = tuple(self._stamped(store, key) for key in version.samples)
        if fresh:
            tables = append_rows(store.backend, tables, self._added_to(version))
        return replace(
            version,
            schema=_with_properties(version.schema, self.schema),
            parts=(*version.parts, *fresh),
            samples=tables,
            quarantine=self._quarantine(store, version),
        )

    def _stamped(self, store: Store, key: str) -> str:
        """Return the key of a table with the new stamps in it."""
        if not self.stamps:
            return key
        table = read_table(store.backend, key)
        stamps = table["unit"].map(self.stamps).fillna(table["stamp"])
        return (
            key
            if stamps.equals(table["stamp"])
            else write_table(store.backend, table.assign(stamp=stamps))
        )

    def _added_to(self, version: DatasetVersion) -> pd.DataFrame:
        """Return the rows of the parts that ``version`` lacks."""
        present = [part.key for part in version.parts]
        return self.samples[~self.samples["part"].isin(present)].reset_index(drop=True)

    def _quarantine(self, store: Store, version: DatasetVersion) -> str | None:
        """Keep the old entries that this run did not look at, and add its own."""
        frames = [self.refused]
        if version.quarantine:
            old = read_table(store.backend, version.quarantine)
            frames.append(old[~old["unit"].isin(list(self.seen))])
        merged = pd.concat([frame for frame in frames if len(frame)] or [pd.DataFrame()])
        if not len(merged):
            return None
        merged = merged.astype("str").drop_duplicates("unit").sort_values("unit")
        return write_table(store.backend, merged.reset_index(drop=True))


def _with_properties(schema: Schema, other: Schema) -> Schema:
    """Return ``schema`` with the quantities of both, and units that only ``other`` knows."""
    known, fresh = dict(schema.properties), dict(other.properties)
    units = {name: known.get(name) or fresh.get(name) for name in {**known, **fresh}}
    return replace(schema, properties=tuple(units.items()))


def _places(rows: pd.DataFrame) -> list[Place]:
    return list(zip(rows["part"], map(int, rows["row"]), strict=True)) if len(rows) else []


def _marked(parts: tuple[PartRef, ...], marks: Marks) -> tuple[PartRef, ...]:
    """Return the parts with the rows among ``marks`` withdrawn, or live again."""
    after = {part.key: dict[int, str | None](part.withdrawn) for part in parts}
    for (key, row), why in marks.items():
        after[key][row] = why
    kept = {key: sorted((r, why) for r, why in of.items() if why) for key, of in after.items()}
    return tuple(replace(part, withdrawn=tuple(kept[part.key])) for part in parts)


def _same(one: DatasetVersion, other: DatasetVersion) -> bool:
    def content(version: DatasetVersion) -> Document:
        return {**version.to_json(), "note": "", "parent": None}

    return content(one) == content(other)
