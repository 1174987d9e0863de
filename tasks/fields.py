"""Fields on a plane: how files of them become rows of a part."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any

import numpy as np
import pandas as pd
import zarr
from pydantic import Field

import wavemill
from storage import BadInput, InvalidRequest, Schema
from storage.arrays import create_array
from storage.parts import FIELDS
from storage.readers import EXTENSIONS, Frame, Header, ReadOptions, read_frames, read_headers
from storage.records import AXES, OWN_COLUMNS
from storage.shards import write_rows
from storage.sources import Discovery, Unit, discover
from storage.tables import of_one_kind
from storage.typing import Array
from tasks.alike import check_axes, check_quantity, check_shape, check_steps, may_name
from tasks.inputs import Decoded, Good, Input, Refusal, Simulated, identity
from tasks.options import Mirror, Options, PartSize, Rehash, Strict

HEADERS = 64


@dataclass(frozen=True)
class FieldOptions(Options):
    """How files of fields become samples."""

    variable: Annotated[
        tuple[str, ...],
        Field(
            description="What to read where a file holds several: one name, or several to stack."
        ),
    ] = ()
    components: Annotated[
        tuple[str, ...],
        Field(
            description="Names that mark files of one sample, such as I, Q, U; or the components "
            "to keep of a vector."
        ),
    ] = ()
    slice: Annotated[
        str | None,
        Field(description="AXIS:INDEX, AXIS:FIRST-LAST or AXIS:all, of more than two dimensions."),
    ] = None
    derive: Annotated[
        str | None, Field(description="vorticity, to store the vorticity of a velocity.")
    ] = None
    fill: Annotated[
        str | None, Field(description="mean or a number, to put where values are missing.")
    ] = None
    shape: Annotated[
        tuple[int, int] | None,
        Field(description="Of the samples (y, x); else the existing dataset's, or the commonest."),
    ] = None
    dtype: Annotated[
        str | None,
        Field(description="float32 or float64; else the existing dataset's, or the commonest."),
    ] = None
    spacing: Annotated[
        tuple[float, float] | None,
        Field(description="Between points (y, x); else the existing dataset's, or the commonest."),
    ] = None
    periodic: Annotated[
        bool | None,
        Field(description="Whether opposite borders meet; by default as the dataset says, or not."),
    ] = None
    part_size: PartSize = 128 * 2**20
    strict: Strict = False
    mirror: Mirror = False
    rehash: Rehash = False

    def reading(self) -> ReadOptions:
        """Return what the readers need to know."""
        return ReadOptions(
            variable=self.variable or None,
            components=self.components,
            slice=self.slice,
            fill=self.fill,
        )

    def spec(self, schema: Schema) -> dict[str, Any]:
        """Return the spec of the parts: what decides their arrays, and nothing else."""
        parameters: dict[str, Any] = {
            "variable": list(self.variable),
            "components": list(self.components),
            "slice": self.slice,
            "derive": self.derive,
            "fill": self.fill,
            "shape": list(schema.shape),
            "dtype": schema.dtype,
            "stored": list(schema.components),
        }
        if self.derive:  # only a derivative depends on the grid
            parameters |= {"spacing": list(schema.spacing), "periodic": schema.periodic}
        given = {name: value for name, value in parameters.items() if value not in (None, [])}
        return {"kind": "turbulence", "parameters": given, "algorithm": 1}

    def find(self, places: Sequence[str]) -> Discovery:
        """Find the files that fields are read from."""
        if not places:
            return Discovery()
        return discover(places, extensions=EXTENSIONS, components=self.components)

    def schema(self, existing: Schema | None, inputs: Sequence[Input]) -> Schema:
        """Return the schema that the flags ask for; the rest is the existing or the commonest.

        Raises
        ------
        InvalidRequest
            If they name another quantity than the existing one, or nothing can be read.
        """
        if existing is not None:
            self._check_names(existing)
        found = existing or _commonest(inputs, self)
        names = ("shape", "dtype", "spacing", "periodic")
        flags = {name: getattr(self, name) for name in names}
        return replace(found, **{k: value for k, value in flags.items() if value is not None})

    def _check_names(self, existing: Schema) -> None:
        held = existing.components
        given: tuple[str, ...] = ()
        if self.derive:
            flag, given, same = "derive", (self.derive,), held == (self.derive,)
        elif self.components:
            flag, given, same = "components", self.components, may_name(self.components, held)
        else:
            flag, given, same = "variable", self.variable, may_name(self.variable, held)
        if given and not same:
            raise InvalidRequest(
                f"--{flag} {','.join(given)}: the dataset holds {','.join(held)}: leave it out, or "
                "choose another --name"
            )

    def recorded(self) -> str:
        """Return which flags chose what was read, as the table of samples keeps it."""
        flags = {**self.reading().to_dict(), **({"derive": self.derive} if self.derive else {})}
        return json.dumps(flags, sort_keys=True) if flags else ""

    def check_held(self, rows: pd.DataFrame, inputs: Sequence[Input]) -> None:
        """Refuse flags that choose something else in a file than the dataset holds of it.

        Raises
        ------
        InvalidRequest
        If they do: the file would be passed over as unchanged.
        """
        if "reading" not in rows:
            return
        known = rows.groupby("unit")["reading"].first().dropna()
        asked = json.loads(self.recorded() or "{}")
        for name in known.index.intersection([identity(item) for item in inputs]):
            held = json.loads(known[name])
            for flag, value in asked.items():
                if held.get(flag, value) != value:
                    said, other = (
                        v if isinstance(v, str) else ",".join(v) for v in (value, held[flag])
                    )
                    raise InvalidRequest(
                        f"--{flag} {said}: {name} is in the dataset as read with --{flag} {other}: "
                        "leave it out, or choose another --name"
                    )

    def decode(self, unit: Unit, payload: list[bytes], schema: Schema) -> Decoded:
        """Return the good frames of one input, and the bad ones beside them.

        Raises
        ------
        BadInput
            If nothing in it is good.
        """
        frames = read_frames(unit, payload, self.reading())
        refused = [Refusal.of(*bad) for bad in frames.refused]
        good: list[Good] = []
        rounding = 0.0
        for frame in frames:
            try:
                stored = as_stored(frame, schema, self)
                good.append(Good(frame.index, stored, self._columns(frame)))
                rounding = max(rounding, 0.0 if self.derive else _rounding(frame.array, schema))
            except BadInput as error:
                refused.append(Refusal.of(frame.index, error))
        return Decoded(good, refused, rounding)

    def _columns(self, frame: Frame) -> dict[str, Any]:
        """Return what the table of samples says of a frame: where it was cut out, and how."""
        recorded = self.recorded()
        places: dict[str, Any] = {_column(name): place for name, place in frame.positions.items()}
        if self.fill is not None:
            places["valid_fraction"] = frame.valid
        return {**places, **({"reading": recorded} if recorded else {})}

    def write(self, group: zarr.Group, rows: int, fields: Iterator[Array], schema: Schema) -> None:
        """Write the rows of a part."""
        array = create_array(group, FIELDS, rows, schema.row_shape, schema.dtype, schema.dims)
        write_rows(array, fields)

    def complete(
        self, samples: pd.DataFrame, schema: Schema
    ) -> tuple[pd.DataFrame, pd.DataFrame, Schema]:
        """Return the table of new samples, those of it that are refused, and the schema."""
        return of_one_kind(samples), samples[:0].assign(reason="", message=""), schema


def _column(axis: str) -> str:
    """Return a column name for positions along an axis, neither the table's own nor an axis's."""
    return f"{axis}_value" if axis.lower() in OWN_COLUMNS | AXES else axis


def _commonest(inputs: Sequence[Input], options: FieldOptions) -> Schema:
    """Return the commonest schema in the headers of some inputs spread over the whole list."""
    step = max(1, len(inputs) // HEADERS)
    schemas: dict[Schema, list[Schema]] = {}
    problems: list[BadInput] = []
    for found in _schemas(inputs[::step], options):
        if isinstance(found, Schema):
            schemas.setdefault(_rounded(found), []).append(found)
        else:
            problems.append(found)
    if not schemas:
        reason = f": {problems[0]}" if problems else ""
        raise InvalidRequest(f"none of {len(inputs)} inputs can be read{reason}")
    return max(schemas.values(), key=len)[0]


def _rounded(schema: Schema) -> Schema:
    """Return the schema with rounded steps, so that grids that differ by rounding are equal."""
    spacing = (float(f"{schema.spacing[0]:.3g}"), float(f"{schema.spacing[1]:.3g}"))
    steps = tuple(step and float(f"{step:.3g}") for step in schema.steps)
    return replace(schema, spacing=spacing, steps=steps)


def _schemas(inputs: Sequence[Input], options: FieldOptions) -> Iterator[Schema | BadInput]:
    units = [item for item in inputs if isinstance(item, Unit)]
    for found in read_headers(units, options.reading()):
        yield found if isinstance(found, BadInput) else schema_of(found, options)
    yield from (schema_of_simulation(item) for item in inputs if isinstance(item, Simulated))


def schema_of_simulation(item: Simulated) -> Schema:
    """Return the schema that a simulation's realisations have on their own."""
    step = 2 * math.pi / item.spec.N
    size = (item.spec.N, item.spec.N)
    return Schema("vorticity", ("vorticity",), size, ("1/s",), spacing=(step, step))


