"""Covariances of stacks of channels: what goes back to the stacks."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from wavemill.moments.covariances import ShiftBlock
from wavemill.moments.stacks import Pairs, Stack

BOTH = [(True, True), (True, False), (False, True), (False, False)]


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("linear", BOTH)
def test_gradients_at_shifts_are_those_of_autograd(
    linear: tuple[bool, bool], mirrored: bool
) -> None:
    """For channels that are not linear, stacks gather conjugated gradients."""
    generator = torch.manual_seed(3)
    spectra = torch.randn(2, 2, 3, 8, 6, dtype=torch.complex128, generator=generator)
    leaves = [x.clone().requires_grad_() for x in spectra]
    shifts = np.array([[0, 1], [2, -1], [-2, 0], [0, 0]])
    pairs = Pairs(np.array([0, 1, 2, 1]), np.array([2, 1, 0, 0]), shifts, (3, 3), mirrored)
    block = ShiftBlock(pairs, 0.5, (8, 6), (8, 6), linear, False, torch.float64)
    stacks = [Stack(own, None, leaf) for own, leaf in zip(linear, leaves, strict=True)]
    c = block.evaluate(*stacks)
    g = torch.randn(c.shape, dtype=c.dtype, generator=generator)
    (g.conj() * c).real.sum().backward()
    with torch.no_grad():
        block.pull(g, *stacks)
    for stack, leaf in zip(stacks, leaves, strict=True):
        assert stack.spectrum_gradient is not None
        found = stack.spectrum_gradient if stack.linear else stack.spectrum_gradient.conj()
        torch.testing.assert_close(found.resolve_conj(), leaf.grad, rtol=0, atol=1e-12)


@pytest.mark.parametrize("linear", [False, True])
def test_gradients_of_channels_that_meet_themselves_are_those_of_autograd(linear: bool) -> None:
    generator = torch.manual_seed(4)
    leaf = torch.randn(2, 3, 8, 6, dtype=torch.complex128, generator=generator).requires_grad_()
    channels, shifts = np.array([0, 1, 2, 1]), np.array([[0, 1], [2, -1], [-2, 0], [0, 0]])
    pairs = Pairs(channels, channels, shifts, (3, 3))
    block = ShiftBlock(pairs, 0.5, (8, 6), (8, 6), (linear, linear), True, torch.float64)
    stack = Stack(linear, None, leaf)
    c = block.evaluate(stack, stack)
    g = torch.randn(c.shape, dtype=c.dtype, generator=generator)
    (g.conj() * c).real.sum().backward()
    with torch.no_grad():
        block.pull(g, stack, stack)
    assert stack.spectrum_gradient is not None
    found = stack.spectrum_gradient if linear else stack.spectrum_gradient.conj()
    torch.testing.assert_close(found.resolve_conj(), leaf.grad, rtol=0, atol=1e-12)
