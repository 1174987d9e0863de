"""``python -m benchmarks [NAME...]``: run benchmarks and write their tables."""

from __future__ import annotations

import argparse
import importlib

NAMES = {
    "solid_harmonics": "solid harmonic scattering against kymatio, on one grid",
    "molecules": "learning curves of atomisation energies, in pieces",
    "pipeline": "features through the whole pipeline, against the bare transform",
    "scattering2d": "the scattering transform against kymatio, in one process",
}


def main() -> None:
    """Run the benchmarks named, or all."""
    about = "\n".join(f"  {name:14} {text}" for name, text in NAMES.items())
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        epilog=f"benchmarks:\n{about}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", metavar="NAME")
    names = parser.parse_args().names or list(NAMES)
    if unknown := sorted(set(names) - set(NAMES)):
        parser.error(f"no benchmark {unknown[0]!r}")
    for name in names:
        importlib.import_module(f"benchmarks.{name}").main()


if __name__ == "__main__":
    main()
