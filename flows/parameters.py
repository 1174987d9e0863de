"""Parameters that several flows share, described as the Prefect UI shows them."""

from __future__ import annotations

from typing import Annotated, Any, TypeVar, cast

from prefect.utilities.annotations import quote
from pydantic import Field

from tasks.fields import FieldOptions
from tasks.images import ImageOptions
from tasks.molecules import MoleculeOptions

Dataset = Annotated[str, Field(description="Name of the dataset.")]
Sources = Annotated[
    list[str],
    Field(description="Files, folders, globs, archives, s3://... or simulate:KEY=VALUE,..."),
]
Store = Annotated[str, Field(description="URL of the store.")]
Options = Annotated[
    FieldOptions | MoleculeOptions | ImageOptions | None,
    Field(description="How sources become samples."),
]
Parameters = Annotated[
    dict[str, Any] | None, Field(description="Fields of the spec that differ from its defaults.")
]
Where = Annotated[
    str | None, Field(description="Which samples to learn from: DuckDB, over sample metadata.")
]
Split = Annotated[str | None, Field(description="COLUMN=VALUE that selects samples.")]
Seed = Annotated[int, Field(description="Of everything random.")]
Cluster = Annotated[str, Field(description="threads, local[:N], cuda, tcp://... or kubernetes.")]
Device = Annotated[str, Field(description="cpu or cuda.")]

STORE = "./wavemill-store"
Value = TypeVar("Value")


def opaque(value: Value) -> Value:
    """Hand a task what Prefect shall not search for futures: minutes, for 100,000 inputs."""
    return cast(Value, quote(value))
