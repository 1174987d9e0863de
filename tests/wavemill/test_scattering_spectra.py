"""Scattering spectra compared with their authors' code, and what holds for any field."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from wavemill.errors import InvalidParameter, ShapeMismatch
from wavemill.moments.scattering_spectra import NAMES, ScatteringSpectra

EXACT = 1e-12


def field(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(
        shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    ).exp()


@pytest.fixture(scope="module")
def stcov(golden: Path) -> dict[str, np.ndarray]:
    with np.load(golden / "stcov_128x128_J5_L4.npz") as file:
        return dict(file)


@pytest.mark.parametrize("isotropic", [False, True])
@pytest.mark.parametrize(("map_", "reference"), [("x", "x"), ("y", "x")])
def test_spectra_are_those_of_the_authors_code(
    stcov: dict[str, np.ndarray], isotropic: bool, map_: str, reference: str
) -> None:
    """Every distinct coefficient of theirs; both in float64, with sums in another order."""
    op = ScatteringSpectra((128, 128), 5, 4, isotropic, torch.float64)
    statistics = op.statistics(torch.from_numpy(stcov[reference])[None])
    ours = op.measure(torch.from_numpy(stcov[map_]), statistics).values.numpy()
    kind = "iso_" if isotropic else ""
    theirs = stcov[f"flat_{kind}x_P00" if map_ == "x" else f"flat_{kind}y_ref_x_P00"]
    index = stcov[f"index_{'iso_' if isotropic else ''}P00"].T.tolist()
    expected = {tuple(labels): value for labels, value in zip(index, theirs, strict=True)}
    labels = [as_theirs(op, row) for row in range(2, len(ours))]
    np.testing.assert_allclose(ours[2:], [expected[label] for label in labels], rtol=0, atol=EXACT)
    assert len(set(labels)) == len(ours) - 2


def as_theirs(op: ScatteringSpectra, row: int) -> tuple[int, ...]:
    """(type, j1, j2, j3, l1, l2, l3) of a coefficient."""
    table = op.coefficients
    kinds = {"ln P00": 1, "ln S1": 2, "C01": 3, "C11": 5}
    kind = kinds[str(table["family"][row])] + (table["part"][row] == "im")
    j1, l1, j2, l2, j3, l3 = (int(table[name][row]) for name in NAMES)
    if op.isotropic:
        l1 = -1
    return int(kind), j1, j2, j3, l1, l2, l3


def test_counts_are_those_of_the_definition() -> None:
    J, L, triples = 5, 4, 20  # j1 < j2 <= j3; and 15 with j1 = j2
    full = 2 + 2 * J * L + 15 * 2 * L**2 + triples * 2 * L**3 + 15 * L * L**2
    # Turned together: real parts, of equal scales those of d = l2 - l1 = 0 and 1, half of d = 2.
    same = L + L + L // 2
    isotropic = 2 + 2 * J + 15 * L + triples * L**2 + 15 * same
    assert len(ScatteringSpectra((64, 64), J, L).coefficients["family"]) == full
    assert len(ScatteringSpectra((64, 64), J, L, True).coefficients["family"]) == isotropic


@pytest.mark.parametrize("isotropic", [False, True])
def test_the_loss_is_zero_at_the_reference_and_its_shifts(isotropic: bool) -> None:
    op, x = ScatteringSpectra((32, 24), 3, 3, isotropic, torch.float64), field(32, 24)
    moments = op.measure(x)
    assert op.loss(x, moments) < EXACT**2 * len(moments.values)
    assert op.loss(x.roll((7, -3), (0, 1)), moments) < EXACT**2 * len(moments.values)
    assert op.loss(field(32, 24, seed=1), moments) > 1e-3


@pytest.mark.parametrize("isotropic", [False, True])
def test_the_gradient_of_the_loss_is_exact(isotropic: bool) -> None:
    op = ScatteringSpectra((9, 8), 2, 2, isotropic, torch.float64)
    reference = op.measure(field(9, 8, seed=3))
    x = field(9, 8).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: op.loss(x, reference), x)


@pytest.mark.parametrize("isotropic", [False, True])
def test_the_gradient_by_hand_is_that_of_autograd(isotropic: bool) -> None:
    """Also where coarse scales keep a part of the frequencies: 20 and 16 of 40 and 35."""
    op = ScatteringSpectra((40, 35), 3, 3, isotropic, torch.float64)
    reference, x = op.measure(field(40, 35, seed=3)), field(2, 40, 35).requires_grad_()
    expected_loss = op.loss(x, reference)
    (expected,) = torch.autograd.grad(expected_loss.sum(), x)
    loss, gradient = op.loss_and_gradient(x.detach(), reference)
    torch.testing.assert_close(loss, expected_loss.detach(), rtol=1e-12, atol=0)
    scale = float(expected.abs().max())
    torch.testing.assert_close(gradient, expected, rtol=0, atol=1e-12 * scale)


def test_averages_over_turns_do_not_tell_a_field_turned_by_90_degrees() -> None:
    """A quarter turn of the grid is an exact turn of the wavelets when L is even.

    Only each scale's box of frequencies, which has -d and not d, breaks this a little.
    """
    x = field(32, 32)
    op = ScatteringSpectra((32, 32), 2, 4, True, torch.float64)
    turned = x.flip(0).transpose(0, 1)
    torch.testing.assert_close(op(turned), op(x), rtol=0, atol=1e-3)
    everything = ScatteringSpectra((32, 32), 2, 4, False, torch.float64)
    assert (everything(turned) - everything(x)).abs().max() > 1e-2


@pytest.mark.parametrize("L", [2, 3, 5])
def test_averages_over_turns_are_means_of_all_directions(L: int) -> None:
    x, shape = field(20, 24), (20, 24)
    every, averaged = (
        ScatteringSpectra(shape, 2, L, kind, torch.float64) for kind in (False, True)
    )
    statistics = every.statistics(x[None])
    ours, single = (op.measure(x, statistics).values.tolist() for op in (averaged, every))
    known = {
        (
            every.coefficients["part"][row],
            *(int(every.coefficients[name][row]) for name in NAMES),
        ): v
        for row, v in enumerate(single)
        if every.coefficients["family"][row] == "C01"
    }
    for row in np.flatnonzero(averaged.coefficients["family"] == "C01"):
        j1, _, j2, l2, *_ = (int(averaged.coefficients[name][row]) for name in NAMES)
        turned = [known["re", j1, turn, j2, (l2 + turn) % L, -1, -1] for turn in range(L)]
        assert abs(ours[row] - sum(turned) / L) < EXACT


def test_at_a_field_of_zeros_loss_and_gradient_are_finite() -> None:
    op = ScatteringSpectra((16, 16), 2, 2, dtype=torch.float64)
    loss, gradient = op.loss_and_gradient(torch.zeros(16, 16), op.measure(field(16, 16)))
    assert torch.isfinite(loss)
    assert torch.isfinite(gradient).all()


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(InvalidParameter, match="lower J"):
        ScatteringSpectra((16, 16), 5)
    with pytest.raises(ShapeMismatch, match="built for real fields"):
        ScatteringSpectra((16, 16), 2)(torch.zeros(16, 15))
