"""Phase-harmonic covariances equal two independent implementations and obey their symmetries."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import torch

from wavemill.errors import InvalidParameter, ShapeMismatch
from wavemill.filters import bump_steerable
from wavemill.moments import pairs
from wavemill.moments.banks import points_held
from wavemill.moments.chunks import BUDGET, chunks_of
from wavemill.moments.groups import angles_by_group, groups
from wavemill.moments.pairs import INDICES, LOW_PASS, ROW, MomentTable, canonical, model
from wavemill.moments.phase_harmonics import PhaseHarmonicCovariance
from wavemill.moments.statistics import Moments, Statistics

PROBE = Path(__file__).with_name("covariance_memory_probe.py")
EXACT = 1e-12  # float64, relative to channels of unit variance


def field(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def operator(shape: tuple[int, int] = (32, 32), J: int = 3, L: int = 4, moments="C"):
    return PhaseHarmonicCovariance(shape, J, L, moments, dtype=torch.float64)


def test_filters_equal_the_published_bank(golden: Path) -> None:
    bank = scipy.io.loadmat(golden / "bumpsteerableg1_fft2d_N64_J6_L8.mat")
    psi = bump_steerable.wavelets((64, 64), 6, 8).numpy()
    np.testing.assert_allclose(psi, bank["filt_fftpsi"], rtol=0, atol=2e-15)
    phi = bump_steerable.low_pass((64, 64), bump_steerable.low_pass_width(6)).numpy()
    np.testing.assert_allclose(phi, bank["filt_fftphi"], rtol=0, atol=1e-15)


def test_angles_partition_the_circle_exactly() -> None:
    """The sum over angles of |psi|^2 depends on |w| alone: steerability."""
    energy = bump_steerable.wavelets((64, 64), 3, 6)[2].square().sum(0)
    torch.testing.assert_close(energy, energy.mT, rtol=0, atol=1e-15)
    assert abs(energy[3, 4] - energy[5, 0]) < 1e-15  # both at |n| = 5


def zhang_mallat(reference: np.lib.npyio.NpzFile, kind: str) -> MomentTable:
    """The table of the reference's rows, whose low pass is marked by -1."""
    rows = []
    if kind == "wph":
        for j1, l1, k1, j2, l2, k2 in reference["wph_index_j1_l1_k1_j2_l2_k2"]:
            low = (6, LOW_PASS, 1, 6, LOW_PASS, 1, 0, 0, "")
            rows.append(low if j1 < 0 else (j1, l1, k1, j2, l2, k2, 0, 0, ""))
    else:
        for j, q, k, dy, dx in reference["shift_index_j_l_k_taurow_taucol"]:
            side = (6, LOW_PASS, 1) if j < 0 else (j, q, k)
            rows.append((*side, *side, dy, dx, ""))
    widths = {6: bump_steerable.low_pass_width(6)}
    return MomentTable((64, 64), 6, 8, np.array(rows, dtype=ROW), widths)


@pytest.mark.parametrize("model", ["B", "C"])
@pytest.mark.parametrize("kind", ["wph", "shift"])
def test_covariances_equal_the_zhang_mallat_implementation(
    golden: Path, model: str, kind: str
) -> None:
    with np.load(golden / f"kymatio_wph_N64_J6_L8_model{model}.npz") as reference:
        x, y = torch.from_numpy(reference["x"]), torch.from_numpy(reference["y"])
        op = operator((64, 64), 6, 8, zhang_mallat(reference, kind))
        frozen = op.statistics(x)
        means_only = Statistics(frozen.mean, torch.ones_like(frozen.scale))
        for name, measured in {
            "x_std0": op.covariances(x),
            "x_std1": op.covariances(x, frozen),
            "y_norm_of_x_std1": op.covariances(y, frozen),
            "y_norm_of_x_std0": op.covariances(y, means_only),
        }.items():
            expected = reference[f"{kind}_{name}"]
            np.testing.assert_allclose(measured, expected, rtol=EXACT, atol=EXACT, err_msg=name)


