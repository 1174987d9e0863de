"""Solid harmonic scattering of random molecules of QM9 through the pipeline, and hours for all.

Molecules drawn from the reference geometries are ingested and transformed by ``wavemill features``
with a worker a core, as a user would, in a store of their own.
"""

from __future__ import annotations

import random
import tarfile
import tempfile
import time
from pathlib import Path

import psutil

from benchmarks import tables
from flows import features, ingest
from storage import open_store
from tasks.molecules import MoleculeOptions

ARCHIVE = Path(__file__).parents[2] / "shared/data/qm9/geometry/dsgdb9nsd_xyz_open.tar.bz2"
MOLECULES, ALL = 2000, 130_831
PART = 2**16  # bytes of files: parts for all cores, of some 70 molecules


def main() -> None:
    """Measure and write the table."""
    with tempfile.TemporaryDirectory() as folder:
        draw(Path(folder) / "xyz")
        url = str(Path(folder) / "store")
        ingest("qm9", [f"{folder}/xyz"], url, MoleculeOptions(part_size=PART))
        atoms = open_store(url).dataset("qm9").samples()["n_atoms"].mean()
        start = time.perf_counter()
        features("qm9", "solid-harmonics", store=url)
        seconds = time.perf_counter() - start
    cores = psutil.cpu_count(logical=True) or 1
    row = {
        "molecules": MOLECULES,
        "atoms each": f"{atoms:.1f}",
        "workers": cores,
        "seconds": f"{seconds:.0f}",
        "seconds of a core a molecule": f"{cores * seconds / MOLECULES:.3f}",
        f"hours of all {ALL}": f"{seconds / MOLECULES * ALL / 3600:.2f}",
    }
    text = (
        "Random molecules of the reference geometries through `wavemill features --view "
        "solid-harmonics` with the view's defaults (J = 2, L = 3, three channels, four powers: "
        "300 numbers a molecule), including the start and the end of the run."
    )
    using = tables.versions("torch", "dask", "prefect", "numpy")
    tables.write("qm9_grids", "QM9 on grids", text, [row], using)


def draw(folder: Path) -> None:
    """Write files of random molecules into a folder."""
    folder.mkdir()
    with tarfile.open(ARCHIVE) as archive:
        members = [member for member in archive if member.isfile()]
        drawn = random.Random(0).sample(members, MOLECULES)
        for member in sorted(drawn, key=lambda member: member.offset):  # bz2 has no way back
            file = archive.extractfile(member)
            assert file is not None
            (folder / Path(member.name).name).write_bytes(file.read())


if __name__ == "__main__":
    main()
