"""Learning curves of atomisation energies, in pieces: run it again until it writes its table.

The reference geometries are ingested into a store and split by a hash of their ids; sums over
atoms of products are kept piece by piece in a folder (``WAVEMILL_BENCH_FOLDER``), for learning from
more and more molecules. A run stops after ``WAVEMILL_BENCH_SECONDS`` at the end of a piece.
"""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

from benchmarks import tables
from storage import open_store
from tasks.fit import FitRequest
from tasks.regression import SHELLS, Data, split
from tasks.views import as_molecules
from wavemill import AtomicHarmonics, AtomicProducts, Composition, Molecules
from wavemill.molecules.atomic_regression import Normal
from wavemill.specs import RegressionSpec

FOLDER = Path(os.environ.get("WAVEMILL_BENCH_FOLDER", "bench-molecules"))
SECONDS = float(os.environ.get("WAVEMILL_BENCH_SECONDS", "1e9"))
SHARED = Path(__file__).parents[2] / "shared" / "data"
IMAGE = Path(__file__).parents[1] / "docs" / "images" / "molecules.png"
PIECE = 1000  # molecules
PRODUCTS = 6000
PENALTIES = (6e-6, 2e-5, 6e-5, 2e-4, 6e-4)  # alpha n


@dataclass(frozen=True)
class Case:
    """A dataset, its energies, and how many molecules are learnt from."""

    name: str
    source: str
    options: dict[str, Any]
    target: str
    stages: tuple[int, ...]
    test: int


CASES = (
    Case(
        "qm9",
        "qm9/geometry",
        {
            "table": "qm9/geometry/potential_energy_open.csv",
            "target": ("potential_energy:hartree",),
            "atomise": ("potential_energy",),
            "exclude": ("qm9/reference/uncharacterized.txt",),
        },
        "potential_energy_atom",
        (1000, 2000, 5000, 10_000, 20_000, 45_000),
        1000,
    ),
    Case(
        "qm7",
        "qm7/qm7_xyz_open.tar.bz2",
        {"table": "qm7/hof_qm7_open.txt", "target": ("energy=2:kcal/mol", "dftb=3:kcal/mol")},
        "energy",
        (1000, 2000, 3700),
        1000,
    ),
)


class OutOfTime(Exception):
    """The piece is done; the rest is for the next run."""


def main() -> None:
    """Go on with the pieces, and write the table of what is done."""
    started = time.monotonic()
    try:
        for case in CASES:
            measure(case, started + SECONDS)
    except OutOfTime as left:
        print(f"{case.name}: {left}; run it again to go on", file=sys.stderr)
    if rows := [row for case in CASES for row in results(case)]:
        write(rows)
        draw()


def write(rows: list[dict[str, Any]]) -> None:
    """Write the table."""
    text = (
        "Mean absolute errors, kcal/mol, of atomisation energies of 1,000 molecules held out by a "
        "hash of their ids; learnt from the first of the others in the same order. Products of "
        "pairs of principal components are chosen by the geometries, not the energies, of all "
        "that are learnt from in the last row; the penalty by a tenth of the molecules. QM9: B3LYP "
        "less the zero-point energy; QM7: PBE0. `python -m benchmarks molecules`, in pieces."
    )
    using = tables.versions("torch", "numpy")
    tables.write("molecules", "Energies of molecules", text, rows, using)


