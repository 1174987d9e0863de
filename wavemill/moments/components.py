"""Moments of fields of several components: of each by itself, and between them.

    C(c1, c2) = mean over u of a_{c1}(u) conj b_{c2}(u) ,  a, b = [x_c * psi_{j,l}]^k less means,
    over deviations, both frozen at a reference's. Means are over all u or, for fields that do not
    wrap around, over those that neither filter carries around a border (:mod:`.masked`).

Source: Regaldo-Saint Blancard, Allys, Auclair, Boulanger, Eickenberg, Levrier, Vacher and Zhang,
*Generative models of multichannel data from a single example*, ApJ 943, 9 (2023).
"""

from __future__ import annotations

import itertools
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from wavemill.errors import InvalidParameter
from wavemill.filters import bump_steerable
from wavemill.moments.chunks import BUDGET, schedule_of
from wavemill.moments.differentiated import (
    Columns,
    DifferentiatedMoments,
    MomentOperator,
    check_fits,
)
from wavemill.moments.groups import Group, angles_by_group
from wavemill.moments.masked import MaskedPlanner
from wavemill.moments.pairs import INDICES, LOW_PASS, ROW, MomentTable, Rows
from wavemill.moments.plan import Planner
from wavemill.moments.readout import Readout, channels_of
from wavemill.moments.statistics import Moments, Statistics, floored
from wavemill.operators import keep_buffer

_ROW = np.dtype([*ROW.descr, ("component1", np.int64), ("component2", np.int64)])


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

    _channels: Tensor
    _moduli: Tensor

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
        self.coefficients = self._describe(components)
        rows, index = _rows(self.coefficients)
        low_pass = {J: bump_steerable.low_pass_width(J)}
        table = MomentTable(shape, J, L, rows, low_pass, centred=True)
        angles = angles_by_group(rows)
        planner = MaskedPlanner if borders == "mask" else Planner
        schedule = schedule_of(table, rows, angles, dtype, BUDGET, planner)
        places = 2 * np.argsort(schedule.order)[index] + (self.coefficients["part"] == "im")
        keep_buffer(self, "_channels", torch.tensor(self._numbers(angles)))
        keep_buffer(
            self, "_moduli", torch.tensor([g.k == 0 for g, own in angles.items() for _ in own])
        )
        self._readout = Readout(
            schedule,
            torch.from_numpy(places)[:, None],
            torch.ones(len(places), 1),
            channels_of(rows[schedule.order], angles),
        )

    @property
    def channels(self) -> int:
        """Of each component: moduli of the bands, bands, low pass."""
        return self.shape[0] * (2 * self.J * self.L + 1)

    def statistics(self, x: Tensor) -> Statistics:
        """Return means and deviations over all fields, within each scale's own borders.

        Only moduli have a mean. A deviation is :func:`.floored` by its component's own.
        """
        mean, variance = self._readout.mean_and_variance(x)
        power = variance + mean.abs().square()
        mean, variance = mean * self._moduli, torch.where(self._moduli, variance, power)
        means = mean.new_zeros(self.channels).index_copy(0, self._channels, mean)
        variances = variance.new_zeros(self.channels).index_copy(0, self._channels, variance)
        spread = x.std((0, -2, -1), correction=0).repeat_interleave(2 * self.J * self.L + 1)
        return Statistics(means, floored(variances.sqrt(), spread))

    def values(self, x: Tensor, statistics: Statistics) -> Tensor:
        """Return the covariances ``(field, coefficient)``."""
        return self._readout.coefficients(self._readout.covariances(x, self._own(statistics)))

    def loss_and_gradient(self, x: Tensor, moments: Moments) -> tuple[Tensor, Tensor]:
        """Return the loss ``(...)`` and its gradient, of the shape and dtype of ``x``."""
        fields = self._checked(x)
        moments = self._fitting(moments, fields)
        own = Moments(self._own(moments.statistics), moments.values)
        loss, gradient = self._readout.loss_and_gradient(fields, own)
        return loss.reshape(x.shape[:-3]), gradient.reshape(x.shape).to(x.dtype)

    def _own(self, statistics: Statistics) -> Statistics:
        """Return the normalisation of channels in the order of the schedule."""
        return Statistics(statistics.mean[self._channels], statistics.scale[self._channels])

    def _numbers(self, angles: dict[Group, list[int]]) -> list[int]:
        """Return the number, among all channels, of each of some groups'."""
        bands, numbers = self.J * self.L, []
        for group, own in angles.items():
            first = group.component * (2 * bands + 1) + bands * (group.k + group.low_pass)
            first += 0 if group.low_pass else group.j * self.L
            numbers += [first + (0 if group.low_pass else angle) for angle in own]
        return numbers

    def _describe(self, components: int) -> Columns:
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
        pairs = list(itertools.combinations(range(components), 2))
        first, second = (np.repeat(side, len(each["j1"])) for side in np.array(pairs).T)
        repeated = {name: np.tile(column, len(pairs)) for name, column in each.items()}
        return {"component1": first, "component2": second, **repeated}


def _rows(coefficients: Columns) -> tuple[Rows, NDArray[np.int64]]:
    """Return the distinct rows that coefficients are parts of, and which of them each is of."""
    names = [*INDICES[:6], "component1", "component2"]
    columns = np.stack([coefficients[name] for name in names])
    distinct, index = np.unique(columns, axis=1, return_inverse=True)
    rows = np.zeros(distinct.shape[1], dtype=_ROW)
    for name, column in zip(names, distinct, strict=True):
        rows[name] = column
    return rows, index.reshape(-1)
