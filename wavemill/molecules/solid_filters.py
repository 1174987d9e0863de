"""Fields of molecules on full periodic grids, by Fourier transforms: Kymatio's, to rounding.

Fourier transforms have the sign ``exp(-i k u)``. The frequency -pi, which has no counterpart +pi,
is kept as it is, so that fields are complex.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache

import torch
from torch import Tensor

from wavemill.molecules.solid_gaussians import Shape, bells, planes, polynomials
from wavemill.molecules.solid_grids import Placed

AXES = (-3, -2, -1)
ALIASES = (-2 * math.pi, 0.0, 2 * math.pi)  # the next are below 1e-19 for a width of 1 sample


def fast(side: int) -> int:
    """Return the next even number without prime factors above 5."""
    side += side % 2
    while True:
        rest = side
        for prime in (2, 3, 5):
            while rest % prime == 0:
                rest //= prime
        if rest == 1:
            return side
        side += 2


def frequencies(side: int) -> Tensor:
    """Return the angular frequencies of ``side`` samples, in the FFT's order."""
    turns: Tensor = torch.fft.fftfreq(side, dtype=torch.float64)
    return 2 * math.pi * turns


@lru_cache(maxsize=32)
def filters(shape: Shape, sigma: float, L: int, dtype: torch.dtype, device: str) -> Tensor:
    """Return the transforms of psi_jlm but for ``(-i)^l``: ``((L + 1)^2, z, y, x)``, real.

    That of ``r^l exp(-r^2 / 2) Y_lm`` is ``(2 pi)^(3/2) (-i)^l k^l exp(-k^2 / 2) Y_lm``; the norm
    is ``n_l = 1 / (sqrt(4 pi (2 l + 1)) 2^((l + 1) / 2) Gamma((l + 3) / 2))``.
    """
    lines = [bells(sigma * frequencies(side), 1.0, L)[:, None] for side in shape]
    bank = []
    for degree in range(L + 1):
        moment = 2 ** ((degree + 1) / 2) * math.gamma((degree + 3) / 2)
        norm = (2 * math.pi) ** 1.5 / (math.sqrt(4 * math.pi * (2 * degree + 1)) * moment)
        powers, table = polynomials(degree)
        plane = planes(lines, powers, degree)[:, 0]
        long = torch.cat([lines[0][a] for a, _ in powers])
        bank += [norm * (row[:, None] * long).T @ plane for row in table]
    return torch.stack(bank).view(-1, *shape).to(device, dtype)


@dataclass(frozen=True)
class FullGrids:
    """Fields of molecules in periodic boxes of one shape.

    Parameters
    ----------
    placed
        The molecules; positions count from the first sample.
    shape
        Sides of the box.
    width, sigmas
        Of atoms and wavelets, samples.
    L
        Highest degree.
    """

    placed: Placed
    shape: Shape
    width: float
    sigmas: list[float]
    L: int

    def first(self, sigma: float | None, degree: int) -> tuple[Tensor, float]:
        """Return ``sum over m of |rho * psi_lm|^2``, and the volume of a point; rho^2 if None."""
        spectra = self.density
        if sigma is None:
            return _squared(torch.fft.ifftn(spectra, dim=AXES)), 1.0
        return self._square(spectra, sigma, degree), 1.0

    def second(
        self, modulus: Tensor, sigma: float, degree: int
    ) -> Iterator[tuple[float, Tensor, float]]:
        """Yield each wider wavelet, ``sum over m of |U1 * psi_lm|^2`` and the volume of a point."""
        spectra = torch.fft.fftn(modulus, dim=AXES)
        for wider in self.sigmas[self.sigmas.index(sigma) + 1 :]:
            yield wider, self._square(spectra, wider, degree), 1.0

    @cached_property
    def density(self) -> Tensor:
        """The Fourier transforms of densities ``(molecule, channel, z, y, x)``.

        They have a closed form, ``sum of w exp(-i k r - width^2 k^2 / 2)`` over the aliases of k
        that sampling adds. As a product over axes it is computed by one matrix product.
        """
        molecules = zip(self.placed.positions, self.placed.weights, strict=True)
        return torch.stack([self._density(*molecule) for molecule in molecules])

    def _density(self, positions: Tensor, weights: Tensor) -> Tensor:
        axes: list[Tensor] = []
        for axis, side in enumerate(self.shape):
            waves = frequencies(side).to(positions)
            aliases = [self._sampled(positions[:, axis, None], waves + shift) for shift in ALIASES]
            axes.append(torch.stack(aliases).sum(0))
        plane = (axes[1][:, :, None] * axes[2][:, None, :]).flatten(1)
        line = weights[:, None, :] * axes[0].T
        found: Tensor = (line @ plane).reshape(len(weights), *self.shape)
        return found

    def _sampled(self, places: Tensor, waves: Tensor) -> Tensor:
        """Return one alias of the transform of a Gaussian along an axis, ``(atom, frequency)``."""
        phase = -places * waves
        decay = torch.exp(-((self.width * waves) ** 2) / 2)
        return torch.polar(decay.expand_as(phase).contiguous(), phase)

    def _square(self, spectra: Tensor, sigma: float, degree: int) -> Tensor:
        """Return ``sum over m of |field * psi_lm|^2`` of a field's spectrum."""
        real = spectra.real
        bank = filters(self.shape, sigma, self.L, real.dtype, str(real.device))
        fields = (
            torch.fft.ifftn(spectra * bank[place], dim=AXES)
            for place in range(degree**2, (degree + 1) ** 2)
        )
        total = torch.zeros_like(real)
        for field in fields:
            total = total + _squared(field)
        return total


def _squared(field: Tensor) -> Tensor:
    return field.real.square() + field.imag.square()
