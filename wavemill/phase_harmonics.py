"""Phase-harmonic covariances of periodic real fields, measured and differentiated.

    C(row) = mean over u of a(u + shift) conj b(u) ,   a = ([x * psi_{j1,l1}]^k1 - m_a) / s_a ,

b likewise, for the rows of a table of moments (:mod:`wavemill.pairs`). m and s are each field's own
channel means and 1, or frozen: the means and standard deviations of a reference, an explicit value.

One transform of x, one inverse transform a wavelet (an angle l + L is the conjugate of l), and
:mod:`wavemill.covariances` for the pairs. Transforms have sign ``-i w u``, unnormalised forward.

Source: Zhang and Mallat, *Maximum entropy models from phase harmonic covariances*, ACHA 53, 199
(2021), sections 2 and 3.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from wavemill.covariances import CovarianceBlock, as_complex, keep_buffer
from wavemill.errors import InvalidParameter, ShapeMismatch
from wavemill.filters import bump_steerable
from wavemill.harmonics import phase_harmonic
from wavemill.pairs import INDICES, LOW_PASS, MomentTable, Rows, canonical, model

Scale = tuple[bool, int]  # is a low pass, index j
Group = tuple[bool, int, int]  # and harmonic k >= 0: channels of all angles


@dataclass(frozen=True)
class Statistics:
    """Frozen normalisation of channels: ``mean`` complex, ``scale`` real, each ``(channel,)``."""

    mean: Tensor
    scale: Tensor


@dataclass(frozen=True)
class Moments:
    """What a model holds of its references: their normalisation, and ``values (coefficient,)``."""

    statistics: Statistics
    values: Tensor


class PhaseHarmonicCovariance(nn.Module):
    """The real vector of phase-harmonic covariances of a field.

    ``op(x)`` maps real ``(..., y, x)`` to ``(..., coefficient)``: covariances of each field about
    its own channel means, not divided by anything. Real and imaginary part are two coefficients,
    told apart by ``op.coefficients["part"]``; parts that vanish by symmetry are absent.

    Parameters
    ----------
    shape
        Grid ``(y, x)``, periodic.
    J, L
        Scales, and angles in a half turn.
    moments
        Name of a set (:func:`wavemill.pairs.model`), or a table made for this shape, J and L.
    lags
        Reach of the shifts of a named set.
    dtype
        Real precision computed and returned.

    Raises
    ------
    InvalidParameter
        If the set does not exist or does not fit, or the table was made for something else.
    """

    _filters: Tensor
    _parts: Tensor
    _index: Tensor
    _conjugate: Tensor
    _order: Tensor
    _left: Tensor
    _right: Tensor

    def __init__(
        self,
        shape: tuple[int, int],
        J: int = 5,
        L: int = 4,
        moments: str | MomentTable = "C",
        lags: int = 1,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        table = model(moments, shape, J, L, lags) if isinstance(moments, str) else moments
        if (table.shape, table.J, table.L) != (shape, J, L):
            raise InvalidParameter(
                f"the table is for shape {table.shape}, J={table.J}, L={table.L}, "
                f"the operator for {shape}, J={J}, L={L}"
            )
        self.table, self.shape, self.dtype = table, shape, dtype
        form = canonical(table)
        self.coefficients, parts = _coefficient_table(table.rows, form.real)
        keep_buffer(self, "_parts", torch.from_numpy(parts))
        keep_buffer(self, "_index", torch.from_numpy(form.index))
        keep_buffer(self, "_conjugate", torch.from_numpy(form.conjugate))
        self._angles = _angles_by_group(form.distinct)
        self._channels = _spans(self._angles)
        self._build_filters()
        self._build_blocks(form.distinct)

    def forward(self, x: Tensor) -> Tensor:
        """Return the covariances ``(..., coefficient)`` of real fields ``(..., y, x)``."""
        return self._to_real(self.covariances(x))

    def covariances(self, x: Tensor, statistics: Statistics | None = None) -> Tensor:
        """Return the complex covariances, one a row of the table.

        Parameters
        ----------
        x
            Real ``(..., y, x)``.
        statistics
            Frozen normalisation, from :meth:`statistics`; None: own means, no division.

        Returns
        -------
        Tensor
            Complex ``(..., row)``.

        Raises
        ------
        ShapeMismatch
            If ``x`` is not real or not on the operator's grid.
        """
        fields = self._checked(x)
        distinct = torch.cat(list(self._evaluate(fields.reshape(-1, *self.shape), statistics)), -1)
        if statistics is not None:
            distinct = distinct / (statistics.scale[self._left] * statistics.scale[self._right])
        rows = distinct[..., self._order[self._index]]
        rows = torch.where(self._conjugate, rows.conj(), rows)
        return rows.reshape(*x.shape[:-2], -1)

    def statistics(self, x: Tensor) -> Statistics:
        """Return the means and standard deviations of the channels over all of ``x (..., y, x)``.

        A deviation is floored at 100 units of rounding of the field's own, so that a band which
        holds nothing but rounding error stays small instead of being blown up to 1.
        """
        fields = self._checked(x).reshape(-1, *self.shape)
        with torch.no_grad():
            moments = [self._mean_and_variance(field[None]) for field in fields]
            means, variances = (torch.stack(values) for values in zip(*moments, strict=True))
            spread = fields.var(correction=0).sqrt()
        mean = means.mean(0)
        scale = (variances + (means - mean).abs().square()).mean(0).sqrt()
        scale = torch.maximum(scale, 100 * torch.finfo(self.dtype).eps * spread)
        return Statistics(mean, torch.where(scale > 0, scale, 1.0))

    def measure(self, x: Tensor, statistics: Statistics | None = None) -> Moments:
        """Return the standardised moments of ``x (..., y, x)``, averaged over its leading axes.

        ``statistics`` is the normalisation to freeze; None: that of ``x``.
        """
        fields = self._checked(x).reshape(-1, *self.shape)
        frozen = self.statistics(fields) if statistics is None else statistics
        with torch.no_grad():
            values = [self._to_real(self.covariances(field, frozen)) for field in fields]
        return Moments(frozen, torch.stack(values).mean(0))

    def loss(self, x: Tensor, moments: Moments) -> Tensor:
        """Return ``sum over coefficients of (C(x) - C_ref)^2``, one value a field ``(...)``."""
        values = self._to_real(self.covariances(x, moments.statistics))
        return (values - moments.values).square().sum(-1)

    def memory(self, batch: int, gradient: bool = False) -> int:
        """Return an upper bound in bytes of what a call allocates, beyond this module.

        Parameters
        ----------
        batch
            Fields at once.
        gradient
            Whether the loss is differentiated, for which every field on the way is kept.
        """
        points = math.prod(self.shape) * torch.finfo(self.dtype).bits // 8
        bands = [len(angles) for angles in self._bands.values()]
        channels = sum(len(angles) for angles in self._angles.values())
        kept = 4 * sum(bands) + 12 * channels if gradient else 4 * channels
        return batch * points * (kept + 16 * max(bands) + 8)

    def _evaluate(self, x: Tensor, statistics: Statistics | None) -> Iterator[Tensor]:
        """Yield the covariances of each block, dropping channels that no later block needs."""
        fields: dict[Group, Tensor] = {}
        spectra: dict[Group, Tensor] = {}
        for scale, waves, transform in self._responses(x):
            for group in self._groups_of(scale):
                harmonic = self._harmonic(waves, group)
                fields[group] = self._centre(harmonic, group, statistics)
                if group in self._moved:
                    spectra[group] = self._spectrum(fields[group], transform, group)
            for first, second, block in self._plan[scale]:
                yield block(fields[first], fields[second], spectra.get(first), spectra.get(second))
            for group in self._last_use[scale]:
                fields.pop(group)
                spectra.pop(group, None)

    def _responses(self, x: Tensor) -> Iterator[tuple[Scale, Tensor, Tensor]]:
        """Yield, scale by scale, ``x * psi`` (real for low passes) and its transform."""
        x_hat = torch.fft.fft2(x)[:, None]
        for scale, angles in self._bands.items():
            transform = x_hat * self._filters[self._starts[scale] :][: len(angles)]
            waves = torch.fft.ifft2(transform)
            yield scale, waves.real if scale[0] else waves, transform

    def _harmonic(self, waves: Tensor, group: Group) -> Tensor:
        chosen, (low_pass, _, k) = self._select(waves, group), group
        if low_pass:
            return chosen if k else chosen.abs()
        return phase_harmonic(chosen, k)

    def _select(self, stack: Tensor, group: Group) -> Tensor:
        """Return the group's angles out of all those of its scale."""
        bands, angles = self._bands[group[:2]], self._angles[group]
        return stack if angles == bands else stack[:, [bands.index(angle) for angle in angles]]

    def _centre(self, harmonic: Tensor, group: Group, statistics: Statistics | None) -> Tensor:
        if group[2] == 1 and not group[0]:
            return harmonic  # a wavelet's response has no mean
        if statistics is None:
            return harmonic - harmonic.mean((-2, -1), keepdim=True)
        mean = statistics.mean[self._channels[group], None, None]
        return harmonic - (mean if harmonic.is_complex() else mean.real)

    def _spectrum(self, field: Tensor, transform: Tensor, group: Group) -> Tensor:
        if group[2] == 1 and not group[0]:
            return self._select(transform, group)
        transformed: Tensor = (torch.fft.rfft2 if group in self._halved else torch.fft.fft2)(field)
        return transformed

    def _mean_and_variance(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the means, complex, and variances of all channels of one field, ``(channel,)``.

        In two passes: at the coarsest scales a modulus varies by a thousandth of its mean.
        """
        means, variances = [], []
        for scale, waves, _ in self._responses(x):
            for group in self._groups_of(scale):
                harmonic = self._harmonic(waves, group)[0].flatten(-2)
                mean = harmonic.mean(-1, keepdim=True)
                means.append(as_complex(mean[..., 0]))
                variances.append((harmonic - mean).abs().square().mean(-1))
        return torch.cat(means), torch.cat(variances)

    def _to_real(self, covariances: Tensor) -> Tensor:
        return torch.view_as_real(covariances.resolve_conj()).flatten(-2)[..., self._parts]

    def _checked(self, x: Tensor) -> Tensor:
        if x.is_complex() or x.ndim < 2 or tuple(x.shape[-2:]) != self.shape:
            raise ShapeMismatch(
                f"phase harmonics were built for real fields (..., {self.shape[0]}, "
                f"{self.shape[1]}), got {x.dtype} of shape {tuple(x.shape)}"
            )
        if self._filters.device != x.device:
            self.to(x.device)
        return x.to(self.dtype)

    def _groups_of(self, scale: Scale) -> list[Group]:
        return [group for group in self._angles if group[:2] == scale]

    def _build_filters(self) -> None:
        self._bands: dict[Scale, list[int]] = {}
        for group, angles in self._angles.items():
            self._bands[group[:2]] = sorted({*self._bands.get(group[:2], []), *angles})
        counts = np.cumsum([0, *(len(angles) for angles in self._bands.values())])
        self._starts = dict(zip(self._bands, counts[:-1].tolist(), strict=True))
        filters = [self._bank(*scale, angles) for scale, angles in self._bands.items()]
        keep_buffer(self, "_filters", torch.cat(filters).to(self.dtype))

    def _bank(self, low_pass: bool, j: int, angles: list[int]) -> Tensor:
        if low_pass:
            return bump_steerable.low_pass(self.shape, self.table.low_pass[j])[None]
        return bump_steerable.wavelets_at(self.shape, j, angles, self.table.L)

    def _build_blocks(self, rows: Rows) -> None:
        """Gather rows of the same two groups into blocks, each due once both groups exist."""
        sides = list(
            zip(_groups(rows, "1"), _groups(rows, "2"), (rows["k2"] < 0).tolist(), strict=True)
        )
        moved = (rows["shift_y"] != 0) | (rows["shift_x"] != 0)
        lagged = {sides[row][:2] for row in np.flatnonzero(moved)}
        self._moved = {group for pair in lagged for group in pair}
        mixed = any(_is_real(a) != _is_real(b) for a, b in lagged)
        self._halved = set() if mixed else {group for group in self._moved if _is_real(group)}
        scales = list(self._bands)
        self._plan: dict[Scale, list[tuple[Group, Group, CovarianceBlock]]] = {
            s: [] for s in scales
        }
        self._last_use: dict[Scale, list[Group]] = {scale: [] for scale in scales}
        self._blocks = nn.ModuleList()
        order = []
        for due, (a, b, mirrored) in sorted((_due(key, scales), key) for key in set(sides)):
            members = np.array([row for row, key in enumerate(sides) if key == (a, b, mirrored)])
            block = self._block(rows[members], a, b, mirrored)
            self._blocks.append(block)
            self._plan[scales[due]].append((a, b, block))
            order.append(members[block.order])
        self._index_results(rows, np.concatenate(order))
        for group in self._angles:
            uses = [
                s for s, blocks in self._plan.items() if any(group in entry for entry in blocks)
            ]
            self._last_use[uses[-1]].append(group)

    def _block(self, rows: Rows, a: Group, b: Group, mirrored: bool) -> CovarianceBlock:
        return CovarianceBlock(
            np.searchsorted(self._angles[a], rows["l1"]),
            np.searchsorted(self._angles[b], rows["l2"]),
            np.column_stack([rows["shift_y"], rows["shift_x"]]),
            self.shape,
            mirrored=mirrored,
            auto=a == b,
            half=a in self._halved and b in self._halved,
            dtype=self.dtype,
        )

    def _index_results(self, rows: Rows, evaluated: NDArray[np.int64]) -> None:
        """Hold where each row's result comes, and the channels of each result in that order."""
        keep_buffer(self, "_order", torch.from_numpy(np.argsort(evaluated)))
        for name, side in (("_left", "1"), ("_right", "2")):
            channel = [
                self._channels[group].start + self._angles[group].index(angle)
                for group, angle in zip(_groups(rows, side), rows["l" + side], strict=True)
            ]
            keep_buffer(self, name, torch.tensor(channel)[torch.from_numpy(evaluated)])


def _groups(rows: Rows, side: str) -> list[Group]:
    """Return the group of one side of each row; the sign of k2 is the block's business."""
    low_pass = rows["l" + side] == LOW_PASS
    columns = (low_pass, rows["j" + side], np.abs(rows["k" + side]))
    return list(zip(*(column.tolist() for column in columns), strict=True))


def _angles_by_group(rows: Rows) -> dict[Group, list[int]]:
    """Return the angles needed of each group, wavelets from fine to coarse, then low passes."""
    angles: dict[Group, set[int]] = {}
    for side in "12":
        for group, angle in zip(_groups(rows, side), rows["l" + side].tolist(), strict=True):
            angles.setdefault(group, set()).add(angle)
    return {group: sorted(angles[group]) for group in sorted(angles)}


def _spans(angles: dict[Group, list[int]]) -> dict[Group, slice]:
    """Return the numbers of each group's channels, counted group after group."""
    stops = np.cumsum([len(members) for members in angles.values()]).tolist()
    spans = zip(angles.items(), stops, strict=True)
    return {group: slice(stop - len(members), stop) for (group, members), stop in spans}


def _due(key: tuple[Group, Group, bool], scales: list[Scale]) -> int:
    return max(scales.index(key[0][:2]), scales.index(key[1][:2]))


def _is_real(group: Group) -> bool:
    return group[0] or group[2] == 0


def _coefficient_table(
    rows: Rows, real: NDArray[np.bool_]
) -> tuple[dict[str, NDArray[np.generic]], NDArray[np.int64]]:
    """Return what each coefficient is, and its place among (re, im) of all rows."""
    wanted = np.column_stack([np.ones_like(real), ~real]).reshape(-1)
    place = np.flatnonzero(wanted)
    columns: dict[str, NDArray[np.generic]] = {"order": np.full(len(place), 2)}
    columns |= {name: rows[name][place // 2] for name in INDICES}
    columns |= {"part": np.where(place % 2, "im", "re"), "family": rows["class"][place // 2]}
    return columns, place
