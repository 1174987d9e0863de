"""The scattering transform equals its reference and obeys its identities."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.measure import peak_allocation
from wavemill.errors import InvalidParameter, ShapeMismatch
from wavemill.filters import morlet
from wavemill.harmonics import inverse_rectifier
from wavemill.sampling import cut
from wavemill.scattering2d import COLUMNS, Scattering2D

ROUNDING = 1e-14  # of float64 sums over 10^5 terms of order 1
FORWARD = pytest.mark.filterwarnings("ignore:.torch.jit.script:DeprecationWarning")  # torch's own
NONLINEARITIES = ("modulus", "rectifier", "fully-rectified")


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
    np.testing.assert_allclose(cut(bank[2], 2).numpy(), coarse[-6:], rtol=0, atol=ROUNDING)


@pytest.mark.parametrize(
    ("name", "J", "L"), [("32x32_J2_L8", 2, 8), ("64x96_J3_L6", 3, 6), ("256_J4_L8", 4, 8)]
)
def test_single_precision_equals_the_reference(golden: Path, name: str, J: int, L: int) -> None:
    with np.load(golden / f"kymatio2d_{name}.npz") as reference:
        x, expected = torch.from_numpy(reference["x"]), reference["S_piexact_f64"]
    measured = Scattering2D(tuple(x.shape[-2:]), J, L)(x.float()).double().numpy()
    assert np.linalg.norm(measured - expected) <= 2e-6 * np.linalg.norm(expected)
    np.testing.assert_allclose(measured, expected, rtol=0, atol=2e-6 * expected.max())


def direct(x: np.ndarray, J: int, L: int, nonlinearity: str, A: int) -> dict[tuple, np.ndarray]:
    """Scattering of one field by the definition: sums over pixels and frequencies, one at a time.

    Filters are sampled in space and made periodic there; resolutions are changed by sampling in
    space; nothing is shared with the implementation.
    """
    padded = [((n + 2**J) // 2**J + 1) * 2**J for n in x.shape]
    before = [(m - n) // 2 for m, n in zip(padded, x.shape, strict=True)]
    after = [m - n - b for m, n, b in zip(padded, x.shape, before, strict=True)]
    field = np.pad(x, list(zip(before, after, strict=True)), mode="reflect")

    def atom(sigma: float, theta: float, xi: float, slant: float) -> np.ndarray:
        total = np.zeros(padded, complex)
        for shift in np.ndindex(9, 9):
            grid = [np.arange(m) + (s - 4) * m for m, s in zip(padded, shift, strict=True)]
            u, v = np.meshgrid(*grid, indexing="ij")
            a = u * np.cos(theta) + v * np.sin(theta)
            b = v * np.cos(theta) - u * np.sin(theta)
            wave = np.exp(-(a**2 + slant**2 * b**2) / (2 * sigma**2) + 1j * xi * a)
            total += wave * slant / (2 * np.pi * sigma**2)
        return total

    def morlet(j: int, q: int) -> np.ndarray:
        shape = (0.8 * 2**j, (L // 2 - 1 - q) * np.pi / L)
        wave, envelope = atom(*shape, 0.75 * np.pi / 2**j, 4 / L), atom(*shape, 0.0, 4 / L)
        return np.fft.fft2(wave - wave.sum() / envelope.sum() * envelope)

    def at(filter_: np.ndarray, level: int) -> np.ndarray:
        for axis, m in enumerate(padded):
            kept = m >> level
            low = [*range(kept // 2), *range(m - (kept - kept // 2), m)]
            filter_ = filter_.take(low, axis)
        return filter_

    def convolve(u: np.ndarray, filter_: np.ndarray, level: int, j: int) -> np.ndarray:
        step = 2 ** (j - level)
        return np.fft.ifft2(np.fft.fft2(u) * at(filter_, level))[::step, ::step]

    def pointwise(z: np.ndarray, kind: str) -> dict[int, np.ndarray]:
        if kind == "modulus":
            return {-1: np.abs(z)}
        turns = [np.exp(2j * np.pi * a / A) for a in range(A)]
        return {a: np.maximum((turn * z).real, 0) for a, turn in enumerate(turns)}

    low = np.fft.fft2(atom(0.8 * 2 ** (J - 1), 0.0, 0.0, 1.0).real)
    kept = tuple(slice(1, 1 + n // 2**J) for n in x.shape)

    def average(u: np.ndarray, level: int) -> np.ndarray:
        return convolve(u, low, level, J).real[kept]

    kinds = {
        "modulus": ("modulus", "modulus", "modulus"),
        "rectifier": ("rectifier", "modulus", "modulus"),
        "fully-rectified": ("rectifier", "rectifier", "rectifier"),
    }[nonlinearity]
    paths = [(j, q, morlet(j, q)) for j in range(J) for q in range(L)]
    found = {(0, -1, -1, -1, -1, -1, -1): average(field, 0)}
    for j1, l1, psi1 in paths:
        z = convolve(field, psi1, 0, j1)
        for a1, u in pointwise(z, kinds[0]).items():
            found[1, j1, l1, a1, -1, -1, -1] = average(u, j1)
        for a1, u in pointwise(z, kinds[1]).items():
            for j2, l2, psi2 in paths:
                if j2 > j1:
                    deeper = pointwise(convolve(u, psi2, j1, j2), kinds[2])
                    for a2, v in deeper.items():
                        found[2, j1, l1, a1, j2, l2, a2] = average(v, j2)
    return found


@pytest.mark.parametrize("nonlinearity", NONLINEARITIES)
@pytest.mark.parametrize(("shape", "J", "L", "A"), [((17, 26), 2, 3, 4), ((25, 19), 3, 2, 3)])
def test_any_size_equals_the_definition(
    shape: tuple[int, int], J: int, L: int, A: int, nonlinearity: str
) -> None:
    x = field(*shape)
    op = Scattering2D(shape, J, L, nonlinearity=nonlinearity, A=A, dtype=torch.float64)
    expected = direct(x.numpy(), J, L, nonlinearity, A)
    rows = list(zip(*(op.coefficients[name].tolist() for name in COLUMNS), strict=True))
    assert rows == sorted(expected, key=lambda row: (row[0], *row[1:4], *row[4:]))
    assert len(set(rows)) == len(rows) == len(expected)
    reference = np.stack([expected[row] for row in rows])
    np.testing.assert_allclose(op(x).numpy(), reference, rtol=0, atol=ROUNDING)


@pytest.mark.parametrize("nonlinearity", NONLINEARITIES)
def test_fields_that_are_not_averaged_equal_their_definition(nonlinearity: str) -> None:
    """Periodic: U is a cascade of products in the Fourier domain, then pointwise maps."""
    x, bank = field(2, 16, 24), morlet.wavelets((16, 24), 2, 3)
    op = Scattering2D(
        (16, 24), 2, 3, nonlinearity=nonlinearity, padding="periodic", average=False, dtype=x.dtype
    )
    found = op(x)
    assert found.shape == (2, len(op.coefficients["order"]), 16, 24)
    table = zip(*(op.coefficients[name].tolist() for name in COLUMNS), strict=True)
    for row, (order, j1, l1, a1, j2, l2, a2) in enumerate(table):
        u = x
        for j, q, a in ((j1, l1, a1), (j2, l2, a2))[:order]:
            z = torch.fft.ifft2(torch.fft.fft2(u) * bank[j, q])
            u = z.abs() if a < 0 else torch.relu((z * np.exp(2j * np.pi * a / 4)).real)
        torch.testing.assert_close(found[:, row], u, rtol=0, atol=ROUNDING)


def test_fields_that_are_not_averaged_lie_on_the_input_s_grid() -> None:
    """At the centre, far from the borders, padding changes nothing."""
    x = torch.zeros(64, 64, dtype=torch.float64)
    x[28:36, 28:36] = field(8, 8)
    options = {"J": 2, "L": 4, "average": False, "dtype": torch.float64}
    reflected = Scattering2D((64, 64), padding="reflect", **options)(x)
    periodic = Scattering2D((64, 64), padding="periodic", **options)(x)
    torch.testing.assert_close(
        reflected[..., 24:40, 24:40], periodic[..., 24:40, 24:40], rtol=0, atol=1e-9
    )


def test_the_first_layer_of_rectifiers_inverts_to_the_wavelet_coefficients() -> None:
    """Even A >= 4: the phases of rho are a linear image of x * psi, which comes back exactly."""
    x, bank = field(16, 16), morlet.wavelets((16, 16), 1, 4)
    op = Scattering2D(
        (16, 16),
        1,
        4,
        max_order=1,
        nonlinearity="rectifier",
        padding="periodic",
        average=False,
        dtype=x.dtype,
    )
    U = op(x)[1:].unflatten(0, (4, 4)).movedim(1, -1)
    z = torch.fft.ifft2(torch.fft.fft2(x) * bank[0])
    torch.testing.assert_close(inverse_rectifier(U), z, rtol=0, atol=ROUNDING)


@pytest.mark.parametrize(("A", "order", "permutation"), [(4, 2, [0, 3, 2, 1]), (8, 1, range(8))])
def test_rectified_coefficients_equal_the_reference(
    golden: Path, A: int, order: int, permutation: list[int]
) -> None:
    """The reference's four phases run the other way round, its eight as here."""
    with np.load(golden / "phase_scattering2d_64_J3_L8.npz") as reference:
        x, expected = torch.from_numpy(reference["x"]), reference[f"S_A{A}_piexact_f64"]
    op = Scattering2D(
        (64, 64), 3, 8, max_order=order, nonlinearity="rectifier", A=A, dtype=torch.float64
    )
    measured, last = op(x), 1 + 24 * A
    first = measured[:, :, 1:last].unflatten(2, (24, A))[:, :, :, list(permutation)]
    measured[:, :, 1:last] = first.flatten(2, 3)
    np.testing.assert_allclose(measured.numpy(), expected, rtol=0, atol=ROUNDING)
    assert sorted(set(op.coefficients["alpha1"])) == [-1, *range(A)]


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


