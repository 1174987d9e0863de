"""Regressions of QM9's energies on features of molecules, with and without those on grids.

In pieces, with the store, the split and the folder of `benchmarks.molecules`: run it again until
its table is whole.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import tables
from benchmarks.molecules import CASES, FOLDER, SECONDS, OutOfTime, ingested
from tasks.regression import Data
from wavemill import (
    AtomicHarmonics,
    AtomicKernel,
    Composition,
    Molecules,
    Multilinear,
    Ridge,
    SolidHarmonicScattering,
)

CASE = CASES[0]
HOME = FOLDER / CASE.name
PIECE = 250  # molecules
HELD_ON_GRIDS = 500
SIZES = (1000, 2000, 5000, 10_000, 20_000, 45_000)
PRODUCTS = ("r = 1", "r = 2", "r = 3")
MOST_PRODUCTS, MOST_KERNEL = 10_000, 5_000  # molecules that these learn from
LANDMARKS = 2000
ATOMIC, GRIDS, BOTH = "about atoms", "on grids", "both"


def main() -> None:
    """Go on with the pieces, and write the table of what is done."""
    until = time.monotonic() + SECONDS
    try:
        measure(until)
    except OutOfTime as left:
        print(f"{left}; run it again to go on", file=sys.stderr)
    if rows := results():
        write(rows)


def measure(until: float) -> None:
    """Learn from more and more molecules, by features about atoms, on grids, and both."""
    molecules, data = ingested(CASE)
    HOME.mkdir(parents=True, exist_ok=True)
    order = [*range(data.test.start, data.test.stop), *range(SIZES[-1])]
    elements = tuple(sorted(set(molecules.charges.tolist())))
    transform = AtomicHarmonics(elements)
    features(transform, molecules, order, range(len(order)), "atoms", until)

    def learn_all(kind: str, count: int, names: tuple[str, ...], held: int = CASE.test) -> None:
        for name in names:
            learn(kind, name, transform, molecules, data, order, count, held, until)

    for count in SIZES:
        seen, grids = places(count, HELD_ON_GRIDS), SolidHarmonicScattering()
        features(grids, molecules, order, seen, "grids", until)
        forms = PRODUCTS if count == SIZES[0] else ()
        for kind in (ATOMIC, GRIDS, BOTH):
            learn_all(kind, count, ("composition", "ridge", *forms), HELD_ON_GRIDS)
        learn_all(ATOMIC, count, ("composition", "ridge"))
        learn_all(ATOMIC, count, PRODUCTS if count <= MOST_PRODUCTS else ())
        learn_all(ATOMIC, count, ("kernel",) if count <= MOST_KERNEL else ())


def places(count: int, held: int) -> list[int]:
    """Return the places of molecules held out and learnt from, in the order of the split."""
    return [*range(held), *range(CASE.test, CASE.test + count)]


def model(name: str, transform: AtomicHarmonics) -> Any:
    """Return what learns, by name."""
    counts = len(transform.elements)
    match name:
        case "composition":
            return Composition(counts)
        case "ridge":
            return Ridge(counts)
        case "kernel":
            return AtomicKernel(transform, LANDMARKS)
    return Multilinear(counts, int(name[-1]))


def features(
    transform: torch.nn.Module,
    molecules: Molecules,
    order: list[int],
    seen: Sequence[int],
    name: str,
    until: float,
) -> None:
    """Compute the features that are lacking, a piece after the other, and the time they took."""
    for number in sorted({place // PIECE for place in seen}):
        file = HOME / f"{name}-{number:03d}.npz"
        if file.exists():
            continue
        if time.monotonic() > until:
            raise OutOfTime(f"features {name} before molecule {number * PIECE}")
        some = order[number * PIECE : (number + 1) * PIECE]
        part = Molecules.of([molecules[i : i + 1].alone() for i in some])
        begun = time.process_time()
        with torch.inference_mode():
            values = transform(part)
        took = time.process_time() - begun
        partial = file.with_suffix(".part")
        with partial.open("wb") as output:
            np.savez(output, values=values.numpy(), seconds=took)
        partial.replace(file)


def stored(kind: str, seen: list[int]) -> torch.Tensor:
    """Return the features of molecules by their places."""
    names = {ATOMIC: ("atoms",), GRIDS: ("grids",), BOTH: ("atoms", "grids")}[kind]
    numbers = sorted({place // PIECE for place in seen})
    rows = [numbers.index(place // PIECE) * PIECE + place % PIECE for place in seen]
    blocks = [
        np.concatenate([np.load(HOME / f"{name}-{i:03d}.npz")["values"] for i in numbers])[rows]
        for name in names
    ]
    return torch.from_numpy(np.concatenate(blocks, 1))


def learn(
    kind: str,
    name: str,
    transform: AtomicHarmonics,
    molecules: Molecules,
    data: Data,
    order: list[int],
    count: int,
    held: int,
    until: float,
) -> None:
    """Learn from the first molecules; leave the error on those held out in a file."""
    done = result(kind, name, count, held)
    if done.exists():
        return
    if time.monotonic() > until:
        raise OutOfTime(f"{name}, {kind}, of {count} molecules")
    seen = places(count, held)
    target = torch.from_numpy(data.target)
    target = torch.cat([target[data.test][:held], target[:count]])
    if name == "kernel":
        x: Any = Molecules.of([molecules[order[i] : order[i] + 1].alone() for i in seen])
    else:
        x = stored(kind, seen)
    if kind == GRIDS:  # they do not count atoms
        x = torch.cat([stored(ATOMIC, seen)[:, : len(transform.elements)], x], 1)
    found = model(name, transform).fit(x[held:], target[held:])
    error = (found.predict(x[:held]) - target[:held]).abs().mean()
    done.write_text(json.dumps(float(error)))


def result(kind: str, name: str, count: int, held: int) -> Path:
    """Return the file of an error."""
    words = "-".join([kind, name, str(count), str(held)])
    return HOME / f"error-{''.join(c if c.isalnum() else '-' for c in words)}.json"


def results() -> list[dict[str, Any]]:
    """Return a row a training size and kind of features."""
    names = ["composition", "ridge", *PRODUCTS, "kernel"]
    rows = []
    kinds = (ATOMIC, GRIDS, BOTH)
    cases = [(count, HELD_ON_GRIDS, kind) for count in SIZES for kind in kinds]
    for count, held, kind in [*cases, *((count, CASE.test, ATOMIC) for count in SIZES)]:
        files = {name: result(kind, name, count, held) for name in names}
        errors = {
            name: f"{json.loads(file.read_text()):.2f}" if file.exists() else ""
            for name, file in files.items()
        }
        if errors["ridge"]:
            about = {"molecules": f"{count:,}", "held out": f"{held:,}", "features": kind}
            rows.append({**about, **errors})
    return rows


def write(rows: list[dict[str, Any]]) -> None:
    """Write the table."""
    pieces = [float(np.load(file)["seconds"]) for file in sorted(HOME.glob("grids-*.npz"))]
    each = sum(pieces) / (PIECE * max(1, len(pieces)))
    text = (
        "Mean absolute errors, kcal/mol, of atomisation energies of the 1,000 molecules of QM9 "
        f"held out in `molecules.md`, or of the first {HELD_ON_GRIDS} of them, learnt from the "
        "first of the others. Features: atomic harmonics and solid harmonics as the views are by "
        "default, and the numbers of atoms. "
        "r = 1, 2, 3: ridge and 64 products of so many linear forms of the features; kernel: of "
        f"single atoms, {LANDMARKS:,} landmarks. {PIECE * len(pieces):,} molecules took "
        f"{each:.3f} s each on grids, one thread's own time on a busy machine: "
        f"{130_831 * each / 7200:.1f} hours for the 130,831 of QM9 on two such cores. "
        "`python -m benchmarks regressions`, in pieces."
    )
    using = tables.versions("torch", "numpy")
    tables.write("regressions", "Regressions of energies of molecules", text, rows, using)


if __name__ == "__main__":
    main()
