"""Molecules: how files of them become rows of a part, and tables beside them columns."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Annotated, Any, Self

import numpy as np
import pandas as pd
import zarr
from pydantic import Field
from pydantic.json_schema import SkipJsonSchema

from storage import BadInput, InvalidRequest, Schema
from storage.molecules import Atoms, write_atoms
from storage.readers import Found
from storage.readers.molecules import EXTENSIONS, Molecule, qm9, read_molecules, through_ase
from storage.readers.molecules.ids import Listed, own_name, read_ids
from storage.readers.molecules.molecule import nuclear_charge, symbols
from storage.readers.molecules.tables import Target, align, choose, numbers, read_table
from storage.sources import Discovery, SourceFile, Unit, discover, read_units
from storage.sources.download import PUBLISHED, fetch_published
from storage.sources.embedded import EMBEDDED, embedded
from storage.sources.embedded import UNITS as EMBEDDED_UNITS
from storage.sources.filesystem import absolute, read_bytes
from storage.tables import of_one_kind
from tasks.inputs import Decoded, Good, Input, Refusal
from tasks.options import Mirror, Options, PartSize, Rehash, Strict
from tasks.progress import caution

ANGSTROM = ("angstrom",) * 3
SCHEMA = Schema(
    "positions", ("x", "y", "z"), (), ANGSTROM, "float64", periodic=False, layout="molecules"
)
TO_KCAL = {"hartree": qm9.KCAL, "eV": 23.060548, "kcal/mol": 1.0, "kJ/mol": 1 / 4.184}
EXCLUDED = "on the list of exclusions"
_PART = re.compile(r"([A-Z][a-z]?)(\d*)")
log = logging.getLogger("wavemill.tasks")


@dataclass(frozen=True)
class _Values:
    """What a table says of samples, in their order.

    Attributes
    ----------
    columns
        Numbers; NaN where there is none.
    units
        By name.
    lacking
        Why a sample is refused for lack of a row or value, or "".
    """

    columns: pd.DataFrame
    units: dict[str, str | None]
    lacking: list[str]


@dataclass(frozen=True)
class MoleculeOptions(Options):
    """How files of molecules become samples."""

    table: Annotated[
        str | None,
        Field(
            description="A file of properties, joined by id, or by position where it names no ids."
        ),
    ] = None
    target: Annotated[
        tuple[str, ...],
        Field(description="Its columns to take, as [NAME=]COLUMN[:UNIT]; else all of numbers."),
    ] = ()
    exclude: Annotated[
        tuple[str, ...],
        Field(description="Files whose first column are ids to leave out, as qm9:uncharacterized."),
    ] = ()
    atomref: Annotated[
        str | None,
        Field(description="A file of free atoms' energies like QM9's, which is the default."),
    ] = None
    atomise: Annotated[
        tuple[str, ...],
        Field(
            description="Properties, each NAME[:UNIT], to make NAME_atom of, in kcal/mol: without "
            "the energies at 0 K of the free atoms. UNIT (hartree, eV, kcal/mol or kJ/mol) is "
            "the one the property has, else hartree, unless given."
        ),
    ] = ()
    part_size: PartSize = 8 * 2**20
    strict: Strict = False
    mirror: Mirror = False
    rehash: Rehash = False
    left_out: SkipJsonSchema[int] = 0  # files on the lists of exclusions: see `informed`

    def __post_init__(self) -> None:
        """Refuse columns of no table."""
        if self.target and self.table is None:
            raise InvalidRequest("--target names columns of a table: give --table as well")

    def find(self, places: Sequence[str]) -> Discovery:
        """Find the files of molecules; a sample is named after its file, whatever the folder."""
        files = [located(place) for place in places if not place.startswith(EMBEDDED)]
        found = discover(files, extensions=EXTENSIONS) if files else Discovery()
        units = [Unit(unit.name.rpartition("/")[2], unit.files) for unit in found]
        for place in places:
            units += _embedded_units(place) if place.startswith(EMBEDDED) else []
        gone = _listed_units(units, listed_ids(self.exclude))
        kept = [unit for unit in units if unit not in gone]
        ignored = dict(found.ignored)
        if len(kept) < len(units):
            ignored[EXCLUDED] = len(units) - len(kept)
        return Discovery(sorted(kept, key=lambda unit: unit.name), found.refused, ignored)

    def schema(self, existing: Schema | None, inputs: Sequence[Input]) -> Schema:
        """Return the schema of molecules, with the quantities known so far.

        Raises
        ------
        InvalidRequest
            If there are no inputs.
        """
        if existing is None and not inputs:
            raise InvalidRequest("the sources hold no molecules: nothing was published")
        return existing if existing is not None and existing.layout == SCHEMA.layout else SCHEMA

    def informed(self, found: Discovery) -> Self:
        """Return the options, with how many files were left out."""
        return replace(self, left_out=found.ignored.get(EXCLUDED, 0))

    def spec(self, schema: Schema) -> dict[str, Any]:
        """Return the spec of the parts: positions and charges depend on the files alone."""
        return {"kind": "molecules", "parameters": {}, "algorithm": 1}

    def decode(self, unit: Unit, payload: list[bytes], schema: Schema) -> Decoded:
        """Return the molecules of one file.

        Raises
        ------
        BadInput
            If nothing in it is good.
        """
        found = _read(unit, payload)
        good = [Good(item.index, item, item.columns()) for item in found]
        return Decoded(good, [Refusal.of(*bad) for bad in found.refused])

    def write(self, group: zarr.Group, rows: int, fields: Iterator[Any], schema: Schema) -> None:
        """Write the atoms of a part."""
        write_atoms(group, Atoms.of(fields))

    def complete(
        self, samples: pd.DataFrame, schema: Schema
    ) -> tuple[pd.DataFrame, pd.DataFrame, Schema]:
        """Leave out what is listed, join the table, and add atomisation energies.

        Raises
        ------
        InvalidRequest
            If the rows of the table cannot be assigned to samples, or a property that the dataset
            has comes in another unit.
        """
        if not len(samples):
            stated = _agreed(schema, self._stated(schema))
            return samples, samples.assign(reason="", message=""), stated
        kept = of_one_kind(samples[~self._listed(samples)].reset_index(drop=True))
        table = self._table(kept)
        kept, lacking = _joined(kept, table)
        given = table.units if table is not None else {}
        kept, made = self._atomised(kept, schema, given)
        units = {**_units(kept), **given, **self._stated(schema), **made}
        return kept, lacking, _agreed(schema, {str(n): units[n] for n in kept if n in units})

    def _stated(self, schema: Schema) -> dict[str, str]:
        """Return the units that flags state, also of columns that are stored."""
        targets = map(Target.parse, self.target)
        asked = _asked(self.atomise)
        known = {f"{name}_atom": "kcal/mol" for name in asked if name in dict(schema.properties)}
        told = {name: unit for name, unit in asked.items() if unit}
        return {target.name: target.unit for target in targets if target.unit} | told | known

    def unwanted(self, rows: pd.DataFrame) -> pd.Series:
        """Say which samples are on the lists of exclusions."""
        return _on_list(rows, listed_ids(self.exclude))

    def _listed(self, samples: pd.DataFrame) -> pd.Series:
        """Say which samples are on the lists of exclusions; warn if these leave out none."""
        ids = listed_ids(self.exclude)
        listed = _on_list(samples, ids)
        count = self.left_out + int(listed.sum())
        if self.exclude and not count:
            caution(
                f"--exclude leaves out nothing: it lists {len(ids)} ids, and none is of a molecule "
                f"such as {samples['sample_id'].iloc[0]}; an id is a name, or a number alone or "
                "behind _ or -"
            )
        elif self.exclude:
            log.info("--exclude lists %d ids and leaves %d molecules out", len(ids), count)
        return listed

    def labels(self, samples: pd.DataFrame, schema: Schema) -> pd.DataFrame | None:
        """Return table values and atomised energies of all samples, None if they carry them."""
        table = self._table(samples)
        if table is None and not self.atomise:
            return None
        columns, given = (table.columns, table.units) if table is not None else (samples[[]], {})
        values = {str(c): columns[c].to_numpy() for c in columns}
        made, derived = self._atomised(samples.assign(**values), schema, given)
        fresh = made[["sample_id", *dict.fromkeys([*values, *derived])]]
        held = samples.reindex(columns=list(fresh))
        fresh = fresh.where(fresh.notna(), held)  # a value that the table no longer has stays known
        return None if held.equals(fresh) else fresh

    def _table(self, samples: pd.DataFrame) -> _Values | None:
        """Return what the table says of samples, one row each, in their order."""
        if self.table is None or not len(samples):
            return None
        name = PurePosixPath(self.table).name
        whole = read_table(read_bytes(absolute(self.table)), name)
        values = numbers(whole)
        targets = choose(whole, values, [Target.parse(text) for text in self.target], name)
        rows = align(whole, list(samples["sample_id"]), _own_names(samples), name)
        found = pd.DataFrame(
            {t.name: np.where(rows < 0, np.nan, values[t.column].to_numpy()[rows]) for t in targets}
        )
        wanted = found if self.target else found[[]]
        lacking = [
            "the table has no row for it"
            if row < 0
            else f"the table has no value of {', '.join(wanted.columns[missing])} for it"
            if missing.any()
            else ""
            for row, missing in zip(rows, wanted.isna().to_numpy(), strict=True)
        ]
        return _Values(found, {target.name: target.unit for target in targets}, lacking)

    def _atomised(
        self, samples: pd.DataFrame, schema: Schema, given: Mapping[str, str | None]
    ) -> tuple[pd.DataFrame, dict[str, str | None]]:
        """Add ``<name>_atom``, kcal/mol, for QM9's energies and those asked for.

        Raises
        ------
        InvalidRequest
            If one asked for is not there or not in a unit of energy, or a free atom's is unknown.
        """
        asked = _asked(self.atomise)
        held = {name: unit for name, unit in (*schema.properties, *asked.items()) if unit}
        units = {**_units(samples), **given, **held}
        known = set(samples) if "gdb" in samples else set()
        wanted = {name: at for at, name in enumerate(qm9.ENERGIES) if name in known}
        for name in asked:
            if name not in samples:
                raise InvalidRequest(f"--atomise {name}: no such property; see --target")
            if (units.get(name) or "hartree") not in TO_KCAL:
                raise InvalidRequest(
                    f"--atomise {name}: it is in {units[name]}; units of energy are "
                    f"{', '.join(TO_KCAL)}, as in --atomise {name}:eV"
                )
            wanted.setdefault(name, 0)
        free = qm9.FREE_ATOMS
        if self.atomref is not None:
            free = qm9.read_atomref(read_bytes(absolute(located(self.atomref))).decode())
        made = {}
        for name, column in wanted.items():
            formulas = set(samples["formula"])
            energies = {t: _free_energy(t, free, column, name in asked) for t in formulas}
            hartree = TO_KCAL.get(units.get(name) or "hartree", np.nan) / qm9.KCAL
            base = samples["formula"].map(energies)
            made[f"{name}_atom"] = qm9.KCAL * (samples[name].astype(float) * hartree - base)
        return samples.assign(**made), dict.fromkeys(made, "kcal/mol")


def located(place: str) -> str:
    """Return a path, or where a published file named ``qm9:...`` was downloaded to."""
    return str(fetch_published(place)) if place.partition(":")[0] in PUBLISHED else place


def listed_ids(places: Sequence[str]) -> Listed:
    """Return the ids in lists of exclusions."""
    contents = [read_bytes(absolute(located(place))) for place in places]
    return Listed(set().union(*map(read_ids, contents)))


def _listed_units(units: Sequence[Unit], ids: Listed) -> set[Unit]:
    """Return the files of listed molecules; a file with a listed number in its name is looked into.

    It may hold many molecules, or one with another number.
    """
    named = {unit for unit in units if unit.name in ids.ids and not unit.name.isdecimal()}
    gone = set(named)
    for unit, payload in read_units(u for u in units if u not in named and ids.numbers(u.name)):
        try:
            found = [] if isinstance(payload, BadInput) else list(_read(unit, payload))
        except BadInput:
            found = []
        names = [own_name(unit.name, item.index, item.labels.get("gdb")) for item in found]
        if len(names) < 2 and all(ids.names(unit.name, name) for name in names):
            gone.add(unit)
    return gone


def _on_list(samples: pd.DataFrame, ids: Listed) -> pd.Series:
    pairs = zip(samples["sample_id"], _own_names(samples), strict=True)
    return pd.Series([ids.names(*pair) for pair in pairs], index=samples.index, dtype=bool)


def _asked(atomise: Sequence[str]) -> dict[str, str]:
    """Return the unit of each property to atomise, "" where none is given."""
    return {name: unit for name, _, unit in (text.partition(":") for text in atomise)}


def _agreed(schema: Schema, units: Mapping[str, str | None]) -> Schema:
    """Return the schema with these quantities, refusing another unit than the dataset has."""
    held = dict(schema.properties)
    for name, unit in units.items():
        if unit and held.get(name, unit) not in (unit, None):
            raise InvalidRequest(
                f"{name} is in {held[name]} in this dataset, and the flags or files say {unit}: "
                "leave the unit out, or choose another --name"
            )
    return replace(schema, properties=tuple(units.items()))


def atoms_of(formula: str) -> list[int]:
    """Return the nuclear charge of every atom of a formula."""
    return [
        nuclear_charge(s) for s, count in _PART.findall(formula) for _ in range(int(count or 1))
    ]


def elements_of(formulas: pd.Series) -> tuple[int, ...]:
    """Return the nuclear charges in formulas, ascending."""
    return tuple(sorted({charge for text in set(formulas) for charge in atoms_of(str(text))}))


def _embedded_units(source: str) -> list[Unit]:
    names, tag = embedded(source)
    files = [SourceFile(source, name, f"{name}.xyz", 1024, etag=tag) for name in names]
    return [Unit(file.member or "", (file,)) for file in files]


def _read(unit: Unit, payload: Sequence[bytes]) -> Found[Molecule]:
    return read_molecules(unit.files[0].name, payload[0])


def _own_names(samples: pd.DataFrame) -> list[str]:
    """Return what the molecules of samples are called: see `ids.own_name`."""
    gdb = samples["gdb"] if "gdb" in samples else [None] * len(samples)
    rows = zip(samples["sample_id"], samples["index"], gdb, strict=True)
    return [own_name(str(sample), str(index), number) for sample, index, number in rows]


def _joined(samples: pd.DataFrame, table: _Values | None) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return samples with the table's columns, and separately those that lack some."""
    if table is None:
        return samples, samples[:0].assign(reason="", message="")
    messages = pd.Series(table.lacking, index=samples.index, dtype=object)
    lacking = (messages != "").to_numpy()
    way = ": complete --table, or leave it out with --exclude"
    columns = {str(name): table.columns[name].to_numpy() for name in table.columns}
    together = samples.assign(**columns)
    bad = together[lacking].assign(reason="target", message=messages[lacking] + way)
    return together[~lacking].reset_index(drop=True), bad


