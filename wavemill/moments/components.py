"""Moments of fields of several components: of each by itself, and between them.

    C(c1, c2) = mean over u of a_{c1}(u) conj b_{c2}(u) ,  a, b = [x_c * psi_{j,l}]^k less means,
    over deviations, both frozen at a reference's. Means are over all u or, for fields that do not
    wrap around, over those that neither filter carries around a border (:mod:`.masked`).

Source: Regaldo-Saint Blancard, Allys, Auclair, Boulanger, Eickenberg, Levrier, Vacher and Zhang,
*Generative models of multichannel data from a single example*, ApJ 943, 9 (2023).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from wavemill.errors import InvalidParameter
from wavemill.filters import bump_steerable
from wavemill.moments.differentiated import (
    Columns,
    DifferentiatedMoments,
    MomentOperator,
    check_fits,
)
from wavemill.moments.groups import Scale
from wavemill.moments.masked import window
from wavemill.moments.pairs import LOW_PASS
from wavemill.moments.phase_harmonics import Moments, Statistics, floored
from wavemill.moments.stacks import WHOLE
from wavemill.operators import keep_buffer


class OfComponent(nn.Module):
    """A family of moments of one component of fields ``(..., component, y, x)``.

    Parameters
    ----------
    operator
        The family, of fields ``(..., y, x)``.
    component
        Which one.
    """

    def __init__(self, operator: MomentOperator, component: int) -> None:
        super().__init__()
        self.operator, self.component = operator, component
        self.dtype: torch.dtype = operator.dtype
        own = np.full(len(operator.coefficients["family"]), component)
        components = {"component1": own, "component2": own}
        self.coefficients: Columns = {**components, **operator.coefficients}

    @property
    def channels(self) -> int:
        """Length of the normalising statistics."""
        return self.operator.channels

    def measure(self, x: Tensor) -> Moments:
        """Return the moments of the component, averaged over fields."""
        return self.operator.measure(x[..., self.component, :, :])

    def loss_and_gradient(self, x: Tensor, moments: Moments) -> tuple[Tensor, Tensor]:
        """Return the loss ``(...)``, and its gradient of the shape of ``x``."""
        loss, gradient = self.operator.loss_and_gradient(x[..., self.component, :, :], moments)
        whole = torch.zeros_like(x)
        whole[..., self.component, :, :] = gradient
        return loss, whole


class CrossCovariance(DifferentiatedMoments):
    """Covariances between components: of one wavelet, and of moduli with the next scale.

    For each pair of components c1 < c2: (k1, k2) = (1, 1) of each wavelet in a half turn and of
    phi_J; and unless ``linear``, (0, 0), (0, 1), (1, 0) of each wavelet, and moduli of the same
    angle at scales j and j + 1, either component the finer. With P pairs of components, these are
    P (2 J L + 1) real numbers if linear, else P (7 J L + 2 (J - 1) L + 1).

    Parameters
    ----------
    components
        Number of components.
    shape
        Grid ``(y, x)``.
    J, L
        Scales, and angles in a half turn, of bump steerable wavelets.
    linear
        Whether to take only the second order of the field.
    dtype
        Real precision computed and returned.
    borders
        ``wrap`` for periodic fields, ``mask`` for others.

    Raises
    ------
    InvalidParameter
        If scales do not fit, or borders leave them too few points.
    """

    _psi: Tensor
    _phi: Tensor
    _pairs: Tensor

    def __init__(
        self,
        components: int,
        shape: tuple[int, int],
        J: int,
        L: int,
        linear: bool = False,
        dtype: torch.dtype = torch.float32,
        borders: Literal["wrap", "mask"] = "wrap",
    ) -> None:
        super().__init__((components, *shape), dtype)
        check_fits(shape, J, L)
        if components < 2:
            raise InvalidParameter(f"two components or more have covariances, got {components}")
        self.J, self.L, self.linear, self.borders = J, L, linear, borders
        scales = [*(Scale(low_pass=False, j=j) for j in range(J)), Scale(low_pass=True, j=J)]
        self._inside = [window(s, (0, 0), shape) if borders == "mask" else WHOLE for s in scales]
        bank = [bump_steerable.wavelets_at(shape, j, range(L), L) for j in range(J)]
        keep_buffer(self, "_psi", torch.cat(bank).to(dtype))
        low = bump_steerable.low_pass(shape, bump_steerable.low_pass_width(J))
        low[0, 0] = 0
        keep_buffer(self, "_phi", low.to(dtype))
        pairs = np.array(list(itertools.combinations(range(components), 2)))
        keep_buffer(self, "_pairs", torch.from_numpy(pairs.T.copy()))
        self.coefficients = self._describe(pairs)

    @property
    def channels(self) -> int:
        """Of each component: moduli of the bands, bands, low pass."""
        return self.shape[0] * (2 * self.J * self.L + 1)

    def statistics(self, x: Tensor) -> Statistics:
        """Return means and deviations over all fields, within each scale's own borders."""
        *bands, low = self._responses(x)
        moduli = [self._within(z, j).abs() for j, z in enumerate(bands)]
        mean = torch.cat([r.mean((0, -2, -1)) for r in moduli], dim=1)
        centres = torch.split(mean[..., None, None], self.L, dim=1)
        spreads = [r - centre for r, centre in zip(moduli, centres, strict=True)]
        inside = [*spreads, *moduli, self._within(low, self.J)]
        own = x.std((0, -2, -1), correction=0)[:, None]
        deviations = [r.square().mean((0, -2, -1)).sqrt() for r in inside]
        scale = floored(torch.cat(deviations, dim=1), own).flatten()
        means = torch.cat([mean, torch.zeros_like(mean), torch.zeros_like(own)], dim=1)
        return Statistics(means.flatten().to(self.dtype.to_complex()), scale)

    def values(self, x: Tensor, statistics: Statistics) -> Tensor:
        """Return the covariances ``(field, coefficient)``."""
        count, components = self.J * self.L, self.shape[0]
        mean = statistics.mean.real.view(components, -1)[:, :count, None, None]
        scale = statistics.scale.view(components, -1)[..., None, None]
        normal = mean, scale[:, :count], scale[:, count : 2 * count]
        *bands, low = self._responses(x)
        each = zip(bands, *(torch.split(part, self.L, dim=1) for part in normal), strict=True)
        r, z = zip(*(((b.abs() - m) / s, b / d) for b, m, s, d in each), strict=True)
        results = [_parts(self._between(z, z))]
        if not self.linear:
            results += [self._between(r, r)]
            results += [_parts(self._between(r, z)), _parts(self._between(z, r))]
            results += [self._between(r[:-1], r[1:], 1), self._between(r[1:], r[:-1], 1)]
        y = low / scale[:, -1:]
        results.append(self._between([y], [y], self.J))
        return torch.cat(results, dim=-1).flatten(1)

    def _responses(self, x: Tensor) -> list[Tensor]:
        """Return ``(field, component, angle, y, x)`` of each scale, and of the low pass, real."""
        x_hat = torch.fft.fft2(x)[:, :, None]
        bands = torch.fft.ifft2(x_hat * self._psi)
        return [*torch.split(bands, self.L, dim=2), torch.fft.ifft2(x_hat * self._phi).real]

    def _within(self, x: Tensor, scale: int) -> Tensor:
        return x[(..., *self._inside[scale])]

    def _between(self, a: Sequence[Tensor], b: Sequence[Tensor], first: int = 0) -> Tensor:
        """Return ``mean of a_{c1} conj b_{c2}``, ``(field, pair, band)``.

        ``a`` and ``b`` are lists over scales; borders are those of scales from ``first`` on.
        """
        one, other = self._pairs
        products = (
            self._within(p, j)[:, one] * self._within(q, j)[:, other].conj()
            for j, (p, q) in enumerate(zip(a, b, strict=True), first)
        )
        return torch.cat([product.mean((-2, -1)) for product in products], dim=-1)

    def _describe(self, pairs: NDArray[np.int64]) -> Columns:
        """Return what each coefficient is: components, wavelets, harmonics."""
        j, angle = np.indices((self.J, self.L)).reshape(2, -1)
        fine, coarse, same = j[: -self.L], j[self.L :], angle[self.L :]
        low = np.array([self.J]), np.array([LOW_PASS]), np.array([self.J])
        blocks = [(j, angle, j, "X", 1, 1, part) for part in ("re", "im")]
        if not self.linear:
            blocks += [(j, angle, j, "X", 0, 0, "re")]
            for k1, k2 in ((0, 1), (1, 0)):
                blocks += [(j, angle, j, "X", k1, k2, part) for part in ("re", "im")]
            blocks += [(fine, same, coarse, "Y", 0, 0, "re"), (coarse, same, fine, "Y", 0, 0, "re")]
        blocks += [(*low, "L", 1, 1, "re")]
        columns: dict[str, list[NDArray[np.generic]]] = {}
        for j1, angles, j2, name, k1, k2, part in blocks:
            labels: dict[str, Any] = {
                "order": 2,
                "j1": j1,
                "l1": angles,
                "k1": k1,
                "j2": j2,
                "l2": angles,
                "k2": k2,
            }
            for column, label in (labels | {"part": part, "family": f"{name}{k1}{k2}"}).items():
                columns.setdefault(column, []).append(np.broadcast_to(label, j1.shape))
        each = {name: np.concatenate(parts) for name, parts in columns.items()}
        first, second = (np.repeat(side, len(each["j1"])) for side in pairs.T)
        repeated = {name: np.tile(column, len(pairs)) for name, column in each.items()}
        return {"component1": first, "component2": second, **repeated}


def _parts(values: Tensor) -> Tensor:
    """Return real parts, then imaginary ones, of the last axis."""
    return torch.cat([values.real, values.imag], dim=-1)
