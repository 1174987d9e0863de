"""The scores of models agree with closed forms, with brute force and with themselves."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from wavemill.errors import InvalidParameter, ShapeMismatch
from wavemill.evaluation import METRICS, FovealCorrelation, Judge, Portrait
from wavemill.evaluation.bispectrum import bispectrum, triangles
from wavemill.evaluation.coherence import coherence, coherence_distance
from wavemill.evaluation.diversity import best_correlation, pair_correlations
from wavemill.evaluation.judge import turns
from wavemill.evaluation.minkowski import minkowski_functionals
from wavemill.filters import bump_steerable
from wavemill.harmonics import phase_harmonic
from wavemill.spectra import PowerSpectrum, tapered

SHIFTS = [(dy, dx) for dy in range(-2, 3) for dx in range(-2, 3)]


def noise(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def foveal_matrix(fields: Tensor, J: int, L: int) -> Tensor:
    """Every row of R written out: all 2L angles, all 25 shifts, one product."""
    columns = []
    for x in fields:
        x_hat, shape = torch.fft.fft2(x), tuple(x.shape)
        rows = []
        for j in range(J):
            waves = torch.fft.ifft2(x_hat * bump_steerable.wavelets_at(shape, j, range(2 * L), L))
            for k in range(min(4, 2**j) + 1):
                channels = phase_harmonic(waves, k).to(torch.complex128)
                rows += [c.roll((dy << j, dx << j), (0, 1)) for c in channels for dy, dx in SHIFTS]
        width = bump_steerable.low_pass_width(J)
        low = torch.fft.ifft2(x_hat * bump_steerable.low_pass(shape, width))
        rows += [low.roll((dy << (J - 1), dx << (J - 1)), (0, 1)) for dy, dx in SHIFTS]
        columns.append(torch.stack(rows).flatten(1))
    v = torch.cat(columns, dim=1)
    v = v - v.mean(1, keepdim=True)
    return v @ v.mH / v.shape[1]


@pytest.mark.parametrize(("shape", "J"), [((8, 12), 3), ((9, 10), 2)], ids=str)
def test_eps_is_that_of_the_matrix_written_out(shape: tuple[int, int], J: int) -> None:
    test, model = noise(6, *shape) ** 3, noise(5, *shape, seed=1) + noise(5, 1, 1, seed=2)
    op = FovealCorrelation(shape, J, 2, torch.float64)
    expected, found = foveal_matrix(test, J, 2), foveal_matrix(model, J, 2)
    scale = expected.diagonal().real.sqrt()
    scale = scale * scale[:, None]
    eps = ((expected - found) / scale).norm() / (expected / scale).norm()
    assert op.size == len(expected)
    assert op.distance(op.measure(model), op.measure(test)) == pytest.approx(float(eps), rel=1e-10)


def masked_matrix(fields: Tensor, J: int, L: int) -> Tensor:
    """The same for fields that do not wrap: means over pairs of points within borders, 2^(j+1)."""
    shape, far = (fields.shape[-2], fields.shape[-1]), 8 * 2 ** (J - 1)
    x_hat, waves = torch.fft.fft2(fields)[:, None], []
    for j in range(J):
        psi = bump_steerable.wavelets_at(shape, j, range(2 * L), L)
        waves += [(j, phase_harmonic(torch.fft.ifft2(x_hat * psi), k)) for k in range(2**j + 1)]
    phi = bump_steerable.low_pass(shape, bump_steerable.low_pass_width(J))
    waves.append((J - 1, torch.fft.ifft2(x_hat * phi)))
    scales = np.concatenate([[j] * harmonics.shape[1] for j, harmonics in waves])
    channels = torch.cat([harmonics.to(torch.complex128) for _, harmonics in waves], dim=1)
    mask = torch.zeros(len(scales), *shape, dtype=torch.float64)
    for one, scale in zip(mask, scales, strict=True):
        one[2 << scale : -2 << scale, 2 << scale : -2 << scale] = 1
    means = (channels * mask).sum((-2, -1)) / mask.sum((-2, -1))
    centred = (channels - means[..., None, None]) * mask
    padded, points = (torch.nn.functional.pad(part, (far, far) * 2) for part in (centred, mask))
    between = means - means.mean(0)
    between = between.mT @ between.conj() / len(fields)
    members = [np.flatnonzero(scales == j) for j in range(J)]

    @functools.cache
    def covariances(a: int, b: int, shift: tuple[int, int]) -> Tensor:
        first, second = members[a], members[b]
        there, counted = (part.roll(shift, (-2, -1)) for part in (padded[:, first], points[first]))
        products = torch.einsum("fayx,fbyx->ab", there, padded[:, second].conj()) / len(fields)
        pairs = torch.einsum("ayx,byx->ab", counted, points[second])
        return products / pairs + between[np.ix_(first, second)]

    R = torch.zeros(len(scales), 25, len(scales), 25, dtype=torch.complex128)
    for (d, to), (e, back) in itertools.product(enumerate(SHIFTS), enumerate(SHIFTS)):
        for a, b in itertools.product(range(J), range(J)):
            shift = ((back[0] << b) - (to[0] << a), (back[1] << b) - (to[1] << a))
            block = np.ix_(members[a], [d], members[b], [e])
            R[block] = covariances(a, b, shift)[:, None, :, None]
    return R.flatten(2).flatten(0, 1)


def test_eps_of_fields_that_do_not_wrap_takes_means_within_borders() -> None:
    test, model = noise(3, 20, 23) ** 3, noise(2, 20, 23, seed=1) + noise(2, 1, 1, seed=2)
    op = FovealCorrelation((20, 23), 2, 2, torch.float64, periodic=False)
    expected, found = masked_matrix(test, 2, 2), masked_matrix(model, 2, 2)
    scale = expected.diagonal().real.sqrt()
    scale = scale * scale[:, None]
    eps = ((expected - found) / scale).norm() / (expected / scale).norm()
    assert op.distance(op.measure(model), op.measure(test)) == pytest.approx(float(eps), rel=1e-10)


def steep(n: int, side: int, power: float, seed: int = 0) -> Tensor:
    """Gaussian fields whose spectrum falls as ``|k|^-power``; cut out, they do not wrap around."""
    k = torch.fft.fftfreq(side, dtype=torch.float64) * side
    radius = torch.hypot(k[:, None], k[: side // 2 + 1].abs()).clamp(min=1)
    x_hat = torch.fft.rfft2(noise(n, side, side, seed=seed)) * radius ** (-power / 2)
    return torch.fft.irfft2(x_hat, s=(side, side))


def test_fields_cut_out_look_like_the_whole_but_for_borders_that_do_not_meet() -> None:
    whole = steep(16, 128, 3)
    cut = whole[..., :64, :64]
    truth = FovealCorrelation((128, 128), 3, 2, torch.float64).measure(whole)
    wrapped, within = (FovealCorrelation((64, 64), 3, 2, torch.float64, p) for p in (True, False))
    assert within.distance(within.measure(cut), truth) < 0.3
    assert wrapped.distance(wrapped.measure(cut), truth) > 1

    def spectrum(x: Tensor) -> Tensor:
        return PowerSpectrum((x.shape[-2], x.shape[-1]), dtype=torch.float64)(x)[:, 1:].mean(0)

    shells = spectrum(whole)[15:63]  # from wavenumber 16 of the whole on, 8 of a half
    expected = shells[1::2][:-1] + (shells[:-2:2] + shells[2::2]) / 2
    jumps = spectrum(cut)[8 : 8 + len(expected)] - expected  # of k^-2 along the axes
    assert jumps.sum() > 0.5 * expected.sum()
    found = spectrum(tapered(cut))[8 : 8 + len(expected)]
    torch.testing.assert_close(found, expected, rtol=0.35, atol=0)


def test_the_matrix_of_the_paper_has_8025_rows() -> None:
    assert FovealCorrelation((32, 32), 5, 8).size == (20 * 16 + 1) * 25


def test_eps_is_zero_for_the_test_set_moved_along_and_of_any_size() -> None:
    x = noise(5, 16, 16) ** 3
    op = FovealCorrelation((16, 16), 2, 2, torch.float64)
    test = op.measure(x)
    assert op.distance(test, test) == 0
    # Rounding of transforms, 1e-16 a value.
    assert op.distance(op.measure(x.roll((3, 5), (-2, -1))), test) < 1e-12
    larger = 7 * x
    assert op.distance(op.measure(larger), op.measure(larger)) == 0
    eps = op.distance(op.measure(noise(5, 16, 16)), test)
    assert op.distance(op.measure(7 * noise(5, 16, 16)), op.measure(larger)) == pytest.approx(eps)


def test_single_precision_tells_eps_to_a_thousandth() -> None:
    x, y = noise(3, 16, 16) ** 3, noise(3, 16, 16, seed=1)
    precisions = (torch.float32, torch.float64)
    operators = [FovealCorrelation((16, 16), 2, 2, dtype) for dtype in precisions]
    eps = [op.distance(op.measure(y), op.measure(x)) for op in operators]
    assert eps[0] == pytest.approx(eps[1], rel=1e-3)


def test_a_matrix_that_does_not_fit_is_refused() -> None:
    with pytest.raises(InvalidParameter, match="lower J"):
        FovealCorrelation((16, 16), 5)
    with pytest.raises(InvalidParameter, match="lower J"):
        FovealCorrelation((16, 16), 2, periodic=False)
    with pytest.raises(ShapeMismatch):
        FovealCorrelation((16, 16), 2).measure(noise(3, 8, 8))


def test_bispectra_add_up_to_the_third_moment() -> None:
    x = noise(2, 24, 20) ** 2
    permutations = [math.factorial(3) // _repeats(t) for t in triangles(5).tolist()]
    total = (bispectrum(x, 5, normalise=False) * torch.tensor(permutations)).sum(-1)
    third = (x - x.mean((-2, -1), keepdim=True)).pow(3).mean((-2, -1))
    torch.testing.assert_close(total, third, rtol=1e-12, atol=1e-12)  # a partition: rounding only


def _repeats(triple: list[int]) -> int:
    return math.prod(math.factorial(triple.count(value)) for value in set(triple))


def test_a_bispectrum_is_a_sum_over_triangles_of_modes() -> None:
    """Two waves and the wave at the sum of their frequencies: one triangle, counted by hand."""
    u = 2 * math.pi * torch.arange(32, dtype=torch.float64) / 32
    phase = 0.7
    waves = [torch.cos(2 * u)[:, None] + 0 * u, torch.cos(5 * u) + 0 * u[:, None]]
    x = waves[0] + waves[1] + torch.cos(2 * u[:, None] + 5 * u + phase)
    # <cos a cos b cos(a + b + phase)> = cos(phase) / 4, and the parts have variance 1/2.
    expected = math.cos(phase) / 4 / 0.5**1.5
    found = bispectrum(x, 10)  # narrow enough to part the three radii 2, 5, 5.4, or two
    assert float(found.abs().max()) == pytest.approx(expected, rel=0.3)
    unnormalised = bispectrum(x, 10, normalise=False)
    counts = torch.tensor([math.factorial(3) // _repeats(t) for t in triangles(10).tolist()])
    assert float((unnormalised * counts).sum()) == pytest.approx(6 * math.cos(phase) / 4)


def test_bispectra_are_odd_blind_to_scale_and_to_shifts() -> None:
    x = noise(32, 32).exp()
    b = bispectrum(x)
    torch.testing.assert_close(bispectrum(-3 * x), -b, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(bispectrum(x.roll((5, 9), (0, 1))), b, rtol=1e-12, atol=1e-12)
    assert bispectrum(torch.ones(8, 8)).abs().max() == 0


def gaussian_fields(n: int, side: int, width: float, seed: int = 0) -> tuple[Tensor, float]:
    """Gaussian fields of variance 1 and smoothness ``width``; the variance of their derivatives."""
    k = 2 * math.pi * torch.fft.fftfreq(side, dtype=torch.float64)
    square = k[:, None] ** 2 + k[: side // 2 + 1].abs() ** 2
    amplitude = torch.exp(-square * width**2 / 2)
    weight = amplitude.square().clone()
    weight[:, 1:-1] *= 2
    norm = weight.sum() / side**2
    x = torch.fft.irfft2(
        torch.fft.rfft2(noise(n, side, side, seed=seed)) * amplitude, s=(side, side)
    )
    return x / norm.sqrt(), float((weight * square).sum() / weight.sum() / 2)


def test_minkowski_functionals_of_gaussian_fields_are_adlers() -> None:
    fields, mu = gaussian_fields(40, 128, 4.0)
    thresholds = np.linspace(-2, 2, 9)
    found = minkowski_functionals(fields, thresholds.tolist())
    t = torch.from_numpy(thresholds)
    density = torch.exp(-t.square() / 2)
    expected = torch.stack(
        [
            torch.special.erfc(t / math.sqrt(2)) / 2,
            math.sqrt(mu) / 2 * density,
            mu * t * density / (2 * math.pi) ** 1.5,
        ]
    )
    error = found.std(0) / math.sqrt(len(fields))
    # Four standard errors, and a hundredth for what is smaller than the grid (mu = 1/32).
    bound = 4 * error + 0.01 * expected.abs().amax(-1, keepdim=True)
    assert ((found.mean(0) - expected).abs() < bound).all()


def test_minkowski_functionals_of_known_shapes() -> None:
    u = torch.arange(128, dtype=torch.float64) - 64
    radius = torch.hypot(u[:, None], u)
    disc, ring = radius <= 40.3, (radius <= 40.3) & (radius >= 20.3)
    square = (u[:, None].abs() <= 10) & (u.abs() <= 10)
    area, perimeter, euler = (
        minkowski_functionals(torch.stack([disc, ring, square]).double(), [0.5])[..., 0].T * 128**2
    )
    assert area[0] == pytest.approx(math.pi * 40.3**2, rel=0.01)
    # A disc has edges in all directions: what is left is the grid's rounding of it.
    assert perimeter[0] == pytest.approx(2 * math.pi * 40.3, rel=0.01)
    assert perimeter[1] == pytest.approx(2 * math.pi * 60.6, rel=0.01)
    # Of a square, Crofton's four directions see 84 crossings and twice 82 on diagonals: 5 % less
    # than its 84 sides, which other directions make up for.
    assert perimeter[2] == pytest.approx(math.pi / 8 * (84 + 2 * 82 / math.sqrt(2)))
    assert euler.tolist() == pytest.approx([1, 0, 1])


def test_what_touches_a_border_goes_on_beyond_it_unless_fields_wrap() -> None:
    half = (torch.arange(16) < 8).double().expand(16, 16)
    edges = [minkowski_functionals(half, [0.5], periodic)[1, 0] for periodic in (True, False)]
    assert float(edges[0]) * 16 == pytest.approx(2 * float(edges[1]) * 15)  # two of 16, one of 15


def test_areas_are_of_all_points_whether_fields_wrap_or_not() -> None:
    edge = torch.zeros(2, 8, 10)
    edge[0, -1], edge[1, :, -1] = 1, 1
    for periodic in (True, False):
        area = minkowski_functionals(edge, [0.5], periodic)[:, 0, 0]
        assert area.tolist() == [1 / 8, 1 / 10]


def test_what_holds_nan_has_no_numbers_and_spoils_no_other_field() -> None:
    x = noise(2, 16, 16)
    x[0, 3, 3] = math.nan
    for found in (bispectrum(x), bispectrum(x, normalise=False), minkowski_functionals(x, [0.0])):
        assert found[0].isnan().all()
        assert found[1].isfinite().all()


@pytest.mark.parametrize("unit", [2.0**-400, 2.0**500])
def test_bispectra_do_not_depend_on_units(unit: float) -> None:
    x = noise(16, 16).exp()
    assert torch.equal(bispectrum(unit * x), bispectrum(x))


@pytest.mark.parametrize(
    ("measure", "message"),
    [
        (lambda x: bispectrum(x, 0), "1 shell or more, got 0"),
        (lambda x: bispectrum(x, 2.5), "shells must be a whole number"),
        (lambda x: bispectrum(x + 0j), "expected real fields"),
        (lambda x: minkowski_functionals(x, []), "one threshold or more"),
        (lambda x: minkowski_functionals(x + 0j, [0.0]), "expected real fields"),
        (lambda x: best_correlation(x, x + 0j), "expected real fields"),
    ],
)
def test_what_cannot_be_measured_is_refused(
    measure: Callable[[Tensor], Tensor], message: str
) -> None:
    with pytest.raises(InvalidParameter, match=message):
        measure(noise(8, 8))


def test_euler_characteristics_change_sign_with_the_set() -> None:
    """Components of a set are holes of its complement; the torus itself counts 0."""
    x = noise(3, 32, 32)
    sets = minkowski_functionals(torch.stack([x, -x]), [0.3])[:, :, :, 0]
    others = minkowski_functionals(torch.stack([-x, x]), [-0.3])[:, :, :, 0]
    torch.testing.assert_close(sets[..., 2], -others[..., 2], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(sets[..., 1], others[..., 1], rtol=1e-12, atol=1e-12)


def test_a_field_moved_along_is_no_new_field() -> None:
    x = noise(4, 32, 32)
    moved = 3 * x.roll((7, 11), (-2, -1)) + 1
    torch.testing.assert_close(
        best_correlation(x, moved), torch.ones(4, dtype=torch.float64), rtol=1e-12, atol=0
    )
    others = pair_correlations(x)
    assert others.shape == (6,)
    # Maximum of 1,024 nearly normal values of deviation 1/32, at the best of their shifts.
    assert ((others > 1.5 / 32) & (others < 6 / 32)).all()
    assert pair_correlations(x[:1]).shape == (0,)


def test_sets_measured_apart_are_as_one() -> None:
    x = noise(5, 16, 16) ** 3 + noise(5, 1, 1, seed=1)
    op = FovealCorrelation((16, 16), 2, 2, torch.float64)
    together = op.together([op.measure(x[:2]), op.measure(x[2:])])
    assert op.distance(together, op.measure(x)) < 1e-12


def intermittent(n: int, seed: int) -> Tensor:
    return gaussian_fields(n, 32, 1.0, seed)[0] ** 3


def test_a_judge_prefers_the_truth_to_a_gaussian_and_a_copy_lacks_diversity() -> None:
    judge, fitted = Judge(intermittent(8, 1), L=2), intermittent(1, 2)
    assert judge.J == 4  # of 5: what fits into 32
    assert Judge(intermittent(2, 1), L=2, periodic=False).J == 2  # and leaves points within borders
    truth, _ = judge.score(intermittent(8, 3), fitted)
    gaussian, _ = judge.score(gaussian_fields(8, 32, 1.0, 4)[0] * judge.std)
    shifts = [(3 * i, 5 * i) for i in range(8)]
    copies, _ = judge.score(torch.cat([fitted.roll(s, (-2, -1)) for s in shifts]), fitted)
    for metric in ("eps", "spectrum", "pdf", "structure", "area", "perimeter", "euler"):
        assert truth[metric] < gaussian[metric], metric
    assert abs(gaussian["flatness"] - 3) < 0.5 < abs(truth["flatness"] - 3)
    # All pairs and the training field agree at some shift, to rounding.
    assert copies["diversity"] == pytest.approx(0, abs=1e-9)
    assert copies["memory"] == pytest.approx(1)
    assert abs(truth["diversity"] - 1) < 0.2
    assert truth["memory"] < 0.7
    floors = judge.floors
    one, half = floors["real, one map"], floors["real, 4 against 4"]
    of_one_component = set(METRICS) - {"memory", "coherence"}
    assert set(one) == set(half) == set(truth) - {"memory"} == of_one_component
    assert half["eps"] < one["eps"]


@pytest.mark.parametrize(
    ("real", "drawn", "counts"),
    [(20, 10, (3, 6, 14)), (9, 2, (3, 2, 7)), (4, 10, (3, 1, 3)), (2, 1, (2, 1, 1))],
)
def test_models_and_real_fields_are_compared_in_equal_numbers_with_the_same_others(
    real: int, drawn: int, counts: tuple[int, int, int]
) -> None:
    plan = turns(real, drawn)
    assert {(len(plan), len(turn.real), len(turn.others)) for turn in plan} == {counts}
    stood = [i for turn in plan for i in turn.real]
    assert len(set(stood)) == len(stood)  # each once
    for turn in plan:
        assert sorted(turn.real + turn.others) == list(range(real))
        assert len(turn.drawn) == len(turn.real)
        assert max(turn.drawn) < drawn


def test_a_model_of_other_real_fields_scores_what_real_fields_do() -> None:
    """A few against all would come nearer than half against half, and look better than real."""
    rows = [Judge(intermittent(6, s), L=2).compare(intermittent(9, 90 + s))[0] for s in range(4)]
    for metric in ("eps", "spectrum", "pdf", "bispectrum", "perimeter"):
        real, model = (
            np.mean([table[name][metric] for table in rows])
            for name in ("real, 2 against 4", "model")
        )
        assert model == pytest.approx(real, rel=0.3), metric
    first = rows[0]["real, 2 against 4"]
    assert first["eps_scatter"] > 0
    assert first["diversity"] == 1


def test_two_real_fields_have_one_row_and_no_scatter() -> None:
    judge = Judge(intermittent(2, 1), L=2)
    rows, _ = judge.compare(intermittent(3, 2))
    assert list(rows) == ["real, one map", "model"]
    assert all(math.isnan(row["eps_scatter"]) and row["eps"] > 0 for row in rows.values())
    assert list(judge.floors) == ["real, one map"]


def test_a_set_judged_against_itself_is_at_distance_zero() -> None:
    x = intermittent(4, 1)
    scores, portrait = Judge(x, L=2).score(x)
    same = ("spectrum", "pdf", "structure", "bispectrum", "area", "perimeter", "euler")
    assert [scores[metric] for metric in same] == [0] * len(same)
    assert scores["eps"] < 1e-5  # single precision: halves are measured apart
    assert scores["diversity"] == 1
    assert math.isnan(scores["memory"])  # nothing was fitted
    again = Portrait.from_state(portrait.state())
    assert torch.equal(again.minkowski, portrait.minkowski)


def test_what_cannot_be_judged_is_refused() -> None:
    with pytest.raises(InvalidParameter, match="two real fields"):
        Judge(noise(1, 16, 16))
    with pytest.raises(InvalidParameter, match=r"nothing to judge by: .* is 0\.0"):
        Judge(torch.ones(3, 16, 16))
    with pytest.raises(InvalidParameter, match=r"grid of \(8, 8\): .* 9 x 9 of fields that do not"):
        Judge(noise(3, 8, 8), periodic=False)
    assert Judge(noise(3, 9, 9), L=2, periodic=False).J == Judge(noise(3, 4, 4), L=2).J == 1
    with pytest.raises(InvalidParameter, match=r"\(3, 3\): .* 4 x 4 points"):
        Judge(noise(3, 3, 3))
    gap = noise(3, 16, 16)
    gap[1, 2, 3] = math.nan
    with pytest.raises(InvalidParameter, match="1 of 3 fields hold values that are not finite"):
        Judge(gap)
    judge = Judge(noise(3, 16, 16), L=2)
    with pytest.raises(InvalidParameter, match="1 of 3 fields"):
        judge.score(gap)
    for wrong in (noise(3, 8, 8), noise(0, 16, 16)):
        with pytest.raises(ShapeMismatch):
            judge.score(wrong)


@pytest.mark.parametrize(
    ("refused", "message"),
    [
        (lambda x: Judge(x.numpy(), 2, 2), "torch.as_tensor makes one"),
        (lambda x: Judge(x, 2, 2).score(x.numpy()), "torch.as_tensor makes one"),
        (lambda x: Judge(x, 1.5, 2), "J must be a whole number"),
        (lambda x: Judge(x, 2, 1), "L=1 must be 2 or more"),
        (lambda x: FovealCorrelation((16, 16), 1.5, 2), "J must be a whole number"),
        (lambda x: Judge(x, 2, 2).score(x, x[:, :8, :8]), r"on one grid, got \(16, 16\) and"),
        (lambda x: best_correlation(x, x[:, :8]), "on one grid"),
    ],
)
def test_wrong_arguments_are_told_from_one_another(
    refused: Callable[[Tensor], object], message: str
) -> None:
    with pytest.raises((InvalidParameter, ShapeMismatch), match=message):
        refused(noise(3, 16, 16))


def test_samples_in_other_units_are_far_and_not_undefined() -> None:
    x = intermittent(6, 1)
    judge = Judge(x[:4], 2, 2)
    eps, far = (judge.score(unit * x[4:])[0]["eps"] for unit in (1e3, 1e30))
    assert far / eps == pytest.approx(1e54, rel=1e-3)  # covariances grow as squares of units


@pytest.mark.parametrize("unit", [1e15, 1e-25])
def test_scores_do_not_depend_on_units(unit: float) -> None:
    x = intermittent(6, 1)
    expected, found = (Judge(y[:4], J=2, L=2).score(y[4:], y[:1])[0] for y in (x, unit * x))
    assert found == pytest.approx(expected, rel=1e-4)


def test_coherence_of_constants_is_no_measure() -> None:
    assert math.isnan(coherence_distance(noise(2, 2, 8, 8), torch.zeros(2, 2, 8, 8)))


def test_coherence_is_1_of_equal_components_and_about_0_of_independent_ones() -> None:
    x = noise(20, 32, 32)
    smooth = x + x.roll(1, -1) + x.roll(1, -2)
    same = coherence(torch.stack([x, 3 * x, -x], dim=1))
    torch.testing.assert_close(same, torch.tensor([[1.0], [-1], [-1]]).double().expand_as(same))
    apart = coherence(torch.stack([x, noise(20, 32, 32, seed=1)], dim=1))
    # The first octave holds 8 frequencies, 4 of them free: 1 / sqrt(80) = 0.11 over 20 fields.
    assert apart.abs().max() < 0.4
    assert coherence_distance(torch.stack([x, x], 1), torch.stack([smooth, smooth], 1)) < 1e-12
    assert coherence_distance(torch.stack([x, -x], 1), torch.stack([x, x], 1)) == pytest.approx(2)