def schema_of(header: Header, options: FieldOptions) -> Schema:
    """Return the schema that a file would have on its own.

    If it does not say, the grid spacing is taken as 1. No format says that a field is periodic, and
    it is taken as not: a derivative by finite differences is right either way, a spectral one only
    for periodic fields.
    """
    names, units = header.components, header.units
    if options.derive:
        names, units = (options.derive,), (None,)
    variable = options.derive or (names[0] if len(names) == 1 else _joined(options, names))
    return Schema(
        variable,
        names,
        header.shape,
        units,
        spacing=header.spacing or (1.0, 1.0),
        periodic=False,
        axes=header.axes,
        steps=header.steps,
    )


def _joined(options: FieldOptions, names: tuple[str, ...]) -> str:
    return options.variable[0] if len(options.variable) == 1 else "".join(names)


def as_stored(frame: Frame, schema: Schema, options: FieldOptions) -> Array:
    """Return a frame as one row of the dataset's array.

    Raises
    ------
    BadInput
        If its quantity or grid is not the schema's, or a value is not finite.
    """
    if not options.derive:  # what is derived has a name and a unit of its own
        check_quantity(frame, schema)
    array = _derived(frame, schema) if options.derive else frame.array
    check_axes(frame, schema)
    check_shape(array.shape[-2:], schema)
    check_steps(frame, schema)
    with np.errstate(over="ignore"):
        stored = array.astype(schema.dtype)
    if not np.isfinite(stored).all():
        bad = int(np.size(stored) - np.isfinite(stored).sum())
        raise BadInput(
            "nan",
            f"{bad} of {np.size(stored)} values are not finite as {schema.dtype}: use --dtype "
            "float64 and another --name",
        )
    return stored.reshape(schema.row_shape)


