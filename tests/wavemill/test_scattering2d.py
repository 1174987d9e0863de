"""The scattering transform equals its reference and obeys its identities."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from wavemill.errors import InvalidParameter, ShapeMismatch
from wavemill.filters import morlet
from wavemill.scattering2d import Scattering2D, _cut

ROUNDING = 1e-14  # of float64 sums over 10^5 terms of order 1


def field(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)


@pytest.mark.parametrize(
    ("name", "J", "L"),
    [("32x32_J2_L8", 2, 8), ("64x96_J3_L6", 3, 6), ("128_J5_L4", 5, 4), ("256_J4_L8", 4, 8)],
)
def test_coefficients_equal_the_reference(golden: Path, name: str, J: int, L: int) -> None:
    with np.load(golden / f"kymatio2d_{name}.npz") as reference:
        x, expected = torch.from_numpy(reference["x"]), reference["S_piexact_f64"]
        index = reference["index_order_j1_j2_t1_t2"]
    op = Scattering2D(tuple(x.shape[-2:]), J, L, dtype=torch.float64)
    np.testing.assert_allclose(op(x).numpy(), expected, rtol=0, atol=ROUNDING * expected.max())
    columns = [op.coefficients[name] for name in ("order", "j1", "j2", "l1", "l2")]
    np.testing.assert_array_equal(np.stack(columns, 1), index)


def test_filters_equal_the_reference_at_every_resolution(golden: Path) -> None:
    with np.load(golden / "kymatio2d_64x96_J3_L6.npz") as reference:
        psi, phi = reference["psi_piexact_f64"], reference["phi_piexact_f64"]
        coarse = reference["psi_piexact_f64_lev1"]
    bank = morlet.wavelets((80, 112), 3, 6)
    np.testing.assert_allclose(bank.flatten(0, 1).numpy(), psi, rtol=0, atol=ROUNDING)
    low = morlet.low_pass(80, 3)[:, None] * morlet.low_pass(112, 3)[None, :]
    np.testing.assert_allclose(low.numpy(), phi, rtol=0, atol=ROUNDING)
    np.testing.assert_allclose(_cut(bank[2], 2).numpy(), coarse[-6:], rtol=0, atol=ROUNDING)


@pytest.mark.parametrize(("A", "order", "permutation"), [(4, 2, [0, 3, 2, 1]), (8, 1, range(8))])
def test_rectified_coefficients_equal_the_reference(
    golden: Path, A: int, order: int, permutation: list[int]
) -> None:
    """The reference's four phases run the other way round; its eight as here."""
    with np.load(golden / "phase_scattering2d_64_J3_L8.npz") as reference:
        x, expected = torch.from_numpy(reference["x"]), reference[f"S_A{A}_piexact_f64"]
    op = Scattering2D(
        (64, 64), 3, 8, max_order=order, nonlinearity="rectifier", A=A, dtype=torch.float64
    )
    measured, last = op(x), 1 + 24 * A
    first = measured[:, :, 1:last].unflatten(2, (24, A))[:, :, :, list(permutation)]
    measured[:, :, 1:last] = first.flatten(2, 3)
    np.testing.assert_allclose(measured.numpy(), expected, rtol=0, atol=ROUNDING)
    assert sorted(set(op.coefficients["alpha"])) == [-1, *range(A)]


def test_wavelets_have_no_mean_and_turn_with_their_angle() -> None:
    bank = morlet.wavelets((48, 48), 2, 4)
    assert bank[..., 0, 0].abs().max() == 0
    along_y, along_x = bank[:, 1], bank[:, 3].flip(-1).roll(1, -1)  # theta = 0 and -pi / 2
    torch.testing.assert_close(along_y, along_x.mT, rtol=0, atol=ROUNDING)


