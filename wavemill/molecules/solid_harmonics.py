"""Solid harmonic scattering of molecules: densities on grids, wavelets, moduli over m, integrals.

A molecule is the density ``rho_c(u) = sum over atoms of w_c(Z) G(u - r)`` in each channel c, with a
Gaussian G of integral 1. With solid harmonic wavelets

    psi_jlm(u) = n_l sigma_j^-3 (r / sigma_j)^l exp(-r^2 / 2 sigma_j^2) Y_lm(u / r),
    sigma_j = sigma 2^j,  j = 0..J,

where n_l makes the integral of ``(sum over m of |psi_jlm|^2)^(1/2)`` 1, the coefficients are

    order 0: integral of rho^q
    order 1: integral of U1^q,  U1[j, l] = (sum over m of |rho * psi_jlm|^2)^(1/2)
    order 2: integral of U2^q,  U2[j1, j2, l] = (sum over m of |U1[j1, l] * psi_j2lm|^2)^(1/2)

for j2 > j1

(Eickenberg et al., J. Chem. Phys. 148, 241732, 2018). They are invariant to translations by whole
samples, quarter turns and reflections to rounding, and to others as well as the grid resolves.

Fourier transforms have the sign ``exp(-i k u)``. Every density lies in a periodic box of its own.
A field whose spectrum ends at ``band / width`` is computed on a grid that just holds it. Fields of
the first order are sums of Gaussians times polynomials: they are written down in closed form
(:mod:`.solid_gaussians`). Those of the second are transformed, and with real harmonics they
are real: 2 l + 1 real transforms. Full grids (``band=None``) transform at both orders, keep the
frequency -pi, of which there is no +pi, as it is, and fields complex: that is Kymatio's transform.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from wavemill.errors import InvalidParameter
from wavemill.molecules.atoms import Molecules
from wavemill.molecules.solid_filters import cropped, fast, filters, frequencies
from wavemill.molecules.solid_gaussians import Shape, gaussian_square, wavelet_of_atom

First = Callable[[float | None, int, Shape], Tensor]
NOBLE = (0, 2, 10, 18, 36, 54, 86, 118)
ALIASES = (-2 * math.pi, 0.0, 2 * math.pi)  # the next are below 1e-19 for a width of 1 sample
NOISE = 0.5  # rounding units of the largest value, below which a field is noise
WIDER = 1.2  # what is cut off a spectrum of the second order rings over empty space
BATCH = 2**22  # samples of the grids of a batch


def valence(charges: Tensor) -> Tensor:
    """Return the electrons outside the closed shells below; all of them for H and He."""
    shells = torch.tensor(NOBLE[1:], device=charges.device)
    below = torch.tensor(NOBLE, device=charges.device)[torch.searchsorted(shells, charges)]
    return charges - below


CHANNELS: dict[str, Callable[[Tensor], Tensor]] = {
    "full": lambda charges: charges,
    "valence": valence,
    "core": lambda charges: charges - valence(charges),
    "atoms": torch.ones_like,
}


class SolidHarmonicScattering(nn.Module):
    """Solid harmonic scattering coefficients of orders 0 to 2, summed over space.

    Parameters
    ----------
    J, L
        Largest scale j (there are J + 1) and highest degree l.
    powers
        Exponents q of the integrals.
    sigma
        Width of the wavelets of scale 0, samples.
    width
        Width of the Gaussian of an atom, samples.
    resolution
        Samples in an Angstrom: one number for a whole data set.
    channels
        Names in `CHANNELS`; to add one, put a function of nuclear charges there.
    margin
        Empty space about the atoms, in widths of the widest field: 8 for 1e-5 at q = 1/2.
    band
        Spectra are followed to ``band / width`` and not beyond; None for full grids.
    dtype
        Precision of fields; integrals are summed in float64 and returned in this precision.

    Raises
    ------
    InvalidParameter
        If a number is outside its range or a channel is unknown.
    """

    def __init__(
        self,
        J: int = 2,
        L: int = 3,
        powers: tuple[float, ...] = (0.5, 1.0, 2.0, 3.0),
        sigma: float = 1.0,
        width: float = 2.0,
        resolution: float = 8.0,
        channels: tuple[str, ...] = ("full", "valence", "core"),
        margin: float = 8.0,
        band: float | None = 6.0,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        lengths = (sigma, width, resolution, margin, *powers)
        if min(J, L) < 0 or not powers or not min(lengths) > 0 or not channels:
            raise InvalidParameter(
                f"solid harmonics: J={J} and L={L} must not be below 0, {powers=}, {sigma=}, "
                f"{width=}, {resolution=} and {margin=} must be above 0"
            )
        if unknown := set(channels) - set(CHANNELS):
            raise InvalidParameter(
                f"no channels {sorted(unknown)}: there are {', '.join(CHANNELS)}"
            )
        self.J, self.L, self.powers, self.channels = J, L, powers, channels
        self.sigmas = [sigma * 2**j for j in range(J + 1)]
        self.width, self.resolution, self.margin = width, resolution, margin
        self.band, self.dtype = band, dtype
        self.register_buffer("_here", torch.zeros(0, dtype=dtype), False)

    _here: Tensor

    @property
    def paths(self) -> list[tuple[int, ...]]:
        """Scales of each coefficient: (), (j1), (j1, j2)."""
        scales = range(self.J + 1)
        return [(), *((j,) for j in scales), *((i, j) for i in scales for j in scales if j > i)]

    @property
    def coefficients(self) -> dict[str, NDArray[np.generic]]:
        """What each column is; -1 does not apply."""
        rows = [
            (len(path), channel, *(*path, -1, -1)[:2], degree, power)
            for channel in self.channels
            for path in self.paths
            for degree in (range(self.L + 1) if path else (-1,))
            for power in self.powers
        ]
        names = ("order", "channel", "j1", "j2", "l", "power")
        columns = zip(*rows, strict=True)
        return {name: np.array(column) for name, column in zip(names, columns, strict=True)}

    def memory(self, molecules: int, side: int = 160) -> int:
        """Return a bound on the bytes that a batch takes, for boxes of ``side`` samples."""
        itemsize = torch.finfo(self.dtype).bits // 8
        fields = (self.L + 1) ** 2 + len(self.channels) * (3 * self.L + 8 + (self.L + 1) * self.J)
        together = max(1, min(molecules, BATCH // side**3))
        return itemsize * fields * side**3 * together

    def forward(self, molecules: Molecules) -> Tensor:
        """Return ``(molecule, coefficient)``; see `coefficients`.

        Raises
        ------
        InvalidParameter
            If two atoms coincide.
        """
        molecules = molecules.to(self._here.device, self.dtype)
        molecules.separations()  # refuses coincident atoms
        weights = torch.stack([CHANNELS[name](molecules.charges) for name in self.channels])
        found: list[tuple[list[int], Tensor]] = []
        for shape, rows in self._boxes(molecules):
            placed = [self._placed(molecules, weights, row) for row in rows]
            found.append((rows, self.integrals(placed, shape).flatten(1)))
        order = torch.tensor([row for rows, _ in found for row in rows])
        return torch.cat([values for _, values in found])[torch.argsort(order)]

    def _placed(self, molecules: Molecules, weights: Tensor, row: int) -> tuple[Tensor, Tensor]:
        """Return positions in samples about the box's centre, and weights, of one molecule."""
        atoms = slice(int(molecules.offsets[row]), int(molecules.offsets[row + 1]))
        return self._centred(molecules.positions[atoms]), weights[:, atoms]

    def _centred(self, positions: Tensor) -> Tensor:
        """Return samples about the middle, the longest axis first: boxes of few shapes."""
        high, low = positions.detach().amax(0), positions.detach().amin(0)
        order = torch.argsort(high - low, descending=True)
        return ((positions - (high + low) / 2) * self.resolution)[:, order]

    def _boxes(self, molecules: Molecules) -> Iterator[tuple[Shape, list[int]]]:
        """Yield the sides of boxes, and the molecules of a batch that have such a box."""
        groups: dict[Shape, list[int]] = {}
        for row in range(len(molecules)):
            atoms = slice(int(molecules.offsets[row]), int(molecules.offsets[row + 1]))
            extent = 2 * self._centred(molecules.positions[atoms]).detach().abs().amax(0)
            groups.setdefault(self.box(extent.tolist()), []).append(row)
        for shape, rows in groups.items():
            together = max(1, BATCH // math.prod(shape))
            for start in range(0, len(rows), together):
                yield shape, rows[start : start + together]

    def box(self, extent: list[float]) -> Shape:
        """Return the sides of the periodic box of a molecule that extends so many samples."""
        margin = self.margin * math.hypot(self.width, self.sigmas[-1])
        z, y, x = (fast(math.ceil(length + margin)) for length in extent)
        return z, y, x

    def grid(self, shape: Shape, sigma: float) -> Shape:
        """Return the grid for fields whose spectrum is a Gaussian of width ``1 / sigma``."""
        if self.band is None:
            return shape
        share = self.band / (math.pi * sigma)
        z, y, x = (min(side, fast(math.ceil(side * share))) for side in shape)
        return z, y, x

    def density(self, positions: Tensor, weights: Tensor, shape: Shape) -> Tensor:
        """Return the Fourier transform of the density ``(channel, z, y, x)`` on full grids.

        It is known in closed form, ``sum of w exp(-i k r - width^2 k^2 / 2)`` over the aliases of k
        that sampling brings, a product over axes: one matrix product.

        Parameters
        ----------
        positions
            ``(atom, 3)`` samples.
        weights
            ``(channel, atom)``.
        shape
            Sides of the box.
        """
        axes: list[Tensor] = []
        for axis, side in enumerate(shape):
            waves = frequencies(side, side, False).to(positions)
            aliases = [self._sampled(positions[:, axis, None], waves + shift) for shift in ALIASES]
            axes.append(torch.stack(aliases).sum(0))
        plane = (axes[1][:, :, None] * axes[2][:, None, :]).flatten(1)
        line = weights.to(positions)[:, None, :] * axes[0].T
        found: Tensor = (line @ plane).reshape(len(weights), *shape)
        return found

    def _sampled(self, places: Tensor, waves: Tensor) -> Tensor:
        """Return one alias of the transform of a Gaussian along an axis, ``(atom, frequency)``."""
        phase = -places * waves
        decay = torch.exp(-((self.width * waves) ** 2) / 2)
        return torch.polar(decay.expand_as(phase).contiguous(), phase)

    def integrals(self, placed: list[tuple[Tensor, Tensor]], shape: Shape) -> Tensor:
        """Return ``(molecule, channel, coefficient)`` of molecules in boxes of one shape.

        Parameters
        ----------
        placed
            Of each molecule, positions ``(atom, 3)`` in samples and weights ``(channel, atom)``.
        shape
            Sides of the box.
        """
        first = (self._in_closed_form if self.real else self._on_full_grids)(placed, shape)
        points, noise = math.prod(shape), 0.0 if self.real else NOISE
        found: dict[tuple[int, ...], list[Tensor]] = {}
        found[()] = [self._sums(first(None, 0, self.grid(shape, self.width)), points, noise)]
        for j, sigma in enumerate(self.sigmas):
            blurred = math.hypot(self.width, sigma)
            grid = self.grid(shape, blurred)
            for degree in range(self.L + 1):
                square = first(sigma, degree, grid)
                found.setdefault((j,), []).append(self._sums(square, points, noise))
                spectrum = self._transform(_root(square)) if j < self.J else square
                for k in range(j + 1, self.J + 1):
                    # a modulus has about the spectrum of the field's square, narrower by sqrt(2)
                    narrow = math.hypot(self.sigmas[k], blurred / math.sqrt(2))
                    coarse = _smaller(self.grid(shape, narrow / WIDER), grid)
                    second = self._square(spectrum, grid, coarse, shape, self.sigmas[k], degree)
                    second = second * (points / math.prod(grid)) ** 2
                    found.setdefault((j, k), []).append(self._sums(second, points))
        return torch.cat([torch.cat(found[path], -1) for path in self.paths], -1)

    def _in_closed_form(self, placed: list[tuple[Tensor, Tensor]], shape: Shape) -> First:
        """Return ``sum over m of |rho * psi_jlm|^2`` as a function of sigma, l and grid."""

        def square(sigma: float | None, degree: int, grid: Shape) -> Tensor:
            width = math.hypot(self.width, sigma or 0.0)
            factor = wavelet_of_atom(sigma, width, degree)
            squares = [gaussian_square(*atoms, shape, grid, width, degree) for atoms in placed]
            return torch.stack(squares) * factor**2

        return square

    def _on_full_grids(self, placed: list[tuple[Tensor, Tensor]], shape: Shape) -> First:
        """Return the same from the transform of the density."""
        spectra = torch.stack([self.density(*molecule, shape) for molecule in placed])

        def square(sigma: float | None, degree: int, grid: Shape) -> Tensor:
            if sigma is None:
                return _squared(self._inverse(spectra, grid))
            return self._square(spectra, shape, grid, shape, sigma, degree)

        return square

    def _square(
        self, spectra: Tensor, held: Shape, grid: Shape, shape: Shape, sigma: float, degree: int
    ) -> Tensor:
        """Return ``sum over m of |field * psi_jlm|^2`` on a grid, of a field's spectrum."""
        cut = cropped(spectra, held, grid)
        if degree % 2:
            cut = torch.complex(-cut.imag, cut.real)  # of odd degree the transform is imaginary
        parts = torch.view_as_real(cut)
        total = torch.zeros((*cut.shape[:-3], *grid), dtype=self.dtype, device=cut.device)
        bank = filters(shape, grid, sigma, self.L, self.real, self.dtype, str(cut.device))
        for m in range(2 * degree + 1):
            field = self._inverse(torch.view_as_complex(parts * bank[degree**2 + m]), grid)
            total = total.addcmul(field, field) if self.real else total + _squared(field)
        return total * (math.prod(grid) / math.prod(shape)) ** 2

    @property
    def real(self) -> bool:
        """Whether fields are real, and spectra half as long along x."""
        return self.band is not None

    def _inverse(self, spectra: Tensor, grid: Shape) -> Tensor:
        axes = (-3, -2, -1)
        inverse = torch.fft.irfftn if self.real else torch.fft.ifftn
        field: Tensor = inverse(spectra, grid, dim=axes)
        return field

    def _transform(self, field: Tensor) -> Tensor:
        transform = torch.fft.rfftn if self.real else torch.fft.fftn
        spectrum: Tensor = transform(field, dim=(-3, -2, -1))
        return spectrum

    def _sums(self, square: Tensor, points: int, rounding: float = NOISE) -> Tensor:
        """Return the integrals of powers of the root, ``(..., power)``, summed in float64.

        What is below ``rounding`` units of the largest value is 0: that of a transform is noise
        there, and its root would add up over empty space.
        """
        cells, small = points / math.prod(square.shape[-3:]), torch.finfo(square.dtype)
        if rounding:
            floor = (rounding * small.eps) ** 2 * square.detach().amax((-3, -2, -1), keepdim=True)
            square = square * (square > floor)
        modulus = _root(square)
        lines = [_power(modulus, square, q).sum(-1) for q in self.powers]  # of some 100 samples
        sums = [line.sum((-2, -1), dtype=torch.float64) for line in lines]
        return (torch.stack(sums, -1) * cells).to(self.dtype)


def _power(modulus: Tensor, square: Tensor, q: float) -> Tensor:
    """Return the power of a modulus of which the square is known; ``pow`` is slow."""
    match q:
        case 0.5:
            return modulus.sqrt()
        case 1.0:
            return modulus
        case 2.0:
            return square
        case 3.0:
            return modulus * square
    return torch.pow(modulus, q)


def _squared(field: Tensor) -> Tensor:
    if field.is_complex():
        return field.real.square() + field.imag.square()
    return field.square()


def _smaller(one: Shape, other: Shape) -> Shape:
    return min(one[0], other[0]), min(one[1], other[1]), min(one[2], other[2])


def _root(square: Tensor) -> Tensor:
    """Return the root; its gradient at 0 is 0."""
    return square.clamp(min=torch.finfo(square.dtype).tiny).sqrt()
