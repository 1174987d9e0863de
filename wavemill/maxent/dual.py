"""The stationary Gaussian law with a few given second moments: its spectrum, by the convex dual.

Among the spectra P with a field's moments ``m_i = mean over w of f_i(w) P(w)``, the one of most
entropy, the largest sum of ln P(w), is ``P = 1 / h``, ``h = sum_i beta_i f_i``. Here beta minimises

    D(beta) = sum_i beta_i m_i - mean over w of ln h(w) .

The gradient of D is by how much the moments of P miss m. D is convex, and infinite where h is not
positive; Newton's method with steps that stay inside finds its minimum. The f_i are the real and
imaginary parts of ``|psi|^2 e^{i w tau}``, even in w, of all rows of set A: energies of bands, and
their covariances at shifts.

Source: Zhang and Mallat, *Maximum entropy models from phase harmonic covariances*, ACHA 53, 199
(2021), section 2; Boyd and Vandenberghe, *Convex Optimization* (2004), section 9.5.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from wavemill.errors import InvalidParameter
from wavemill.filters import bump_steerable
from wavemill.moments.mirrors import LOW_PASS, MomentTable, Rows, canonical
from wavemill.moments.pairs import model
from wavemill.operators import mirror

STEPS = 100  # of Newton's method, at most
CLOSE = 1e-20  # least gain that a step must promise to be taken
MOST = 2**30  # bytes of all f_i


class BandSpectrum:
    """Spectra on one grid that are determined by the moments of set A.

    Parameters
    ----------
    shape
        Grid ``(y, x)``, periodic.
    J, L, lags
        As of :func:`.model`, set A: 1,013 real moments at J = 5, L = 8, lags = 2.

    Raises
    ------
    InvalidParameter
        If the functions f_i would fill more than 1 GiB.
    """

    def __init__(self, shape: tuple[int, int], J: int, L: int, lags: int) -> None:
        table = model("A", shape, J, L, lags)
        half = shape[0] * (shape[1] // 2 + 1)
        if 8 * table.real_count * half > MOST:
            raise InvalidParameter(
                f"{table.real_count} functions on a grid of {shape} fill over {MOST >> 20} MiB: "
                "choose smaller J, L or lags"
            )
        self.shape = shape
        self.features = _features(table)
        weight = torch.full((shape[0], shape[1] // 2 + 1), 2.0, dtype=torch.float64)
        weight[:, 0] = 1  # columns that are their own mirror images
        if shape[1] % 2 == 0:
            weight[:, -1] = 1
        weight[0, 0] = 0  # fields are taken about their mean
        self.weight = weight.flatten() / math.prod(shape)

    def moments(self, spectrum: Tensor) -> Tensor:
        """Return the moments ``(moment,)`` of half a spectrum, ``(y, x / 2 + 1)``."""
        return self.features @ (self.weight * spectrum.flatten())

    def fit(self, spectrum: Tensor) -> Tensor:
        """Return the spectrum of most entropy among those with the moments of a given one.

        Parameters
        ----------
        spectrum
            Half of a spectrum, real ``(y, x / 2 + 1)`` float64; its value at w = 0 is kept.
        """
        target, beta = self.moments(spectrum), self._start(spectrum)
        for _ in range(STEPS):
            inverse = 1 / self._h(beta)
            gradient = target - self.features @ (self.weight * inverse)
            hessian = (self.features * (self.weight * inverse.square())) @ self.features.T
            scale = hessian.diagonal().sqrt()
            system = hessian / (scale * scale[:, None])
            values, vectors = torch.linalg.eigh(system)
            kept = values > 1e-13 * values[-1]  # not moments that repeat others
            inner = torch.where(kept, 1 / values, 0.0) * (vectors.T @ (gradient / scale))
            step = -(vectors @ inner) / scale
            gain = -float(gradient @ step)
            if gain < CLOSE:
                break
            beta = self._moved(beta, step, gain, target)
        fitted = (1 / self._h(beta)).view_as(spectrum)
        fitted[0, 0] = spectrum[0, 0]
        return fitted

    def _start(self, spectrum: Tensor) -> Tensor:
        """Return beta for ``h = sum over bands of |psi|^2 / (mean power in the band)``."""
        flat, energies = self.moments(torch.ones_like(spectrum)), self.moments(spectrum)
        return torch.where(self._still, flat / energies.clamp_min(1e-300), 0.0)

    def _h(self, beta: Tensor) -> Tensor:
        """Return h on the half plane, 1 at w = 0, which no moment sees."""
        h = beta @ self.features
        h[0] = 1
        return h

    def _dual(self, beta: Tensor, target: Tensor) -> float:
        h = self._h(beta)
        return float(beta @ target - self.weight @ h.log()) if (h > 0).all() else math.inf

    def _moved(self, beta: Tensor, step: Tensor, gain: float, target: Tensor) -> Tensor:
        """Go along a step as far as D falls by a tenth or more of what its slope promises."""
        before, size = self._dual(beta, target), 1.0
        while size > 1e-12 and self._dual(beta + size * step, target) > before - 0.1 * size * gain:
            size /= 2
        return beta + size * step

    @property
    def _still(self) -> Tensor:
        """Tell which moments are energies: their functions are nowhere negative."""
        return (self.features >= 0).all(1)


def _features(table: MomentTable) -> Tensor:
    """Return f_i on the half plane, ``(moment, y * (x / 2 + 1))`` float64."""
    form, (rows, columns) = canonical(table), table.shape
    half, features = columns // 2 + 1, []
    for row, real in zip(table.rows, form.real, strict=True):
        square = _filter(table, row).square()
        square[0, 0] = 0
        turns = [
            torch.arange(size).double()[:, None] * int(row[name]) / size
            for size, name in ((rows, "shift_y"), (columns, "shift_x"))
        ]
        angle = 2 * math.pi * (turns[0] + turns[1].T)[:, :half]
        even, odd = (square + sign * mirror(square) for sign in (1, -1))
        features.append((even[:, :half] * torch.cos(angle) / 2).flatten())
        if not real:
            features.append((odd[:, :half] * torch.sin(angle) / 2).flatten())
    return torch.stack(features)


def _filter(table: MomentTable, row: Rows) -> Tensor:
    j, angle = int(row["j1"]), int(row["l1"])
    if angle == LOW_PASS:
        return table.low_pass_filter(j)
    return bump_steerable.wavelets_at(table.shape, j, [angle], table.L)[0]
