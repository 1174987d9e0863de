"""What a version says: immutable descriptions of a dataset and of a view on it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from storage.documents import Document
from storage.parts import FIELDS, IMAGES

# Columns of the sample table that are the store's own: where a sample lies and is read from,
PLACES = frozenset({"part", "row", "unit", "stamp", "reading"})
# and all of them, which labels may not use.
OWN_COLUMNS = PLACES | {"sample_id", "source", "index", "sha256", "withdrawn"}

AXES = frozenset({"sample", "component", "coefficient", "y", "x", "rgb"})  # of arrays, likewise


@dataclass(frozen=True)
class PartRef:
    """A part of a dataset: its key, its rows, and the rows withdrawn with the reason.

    Reasons: ``request`` (by a person), ``missing`` (its source went, under ``--mirror``),
    ``replaced`` (its source changed and another part holds the new content), ``duplicate`` (its
    name was taken, or its options left it out).
    """

    key: str
    rows: int
    withdrawn: tuple[tuple[int, str], ...] = ()

    @property
    def live(self) -> list[int]:
        """Rows that are not withdrawn."""
        gone = {row for row, _ in self.withdrawn}
        return [row for row in range(self.rows) if row not in gone]

    def to_json(self) -> Document:
        """Return a JSON form."""
        withdrawn = [[row, reason] for row, reason in self.withdrawn]
        return {"key": self.key, "rows": self.rows, "withdrawn": withdrawn}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """Read the JSON form."""
        return cls(
            value["key"], value["rows"], tuple((row, why) for row, why in value["withdrawn"])
        )


@dataclass(frozen=True)
class Schema:
    """What every sample of a dataset is.

    Attributes
    ----------
    variable
        What the array holds, such as ``vorticity``.
    components
        Names of the components; one for a scalar field.
    units
        One a component, or None where unknown.
    shape
        ``(y, x)`` of one component, in samples.
    dtype
        How it is stored.
    spacing
        Grid spacing ``(dy, dx)`` in physical units.
    periodic
        Whether the field wraps around.
    layout
        ``fields``; ``images``, whose components come last; or ``molecules``: flat arrays of atoms,
        with the offsets where molecules begin.
    properties
        Columns of the sample table that are quantities, each with its unit or None.
    axes, steps
        Names of the two axes in the files, and the signed step of their positions, as far as known:
        what fields added later are compared with.
    fit, cover
        How images were brought to their shape: :class:`storage.readers.images.Framing`.
    """

    variable: str
    components: tuple[str, ...]
    shape: tuple[int, ...]
    units: tuple[str | None, ...] = ()
    dtype: str = "float32"
    spacing: tuple[float, float] = (1.0, 1.0)
    periodic: bool = True
    layout: str = "fields"
    properties: tuple[tuple[str, str | None], ...] = ()
    fit: str = "crop"
    cover: tuple[int, ...] = ()
    axes: tuple[str, ...] = ()
    steps: tuple[float | None, ...] = ()

    @property
    def size(self) -> str:
        """The shape of a sample in words."""
        if self.layout == "molecules":
            return f"atoms x {len(self.components)}"
        return "x".join(map(str, self.row_shape))

    @property
    def row_shape(self) -> tuple[int, ...]:
        """Shape of one sample as stored: the component axis only where there are several."""
        if self.layout == "images":
            return (*self.shape, len(self.components))
        return self.shape if len(self.components) == 1 else (len(self.components), *self.shape)

    @property
    def dims(self) -> tuple[str, ...]:
        """Names of the axes of the stored array."""
        if self.layout == "images":
            return ("sample", "y", "x", "rgb")
        return ("sample", *(("component",) if len(self.components) > 1 else ()), "y", "x")

    @property
    def array(self) -> str:
        """Name of the stored array."""
        return IMAGES if self.layout == "images" else FIELDS

    def to_json(self) -> Document:
        """Return a JSON form."""
        return {
            "variable": self.variable,
            "components": list(self.components),
            "units": list(self.units),
            "shape": list(self.shape),
            "dtype": self.dtype,
            "spacing": list(self.spacing),
            "periodic": self.periodic,
            **({"layout": self.layout} if self.layout != "fields" else {}),
            **({"properties": [list(p) for p in self.properties]} if self.properties else {}),
            **({"fit": self.fit} if self.fit != "crop" else {}),
            **({"cover": list(self.cover)} if self.cover else {}),
            **({"axes": list(self.axes)} if self.axes else {}),
            **({"steps": list(self.steps)} if self.steps else {}),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """Read the JSON form."""
        return cls(
            value["variable"],
            tuple(value["components"]),
            tuple(value["shape"]),
            tuple(value["units"]),
            value["dtype"],
            (value["spacing"][0], value["spacing"][1]),
            value["periodic"],
            value.get("layout", "fields"),
            tuple((name, unit) for name, unit in value.get("properties", ())),
            value.get("fit", "crop"),
            tuple(value.get("cover", ())),
            tuple(value.get("axes", ())),
            tuple(value.get("steps", ())),
        )


@dataclass(frozen=True)
class DatasetVersion:
    """One published state of a dataset.

    ``samples`` are keys of Parquet tables with disjoint rows, one row a sample: its id, its
    part and row, where it came from, and its labels. ``quarantine`` is the key of a table of
    the inputs that were refused, with their reasons.
    """

    schema: Schema
    parts: tuple[PartRef, ...]
    samples: tuple[str, ...]
    quarantine: str | None = None
    note: str = ""
    version: int = 0
    published: str = ""

    @property
    def count(self) -> int:
        """Number of samples that are not withdrawn."""
        return sum(part.rows - len(part.withdrawn) for part in self.parts)

    def to_json(self) -> Document:
        """Return a JSON form, without what publishing adds."""
        return {
            "schema": self.schema.to_json(),
            "parts": [part.to_json() for part in self.parts],
            "samples": list(self.samples),
            "quarantine": self.quarantine,
            "note": self.note,
            "parent": self.version or None,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """Read a published document."""
        return cls(
            Schema.from_json(value["schema"]),
            tuple(PartRef.from_json(part) for part in value["parts"]),
            tuple(value["samples"]),
            value["quarantine"],
            value["note"],
            value["version"],
            value["published"],
        )


@dataclass(frozen=True)
class ViewVersion:
    """One published state of a view: which feature part holds which dataset part.

    Attributes
    ----------
    spec
        The one ``{kind, parameters, algorithm}`` that this name is bound to.
    coefficients
        Key of the Parquet table with one row a coefficient.
    row_shape
        Shape of one sample's features, ``(coefficient[, y, x])``.
    """

    spec: Document
    dataset_version: int
    coefficients: str
    row_shape: tuple[int, ...]
    dtype: str
    parts: dict[str, str]
    version: int = 0
    published: str = ""

    def __str__(self) -> str:
        return f"{'x'.join(map(str, self.row_shape))} a sample, {len(self.parts)} parts"

    @property
    def dims(self) -> tuple[str, ...]:
        """Names of the axes of the stored array."""
        return ("sample", "coefficient", "y", "x")[: 1 + len(self.row_shape)]

    def to_json(self) -> Document:
        """Return a JSON form, without what publishing adds."""
        return {
            "spec": self.spec,
            "dataset_version": self.dataset_version,
            "coefficients": self.coefficients,
            "row_shape": list(self.row_shape),
            "dtype": self.dtype,
            "parts": self.parts,
            "parent": self.version or None,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """Read a published document."""
        return cls(
            value["spec"],
            value["dataset_version"],
            value["coefficients"],
            tuple(value["row_shape"]),
            value["dtype"],
            dict(value["parts"]),
            value["version"],
            value["published"],
        )
