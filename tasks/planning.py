"""What a run of ingestion has to do: which inputs are new, and into which parts they go."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import pandas as pd

from storage import BadInput, InvalidRequest, Schema, Store
from storage.keys import canonical, digest
from storage.readers import Header, ReadOptions, read_header
from storage.sources import Discovery, Unit, discover
from wavemill.specs import SimulationSpec

SIMULATE = "simulate:"
HEADERS = 64


@dataclass(frozen=True)
class IngestOptions:
    """How sources become samples; the options of ``wavemill ingest turbulence``.

    Attributes
    ----------
    variable
        What to read where a file holds several: one name, or several to stack.
    components
        Names that mark files of one sample, such as ``("I", "Q", "U")``; or the components
        to keep of a vector.
    slice
        ``AXIS:INDEX`` or ``AXIS:all`` for inputs of more than two dimensions.
    derive
        ``vorticity`` to store the vorticity of a velocity.
    shape, dtype, spacing, periodic
        The schema; left out, the existing dataset's or the commonest header's.
    part_size
        Bytes of arrays in a part.
    strict
        Fail on the first bad input instead of putting it in quarantine.
    mirror
        Withdraw samples whose source is gone.
    rehash
        Read known inputs again, even where size and time of change are as they were.
    """

    variable: tuple[str, ...] = ()
    components: tuple[str, ...] = ()
    slice: str | None = None
    derive: str | None = None
    shape: tuple[int, int] | None = None
    dtype: str | None = None
    spacing: tuple[float, float] | None = None
    periodic: bool | None = None
    part_size: int = 128 * 2**20
    strict: bool = False
    mirror: bool = False
    rehash: bool = False

    def reading(self) -> ReadOptions:
        """Return what the readers need to know."""
        return ReadOptions(
            variable=self.variable or None, components=self.components, slice=self.slice
        )

    def spec(self, schema: Schema) -> dict[str, Any]:
        """Return the spec of the parts: what decides their arrays, and nothing else."""
        parameters: dict[str, Any] = {
            "variable": list(self.variable),
            "components": list(self.components),
            "slice": self.slice,
            "derive": self.derive,
            "shape": list(schema.shape),
            "dtype": schema.dtype,
            "stored": list(schema.components),
        }
        if self.derive:  # only a derivative depends on the grid
            parameters |= {"spacing": list(schema.spacing), "periodic": schema.periodic}
        given = {name: value for name, value in parameters.items() if value not in (None, [])}
        return {"kind": "turbulence", "parameters": given, "algorithm": 1}


@dataclass(frozen=True)
class Simulated:
    """One realisation of a simulation, standing where a file would."""

    spec: SimulationSpec
    index: int

    @property
    def physics(self) -> dict[str, Any]:
        """The spec without the number of realisations, on which none of them depends."""
        return replace(self.spec, n=type(self.spec)().n).to_dict()

    @property
    def identity(self) -> str:
        """A name that no other realisation has."""
        return f"{SIMULATE}{canonical(self.physics['parameters']).decode()}#{self.index}"

    @property
    def name(self) -> str:
        """Stem of the sample id."""
        return f"sim-{digest(canonical(self.physics))[:8]}-{self.index:05d}"

    @property
    def nbytes(self) -> int:
        """Bytes of the field."""
        return 4 * self.spec.N**2

    @property
    def fingerprint(self) -> str:
        """What stands for the content: the derivation itself."""
        return digest(canonical({"spec": self.physics, "index": self.index}))


Input = Unit | Simulated


def identity(item: Input) -> str:
    """Return what tells an input from every other: the places it is read from."""
    if isinstance(item, Simulated):
        return item.identity
    return " + ".join(place(file.url, file.member) for file in item.files)


def place(url: str, member: str | None) -> str:
    """Return a file's address, within its archive if it has one."""
    return url if member is None else f"{url}!{member}"


def stamp(item: Input) -> str:
    """Return size and time of change or tag: while they stay, the content is taken to stay."""
    if isinstance(item, Simulated):
        return item.fingerprint
    return json.dumps([[file.size, file.mtime, file.etag] for file in item.files])


def find_inputs(sources: Sequence[str], options: IngestOptions) -> tuple[list[Input], Discovery]:
    """Return the inputs that the sources hold, sorted by name, and what discovery refused."""
    simulations = [source for source in sources if source.startswith(SIMULATE)]
    places = [source for source in sources if not source.startswith(SIMULATE)]
    found = discover(places, components=options.components) if places else Discovery()
    simulated = [item for source in simulations for item in _realisations(source)]
    return [*found, *simulated], found


def _realisations(source: str) -> list[Simulated]:
    pairs = [pair for pair in source.removeprefix(SIMULATE).split(",") if pair]
    if bad := [pair for pair in pairs if "=" not in pair]:
        raise InvalidRequest(f"{source!r}: {bad[0]!r} is not KEY=VALUE, as in simulate:n=16,N=128")
    spec = SimulationSpec.from_parameters(dict(pair.split("=", 1) for pair in pairs))
    return [Simulated(spec, index) for index in range(spec.n)]


@dataclass(frozen=True)
class Plan:
    """What to do: inputs to read, samples to bring back, samples to withdraw.

    Attributes
    ----------
    fresh
        Inputs that the dataset does not hold, or whose size or time of change is another.
    known
        Sample ids by identity of an input, with the fingerprint last seen.
    """

    schema: Schema
    fresh: tuple[Input, ...]
    unchanged: int
    restore: tuple[str, ...]
    missing: tuple[str, ...]
    known: dict[str, str]


