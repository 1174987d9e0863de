"""Codes are white, U inverts linearly, and inverses of codes learn what they should."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from wavemill.errors import InvalidParameter, NotFitted, ShapeMismatch
from wavemill.generation import (
    ConvolutionalGenerator,
    Embedding,
    Generator,
    LinearGenerator,
    RectifiedWavelets,
    SparseInversion,
    Trainer,
    Whitening,
    crops,
    marchenko_pastur,
    psnr,
    relative_distance,
    ssim,
    whiteness,
)
from wavemill.generation.convolutional import estimate_population
from wavemill.generation.shared import shared_inverses
from wavemill.generation.training import CodedImages, Epoch
from wavemill.specs import GeneratorSpec

SMALL = {"dimension": 24, "J": 3, "L": 2, "batch": 16, "epochs": 3, "validation": 0.1}


def noise(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=dtype)


def pictures(n: int, side: int = 16, seed: int = 0) -> torch.Tensor:
    """Smooth random images, uint8 (n, y, x, rgb)."""
    smooth = torch.nn.functional.avg_pool2d(noise(n, 3, side + 4, side + 4, seed=seed), 5, 1)
    return (128 + 200 * smooth).clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous()


@pytest.mark.parametrize("A", [4, 6])
@pytest.mark.parametrize("family", ["morlet", "bump-steerable"])
def test_the_rectifier_inverts_linearly(A: int, family: str) -> None:
    """To 1e-5 in float32, as required, and to rounding in float64."""
    for dtype, exact in ((torch.float32, 1e-5), (torch.float64, 1e-12)):
        U = RectifiedWavelets((16, 24), 3, 4, A, family, dtype)  # type: ignore[arg-type]
        x = noise(2, 16, 24, dtype=dtype)
        torch.testing.assert_close(U.inverse(*U(x)), x, rtol=0, atol=exact)


def test_the_inverse_is_linear_beyond_the_range_of_u() -> None:
    """D z is not a U x, and yet U^-1 D z is the sum of the atoms' images."""
    U = RectifiedWavelets((16, 16), 2, 2, dtype=torch.float64)
    low, bands = noise(3, 16, 16, dtype=torch.float64), noise(3, 2, 2, 4, 16, 16).double()
    summed = U.inverse(low.sum(0), bands.sum(0))
    torch.testing.assert_close(summed, U.inverse(low, bands).sum(0), rtol=0, atol=1e-12)


def test_averages_move_with_the_field_and_start_with_the_low_pass() -> None:
    U, x = RectifiedWavelets((16, 32), 3, 2, dtype=torch.float64), noise(16, 32).double()
    averages = U.averages(x)
    assert averages.shape == (1 + 3 * 2 * 4, 2, 4)
    moved = U.averages(x.roll((8, 16), (0, 1)))
    torch.testing.assert_close(moved, averages.roll((1, 2), (-2, -1)), rtol=0, atol=1e-12)
    torch.testing.assert_close(averages[0], U.low_pass(x), rtol=0, atol=1e-12)
    blurred = (U(x)[1][1, 0, 2] * U._rows[0][:, None] * U._columns[0]).sum()
    torch.testing.assert_close(averages[1 + 8 + 2, 0, 0], blurred)


def test_rectifiers_that_do_not_invert_are_refused() -> None:
    with pytest.raises(InvalidParameter, match="even number of phases"):
        RectifiedWavelets((16, 16), 2, 2, A=5)
    with pytest.raises(InvalidParameter, match="multiples of 2"):
        RectifiedWavelets((18, 16), 2, 2)
    with pytest.raises(InvalidParameter, match="multiples of 2"):
        Embedding((18, 16), 10, "scattering", 2, 2)
    with pytest.raises(InvalidParameter, match="A=5"):
        GeneratorSpec(A=5)


