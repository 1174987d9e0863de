"""Parameters that several flows share, described as the Prefect UI shows them."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Annotated, Any, TypeVar, cast, get_type_hints

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
    dict[str, Any] | None,
    Field(description="Parameters of the spec that differ from its defaults."),
]
Where = Annotated[
    str | None, Field(description="Which samples to learn from: an SQL condition on their table.")
]
Split = Annotated[str | None, Field(description="COLUMN=VALUE that selects samples.")]
Seed = Annotated[int, Field(description="Seed of everything random.")]
Cluster = Annotated[str, Field(description="threads, local[:N], cuda, tcp://... or kubernetes.")]
Device = Annotated[str, Field(description="cpu or cuda.")]

STORE = "./wavemill-store"
Value = TypeVar("Value")
Function = TypeVar("Function", bound=Callable[..., Any])


def described(function: Function) -> Function:
    """Write the descriptions of parameters into the docstring, the only place Prefect looks in."""
    hints = get_type_hints(function, include_extras=True)
    fields = {name: getattr(hint, "__metadata__", ()) for name, hint in hints.items()}
    said = [f"    {name}: {found[0].description}" for name, found in fields.items() if found]
    function.__doc__ = "\n".join([inspect.cleandoc(function.__doc__ or ""), "", "Args:", *said])
    return function


def opaque(value: Value) -> Value:
    """Keep Prefect from searching an argument for futures: minutes, for 100,000 inputs."""
    return cast(Value, quote(value))
