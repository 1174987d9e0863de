"""What covariances are taken of: stacks of channels with their gradients, and pairs of channels."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from wavemill import kernels
from wavemill.moments.boxes import Box, add_into, crop, pad
from wavemill.moments.shifts import Indices

Window = tuple[slice, slice]  # rows and columns of a field
WHOLE: Window = (slice(None), slice(None))


class Stack:
    """Channels of one scale and harmonic, and what has been gathered of their gradient.

    Parameters
    ----------
    linear
        Whether the channels are x * psi itself.
    field
        ``(batch, channel, y, x)`` real or complex; None if no block needs it.
    spectrum
        Its transform in a box; None if no block needs it.

    Attributes
    ----------
    field_gradient, spectrum_gradient
        G with d(loss) = Re sum conj(G) d(field or spectrum); for spectra of channels that are not
        linear, conj(G), which is cheaper for blocks to compute. None until a block adds to it.
    """

    def __init__(self, linear: bool, field: Tensor | None, spectrum: Tensor | None) -> None:
        self.linear, self.field, self.spectrum = linear, field, spectrum
        self.field_gradient: Tensor | None = None
        self.spectrum_gradient: Tensor | None = None
        self._cut: dict[tuple[Box, bool], Tensor] = {}
        self._plain: dict[bool, bool] = {}

    def within(self, box: Box, conjugate: bool = False) -> Tensor:
        """Return the spectrum, or its conjugate, within a box."""
        assert self.spectrum is not None
        if (box, conjugate) not in self._cut:
            cut = crop(self.spectrum, box)
            self._cut[box, conjugate] = cut.conj().resolve_conj() if conjugate else cut
        return self._cut[box, conjugate]

    def pull_field(self, gradient: Tensor, channels: slice, window: Window = WHOLE) -> None:
        """Add to the gradient of some fields in a window; may keep ``gradient`` itself."""
        assert self.field is not None
        if self.field_gradient is None and gradient.shape == self.field.shape:
            self.field_gradient = gradient
            return
        if self.field_gradient is None:
            self.field_gradient = torch.zeros_like(self.field)
        self.field_gradient[:, channels, *window].add_(gradient)

    def pull_spectrum(self, gradient: Tensor, channels: slice | Tensor) -> None:
        """Add to the gradient of some spectra, from their own box or a smaller one."""
        known, spectrum = self.spectrum_gradient, self.spectrum
        assert spectrum is not None
        if known is None and gradient.shape == spectrum.shape and isinstance(channels, slice):
            self.spectrum_gradient = gradient
            return
        if known is None:
            self.spectrum_gradient = known = torch.zeros_like(spectrum)
        if isinstance(channels, slice):
            add_into(known[:, channels], gradient)
        else:
            known.index_add_(1, channels, pad(gradient, (spectrum.shape[-2], spectrum.shape[-1])))

    def channels(self, space: bool) -> Tensor:
        """Return the fields or the spectra."""
        channels = self.field if space else self.spectrum
        assert channels is not None
        return channels

    def plain(self, space: bool) -> bool:
        """Say whether compiled loops may read them: complex, in memory, in no graph of autograd."""
        if space not in self._plain:
            x = self.channels(space)
            self._plain[space] = x.is_complex() and kernels.usable(x) and not x.requires_grad
        return self._plain[space]

    def begin_gradient(
        self, space: bool, once: bool, sizes: tuple[int, int, int]
    ) -> tuple[Tensor, bool]:
        """Return memory for the gradient, and whether to overwrite it rather than add to it.

        It is overwritten if nothing is known yet and what comes, channels of these ``sizes``, each
        ``once``, is all of it.
        """
        known = self.field_gradient if space else self.spectrum_gradient
        if known is not None:
            return known, False
        channels = self.channels(space)
        fresh = once and channels.shape[1:] == sizes
        new = torch.empty_like(channels) if fresh else torch.zeros_like(channels)
        if space:
            self.field_gradient = new
        else:
            self.spectrum_gradient = new
        return new, fresh


class Power:
    """The product ``a conj b`` of two transforms, and what has been gathered of its gradient.

    Fields are real: the product at -w is the conjugate of that at w, and a gradient in one half is
    enough.

    Parameters
    ----------
    a, b
        ``(batch, y, x)``, complex; the product is real if they are one and the same.
    """

    def __init__(self, a: Tensor, b: Tensor) -> None:
        self._a, self._b = a, b
        self._gradient: Tensor | None = None

    @cached_property
    def value(self) -> Tensor:
        """The product ``(batch, y, x)``."""
        if self._a is self._b:
            return self._a.real.square() + self._a.imag.square()
        return self._a * self._b.conj()

    def pull(self, gradient: Tensor) -> None:
        """Add to the gradient, from the whole box or a smaller one."""
        if self._gradient is None:
            self._gradient = torch.zeros_like(self.value)
        add_into(self._gradient, gradient)

    def pulled(self) -> list[Tensor]:
        """Return the gradient of a and, unless it is the same, of b; none if none was gathered."""
        if self._gradient is None:
            return []
        if self._a is self._b:
            return [2 * self._gradient * self._a]
        return [self._gradient * self._b, self._gradient.conj() * self._a]


@dataclass(frozen=True)
class Pairs:
    """Rows of a block.

    Parameters
    ----------
    first, second
        Number of each row's channel in its stack, ``(row,)``.
    shifts
        (y, x) of each row, ``(row, 2)``.
    channels
        Numbers of channels of the stacks.
    mirrored
        Whether b is replaced by its conjugate.
    """

    first: Indices
    second: Indices
    shifts: Indices
    channels: tuple[int, int]
    mirrored: bool = False

    def distinct(self) -> tuple[Indices, Indices, Indices]:
        """Return the distinct pairs of channels, and which of them each row is."""
        both = np.column_stack([self.first, self.second])
        pairs, index = np.unique(both, axis=0, return_inverse=True)
        return pairs[:, 0], pairs[:, 1], index.reshape(-1)