def test_codes_are_white_on_what_they_were_learnt_from() -> None:
    """Covariance within 1e-3 of the identity, as asked; features of unequal scales, in batches."""
    y = noise(400, 40) @ torch.diag(10.0 ** -torch.arange(40).div(20)) + 100
    whitening = Whitening(16)
    for batch in y.split(77):
        whitening.update(batch)
    w = whitening.solve()(y)
    report = whiteness(w)
    assert report["covariance"] < 1e-3
    assert report["mean"] < 1e-3
    once = Whitening(16).update(y).solve()
    torch.testing.assert_close(once.variances_, whitening.variances_, rtol=1e-9, atol=0)
    torch.testing.assert_close(whitening(whitening.inverse(w)), w, rtol=0, atol=1e-3)


def test_white_noise_has_the_eigenvalues_of_marchenko_and_pastur() -> None:
    """At m = 1,024 and n = 2,000 from 0.08 to 2.94; finite sizes scatter about the edges."""
    low, high = marchenko_pastur(1024, 2000)
    assert 0.075 < low < 0.085
    assert 2.93 < high < 2.95
    report = whiteness(noise(600, 150))
    assert report["outside"] < 0.03
    assert report["smallest"] == pytest.approx(report["edge_low"], abs=0.05)
    assert report["largest"] == pytest.approx(report["edge_high"], abs=0.15)
    assert abs(report["excess_kurtosis"]) < 0.05  # 3 sqrt(24 / 90,000)
    assert report["radius_spread"] == pytest.approx(1, abs=0.1)
    heavy = whiteness(noise(600, 150) ** 3)
    assert heavy["excess_kurtosis"] > 5
    assert heavy["radius_spread"] > 2


def test_of_a_single_code_only_what_is_defined_is_said() -> None:
    w = noise(1, 6)
    expected = {"mean": float(w.abs().max()), "radius": float(w.square().mean())}
    assert whiteness(w) == pytest.approx(expected)
    assert all(map(math.isfinite, whiteness(noise(2, 6)).values()))


@pytest.mark.parametrize("n", [30, 39, 40, 90])
def test_components_are_the_same_from_products_of_samples_or_of_features(n: int) -> None:
    """Fewer samples than their 40 features, one less, as many, and more."""
    y = noise(n, 40).double() @ torch.diag(10.0 ** -torch.arange(40).double().div(20)) + 100
    whitening = Whitening(12)
    for batch in y.split(17):
        whitening.update(batch)
    assert bool(len(whitening._gram)) == (n >= 40)
    w = whitening.solve()(y)
    values, vectors = torch.linalg.eigh((y - y.mean(0)).T @ (y - y.mean(0)) / n)
    found = torch.linalg.svd(y - y.mean(0), full_matrices=False).U[:, :12] * n**0.5
    torch.testing.assert_close(whitening.variances_, values.flip(0)[:12], rtol=1e-9, atol=0)
    assert whitening.explained_ == pytest.approx(float(values[-12:].sum() / values.sum()))
    signs = (whitening.components_ * vectors.flip(1)[:, :12]).sum(0).sign()
    torch.testing.assert_close(whitening.components_, signs * vectors.flip(1)[:, :12])
    torch.testing.assert_close(w.abs(), found.abs().float(), rtol=0, atol=1e-4)
    seen = torch.cat([y, y])  # the same covariance, computed the other way
    again = Whitening(12).update(seen).solve()
    torch.testing.assert_close(again.components_, whitening.components_, rtol=0, atol=1e-7)


def test_features_beyond_a_covariance_are_whitened_if_samples_are_few() -> None:
    y = noise(20, 12_500)
    w = Whitening(8).update(y).solve()(y)
    assert whiteness(w)["covariance"] < 1e-3
    with pytest.raises(InvalidParameter, match=r"12500 features .* raise J, lower L, or crop"):
        Whitening(8).update(y[:1].expand(11_600, -1))


def test_whitening_is_of_what_was_seen_before_it_was_solved() -> None:
    whitening = Whitening(3)
    with pytest.raises(NotFitted, match="seen no samples"):
        whitening.solve()
    whitening.update(noise(20, 8))
    with pytest.raises(ShapeMismatch, match=r"\(n, 8\), got \(5, 9\)"):
        whitening.update(noise(5, 9))
    whitening.solve()
    for again in (whitening.solve, lambda: whitening.update(noise(20, 8))):
        with pytest.raises(InvalidParameter, match="make another"):
            again()
    with pytest.raises(InvalidParameter, match="vary in 0 directions"):
        Whitening(2).update(torch.ones(9, 4)).solve()
    with pytest.raises(ShapeMismatch, match="n and m >= 1"):
        whiteness(torch.zeros(0, 4))
    with pytest.raises(InvalidParameter, match="0 vectors"):
        marchenko_pastur(3, 0)


