"""Sums over frequencies of products of real fields' transforms, under filters of each scale.

    joint  sum over w of psi_3^2 a b^* ,   cross  sum over w of psi_2 x b^* ,

of channels a, b (of a scale or a finer one) and of the field x. Their transforms at -w are
conjugate to those at w, so half of the frequencies suffices. With e and o, a filter's even and odd
part,

    sum over w of f a b^* = E + i O ,   E = sum of e Re(a b^*) ,   O = sum of o Im(a b^*) ,

and of joint sums E is symmetric in a and b, O antisymmetric: one sum of real products,
``E + O = sum of Re((e - i o) a b^*)``, holds both.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from wavemill import kernels
from wavemill.moments.boxes import Box, add_into_half, crop_half, folded
from wavemill.operators import keep_buffer

_PADDED = 16  # frequencies in memory are padded to a multiple of it, for vectors


class Grams(nn.Module):
    """The sums of all scales, of halves of spectra as :func:`boxes.to_half_spectrum` gives them.

    Scale j has ``n = (j + 1) L`` channels and ``(L, n + 2, n)`` sums: for each angle, E + O of
    channels a and b under ``joint``, then E and O of the field and b under ``cross``.

    Parameters
    ----------
    psi
        Wavelets ``(j, l, y, x)``, real, on the whole grid.
    boxes
        The frequencies of each scale's channels; scale 0 has all.
    kept
        d of each scale, along each axis: sums run over frequencies -d .. d-1; 0: over all.
    dtype
        Real precision.
    """

    def __init__(
        self, psi: Tensor, boxes: Sequence[Box], kept: Sequence[tuple[int, ...]], dtype: torch.dtype
    ) -> None:
        super().__init__()
        self._boxes, self._angles = list(boxes), psi.shape[1]
        for j, (box, reach) in enumerate(zip(boxes, kept, strict=True)):
            narrow = _kept(psi[j], reach)
            for name, filters in (("joint", narrow.square()), ("cross", narrow)):
                flat = halves(filters, box).to(dtype)
                padding = -flat.shape[2] % _PADDED
                keep_buffer(self, f"_{name}_{j}", nn.functional.pad(flat, (0, padding)))

    def __len__(self) -> int:
        """Return the number of sums."""
        return self._begin(len(self._boxes))

    @property
    def _channels(self) -> list[int]:
        return [(j + 1) * self._angles for j in range(len(self._boxes))]

    def joint(self, j: int, angle: int, a: int, b: int) -> int:
        """Return the place, among all sums, of E + O of channels a and b of scale j."""
        channels = self._channels[j]
        return self._begin(j) + (angle * (channels + 2) + a) * channels + b

    def cross(self, j: int, angle: int, odd: int, b: int) -> int:
        """Return the place of E, or O if ``odd``, of the field and a channel."""
        return self.joint(j, angle, self._channels[j] + odd, b)

    def _begin(self, j: int) -> int:
        return sum((n + 2) * n * self._angles for n in self._channels[:j])

    def evaluate(self, field: Tensor, spectra: Sequence[Tensor], units: Tensor) -> Tensor:
        """Return the sums ``(batch, number)``.

        Parameters
        ----------
        field
            ``(batch, y, x)``, halves of spectra.
        spectra
            Halves of each scale's spectra, ``(batch, angle, y, x)``.
        units
            Units of the channels, ``(scale, angle)``; under an angle of ``cross`` the field is in
            the unit of that angle's channel.
        """
        task = self._task(field, spectra, units)
        if task.possible:
            return task.sums(len(self))
        products = []
        for j in range(len(self._boxes)):
            rows, channels = self._rows(field, spectra, units, j)
            products.append((_real(rows) @ _real(channels).mT).flatten(1))
        return torch.cat(products, dim=1)

    def pull(
        self, g: Tensor, field: Tensor, spectra: Sequence[Tensor], units: Tensor
    ) -> tuple[Tensor, list[Tensor]]:
        """Return the gradients of ``field`` and ``spectra`` from that of the sums."""
        task = self._task(field, spectra, units)
        if task.possible:
            return task.gradients(g)
        whole, pulled = torch.zeros_like(field), [torch.zeros_like(one) for one in spectra]
        for j, n in enumerate(self._channels):
            rows, channels = self._rows(field, spectra, units, j)
            slopes = g[:, self._begin(j) : self._begin(j + 1)].view(len(g), 1, -1, n)
            gradient = _complex(slopes.mT @ _real(rows.flatten(1, 2)[:, None]))[:, 0]
            weighted = _complex(slopes @ _real(channels)).view(rows.shape)
            joint = weighted[:, :, :n] * self._joint(j).conj()
            gradient = (gradient + joint.sum(1)) * units[: j + 1].reshape(-1, 1)
            self._add(whole, (weighted[:, :, n:] * self._cross(j, units).conj()).sum((1, 2)), j)
            for i, one in enumerate(pulled[: j + 1]):
                self._add(one, gradient[:, self._angles * i : self._angles * (i + 1)], j)
        return whole, pulled

    def _rows(
        self, field: Tensor, spectra: Sequence[Tensor], units: Tensor, j: int
    ) -> tuple[Tensor, Tensor]:
        """Return both factors, ``(batch, angle, row, w)`` and ``(batch, 1, channel, w)``."""
        box = self._boxes[j]
        narrow = torch.cat([crop_half(one, box) for one in spectra[: j + 1]], 1).flatten(2)
        channels = (narrow * units[: j + 1].reshape(-1, 1))[:, None]
        cross = crop_half(field, box).flatten(1)[:, None, None] * self._cross(j, units)
        return torch.cat([channels * self._joint(j), cross], dim=2), channels

    def _joint(self, j: int) -> Tensor:
        """Return ``e - i o``, ``(angle, 1, w)``."""
        even, odd = self._filters("joint", j).unbind(1)
        return torch.complex(even, -odd)[:, None]

    def _cross(self, j: int, units: Tensor) -> Tensor:
        """Return ``e`` and ``-i o`` in the units of the field, ``(angle, 2, w)``."""
        even, odd = (self._filters("cross", j) * units[j, :, None, None]).unbind(1)
        zero = torch.zeros_like(even)
        return torch.complex(torch.stack([even, zero], 1), torch.stack([zero, -odd], 1))

    def _filters(self, name: str, j: int) -> Tensor:
        filters: Tensor = getattr(self, f"_{name}_{j}")
        rows, columns = self._boxes[j]
        return filters[..., : rows * (columns // 2 + 1)]

    def _add(self, into: Tensor, flat: Tensor, j: int) -> None:
        rows, columns = self._boxes[j]
        add_into_half(into, flat.reshape(*flat.shape[:-1], rows, columns // 2 + 1))

    def _task(self, field: Tensor, spectra: Sequence[Tensor], units: Tensor) -> kernels.GramsTask:
        filters = (
            [getattr(self, f"_{name}_{j}") for j in range(len(self._boxes))]
            for name in ("joint", "cross")
        )
        return kernels.GramsTask(field, spectra, units, *filters)


def _kept(psi: Tensor, reach: tuple[int, ...]) -> Tensor:
    """Return filters set to 0 outside the frequencies -d .. d-1."""
    kept = psi
    for axis, d in zip((-2, -1), reach, strict=True):
        size = psi.shape[axis]
        frequency = (torch.fft.fftfreq(size, dtype=torch.float64) * size).round()
        inside = (frequency >= -d) & (frequency < d) if d else torch.ones_like(frequency) > 0
        kept = kept * (inside[:, None] if axis == -2 else inside)
    return kept


def halves(filters: Tensor, box: Box) -> Tensor:
    """Return e and o of filters ``(l, y, x)`` in half a box, ``(l, 2, frequency)``.

    Frequencies whose opposite is in the other half count for it, too.
    """
    parts = torch.stack([folded(filters), folded(filters, -1)], dim=1)
    return crop_half(parts, box).flatten(2)


def _real(x: Tensor) -> Tensor:
    return torch.view_as_real(x).flatten(-2)


def _complex(x: Tensor) -> Tensor:
    return torch.view_as_complex(x.reshape(*x.shape[:-1], -1, 2))
