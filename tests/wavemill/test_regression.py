"""Regressions: exact where the answer is known, extensive where they must be, stored whole."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.metrics import r2_score
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from tests.wavemill.test_atomic_harmonics import ELEMENTS, ROUNDING, molecule, moved, rotation
from wavemill import (
    AtomicHarmonics,
    AtomicKernel,
    AtomicProducts,
    Composition,
    InvalidParameter,
    Molecules,
    Multilinear,
    NotFitted,
    Ridge,
    ShapeMismatch,
)
from wavemill.molecules.atomic_products import monomials, principal
from wavemill.molecules.atomic_regression import AtomicRegression, DualEquations, NormalEquations
from wavemill.molecules.regression import ALPHAS, _Features, _Samples, root_mean_square

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


@pytest.mark.parametrize("samples", [40, 8])
def test_ridge_is_the_solution_of_its_normal_equations(samples: int) -> None:
    """Whether there are more samples than features or fewer."""
    x, alpha = features(samples), 0.01
    y = x @ weights() + torch.sin(torch.arange(float(samples)).double())
    model = Ridge(COUNTS, alpha).fit(x, y)
    scaled = x / model.scale_
    rest = y - model.composition_.predict(x)
    penalty = alpha * samples * model.weights_
    gradient = scaled.T @ (scaled @ model.weights_ - rest) + penalty
    assert float(gradient.abs().max()) < 1e-9 * float((scaled.T @ rest).abs().max())


def test_ridge_of_few_samples_leaves_the_same_out_as_of_many() -> None:
    """Both forms solve one problem: their errors of validation agree to rounding."""
    x = features(48, columns=60)
    y = torch.sin(torch.arange(48.0).double())
    scale, folds = root_mean_square(x), [slice(0, 16), slice(16, 48)]
    forms = [form(x, y, scale, folds) for form in (_Samples, _Features)]
    few, many = ([form.left_out(fold, 0.3) for fold in (0, 1)] for form in forms)
    for one, other in zip(few, many, strict=True):
        assert torch.allclose(one, other, atol=1e-10)


def test_ridge_without_noise_finds_the_weights_and_the_least_penalty() -> None:
    x = features(200)
    model = Ridge(COUNTS).fit(x, x @ weights())
    fresh = features(30, seed=1)
    assert model.alpha_ == min(ALPHAS)
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


def test_products_are_the_same_from_the_same_seed(doubles: Any) -> None:
    x = features(60).float()
    y = (x[:, 4] * x[:, 5]).double()
    one, other = (Multilinear(COUNTS, epochs=2, batch=16).fit(x, y).predict(x) for _ in range(2))
    assert torch.equal(one, other)
    with doubles():
        assert torch.equal(one, Multilinear(COUNTS, epochs=2, batch=16).fit(x, y).predict(x))


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


def transform() -> AtomicHarmonics:
    return AtomicHarmonics(ELEMENTS, J=4, L=2, across=4, dtype=torch.float64)


def kernel(**options: Any) -> AtomicKernel:
    return AtomicKernel(transform(), **{"landmarks": 150, **options})


def products(**options: Any) -> AtomicProducts:
    return AtomicProducts(transform(), **{"products": 150, **options})


ATOMIC = pytest.mark.parametrize("make", [kernel, products], ids=["kernel", "products"])


@ATOMIC
def test_sums_over_atoms_learn_a_potential_far_better_than_the_composition(make: Any) -> None:
    train, test = molecules(120), molecules(30, 500)
    model = make().fit(train, energies(train))
    composition = model.composition_.predict(model.counts(test))
    error, baseline = (
        float((found - energies(test)).abs().mean()) for found in (model.predict(test), composition)
    )
    assert error < 0.3 * baseline


@ATOMIC
def test_what_is_predicted_is_invariant_and_extensive(make: Any) -> None:
    train, test = molecules(40), molecules(6, 500)
    model = make().fit(train, energies(train))
    found = model.predict(test)
    scale = float(found.abs().max())
    assert float((model.predict(moved(test, rotation(1, -1.0))) - found).abs().max()) < 1e-8 * scale
    apart = torch.arange(6, dtype=torch.float64)[:, None] * torch.tensor([80.0, 0, 0])
    together = Molecules.of([(test.positions + apart[test.owner], test.charges)])
    assert float((model.predict(together) - found.sum()).abs()) < 1e-8 * scale


@ATOMIC
def test_a_prediction_does_not_depend_on_what_is_predicted_beside_it(make: Any) -> None:
    """In single precision: only the order of sums within matrix products may differ."""
    train, test = molecules(60), molecules(40, 500)
    model = make()
    model.transform = AtomicHarmonics(ELEMENTS, J=4, L=2, across=4)
    whole = model.fit(train, energies(train)).predict(test)
    alone = torch.cat([model.predict(test[i : i + 1]) for i in range(len(test))])
    assert float((whole - alone).abs().max()) < 1e-5 * float(whole.abs().max())


@ATOMIC
def test_sums_over_atoms_minimise_what_they_say(make: Any) -> None:
    train = molecules(30)
    model: AtomicRegression = make(alpha=1e-3).fit(train, energies(train))
    rows, penalty = model.sums(train).double(), model.penalty()
    whole = torch.eye(model.size, dtype=torch.float64) if penalty is None else penalty
    rest = energies(train) - model.composition_.predict(model.counts(train))
    gradient = rows.T @ (rows @ model.weights_ - rest) + 1e-3 * 30 * whole @ model.weights_
    assert float(gradient.abs().max()) < 1e-8 * float((rows.T @ rest).abs().max())


def test_an_atom_is_like_itself_and_like_no_other_element() -> None:
    model = kernel()
    model.choose(molecules(20))
    among = model.penalty()
    assert torch.allclose(among.diagonal(), torch.ones(model.size, dtype=torch.float64))
    other = model.kinds_[:, None] != model.kinds_[None, :]
    assert not among[other].any()
    assert float(torch.linalg.eigvalsh(among).min()) > -1e-10


def test_products_are_a_polynomial_kernel() -> None:
    """With all monomials kept, the scalar product of features is ``(1 + <x, y> / spread)^3 - 1``.

    The constant is left to the composition.
    """
    train = molecules(12)
    model = products(products=10**6, degree=3)
    model.choose(train)
    carbon = model.kinds(train) == 1
    axes = model.axes_[1]
    x = ((model.normalised(train)[carbon] - model.means_[1]) @ axes)[:, :4]
    model.axes_[1, :, 4:] = 0  # few components, or there are too many monomials
    names, multiple, _ = monomials(np.ones(4), 3, 10**6)
    values = model._products(x, torch.from_numpy(names)) * torch.from_numpy(np.sqrt(multiple))
    assert torch.allclose(values @ values.T, (1 + x @ x.T) ** 3 - 1, rtol=ROUNDING, atol=ROUNDING)


def test_monomials_of_greatest_expected_square_are_kept() -> None:
    variances = np.array([0.5, 0.1, 0.02])
    every = monomials(variances, 2, 100)
    assert len(every[0]) == 3 + 6
    assert every[1].sum() == 4**2 - 1  # of (1 + a + b + c)^2 at a = b = c = 1
    names = [tuple(row) for row in every[0].tolist()]
    assert every[2][names.index((1, 2))] == pytest.approx(2 * 0.5 * 0.1)
    assert every[2][names.index((2, 2))] == pytest.approx(0.1**2)
    few = monomials(variances, 2, 2)
    assert few[0].tolist() == [[1, 0], [2, 0], [1, 1], [1, 2]]


def test_an_element_seen_once_is_left_to_the_composition() -> None:
    """So are atoms that are all alike, such as the hydrogens of a tetrahedron."""
    corners = torch.tensor([[1.0, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]]).double() * 0.63
    hydride = (torch.cat([torch.zeros(1, 3).double(), corners]), torch.tensor([8, 1, 1, 1, 1]))
    train = Molecules.of([hydride, *(molecule(4, seed) for seed in range(12))])
    model = products(products=40)
    model.choose(train)
    assert model.size == 40
    with pytest.raises(InvalidParameter, match="no two atoms"):
        products().choose(Molecules.of([hydride]))


def test_principal_components_are_those_of_the_covariance() -> None:
    generator = torch.Generator().manual_seed(0)
    scales = 2.0 ** -torch.arange(12.0, dtype=torch.float64)
    rows = torch.randn(200, 12, generator=generator, dtype=torch.float64) * scales
    rows = rows - rows.mean(0)
    axes, variances = principal(rows, 5, generator)
    exact = torch.linalg.eigvalsh(rows.T @ rows / 200).flip(0)
    assert torch.allclose(variances, exact[:5], rtol=1e-10)
    assert torch.allclose(axes.T @ axes, torch.eye(5, dtype=torch.float64), atol=ROUNDING)


@pytest.mark.parametrize("molecules", [20, 4])
def test_equations_are_those_of_all_molecules_at_once(molecules: int) -> None:
    generator = torch.Generator().manual_seed(1)
    rows = torch.randn(molecules, 5, generator=generator, dtype=torch.float64)
    y, unit = rows[:, 0] ** 2, torch.eye(5, dtype=torch.float64)
    among = unit + 0.1
    for penalty, forms in (
        (unit, (NormalEquations(5), DualEquations())),
        (among, (NormalEquations(5, among),)),
    ):
        strength = 0.1 * molecules * penalty
        exact = torch.linalg.solve(rows.T @ rows + strength, rows.T @ y)
        for equations in forms:
            for start in range(0, molecules, 7):
                equations.add(rows[start : start + 7], y[start : start + 7])
            assert torch.allclose(equations.weights(0.1), exact, rtol=1e-10)


def test_fewer_molecules_than_products_are_solved_for_molecules() -> None:
    """The solution is the same."""
    train, test = molecules(40), molecules(6, 500)
    many = products(products=150, alpha=1e-6).fit(train, energies(train))
    rows = many.sums(train).double()
    rest = energies(train) - many.composition_.predict(many.counts(train))
    normal = NormalEquations(many.size)
    normal.add(rows, rest)
    found = many.sums(test).double() @ normal.weights(1e-6)
    expected = many.predict(test) - many.composition_.predict(many.counts(test))
    assert torch.allclose(found, expected, rtol=1e-6)


class Known(DualEquations):
    """Equations whose weights err by the decades between the penalty and the best one."""

    def __init__(self, best: float) -> None:
        super().__init__()
        self.best, self.tried = best, list[float]()

    def weights(self, alpha: float) -> torch.Tensor:
        self.tried.append(alpha)
        return torch.tensor([math.log10(alpha / self.best)], dtype=torch.float64)


@pytest.mark.parametrize("best", [1e-13, 1e-10, 1e-9, 1e-8, 1e-5])
def test_the_penalty_is_that_of_least_error(best: float) -> None:
    """The search walks to it from the middle, in either direction, and tries none twice."""
    known, rest = Known(best), torch.zeros(1, dtype=torch.float64)
    assert products().validated(known, torch.ones(1, 1), rest) == pytest.approx(best)
    assert len(known.tried) == len(set(known.tried))


@ATOMIC
def test_a_penalty_of_0_is_one_that_was_given(make: Any) -> None:
    train = molecules(12)
    assert make(alpha=0.0).fit(train, energies(train)).alpha_ == 0


TABULAR = pytest.mark.parametrize(
    "model", [Composition(COUNTS), Ridge(COUNTS, 1e-3), Multilinear(COUNTS, epochs=2)]
)


@TABULAR
def test_arrays_tables_and_lists_are_learnt_from_as_tensors_are(model: Any) -> None:
    x = features(60)
    y = x @ weights()
    expected = model.fit(x, y).predict(x)
    table = pd.DataFrame(x.numpy()).astype({0: "int64"})
    strange = x.numpy()[::-1].astype(">f8")[::-1]
    for given, known in (
        (x.numpy(), y.numpy()),
        (strange, y.numpy()),
        (table, pd.Series(y.numpy())),
        (x.tolist(), y.tolist()),
        (x.clone().requires_grad_(), y),
    ):
        assert torch.equal(clone(model).fit(given, known).predict(given), expected)
    assert model.score(x.numpy(), y.numpy()) == pytest.approx(r2_score(y, expected))


@TABULAR
def test_scikit_learn_validates_searches_and_chains_regressions(model: Any) -> None:
    x = features(60).numpy()
    y = x @ weights().numpy()
    scores = cross_val_score(model, x, y, cv=3, error_score="raise")
    train = slice(20, 60)  # of the first fold
    assert scores[0] == pytest.approx(clone(model).fit(x[train], y[train]).score(x[:20], y[:20]))
    search = GridSearchCV(model, {"counts": [2, COUNTS]}, cv=2, error_score="raise").fit(x, y)
    assert search.best_params_["counts"] in (2, COUNTS)
    chain = make_pipeline(FunctionTransformer(), model).fit(x, y)
    assert torch.equal(chain.predict(x), clone(model).fit(x, y).predict(x))


@TABULAR
def test_features_that_do_not_fit_are_refused(model: Any) -> None:
    x, y = features(60), torch.ones(60)
    model.fit(x, y)
    for bad in (x[:, :2], x[0], x + 0j, np.zeros((2, 2))):
        with pytest.raises(ShapeMismatch, match=r"features are real \(sample, "):
            model.predict(bad)
    with pytest.raises(InvalidParameter, match="features are not finite"):
        clone(model).fit(x / 0, y)
    with pytest.raises(ShapeMismatch, match="an array of numbers"):
        clone(model).fit([["a"]], y)
    for counts in (-1, 13):
        with pytest.raises(InvalidParameter, match=f"counts={counts}, but there are 12 features"):
            clone(model).set_params(counts=counts).fit(x, y)


@pytest.mark.parametrize(
    "model",
    [Composition(COUNTS), Ridge(COUNTS, 1e-3), Multilinear(COUNTS, order=3), kernel(), products()],
)
def test_regressions_are_cloned_and_changed_as_scikit_learns_are(model: Any) -> None:
    made = clone(model)
    assert made is not model
    assert repr(made) == repr(model)
    if "alpha" in model.get_params():
        assert made.set_params(alpha=0.5) is made
        assert made.alpha == 0.5
    with pytest.raises(InvalidParameter, match="has no parameter 'depth'; it has"):
        made.set_params(depth=3)


def test_a_parameter_is_not_changed_to_what_it_cannot_be() -> None:
    model = Multilinear(COUNTS, order=3)
    with pytest.raises(InvalidParameter, match="order=4"):
        model.set_params(order=4)
    assert model.order == 3


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
    for begin in (kernel, products):
        atomic = begin().fit(train, energies(train))
        assert torch.equal(begin().load(atomic.state()).predict(train), atomic.predict(train))


def test_nothing_is_predicted_before_it_is_learnt() -> None:
    for model in (Composition(COUNTS), Ridge(COUNTS), Multilinear(COUNTS)):
        with pytest.raises(NotFitted, match="call fit first"):
            model.predict(features(2))


def test_targets_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ShapeMismatch, match="features"):
        Ridge(COUNTS).fit(features(4), torch.zeros(3))
    for begin in (Composition, Ridge, Multilinear):
        with pytest.raises(InvalidParameter, match="1 of 3 targets are not finite"):
            begin(COUNTS).fit(features(3), torch.tensor([0.0, torch.nan, 1.0]))
    with pytest.raises(InvalidParameter, match="1 of 3 targets are not finite"):
        products().fit(molecules(3), torch.tensor([0.0, torch.inf, 1.0]))
    with pytest.raises(InvalidParameter, match="order=4"):
        Multilinear(COUNTS, order=4)
    with pytest.raises(InvalidParameter, match="batch=0"):
        Multilinear(COUNTS, batch=0)
    with pytest.raises(InvalidParameter, match="landmarks=0"):
        kernel(landmarks=0)
    with pytest.raises(InvalidParameter, match="degree=0"):
        products(degree=0)