def test_whitening_refuses_more_components_than_there_are() -> None:
    rank_two = noise(50, 2) @ noise(2, 8)
    with pytest.raises(InvalidParameter, match="vary in 2 directions"):
        Whitening(3).update(rank_two).solve()
    with pytest.raises(InvalidParameter, match="have no 9 components"):
        Whitening(9).update(noise(50, 8)).solve()
    with pytest.raises(NotFitted):
        Whitening(3)(rank_two)


def test_the_embedding_takes_both_transforms() -> None:
    x = noise(60, 2, 16, 16)
    for transform in ("wavelets", "scattering"):
        embedding = Embedding((16, 16), 20, transform, 3, 2)  # type: ignore[arg-type]
        w = embedding.fit(x)(x)
        assert w.shape == (60, 20)
        assert whiteness(w)["covariance"] < 1e-3
        again = Embedding((16, 16), 20, transform, 3, 2)  # type: ignore[arg-type]
        torch.testing.assert_close(again.load(embedding.state())(x), w, rtol=0, atol=0)


def test_psnr_and_ssim_are_what_their_formulas_say() -> None:
    x, y = torch.rand(2, 3, 12, 13), torch.rand(2, 3, 12, 13)
    assert psnr(x, x + 0.1).numpy() == pytest.approx([20, 20], abs=1e-4)
    assert psnr(x, x + 0.1, peak=10.0).numpy() == pytest.approx([40, 40], abs=1e-4)
    torch.testing.assert_close(ssim(x, x), torch.ones(2, dtype=torch.float64))
    place = np.arange(11) - 5
    window = np.exp(-(place[:, None] ** 2 + place**2) / (2 * 1.5**2))
    window /= window.sum()
    values = []
    for one, other in zip(x.double().numpy(), y.double().numpy(), strict=True):
        for a, b in zip(one, other, strict=True):
            for i, j in np.ndindex(2, 3):
                p, q = a[i : i + 11, j : j + 11], b[i : i + 11, j : j + 11]
                mp, mq = (window * p).sum(), (window * q).sum()
                vp, vq = (window * (p - mp) ** 2).sum(), (window * (q - mq) ** 2).sum()
                both = (window * (p - mp) * (q - mq)).sum()
                top = (2 * mp * mq + 1e-4) * (2 * both + 9e-4)
                values.append(top / ((mp**2 + mq**2 + 1e-4) * (vp + vq + 9e-4)))
    assert ssim(x, y).numpy() == pytest.approx(np.mean(np.reshape(values, (2, -1)), axis=1))
    with pytest.raises(ShapeMismatch):
        psnr(x, y[:1])


@pytest.mark.parametrize("score", [psnr, ssim])
def test_scores_are_of_pictures_in_any_numbers(score: Callable[..., torch.Tensor]) -> None:
    x, y = (torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8) for _ in range(2))
    torch.testing.assert_close(score(x, y, 255), score(x.double(), y.double(), 255))
    with pytest.raises(ShapeMismatch, match="component, y, x"):
        score(x[0, 0], y[0, 0])
    with pytest.raises(InvalidParameter, match="peak"):
        score(x, y, 0)


def test_crops_cover_a_field_in_order() -> None:
    x = torch.arange(2 * 3 * 9 * 8).reshape(2, 3, 9, 8)
    cut = crops(x, 4)
    assert cut.shape == (8, 3, 4, 4)
    torch.testing.assert_close(cut[3], x[0, :, 4:8, 4:8])
    torch.testing.assert_close(cut[4], x[1, :, :4, :4])


def pairs(w: torch.Tensor, x: torch.Tensor) -> CodedImages:
    return CodedImages(w, lambda rows: x[rows])


