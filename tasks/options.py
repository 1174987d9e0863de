"""How sources become samples: what differs between kinds of data."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Self

import pandas as pd
import zarr
from pydantic import Field

from storage import Schema
from storage.sources import Discovery, Unit
from tasks.inputs import Decoded, Input

PartSize = Annotated[int, Field(description="Bytes in a part.")]  # as `weight` counts them
Strict = Annotated[
    bool, Field(description="Publish nothing if an input is bad, instead of leaving it out.")
]
Mirror = Annotated[bool, Field(description="Withdraw samples whose source is gone.")]
Rehash = Annotated[
    bool,
    Field(
        description="Read known inputs again, even where size and time of change are as they were."
    ),
]


class Options(ABC):
    """The options of ``wavemill ingest``: a frozen dataclass for each kind of data.

    The Prefect UI shows its docstring, and the description of each field.
    """

    part_size: PartSize
    strict: Strict
    mirror: Mirror
    rehash: Rehash

    @abstractmethod
    def find(self, places: Sequence[str]) -> Discovery:
        """Find the files that samples are read from."""

    @abstractmethod
    def schema(self, existing: Schema | None, inputs: Sequence[Input]) -> Schema:
        """Return the schema that the flags ask for; the rest is the existing or the commonest."""

    @abstractmethod
    def spec(self, schema: Schema) -> dict[str, Any]:
        """Return the spec of the parts: what decides their arrays, and nothing else."""

    @abstractmethod
    def decode(self, unit: Unit, payload: list[bytes], schema: Schema) -> Decoded:
        """Return what one input holds.

        Raises
        ------
        BadInput
            If nothing in it is good.
        """

    @abstractmethod
    def write(self, group: zarr.Group, rows: int, fields: Iterator[Any], schema: Schema) -> None:
        """Write the arrays of a part."""

    @abstractmethod
    def complete(
        self, samples: pd.DataFrame, schema: Schema
    ) -> tuple[pd.DataFrame, pd.DataFrame, Schema]:
        """Return the table of new samples, those of it that are refused, and the schema."""

    def weight(self, item: Input, schema: Schema) -> int:
        """Return the bytes that an input adds to a part."""
        return item.nbytes

    def check_held(self, rows: pd.DataFrame, inputs: Sequence[Input]) -> None:  # noqa: B027
        """Refuse flags that contradict the samples that the dataset holds of these inputs."""

    def informed(self, found: Discovery) -> Self:
        """Return the options with what discovery has found beside the samples."""
        return self

    def unwanted(self, rows: pd.DataFrame) -> pd.Series:
        """Say which of the samples that the dataset holds are to be withdrawn."""
        return pd.Series(False, index=rows.index)

    def labels(self, samples: pd.DataFrame, schema: Schema) -> pd.DataFrame | None:
        """Return columns that old samples are to carry, None if there are none to set."""
        return None
