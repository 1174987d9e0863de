"""Build the loops in C when the package is installed: a hatchling hook.

Without a C compiler the installation goes on, and says what is lost.
"""

from __future__ import annotations

import os
import runpy
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

FOLDER = Path("wavemill/kernels")
NAMES = "atoms boxes fields grams products scattering shifts solid sparse_codes"
SOURCES = [FOLDER / f"{name}.c" for name in NAMES.split()]
LIBRARY = FOLDER / "_kernels.so"
fingerprint = runpy.run_path(str(Path(__file__).with_name("sources.py")))["fingerprint"]
FLAGS = ("-O3", "-fno-math-errno", "-fno-trapping-math", "-Wno-psabi", "-shared", "-fPIC")


class KernelsHook(BuildHookInterface):  # type: ignore[type-arg, misc, unused-ignore]
    """Compile the loops into the package, be it a wheel or a checkout."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Build the library and have the wheel carry it."""
        if self.target_name != "wheel":
            return
        root = Path(self.root)
        if compile_kernels(root, root / LIBRARY):
            build_data["pure_python"] = False
            platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
            build_data["tag"] = f"py3-none-{platform}"
            build_data["artifacts"].append(str(LIBRARY))


def compile_kernels(root: Path, library: Path) -> bool:
    """Compile the sources, with OpenMP where the compiler has it; say whether that worked."""
    compiler = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        return _missed("no C compiler was found")
    fresh = library.with_suffix(f".{os.getpid()}")  # no half-written library under its name
    said, made_of = "", fingerprint(root / FOLDER)
    for threads in (["-fopenmp"], []):
        sources = [str(root / source) for source in SOURCES]
        flags = [*FLAGS, *threads, f'-DKERNELS_SOURCES="{made_of}"']
        command = [*compiler.split(), *flags, *sources, "-o", str(fresh), "-lm"]
        made = subprocess.run(command, capture_output=True, text=True)
        if made.returncode == 0:
            fresh.replace(library)
            return True
        lines = made.stderr.strip().splitlines() or ["it said nothing"]
        said = next((line for line in lines if "error:" in line), lines[0])
    return _missed(f"{compiler} failed: {said}")


def _missed(reason: str) -> bool:
    print(
        f"wavemill: transforms will be computed by torch alone, slower: {reason}", file=sys.stderr
    )
    return False
