"""Feature queries: which samples, which coefficients, read only when converted."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from storage import index
from storage.addresses import listed
from storage.arrays import shard_rows
from storage.backends import open_backend
from storage.datasets import Dataset
from storage.documents import AsOf
from storage.errors import InvalidRequest, NotFound
from storage.parts import FEATURES, gather, lazy_rows, shards
from storage.records import PLACES, ViewVersion
from storage.shards import Positions
from storage.tables import read_table, sample_coordinates, select
from storage.training import TorchSamples, check_batch
from storage.typing import Array

if TYPE_CHECKING:
    import dask.array as da
    import xarray as xr

    from storage.store import Store

_TOGETHER = 4  # shards read at a time


@dataclass(frozen=True)
class FeatureFrame:
    """Samples by coefficients, not yet read unless :meth:`load` did.

    Attributes
    ----------
    samples
        One row a sample: id, metadata, and where its features lie.
    coefficients
        One row a coefficient: what it is, with its ``position`` in the stored array.
    missing
        Number of selected samples whose features are not computed yet.
    loaded
        Features of all samples ``(sample, coefficient[, y, x])``, if they are in memory.
    """

    url: str
    dataset: str
    view: str
    version: ViewVersion
    samples: pd.DataFrame
    coefficients: pd.DataFrame
    missing: int = 0
    loaded: Array | None = None

    def __len__(self) -> int:
        return len(self.samples)

    def __repr__(self) -> str:
        sizes = (len(self), len(self.coefficients), *self.version.row_shape[1:])
        axes = ", ".join(f"{n}: {size}" for n, size in zip(self.version.dims, sizes, strict=True))
        held = "not read" if self.loaded is None else "in memory"
        return f"FeatureFrame({self.view} of {self.dataset!r}; {axes}; {held})"

    def head(self, count: int) -> FeatureFrame:
        """Return the first ``count`` samples."""
        return self._of(self.samples.head(count), slice(count))

    def load(self) -> FeatureFrame:
        """Return the same selection with all features in memory, where look-ups take microseconds.

        For serving: look-ups, tables, arrays and batches then read nothing. :meth:`read` and
        :meth:`to_torch` still read rows from the store.
        """
        return replace(self, loaded=self._values(slice(None)))

    def _of(self, samples: pd.DataFrame, at: slice | Positions) -> FeatureFrame:
        """Return the samples at some positions, with a table of their own."""
        loaded = None if self.loaded is None else self.loaded[at]
        return replace(self, samples=samples, loaded=loaded)

    def join(self, entities: pd.DataFrame) -> FeatureFrame:
        """Return the features of the rows of a table, in its order, with its columns.

        Parameters
        ----------
        entities
            A column ``sample_id``, in which ids may repeat, and any others, which replace columns
            of the same names here.

        Raises
        ------
        InvalidRequest
            If an id has no features here, or a column has the name of one of the store's own.
        """
        if not isinstance(entities, pd.DataFrame):
            raise InvalidRequest(
                f"a table is expected, not a {type(entities).__name__}: of ids alone, "
                'pd.DataFrame({"sample_id": ids})'
            )
        if "sample_id" not in entities:
            raise InvalidRequest(
                f"no column sample_id to join by; columns: {', '.join(map(str, entities))}"
            )
        if kept := sorted(PLACES & {*entities}):
            raise InvalidRequest(f"{kept} are columns of the store's own: rename them")
        at = self._find(entities["sample_id"])
        unknown = entities["sample_id"][at < 0]
        if len(unknown):
            raise InvalidRequest(
                f"{len(unknown)} of {len(entities)} ids have no {self.view} in this selection of "
                f"{self.dataset}, such as {unknown.iloc[0]!r}: leave them out, or compute them"
            )
        ours = self.samples.drop(columns=list(entities), errors="ignore").iloc[at]
        tables = [table.reset_index(drop=True) for table in (entities, ours)]
        return self._of(pd.concat(tables, axis=1), at)

    @cached_property
    def _columns(self) -> list[int] | None:
        positions = [int(position) for position in self.coefficients["position"]]
        return None if positions == list(range(self.version.row_shape[0])) else positions

    def to_xarray(self) -> xr.DataArray:
        """Return an array ``(sample, coefficient[, y, x])`` with labelled axes, lazy or loaded."""
        import xarray as xr

        data = self.loaded if self.loaded is not None else self._lazy()
        table = self.coefficients.drop(columns="position")
        coordinates = sample_coordinates(self.samples, list(map(str, table)))
        for name in table:  # a label must not share the name of an axis
            label = name if name not in ("sample", *self.version.dims) else f"{name}_name"
            values = table[name]
            text = pd.api.types.is_string_dtype(values)
            coordinates[str(label)] = (
                "coefficient",
                values.to_numpy(dtype=object if text else None),
            )
        attributes = {"dataset": self.dataset, "view": self.view, "version": self.version.version}
        return xr.DataArray(data, coordinates, self.version.dims, self.view, attributes)

    def _lazy(self) -> da.Array:
        return lazy_rows(
            self.url,
            FEATURES,
            *self._places,
            self.version.row_shape,
            self.version.dtype,
            self._columns,
        )

    def batches(self, rows: int = 1024) -> Iterator[tuple[pd.DataFrame, Array]]:
        """Yield tables of samples and their features, ``rows`` at a time."""
        check_batch(rows)
        for start in range(0, len(self), rows):
            at = slice(start, start + rows)
            yield self.samples.iloc[at], self._values(at)

    def read(self, samples: pd.DataFrame) -> Array:
        """Read the features of some samples, all of which must have them, in their order."""
        return self._gather(self._keys(samples), samples["row"])

    def _keys(self, samples: pd.DataFrame) -> Array:
        """Return the parts in which the features of samples lie."""
        parts, held = self.version.parts, samples["part"].to_numpy(dtype=object)
        return np.array([parts[part] for part in held], dtype=object)

    def lookup(self, ids: Iterable[str]) -> Array:
        """Read the features of samples by id, in the order asked.

        For serving: the frame stays at its version, and after the first call knows where all
        features lie; after :meth:`load` nothing is read any more.

        Raises
        ------
        NotFound
            If an id is not in this selection.
        """
        ids = listed(ids)
        at = self._find(ids)
        if unknown := [i for i, place in zip(ids, at, strict=True) if place < 0]:
            raise NotFound(f"no {self.view} of {unknown[:5]} in this selection of {self.dataset}")
        return self._values(at)

    def _find(self, ids: Sequence[str] | pd.Series) -> Positions:
        """Return the positions of ids, -1 for those that are not here."""
        if not self._ids.is_unique:
            raise InvalidRequest(
                "samples repeat in this frame: ask the store for features of the dataset again"
            )
        return self._ids.get_indexer(pd.Index(ids, dtype=object))

    @cached_property
    def _ids(self) -> pd.Index:
        ids: pd.Index = pd.Index(self.samples["sample_id"], dtype=object)
        return ids

    @cached_property
    def _places(self) -> tuple[Array, Array]:
        return self._keys(self.samples), self.samples["row"].to_numpy(dtype=np.intp)

    def _values(self, at: slice | Positions) -> Array:
        """Return the features of the samples at some positions."""
        if self.loaded is not None:
            return self.loaded[at]
        parts, rows = self._places
        return self._gather(parts[at], rows[at])

    def _gather(self, parts: Array, rows: pd.Series | Array) -> Array:
        shape = (len(self.coefficients), *self.version.row_shape[1:])
        return gather(self.url, FEATURES, parts, rows, shape, self.version.dtype, self._columns)

    def shards(self) -> list[Positions]:
        """Return, for every shard, the positions of the samples that lie in it."""
        shard = shard_rows(self.version.row_shape, self.version.dtype)
        return shards(self.samples["part"], self.samples["row"], shard)

    def to_pandas(self) -> pd.DataFrame:
        """Return one row a sample: its metadata, then one column a coefficient.

        Coefficients that are maps are averaged over space; :meth:`to_xarray` keeps the maps.
        """
        means = np.empty((len(self), len(self.coefficients)), self.version.dtype)
        shards = self.shards()
        for start in range(0, len(shards), _TOGETHER):
            at = np.concatenate(shards[start : start + _TOGETHER])
            means[at] = _means(self._values(at))
        return self.table(self.samples, means)

    def table(self, samples: pd.DataFrame, features: Array) -> pd.DataFrame:
        """Return the rows of :meth:`to_pandas` for one batch."""
        columns = [str(name) for name in self.coefficients["name"]]
        metadata = samples.drop(columns=[c for c in PLACES if c in samples])
        values = pd.DataFrame(_means(features), index=metadata.index, columns=columns)
        return pd.concat([metadata, values], axis=1).reset_index(drop=True)

    def to_torch(self, target: str | None = None) -> TorchSamples:
        """Return a map-style torch data set with batched reads, opened in each worker.

        Parameters
        ----------
        target
            A numeric column of the sample table to yield beside the features.
        """
        return TorchSamples(self, target)


def _means(features: Array) -> Array:
    """Average maps over space."""
    means: Array = features.reshape(*features.shape[:2], math.prod(features.shape[2:])).mean(2)
    return means


def historical_features(
    store: Store,
    dataset: str,
    view: str,
    where: str | None,
    coefficients: str | None,
    as_of: AsOf,
) -> FeatureFrame:
    """Select samples and coefficients; see :meth:`storage.Store.get_historical_features`."""
    source = store.dataset(dataset, as_of)
    version = store.view(dataset, view, as_of)
    return _frame(store, source, view, version, source.samples(where), coefficients)


def online_features(
    store: Store, dataset: str, ids: Iterable[str], view: str, coefficients: str | None
) -> FeatureFrame:
    """Look samples up by id; see :meth:`storage.Store.get_online_features`.

    Raises
    ------
    InvalidRequest
        If ``ids`` is a single string.
    NotFound
        If an id is not in the dataset.
    """
    source = store.dataset(dataset)
    ids = listed(ids)
    samples = index.locate(source, ids)
    known = set(samples["sample_id"])
    if unknown := [i for i in ids if i not in known]:
        raise NotFound(f"{dataset} has no samples {unknown[:5]}")
    return _frame(store, source, view, store.view(dataset, view), samples, coefficients)


@lru_cache(maxsize=64)
def _coefficients(url: str, key: str) -> pd.DataFrame:
    """Return a table of coefficients, with the place of each in the stored array."""
    table = read_table(open_backend(url), key)
    return table.assign(position=range(len(table)))


def _frame(
    store: Store,
    dataset: Dataset,
    view: str,
    version: ViewVersion,
    samples: pd.DataFrame,
    coefficients: str | None,
) -> FeatureFrame:
    table = _coefficients(store.url, version.coefficients).copy()
    table = select(table, coefficients, "--coefficients")
    ready = samples[samples["part"].isin(list(version.parts))].reset_index(drop=True)
    missing = len(samples) - len(ready)
    return FeatureFrame(store.url, dataset.name, view, version, ready, table, missing)
