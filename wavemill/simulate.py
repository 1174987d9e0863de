"""Two-dimensional incompressible turbulence on a periodic square, by a pseudo-spectral method.

Vorticity obeys ``dw/dt + u . grad w = -(nu k^2 + nu_h k^8 + drag) w + f`` on [0, 2 pi]^2. Space
is a Fourier-Galerkin expansion whose products are taken on the grid without aliasing (2/3 rule:
Orszag, J. Atmos. Sci. 28, 1074, 1971; Canuto, Hussaini, Quarteroni and Zang, *Spectral
Methods: Evolution to Complex Geometries*, 2007, chapter 3); time is the classical fourth-order
Runge-Kutta scheme, with the linear terms in an exact integrating factor.

Fields are real float64 ``(..., y, x)``. A *spectrum* is their transform with sign ``-i k x`` and
forward normalisation, so that coefficients are amplitudes, kept for ``0 <= kx < N/3`` and all ky:
``(..., y, N/3)`` complex128, zero where ``|ky| >= N/3``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from wavemill.devices import BesideDefault, beside_default
from wavemill.errors import InvalidParameter, UnstableSimulation
from wavemill.operators import keep_buffer
from wavemill.progress import Progress
from wavemill.specs import SimulationSpec

HYPERVISCOUS_POWER = 8
"""Power of the wavenumber in the hyperviscous damping rate."""

COURANT_LIMIT = 3 * math.sqrt(2) / math.pi
"""Courant number of neutral stability: RK4 bears ``|k . u| dt <= 2 sqrt(2)``, and ``k <= N/3``."""

POINTS_ON_DEVICE = 2**24
"""Grid points integrated together on an accelerator, about 3 GB of its memory."""


class NavierStokes2D(BesideDefault, torch.nn.Module):
    """Vorticity equation on a periodic grid, discretised in space.

    Parameters
    ----------
    shape
        Grid points ``(y, x)``, each at least 4, even or odd, over [0, 2 pi]^2.
    viscosity, hyperviscosity, drag
        Damping rates: ``viscosity * k**2 + hyperviscosity * k**8 + drag``, none negative.

    Raises
    ------
    InvalidParameter
        If the grid is too small or a rate is negative.
    """

    to_velocity: Tensor
    to_tendency: Tensor
    inverse_laplacian: Tensor
    wavenumber: Tensor
    damping: Tensor

    def __init__(
        self,
        shape: tuple[int, int],
        viscosity: float = 0.0,
        hyperviscosity: float = 0.0,
        drag: float = 0.0,
    ) -> None:
        super().__init__()
        if min(shape) < 4 or min(viscosity, hyperviscosity, drag) < 0:
            raise InvalidParameter(
                f"shape={shape} must be at least (4, 4) and viscosity={viscosity}, "
                f"hyperviscosity={hyperviscosity}, drag={drag} not negative"
            )
        self.shape = shape
        self.columns = (shape[1] - 1) // 3 + 1
        ky, kx, kept = self._wavenumbers()
        square = kx**2 + ky**2
        inverse = torch.where(kept & (square > 0), 1 / square.clamp(min=1), 0.0)
        buffers = {
            "wavenumber": square.sqrt(),
            "inverse_laplacian": inverse,
            "to_velocity": torch.stack([1j * ky * inverse, -1j * kx * inverse]),
            "to_tendency": torch.stack([kx**2 - ky**2, kx * ky]) * kept + 0j,
            "damping": viscosity * square
            + hyperviscosity * square ** (HYPERVISCOUS_POWER // 2)
            + drag,
        }
        for name, value in buffers.items():
            keep_buffer(self, name, value)

    def _wavenumbers(self) -> tuple[Tensor, Tensor, Tensor]:
        rows, _ = self.shape
        ky = torch.fft.fftfreq(rows, 1 / rows, dtype=torch.float64)[:, None].round()
        kx = torch.arange(self.columns, dtype=torch.float64)[None, :]
        shape = (rows, self.columns)
        return ky.expand(shape), kx.expand(shape), (3 * ky.abs() < rows).expand(shape)

    @property
    def kept(self) -> Tensor:
        """Mask of the resolved wavenumbers other than 0."""
        return self.inverse_laplacian > 0

    def spectrum(self, field: Tensor) -> Tensor:
        """Transform fields ``(..., y, x)``, keeping the resolved wavenumbers and no mean."""
        return self._forward(field.to(torch.float64)) * self.kept

    def field(self, spectrum: Tensor) -> Tensor:
        """Evaluate spectra on the grid, ``(..., y, x)``."""
        columns = torch.fft.ifft(spectrum, dim=-2, norm="forward")
        grid: Tensor = torch.fft.irfft(columns, n=self.shape[1], dim=-1, norm="forward")
        return grid

    def _forward(self, field: Tensor) -> Tensor:
        rows = torch.fft.rfft(field, dim=-1, norm="forward")[..., : self.columns]
        waves: Tensor = torch.fft.fft(rows, dim=-2, norm="forward")
        return waves

    def velocity(self, spectrum: Tensor) -> Tensor:
        """Velocity ``(..., 2, y, x)``, (u along x, v along y), by the law of Biot and Savart."""
        return self.field(self.to_velocity * spectrum[..., None, :, :])

    def tendency(self, velocity: Tensor) -> Tensor:
        """Spectrum of ``-u . grad w``, from the two products ``uv`` and ``v^2 - u^2`` alone.

        For a divergence-free velocity ``u . grad w = (dxx - dyy) uv + dxy (v^2 - u^2)``
        (Basdevant, J. Comput. Phys. 50, 209, 1983): four transforms where the advective
        form takes five.
        """
        u, v = velocity[..., 0, :, :], velocity[..., 1, :, :]
        products = self._forward(torch.stack([u * v, (v - u) * (v + u)], dim=-3))
        shear, strain = products[..., 0, :, :], products[..., 1, :, :]
        return torch.addcmul(shear * self.to_tendency[0], strain, self.to_tendency[1])

    def step(self, spectrum: Tensor, dt: Tensor, velocity: Tensor | None = None) -> Tensor:
        """Advance spectra ``(..., y, k)`` by ``dt`` ``(...,)``, one step each.

        Fourth-order Runge-Kutta in the variable ``exp(damping t) w``, which makes the linear terms
        exact (Kassam and Trefethen, SIAM J. Sci. Comput. 26, 1214, 2005, section 2).
        ``velocity``, when the caller has it, saves the first evaluation.
        """
        dt = dt[..., None, None]
        half = torch.exp(-0.5 * dt * self.damping).to(spectrum.dtype)
        full = half * half
        dt = dt.to(spectrum.dtype)
        velocity = self.velocity(spectrum) if velocity is None else velocity
        first = dt * self.tendency(velocity)
        second = dt * self.tendency(self.velocity(half * torch.add(spectrum, first, alpha=0.5)))
        third = dt * self.tendency(self.velocity(torch.add(half * spectrum, second, alpha=0.5)))
        fourth = dt * self.tendency(self.velocity(torch.addcmul(full * spectrum, half, third)))
        middle = torch.addcmul(0.5 * fourth, half, second + third)
        return torch.add(full * torch.add(spectrum, first, alpha=1 / 6), middle, alpha=1 / 3)

    def courant_rate(self, velocity: Tensor) -> Tensor:
        """Greatest ``|u|/dx + |v|/dy`` on the grid, ``(...,)``: Courant number of a unit step."""
        rows, columns = self.shape
        u, v = velocity[..., 0, :, :].abs(), velocity[..., 1, :, :].abs()
        return (u * columns + v * rows).amax(dim=(-2, -1)) / (2 * math.pi)

    def energy(self, spectrum: Tensor) -> Tensor:
        """Mean kinetic energy ``<|u|^2> / 2`` of each field, ``(...,)``."""
        return self._mean_square(spectrum, self.inverse_laplacian) / 2

    def enstrophy(self, spectrum: Tensor) -> Tensor:
        """Mean enstrophy ``<w^2> / 2`` of each field, ``(...,)``."""
        return self._mean_square(spectrum, self.kept) / 2

    def _mean_square(self, spectrum: Tensor, weight: Tensor) -> Tensor:
        density = (spectrum.real**2 + spectrum.imag**2) * weight
        return 2 * density.sum(dim=(-2, -1)) - density[..., 0].sum(dim=-1)


class RingForcing:
    """Random vorticity source, white in time, on the ring ``|k - kf| < 1``.

    At each step every wave of the ring gets the same energy with a random phase, which injects
    energy at the given mean rate whatever the flow (Alvelius, Phys. Fluids 11, 1880, 1999;
    Boffetta and Ecke, Annu. Rev. Fluid Mech. 44, 427, 2012). What damping removes of it within
    the step is accounted for exactly.

    Parameters
    ----------
    flow
        The discretisation to force.
    wavenumber
        Radius ``kf`` of the ring, which must hold at least one resolved wave.
    injection
        Mean energy injected per unit time.
    generators
        One random generator for each realisation of the batch.
    """

    def __init__(
        self,
        flow: NavierStokes2D,
        wavenumber: float,
        injection: float,
        generators: Sequence[torch.Generator],
    ) -> None:
        ring = flow.kept & ((flow.wavenumber - wavenumber).abs() < 1)
        ring[flow.shape[0] // 2 + 1 :, 0] = False  # kx = 0: ky < 0 is the conjugate of ky > 0
        if not bool(ring.any()):
            raise InvalidParameter(f"no resolved wave has |k - {wavenumber}| < 1 on {flow.shape}")
        self.waves = ring.nonzero(as_tuple=True)
        self.amplitude = flow.wavenumber[self.waves] * math.sqrt(injection / len(self.waves[0]))
        self.decay = 2 * flow.damping[self.waves]
        self.rate = (injection * wavenumber**2) ** (1 / 3)
        self.generators = generators

    def increment(self, like: Tensor, dt: Tensor) -> Tensor:
        """Draw what forcing has added at the end of a step ``dt`` ``(batch,)``, shaped ``like``.

        White noise of unit power leaves a wave of damping d with variance
        ``(1 - exp(-2 d dt)) / (2 d)`` (Uhlenbeck and Ornstein, Phys. Rev. 36, 823, 1930).
        """
        count = len(self.amplitude)
        draws = [torch.rand(count, generator=g, dtype=torch.float64) for g in self.generators]
        phase = 2 * math.pi * torch.stack(draws).to(like.device)
        source = torch.zeros_like(like)
        rows, columns = self.waves
        dt = dt[:, None]
        damped = -torch.expm1(-self.decay * dt) / self.decay.clamp(min=1e-300)
        variance = torch.where(self.decay > 0, damped, dt)
        source[:, rows, columns] = torch.polar(variance.sqrt() * self.amplitude, phase)
        upper = source[:, 1:, 0]
        source[:, 1:, 0] = torch.where(upper == 0, upper.flip(-1).conj(), upper)
        return source


def integrate(
    flow: NavierStokes2D,
    spectrum: Tensor,
    duration: float,
    *,
    dt: float | None = None,
    cfl: float = 1.0,
    forcing: RingForcing | None = None,
) -> Tensor:
    """Advance each spectrum of a batch by ``duration``, each with time steps of its own.

    Parameters
    ----------
    flow
        The discretised equation.
    spectrum
        ``(batch, y, k)`` complex128, of :meth:`NavierStokes2D.spectrum`.
    duration
        Time to advance by.
    dt
        Time step; shortened so that steps are equal and end on ``duration``. None: at each
        step the longest that Courant number ``cfl`` allows.
    cfl
        Courant number ``(|u|/dx + |v|/dy) dt`` of adaptive steps.
    forcing
        Source added after each step.

    Returns
    -------
    Tensor
        ``(batch, y, k)``. A realisation does not depend on its neighbours in the batch.

    Raises
    ------
    UnstableSimulation
        If the Courant number of a given ``dt`` exceeds ``COURANT_LIMIT``, or a value is not finite.
    """
    remaining = torch.full(
        spectrum.shape[:1], duration, dtype=torch.float64, device=spectrum.device
    )
    while bool((remaining > 0).any()):
        velocity = flow.velocity(spectrum)
        rate = flow.courant_rate(velocity) + (forcing.rate if forcing else 0.0)
        longest = cfl / rate if dt is None else torch.full_like(rate, dt)
        steps = torch.ceil(remaining / longest - 1e-9).clamp(min=1)  # 1e-9: rounding of the sum
        length = remaining / steps
        _check_stability(rate, length, duration - remaining)
        spectrum = flow.step(spectrum, length, velocity)
        if forcing:
            spectrum = spectrum + forcing.increment(spectrum, length)
        remaining = remaining - length
    if not bool(torch.isfinite(spectrum).all()):
        raise UnstableSimulation(
            f"the vorticity is not finite at t = {duration}; reduce the energy or injection"
        )
    return spectrum


def _check_stability(rate: Tensor, dt: Tensor, time: Tensor) -> None:
    courant = (rate * dt).nan_to_num(nan=math.inf)
    worst = int(courant.argmax())
    if float(courant[worst]) <= COURANT_LIMIT:
        return
    when = f"realisation {worst} of the batch at t = {float(time[worst]):.4g}: "
    if not bool(torch.isfinite(rate[worst])):
        raise UnstableSimulation(
            when + "the velocity is not finite; reduce the energy or injection"
        )
    raise UnstableSimulation(
        f"{when}dt = {float(dt[worst]):.3g} has Courant number {float(courant[worst]):.3g}, over "
        f"{COURANT_LIMIT:.3g}; use dt <= {COURANT_LIMIT / float(rate[worst]):.3g} or leave dt out"
    )


def initial_spectrum(
    flow: NavierStokes2D, k0: float, energy: float, generators: Sequence[torch.Generator]
) -> Tensor:
    """Draw vorticity of random phases with most of its variance around ``k0``.

    ``E(k) ~ k exp(-3 k^2 / (2 k0^2))``, for which the enstrophy spectrum ``k^2 E(k)`` is largest
    at ``k0`` and ``<u(x) . u(x + r)>`` is a Gaussian of r; scaled so that the mean kinetic
    energy ``<|u|^2> / 2`` of every realisation is ``energy``.

    Returns
    -------
    Tensor
        ``(len(generators), y, k)`` complex128, of :meth:`NavierStokes2D.spectrum`.
    """
    k = flow.wavenumber
    modulus = k * torch.exp(-0.75 * (k / k0) ** 2) * flow.kept
    modulus = modulus * torch.sqrt(energy / flow.energy(modulus + 0j))
    noise = [torch.randn(flow.shape, generator=g, dtype=torch.float64) for g in generators]
    phase = torch.angle(flow.spectrum(torch.stack(noise).to(k.device)))
    return torch.polar(modulus.expand_as(phase), phase)


@beside_default
def simulate(
    spec: SimulationSpec,
    indices: Sequence[int],
    progress: Progress | None = None,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Simulate realisations of two-dimensional turbulence.

    Parameters
    ----------
    spec
        Physics, resolution and seed. Its ``n`` is not read.
    indices
        Which realisations, each 0 or more. Realisation i depends on ``spec`` and i alone: on one
        machine's CPU, with one number of threads, it has the same bits whatever the others.
    progress
        Called with (realisations done, of how many, ``{"t", "energy", "enstrophy"}``).
    device
        Where to integrate. Random numbers are always drawn on the CPU.

    Returns
    -------
    Tensor
        Vorticity at time ``t``, ``(len(indices), N, N)`` float32 on the CPU.

    Raises
    ------
    InvalidParameter
        If an index is negative.
    UnstableSimulation
        If ``spec.dt`` is too long for the flow.
    """
    if any(index < 0 for index in indices):
        raise InvalidParameter(f"realisations are numbered from 0, got {min(indices)}")
    flow = NavierStokes2D((spec.N, spec.N), spec.viscosity, spec.hyperviscosity, spec.friction)
    flow = flow.to(device)
    size = _batch_size(spec.N, torch.device(device))
    vorticity = torch.empty(len(indices), spec.N, spec.N, dtype=torch.float32)
    for start in range(0, len(indices), size):
        batch = slice(start, start + size)
        spectrum = _realise(flow, spec, indices[batch])
        vorticity[batch] = flow.field(spectrum).to("cpu", torch.float32)
        if progress is not None:
            done = min(start + size, len(indices))
            progress(done, len(indices), _summary(flow, spec, spectrum))
    return vorticity


