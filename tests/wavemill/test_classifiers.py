"""Standardisation, ridge, networks, training: streamed is whole, resumed is uninterrupted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from sklearn.linear_model import Ridge
from torch import Tensor

from wavemill.dictionaries import starts
from wavemill.dictionaries.classifiers import (
    ALPHAS,
    Network,
    RidgeClassifier,
    Standardisation,
    check_ridge,
)
from wavemill.dictionaries.training import Training, confusion, topk
from wavemill.errors import InvalidParameter, NotFitted, ShapeMismatch
from wavemill.specs import ClassifierSpec, RegressionSpec


def maps(count: int = 40, channels: int = 6, side: int = 3, seed: int = 0) -> Tensor:
    """Correlated feature maps with means far from 0, ``(count, channels, side, side)``."""
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(channels, channels, generator=generator)
    x = torch.randn(count, side, side, channels, generator=generator) @ mix + 5
    return x.movedim(-1, 1).contiguous()


def learnable(count: int = 120) -> tuple[Tensor, Tensor]:
    """Features, and three classes that a linear form of them tells apart."""
    x = maps(count) - 5
    y = x.mean((2, 3))[:, :3].argmax(1)
    return x, y


def spec(**parameters: object) -> ClassifierSpec:
    values = {"model": "istc-mlp", "channels": 5, "kernel": 3, "atoms": 12, "iterations": 4,
              "last": 0.2, "hidden": (8,), "epochs": 4, "batch": 16, "rate": 0.05}  # fmt: skip
    return ClassifierSpec.from_parameters({**values, **parameters})


def batches(x: Tensor, y: Tensor, size: int = 16) -> list[tuple[Tensor, Tensor]]:
    return list(zip(x.split(size), y.split(size), strict=True))


def test_streamed_statistics_are_those_of_the_whole() -> None:
    """Float32 batches summed in float64: six decimals of variances of the order of 5."""
    x = maps()
    streamed = Standardisation()
    for part in x.split(7):
        streamed.update(part)
    streamed.solve()
    rows = x.movedim(1, -1).reshape(-1, 6).double()
    torch.testing.assert_close(streamed.mean_.double(), rows.mean(0), rtol=1e-6, atol=1e-6)
    expected = rows.std(0, correction=0)
    torch.testing.assert_close(streamed.deviation_.double(), expected, rtol=1e-5, atol=0)
    standard = streamed(x)
    torch.testing.assert_close(standard.mean((0, 2, 3)), torch.zeros(6), rtol=0, atol=1e-5)


def test_principal_components_span_scikit_learns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the regularising term, components are its whitened ones up to sign."""
    monkeypatch.setattr("wavemill.dictionaries.classifiers._LEAST", 0.0)
    x = maps(60)
    ours = Standardisation(3).update(x[:25]).update(x[25:]).solve()(x)
    rows = Standardisation().update(x).solve()(x).movedim(1, -1).reshape(-1, 6).numpy()
    theirs = PCA(3, whiten=True).fit_transform(rows.astype("float64"))
    found = ours.movedim(1, -1).reshape(-1, 3).numpy()
    correlation = np.abs((found * theirs).mean(0))
    np.testing.assert_allclose(correlation, 1, atol=5e-3)


def test_roots_are_taken_before_anything_else_and_kept_with_the_rest() -> None:
    x = maps() - 5
    rooted = x.sign() * x.abs().sqrt()
    ours = Standardisation(3, power=0.5).update(x).solve()
    expected = Standardisation(3).update(rooted).solve()(rooted)
    torch.testing.assert_close(ours(x), expected, rtol=0, atol=1e-6)
    torch.testing.assert_close(Standardisation().load(ours.state())(x), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("count", "features"), [(120, 54), (40, 54), (120, 400)])
