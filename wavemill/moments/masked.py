"""Phase-harmonic covariances of fields that do not wrap around: means over what no border reaches.

    C(row) = mean over u and u + shift in M of a(u + shift) conj b(u) ,

a and b as in :mod:`.phase_harmonics`. Filters still act on the torus, where opposite sides of a
field that does not wrap around meet in a jump. M leaves out the points whose filters reach it: for
a wavelet of scale j, all within 2^(j+1) of a border, which holds 98 % of its energy or more; for a
low pass phi_j those within 2^j, 3.6 of its widths. A pair of scales has the border of the coarser.
So fine scales are measured nearly everywhere, and coarse ones where they can be.

Source: Allys et al., *New interpretable statistics for large-scale structure analysis and
generation*, Phys. Rev. D 102, 103506 (2020), for leaving out borders by scale.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wavemill.errors import InvalidParameter
from wavemill.moments.boxes import Box, crop
from wavemill.moments.channels import Response
from wavemill.moments.covariances import as_complex
from wavemill.moments.differentiated import DifferentiatedMoments
from wavemill.moments.groups import (
    Group,
    Scale,
    among,
    angles_by_group,
    bands_of,
    filters_of,
    groups,
    spans,
)
from wavemill.moments.pairs import Rows, Shift, canonical, model
from wavemill.moments.phase_harmonics import (
    Statistics,
    coefficient_places,
    coefficient_table,
    floored,
)
from wavemill.operators import keep_buffer

Window = tuple[slice, slice]


class MaskedCovariance(DifferentiatedMoments):
    """Phase-harmonic covariances over the points from which no filter reaches around the border.

    The coefficients, channels and normalisation are those of
    :class:`~wavemill.PhaseHarmonicCovariance`, which this tends to as grids grow. Its gradient is
    left to autograd, which is several times as slow and holds all channels at once.

    Parameters
    ----------
    shape
        Grid ``(y, x)``, not periodic.
    J, L
        Scales, and angles in a half turn.
    moments
        Name of a set (:func:`.model`).
    lags
        Reach of the shifts.
    dtype
        Real precision computed and returned.

    Raises
    ------
    InvalidParameter
        If a scale's borders leave fewer points along an axis than half a border has.
    """

    _index: Tensor
    _sign: Tensor
    _places: Tensor

    def __init__(
        self,
        shape: tuple[int, int],
        J: int = 5,
        L: int = 4,
        moments: str = "C",
        lags: int = 1,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__(shape, dtype)
        self.J, self.L, self._grid = J, L, shape
        table = model(moments, shape, J, L, lags)
        form = canonical(table)
        self.coefficients, parts = coefficient_table(table, form.real)
        self._angles = angles_by_group(form.distinct)
        self._spans = spans(self._angles)
        self._bands = bands_of(self._angles)
        for scale, angles in self._bands.items():
            keep_buffer(self, scale.buffer, filters_of(table, scale, angles).to(dtype))
        self._blocks = list(self._planned(form.distinct))
        places = [b.rows * len(self._angles[b.second]) + b.columns for b in self._blocks]
        keep_buffer(self, "_places", torch.from_numpy(np.concatenate(places)))
        place = np.argsort(np.concatenate([block.members for block in self._blocks]))
        index, sign = coefficient_places(form, parts, table.run, place[form.index])
        keep_buffer(self, "_index", index)
        keep_buffer(self, "_sign", sign.to(dtype))

    @property
    def channels(self) -> int:
        """Number of channels, whose statistics normalise."""
        return sum(map(len, self._angles.values()))

    def statistics(self, x: Tensor) -> Statistics:
        """Return mean and deviation of each channel over all fields, within its own borders.

        The mean of x * psi itself is 0.
        """
        means, scales = [], []
        for group, field in self._harmonics(x):
            inside = field[(..., *window(group.scale, (0, 0), self._grid))]
            values = inside.transpose(0, 1).flatten(1)
            mean = torch.zeros_like(values[:, 0]) if group.linear else values.mean(1)
            means.append(mean.to(self.dtype.to_complex()))
            scales.append((values - mean[:, None]).abs().square().mean(1).sqrt())
        return Statistics(torch.cat(means), floored(torch.cat(scales), x.std(correction=0)))

    def values(self, x: Tensor, statistics: Statistics) -> Tensor:
        """Return the covariances ``(field, coefficient)``, differentiable."""
        standard = {
            group: self._standardised(group, field, statistics)
            for group, field in self._harmonics(x)
        }
        places = torch.split(self._places, [len(block.rows) for block in self._blocks])
        results = [
            self._gram(block, at, standard) for block, at in zip(self._blocks, places, strict=True)
        ]
        parts = torch.view_as_real(torch.cat(results, dim=1)).flatten(1)[:, self._index]
        return (parts * self._sign).mean(-1)

    def _gram(self, block: _Block, places: Tensor, standard: dict[Group, Tensor]) -> Tensor:
        """Return a block's covariances ``(field, row)``, from ``places`` of its Gram matrix."""
        left = standard[block.first][(..., *block.there)].flatten(2)
        right = standard[block.second][(..., *block.here)].flatten(2)
        if left.is_complex() != right.is_complex():
            left, right = as_complex(left), as_complex(right)
        gram = left @ (right.mT if block.mirrored else right.mH) / left.shape[-1]
        return as_complex(gram.flatten(1)[:, places])

    def _harmonics(self, x: Tensor) -> Iterator[tuple[Group, Tensor]]:
        """Yield each group's channels, ``(field, channel, y, x)``."""
        x_hat = torch.fft.fft2(x, norm="forward")[:, None]
        for scale, angles in self._bands.items():
            filters = getattr(self, scale.buffer)
            spectrum = crop(x_hat, (filters.shape[-2], filters.shape[-1])) * filters
            response = Response(spectrum, self._grid, scale.low_pass)
            for group in (group for group in self._angles if group.scale == scale):
                yield group, response.harmonic(group.k, among(self._angles[group], angles))

    def _standardised(self, group: Group, field: Tensor, statistics: Statistics) -> Tensor:
        mean = statistics.mean[self._spans[group]][:, None, None]
        scale = statistics.scale[self._spans[group]][:, None, None]
        if group.linear:
            return field / scale
        return (field - (mean if field.is_complex() else mean.real)) / scale

    def _planned(self, rows: Rows) -> Iterator[_Block]:
        """Yield the rows of each pair of groups and shift."""
        members: dict[tuple[Group, Group, Shift, bool], list[int]] = {}
        shifts = zip(rows["shift_y"].tolist(), rows["shift_x"].tolist(), strict=True)
        sides = zip(groups(rows, "1"), groups(rows, "2"), shifts, rows["k2"] < 0, strict=True)
        for row, (first, second, shift, mirrored) in enumerate(sides):
            members.setdefault((first, second, shift, bool(mirrored)), []).append(row)
        for (first, second, shift, mirrored), chosen in members.items():
            coarser = max((first.scale, second.scale), key=_border)
            yield _Block(
                first,
                second,
                mirrored,
                np.searchsorted(self._angles[first], rows["l1"][chosen]),
                np.searchsorted(self._angles[second], rows["l2"][chosen]),
                window(coarser, shift, self._grid),
                window(coarser, (-shift[0], -shift[1]), self._grid),
                np.array(chosen),
            )


@dataclass(frozen=True)
class _Block:
    """Rows of one pair of groups at one shift: ``here`` are the points u, ``there`` u + shift."""

    first: Group
    second: Group
    mirrored: bool
    rows: NDArray[np.int64]
    columns: NDArray[np.int64]
    here: Window
    there: Window
    members: NDArray[np.int64]


def window(scale: Scale, shift: Shift, shape: Box) -> Window:
    """Return the points u that have both u and u + shift within the borders of a scale.

    Raises
    ------
    InvalidParameter
        If there are fewer along an axis than half a border has.
    """
    border = _border(scale)
    sides = [
        slice(border + max(0, -step), size - border - max(0, step))
        for size, step in zip(shape, shift, strict=True)
    ]
    if 2 * min(side.stop - side.start for side in sides) < border:
        raise InvalidParameter(
            f"borders of {border} points and a shift by {shift} leave no {border // 2} points of "
            f"{shape} to scale j={scale.j}: lower J or lags, or take larger fields"
        )
    return sides[0], sides[1]


def _border(scale: Scale) -> int:
    """Return the number of points from a border within which a scale's filters reach it."""
    return int(2**scale.j if scale.low_pass else 2 ** (scale.j + 1))