@pytest.mark.parametrize("lags", [0, 2])
def test_covariances_equal_pywph(golden: Path, shared: Path, lags: int) -> None:
    with np.load(golden / f"pywph_256_J6_L4_dn{lags}.npz") as reference:
        about = json.loads(str(reference["params"]))
        dust = np.load(shared / "data" / about["file"]).astype(np.float64)
        a, b = (crop(dust, about[f"crop_{name}"]) for name in "AB")
        op = operator((256, 256), 6, 4, pairs.pywph_classes((256, 256), 6, 4, lags))
        frozen = op.statistics(a)
        for name, measured in {
            "none_A": op.covariances(a),
            "none_B": op.covariances(b),
            "auto_A": op.covariances(a, frozen),
            "autoA_B": op.covariances(b, frozen),
        }.items():
            if f"coef_norm_{name}" in reference:
                expected = reference[f"coef_norm_{name}"]
                np.testing.assert_allclose(measured.numpy(), expected, rtol=0, atol=EXACT)


def crop(dust: np.ndarray, corners: list[int]) -> torch.Tensor:
    top, bottom, left, right = corners
    cut = dust[top:bottom, left:right]
    return torch.from_numpy((cut - cut.mean()) / cut.std())


@pytest.mark.parametrize(
    ("name", "nominal", "distinct"),
    [("A0", 81, 41), ("A", 2335, 1013), ("B", 6895, 2473), ("C", 10927, 4329), ("D", 769, 266)],
)
def test_models_hold_each_distinct_moment_once(name: str, nominal: int, distinct: int) -> None:
    """Counts at J = 5, L = 8, lags 2; A0 has 40 bands, half of 80 being mirror images, and phi."""
    table = pairs.model(name, (256, 256), 5, 8, 2)
    assert name == "D" or len(pairs.canonical(table).distinct) == len(table.rows)
    assert table.real_count == distinct
    assert pairs.nominal_count(name, 5, 8, 2) == nominal


def test_moments_averaged_over_directions_do_not_turn_with_the_field() -> None:
    op, x = operator((32, 32), 3, 4, "D"), field(32, 32)
    torch.testing.assert_close(op(x.rot90()), op(x), rtol=0, atol=EXACT)
    assert len(op(x)) == len(op.coefficients["part"]) == op.table.real_count


def test_covariances_do_not_depend_on_where_the_field_is() -> None:
    op, x = operator(), field(32, 32)
    torch.testing.assert_close(op(x.roll((5, -3), (0, 1))), op(x), rtol=0, atol=EXACT)


def test_quarter_turns_permute_the_isotropic_moments() -> None:
    op, x = operator(moments="A0"), field(32, 32)
    torch.testing.assert_close(op(x.rot90()).sum(), op(x).sum(), rtol=EXACT, atol=0)


def test_odd_moments_change_sign_with_the_field_and_even_ones_do_not() -> None:
    op, x = operator(), field(32, 32)
    odd = torch.from_numpy((op.coefficients["k1"] + op.coefficients["k2"]) % 2 == 1)
    assert 0 < odd.sum() < len(odd)
    plus, minus = op(x), op(-x)
    torch.testing.assert_close(minus[odd], -plus[odd], rtol=0, atol=EXACT)
    torch.testing.assert_close(minus[~odd], plus[~odd], rtol=0, atol=EXACT)


def test_moments_of_mirrored_rows_are_conjugate() -> None:
    """A row of angles beyond a half turn equals the conjugate of its mirror image."""
    rows = [
        (0, 1, 1, 1, 2, 2, 2, 4, ""),
        (0, 5, 1, 1, 6, 2, 2, 4, ""),
        (1, 2, 2, 0, 1, 1, -2, -4, ""),
    ]
    table = MomentTable((32, 32), 3, 4, np.array(rows, dtype=ROW))
    first, turned, swapped = operator(moments=table).covariances(field(32, 32))
    assert abs(first) > 1e-6
    assert abs(turned - first.conj()) < EXACT
    assert abs(swapped - first.conj()) < EXACT


