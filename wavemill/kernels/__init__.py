"""Compiled loops of transforms, covariances and sparse codes, where they could be built.

The sources, in C, need nothing but a compiler; ``build.py`` runs it when the package is installed.
Where there is none, and wherever a tensor is not plain memory of a CPU, callers compute the same
with torch. With ``WAVEMILL_KERNELS=0`` in the environment they do so everywhere.

Each file in C has a module here that describes its structures, field by field, and calls it;
``solid.py`` serves two, ``atoms.c`` and ``solid.c``.
"""

from wavemill.kernels.boxes import (
    add_polar_spectra,
    fourier,
    harmonic_spectra,
    slope_spectra,
)
from wavemill.kernels.fields import add_filtered_back, add_polar, filtered, harmonics
from wavemill.kernels.grams import GramsTask
from wavemill.kernels.loading import available, forget_room, load, unfollowed, usable
from wavemill.kernels.products import Covariances, parts, products
from wavemill.kernels.scattering import Average, Bank, Scattering, scatter, scattering_bytes
from wavemill.kernels.shifts import Shifts, differentiated_at_shifts, means_at_shifts, shifts_bytes
from wavemill.kernels.solid import integrals, square_about_atoms, square_convolved
from wavemill.kernels.sparse_codes import Coding, istc, istc_gradients

__all__ = [
    "Average",
    "Bank",
    "Coding",
    "Covariances",
    "GramsTask",
    "Scattering",
    "Shifts",
    "add_filtered_back",
    "add_polar",
    "add_polar_spectra",
    "available",
    "differentiated_at_shifts",
    "filtered",
    "forget_room",
    "fourier",
    "harmonic_spectra",
    "harmonics",
    "integrals",
    "istc",
    "istc_gradients",
    "load",
    "means_at_shifts",
    "parts",
    "products",
    "scatter",
    "scattering_bytes",
    "shifts_bytes",
    "slope_spectra",
    "square_about_atoms",
    "square_convolved",
    "unfollowed",
    "usable",
]
