"""Stored samples as torch data sets: by index, or in a random order that reads each shard once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt
import pandas as pd

from storage.arrays import shard_rows
from storage.errors import InvalidRequest
from storage.parts import gather, shards
from storage.records import Schema
from storage.tables import kind_of
from storage.typing import Array

if TYPE_CHECKING:
    from torch import Tensor

WINDOW = 32
Positions = npt.NDArray[np.intp]


class SampleSource(Protocol):
    """A source to read from: a table of samples, and their arrays."""

    @property
    def samples(self) -> pd.DataFrame:
        """One row a sample."""
        ...

    def read(self, samples: pd.DataFrame) -> Array:
        """Read some samples, in their order."""
        ...

    def shards(self) -> list[Positions]:
        """Return, for every shard, the positions of the samples that lie in it."""
        ...


@dataclass(frozen=True)
class StoredSamples:
    """Fields or images of a dataset, not yet read.

    Attributes
    ----------
    samples
        One row a sample: id, metadata, part and row.
    """

    url: str
    samples: pd.DataFrame
    schema: Schema

    def read(self, samples: pd.DataFrame) -> Array:
        """Read some samples, in their order."""
        schema, places = self.schema, (samples["part"], samples["row"])
        return gather(self.url, schema.array, *places, schema.row_shape, schema.dtype)

    def shards(self) -> list[Positions]:
        """Return, for every shard, the positions of the samples that lie in it."""
        shard = shard_rows(self.schema.row_shape, self.schema.dtype)
        return shards(self.samples["part"], self.samples["row"], shard)


class TorchSamples:
    """A data set for ``torch.utils.data.DataLoader``; ``__getitems__`` reads a whole batch.

    Random access decompresses a chunk for nearly every sample. :meth:`shuffled` is for training: it
    reads every shard once an epoch, some of them ahead, and mixes their samples.
    """

    def __init__(self, source: SampleSource, target: str | None = None) -> None:
        if target is not None:
            _check_target(source.samples, target)
        self.source = source
        self.target = target

    def __len__(self) -> int:
        return len(self.source.samples)

    def __getitem__(self, index: int) -> Any:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[Any]:
        """Return the items of a batch, read together."""
        return self.items(self.read(indices), indices)

    def read(self, indices: Sequence[int] | Positions) -> Tensor:
        """Read samples by their positions."""
        import torch  # a second to import, which most queries need not wait for

        return torch.from_numpy(self.source.read(self.source.samples.iloc[list(indices)]))

    def items(self, values: Tensor, indices: Sequence[int]) -> list[Any]:
        """Return each value, with its target where there is one."""
        targets = self.targets(indices)
        return list(values) if targets is None else list(zip(values, targets, strict=True))

    def targets(self, indices: Sequence[int] | Positions) -> Tensor | None:
        """Return the targets of samples: int64 where they are whole numbers, else float64."""
        import torch

        if self.target is None:
            return None
        column = self.source.samples[self.target].iloc[list(indices)]
        if _is_whole(column):
            return torch.from_numpy(column.to_numpy(dtype=np.int64).copy())
        return torch.from_numpy(column.to_numpy(dtype=np.float64, na_value=np.nan).copy())

    def shuffled(self, size: int, seed: int, epoch: int = 0, window: int = WINDOW) -> Iterator[Any]:
        """Yield batches of all samples in random order: values, with targets where there are any.

        Parameters
        ----------
        size
            Samples in a batch; the last may have fewer.
        seed, epoch
            What the order depends on, and nothing else.
        window
            Shards whose samples are mixed; twice as many are held in memory, 16 MiB each.
        """
        for indices, values in self.mixed(size, seed, epoch, window):
            targets = self.targets(indices)
            yield values if targets is None else (values, targets)

    def mixed(
        self, size: int, seed: int, epoch: int = 0, window: int = WINDOW
    ) -> Iterator[tuple[Positions, Tensor]]:
        """Yield the positions and values of :meth:`shuffled`."""
        import torch

        check_batch(size)
        generator = np.random.default_rng([seed, epoch])
        shards = self.source.shards()
        order = generator.permutation(len(shards))
        groups = [order[start : start + window] for start in range(0, len(order), window)]
        windows = [np.concatenate([shards[shard] for shard in group]) for group in groups]
        indices, values = np.zeros(0, np.intp), torch.zeros(0)
        for positions, read in self._ahead(windows):
            mixing = generator.permutation(len(positions))
            values = torch.cat([values, read[mixing]]) if len(indices) else read[mixing]
            indices = np.concatenate([indices, positions[mixing]])
            whole = len(indices) // size * size
            yield from _batches(indices[:whole], values[:whole], size)
            indices, values = indices[whole:], values[whole:]
        if len(indices):
            yield indices, values

    def _ahead(self, windows: Sequence[Positions]) -> Iterator[tuple[Positions, Tensor]]:
        """Read each window while the one before is used."""
        with ThreadPoolExecutor(1) as reader:
            asked = [reader.submit(self.read, windows[0])] if windows else []
            for place, positions in enumerate(windows):
                read = asked.pop().result()
                if place + 1 < len(windows):
                    asked.append(reader.submit(self.read, windows[place + 1]))
                yield positions, read


def check_batch(rows: int) -> None:
    """Refuse batches of nothing, of which there would be none or without end."""
    if rows < 1:
        raise InvalidRequest(f"a batch has 1 sample or more, not {rows}")


def _check_target(samples: pd.DataFrame, target: str) -> None:
    if target not in samples:
        raise InvalidRequest(f"no column {target!r}; columns: {', '.join(map(str, samples))}")
    column = samples[target]
    kind, numbers = kind_of(column), f"{target}_index"
    if kind in ("text", "date"):
        way_out = (
            f"its numbers are in {numbers}"
            if numbers in samples
            else "set a column of numbers by relabel"
        )
        raise InvalidRequest(f"{target} is {kind}, and targets are numbers: {way_out}")
    if column.hasnans and (kind == "empty" or _is_whole(column)):
        raise InvalidRequest(
            f"{int(column.isna().sum())} of {len(column)} samples have no {target}: select "
            f'the others by where="{target} IS NOT NULL"'
        )


def _is_whole(column: pd.Series) -> bool:
    return kind_of(column) in ("whole", "boolean")


def _batches(indices: Positions, values: Tensor, size: int) -> Iterator[tuple[Positions, Tensor]]:
    for start in range(0, len(indices), size):
        yield indices[start : start + size], values[start : start + size]