@FORWARD
@pytest.mark.parametrize("nonlinearity", NONLINEARITIES)
@pytest.mark.parametrize("average", [True, False])
def test_gradients_are_exact(nonlinearity: str, average: bool) -> None:
    """Backward and forward, batched, and of second order."""
    op = Scattering2D((4, 6), 2, 2, nonlinearity=nonlinearity, average=average, dtype=torch.float64)
    x = field(1, 4, 6).requires_grad_()
    assert torch.autograd.gradcheck(
        op, x, check_forward_ad=True, check_batched_grad=True, fast_mode=True
    )
    assert torch.autograd.gradgradcheck(op, x, fast_mode=True)


def test_gradients_in_single_precision_are_those_in_double() -> None:
    grads = []
    for dtype in (torch.float32, torch.float64):
        x = field(2, 40, 40, dtype=dtype).requires_grad_()
        y = Scattering2D((40, 40), J=3, L=4, dtype=dtype)(x)
        (y * field(*y.shape, seed=1, dtype=dtype)).sum().backward()
        grads.append(x.grad.double())
    torch.testing.assert_close(*grads, rtol=0, atol=3e-6 * float(grads[1].abs().max()))


@pytest.mark.parametrize("nonlinearity", NONLINEARITIES)
@pytest.mark.parametrize("value", [0.0, 1.0, 1e30, 1e-30, 1e-38])
@pytest.mark.parametrize("average", [True, False])
def test_extreme_fields_have_finite_values_and_gradients(
    nonlinearity: str, value: float, average: bool
) -> None:
    op = Scattering2D((16, 16), J=2, L=2, nonlinearity=nonlinearity, average=average)
    noise = field(16, 16, dtype=torch.float32)
    for x in (value * torch.ones(16, 16), value * noise):
        x.requires_grad_()
        y = op(x)
        y.sum().backward()
        assert torch.isfinite(y).all()
        assert x.grad is not None
        assert torch.isfinite(x.grad).all()


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_missing_value_spoils_its_own_field_alone(value: float) -> None:
    op, x = Scattering2D((16, 16), J=2, L=2), field(2, 16, 16, dtype=torch.float32)
    clean = op(x[1])
    x[0, 3, 4] = value
    y = op(x)
    assert y[0].isnan().all()
    torch.testing.assert_close(y[1], clean, rtol=0, atol=1e-6)