def test_the_linear_generator_is_least_squares() -> None:
    w, x = noise(300, 10), noise(300, 3, 4, 4, seed=1)
    x = x + torch.einsum("nm,mcyx->ncyx", w, noise(10, 3, 4, 4, seed=2)) + 5
    linear = LinearGenerator(10, (3, 4, 4)).fit(pairs(w[:250], x[:250]), pairs(w[250:], x[250:]))
    centred = x[:250].flatten(1) - x[:250].flatten(1).mean(0)
    alpha = float(linear.alpha) * 250
    normal = w[:250].T @ w[:250] + alpha * torch.eye(10)
    expected = torch.linalg.solve(normal, w[:250].T @ centred)
    torch.testing.assert_close(linear.matrix, expected, rtol=0, atol=1e-4)


def a_wide_embedding() -> Embedding:
    """One of 12 x 12 images at J = 1, whose 36 points have 5 channels, all kept."""
    embedding = Embedding((12, 12), 180, J=1, L=1)
    embedding.whitening.update(noise(500, 180)).solve()
    return embedding


def shared_pairs(n: int, seed: int) -> CodedImages:
    """Codes of all the averages at 6 x 6 points, and images that one matrix a point makes of them.

    Points differ a little, and there is noise of variance 1.
    """
    y = noise(n, 5, 6, 6, seed=seed)
    kernels = noise(4, 5, 4, seed=21)  # of the points away by (0, 0), (0, 1), (1, 0), (1, 1)
    offsets = ((0, 0), (0, 1), (1, 0), (1, 1))
    squares = sum(
        torch.einsum("nfyx,fp->npyx", y.roll((-i, -j), (2, 3)), kernel)
        for (i, j), kernel in zip(offsets, kernels, strict=True)
    )
    x = torch.nn.functional.pixel_shuffle(squares, 2) + noise(1, 12, 12, seed=22)
    x = x + 0.03 * torch.einsum("nm,mcyx->ncyx", y.flatten(1), noise(180, 1, 12, 12, seed=23))
    x = x + noise(*x.shape, seed=seed + 50)
    w = a_wide_embedding().whitening(y.flatten(1))
    return pairs(w - w.mean(0), x)  # as codes are on what they were learnt from


def test_the_shared_inverse_moves_with_the_averages() -> None:
    """Averages moved by a grid point, away from borders, give the image moved by 2^J pixels."""
    embedding, train = a_wide_embedding(), shared_pairs(50, 0)
    S = next(shared_inverses(embedding, train, torch.zeros(1, 12, 12)))
    features = torch.zeros(1, 5, 6, 6)
    features[0, :, 2, 2] = noise(5)
    origin = embedding.whitening(torch.zeros(1, 180))

    def image(y: torch.Tensor) -> torch.Tensor:
        return torch.einsum("nm,mcyx->ncyx", embedding.whitening(y.flatten(1)) - origin, S)

    still = image(features)
    assert still.abs().max() > 0.1
    for y, x in ((0, 1), (1, 0), (1, 1)):
        moved = image(features.roll((y, x), (2, 3)))
        torch.testing.assert_close(moved, still.roll((2 * y, 2 * x), (2, 3)), rtol=0, atol=1e-3)


def test_a_shared_prior_learns_from_fewer_images_than_unknowns() -> None:
    """100 images for 180 unknowns a pixel: ridge must guess, a prior that points share does not."""
    train, held = shared_pairs(100, 0), shared_pairs(2000, 1)
    rows, errors = torch.arange(2000), []
    for embedding in (None, a_wide_embedding()):
        linear = LinearGenerator(180, (1, 12, 12)).fit(train, shared_pairs(50, 2), embedding)
        errors.append(float((linear(held.w) - held.images(rows)).square().mean()) - 1)
    assert errors[1] < errors[0] / 3
    many = shared_pairs(4000, 3)  # with many images the rest of R is found, too
    exact = LinearGenerator(180, (1, 12, 12)).fit(many, held, a_wide_embedding())
    assert (exact(held.w) - held.images(rows)).square().mean() < 1.1


