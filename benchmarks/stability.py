"""Stability to deformations: how far representations move, relative to the deformation.

    C = |Phi(D_tau x) - Phi(x)| / (|grad tau|_inf |x|) ,   D_tau x(u) = x(u - tau(u)) .

The scattering transform is linear in small deformations, with a constant that does not depend on
their size; pixels and the modulus of the Fourier transform are not. Deformations are two shears,
each a translation of whole lines, which band-limited fields follow exactly.

Source: Mallat, *Group invariant scattering*, CPAM 65, 1331 (2012), theorem 2.12.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor

from wavemill import Scattering2D

SLOPES = (0.01, 0.02, 0.05, 0.1, 0.2)
IMAGE = Path(__file__).parents[1] / "docs" / "images" / "stability.png"


def blurred_noise(side: int, seed: int = 0) -> Tensor:
    """Return white noise under a Gaussian of one pixel, ``(side, side)`` float64, norm 1."""
    noise = torch.randn(
        side, side, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )
    w = 2 * math.pi * torch.fft.fftfreq(side, dtype=torch.float64)
    low = torch.exp(-(w[:, None] ** 2 + w**2) / 2)
    blurred = torch.fft.ifft2(torch.fft.fft2(noise) * low).real
    return blurred / torch.linalg.vector_norm(blurred)


def deform(x: Tensor, slope: float) -> tuple[Tensor, float]:
    """Return ``D_tau x`` for one sine period of shear along each axis, and |grad tau|_inf."""
    side = x.shape[-1]
    phase = 2 * math.pi * torch.arange(side, dtype=torch.float64) / side
    tau = slope * side / (2 * math.pi) * torch.sin(phase)
    # Composed, tau_y is taken at x - tau_x(y): its derivative along y is the product of slopes.
    a = slope * torch.cos(phase[:, None] - 2 * math.pi / side * tau[None, :])
    b = (slope * torch.cos(phase))[None, :].expand_as(a)
    jacobian = torch.stack(
        [torch.stack([-a * b, a], -1), torch.stack([b, torch.zeros_like(b)], -1)], -2
    )
    return _shear(_shear(x, tau).mT, tau).mT, float(torch.linalg.matrix_norm(jacobian, 2).max())


def _shear(x: Tensor, tau: Tensor) -> Tensor:
    """Move column number c of ``x`` down by ``tau[c]``."""
    w = 2 * math.pi * torch.fft.fftfreq(x.shape[-2], dtype=torch.float64)
    return torch.fft.ifft(torch.fft.fft(x, dim=-2) * torch.exp(-1j * w[:, None] * tau), dim=-2).real


def constants(
    side: int, J: int, L: int, slopes: tuple[float, ...] = SLOPES
) -> dict[str, list[float]]:
    """Return C of each representation for each slope, and the |grad tau|_inf reached."""
    op = Scattering2D((side, side), J, L, padding="periodic", dtype=torch.float64)
    representations: dict[str, Callable[[Tensor], Tensor]] = {
        "scattering": lambda x: side * op(x).mean((-2, -1)),
        "Fourier modulus": lambda x: torch.fft.fft2(x, norm="ortho").abs(),
        "pixels": lambda x: x,
    }
    x = blurred_noise(side)
    moved = [deform(x, slope) for slope in slopes]
    found = {"gradient": [gradient for _, gradient in moved]}
    for name, phi in representations.items():
        base = phi(x)
        found[name] = [
            float(torch.linalg.vector_norm(phi(y) - base)) / gradient for y, gradient in moved
        ]
    return found


def main() -> None:
    """Measure, print and draw."""
    found = constants(256, 6, 8)
    gradient = found.pop("gradient")
    print("|grad tau|", " ".join(f"{value:.3f}" for value in gradient))
    figure = Figure(figsize=(6.4, 3.6), layout="constrained")
    axes = figure.add_subplot()
    for (name, values), marker in zip(found.items(), "o^s", strict=True):
        print(f"{name:16}", " ".join(f"{value:.3f}" for value in values))
        axes.loglog(gradient, values, marker=marker, label=name)
    axes.set_xlabel(r"size of the deformation, $|\nabla\tau|_\infty$")
    axes.set_ylabel(r"$\|\Phi(D_\tau x)-\Phi(x)\|\ /\ |\nabla\tau|_\infty\,\|x\|$")
    axes.set_ylim(0.03, 60)
    axes.grid(alpha=0.25)
    axes.legend(frameon=False, loc="center right")
    figure.savefig(IMAGE, dpi=110, metadata={"Software": None})


if __name__ == "__main__":
    main()
