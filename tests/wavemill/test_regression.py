"""Regressions: exact where the answer is known, extensive where they must be, stored whole."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.wavemill.test_atomic_harmonics import ELEMENTS, ROUNDING, molecule, moved, rotation
from wavemill import (
    AtomicHarmonics,
    AtomicKernel,
    Composition,
    InvalidParameter,
    Molecules,
    Multilinear,
    NotFitted,
    Ridge,
    ShapeMismatch,
)
from wavemill.atomic_kernel import Sums

COUNTS = 3


def features(rows: int, columns: int = 12, seed: int = 0) -> torch.Tensor:
    """Counts in the first columns, then normal numbers of very different sizes."""
    generator = torch.Generator().manual_seed(seed)
    counts = torch.randint(0, 9, (rows, COUNTS), generator=generator).double()
    rest = torch.randn(rows, columns - COUNTS, generator=generator, dtype=torch.float64)
    return torch.cat([counts, rest * 10.0 ** torch.linspace(-1, 1, columns - COUNTS)], 1)


def weights(columns: int = 12) -> torch.Tensor:
    return torch.linspace(-2, 3, columns, dtype=torch.float64)


def test_composition_finds_the_energies_of_the_elements() -> None:
    x = features(50)
    y = x[:, :COUNTS] @ weights()[:COUNTS]
    model = Composition(COUNTS).fit(x, y)
    assert torch.allclose(model.weights_, weights()[:COUNTS], atol=1e-12)


def test_ridge_is_the_solution_of_its_normal_equations() -> None:
    x, alpha = features(40), 0.01
    y = x @ weights() + torch.sin(torch.arange(40.0).double())
    model = Ridge(COUNTS, alpha).fit(x, y)
    scaled = x / model.scale_
    rest = y - model.composition_.predict(x)
    gradient = scaled.T @ (scaled @ model.weights_ - rest) + alpha * 40 * model.weights_
    assert float(gradient.abs().max()) < 1e-9 * float((scaled.T @ rest).abs().max())


def test_ridge_without_noise_finds_the_weights_and_the_least_penalty() -> None:
    x = features(200)
    model = Ridge(COUNTS).fit(x, x @ weights())
    fresh = features(30, seed=1)
    assert model.alpha_ == 1e-9
    assert torch.allclose(model.predict(fresh), fresh @ weights(), atol=1e-4)


def test_ridge_chooses_more_penalty_where_there_is_more_noise() -> None:
    x = features(120, 60)
    noise = torch.randn(120, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    quiet, loud = (Ridge(COUNTS).fit(x, x @ weights(60) + s * noise).alpha_ for s in (1e-6, 300.0))
    assert quiet < loud


def test_ridge_does_not_depend_on_the_units_of_a_feature() -> None:
    x = features(80)
    y = x @ weights() + x[:, 5] ** 2
    units = 10.0 ** torch.linspace(-0.2, 0.2, 12).double()
    one = Ridge(COUNTS, 1e-3).fit(x, y).predict(x)
    assert torch.allclose(one, Ridge(COUNTS, 1e-3).fit(x * units, y).predict(x * units), rtol=1e-9)


def test_ridge_is_extensive_for_sums() -> None:
    x = features(80)
    model = Ridge(COUNTS, 1e-3).fit(x, x @ weights() + x[:, 4] ** 2)
    both = model.predict(x[:1] + x[1:2])
    assert torch.allclose(both, model.predict(x[:2]).sum(), rtol=1e-12)


@pytest.mark.parametrize("order", [2, 3])
def test_products_learn_what_a_linear_form_cannot(order: int) -> None:
    x = features(700, 6, seed=4).float()
    y = (x[:, 3] * 10 * x[:, 4] + x[:, 5] / 10).double()
    model = Multilinear(COUNTS, order, 16, 60, 64, 1e-2).fit(x[:600], y[:600])
    linear = Ridge(COUNTS).fit(x[:600], y[:600])
    errors = [float((m.predict(x[600:]) - y[600:]).abs().mean()) for m in (model, linear)]
    assert errors[0] < 0.4 * errors[1]


def test_products_are_the_same_from_the_same_seed() -> None:
    x = features(60).float()
    y = (x[:, 4] * x[:, 5]).double()
    one, other = (Multilinear(COUNTS, epochs=2, batch=16).fit(x, y).predict(x) for _ in range(2))
    assert torch.equal(one, other)


def molecules(count: int, first: int = 0) -> Molecules:
    return Molecules.of([molecule(2 + seed % 5, first + seed) for seed in range(count)])


def energies(some: Molecules) -> torch.Tensor:
    """A pair potential of nuclear charges: smooth, extensive, not linear in the features."""
    centre, neighbour, vectors = some.separations()
    charges = some.charges.double()
    pairs = charges[centre] * charges[neighbour] * (-vectors.norm(dim=1)).exp()
    own = charges[some.owner.new_tensor(range(len(some.charges)))]
    total = torch.zeros(len(some), dtype=torch.float64).index_add(0, some.owner, -3 * own)
    return total.index_add(0, some.owner[centre], pairs)


def kernel(**options: Any) -> AtomicKernel:
    transform = AtomicHarmonics(ELEMENTS, J=4, L=2, across=4, dtype=torch.float64)
    return AtomicKernel(transform, **{"landmarks": 150, **options})


def test_the_kernel_learns_a_potential_far_better_than_the_composition() -> None:
    train, test = molecules(120), molecules(30, 500)
    model = kernel().fit(train, energies(train))
    composition = model.composition_.predict(model.counts(test))
    error, baseline = (
        float((found - energies(test)).abs().mean()) for found in (model.predict(test), composition)
    )
    assert error < 0.3 * baseline


def test_the_kernel_is_invariant_and_extensive() -> None:
    train, test = molecules(40), molecules(6, 500)
    model = kernel().fit(train, energies(train))
    found = model.predict(test)
    scale = float(found.abs().max())
    assert float((model.predict(moved(test, rotation(1, -1.0))) - found).abs().max()) < 1e-8 * scale
    apart = torch.arange(6, dtype=torch.float64)[:, None] * torch.tensor([80.0, 0, 0])
    together = Molecules.of([(test.positions + apart[test.owner], test.charges)])
    assert float((model.predict(together) - found.sum()).abs()) < 1e-8 * scale


def test_the_kernel_minimises_what_it_says() -> None:
    train = molecules(30)
    model = kernel(landmarks=12, alpha=1e-3).fit(train, energies(train))
    kernels, among = model.kernel(train), model.among()
    rest = energies(train) - model.composition_.predict(model.counts(train))
    gradient = kernels.T @ (kernels @ model.weights_ - rest) + 1e-3 * 30 * among @ model.weights_
    assert float(gradient.abs().max()) < 1e-8 * float((kernels.T @ rest).abs().max())


def test_an_atom_is_like_itself_and_like_no_other_element() -> None:
    model = kernel()
    model.choose(molecules(20))
    among = model.among()
    assert torch.allclose(among.diagonal(), torch.ones(model.size, dtype=torch.float64))
    other = model.kinds_[:, None] != model.kinds_[None, :]
    assert not among[other].any()
    assert float(torch.linalg.eigvalsh(among).min()) > -1e-10


def test_sums_are_those_of_all_molecules_at_once() -> None:
    rows = torch.randn(20, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    y, whole, parts = rows[:, 0] ** 2, Sums(5), Sums(5)
    whole.add(rows, y)
    for start in range(0, 20, 7):
        parts.add(rows[start : start + 7], y[start : start + 7])
    eye = torch.eye(5, dtype=torch.float64)
    assert torch.allclose(whole.weights(eye, 0.1), parts.weights(eye, 0.1), rtol=ROUNDING)


def test_what_is_learnt_can_be_stored_and_loaded() -> None:
    x = features(60).float()
    y = (x[:, 4] * x[:, 5]).double()
    for make in (
        lambda: Composition(COUNTS),
        lambda: Ridge(COUNTS),
        lambda: Multilinear(COUNTS, epochs=1),
    ):
        model = make().fit(x, y)
        assert torch.equal(make().load(model.state()).predict(x), model.predict(x))
    train = molecules(20)
    model = kernel().fit(train, energies(train))
    assert torch.equal(kernel().load(model.state()).predict(train), model.predict(train))


def test_nothing_is_predicted_before_it_is_learnt() -> None:
    for model in (Composition(COUNTS), Ridge(COUNTS), Multilinear(COUNTS)):
        with pytest.raises(NotFitted, match="call fit first"):
            model.predict(features(2))


def test_targets_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ShapeMismatch, match="features"):
        Ridge(COUNTS).fit(features(4), torch.zeros(3))
    with pytest.raises(InvalidParameter, match="order=4"):
        Multilinear(COUNTS, order=4)
    with pytest.raises(InvalidParameter, match="landmarks=0"):
        kernel(landmarks=0)
