"""What ``solid.c`` and ``atoms.c`` do: squares of solid harmonics with Gaussians, and integrals."""

from __future__ import annotations

import ctypes
import math

import torch
from torch import Tensor

from wavemill.kernels.loading import (
    TRIPLE,
    call,
    numbers,
    precise,
    readable,
    unfollowed,
    usable,
)


class Solid(ctypes.Structure):
    """How many fields of how many sources; their points, and where they lie."""

    _fields_ = [
        *numbers("molecules", "fields", "sources", "degree", "monomials"),
        ("old", TRIPLE),
        ("new", TRIPLE),
        *numbers("molecule", "field", "sheet", "row"),
    ]


class Integrals(ctypes.Structure):
    """Points of sheets, and powers."""

    _fields_ = numbers("sheets", "rows", "points", "powers")


def square_about_atoms(weights: Tensor, lines: list[Tensor], coefficients: Tensor) -> Tensor | None:
    """Return ``(molecule, field, z, y, x)`` of weights ``(molecule, field, atom)``.

    ``lines`` are ``(power, molecule, atom, point)``; ``coefficients`` ``(m, monomial)``, of
    monomials ordered by a and b. None where the loops cannot do it: on other devices, in a graph of
    autograd.
    """
    if not _can(weights, *lines):
        return None
    molecules, fields, sources = weights.shape
    task = _solid(coefficients, molecules, fields, [line.shape[3] for line in lines])
    task.sources = sources
    return _squares("square_about_atoms", weights.contiguous(), lines, coefficients, task)


def square_convolved(
    field: Tensor, axes: list[Tensor], coefficients: Tensor, factor: float
) -> Tensor | None:
    """Return ``(molecule, field, z', y', x')`` of ``(molecule, field, z, y, x)``.

    ``axes`` are ``(power, molecule, new, old)``; ``coefficients`` ``(m, monomial)``, of monomials
    ordered by b and a, are multiplied by ``factor``. None where `square_about_atoms` is.
    """
    if not _can(field, *axes) or field.stride(-1) != 1:
        return None
    molecules, fields = field.shape[:2]
    task = _solid(coefficients, molecules, fields, [axis.shape[2] for axis in axes])
    task.old = TRIPLE(*field.shape[2:])
    task.molecule, task.field, task.sheet, task.row = field.stride()[:4]
    return _squares("square_convolved", field, axes, factor * coefficients, task)


def integrals(square: Tensor, powers: tuple[float, ...]) -> tuple[Tensor, Tensor] | None:
    """Return the roots of ``(..., z, y, x)``, and sums of their powers, ``(..., power)``.

    The sums are in float64. None where `square_about_atoms` is.
    """
    if not _can(square) or not square.is_contiguous():
        return None
    *lead, sheets, rows, points = square.shape
    task = Integrals(sheets=math.prod(lead) * sheets, rows=rows, points=points, powers=len(powers))
    roots, exponents = (
        torch.empty_like(square),
        torch.tensor(powers, dtype=torch.float64, device="cpu"),
    )
    out = exponents.new_empty(*lead, sheets, len(powers))
    call("integrals", square.dtype, square, exponents, task, roots, out)
    return roots, out.sum(-2)


def _can(first: Tensor, *others: Tensor) -> bool:
    """Say whether the loops can do it; the first tensor may lie in memory in any way."""
    memory = readable(first) and usable(*others) and precise(first.dtype)
    return memory and unfollowed(first, *others)


def _solid(coefficients: Tensor, molecules: int, fields: int, new: list[int]) -> Solid:
    rows, monomials = coefficients.shape
    return Solid(
        molecules=molecules,
        fields=fields,
        degree=rows // 2,
        monomials=monomials,
        new=TRIPLE(*new),
    )


def _squares(
    name: str, given: Tensor, axes: list[Tensor], coefficients: Tensor, task: Solid
) -> Tensor:
    out = given.new_empty(task.molecules, task.fields, *task.new)
    if not call(name, given.dtype, given, *axes, coefficients, task, out):
        raise MemoryError("no memory for solid harmonics")
    return out