def test_a_shared_prior_that_does_harm_is_not_taken() -> None:
    """For images that every point makes in its own way: as good as ridge, one of the choices."""
    w, x = noise(150, 180), noise(150, 1, 12, 12, seed=1)
    x = x + torch.einsum("nm,mcyx->ncyx", w, noise(180, 1, 12, 12, seed=2))
    train, held = pairs(w[:100], x[:100]), pairs(w[100:], x[100:])
    alone, drawn = (
        LinearGenerator(180, (1, 12, 12)).fit(train, held, embedding)
        for embedding in (None, a_wide_embedding())
    )
    errors = [float((each(held.w) - x[100:]).square().mean()) for each in (alone, drawn)]
    assert errors[1] <= errors[0]


def test_population_statistics_are_those_of_the_codes() -> None:
    """What the first batch norm passes on has mean 0 and variance 1 over the codes, in eval."""
    network, w = ConvolutionalGenerator(6, 2, (16, 8), (4, 2), 32), noise(256, 6)
    estimate_population(network, w, 64)
    with torch.no_grad():
        passed = network.eval().first(network.linear(w).unflatten(1, (32, 4, 2)))
        torch.testing.assert_close(passed.mean((0, 2, 3)), torch.zeros(32), rtol=0, atol=1e-4)
        spread = passed.var((0, 2, 3))
        torch.testing.assert_close(spread, torch.ones(32), rtol=0.05, atol=0)  # batches of 64
        assert network(w[:3]).shape == (3, 2, 16, 8)
        alone = torch.cat([network(one) for one in w[:3].split(1)])
        torch.testing.assert_close(alone, network(w[:3]), rtol=0, atol=1e-5)
    with pytest.raises(InvalidParameter, match="does not double"):
        ConvolutionalGenerator(6, 2, (12, 8), (4, 2))


def an_embedding() -> Embedding:
    """One of 4 x 4 images at J = 1, whose 4 points have 5 channels, all kept."""
    embedding = Embedding((4, 4), 20, J=1, L=1)
    embedding.whitening.update(noise(500, 20)).solve()
    return embedding


def sparse_pairs(n: int, seed: int) -> CodedImages:
    """Codes of few of 12 atoms a point, in 5 dimensions a point, and images of the atoms."""
    generator = torch.Generator().manual_seed(seed)
    z = torch.rand(n, 12, 2, 2, generator=generator)
    z = 3 * z * (torch.rand(n, 12, 2, 2, generator=generator) < 0.05)
    features = torch.einsum("fk,nkyx->nfyx", noise(5, 12, seed=11), z).flatten(1)
    x = torch.nn.functional.conv_transpose2d(z, noise(12, 1, 2, 2, seed=12), stride=2)
    return pairs(an_embedding().whitening(features), x)


def test_sparse_inversion_without_atoms_images_is_linear() -> None:
    train, held = sparse_pairs(200, 0), sparse_pairs(50, 1)
    linear = LinearGenerator(20, (1, 4, 4)).fit(train, held)
    network = SparseInversion(linear, an_embedding(), 10)
    torch.testing.assert_close(network(held.w), linear(held.w), rtol=0, atol=1e-6)
    lengths = network.atoms.norm(dim=0)
    torch.testing.assert_close(lengths, network.log_step.exp().sqrt().expand(40))


def test_sparse_inversion_learns_images_that_no_linear_generator_can_make() -> None:
    """48 atoms in 20 dimensions, learnt end to end: a third less squared error on new codes."""
    train, held = sparse_pairs(2000, 0), sparse_pairs(500, 1)
    linear = LinearGenerator(20, (1, 4, 4)).fit(train, held)
    trainer = Trainer(SparseInversion(linear, an_embedding(), 16), train, "l2", 2e-2, 100)
    for _ in range(80):
        trainer.step()
    learnt = trainer.averaged(SparseInversion(linear, an_embedding(), 16))
    rows = torch.arange(500)
    with torch.no_grad():
        before = (linear(held.w) - held.images(rows)).square().mean()
        after = (learnt(held.w) - held.images(rows)).square().mean()
    assert after < before * 2 / 3


