"""Molecules: how files of them become rows of a part, and tables beside them columns."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Any, Self

import pandas as pd
import zarr

from storage import InvalidRequest, Schema, Store
from storage.molecules import Atoms, write_atoms
from storage.readers.molecules import EXTENSIONS, qm9, read_molecules
from storage.readers.molecules.molecule import nuclear_charge
from storage.readers.molecules.tables import Target, align, choose, is_listed, read_ids, read_table
from storage.sources import Discovery, SourceFile, Unit, discover
from storage.sources.download import PUBLISHED, fetch_published
from storage.sources.embedded import EMBEDDED, embedded
from storage.sources.embedded import UNITS as EMBEDDED_UNITS
from storage.sources.filesystem import absolute, read_bytes
from tasks.inputs import Decoded, Input

ANGSTROM = ("angstrom",) * 3
SCHEMA = Schema(
    "positions", ("x", "y", "z"), (), ANGSTROM, "float64", periodic=False, layout="molecules"
)
EXCLUDED = "on the list of exclusions"
_PART = re.compile(r"([A-Z][a-z]?)(\d*)")


@dataclass(frozen=True)
class MoleculeOptions:
    """How sources become molecules; the options of ``wavemill ingest molecules``.

    Attributes
    ----------
    table
        A file of properties, joined by id, or by position where it names no ids.
    target
        Its columns to take, each ``[NAME=]COLUMN[:UNIT]``; all of numbers unless given.
    exclude
        Files whose first column are ids to leave out; ``qm9:uncharacterized`` is QM9's.
    atomref
        A file of free atoms' energies like QM9's, which is the default.
    atomise
        Properties, in hartree, from which ``<name>_atom`` in kcal/mol is made by taking the
        energies at 0 K of the free atoms away. QM9's own four energies always are.
    part_size
        Bytes of files in a part.
    strict, mirror, rehash
        As for fields.
    """

    table: str | None = None
    target: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    atomref: str | None = None
    atomise: tuple[str, ...] = ()
    part_size: int = 8 * 2**20
    strict: bool = False
    mirror: bool = False
    rehash: bool = False

    def find(self, places: Sequence[str]) -> Discovery:
        """Find the files of molecules; a sample is named by its file, whatever the folder."""
        files = [located(place) for place in places if not place.startswith(EMBEDDED)]
        found = discover(files, extensions=EXTENSIONS) if files else Discovery()
        units = [Unit(unit.name.rpartition("/")[2], unit.files) for unit in found]
        for place in places:
            units += _embedded_units(place) if place.startswith(EMBEDDED) else []
        listed = listed_ids(self.exclude)
        kept = [unit for unit in units if not is_listed(unit.name, listed)]
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
        """Return the options: nothing that lies beside the samples tells more."""
        return self

    def weight(self, item: Input, schema: Schema) -> int:
        """Return the bytes that an input adds to a part."""
        return item.nbytes

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
        found = read_molecules(unit.files[0].name, payload[0])
        refused = [(label, bad.reason, bad.message) for label, bad in found.refused]
        return Decoded([(item.index, item, item.columns()) for item in found], refused)

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
            If the table does not align.
        """
        if not len(samples):
            return samples, samples.assign(reason="", message=""), schema
        ids = listed_ids(self.exclude)
        listed = samples["sample_id"].map(lambda sample: is_listed(str(sample), ids)).astype(bool)
        kept = samples[~listed].reset_index(drop=True)
        table, given = self._table(kept)
        kept, lacking = _joined(kept, table)
        kept, made = self._atomised(kept)
        units = {**_units(kept), **given, **made}
        properties = tuple((name, units[name]) for name in map(str, kept) if name in units)
        return kept, lacking, replace(schema, properties=properties)

    def labels(self, samples: pd.DataFrame) -> pd.DataFrame | None:
        """Return the table's values for all samples, None if they carry them already."""
        table, _ = self._table(samples)
        if table is None:
            return None
        made, derived = self._atomised(
            samples.assign(**{str(c): table[c].to_numpy() for c in table})
        )
        fresh = made[["sample_id", *dict.fromkeys([*table, *derived])]]
        return None if samples.reindex(columns=list(fresh)).equals(fresh) else fresh

    def _table(self, samples: pd.DataFrame) -> tuple[pd.DataFrame | None, dict[str, str | None]]:
        """Return the properties of samples, one row each in their order, and their units."""
        if self.table is None or not len(samples):
            return None, {}
        name = PurePosixPath(self.table).name
        whole = read_table(read_bytes(absolute(self.table)), name)
        targets = choose(whole, [Target.parse(text) for text in self.target], name)
        rows = align(whole, list(samples["sample_id"]), name)
        columns = {target.name: rows[target.column].to_numpy(float) for target in targets}
        return pd.DataFrame(columns), {target.name: target.unit for target in targets}

    def _atomised(self, samples: pd.DataFrame) -> tuple[pd.DataFrame, dict[str, str | None]]:
        """Add ``<name>_atom``, kcal/mol, for QM9's energies and those asked for.

        Raises
        ------
        InvalidRequest
            If an energy is not there, or a free atom's is not known.
        """
        wanted = {name: at for at, name in enumerate(qm9.ENERGIES) if "gdb" in samples}
        for name in self.atomise:
            if name not in samples:
                raise InvalidRequest(f"--atomise {name}: no such property; see --target")
            wanted.setdefault(name, 0)
        free = qm9.FREE_ATOMS
        if self.atomref is not None:
            free = qm9.read_atomref(read_bytes(absolute(located(self.atomref))).decode())
        made = {}
        for name, column in wanted.items():
            energies = {text: _free_energy(text, free, column) for text in set(samples["formula"])}
            base = samples["formula"].map(energies)
            made[f"{name}_atom"] = qm9.KCAL * (samples[name].astype(float) - base)
        return samples.assign(**made), dict.fromkeys(made, "kcal/mol")