@FORWARD
def test_functional_transforms_agree_with_loops() -> None:
    op, x, v = Scattering2D((8, 8), 1, 2, dtype=torch.float64), field(3, 8, 8), field(8, 8, seed=1)
    torch.testing.assert_close(torch.func.vmap(op)(x), op(x), rtol=0, atol=ROUNDING)
    value, along = torch.func.jvp(op, (x[0],), (v,))
    torch.testing.assert_close(value, op(x[0]), rtol=0, atol=ROUNDING)
    jacobian = torch.func.jacrev(op)(x[0])
    torch.testing.assert_close((jacobian * v).sum((-2, -1)), along, rtol=0, atol=ROUNDING)


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_the_compiled_transform_is_the_same(backend: str) -> None:
    op, x = (
        Scattering2D((8, 8), 1, 2, nonlinearity="rectifier", dtype=torch.float64),
        field(2, 8, 8),
    )
    compiled = torch.compile(op, backend=backend, fullgraph=True)
    torch.testing.assert_close(compiled(x), op(x), rtol=0, atol=ROUNDING)
    x.requires_grad_()
    grads = [torch.autograd.grad(f(x).sum(), x)[0] for f in (op, compiled)]
    torch.testing.assert_close(*grads, rtol=0, atol=ROUNDING)


