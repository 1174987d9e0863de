"""Learning curves of atomisation energies: run it again to continue where it stopped.

The reference geometries are ingested into a store and split by a hash of their ids. Results for
growing numbers of molecules are kept in a folder (``WAVEMILL_BENCH_FOLDER``), point by point. No
new point is begun after ``WAVEMILL_BENCH_SECONDS``.
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
from matplotlib.ticker import LogLocator

from benchmarks import tables
from storage import open_store
from tasks.progress import Reporter
from tasks.regression import SHELLS, Data, split
from tasks.requests import FitRequest
from tasks.views import as_molecules
from wavemill import AtomicHarmonics, AtomicProducts, Molecules
from wavemill.specs import RegressionSpec

FOLDER = Path(os.environ.get("WAVEMILL_BENCH_FOLDER", "bench-molecules"))
SECONDS = float(os.environ.get("WAVEMILL_BENCH_SECONDS", "1e9"))
SHARED = Path(__file__).parents[2] / "shared" / "data"
IMAGE = Path(__file__).parents[1] / "docs" / "images" / "molecules.png"
PRODUCTS = RegressionSpec().products
MORE = 20_000


@dataclass(frozen=True)
class Case:
    """A dataset, its energies, and how many molecules are learnt from, by how many products."""

    name: str
    source: str
    options: dict[str, Any]
    target: str
    stages: tuple[tuple[int, int], ...]
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
        (
            *((count, PRODUCTS) for count in (1000, 2000, 5000, 10_000, 20_000, 45_000)),
            (45_000, MORE),
        ),
        1000,
    ),
    Case(
        "qm7",
        "qm7/qm7_xyz_open.tar.bz2",
        {"table": "qm7/hof_qm7_open.txt", "target": ("energy=2:kcal/mol", "dftb=3:kcal/mol")},
        "energy",
        tuple((count, PRODUCTS) for count in (1000, 2000, 3700)),
        1000,
    ),
)


class OutOfTime(Exception):
    """A point is done; the rest is for the next run."""


def main() -> None:
    """Continue with the pieces, and write the table of what is done."""
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
        "hash of their ids, predicted from their composition alone and by products of pairs of "
        "principal components. Learnt from are the first of the others in the order of the hash, a "
        "tenth of which chooses the penalty. Minutes are of the clock and, under 'processor', of "
        "both processors. QM9: B3LYP without the zero-point energy; QM7: PBE0. "
        "`python -m benchmarks molecules`."
    )
    using = tables.versions("torch", "numpy")
    tables.write("molecules", "Energies of molecules", text, rows, using)


def draw() -> None:
    """Draw predictions against the truth, and learning curves."""
    figure = Figure(figsize=(8.0, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for case, mark in zip(CASES, "os", strict=True):
        rows = results(case)
        if not rows:
            continue
        for wanted, style in ((PRODUCTS, "-"), (MORE, "")):
            points = [
                (count, float(row["error"]))
                for (count, products), row in zip(case.stages, rows, strict=False)
                if products == wanted
            ]
            if points:
                label = f"{case.name.upper()}, {wanted:,} products"
                right.loglog(*zip(*points, strict=True), style, marker=mark, label=label)
        if case is CASES[0]:
            count, products = case.stages[len(rows) - 1]
            truth, predicted = np.load(kept(case, "predicted", count, products, "npy"))
            left.plot(truth, truth, color="grey", lw=0.8)
            left.plot(truth, predicted, ".", ms=3, alpha=0.5)
            title = f"{len(truth):,} molecules of QM9, learnt from {count:,}"
            left.set(xlabel="atomisation energy (kcal/mol)", ylabel="predicted", title=title)
    right.set(xlabel="molecules learnt from", ylabel="mean absolute error (kcal/mol)")
    right.yaxis.set_minor_locator(LogLocator(subs=(2, 3, 5)))
    for axis in (right.xaxis, right.yaxis):
        axis.set_major_formatter("{x:,g}")
    right.yaxis.set_minor_formatter("{x:g}")
    right.grid(which="both", alpha=0.25)
    right.legend(frameon=False)
    figure.savefig(IMAGE, dpi=110, metadata={"Software": None})


def results(case: Case) -> list[dict[str, Any]]:
    """Return a row for each finished point of the curve; they are done in order."""
    done = [point for point in case.stages if kept(case, "result", *point, "json").exists()]
    return [
        {
            "data": case.name,
            "molecules": f"{count:,}",
            "products": f"{products:,}",
            **json.loads(kept(case, "result", count, products, "json").read_text()),
        }
        for count, products in done
    ]


def kept(case: Case, what: str, count: int, products: int, suffix: str) -> Path:
    """Return where something of a point of the curve is kept."""
    return FOLDER / case.name / f"{what}-{count}-{products}.{suffix}"


def ingested(case: Case) -> tuple[Molecules, Data]:
    """Return molecules in the order of the split; the first time, ingest them."""
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
    (FOLDER / case.name).mkdir(parents=True, exist_ok=True)
    for count, products in case.stages:
        done = kept(case, "result", count, products, "json")
        if done.exists():
            continue
        if time.monotonic() > until:
            raise OutOfTime(f"{count} molecules not yet learnt from")
        found, both = learnt(molecules, data, count, products)
        np.save(kept(case, "predicted", count, products, "npy"), both)
        partial = done.with_suffix(".part")
        partial.write_text(json.dumps(found))
        partial.replace(done)


def learnt(
    molecules: Molecules, data: Data, count: int, products: int
) -> tuple[dict[str, Any], Any]:
    """Learn from ``count`` molecules; return errors on those held out, truth and predictions."""
    elements = tuple(sorted(set(molecules.charges.tolist())))
    model = AtomicProducts(AtomicHarmonics(elements, **SHELLS), products)
    target, test = torch.from_numpy(data.target), molecules[data.test.start : data.test.stop]
    started = time.perf_counter(), time.process_time()
    with torch.inference_mode():
        report = Reporter(f"fit products to {count:,}").values
        model.fit(molecules[:count], target[:count], report)
        wall, used = time.perf_counter() - started[0], time.process_time() - started[1]
        composition = model.composition_.predict(model.counts(test))
        found, truth = model.predict(test), target[data.test]
    error = (found - truth).abs()
    row = {
        "composition": f"{float((composition - truth).abs().mean()):.2f}",
        "error": f"{float(error.mean()):.3f}",
        "median": f"{float(error.median()):.3f}",
        "root mean square": f"{float(error.square().mean().sqrt()):.3f}",
        "alpha": f"{model.alpha_:.0e}",
        "minutes": f"{wall / 60:.1f}",
        "processor": f"{used / 60:.1f}",
    }
    return row, torch.stack([truth, found]).numpy()


if __name__ == "__main__":
    main()