def located(place: str) -> str:
    """Return a path, or where a published file named ``qm9:...`` was downloaded to."""
    return str(fetch_published(place)) if place.partition(":")[0] in PUBLISHED else place


def listed_ids(places: Sequence[str]) -> set[str]:
    """Return the ids in lists of exclusions."""
    contents = [read_bytes(absolute(located(place))) for place in places]
    return set().union(*map(read_ids, contents))


def atoms_of(formula: str) -> list[int]:
    """Return the nuclear charge of every atom of a formula."""
    return [
        nuclear_charge(s) for s, count in _PART.findall(formula) for _ in range(int(count or 1))
    ]


def elements_of(formulas: pd.Series) -> tuple[int, ...]:
    """Return the nuclear charges in formulas, ascending."""
    return tuple(sorted({charge for text in set(formulas) for charge in atoms_of(str(text))}))


def dataset_defaults(store: Store, dataset: str, kind: str, name: str) -> dict[str, Any]:
    """Return what a view of molecules takes from its dataset: the elements, at its first time."""
    if store.dataset(dataset).schema.layout != "molecules" or kind != "atomic-harmonics":
        return {}
    latest = store.view_versions(dataset, name).latest()
    if latest is not None:
        return {k: v for k, v in latest["spec"]["parameters"].items() if k == "elements"}
    return {"elements": list(elements_of(store.dataset(dataset).samples()["formula"]))}


def _embedded_units(source: str) -> list[Unit]:
    names, tag = embedded(source)
    files = [SourceFile(source, name, f"{name}.xyz", 1024, etag=tag) for name in names]
    return [Unit(file.member or "", (file,)) for file in files]


def _joined(samples: pd.DataFrame, table: pd.DataFrame | None) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return samples with the table's columns, and apart those for which it has no row."""
    if table is None:
        return samples, samples[:0].assign(reason="", message="")
    lacking = table.isna().any(axis=1).to_numpy()
    message = "the table has no value for it: complete --table, or leave it out with --exclude"
    together = samples.assign(**{str(name): table[name].to_numpy() for name in table})
    bad = together[lacking].assign(reason="target", message=message)
    return together[~lacking].reset_index(drop=True), bad


def _units(samples: pd.DataFrame) -> dict[str, str | None]:
    """Return the units of properties that files themselves hold."""
    known = dict(qm9.UNITS) if "gdb" in samples else {"energy": "eV"}
    if samples["source"].astype(str).str.startswith("ase:").all():
        known |= EMBEDDED_UNITS
    return {str(name): known.get(str(name)) for name in samples.select_dtypes("float")}


def _free_energy(formula: str, free: Mapping[int, tuple[float, ...]], column: int) -> float:
    """Return the energy of a molecule's atoms apart from one another."""
    charges = atoms_of(formula)
    if lacking := sorted({charge for charge in charges if charge not in free}):
        raise InvalidRequest(
            f"{formula}: the table of free atoms lacks {lacking}; name one with --atomref"
        )
    return sum(free[charge][column] for charge in charges)