def _rounding(array: Array, schema: Schema) -> float:
    """Return what part of the deviation is rounded away by a type coarser than the array's own."""
    if np.can_cast(array.dtype, schema.dtype):
        return 0.0
    values = array.reshape(len(schema.components), -1).astype("float64")
    largest, deviation = np.abs(values).max(1), values.std(1)
    parts = np.finfo(schema.dtype).eps * largest[deviation > 0] / deviation[deviation > 0]
    return float(parts.max(initial=0.0))


def _derived(frame: Frame, schema: Schema) -> Array:
    """Return the vorticity of the in-plane velocity, ``(1, y, x)``."""
    import torch  # its import takes longer than reading most files

    velocity = torch.from_numpy(_in_plane(frame).astype("float64"))
    curl = wavemill.vorticity(velocity, schema.spacing, schema.periodic)
    return curl.numpy()[None]


def _in_plane(frame: Frame) -> Array:
    """Return the components along the columns' and the rows' axis, ``(2, y, x)``.

    A cut across y of a flow ``(u, v, w)`` has axes ``(z, x)``: there they are u and w.
    """
    along = dict(zip("xyz", "uvw", strict=True))
    wanted = [along.get(axis, "") for axis in reversed(frame.axes or ("y", "x"))]
    if set(wanted) <= set(frame.components):
        return frame.array[[frame.components.index(name) for name in wanted]]
    if len(frame.array) != 2:
        raise BadInput(
            "components",
            f"vorticity needs the velocity {','.join(wanted)} in this plane; here: "
            f"{','.join(frame.components)}; name them with --components",
        )
    return frame.array