def test_an_operator_made_double_is_exact_in_double() -> None:
    x, exact = field(2, 32, 32), Scattering2D((32, 32), J=3, L=4, dtype=torch.float64)
    op = Scattering2D((32, 32), J=3, L=4)
    assert op(x).dtype == op.dtype == torch.float32
    torch.testing.assert_close(op.double()(x), exact(x), rtol=0, atol=0)
    assert op.dtype == torch.float64
    assert op.to(torch.bfloat16).dtype == torch.float32
    torch.testing.assert_close(op(x), Scattering2D((32, 32), J=3, L=4)(x), rtol=0, atol=0)


@pytest.mark.parametrize("leading", [(), (2,), (2, 3), (1, 2, 1), (0,), (2, 0)])
def test_leading_axes_are_kept(leading: tuple[int, ...]) -> None:
    op, x = Scattering2D((16, 16), J=2, L=2), field(*leading, 16, 16, dtype=torch.float32)
    y = op(x)
    assert y.shape == (*leading, 9, 4, 4)
    flat = op(x.reshape(-1, 16, 16)) if x.numel() else y
    torch.testing.assert_close(y.reshape(flat.shape), flat, rtol=0, atol=0)


def test_views_that_are_not_contiguous_are_transformed_alike() -> None:
    op, x = Scattering2D((16, 24), J=2, L=2), field(24, 3, 16, dtype=torch.float32)
    turned = x.permute(1, 2, 0)
    torch.testing.assert_close(op(turned), op(turned.contiguous()), rtol=0, atol=0)


def test_batches_larger_than_the_caches_are_cut_evenly(monkeypatch: pytest.MonkeyPatch) -> None:
    op, x = Scattering2D((16, 16), J=2, L=2, dtype=torch.float64), field(7, 16, 16)
    whole = op(x)
    monkeypatch.setattr("wavemill.scattering2d._CACHED", 30_000)  # three fields, seven layers
    torch.testing.assert_close(op(x), whole, rtol=0, atol=ROUNDING)


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
    op.load_state_dict({}, strict=True)


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
        ({"shape": (32, 32), "J": 2, "L": 0}, "L=0"),
        ({"shape": (32, 32), "J": 2, "max_order": 3}, "max_order=3"),
        ({"shape": (32, 32), "J": 2, "nonlinearity": "relu"}, "modulus, rectifier, fully-rect"),
        ({"shape": (32, 32), "J": 2, "padding": "zeros"}, "reflect, periodic"),
        ({"shape": (32, 32), "J": 2, "dtype": torch.int64}, "int64"),
        ({"shape": (32, 32, 32), "J": 2}, "two whole sides"),
    ],
)
def test_impossible_transforms_are_refused_with_the_way_out(arguments: dict, said: str) -> None:
    with pytest.raises(InvalidParameter, match=said):
        Scattering2D(**arguments)


@pytest.mark.parametrize(
    "x",
    [
        torch.zeros(16, 15),
        torch.zeros(16),
        torch.zeros(16, 16) * 1j,
        torch.zeros(16, 16, dtype=torch.int32),
        torch.zeros(16, 16, dtype=torch.bool),
    ],
)
def test_fields_of_another_kind_are_refused(x: torch.Tensor) -> None:
    with pytest.raises(ShapeMismatch, match="built for real fields"):
        Scattering2D((16, 16), J=2, L=2)(x)


@pytest.mark.parametrize("nonlinearity", NONLINEARITIES)
@pytest.mark.parametrize("average", [True, False])
@pytest.mark.parametrize("gradient", [False, True])
def test_memory_is_within_the_projection(nonlinearity: str, average: bool, gradient: bool) -> None:
    L = 2 if nonlinearity == "fully-rectified" else 4
    op = Scattering2D((64, 64), J=3, L=L, nonlinearity=nonlinearity, average=average)
    x = field(4, 64, 64, dtype=torch.float32).requires_grad_(gradient)
    run = (lambda: torch.autograd.grad(op(x).sum(), x)) if gradient else (lambda: op(x))
    peak = peak_allocation(run)
    assert 0.5 * op.memory(4, gradient) < peak <= op.memory(4, gradient)
