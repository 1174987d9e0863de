"""Blocks of a deep scattering network: their filters, their formula, their gradients."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from wavemill.dictionaries.blocks import ANGLES, Block, filters
from wavemill.filters.morlet import wavelets


def maps(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_filters_are_morlets_of_the_first_octave() -> None:
    """Only a tail is cut off: correlations with the whole wavelets, in the same order, are near 1.

    Each filter is nearest the wavelet of its own angle.
    """
    phi, *parts = filters()
    assert float(phi.norm()) == pytest.approx(1)
    psi = torch.stack([torch.complex(parts[2 * q], parts[2 * q + 1]) for q in range(ANGLES)])
    torch.testing.assert_close(
        psi.sum((1, 2)).abs(), torch.zeros(ANGLES).double(), atol=1e-12, rtol=0
    )
    whole = torch.fft.ifft2(wavelets((32, 32), 1, ANGLES)[0])
    centred = torch.fft.fftshift(whole, (1, 2))[:, 14:19, 14:19]
    norms = whole.flatten(1).norm(dim=1)
    found = torch.einsum("ayx,byx->ab", psi.conj(), centred).abs() / norms
    assert float(found.diagonal().min()) > 0.97
    assert torch.equal(found.argmax(1), torch.arange(ANGLES))


def test_a_block_is_its_formula() -> None:
    """Codes, low passes and moduli at every second position, written out."""
    x = maps(5, 3, 9, 12)
    block = Block(3, 2, 2).double().eval()
    block.norm.running_mean.fill_(0.2)
    block.norm.bias.data.fill_(0.1)
    F = block.project.weight[:, :, 0, 0]
    scale = 1 / (1 + block.norm.eps) ** 0.5
    z = torch.relu((torch.einsum("ac,ncyx->nayx", F, x) - 0.2) * scale + 0.1)
    torch.testing.assert_close(block.codes(x), z)
    taps = filters().float().double()
    padded = torch.nn.functional.pad(z, (2, 2, 2, 2)).unfold(2, 5, 2).unfold(3, 5, 2)
    every = torch.einsum("nayxuv,fuv->nafyx", padded, taps)
    moduli = (every[:, :, 1::2].square() + every[:, :, 2::2].square()).sqrt()
    expected = torch.cat([every[:, :, :1], moduli], 2).transpose(1, 2).flatten(1, 2)
    torch.testing.assert_close(block(x), expected)
    assert block(x).shape == (5, block.outputs, *block.wavelets.shape((9, 12)))


def test_gradients_are_those_of_finite_differences_and_finite_at_zero() -> None:
    block = Block(3, 2, 2).double()
    x = maps(2, 3, 6, 6).requires_grad_()
    assert torch.autograd.gradcheck(block, (x,), fast_mode=True)
    zero = torch.zeros(2, 3, 6, 6, dtype=torch.float64, requires_grad=True)
    block(zero).sum().backward()
    assert zero.grad is not None
    assert bool(torch.isfinite(zero.grad).all())
