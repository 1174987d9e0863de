"""Regressions of QM9's energies on features of molecules, with and without those on grids.

In pieces, with the store, the split and the folder of `benchmarks.molecules`: run it again until
its table is complete.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from itertools import product
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
SIZES = (1000, 2000, 5000, 10_000, 20_000, 45_000)
PRODUCTS = ("r = 1", "r = 2", "r = 3")
MOST_PRODUCTS, MOST_KERNEL = 10_000, 5_000  # molecules that these learn from
LANDMARKS = 2000
KINDS = ATOMIC, GRIDS, BOTH = "about atoms", "on grids", "both"


def main() -> None:
    """Continue with the pieces, and write the table of what is done."""
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

    for count in SIZES:
        seen = range(CASE.test + count)
        features(SolidHarmonicScattering(), molecules, order, seen, "grids", until)
        for kind in KINDS:
            names = ["composition", "ridge"]
            if count == SIZES[0] or (kind == ATOMIC and count <= MOST_PRODUCTS):
                names += PRODUCTS
            if kind == ATOMIC and count <= MOST_KERNEL:
                names += ["kernel"]
            for name in names:
                learn(kind, name, transform, molecules, data, order, count, until)


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
    """Compute the missing features, piece by piece, and the time they took."""
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


def stored(kind: str, count: int) -> torch.Tensor:
    """Return the features of the first molecules."""
    names = {ATOMIC: ("atoms",), GRIDS: ("grids",), BOTH: ("atoms", "grids")}[kind]
    pieces = range(-(-count // PIECE))
    blocks = [
        np.concatenate([read(HOME / f"{name}-{i:03d}.npz", "values") for i in pieces])[:count]
        for name in names
    ]
    return torch.from_numpy(np.concatenate(blocks, 1))


def read(file: Path, name: str) -> Any:
    """Return an array of a piece."""
    with np.load(file) as held:
        return held[name]


def learn(
    kind: str,
    name: str,
    transform: AtomicHarmonics,
    molecules: Molecules,
    data: Data,
    order: list[int],
    count: int,
    until: float,
) -> None:
    """Learn from the first molecules; leave the error on those held out in a file."""
    done, held = result(kind, name, count), CASE.test
    if done.exists():
        return
    if time.monotonic() > until:
        raise OutOfTime(f"{name}, {kind}, of {count} molecules")
    target = torch.from_numpy(data.target)
    target = torch.cat([target[data.test], target[:count]])
    if name == "kernel":
        few = order[: held + count]
        x: Any = Molecules.of([molecules[i : i + 1].alone() for i in few])
    else:
        x = stored(kind, held + count)
    if kind == GRIDS:  # they do not count atoms
        x = torch.cat([stored(ATOMIC, held + count)[:, : len(transform.elements)], x], 1)
    found = model(name, transform).fit(x[held:], target[held:])
    error = (found.predict(x[:held]) - target[:held]).abs().mean()
    done.write_text(json.dumps(float(error)))


def result(kind: str, name: str, count: int) -> Path:
    """Return the file of an error."""
    words = "-".join([kind, name, str(count)])
    return HOME / f"error-{''.join(c if c.isalnum() else '-' for c in words)}.json"


def results() -> list[dict[str, Any]]:
    """Return a row a training size and kind of features."""
    names = ["composition", "ridge", *PRODUCTS, "kernel"]
    rows = []
    for count, kind in product(SIZES, KINDS):
        files = {name: result(kind, name, count) for name in names}
        errors = {
            name: f"{json.loads(file.read_text()):.2f}" if file.exists() else ""
            for name, file in files.items()
        }
        if errors["ridge"]:
            rows.append({"molecules": f"{count:,}", "features": kind, **errors})
    return rows


def write(rows: list[dict[str, Any]]) -> None:
    """Write the table."""
    pieces = [float(read(file, "seconds")) for file in sorted(HOME.glob("grids-*.npz"))]
    each = sum(pieces) / (PIECE * max(1, len(pieces)))
    text = (
        "Mean absolute errors, kcal/mol, of atomisation energies of the 1,000 molecules of QM9 "
        "held out in `molecules.md`, learnt from the first of the others. Features: atomic "
        "harmonics (about atoms) and solid harmonics (on grids) with the defaults of their views, "
        "and the numbers of atoms. r = 1, 2, 3: ridge, and 64 products of r linear forms of the "
        f"features; kernel: of single atoms, {LANDMARKS:,} landmarks. Features on grids of "
        f"{PIECE * len(pieces):,} molecules took {each:.3f} s of a core each, beside other work. "
        "`python -m benchmarks regressions`, in pieces."
    )
    using = tables.versions("torch", "numpy")
    tables.write("regressions", "Regressions of energies of molecules", text, rows, using)


if __name__ == "__main__":
    main()