def test_atoms_carry_no_low_pass() -> None:
    """The rows of B for x * phi_J are tied to E: S C = 0, whatever is learnt."""
    embedding = Embedding((16, 16), 10, J=3, L=2)
    U = embedding.fit(noise(30, 2, 16, 16)).rectified
    assert U is not None
    linear = LinearGenerator(10, (2, 16, 16))
    network = SparseInversion(linear, embedding, 30)
    torch.nn.init.normal_(network.patches)
    made = network(noise(5, 10)).detach()
    assert made.abs().mean() > 0.1
    torch.testing.assert_close(U.low_pass(made), torch.zeros(5, 2, 2, 2), rtol=0, atol=1e-5)
    torch.testing.assert_close(network.without_low_pass(made), made, rtol=0, atol=1e-5)


@pytest.mark.parametrize("model", ["sparse", "convolutional"])
@pytest.mark.usefixtures("one_thread")
def test_learning_goes_on_to_the_same_bits(model: str) -> None:
    """From a checkpoint after the first epoch, and from one before the last: all that is kept."""
    spec = GeneratorSpec(model=model, atoms=8, width=8, **SMALL)  # type: ignore[arg-type]
    states: list[dict[str, torch.Tensor]] = []
    whole = Generator(spec).fit(pictures(80), seed=5, checkpoint=states.append)
    assert len(states) == (7 if model == "sparse" else 3)  # of which four after averaged images
    for state in (states[0], states[-2]):
        resumed = Generator(spec).fit(pictures(80), seed=5, resume=state)
        assert resumed.curve_ == whole.curve_
        assert resumed.metrics_ == whole.metrics_
        for name, value in whole.state().items():
            assert torch.equal(value, resumed.state()[name]), name


@pytest.mark.parametrize("model", ["linear", "sparse", "convolutional"])
@pytest.mark.usefixtures("one_thread")
def test_the_default_precision_of_torch_changes_nothing(model: str, doubles: Any) -> None:
    spec = GeneratorSpec(model=model, atoms=8, width=8, **{**SMALL, "epochs": 1})  # type: ignore[arg-type]
    expected = Generator(spec).fit(pictures(60), seed=5).sample(2)
    with doubles():
        found = Generator(spec).fit(pictures(60), seed=5).sample(2)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_patches_are_least_squares_of_what_overlaps() -> None:
    """Images made by known patches give them back, borders included."""
    embedding = Embedding((32, 32), 40, J=3, L=2).fit(noise(100, 2, 32, 32))
    linear, w = LinearGenerator(40, (2, 32, 32)), noise(200, 40)
    truth, network = (SparseInversion(linear, embedding, 4) for _ in range(2))
    torch.nn.init.normal_(truth.patches)
    x = truth.laid(truth.codes(w)).detach()
    network.solve(pairs(w, x), pairs(w[:50], x[:50]))
    torch.testing.assert_close(network.laid(network.codes(w)).detach(), x, rtol=0, atol=0.02)


def test_patches_that_help_no_other_image_are_not_used() -> None:
    """Images unrelated to their codes can be learnt from few samples, but not predicted."""
    linear, w = LinearGenerator(20, (1, 4, 4)), noise(40, 20)
    network = SparseInversion(linear, an_embedding(), 16)
    train, held = pairs(w[:20], noise(20, 1, 4, 4)), pairs(w[20:], noise(20, 1, 4, 4, seed=1))
    network.solve(train, train)
    assert network.patches.abs().max() > 0.1
    network.solve(train, held)
    torch.testing.assert_close(network(held.w), linear(held.w), rtol=0, atol=0)


def test_a_trainer_goes_on_within_an_epoch() -> None:
    train = sparse_pairs(100, 0)
    linear = LinearGenerator(20, (1, 4, 4)).fit(train, train)
    trainers = [
        Trainer(SparseInversion(linear, an_embedding(), 4), train, "l1", batch=10) for _ in range(2)
    ]
    for _ in range(13):
        trainers[0].step()
    trainers[1].load(trainers[0].state())
    losses = [[trainer.step() for _ in range(12)] for trainer in trainers]
    assert losses[0] == losses[1]


