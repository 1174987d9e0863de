"""What is read from covariances: normalised coefficients, their loss, and its slopes."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from wavemill.moments.chunks import Chunks
from wavemill.moments.groups import Group, groups, spans
from wavemill.moments.pairs import Rows
from wavemill.moments.schedule import Schedule
from wavemill.moments.slopes import Slopes
from wavemill.moments.statistics import Moments, Statistics
from wavemill.operators import keep_buffer, own_precision


class Readout(nn.Module):
    """Real coefficients of fields: parts of covariances over deviations, or means of such parts.

    Parameters
    ----------
    schedule
        What computes the covariances of fields.
    places
        Which of (re, im) of all results each coefficient is the mean of, ``(coefficient, run)``.
    signs
        With which signs.
    channels
        The channels of both sides of each result, ``(2, result)``.
    """

    _index: Tensor
    _sign: Tensor
    _sides: Tensor
    _factor: Tensor

    def __init__(
        self, schedule: Schedule | Chunks, places: Tensor, signs: Tensor, channels: Tensor
    ) -> None:
        super().__init__()
        dtype: torch.dtype = schedule.dtype
        self.schedule = schedule
        self._run = places.shape[1]
        keep_buffer(self, "_index", places)
        keep_buffer(self, "_sign", signs.to(dtype))
        keep_buffer(self, "_sides", channels)
        count = torch.zeros(2 * channels.shape[1], dtype=dtype)
        count.index_add_(0, places.flatten(), torch.ones_like(self._sign).flatten())
        keep_buffer(self, "_factor", 2 * count.view(-1, 2))

    def __len__(self) -> int:
        """Return the number of coefficients."""
        return len(self._index)

    def mean_and_variance(self, fields: Tensor) -> tuple[Tensor, Tensor]:
        """Return means, complex, and variances of channels over all fields, ``(channel,)``."""
        found = [self.schedule.mean_and_variance(field) for field in fields]
        means, variances = (torch.stack(values) for values in zip(*found, strict=True))
        mean = means.mean(0)
        return mean, (variances + (means - mean).abs().square()).mean(0)

    def covariances(self, fields: Tensor, statistics: Statistics | None) -> Tensor:
        """Return the results ``(field, result)``, complex, of ``(field, component, y, x)``.

        ``statistics`` is what normalises them; None: own means, no division.
        """
        if not len(fields):
            count = self._sides.shape[1]
            return fields.new_zeros(0, count, dtype=fields.dtype.to_complex())
        mean = None
        if statistics is not None:
            unit = statistics.unit
            statistics = statistics.over(unit)
            fields, mean = fields / unit, statistics.mean
        with own_precision(fields.device):
            each = [self.schedule.evaluate(some, mean)[0] for some in _batches(fields)]
        results = torch.cat(each)
        return results if statistics is None else results / self._scale(statistics)

    def coefficients(self, results: Tensor) -> Tensor:
        """Return parts of results, or means of runs of them, ``(field, coefficient)``."""
        parts = torch.view_as_real(results.resolve_conj()).flatten(1)[:, self._index]
        return (parts * self._sign).mean(-1)

    def loss_and_gradient(self, fields: Tensor, moments: Moments) -> tuple[Tensor, Tensor]:
        """Return the squared distance from moments, ``(field,)``, and the fields' gradient."""
        unit = moments.statistics.unit
        statistics, fields = moments.statistics.over(unit), fields / unit
        scale = self._scale(statistics)
        slopes = self._slopes(moments.values, scale)
        with torch.no_grad(), own_precision(fields.device):
            results = [fields.new_zeros(0, len(scale), dtype=fields.dtype.to_complex())]
            gradients = [fields.new_zeros(0, *fields.shape[1:])]
            for some in _batches(fields) if len(fields) else ():
                if self._run > 1:
                    slopes = self._known_slopes(some, statistics.mean, moments.values, scale)
                result, gradient = self.schedule.evaluate(some, statistics.mean, slopes)
                assert gradient is not None
                results.append(result)
                gradients.append(gradient)
            values = self.coefficients(torch.cat(results) / scale)
            loss = (values - moments.values).square().sum(-1)
        return loss, torch.cat(gradients) / unit

    def _slopes(self, values: Tensor, scale: Tensor) -> Slopes:
        """Return the slopes of the loss where each coefficient is a result's own."""
        factor = self._factor / scale[:, None].square()
        offset = 2 * self._spread(values[None]) / scale[:, None]
        return Slopes(factor[None], offset)

    def _known_slopes(self, fields: Tensor, mean: Tensor, values: Tensor, scale: Tensor) -> Slopes:
        """Return them where coefficients are means of results, which takes a pass of its own."""
        results = self.schedule.evaluate(fields, mean)[0]
        residual = values - self.coefficients(results / scale)
        offset = 2 * self._spread(residual) / scale[:, None]
        return Slopes(torch.zeros_like(offset[:1]), offset)

    def _spread(self, coefficients: Tensor) -> Tensor:
        """Apply the transpose of :meth:`coefficients` to ``(field, coefficient)``."""
        parts = coefficients.new_zeros(len(coefficients), 2 * self._sides.shape[1])
        each = (coefficients[:, :, None] * self._sign / self._run).flatten(1)
        parts.index_add_(1, self._index.flatten(), each)
        return parts.view(len(parts), -1, 2)

    def _scale(self, statistics: Statistics) -> Tensor:
        sides: Tensor = statistics.scale[self._sides]
        return sides[0] * sides[1]


def channels_of(rows: Rows, angles: dict[Group, list[int]]) -> Tensor:
    """Return the numbers of the channels of both sides of rows, ``(2, row)``."""
    span = spans(angles)
    return torch.tensor(
        [
            [
                span[group].start + angles[group].index(angle)
                for group, angle in zip(groups(rows, side), rows["l" + side], strict=True)
            ]
            for side in "12"
        ]
    )


def at_once(points: int, device: torch.device) -> int:
    """Return how many fields of so many points go together: on a CPU few enough for its caches."""
    return max(1, (2**16 if device.type == "cpu" else 2**20) // points)


def _batches(fields: Tensor) -> Sequence[Tensor]:
    return torch.split(fields, at_once(math.prod(fields.shape[1:]), fields.device))
