"""Scattering spectra: second moments of a field and of the wavelet transforms of its moduli.

    P00 = < |x*psi_1|^2 > ,   S1 = < |x*psi_1| > ,
    C01 = < (x*psi_2) (|x*psi_1|*psi_2)^* > ,
    C11 = < (|x*psi_1|*psi_3) (|x*psi_2|*psi_3)^* > ,   j1 <= j2 <= j3 ,

C01 and C11 are divided by ``s_1 s_2``, where s^2 is P00, frozen at a reference's; of P00 and S1 the
logarithm is taken. C01 holds one factor psi_2 in frequency, not two, as the authors compute it:
``<x (|x*psi_1|*psi_2)^*>``. Means over positions are sums over frequencies, of which scale j keeps
``-d .. d - 1`` along each axis, ``d = max(8, N / 2^j)``, at most N / 2. Wavelets are Morlet's,
transforms have sign ``-i w u``.

Source: Cheng, Morel, Allys, Menard and Mallat, *Scattering spectra models for physics*, PNAS Nexus
3, pgae103 (2024), and the code of its authors, which the tests compare with.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from wavemill.filters import morlet
from wavemill.moments.boxes import (
    Box,
    add_filtered_back,
    add_into_half,
    box_of,
    crop,
    crop_half,
    filtered,
    from_half_spectrum,
    to_half_spectrum,
)
from wavemill.moments.channels import Response
from wavemill.moments.differentiated import DifferentiatedMoments, check_fits
from wavemill.moments.grams import Grams, halves
from wavemill.moments.statistics import Moments, Statistics, floored
from wavemill.operators import keep_buffer, own_precision

SMALLEST = 8  # frequencies kept on each side of 0, whatever the scale
NAMES = ("j1", "l1", "j2", "l2", "j3", "l3")

Entry = tuple[str, tuple[int, ...], str]  # family, NAMES (-1 where there is none), re or im


class ScatteringSpectra(DifferentiatedMoments):
    """The vector of scattering spectra of real fields ``(..., y, x)``, each number once.

    Mean and deviation in units of the reference's deviation, ln P00, ln S1, C01, C11. Where
    j1 = j2, C11 holds l1 <= l2 only, since exchanging the two conjugates it.

    Parameters
    ----------
    shape
        Grid ``(y, x)``, periodic.
    J, L
        Scales, and angles in a half turn.
    isotropic
        Average over a common turn of all angles, and keep real parts: C01 by l2 - l1, C11 by
        l2 - l1 and l3 - l1, P00 and S1 averaged before the logarithm.
    dtype
        Real precision computed and returned.

    Raises
    ------
    InvalidParameter
        If the coarsest wavelet does not fit on the grid.
    """

    _index: Tensor
    _weights: Tensor
    _degree: Tensor

    def __init__(
        self,
        shape: tuple[int, int],
        J: int = 5,
        L: int = 4,
        isotropic: bool = False,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__(shape, dtype)
        check_fits(shape, J, L, least=2)
        self.J, self.L, self.isotropic, self._points = J, L, isotropic, math.prod(shape)
        bank = morlet.wavelets(shape, J, L)
        reaches = [tuple(_reach(size, j) for size in shape) for j in range(J)]
        self._boxes = [_box(reach, shape) for reach in reaches]  # of moduli
        self._responding = [box_of(psi) for psi in bank]
        self._grams = Grams(bank, self._boxes, reaches, dtype)
        for j, (psi, box) in enumerate(zip(bank, self._responding, strict=True)):
            keep_buffer(self, f"_psi_{j}", crop(psi, box).to(dtype).contiguous())
            keep_buffer(self, f"_energy_{j}", halves(psi.square(), box)[:, 0].to(dtype))
        self._index_parts()

    @property
    def channels(self) -> int:
        """Number of bands, and 1 for the field itself."""
        return self.J * self.L + 1

    def statistics(self, x: Tensor) -> Statistics:
        """Return the root of P00 ``(band)``, and mean and deviation of x, over all fields."""
        energy = torch.fft.rfft2(x, norm="forward").abs().square()
        bands = [
            (crop_half(energy, box).flatten(1) @ self._energies(j).mT).mean(0)
            for j, box in enumerate(self._responding)
        ]
        spread = x.std(correction=0)
        scale = floored(torch.cat([torch.cat(bands).sqrt(), spread.reshape(1)]), spread)
        mean = torch.zeros_like(scale)
        mean[-1] = x.mean()
        return Statistics(mean.to(self.dtype.to_complex()), scale)

    def values(self, x: Tensor, statistics: Statistics) -> Tensor:
        """Return the spectra ``(field, coefficient)``."""
        return self._evaluate(x, statistics).values

    def loss_and_gradient(self, x: Tensor, moments: Moments) -> tuple[Tensor, Tensor]:
        """Return the loss ``(...)`` and its gradient, written by hand and equal to autograd's."""
        fields = self._checked(x)
        moments = self._fitting(moments, fields)
        if not len(fields):
            return fields.sum((-2, -1)).reshape(x.shape[:-2]), torch.zeros_like(x)
        unit = moments.statistics.unit
        statistics, losses, gradients = moments.statistics.over(unit), [], []
        with torch.no_grad(), own_precision(x.device):
            for field in torch.split(fields, 1):
                pass_ = self._evaluate(field / unit, statistics)
                residual = pass_.values + self._of_unit(unit) - moments.values
                losses.append(residual.square().sum(-1))
                gradients.append(self._pull(pass_, 2 * residual, statistics))
        gradient = (torch.cat(gradients) / unit).reshape(x.shape).to(x.dtype)
        return torch.cat(losses).reshape(x.shape[:-2]), gradient

    def standardised(self, x: Tensor, statistics: Statistics) -> Tensor:
        """Return the spectra of fields, computed in a unit for which logarithms are corrected."""
        return super().standardised(x, statistics) + self._of_unit(statistics.unit)

    def _of_unit(self, unit: Tensor) -> Tensor:
        """Return what to add to logarithms of fields divided by a unit, ``(coefficient,)``."""
        return self._degree * unit.log()

    def _evaluate(self, x: Tensor, statistics: Statistics) -> _Pass:
        shape = x.shape[-2], x.shape[-1]
        x_hat = torch.fft.fft2(x, norm="forward")
        half = x_hat[..., : shape[1] // 2 + 1] * self._points
        energy = half.real.square().addcmul_(half.imag, half.imag).div_(self._points**2)
        responses, spectra, power = [], [], []
        for j, box in enumerate(self._responding):
            spectrum = filtered(x_hat, self._psi(j))
            responses.append(Response(spectrum, shape, False))
            spectra.append(to_half_spectrum(responses[j].modulus, self._boxes[j]))
            power.append(crop_half(energy, box).flatten(1) @ self._energies(j).mT)
        units = self._units(statistics)
        sums = self._grams.evaluate(half, spectra, units)
        averages = (sums[:, self._index] * self._weights).sum(-1)
        first = torch.stack([spectrum[..., 0, 0].real for spectrum in spectra], 1) / self._points
        means = [torch.stack(power, dim=1), first]
        centred = x - statistics.mean[-1].real
        mean, deviation = centred.mean((-2, -1)), x.std((-2, -1), correction=0)
        ends = torch.stack([mean, deviation], dim=1) / statistics.scale[-1]
        values = torch.cat([ends, *map(self._logarithms, means), averages], dim=1)
        return _Pass(x, half, responses, spectra, means, values)

    def _units(self, statistics: Statistics) -> Tensor:
        """Return the factors that make half spectra of moduli those of normalised moduli."""
        return 1 / (self._points * statistics.scale[:-1].view(self.J, self.L))

    def _logarithms(self, means: Tensor) -> Tensor:
        averages = means.mean(-1) if self.isotropic else means.flatten(1)
        return averages.clamp_min(torch.finfo(self.dtype).tiny).log()

    def _pull(self, pass_: _Pass, gradient: Tensor, statistics: Statistics) -> Tensor:
        """Return the gradient of x from that of the values, of one field."""
        counts = [2, *(2 * [self.J if self.isotropic else self.J * self.L])]
        ends, power, first, rest = torch.split(gradient, [*counts, len(self._index)], dim=1)
        shape = pass_.x.shape[-2], pass_.x.shape[-1]
        slopes = rest.new_zeros(len(rest), len(self._grams))
        slopes.index_add_(1, self._index.flatten(), (rest[..., None] * self._weights).flatten(1))
        half, spectra = self._grams.pull(slopes, pass_.half, pass_.spectra, self._units(statistics))
        power, first = map(self._pull_logarithms, (power, first), pass_.means)
        field = torch.zeros_like(pass_.x, dtype=half.dtype)
        for j, (response, box) in enumerate(zip(pass_.responses, self._responding, strict=True)):
            weights = (power[:, j] @ self._energies(j)).mul_(2 / self._points**2)
            own = crop_half(pass_.half, box)
            add_into_half(half, own * weights.view(own.shape))
            spectra[j][..., 0, 0] += first[:, j] / self._points
            response.pull(0, slice(None), from_half_spectrum(spectra[j], self._boxes[j], shape))
            pulled = response.pulled()
            assert pulled is not None
            add_filtered_back(pulled, self._psi(j), field)
        field[..., : half.shape[-1]].add_(half, alpha=self._points)
        result: Tensor = torch.fft.ifft2(field).real
        x = pass_.x
        deviation = x.std((-2, -1), correction=0).clamp_min(torch.finfo(self.dtype).tiny)
        slope = (x - x.mean((-2, -1), keepdim=True)) / deviation[:, None, None]
        ends = ends / (self._points * statistics.scale[-1])
        return result.add_(ends[:, 0, None, None]).add_(ends[:, 1, None, None] * slope)

    def _pull_logarithms(self, gradient: Tensor, means: Tensor) -> Tensor:
        """Return the gradient of means ``(field, j, l)`` from that of their logarithms."""
        if self.isotropic:
            average = means.mean(-1, keepdim=True)
            slopes = gradient[..., None] / (self.L * average)
        else:
            average, slopes = means, gradient.view_as(means) / means
        above = average > torch.finfo(self.dtype).tiny
        return torch.where(above, slopes, 0.0).expand_as(means)

    def _index_parts(self) -> None:
        """Set what each coefficient is, and of which sums it is the mean, with which signs."""
        turns = range(self.L if self.isotropic else 1)
        entries = list(self._kept())
        places = [
            [self._places(family, _turned(labels, turn, self.L), part) for turn in turns]
            for family, labels, part in entries
        ]
        signs = [
            [[1.0, -1.0 if family == "C11" and part == "im" else 1.0]]
            for family, _, part in entries
        ]
        keep_buffer(self, "_index", torch.tensor(places).flatten(1))
        weights = torch.tensor(signs, dtype=self.dtype).expand(-1, len(turns), -1).flatten(1)
        keep_buffer(self, "_weights", weights / (2 * len(turns)))
        every = [*self._first_entries(), *entries]
        columns = np.array([labels for _, labels, _ in every])
        self.coefficients = {
            "order": np.full(len(every), 2),
            **dict(zip(NAMES, columns.T, strict=True)),
            "part": np.array([part for _, _, part in every]),
            "family": np.array([family for family, _, _ in every]),
        }
        degrees = [{"ln P00": 2.0, "ln S1": 1.0}.get(family, 0.0) for family, _, _ in every]
        keep_buffer(self, "_degree", torch.tensor(degrees, dtype=self.dtype))

    def _places(self, family: str, labels: tuple[int, ...], part: str) -> tuple[int, int]:
        """Return the places of two sums, whose mean or half difference is a coefficient."""
        j1, l1, j2, l2, j3, l3 = labels
        one, two = j1 * self.L + l1, j2 * self.L + l2
        if family == "C01":
            place = self._grams.cross(j2, l2, part == "im", one)
            return place, place
        return self._grams.joint(j3, l3, one, two), self._grams.joint(j3, l3, two, one)

    def _first_entries(self) -> Iterator[Entry]:
        yield from (("mean", (-1,) * 6, "re"), ("std", (-1,) * 6, "re"))
        angles = [-1] if self.isotropic else range(self.L)
        for family in ("ln P00", "ln S1"):
            for j in range(self.J):
                yield from ((family, (j, l1, -1, -1, -1, -1), "re") for l1 in angles)

    def _kept(self) -> Iterator[Entry]:
        """Yield the distinct coefficients; of isotropic ones the first of each turn."""
        for j in range(self.J):
            channels = list(itertools.product(range(j + 1), range(self.L)))
            for angle, one in itertools.product(range(self.L), channels):
                yield from self._parts("C01", (*one, j, angle, -1, -1))
            for angle, one, two in itertools.product(range(self.L), channels, channels):
                (j1, l1), (j2, l2) = one, two
                if j1 > j2 or (j1 == j2 and not self.isotropic and l1 > l2):
                    continue
                if j1 == j2 and self.isotropic and self._repeats(l2, angle):
                    continue
                yield from self._parts("C11", (*one, *two, j, angle))

    def _parts(self, family: str, labels: tuple[int, ...]) -> Iterator[Entry]:
        """Yield the parts of a coefficient that are kept: if isotropic, the real one at l1 = 0."""
        if not self.isotropic or labels[1] == 0:
            yield family, labels, "re"
        alone = family == "C11" and labels[:2] == labels[2:4]
        if not self.isotropic and not alone:
            yield family, labels, "im"

    def _repeats(self, l2: int, l3: int) -> bool:
        """Tell whether exchanging channels 1 and 2 of one scale gives an earlier mean."""
        return (-l2 % self.L, (l3 - l2) % self.L) < (l2, l3)

    def _psi(self, j: int) -> Tensor:
        psi: Tensor = getattr(self, f"_psi_{j}")
        return psi

    def _energies(self, j: int) -> Tensor:
        """Return psi^2 on halves of spectra, ``(l, frequency)``."""
        energies: Tensor = getattr(self, f"_energy_{j}")
        return energies


@dataclass(frozen=True)
class _Pass:
    """What one evaluation leaves for the gradient."""

    x: Tensor
    half: Tensor
    responses: list[Response]
    spectra: list[Tensor]
    means: list[Tensor]
    values: Tensor


def _reach(size: int, j: int) -> int:
    """Return how many frequencies scale j keeps on each side of 0; 0 for all."""
    reach = max(SMALLEST, min(-(-size // (1 << j)), size // 2))
    return reach if 2 * reach < size - 1 else 0


def _box(reaches: tuple[int, ...], shape: tuple[int, int]) -> Box:
    """Return the frequencies of a modulus that its scale or coarser ones keep."""
    y, x = (2 * d + 1 if d else size for d, size in zip(reaches, shape, strict=True))
    return y, x


def _turned(labels: tuple[int, ...], turn: int, L: int) -> tuple[int, ...]:
    """Return the labels with every angle turned."""
    j1, l1, j2, l2, j3, l3 = labels
    last = l3 if l3 < 0 else (l3 + turn) % L
    return j1, (l1 + turn) % L, j2, (l2 + turn) % L, j3, last
