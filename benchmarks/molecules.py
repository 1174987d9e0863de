"""Learning curves of atomisation energies, in pieces: run it again until it writes its table.

Everything goes through the pipeline: the reference geometries are ingested into a store, split by
a hash of their ids, and the kernel's rows, the costly part, are kept piece by piece in a folder
(``WAVEMILL_BENCH_FOLDER``). A run stops after ``WAVEMILL_BENCH_SECONDS`` at the end of a piece.
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

from benchmarks import tables
from storage import open_store
from tasks.fit import FitRequest
from tasks.regression import Data, split
from tasks.views import as_molecules
from wavemill import AtomicHarmonics, AtomicKernel, Composition, Molecules
from wavemill.atomic_kernel import Sums
from wavemill.specs import RegressionSpec

FOLDER = Path(os.environ.get("WAVEMILL_BENCH_FOLDER", "bench-molecules"))
SECONDS = float(os.environ.get("WAVEMILL_BENCH_SECONDS", "1e9"))
SHARED = Path(__file__).parents[2] / "shared" / "data"
PIECE = 1000  # molecules
TRANSFORM: dict[str, Any] = {"sigma": 0.4, "J": 5, "L": 3, "across": 4, "reach": 1.6}
ZETA = 2.0
PENALTIES = (1e-8, 1e-7, 1e-6, 1e-5)


@dataclass(frozen=True)
class Case:
    """A dataset, its energies, and how many molecules are learnt from with how many landmarks."""

    name: str
    source: str
    options: dict[str, Any]
    target: str
    stages: tuple[tuple[int, int], ...]
    """Molecules, and the landmarks drawn among those that the stage before lacks."""
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
        ((1000, 1000), (2000, 600), (5000, 800), (10_000, 2000), (20_000, 2000), (45_000, 4000)),
        1000,
    ),
    Case(
        "qm7",
        "qm7/qm7_xyz_open.tar.bz2",
        {"table": "qm7/hof_qm7_open.txt", "target": ("energy=2:kcal/mol", "dftb=3:kcal/mol")},
        "energy",
        ((1000, 1400), (2000, 600), (3700, 1000)),
        1000,
    ),
)


class OutOfTime(Exception):
    """The piece is done; the rest is for the next run."""


def main() -> None:
    """Go on with the pieces, and write the table of what is done."""
    started, rows = time.monotonic(), []
    for case in CASES:
        try:
            measure(case, started + SECONDS)
        except OutOfTime as left:
            print(f"{case.name}: {left}; run it again to go on", file=sys.stderr)
        rows += results(case)
    if rows:
        write(rows)


def write(rows: list[dict[str, Any]]) -> None:
    """Write the table."""
    text = (
        "Mean absolute errors, kcal/mol, of atomisation energies of 1,000 molecules held out by a "
        "hash of their ids; learnt from the first of the others in the same order. Landmarks are "
        "among the atoms learnt from, the penalty is chosen by a tenth of them. QM9: B3LYP less "
        "the zero-point energy; QM7: PBE0. `python -m benchmarks molecules`, in pieces."
    )
    using = tables.versions("torch", "numpy")
    tables.write("molecules", "Energies of molecules", text, rows, using)


def results(case: Case) -> list[dict[str, Any]]:
    """Return a row a training size that is done."""
    found = [(count, FOLDER / case.name / f"result-{count}.json") for count, _ in case.stages]
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
    spec = RegressionSpec(test=case.test, train=case.stages[-1][0])
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
    model, sizes = landmarks(case, molecules, home)
    most = case.stages[-1][0]
    compute(model, molecules, [*range(data.test.start, data.test.stop), *range(most)], home, until)
    counts, target = model.counts(molecules), torch.from_numpy(data.target)
    among, seen = model.among(), Seen(home, case.test, counts, target, model.size)
    for count, size in sizes:
        done = home / f"result-{count}.json"
        if not done.exists():
            found = solve(seen, among[:size, :size], count, data)
            done.write_text(json.dumps(found))
            if time.monotonic() > until and count < most:
                raise OutOfTime(f"{count} of {most} molecules learnt from")


def landmarks(
    case: Case, molecules: Molecules, home: Path
) -> tuple[AtomicKernel, list[tuple[int, int]]]:
    """Return a kernel with the landmarks of all stages, and how many each stage has."""
    elements = tuple(sorted(set(molecules.charges.tolist())))
    model = AtomicKernel(AtomicHarmonics(elements, **TRANSFORM), zeta=ZETA)
    file, sizes, first = home / "landmarks.npz", [], 0
    found: list[AtomicKernel] = []
    held = np.load(file) if file.exists() else None
    for count, new in case.stages:
        if held is None:
            stage = AtomicKernel(model.transform, new, ZETA)
            stage.choose(molecules[first:count])
            found.append(stage)
        first = count
    if held is None:
        ends = np.cumsum([stage.size for stage in found])
        arrays = {
            "kinds": torch.cat([stage.kinds_ for stage in found]).numpy(),
            "landmarks": torch.cat([stage.landmarks_ for stage in found]).numpy(),
            "ends": ends,
        }
        np.savez(file, **arrays)
        held = arrays
    model.kinds_ = torch.from_numpy(held["kinds"])
    model.landmarks_ = torch.from_numpy(held["landmarks"])
    sizes = [(count, int(end)) for (count, _), end in zip(case.stages, held["ends"], strict=True)]
    return model, sizes


def compute(
    model: AtomicKernel, molecules: Molecules, order: list[int], home: Path, until: float
) -> None:
    """Compute the rows of the kernel that are lacking, a piece after the other."""
    for start in range(0, len(order), PIECE):
        file = home / f"kernel-{start // PIECE:03d}.npy"
        if file.exists():
            continue
        if time.monotonic() > until:
            raise OutOfTime(f"{start} of {len(order)} rows of the kernel")
        some = order[start : start + PIECE]
        part = Molecules.of([molecules[i : i + 1].alone() for i in some])
        with torch.inference_mode():
            rows = torch.cat([kernel for _, kernel in model.kernels(part)])
        partial = file.with_suffix(".part")
        with partial.open("wb") as output:
            np.save(output, rows.numpy())
        partial.replace(file)


class Seen:
    """Sums over the molecules learnt from so far, as in `Sums`, for any number of landmarks."""

    def __init__(
        self, home: Path, test: int, counts: torch.Tensor, target: torch.Tensor, size: int
    ) -> None:
        self.home, self.test = home, test
        self.sides = torch.cat([target[:, None], counts], 1)
        self.gram = torch.zeros(size, size, dtype=torch.float64)
        self.cross = torch.zeros(size, self.sides.shape[1], dtype=torch.float64)
        self.done = 0

    def rows(self, start: int, stop: int) -> torch.Tensor:
        """Return rows of the kernel; the held-out molecules are the first ones kept."""
        pieces = []
        for number in range(start // PIECE, -(-stop // PIECE)):
            piece = np.load(self.home / f"kernel-{number:03d}.npy", mmap_mode="r")
            begin = number * PIECE
            pieces.append(piece[max(start - begin, 0) : max(stop - begin, 0)])
        return torch.from_numpy(np.concatenate(pieces)).double()

    def learn(self, stop: int) -> None:
        """Take the molecules up to ``stop``."""
        while self.done < stop:
            end = min(stop, (self.done // PIECE + 1) * PIECE)
            kernel = self.rows(self.test + self.done, self.test + end)
            self.gram.addmm_(kernel.T, kernel)
            self.cross += kernel.T @ self.sides[self.done : end]
            self.done = end

    def sums(self, size: int, base: torch.Tensor) -> Sums:
        """Return the sums for the first landmarks, of what a composition ``base`` leaves."""
        found = Sums(0)
        found.gram, found.count = self.gram[:size, :size].clone(), self.done
        found.product = self.cross[:size] @ torch.cat([base.new_ones(1), -base])
        return found


def solve(seen: Seen, among: torch.Tensor, count: int, data: Data) -> dict[str, Any]:
    """Learn from ``count`` molecules and return the errors on those held out."""
    size, held = len(among), count // 10
    target, counts = seen.sides[:, 0], seen.sides[:, 1:]
    base = Composition(counts.shape[1]).fit(counts[:count], target[:count]).weights_
    rest = target - counts @ base
    seen.learn(count - held)
    sums, offset = seen.sums(size, base), seen.test
    validation = seen.rows(offset + count - held, offset + count)[:, :size]
    truth, errors = rest[count - held : count], {}
    for alpha in PENALTIES:
        found = validation @ sums.weights(among, alpha)
        errors[alpha] = float((found - truth).abs().mean())
    best = min(errors, key=lambda alpha: errors[alpha])
    seen.learn(count)
    weights = seen.sums(size, base).weights(among, best)
    error = (seen.rows(0, seen.test)[:, :size] @ weights - rest[data.test]).abs()
    plain = rest[data.test].abs()
    return {
        "composition": f"{float(plain.mean()):.2f}",
        "kernel": f"{float(error.mean()):.3f}",
        "root mean square": f"{float(error.square().mean().sqrt()):.3f}",
        "landmarks": size,
        "penalty": f"{best:.0e}",
    }


if __name__ == "__main__":
    main()