def test_learning_ends_when_epochs_gain_nothing() -> None:
    train = sparse_pairs(100, 0)
    linear = LinearGenerator(20, (1, 4, 4)).fit(train, train)
    trainer = Trainer(SparseInversion(linear, an_embedding(), 4), train, batch=1)
    ends = []
    for score in (20.0, 20.2, 20.21, 20.22, 20.23, 20.26, 20.27):
        trainer.curve.append(Epoch(1, 0.0, score))
        ends.append(trainer.converged)
    assert ends == [False, False, False, False, True, False, False]
    few = Trainer(trainer.network, train, batch=50)  # 2 steps an epoch: 150 epochs of patience
    for _ in range(151):
        assert not few.converged
        few.curve.append(Epoch(1, 0.0, 20.0))
    assert few.converged


def test_many_more_atoms_than_numbers_in_a_code_converge() -> None:
    """Steps begin at 1 / |B|^2, and at the usual one where that is small."""
    few = Embedding((32, 32), 4, J=2, L=2).fit(noise(60, 1, 32, 32))
    network, w = SparseInversion(LinearGenerator(4, (1, 32, 32)), few, 64, 12), noise(20, 4)
    atoms = network.atoms.detach()
    assert float(torch.linalg.matrix_norm(atoms, 2)) == pytest.approx(1, abs=1e-3)
    left = w - network.codes(w).detach().flatten(1) @ atoms.T
    assert left.norm() < w.norm()
    usual = SparseInversion(LinearGenerator(20, (1, 4, 4)), an_embedding(), 2)
    assert torch.equal(usual.log_step.detach(), torch.tensor(0.1).log())


def test_what_validates_was_not_whitened_by() -> None:
    """Validation samples unlike all others change no component."""
    spec, x = GeneratorSpec(model="linear", **SMALL), pictures(60)  # type: ignore[arg-type]
    held = torch.randperm(60, generator=torch.Generator().manual_seed(0))[:6]
    other = x.index_copy(0, held, pictures(6, seed=1))
    whitenings = [Generator(spec).fit(each).embedding_.whitening for each in (x, other)]
    assert torch.equal(whitenings[0].components_, whitenings[1].components_)


@pytest.fixture(scope="module")
def fitted() -> Generator:
    spec = GeneratorSpec(model="sparse", atoms=8, transform="scattering", **SMALL)  # type: ignore[arg-type]
    return Generator(spec).fit(pictures(80))


def test_a_generator_is_what_its_state_says(fitted: Generator) -> None:
    again = Generator.from_state(fitted.spec, fitted.state())
    torch.testing.assert_close(again.sample(3, 1), fitted.sample(3, 1), rtol=0, atol=0)
    assert not torch.equal(fitted.sample(1, 1), fitted.sample(1, 2))
    assert again.curve_ == fitted.curve_
    with pytest.raises(NotFitted):
        Generator(fitted.spec).sample(1)
    with pytest.raises(ShapeMismatch, match="learnt from samples"):
        fitted.encode(noise(2, 3, 8, 8))


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda g: g.vary(pictures(2), 2, part=1.5), "part=1.5"),
        (lambda g: g.vary(pictures(2), 2, part=-0.5), "part=-0.5"),
        (lambda g: g.encode(pictures(2)[:0]), "n >= 1"),
        (lambda g: g.encode(255 * torch.rand(2, 3, 16, 16)), "divide by 255"),
        (lambda g: g.judge(pictures(2).movedim(-1, 1)), "colours last"),
        (lambda g: g.decode(noise(2, 9)), r"\(n, 24\), got \(2, 9\)"),
        (lambda g: g.decode(noise(24)), r"\(n, 24\), got \(24,\)"),
        (lambda g: g.sample(2, refine=-1), "refine=-1"),
        (lambda g: Generator(g.spec).fit(noise(40, 16, 16) * math.nan), "not finite"),
        (lambda g: Generator(g.spec).fit(torch.full((40, 16, 16), 0.1)), "same everywhere"),
        (lambda g: Generator(g.spec).fit(np.zeros((40, 16, 16))), "expected a torch tensor"),
        (lambda g: Generator(g.spec).fit(pictures(40).movedim(-1, 1)), "colours last"),
        (lambda g: Generator(g.spec).fit(noise(40, 20, 20)), r"J=2 is possible.*crop=16"),
    ],
)
def test_what_a_generator_cannot_take_is_refused(
    fitted: Generator, call: Callable[[Generator], object], said: str
) -> None:
    with pytest.raises(InvalidParameter, match=said):
        call(fitted)