@pytest.mark.parametrize("shape", [(32, 48), (33, 31)])
def test_grids_may_be_odd_and_not_square(shape: tuple[int, int]) -> None:
    op, x = operator(shape), field(*shape)
    by_hand = direct(op, x)
    np.testing.assert_allclose(op.covariances(x).numpy(), by_hand, rtol=0, atol=EXACT)


def direct(op: PhaseHarmonicCovariance, x: torch.Tensor) -> np.ndarray:
    """The definition, row by row."""
    bank = bump_steerable.wavelets(op.shape, op.table.J, op.table.L)
    result = []
    for row in op.table.rows:
        sides = []
        for side in "12":
            j, angle, k = (int(row[name + side]) for name in "jlk")
            if angle == LOW_PASS:
                low = bump_steerable.low_pass(op.shape, op.table.low_pass[j])
                z = torch.fft.ifft2(torch.fft.fft2(x) * low).real
                z = z if k % 2 else z.abs()
            else:
                z = torch.fft.ifft2(torch.fft.fft2(x) * bank[j, angle])
                z = torch.polar(z.abs(), k * z.angle())
            sides.append(z - z.mean())
        a = sides[0].roll((-int(row["shift_y"]), -int(row["shift_x"])), (0, 1))
        result.append(complex((a * sides[1].conj()).mean()))
    return np.array(result)


def test_the_loss_is_zero_at_the_reference_and_its_shifts() -> None:
    op, x = operator(), field(32, 32)
    moments = op.measure(x)
    assert op.loss(x, moments) < EXACT**2 * len(moments.values)
    assert op.loss(x.roll(7, 0), moments) < EXACT**2 * len(moments.values)
    assert op.loss(field(32, 32, seed=1), moments) > 1


def test_moduli_of_all_pairs_are_still_fewer_than_three_thousand() -> None:
    table = model("C+moduli", (256, 256), 5, 4, lags=1)
    assert table.real_count == 2803
    kept = set(model("C", (256, 256), 5, 4, lags=1).rows[list(INDICES)].tolist())
    assert kept < set(table.rows[list(INDICES)].tolist())


@pytest.mark.parametrize("moments", ["C", "C+L", "C+moduli", "D", "pywph"])
def test_the_gradient_of_the_loss_is_exact(moments: str) -> None:
    op = PhaseHarmonicCovariance((8, 8), 2, 2, moments, 1, torch.float64)
    reference = op.measure(field(8, 8, seed=3))
    x = field(8, 8).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: op.loss(x, reference), x)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-11), (torch.float32, 1e-5)])
@pytest.mark.parametrize(
    ("moments", "J", "L"),
    [("A", 3, 4), ("C", 3, 3), ("C+L", 3, 4), ("C+moduli", 3, 2), ("D", 3, 4), ("pywph", 4, 4)],
)
def test_loss_and_gradient_equal_those_of_differentiated_covariances(
    moments: str, J: int, L: int, dtype: torch.dtype, tolerance: float
) -> None:
    """The hand-written gradient against autograd through :meth:`covariances`, in float64."""
    shape = (48, 40)
    exact = PhaseHarmonicCovariance(shape, J, L, moments, 2, torch.float64)
    reference, x = exact.measure(field(*shape, seed=3)), field(2, *shape).requires_grad_()
    standardised = exact.covariances(x, reference.statistics)
    loss = (real_parts(exact, standardised) - reference.values).square().sum(-1)
    (gradient,) = torch.autograd.grad(loss.sum(), x)
    op = PhaseHarmonicCovariance(shape, J, L, moments, 2, dtype)
    found, slope = op.loss_and_gradient(x.detach(), cast(reference, dtype))
    torch.testing.assert_close(found.double(), loss.detach(), rtol=tolerance, atol=0)
    scale = float(gradient.abs().max())
    torch.testing.assert_close(slope, gradient, rtol=0, atol=tolerance * scale)


