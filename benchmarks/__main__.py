"""``python -m benchmarks [NAME...]``: run benchmarks and write their tables."""

from __future__ import annotations

import argparse
import importlib

NAMES = {
    "cifar10": "classifiers of CIFAR-10 by scattering and sparse codes, in pieces",
    "descent": "descents of samples, in two systems of coordinates",
    "dictionary": "sparse codes by supports against dense products",
    "families": "one sample of each family of moments: a picture and a table",
    "maxent": "losses, gradients and syntheses of maximum-entropy models, against pywph",
    "solid_harmonics": "solid harmonic scattering against kymatio, on one grid",
    "qm9_grids": "solid harmonic scattering of molecules of QM9 through the pipeline",
    "molecules": "learning curves of atomisation energies, in pieces",
    "regressions": "ridge, multilinear forms and kernels of features of molecules, in pieces",
    "images": "ingestion of photographs, against a bare pool of processes",
    "imagenet": "the published recipe of ImageNet: images a second, hours for the whole",
    "generation": "generators of Tiny ImageNet, in pieces",
    "generation_data": "generators of bedrooms, fields and CIFAR-10, in pieces",
    "feature_store": "features by table and id against Feast, patches against xbatcher",
    "pipeline": "features through the whole pipeline, against the bare transform",
    "quality": "models of turbulence and the cosmic web on held-out maps; resumable, hours",
    "scattering2d": "the scattering transform against kymatio, in one process",
    "tiny_imagenet": "classifiers of Tiny ImageNet by scattering and sparse codes, in pieces",
    "stability": "deformations of a field, and how far its representations move: a picture",
}
IN_PIECES = (
    "cifar10",
    "generation",
    "generation_data",
    "molecules",
    "quality",
    "regressions",
    "tiny_imagenet",
)  # hours in all; each run of one continues where the last ended


def main() -> None:
    """Run the named benchmarks, or all that take only minutes."""
    about = "\n".join(f"  {name:14} {text}" for name, text in NAMES.items())
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        epilog=f"benchmarks:\n{about}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", metavar="NAME")
    names = parser.parse_args().names or [name for name in NAMES if name not in IN_PIECES]
    if unknown := sorted(set(names) - set(NAMES)):
        parser.error(f"no benchmark {unknown[0]!r}")
    for name in names:
        importlib.import_module(f"benchmarks.{name}").main()


if __name__ == "__main__":
    main()