def test_a_generator_takes_parameters_and_codes_of_any_precision(fitted: Generator) -> None:
    assert Generator({"model": "sparse", "J": 3}).spec == GeneratorSpec(model="sparse", J=3)
    w = noise(2, 24, dtype=torch.float64)
    assert torch.equal(fitted.decode(w), fitted.decode(w.float()))


def test_fitting_leaves_the_callers_random_numbers_alone() -> None:
    spec, before = GeneratorSpec(model="linear", **SMALL), torch.get_rng_state()  # type: ignore[arg-type]
    Generator(spec).fit(pictures(40))
    assert torch.equal(torch.get_rng_state(), before)


def test_a_fit_that_cannot_be_or_diverges_is_refused() -> None:
    spec = GeneratorSpec(model="convolutional", width=8, rate=1e35, **SMALL)  # type: ignore[arg-type]
    with pytest.raises(InvalidParameter, match=r"24 samples are too few .* lower dimension"):
        Generator(spec).fit(pictures(24))
    with pytest.raises(InvalidParameter, match=r"diverged at step \d: lower rate"):
        Generator(spec).fit(pictures(40))


def test_paths_and_variants_start_at_the_reconstructions(fitted: Generator) -> None:
    x = pictures(3)
    made = fitted.reconstruct(x)
    assert made.shape == (3, 3, 16, 16)
    assert torch.equal(made, made.clamp(0, 1))
    strips = fitted.interpolate(x, 5)
    torch.testing.assert_close(strips[:, 0], made[:-1], rtol=0, atol=1e-5)
    torch.testing.assert_close(strips[:, -1], made[1:], rtol=0, atol=1e-5)
    torch.testing.assert_close(fitted.vary(x, 2, part=0.0)[:, 1], made, rtol=0, atol=1e-5)
    assert relative_distance(fitted.vary(x, 2)[:, 1], made).min() > 0.01


def test_refined_images_have_the_codes_that_they_are_made_of(fitted: Generator) -> None:
    x = pictures(3, seed=1)
    before, after = (fitted.judge(x, gradients)["code"].mean() for gradients in (0, 40))
    assert after < before / 3
    told: list[tuple[int, int]] = []
    fitted.follow = lambda done, of, _: told.append((done, of))
    together = fitted.reconstruct(x, 5)
    assert told == [(3 * n, 15) for n in range(1, 6)]
    fitted.follow = None
    alone = fitted.reconstruct(x[1:2], 5)
    torch.testing.assert_close(together[1:2], alone, rtol=0, atol=1e-3)
    assert torch.equal(together, together.clamp(0, 1))
    assert torch.equal(fitted.sample(2, 3, 0), fitted.sample(2, 3))


def test_a_generator_of_fields_is_judged_in_their_units() -> None:
    """PSNR counts from the span of values, and does not depend on the unit."""
    x = torch.nn.functional.avg_pool2d(noise(60, 1, 18, 18), 3, 1)[:, 0]
    spec = GeneratorSpec(model="linear", **SMALL)  # type: ignore[arg-type]
    one, other = Generator(spec).fit(x), Generator(spec).fit(100 * x)
    scores, scaled = one.judge(x), other.judge(100 * x)
    assert sorted(scores) == ["code", "features", "psnr", "ssim"]
    torch.testing.assert_close(scaled["psnr"], scores["psnr"], rtol=0, atol=0.01)
    assert math.isfinite(float(scores["psnr"].mean()))
    assert one.sample(2).shape == (2, 1, 16, 16)