def real_parts(op: PhaseHarmonicCovariance, rows: torch.Tensor) -> torch.Tensor:
    """The coefficients among complex covariances, row by row."""
    if op.table.run > 1:
        return rows.real.unflatten(-1, (-1, op.table.run)).mean(-1)
    real = pairs.canonical(op.table).real
    wanted = torch.from_numpy(np.column_stack([np.ones_like(real), ~real]).reshape(-1))
    return torch.view_as_real(rows.resolve_conj()).flatten(-2)[..., wanted]


def cast(moments: Moments, dtype: torch.dtype) -> Moments:
    """The same moments in another precision."""
    mean, scale = moments.statistics.mean, moments.statistics.scale
    return Moments(
        Statistics(mean.to(dtype.to_complex()), scale.to(dtype)), moments.values.to(dtype)
    )


def test_the_gradient_at_zero_is_finite() -> None:
    op = operator()
    x = torch.zeros(32, 32, dtype=torch.float64, requires_grad=True)
    op.loss(x, op.measure(field(32, 32))).backward()
    assert x.grad is not None
    assert torch.isfinite(x.grad).all()


def test_batches_and_single_fields_agree() -> None:
    op, x = operator(), field(2, 3, 32, 32)
    alone = torch.stack([torch.stack([op(y) for y in row]) for row in x])
    torch.testing.assert_close(op(x), alone, rtol=0, atol=EXACT)


def test_a_pickled_operator_computes_the_same() -> None:
    op, x = operator(), field(32, 32)
    torch.testing.assert_close(pickle.loads(pickle.dumps(op))(x), op(x), rtol=0, atol=0)  # noqa: S301


@pytest.mark.parametrize(("moments", "budget"), [("C", 2**29), ("pywph", 2**29), ("pywph", 2**27)])
def test_memory_stays_within_what_is_said(moments: str, budget: int) -> None:
    """At 384^2, in a process of its own: a channel is 1.2 MB, so what Python adds is small."""
    command = [sys.executable, str(PROBE), "384", moments, str(budget)]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    forward, gradient, may_forward, may_gradient = map(int, told.split())
    assert forward <= may_forward
    assert gradient <= may_gradient < budget


@pytest.mark.parametrize("moments", ["C+L", "C+moduli", "D", "pywph"])
def test_chunks_of_pairs_add_up_to_the_whole(moments: str) -> None:
    whole, chunked = (
        PhaseHarmonicCovariance((32, 32), 3, 4, moments, dtype=torch.float64, budget=budget)
        for budget in (2**30, 1)
    )
    assert chunked.memory(1, gradient=True) < whole.memory(1, gradient=True)
    x, reference = field(32, 32), field(32, 32, seed=1)
    found, expected = chunked.measure(reference), whole.measure(reference)
    torch.testing.assert_close(found.values, expected.values, rtol=0, atol=EXACT)
    losses = [op.loss_and_gradient(x, expected) for op in (chunked, whole)]
    torch.testing.assert_close(*losses, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize(("side", "moments", "J"), [(512, "pywph", 7), (1024, "C", 6)])
def test_chunks_of_large_fields_fit_the_budget(side: int, moments: str, J: int) -> None:
    table = model(moments, (side, side), J, 4)
    rows = canonical(table).distinct
    chunks = chunks_of(rows, table, torch.float32, BUDGET)
    assert len(chunks) > 1
    np.testing.assert_array_equal(np.sort(np.concatenate(chunks)), np.arange(len(rows)))
    for part in (rows[chunk] for chunk in chunks):
        compared = set(zip(groups(part, "1"), groups(part, "2"), strict=True))
        assert points_held(angles_by_group(part), compared, True) * 4 * side**2 <= BUDGET


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(InvalidParameter, match="lower J"):
        operator((16, 16), 5)
    with pytest.raises(InvalidParameter, match="one of A0, A, B, C"):
        operator(moments="E")
    with pytest.raises(ShapeMismatch, match="built for real fields"):
        operator()(torch.zeros(32, 31))