def _batch_size(N: int, device: torch.device) -> int:
    """One realisation at a time on a CPU, many on an accelerator.

    On a CPU a batch gains little, as it leaves the cache, and vectorised loops may round an element
    differently when its place in memory changes. Alone, a realisation always has the same bits.
    """
    return 1 if device.type == "cpu" else max(1, POINTS_ON_DEVICE // N**2)


def _realise(flow: NavierStokes2D, spec: SimulationSpec, indices: Sequence[int]) -> Tensor:
    generators = [_generator(spec.seed, index) for index in indices]
    start = initial_spectrum(flow, spec.k0, spec.energy, generators)
    ring = spec.forcing == "ring"
    forcing = RingForcing(flow, spec.kf, spec.injection, generators) if ring else None
    return integrate(flow, start, spec.t, dt=spec.dt, cfl=spec.cfl, forcing=forcing)


def _generator(seed: int, index: int) -> torch.Generator:
    """Give each realisation a random stream of its own (O'Neill's hash of seed and index)."""
    (state,) = np.random.SeedSequence([seed, index]).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state))


def _summary(flow: NavierStokes2D, spec: SimulationSpec, spectrum: Tensor) -> dict[str, float]:
    energy, enstrophy = flow.energy(spectrum).mean(), flow.enstrophy(spectrum).mean()
    return {"t": spec.t, "energy": float(energy), "enstrophy": float(enstrophy)}