@pytest.mark.parametrize("shape", [(32, 32), (33, 32), (37, 51), (16, 70)])
def test_any_size_gives_one_average_in_2_to_the_J_points(shape: tuple[int, int]) -> None:
    op = Scattering2D(shape, J=3, L=3)
    y = op(field(2, 3, *shape, dtype=torch.float32))
    assert y.shape == (2, 3, 1 + 9 + 27, shape[0] // 8, shape[1] // 8)
    assert torch.isfinite(y).all()


def test_periodic_averages_are_covariant_to_shifts_by_the_sampling_step() -> None:
    x = field(2, 64, 64)
    op = Scattering2D((64, 64), J=3, L=4, padding="periodic", dtype=torch.float64)
    shifted = op(x.roll((16, -8), (-2, -1)))
    torch.testing.assert_close(shifted, op(x).roll((2, -1), (-2, -1)), rtol=0, atol=ROUNDING)


def test_a_constant_has_only_its_mean() -> None:
    y = Scattering2D((40, 40), J=2, L=4, dtype=torch.float64)(torch.full((40, 40), 3.0))
    torch.testing.assert_close(y[0], torch.full_like(y[0], 3.0), rtol=0, atol=ROUNDING)
    assert y[1:].abs().max() < ROUNDING


def test_energy_is_bounded_by_the_input() -> None:
    """Non-expansive up to the bound 1.05 of the Littlewood-Paley sum, squared by two layers."""
    x = field(4, 64, 64)
    op = Scattering2D((64, 64), J=3, L=8, padding="periodic", dtype=torch.float64)
    energy = op(x).square().sum((1, 2, 3)) * 8**2
    assert (energy < 1.05**2 * x.square().sum((1, 2))).all()


def test_batches_and_single_fields_agree() -> None:
    x = field(5, 2, 32, 32)
    op = Scattering2D((32, 32), J=2, L=4, dtype=torch.float64)
    alone = torch.stack([torch.stack([op(c) for c in sample]) for sample in x])
    torch.testing.assert_close(op(x), alone, rtol=0, atol=ROUNDING)


@pytest.mark.parametrize("nonlinearity", ["modulus", "rectifier"])
def test_gradients_are_exact(nonlinearity: str) -> None:
    op = Scattering2D((8, 8), J=2, L=2, nonlinearity=nonlinearity, dtype=torch.float64)
    assert torch.autograd.gradcheck(op, field(1, 8, 8).requires_grad_())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradients_at_zero_are_finite(dtype: torch.dtype) -> None:
    x = torch.zeros(16, 16, dtype=dtype, requires_grad=True)
    Scattering2D((16, 16), J=2, L=4, dtype=dtype)(x).square().sum().backward()
    assert x.grad is not None
    assert torch.isfinite(x.grad).all()


@pytest.mark.parametrize("power", [-90, 90])
def test_fields_in_any_units_are_transformed_alike(power: int) -> None:
    """Homogeneous, without overflow or underflow of squares: exact, as a power of 2 is."""
    op, x = Scattering2D((16, 16), J=2, L=2), field(16, 16, dtype=torch.float32)
    torch.testing.assert_close(op(x * 2.0**power), op(x) * 2.0**power, rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_the_precision_of_the_operator(dtype: torch.dtype) -> None:
    op, x = Scattering2D((32, 32), J=2, L=4), field(32, 32, dtype=dtype)
    assert op(x).dtype == torch.float32
    torch.testing.assert_close(op(x), op(x.float()), rtol=0, atol=0)


def test_single_precision_is_close_to_double() -> None:
    x = field(64, 64)
    single = Scattering2D((64, 64), J=3)(x).double()
    double = Scattering2D((64, 64), J=3, dtype=torch.float64)(x)
    torch.testing.assert_close(single, double, rtol=0, atol=1e-6)  # 10 roundings of order 1


def test_a_pickled_operator_computes_the_same() -> None:
    op, x = Scattering2D((32, 32), J=2, L=4), field(32, 32)
    torch.testing.assert_close(pickle.loads(pickle.dumps(op))(x), op(x), rtol=0, atol=0)  # noqa: S301
    assert op.state_dict() == {}


def test_lower_orders_are_the_first_rows_of_higher_ones() -> None:
    x = field(32, 32)
    full = Scattering2D((32, 32), J=2, L=4, dtype=torch.float64)
    for order, rows in ((0, 1), (1, 9)):
        op = Scattering2D((32, 32), J=2, L=4, max_order=order, dtype=torch.float64)
        torch.testing.assert_close(op(x), full(x)[:rows], rtol=0, atol=0)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"shape": (31, 64), "J": 5}, "use J=4"),
        ({"shape": (36, 32), "J": 3, "padding": "periodic"}, "multiples of 8"),
        ({"shape": (32, 32), "J": 0}, "J=0"),
        ({"shape": (32, 32), "J": 2, "max_order": 3}, "max_order=3"),
    ],
)
def test_impossible_transforms_are_refused_with_the_way_out(arguments: dict, said: str) -> None:
    with pytest.raises(InvalidParameter, match=said):
        Scattering2D(**arguments)


@pytest.mark.parametrize("x", [torch.zeros(16, 15), torch.zeros(16), torch.zeros(16, 16) * 1j])
def test_fields_of_another_kind_are_refused(x: torch.Tensor) -> None:
    with pytest.raises(ShapeMismatch, match="built for real fields"):
        Scattering2D((16, 16), J=2, L=2)(x)


@pytest.mark.parametrize("nonlinearity", ["modulus", "rectifier"])
@pytest.mark.parametrize("gradient", [False, True])
def test_memory_is_within_the_projection(nonlinearity: str, gradient: bool) -> None:
    op = Scattering2D((64, 64), J=3, nonlinearity=nonlinearity)
    x = field(4, 64, 64, dtype=torch.float32).requires_grad_(gradient)
    run = (lambda: torch.autograd.grad(op(x).sum(), x)) if gradient else (lambda: op(x))
    peak = peak_allocation(run)
    assert 0.5 * op.memory(4, gradient) < peak <= op.memory(4, gradient)


def peak_allocation(call) -> int:
    """Return the largest sum of live tensors while ``call`` runs, beyond those before it."""
    call()
    with torch.profiler.profile(
        profile_memory=True, activities=[torch.profiler.ProfilerActivity.CPU]
    ) as profile:
        kept = call()
    assert kept is not None
    live = peak = 0
    for event in profile.profiler.kineto_results.events():
        if event.name() == "[memory]":
            live += event.nbytes()
            peak = max(peak, live)
    return peak