def test_ridge_in_closed_form_is_scikit_learns(count: int, features: int) -> None:
    """With more samples than features, perhaps only after some batches, and with fewer."""
    x, y = learnable(count)
    rows = x.flatten(1).repeat(1, -(-features // 54))[:, :features]
    rows = rows + 0.5 * torch.randn(rows.shape, generator=torch.Generator().manual_seed(1)) + 3
    ours = RidgeClassifier(3)
    for part, classes in batches(rows, y, 25):
        ours.update(part, classes)
    scores = ours.solve(0.1)(rows)
    variance = float(rows.double().var(0, correction=0).mean())
    peer = Ridge(0.1 * variance * len(rows))
    peer.fit(rows.numpy().astype("float64"), np.eye(3)[y.numpy()])
    np.testing.assert_allclose(scores.numpy(), peer.predict(rows.numpy()), rtol=0, atol=1e-4)


def test_ridge_of_few_samples_takes_no_matrix_of_features_and_of_many_is_refused() -> None:
    """With 300,000 features: a matrix of them would take 720 GB."""
    x, y = torch.randn(6, 300_000), torch.arange(6) % 2
    model = RidgeClassifier(2).update(x[:3], y[:3]).update(x[3:], y[3:])
    assert (model.solve(1e-3)(x).argmax(1) == y).all()
    check_ridge(1_000_000, 16_384)
    with pytest.raises(InvalidParameter, match="model=linear"):
        check_ridge(20_000, 20_000)


def test_classes_are_whole_numbers_of_any_precision() -> None:
    x, y = learnable(40)
    rows = x.flatten(1)
    expected = RidgeClassifier(3).update(rows, y).solve(0.1)(rows)
    for dtype in (torch.int32, torch.uint8):
        assert torch.equal(RidgeClassifier(3).update(rows, y.to(dtype)).solve(0.1)(rows), expected)
    for bad in (y.float(), y - 1, y + 1):
        with pytest.raises(InvalidParameter, match="classes are whole numbers from 0 to 2"):
            RidgeClassifier(3).update(rows, bad)


def test_the_penalty_is_chosen_by_what_was_held_out() -> None:
    x, y = learnable()
    rows = x.flatten(1)
    model = RidgeClassifier(3).update(rows[:60], y[:60])
    chosen = model.choose(rows[60:], y[60:])
    right = {
        alpha: float((model.solve(alpha)(rows[60:]).argmax(1) == y[60:]).double().mean())
        for alpha in ALPHAS
    }
    assert right[chosen] == max(right.values())


@pytest.mark.parametrize("model", ["linear", "mlp", "istc", "istc-mlp"])
@pytest.mark.parametrize("free", [False, True])
@pytest.mark.parametrize("blocks", [(), (5, 7)])
def test_training_lowers_the_loss_and_learns_every_parameter(
    model: str, free: bool, blocks: tuple[int, ...]
) -> None:
    x, y = learnable()
    torch.manual_seed(0)
    asked = spec(model=model, free=free, epochs=8, blocks=blocks)
    network = Network((6, 3, 3), 3, asked)
    before = {name: value.clone() for name, value in network.named_parameters()}
    training = Training(network, asked, 8, seed=0)
    losses = [training.advance(batches(x, y))["loss"] for _ in range(8)]
    assert losses[-1] < 0.7 * losses[0]
    for name, value in network.named_parameters():
        assert not torch.equal(value, before[name]), name


@pytest.mark.parametrize("blocks", [(), (5, 7)])
def test_resumed_training_ends_with_the_same_bits(
    one_thread: None, blocks: tuple[int, ...]
) -> None:
    x, y = learnable()
    torch.manual_seed(0)
    asked = spec(free=True, blocks=blocks)
    whole = Training(Network((6, 3, 3), 3, asked), asked, 8, seed=5)
    for _ in range(2):
        whole.advance(batches(x, y))
    state = whole.state()
    torch.manual_seed(99)  # another process, other weights to begin with
    resumed = Training(Network((6, 3, 3), 3, asked), asked, 8, seed=5)
    resumed.load(state)
    torch.rand(7)  # whatever was drawn meanwhile
    for training in (whole, resumed):
        training.advance(batches(x, y))
    for (name, one), other in zip(whole.state().items(), resumed.state().values(), strict=True):
        assert torch.equal(one, other), name
    assert not torch.equal(state["network.last.weight"], whole.state()["network.last.weight"])


def test_smoothed_targets_are_shared_by_all_classes() -> None:
    """Weights do not move: the loss is that of the target 1 - s + s / 3 and, twice, s / 3."""
    x, y = learnable(16)
    still = spec(model="linear", rate=1e-30, smoothing=0.3)
    network = Network((6, 3, 3), 3, still)
    found = Training(network, still, 1, seed=0).advance([(x, y)])["loss"]
    target = 0.7 * torch.nn.functional.one_hot(y, 3) + 0.1
    expected = -(target * network(x).detach().log_softmax(1)).sum(1).mean()
    assert found == pytest.approx(float(expected), rel=1e-5)


def test_rates_fall_by_steps_or_as_a_cosine() -> None:
    network = Network((6, 3, 3), 3, spec(model="linear"))
    steps = Training(network, spec(model="linear", rate=0.1, every=2, epochs=5), 10, 0)
    cosine = Training(network, spec(model="linear", rate=0.1, schedule="cosine", epochs=4), 10, 0)
    found = []
    for epoch in range(5):
        steps.epoch = cosine.epoch = epoch
        found.append((steps.rate(9), cosine.rate(0)))
    expected = [0.1 * (0.5 + 0.5 * np.cos(np.pi * epoch / 4)) for epoch in range(5)]
    np.testing.assert_allclose([rate for rate, _ in found], [0.1, 0.1, 0.01, 0.01, 0.001])
    np.testing.assert_allclose([rate for _, rate in found], expected, atol=1e-12)


@pytest.mark.parametrize("parameters", [{"model": "istc"}, {"model": "linear", "blocks": (8,)}])
def test_closed_form_gives_the_ridge_classifier_of_the_codes(parameters: dict[str, object]) -> None:
    x, y = learnable()
    torch.manual_seed(0)
    network = Network((6, 3, 3), 3, spec(**parameters))
    starts.close(network, lambda: batches(x[:90], y[:90]), (x[90:], y[90:]), 3, alpha=0.01)
    network.eval()
    with torch.no_grad():
        features, scores = network.features(x), network(x)
    ridge = RidgeClassifier(3).update(features[:90], y[:90]).solve(0.01)
    scale = scores / ridge(features)
    torch.testing.assert_close(
        scale, torch.full_like(scale, float(scale.median())), rtol=1e-2, atol=0
    )
    assert float((scores.argmax(1) == y).double().mean()) > 0.8


def test_what_is_left_out_in_training_is_there_afterwards() -> None:
    """The linear form sees half of its inputs, another half each time, at twice their size."""
    x, _ = learnable(16)
    networks = []
    for thin in (0.0, 0.5):
        torch.manual_seed(0)
        networks.append(Network((6, 3, 3), 3, spec(model="linear", thin=thin)))
    whole, thinned = networks
    seen = thinned.features(x)
    kept = seen != 0
    assert 0.4 < kept.double().mean() < 0.6
    torch.testing.assert_close(seen[kept], 2 * whole.features(x)[kept])
    assert not torch.equal(kept, thinned.features(x) != 0)
    assert torch.equal(thinned.eval()(x), whole.eval()(x))


def test_the_grid_is_halved_before_a_block_of_more_atoms() -> None:
    network = Network((6, 16, 16), 3, spec(model="linear", blocks=(4, 8, 8, 12), pool=4))
    x, seen = torch.zeros(2, 6, 16, 16), []
    for block in network.blocks:
        x = block(x)
        seen.append(tuple(x.shape[2:]))
    assert seen == [(8, 8), (8, 8), (4, 4), (4, 4)]
    assert network.last.in_features == 5 * 12


def test_counts_of_right_answers() -> None:
    scores = torch.tensor([[3.0, 2, 1], [1, 3, 2], [2, 1, 3], [3, 2, 1]])
    y = torch.tensor([0, 2, 2, 2])
    assert topk(scores, y, 1) == 0.5
    assert topk(scores, y, 2) == 0.75
    assert topk(scores, y, 5) == 1.0
    assert confusion(scores, y).tolist() == [[1, 0, 0], [0, 0, 0], [1, 1, 1]]


def test_what_cannot_be_built_is_refused() -> None:
    with pytest.raises(InvalidParameter, match="thresholds fall"):
        spec(first=0.1, last=0.2)
    for held in (1.5, 0.0, -3.0, float("inf"), float("nan")):
        for build in (lambda n: spec(validation=n), lambda n: RegressionSpec(test=n)):
            with pytest.raises(InvalidParameter, match="or a whole number of samples"):
                build(held)
    with pytest.raises(InvalidParameter, match="kernel=2 must be odd"):
        spec(kernel=2)
    with pytest.raises(InvalidParameter, match="both needs a mirror"):
        spec(both=True)
    with pytest.raises(InvalidParameter, match="ridge is a closed form"):
        spec(model="ridge", blocks=(4,))
    with pytest.raises(InvalidParameter, match=r"blocks=\(4, 0\)"):
        spec(blocks=(4, 0))
    with pytest.raises(ShapeMismatch, match="pool=4"):
        Network((6, 3, 3), 3, spec(pool=4))
    with pytest.raises(InvalidParameter, match="9 components of 6"):
        Standardisation(9).update(maps()).solve()
    with pytest.raises(NotFitted):
        Standardisation()(maps())
    with pytest.raises(NotFitted):
        RidgeClassifier(3).update(torch.eye(3), torch.arange(3))(torch.eye(3))


@pytest.mark.parametrize(
    ("refused", "said"),
    [
        (lambda: learnt_maps()(maps()[:, :, 0, 0]), r"are \(n, 6, y, x\), got \(40, 6\)"),
        (lambda: learnt_maps()(maps(channels=5)), r"\(n, 6, y, x\), got \(40, 5, 3, 3\)"),
        (lambda: learnt_maps().update(maps(channels=5)), r"\(n, 6, y, x\), got"),
        (lambda: Standardisation().update(torch.ones(4, 6)), r"\(n, channel, y, x\), got"),
        (lambda: learnt_rows(torch.ones(3, 4, 1)), r"\(n, feature\), got \(3, 4, 1\)"),
        (lambda: learnt_rows(torch.eye(3)[:2]), r"2 rows take as many classes, got \(3,\)"),
        (lambda: learnt_rows(torch.eye(3).numpy()), "expected a torch tensor, got numpy"),
        (lambda: learnt_rows(torch.eye(3))(torch.ones(1, 4)), r"\(n, 3\), got \(1, 4\)"),
        (lambda: learnt_rows(torch.eye(3)).update(torch.eye(4), torch.arange(4)), r"\(n, 3\)"),
    ],
)
def test_features_of_another_shape_are_refused(refused: Callable[[], object], said: str) -> None:
    """Without a grid they would have been scaled along the wrong axis."""
    with pytest.raises(ShapeMismatch, match=said):
        refused()


def learnt_maps() -> Standardisation:
    return Standardisation().update(maps()).solve()


def learnt_rows(x: Any) -> RidgeClassifier:
    return RidgeClassifier(3).update(x, torch.arange(3)).solve(0.1)