def draw() -> None:
    """Draw predictions against the truth, and learning curves."""
    figure = Figure(figsize=(8.0, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for case, mark in zip(CASES, "os", strict=True):
        rows = results(case)
        counts = [int(row["molecules"].replace(",", "")) for row in rows]
        errors = [float(row["products"]) for row in rows]
        if not counts:
            continue
        right.loglog(counts, errors, marker=mark, label=case.name.upper())
        if case is CASES[0]:
            truth, predicted = np.load(FOLDER / case.name / f"predicted-{counts[-1]}.npy")
            left.plot(truth, truth, color="grey", lw=0.8)
            left.plot(truth, predicted, ".", ms=3, alpha=0.5)
            title = f"{len(truth):,} molecules of QM9, learnt from {counts[-1]:,}"
            left.set(xlabel="atomisation energy (kcal/mol)", ylabel="predicted", title=title)
    right.set(xlabel="molecules learnt from", ylabel="mean absolute error (kcal/mol)")
    right.grid(which="both", alpha=0.25)
    right.legend(frameon=False)
    figure.savefig(IMAGE, dpi=110, metadata={"Software": None})


def results(case: Case) -> list[dict[str, Any]]:
    """Return a row a training size that is done."""
    found = [(count, FOLDER / case.name / f"result-{count}.json") for count in case.stages]
    return [
        {"data": case.name, "molecules": f"{count:,}", **json.loads(file.read_text())}
        for count, file in found
        if file.exists()
    ]


def ingested(case: Case) -> tuple[Molecules, Data]:
    """Return molecules in the order of the split, ingesting them at the first time."""
    from flows import ingest
    from tasks.molecules import MoleculeOptions

    url = str(FOLDER.absolute() / "store")
    if case.name not in open_store(url).datasets():
        paths = tuple(str(SHARED / path) for path in case.options.get("exclude", ()))
        table = str(SHARED / case.options["table"])
        options = {**case.options, "table": table, "exclude": paths}
        ingest(case.name, [str(SHARED / case.source)], url, MoleculeOptions(**options), "threads")
    source = open_store(url).dataset(case.name)
    request = FitRequest("regression", target=case.target, view="")
    spec = RegressionSpec(test=case.test, train=case.stages[-1])
    held = source.samples()
    data = split(held, source, request, spec)
    place = dict(zip(held["sample_id"], range(len(held)), strict=True))
    order = [place[i] for i in data.rows["sample_id"]]
    return as_molecules(source.atoms().take(order)), data


def measure(case: Case, until: float) -> None:
    """Learn from more and more molecules, leaving a file for each number of them."""
    molecules, data = ingested(case)
    home = FOLDER / case.name
    home.mkdir(parents=True, exist_ok=True)
    most = case.stages[-1]
    model = chosen(case, molecules, home)
    order = [*range(data.test.start, data.test.stop), *range(most)]
    seen = Seen(home, case.test, model.counts(molecules), torch.from_numpy(data.target), model)
    for count in case.stages:
        done = home / f"result-{count}.json"
        if not done.exists():
            compute(model, molecules, order[: case.test + count], home, until)
            done.write_text(json.dumps(seen.solve(count, data, until)))
        if time.monotonic() > until and count < most:
            raise OutOfTime(f"{count} of {most} molecules learnt from")


def chosen(case: Case, molecules: Molecules, home: Path) -> AtomicProducts:
    """Return the model with its products chosen by all molecules to learn from."""
    elements = tuple(sorted(set(molecules.charges.tolist())))
    model, file = AtomicProducts(AtomicHarmonics(elements, **SHELLS), PRODUCTS), home / "chosen"
    if not file.exists():
        model.choose(molecules[: case.stages[-1]])
        torch.save({name: getattr(model, f"{name}_") for name in model.NAMES[:-1]}, file)
    for name, value in torch.load(file).items():
        setattr(model, f"{name}_", value)
    return model


def compute(
    model: AtomicProducts, molecules: Molecules, order: list[int], home: Path, until: float
) -> None:
    """Compute the sums over atoms that are lacking, a piece after the other."""
    for start in range(0, len(order), PIECE):
        file = home / f"sums-{start // PIECE:03d}.npy"
        if file.exists():
            continue
        if time.monotonic() > until:
            raise OutOfTime(f"sums of {start} of {len(order)} molecules")
        some = order[start : start + PIECE]
        part = Molecules.of([molecules[i : i + 1].alone() for i in some])
        with torch.inference_mode():
            rows = torch.cat([rows for _, rows in model.blocks(part)])
        partial = file.with_suffix(".part")
        with partial.open("wb") as output:
            np.save(output, rows.numpy())
        partial.replace(file)


class Seen:
    """The normal equations of the molecules learnt from so far; those held out come first."""

    def __init__(
        self,
        home: Path,
        test: int,
        counts: torch.Tensor,
        target: torch.Tensor,
        model: AtomicProducts,
    ) -> None:
        self.home, self.test, self.counts, self.target = home, test, counts, target
        self.model = model
        self.begin()
        if (home / "normal").exists():
            kept = torch.load(home / "normal")
            self.sums.gram, self.cross, self.done = kept["gram"], kept["cross"], kept["done"]
            self.sums.count = self.done

    def begin(self) -> None:
        """Forget all molecules."""
        self.done, self.sums = 0, Normal(self.model.size)
        self.cross = torch.zeros(self.model.size, 1 + self.counts.shape[1], dtype=torch.float64)

    def save(self) -> None:
        """Keep the sums, to go on from there."""
        state = {"gram": self.sums.gram, "cross": self.cross, "done": self.done}
        torch.save(state, self.home / "normal.part")
        (self.home / "normal.part").replace(self.home / "normal")

    def rows(self, start: int, stop: int) -> torch.Tensor:
        """Return sums over atoms of some molecules."""
        pieces = []
        for number in range(start // PIECE, -(-stop // PIECE)):
            piece = np.load(self.home / f"sums-{number:03d}.npy", mmap_mode="r")
            begin = number * PIECE
            pieces.append(piece[max(start - begin, 0) : max(stop - begin, 0)])
        return torch.from_numpy(np.concatenate(pieces)).double()

    def learn(self, stop: int, until: float) -> None:
        """Take the molecules up to ``stop``, anew if there are more already."""
        if self.done > stop:
            self.begin()
        while self.done < stop:
            if time.monotonic() > until:
                self.save()
                raise OutOfTime(f"sums of {self.done} of {stop} molecules")
            end = min(stop, (self.done // PIECE + 1) * PIECE)
            rows, some = self.rows(self.test + self.done, self.test + end), slice(self.done, end)
            self.sums.add(rows, self.target[some])
            self.cross += rows.T @ self.sides(some)
            self.done = end

    def solve(self, count: int, data: Data, until: float) -> dict[str, Any]:
        """Learn from ``count`` molecules and return the errors on those held out."""
        held = count // 10
        base = Composition(self.counts.shape[1]).fit(self.counts[:count], self.target[:count])
        rest = self.target - base.predict(self.counts)
        self.learn(count - held, until)
        self.save()
        sums = self.sums
        sums.product = self.cross @ torch.cat([base.weights_.new_ones(1), -base.weights_])
        validating = self.rows(self.test + count - held, self.test + count)
        unit, errors = self.model.penalty(), []
        for penalty in PENALTIES:
            found = validating @ sums.weights(unit, penalty / sums.count)
            errors.append(float((found - rest[count - held : count]).abs().mean()))
        best = PENALTIES[errors.index(min(errors))]
        sums.add(validating, rest[count - held : count])
        weights = sums.weights(unit, best / count)
        self.cross += validating.T @ self.sides(slice(count - held, count))
        self.done = count
        plain = rest[data.test].abs()
        found = self.rows(0, self.test) @ weights
        error = (found - rest[data.test]).abs()
        truth = self.target[data.test]
        both = torch.stack([truth, truth - rest[data.test] + found])
        np.save(self.home / f"predicted-{count}.npy", both.numpy())
        return {
            "composition": f"{float(plain.mean()):.2f}",
            "products": f"{float(error.mean()):.3f}",
            "root mean square": f"{float(error.square().mean().sqrt()):.3f}",
            "penalty": f"{best:.0e}",
        }

    def sides(self, rows: slice) -> torch.Tensor:
        """Return what sums over atoms are multiplied with: energies and numbers of atoms."""
        return torch.cat([self.target[rows, None], self.counts[rows]], 1)


if __name__ == "__main__":
    main()
