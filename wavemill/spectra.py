"""Power spectra and one-point and two-point statistics of fields, by which models are judged.

Fields are real ``(..., y, x)``. The isotropic spectrum sums ``|x^(w)|^2 / points^2`` over shells of
integer wavenumber, so that the shells add up to the variance (Parseval).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wavemill.devices import beside_default
from wavemill.errors import InvalidParameter, ShapeMismatch
from wavemill.operators import (
    FieldOperator,
    check_whole,
    double,
    keep_buffer,
    must_be_tensor,
    power_of_two,
    transformed,
)

ROUNDINGS = 4  # of the largest value: so small a deviation is rounding error of the mean


class PowerSpectrum(FieldOperator):
    """Mean, and variance in each shell of wavenumber.

    ``op(x)`` maps real ``(..., y, x)`` to ``(..., coefficient)``. Coefficient 0 is the spatial mean
    (``order`` 1); the others (``order`` 2) are ``sum over round(|k| / dk) = shell of |x^(k)|^2``,
    with x^ the transform of sign ``-i k u`` divided by the number of points and dk the smallest
    wavenumber of the grid, ``2 pi`` over its longest side. Shells reach the corner of the spectral
    rectangle: their sum is the population variance. Shells that hold no mode are left out.

    Parameters
    ----------
    shape
        Grid ``(y, x)``, periodic; sizes may be odd and unequal.
    spacing
        Distance between samples ``(dy, dx)``; wavenumbers are radians a unit of it.
    dtype
        Real precision computed and returned; squares of float32 overflow above 1e19.

    Raises
    ------
    InvalidParameter
        If a spacing is not positive or the grid has a single point.
    """

    _shell: Tensor
    _weight: Tensor

    def __init__(
        self,
        shape: tuple[int, int],
        spacing: tuple[float, float] = (1.0, 1.0),
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__(shape, dtype)
        if not all(math.isfinite(d) and d > 0 for d in spacing) or math.prod(shape) < 2:
            raise InvalidParameter(
                f"a spectrum needs 2 points and spacings above 0, got shape {shape}, {spacing}"
            )
        self.spacing = spacing
        self._prepare()

    def _prepare(self) -> None:
        step, shell = _shells(self.shape, self.spacing)
        weight = _mode_weights(self.shape)
        modes = np.bincount(shell.reshape(-1), weight.reshape(-1)).astype(np.int64)
        modes[0] = 0  # the mean is a coefficient of its own
        kept = np.flatnonzero(modes)
        place = np.zeros(len(modes), dtype=np.int64)
        place[kept] = 1 + np.arange(len(kept))
        weight[0, 0] = 0
        keep_buffer(self, "_shell", torch.from_numpy(place[shell].reshape(-1)))
        keep_buffer(self, "_weight", torch.from_numpy(weight).to(self.dtype))
        self.coefficients: dict[str, NDArray[np.generic]] = {
            "order": np.where(np.arange(len(kept) + 1) == 0, 1, 2),
            "shell": np.concatenate([[0], kept]),
            "wavenumber": step * np.concatenate([[0], kept]),
            "modes": np.concatenate([[1], modes[kept]]),
        }

    def forward(self, x: Tensor) -> Tensor:
        """Return ``(..., coefficient)`` of real fields ``(..., y, x)``.

        Raises
        ------
        ShapeMismatch
            If ``x`` is not real or not on the operator's grid.
        """
        field = self._checked(x)
        mean = field.mean((-2, -1))
        centred = field - mean[..., None, None]
        amplitude = transformed(torch.fft.rfft2, centred, norm="forward")
        power = ((amplitude.real.square() + amplitude.imag.square()) * self._weight).flatten(-2)
        shells = power.new_zeros((*power.shape[:-1], len(self.coefficients["shell"])))
        shells = shells.index_add(-1, self._shell, power)
        return torch.cat([mean[..., None], shells[..., 1:]], dim=-1)

    def memory(self, batch: int, gradient: bool = False) -> int:
        """Return an upper bound in bytes of what a call allocates for ``batch`` fields."""
        points = math.prod(self.shape) + 2 * self.shape[0]  # half spectra of even sizes
        return batch * points * (torch.finfo(self.dtype).bits // 8) * (10 if gradient else 6)


@beside_default
def isotropic_spectrum(
    x: Tensor, spacing: tuple[float, float] = (1.0, 1.0)
) -> tuple[Tensor, Tensor]:
    """Return wavenumbers ``(shell,)`` and the variance density over them ``(..., shell)``.

    The density integrates to the variance: the shells of :class:`PowerSpectrum` over their width.
    Computed in float64.
    """
    field = double(x)
    operator = PowerSpectrum((x.shape[-2], x.shape[-1]), spacing, torch.float64)
    wavenumber = torch.from_numpy(operator.coefficients["wavenumber"].astype(np.float64))[1:]
    density = operator(field)[..., 1:] / _shells(operator.shape, spacing)[0]
    return wavenumber.to(x.device), density


def shell_means(power: Tensor, shape: tuple[int, int]) -> Tensor:
    """Return at each frequency the mean of ``power`` over its shell.

    Parameters
    ----------
    power
        Real ``(..., y, x/2 + 1)``, on the half plane of ``torch.fft.rfft2``.
    shape
        Grid ``(y, x)``.
    """
    shell = torch.from_numpy(_shells(shape, (1.0, 1.0))[1]).flatten().to(power.device)
    weight = torch.from_numpy(_mode_weights(shape)).to(power)
    weighted = torch.stack([power * weight, weight.expand_as(power)]).flatten(-2)
    total, modes = torch.zeros_like(weighted).index_add_(-1, shell, weighted)[..., shell]
    return torch.unflatten(total / modes, -1, power.shape[-2:])


def tapered(x: Tensor, together: bool = False) -> Tensor:
    """Return fields that fall to 0 at their borders: for spectra of what does not wrap around.

    ``(x - m) h / rms(h)`` with h the Hann window of both axes and m the mean under it, of each
    field or, ``together``, of all along the first axis. White noise keeps its spectrum, and a jump
    from border to border does not hide steep ones.
    """
    sides = [
        torch.sin(math.pi * (torch.arange(n, dtype=x.dtype, device=x.device) + 0.5) / n).square()
        for n in x.shape[-2:]
    ]
    window = sides[0][:, None] * sides[1]
    mean = (x * window).sum((-2, -1), keepdim=True) / window.sum()
    mean = mean.mean(0, keepdim=True) if together else mean
    return (x - mean) * window / window.square().mean().sqrt()


@beside_default
def pdf(
    x: Tensor, bins: int = 64, interval: tuple[float, float] | None = None
) -> tuple[Tensor, Tensor]:
    """Return bin centres ``(bins,)`` and the probability density of all the values of ``x``.

    Parameters
    ----------
    x
        Real, any shape.
    bins
        Number of equal bins.
    interval
        First and last edge; None: the extremes of ``x``. Values outside are counted in the
        normalisation only, so that the density integrates to the fraction inside.
    """
    must_be_tensor(x)
    if x.is_complex():
        raise ShapeMismatch(f"expected real values, got {x.dtype} of shape {tuple(x.shape)}")
    values = x.detach().to("cpu", torch.float64).flatten().numpy()
    counts, edges = np.histogram(values, bins, interval)
    density = counts / (len(values) * np.diff(edges))
    return torch.from_numpy((edges[1:] + edges[:-1]) / 2), torch.from_numpy(density)


def skewness(x: Tensor) -> Tensor:
    """Return ``<(x - <x>)^3> / std^3`` over the last two axes, float64; 0 where x is constant."""
    return standardised(x).pow(3).mean((-2, -1))


def flatness(x: Tensor) -> Tensor:
    """Return ``<(x - <x>)^4> / std^4`` over the last two axes, float64: 3 if Gaussian.

    0 where x is constant.
    """
    return standardised(x).pow(4).mean((-2, -1))


@beside_default
def structure_functions(
    x: Tensor, lags: Sequence[int], orders: Sequence[int] = (1, 2, 3, 4, 5), periodic: bool = True
) -> Tensor:
    """Return ``S_q(r) = <|x(u + r e) - x(u)|^q>``, averaged over u and the two axis directions e.

    Parameters
    ----------
    x
        Real ``(..., y, x)``.
    lags
        Separations r in samples, at least 1 and below the shorter side.
    orders
        Exponents q > 0.
    periodic
        Whether separations wrap around the grid.

    Returns
    -------
    Tensor
        ``(..., lag, order)``, float64.

    Raises
    ------
    InvalidParameter
        If there is no lag or order, a lag does not fit on the grid, or an order is not above 0.
    ShapeMismatch
        If ``x`` is not real.
    """
    field = double(x)
    for lag in lags:
        check_whole(lag=lag)
    if not len(lags) or not all(1 <= lag < min(x.shape[-2:]) for lag in lags):
        raise InvalidParameter(f"lags {list(lags)} must be in [1, {min(x.shape[-2:])})")
    if not len(orders) or not all(q > 0 for q in orders):
        raise InvalidParameter(f"orders {list(orders)} of moments must be above 0")
    rows = []
    for lag in lags:
        steps = [_increments(field, lag, axis, periodic).abs() for axis in (-2, -1)]
        moments = [[step.pow(q).mean((-2, -1)) for q in orders] for step in steps]
        rows.append((torch.stack(moments[0], -1) + torch.stack(moments[1], -1)) / 2)
    return torch.stack(rows, dim=-2)


def _increments(field: Tensor, lag: int, axis: int, periodic: bool) -> Tensor:
    if periodic:
        return field.roll(-lag, axis) - field
    size = field.shape[axis] - lag
    return field.narrow(axis, lag, size) - field.narrow(axis, 0, size)


def standardised(x: Tensor) -> Tensor:
    """Return ``(x - <x>) / std`` over the last two axes, float64; 0 where x is constant.

    A deviation of a few rounding units of the largest value is rounding error of the mean.
    """
    field = double(x)
    field = field / power_of_two(field.detach().abs().amax((-2, -1), keepdim=True))
    rounding = ROUNDINGS * torch.finfo(field.dtype).eps * field.detach().abs().amax((-2, -1), True)
    centred = field - field.mean((-2, -1), keepdim=True)
    variance = centred.square().mean((-2, -1), keepdim=True)
    constant = variance <= rounding.square()
    return centred / torch.where(constant, torch.inf, variance).sqrt()


def _shells(
    shape: tuple[int, int], spacing: tuple[float, float]
) -> tuple[float, NDArray[np.int64]]:
    """Return the width of a shell and the shell of each mode of the half spectrum."""
    step = 2 * math.pi / max(n * d for n, d in zip(shape, spacing, strict=True))
    ky = 2 * math.pi * np.fft.fftfreq(shape[0], spacing[0])
    kx = 2 * math.pi * np.fft.rfftfreq(shape[1], spacing[1])
    radius = np.hypot(ky[:, None], kx[None, :]) / step
    return step, np.floor(radius + 0.5 + 1e-9).astype(np.int64)  # half-way rounds up, everywhere


def _mode_weights(shape: tuple[int, int]) -> NDArray[np.float64]:
    """Return how many modes of the full spectrum each of the half spectrum stands for."""
    weight = np.full((shape[0], shape[1] // 2 + 1), 2.0)
    weight[:, 0] = 1
    if shape[1] % 2 == 0:
        weight[:, -1] = 1
    return weight