def plan(
    store: Store, dataset: str, schema: Schema, inputs: Sequence[Input], options: IngestOptions
) -> Plan:
    """Compare the inputs with what the dataset holds."""
    rows = _held(store, dataset)
    held = rows.groupby("unit").first() if len(rows) else rows
    stamps = dict(held["stamp"]) if len(rows) else {}
    fresh = [item for item in inputs if options.rehash or stamps.get(identity(item)) != stamp(item)]
    present = {identity(item) for item in inputs} - {identity(item) for item in fresh}
    back, gone = [], []
    if len(rows):
        lost = rows["withdrawn"] == "missing"
        back = list(rows[lost & rows["unit"].isin(list(present))]["sample_id"])
        everything = {identity(item) for item in inputs}
        live = rows["withdrawn"].isna()
        gone = list(rows[live & ~rows["unit"].isin(list(everything))]["sample_id"])
    return Plan(
        schema,
        tuple(fresh),
        len(present),
        tuple(back),
        tuple(gone) if options.mirror else (),
        dict(held["sha256"]) if len(rows) else {},
    )


def _held(store: Store, dataset: str) -> pd.DataFrame:
    """Return the rows whose arrays are there; what was replaced does not count."""
    if dataset not in store.datasets():
        return pd.DataFrame()
    current = store.dataset(dataset)
    lost = store.missing_parts([part.key for part in current.version.parts])
    rows = current.all_samples()
    kept = rows[(rows["withdrawn"] != "replaced") & ~rows["part"].isin(lost)]
    return kept.reset_index(drop=True)


def choose_schema(
    store: Store, dataset: str, inputs: Sequence[Input], options: IngestOptions
) -> Schema:
    """Return the dataset's schema: flags, else the existing one, else the commonest header.

    Raises
    ------
    InvalidRequest
        If flags contradict the existing dataset, or no input can be read.
    """
    if dataset in store.datasets():
        existing = store.dataset(dataset).schema
        asked = _with_flags(existing, options)
        if asked != existing:
            raise InvalidRequest(
                f"{dataset!r} holds {_described(existing)}; the flags ask for {_described(asked)}: "
                "leave them out, or choose another --name"
            )
        return existing
    return _with_flags(_commonest(inputs, options), options)


def _described(schema: Schema) -> str:
    grid = "periodic" if schema.periodic else "not periodic"
    size = "x".join(map(str, schema.shape))
    names = ",".join(schema.components)
    return f"{names} {size} {schema.dtype}, spacing {schema.spacing}, {grid}"


def _with_flags(schema: Schema, options: IngestOptions) -> Schema:
    flags = {name: getattr(options, name) for name in ("shape", "dtype", "spacing", "periodic")}
    return replace(schema, **{name: value for name, value in flags.items() if value is not None})


def _commonest(inputs: Sequence[Input], options: IngestOptions) -> Schema:
    """Return the commonest schema among headers of inputs spread over the whole list."""
    step = max(1, len(inputs) // HEADERS)
    schemas: Counter[Schema] = Counter()
    problems: list[BadInput] = []
    for found in _schemas(inputs[::step], options):
        if isinstance(found, Schema):
            schemas[found] += 1
        else:
            problems.append(found)
    if not schemas:
        reason = f": {problems[0]}" if problems else ""
        raise InvalidRequest(f"none of {len(inputs)} inputs can be read{reason}")
    return schemas.most_common(1)[0][0]


def _schemas(inputs: Iterable[Input], options: IngestOptions) -> Iterator[Schema | BadInput]:
    for item in inputs:
        if isinstance(item, Simulated):
            step = 2 * math.pi / item.spec.N
            size = (item.spec.N, item.spec.N)
            yield Schema("vorticity", ("vorticity",), size, ("1/s",), spacing=(step, step))
            continue
        try:
            yield schema_of(read_header(item, None, options.reading()), options)
        except BadInput as error:
            yield error


def schema_of(header: Header, options: IngestOptions) -> Schema:
    """Return the schema that a file would have by itself.

    What it does not say is taken as grid spacing 1, and as not periodic: a derivative by
    finite differences is right for either, a spectral one only for periodic fields.
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
        periodic=bool(header.periodic),
    )


def _joined(options: IngestOptions, names: tuple[str, ...]) -> str:
    return options.variable[0] if len(options.variable) == 1 else "".join(names)


def batches(inputs: Sequence[Input], part_size: int) -> list[tuple[Input, ...]]:
    """Group inputs of one kind, in order, so that each group is about one part."""
    groups: list[list[Input]] = []
    weight = 0
    for item in inputs:
        full = weight + item.nbytes > part_size
        if not groups or full or not _together(groups[-1][-1], item):
            groups.append([])
            weight = 0
        groups[-1].append(item)
        weight += item.nbytes
    return [tuple(group) for group in groups]


def _together(one: Input, other: Input) -> bool:
    """Say whether two inputs may share a part: realisations only of one simulation."""
    if isinstance(one, Simulated) and isinstance(other, Simulated):
        return one.physics == other.physics
    return type(one) is type(other)


def as_json(options: IngestOptions) -> dict[str, Any]:
    """Return the options that differ from their default, for tables and logs."""
    default = asdict(IngestOptions())
    return {name: value for name, value in asdict(options).items() if value != default[name]}
