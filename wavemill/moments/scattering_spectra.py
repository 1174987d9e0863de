"""Scattering spectra: second moments of a field and of the wavelet transforms of its moduli.

    P00 = < |x*psi_1|^2 > ,   S1 = < |x*psi_1| > ,
    C01 = < (x*psi_2) (|x*psi_1|*psi_2)^* > ,
    C11 = < (|x*psi_1|*psi_3) (|x*psi_2|*psi_3)^* > ,   j1 <= j2 <= j3 ,

C01 and C11 divided by ``s_1 s_2``, where s^2 is P00, frozen at a reference's; of P00 and S1 the
logarithm. C01 holds one factor psi_2 in frequency, not two, as the authors compute it:
``<x (|x*psi_1|*psi_2)^*>``. Means over positions are sums over frequencies, of which scale j keeps
``-d .. d - 1`` an axis, ``d = max(8, N / 2^j)`` at most N / 2. Morlet wavelets, transforms of sign
``-i w u``.

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
from wavemill.moments.boxes import Box, to_field, to_spectrum
from wavemill.moments.channels import Response
from wavemill.moments.differentiated import DifferentiatedMoments, check_fits
from wavemill.moments.phase_harmonics import Moments, Statistics, floored
from wavemill.operators import keep_buffer

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
        self._reach = [tuple(_reach(size, j) for size in shape) for j in range(J)]
        for j in range(J):
            keep_buffer(self, f"_psi_{j}", bank[j].to(dtype))
            keep_buffer(self, f"_narrow_{j}", self._cut(bank[j], j).flatten(1).to(dtype))
        self._index_parts()

    @property
    def channels(self) -> int:
        """Bands, and the field itself."""
        return self.J * self.L + 1

    def statistics(self, x: Tensor) -> Statistics:
        """Return the root of P00 ``(band)``, and mean and deviation of x, over all fields."""
        x_hat = torch.fft.fft2(x)[:, None]
        moduli = [torch.fft.ifft2(x_hat * self._psi(j)).abs() for j in range(self.J)]
        bands = [modulus.square().mean((0, -2, -1)) for modulus in moduli]
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
        with torch.no_grad():
            for field in torch.split(fields, 1):
                pass_ = self._evaluate(field / unit, statistics)
                residual = pass_.values + self._of_unit(unit) - moments.values
                losses.append(residual.square().sum(-1))
                gradients.append(self._pull(pass_, 2 * residual, statistics))
        gradient = (torch.cat(gradients) / unit).reshape(x.shape).to(x.dtype)
        return torch.cat(losses).reshape(x.shape[:-2]), gradient

    def standardised(self, x: Tensor, statistics: Statistics) -> Tensor:
        """Return the spectra of fields in units of the statistics; logarithms are of theirs."""
        return super().standardised(x, statistics) + self._of_unit(statistics.unit)

    def _of_unit(self, unit: Tensor) -> Tensor:
        """Return what logarithms of fields in such units lack, ``(coefficient,)``."""
        return self._degree * unit.log()

    def _evaluate(self, x: Tensor, statistics: Statistics) -> _Pass:
        x_hat = torch.fft.fft2(x, norm="forward")
        responses = [
            Response(x_hat[:, None] * self._psi(j), (x.shape[-2], x.shape[-1]), False)
            for j in range(self.J)
        ]
        moduli = [response.modulus for response in responses]
        bands = statistics.scale[:-1].view(self.J, self.L, 1, 1)
        spectra = [
            to_spectrum(modulus, self._box(j)) / (self._points * bands[j])
            for j, modulus in enumerate(moduli)
        ]
        centred = x - statistics.mean[-1].real
        mean, deviation = centred.mean((-2, -1)), x.std((-2, -1), correction=0)
        means = [
            torch.stack([modulus.pow(order).mean((-2, -1)) for modulus in moduli], dim=1)
            for order in (2, 1)
        ]
        products = list(self._products(x_hat, spectra, bands))
        parts = torch.cat([product.flatten(1) for product in products], dim=1)
        averages = torch.view_as_real(parts).flatten(1)[:, self._index].mean(-1)
        ends = torch.stack([mean, deviation], dim=1) / statistics.scale[-1]
        values = torch.cat([ends, *map(self._logarithms, means), averages], dim=1)
        return _Pass(x, x_hat, responses, spectra, means, products, values)

    def _logarithms(self, means: Tensor) -> Tensor:
        averages = means.mean(-1) if self.isotropic else means.flatten(1)
        return averages.clamp_min(torch.finfo(self.dtype).tiny).log()

    def _pull(self, pass_: _Pass, gradient: Tensor, statistics: Statistics) -> Tensor:
        """Return the gradient of x from that of the values, of one field."""
        counts = [2, *(2 * [self.J if self.isotropic else self.J * self.L])]
        ends, power, first, rest = torch.split(gradient, [*counts, len(self._index)], dim=1)
        bands = statistics.scale[:-1].view(self.J, self.L, 1, 1)
        field, spectra = self._pull_products(pass_, rest, bands)
        weights = [
            self._pull_logarithms(g, m) / self._points
            for g, m in zip((power, first), pass_.means, strict=True)
        ]
        for j, response in enumerate(pass_.responses):
            pulled = to_field(spectra[j], response.shape, real=True) / (self._points * bands[j])
            pulled.addcmul_(response.modulus, 2 * weights[0][:, j, :, None, None])
            pulled.add_(weights[1][:, j, :, None, None])
            response.pull(0, slice(None), pulled)
            spectral = response.pulled()
            assert spectral is not None
            field += (spectral * self._psi(j)).sum(1)
        result: Tensor = torch.fft.ifft2(field).real
        x = pass_.x
        deviation = x.std((-2, -1), correction=0).clamp_min(torch.finfo(self.dtype).tiny)
        slope = (x - x.mean((-2, -1), keepdim=True)) / deviation[:, None, None]
        ends = ends / (self._points * statistics.scale[-1])
        return result.add_(ends[:, 0, None, None]).add_(ends[:, 1, None, None] * slope)

    def _pull_products(
        self, pass_: _Pass, rest: Tensor, bands: Tensor
    ) -> tuple[Tensor, list[Tensor]]:
        """Return the gradients of x^ and of the moduli's spectra from those of the averages."""
        size = sum(product[0].numel() for product in pass_.products)
        each = (rest[..., None] / self._index.shape[1]).expand(-1, -1, self._index.shape[1])
        real = rest.new_zeros(len(rest), 2 * size)
        real.index_add_(1, self._index.flatten(), each.flatten(1))
        slopes = torch.view_as_complex(real.view(len(rest), size, 2))
        pieces = torch.split(slopes, [product[0].numel() for product in pass_.products], dim=1)
        pulled = [
            piece.view_as(product) for piece, product in zip(pieces, pass_.products, strict=True)
        ]
        field = torch.zeros_like(pass_.x_hat)
        spectra = [torch.zeros_like(spectrum) for spectrum in pass_.spectra]
        for j in range(self.J):
            psi = self._narrow(j)
            moduli = torch.cat([self._cut(one, j) for one in pass_.spectra[: j + 1]], 1).flatten(2)
            filters = psi / bands[j, :, :, 0]
            g01, g11 = pulled[2 * j], pulled[2 * j + 1]
            linear = self._cut(pass_.x_hat, j).flatten(1)[:, None] * filters
            self._add(field, ((g01 @ moduli) * filters).sum(1), j)
            gradient = g01.mH @ linear
            for l3 in range(self.L):
                gram = g11[:, l3] + g11[:, l3].mH
                gradient += (gram @ moduli).mul_(psi[l3].square())
            for spectrum, part in zip(spectra, torch.split(gradient, self.L, dim=1), strict=False):
                self._add(spectrum, part, j)
        return field, spectra

    def _pull_logarithms(self, gradient: Tensor, means: Tensor) -> Tensor:
        """Return the gradient of means ``(field, j, l)`` from that of their logarithms."""
        if self.isotropic:
            average = means.mean(-1, keepdim=True)
            slopes = gradient[..., None] / (self.L * average)
        else:
            average, slopes = means, gradient.view_as(means) / means
        above = average > torch.finfo(self.dtype).tiny
        return torch.where(above, slopes, 0.0).expand_as(means)

    def _products(self, x_hat: Tensor, spectra: list[Tensor], bands: Tensor) -> Iterator[Tensor]:
        """Yield C01 ``(field, l2, channel 1)`` of each j2, C11 ``(field, l3, 1, 2)`` of each j3."""
        for j in range(self.J):
            psi = self._narrow(j)
            moduli = torch.cat([self._cut(spectrum, j) for spectrum in spectra[: j + 1]], 1)
            moduli = moduli.flatten(2)
            field = self._cut(x_hat, j).flatten(1)[:, None] * (psi / bands[j, :, :, 0])
            yield field @ moduli.mH
            adjoint = moduli.mH
            grams = [(moduli * one.square()) @ adjoint for one in psi]
            yield torch.stack(grams, dim=1)

    def _add(self, whole: Tensor, part: Tensor, j: int) -> None:
        """Add to the frequencies that scale j keeps, in place."""
        reach, sizes = self._kept_reach(j), whole.shape[-2:]
        box = [2 * r if r else n for r, n in zip(reach, sizes, strict=True)]
        part = part.view(*part.shape[:-1], *box)
        ends = [
            [(slice(0, r), slice(0, r)), (slice(r, 2 * r), slice(n - r, n))]
            if r
            else [(slice(None), slice(None))]
            for r, n in zip(reach, sizes, strict=True)
        ]
        for y, x in itertools.product(*ends):
            whole[..., y[1], x[1]] += part[..., y[0], x[0]]

    def _kept_reach(self, j: int) -> tuple[int, ...]:
        """Return how many frequencies scale j keeps on each side of 0; 0 for all."""
        pairs = zip(self._reach[j], self.shape, strict=True)
        return tuple(reach if 2 * reach < size - 1 else 0 for reach, size in pairs)

    def _box(self, j: int) -> Box:
        """Return the frequencies of a modulus of scale j that it or coarser scales keep."""
        pairs = zip(self._kept_reach(j), self.shape, strict=True)
        y, x = (2 * reach + 1 if reach else size for reach, size in pairs)
        return y, x

    def _index_parts(self) -> None:
        """Tell what each coefficient is, and of which numbers it is the mean."""
        places = {entry: place for place, entry in enumerate(self._computed())}
        turns = range(self.L if self.isotropic else 1)
        entries = list(self._kept())
        index = [
            [places[family, _turned(labels, turn, self.L), part] for turn in turns]
            for family, labels, part in entries
        ]
        keep_buffer(self, "_index", torch.tensor(index))
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

    def _first_entries(self) -> Iterator[Entry]:
        yield from (("mean", (-1,) * 6, "re"), ("std", (-1,) * 6, "re"))
        angles = [-1] if self.isotropic else range(self.L)
        for family in ("ln P00", "ln S1"):
            for j in range(self.J):
                yield from ((family, (j, l1, -1, -1, -1, -1), "re") for l1 in angles)

    def _computed(self) -> Iterator[Entry]:
        """Yield what the numbers of :meth:`_products` are, in order."""
        for j in range(self.J):
            channels = [(j1, l1) for j1 in range(j + 1) for l1 in range(self.L)]
            for angle in range(self.L):
                for one in channels:
                    yield from (("C01", (*one, j, angle, -1, -1), part) for part in ("re", "im"))
            for angle in range(self.L):
                for one in channels:
                    for two in channels:
                        labels = (*one, *two, j, angle)
                        yield from (("C11", labels, part) for part in ("re", "im"))

    def _kept(self) -> Iterator[Entry]:
        """Yield the distinct ones among them, of isotropic ones the first of each turn."""
        for family, labels, part in self._computed():
            j1, l1, j2, l2, _, l3 = labels
            if family == "C11" and (j1 > j2 or (j1 == j2 and l1 == l2 and part == "im")):
                continue
            if self.isotropic:
                if l1 or part == "im" or (family == "C11" and j1 == j2 and self._repeats(l2, l3)):
                    continue
            elif family == "C11" and j1 == j2 and l1 > l2:
                continue
            yield family, labels, part

    def _repeats(self, l2: int, l3: int) -> bool:
        """Tell whether exchanging channels 1 and 2 of one scale gives an earlier mean."""
        return (-l2 % self.L, (l3 - l2) % self.L) < (l2, l3)

    def _cut(self, spectrum: Tensor, j: int) -> Tensor:
        """Return the frequencies that scale j keeps."""
        for axis, reach in zip((-2, -1), self._kept_reach(j), strict=True):
            if reach:
                size = spectrum.shape[axis]
                low = spectrum.narrow(axis, 0, reach)
                spectrum = torch.cat([low, spectrum.narrow(axis, size - reach, reach)], axis)
        return spectrum

    def _psi(self, j: int) -> Tensor:
        psi: Tensor = getattr(self, f"_psi_{j}")
        return psi

    def _narrow(self, j: int) -> Tensor:
        psi: Tensor = getattr(self, f"_narrow_{j}")
        return psi


@dataclass(frozen=True)
class _Pass:
    """What one evaluation leaves for the gradient."""

    x: Tensor
    x_hat: Tensor
    responses: list[Response]
    spectra: list[Tensor]
    means: list[Tensor]
    products: list[Tensor]
    values: Tensor


def _reach(size: int, j: int) -> int:
    return max(SMALLEST, min(-(-size // (1 << j)), size // 2))


def _turned(labels: tuple[int, ...], turn: int, L: int) -> tuple[int, ...]:
    """Return the labels with every angle turned."""
    j1, l1, j2, l2, j3, l3 = labels
    last = l3 if l3 < 0 else (l3 + turn) % L
    return j1, (l1 + turn) % L, j2, (l2 + turn) % L, j3, last