def _units(samples: pd.DataFrame) -> dict[str, str | None]:
    """Return the units of properties that files themselves hold."""
    known = dict(qm9.UNITS) if "gdb" in samples else {"energy": _energy_unit(samples)}
    if samples["source"].astype(str).str.startswith("ase:").all():
        known |= EMBEDDED_UNITS
    return {str(name): known.get(str(name)) for name in samples.select_dtypes("float")}


def _energy_unit(samples: pd.DataFrame) -> str | None:
    """Return the unit of what files call energy: ASE's is eV, that of other files nobody says."""
    if "energy" not in samples:
        return None
    sources = samples["source"][samples["energy"].notna()].astype(str)
    through = {through_ase(place.partition("?")[0]) for place in sources}
    return "eV" if through == {True} else "eV in some files" if len(through) > 1 else None


def _free_energy(
    formula: str, free: Mapping[int, tuple[float, ...]], column: int, needed: bool
) -> float:
    """Return the energy of a molecule's atoms apart from one another, NaN if it is unknown."""
    charges = atoms_of(formula)
    if lacking := sorted({charge for charge in charges if charge not in free}):
        if not needed:
            return float("nan")
        elements = ", ".join(symbols()[charge] for charge in lacking)
        raise InvalidRequest(
            f"{formula}: the table of free atoms lacks {elements}; name one with --atomref"
        )
    return sum(free[charge][column] for charge in charges)
