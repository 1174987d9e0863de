"""Sparse codes: theorems, optimality, references, gradients, and learning of dictionaries."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.linalg import hadamard
from sklearn.linear_model import Lasso
from torch import Tensor

from wavemill import kernels
from wavemill.dictionaries import active_sets, dictionary
from wavemill.dictionaries.dictionary import (
    Dictionary,
    DictionaryLearning,
    fista,
    homotopy,
    ista,
    istc,
    lasso_violation,
)
from wavemill.errors import InvalidParameter, NotFitted, ShapeMismatch

LAYOUTS = pytest.mark.parametrize("laid_out", ["compiled", "narrow", "wide"])
SIGNS = pytest.mark.parametrize("positive", [True, False], ids=["positive", "signed"])


def lay_out(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Choose among the ways in which codes are computed on a CPU."""
    if how == "compiled":
        if not kernels.available():
            pytest.skip("the compiled loops are not built here")
        return
    monkeypatch.setattr(kernels.loading, "library", None)
    monkeypatch.setattr(active_sets, "_NARROW", 1e9 if how == "narrow" else 0)


def columns(channels: int, atoms: int, seed: int = 0) -> Tensor:
    """Unit columns, ``(channels, atoms)`` in float64."""
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(channels, atoms, generator=generator, dtype=torch.float64)
    return torch.nn.functional.normalize(drawn, dim=0)


def signals(D: Tensor, count: int, seed: int = 1) -> Tensor:
    """Unit signals ``(count, channels)``: five atoms of either sign, and noise."""
    generator = torch.Generator().manual_seed(seed)
    z = torch.zeros(count, D.shape[1], dtype=D.dtype)
    chosen = torch.rand(z.shape, generator=generator).topk(5).indices
    z.scatter_(1, chosen, torch.randn(count, 5, generator=generator, dtype=D.dtype))
    noise = torch.randn(count, len(D), generator=generator, dtype=D.dtype)
    return torch.nn.functional.normalize(z @ D.T + 0.05 * noise, dim=1)


def free(D: Tensor) -> Tensor:
    """Another analysis with ``diag(W^T D) = 1``."""
    U = D + 0.1 * columns(*D.shape, seed=7)
    return U + D * (1 - (U * D).sum(0))


@SIGNS
@pytest.mark.parametrize("seed", range(3))
def test_supports_stay_inside_the_true_one_and_errors_below_two_thresholds(
    seed: int, positive: bool
) -> None:
    """Theorem 3.1 of Zarka et al.: mu = 1/32 and 8 atoms, on the identity beside Hadamard's."""
    D = torch.cat([torch.eye(1024), torch.from_numpy(hadamard(1024)).float() / 32], 1).double()
    mu, size, gamma = (D.T @ D - torch.eye(2048)).abs().max(), 8, 1.5
    assert mu == 1 / 32
    assert 1 < gamma < 1 / (2 * mu * size)
    generator = torch.Generator().manual_seed(seed)
    z = torch.zeros(3, 2048, dtype=torch.float64)
    values = 0.2 + torch.rand(3, size, generator=generator, dtype=torch.float64)
    signs = torch.randint(0, 2, values.shape, generator=generator) * 2 - 1
    chosen = torch.rand(z.shape, generator=generator).topk(size).indices
    z.scatter_(1, chosen, values if positive else values * signs)
    noise = 1e-3 * torch.randn(3, 1024, generator=generator, dtype=torch.float64)
    beta = z @ D.T + noise
    least = float((noise @ D).abs().max()) / (1 - 2 * gamma * mu * size)
    first = float((beta @ D).abs().max())
    thresholds = first * gamma ** -torch.arange(1.0, 60.0, dtype=torch.float64)
    thresholds = thresholds[thresholds >= least]
    assert len(thresholds) > 5
    for n in range(1, len(thresholds) + 1):
        found = istc(beta, D, thresholds[:n], positive=positive)
        assert not ((found != 0) & (z == 0)).any()
        assert float((found - z).abs().max()) <= 2 * float(thresholds[n - 1])
    assert bool(((found != 0) == (z != 0)).all())  # by then the whole support is found


@pytest.fixture
def held(golden: Path) -> Iterator[Any]:
    """Codes of the reference, and what they were computed from."""
    with np.load(golden / "istc_C64_K256_n12.npz") as arrays:
        yield arrays


@pytest.mark.parametrize(("W", "z"), [(None, "z_W_eq_D"), ("W_free", "z_W_free")])
@pytest.mark.parametrize("laid_out", ["compiled", "narrow", "wide", "dense"])
def test_istc_agrees_with_the_reference_after_every_iteration(
    held: Any, W: str | None, z: str, laid_out: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All in float64: they differ by the order of sums of at most 256 terms of size 1."""
    beta = torch.from_numpy(held["beta"]).movedim(1, -1).repeat(2, 1, 1, 1)  # enough for M
    D, thresholds = torch.from_numpy(held["D"]), torch.from_numpy(held["lambdas"])
    analysis = torch.from_numpy(held[W]) if W else D
    if laid_out != "dense":
        lay_out(laid_out, monkeypatch)
    for n in range(1, 13):
        if laid_out == "dense":
            found = dictionary._istc(beta, D, analysis, thresholds[:n], True)
        else:
            found = istc(beta, D, thresholds[:n], analysis)
        expected = np.moveaxis(held[z][n - 1], 1, -1)
        np.testing.assert_allclose(found[:2].numpy(), expected, rtol=0, atol=1e-12)


def test_thresholds_are_those_of_the_reference(held: Any) -> None:
    expected = held["lambdas"]
    found = homotopy(float(expected[0] ** (12 / 11) / expected[-1] ** (1 / 11)), expected[-1], 12)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-12)


@pytest.mark.parametrize("solver", [ista, fista])
@pytest.mark.parametrize("penalty", ["lamstar", "2lamstar"])
@SIGNS
def test_lasso_agrees_with_the_reference(
    held: Any, solver: object, penalty: str, positive: bool
) -> None:
    beta = torch.from_numpy(held["beta"]).movedim(1, -1)
    D = torch.from_numpy(held["D"])
    strength = float(held["lambdas"][-1]) * (2 if penalty.startswith("2") else 1)
    steps = 1500 if solver is ista else 400
    found = solver(beta, D, strength, steps, positive=positive)  # type: ignore[operator]
    objective = 0.5 * (beta - found @ D.T).square().sum(-1) + strength * found.abs().sum(-1)
    name = f"lasso_obj_{'pos' if positive else 'signed'}_{penalty}"
    # the objective converges as 1 / steps at worst; these have nearly all their decimals
    np.testing.assert_allclose(objective.flatten().numpy(), held[name], rtol=1e-5)
    assert float((objective.flatten() - torch.from_numpy(held[name])).min()) > -1e-12


@SIGNS
def test_optimality_conditions_hold_at_the_solution_and_fail_before(positive: bool) -> None:
    D = columns(24, 60)
    beta = signals(D, 7)
    solved = fista(beta, D, 0.1, 3000, positive=positive)
    assert float(lasso_violation(beta, D, solved, 0.1, positive).max()) < 1e-9
    early = fista(beta, D, 0.1, 5, positive=positive)
    assert float(lasso_violation(beta, D, early, 0.1, positive).min()) > 1e-4
    assert float(lasso_violation(beta, D, -solved.abs() - 1, 0.1, positive).min()) > 0.1


@SIGNS
def test_lasso_is_scikit_learns(positive: bool) -> None:
    """Its ``alpha`` is the penalty over the number of channels; its tolerance is the dual gap's."""
    D = columns(24, 60)
    beta = signals(D, 4)
    ours = fista(beta, D, 0.1, 3000, positive=positive)
    peer = Lasso(0.1 / 24, fit_intercept=False, positive=positive, tol=1e-13, max_iter=100_000)
    for signal, code in zip(beta, ours, strict=True):
        theirs = peer.fit(D.numpy(), signal.numpy()).coef_
        np.testing.assert_allclose(code.numpy(), theirs, rtol=0, atol=1e-6)


@SIGNS
def test_the_solution_is_the_fixed_point_of_ista(positive: bool) -> None:
    D = columns(24, 60)
    beta = signals(D, 4)
    solved = fista(beta, D, 0.1, 4000, positive=positive)
    step = 1.9 / float(torch.linalg.matrix_norm(D, 2)) ** 2
    z = solved
    for _ in range(3):
        v = z + step * (beta - z @ D.T) @ D
        z = dictionary.soft_threshold(v, step * 0.1, positive)
    np.testing.assert_allclose(z.numpy(), solved.numpy(), rtol=0, atol=1e-10)


def test_a_unit_step_diverges_on_a_redundant_dictionary() -> None:
    D = columns(24, 192)
    beta = signals(D, 3)
    assert float(torch.linalg.matrix_norm(D, 2)) ** 2 > 8
    assert float(ista(beta, D, 0.05, 60, step=1.0).abs().max()) > 1e6
    assert float(ista(beta, D, 0.05, 60).abs().max()) < 2


@LAYOUTS
@SIGNS
def test_gradients_are_those_of_finite_differences(
    laid_out: str, positive: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    lay_out(laid_out, monkeypatch)
    D = columns(5, 10)
    W, beta = free(D), signals(D, 4)
    thresholds = homotopy(0.9, 0.2, 3)
    inputs = [value.clone().requires_grad_() for value in (beta, D, W, thresholds)]

    def coded(beta: Tensor, D: Tensor, W: Tensor, thresholds: Tensor) -> Tensor:
        return istc(beta, D, thresholds, W, positive=positive)

    assert torch.autograd.gradcheck(coded, inputs)


@LAYOUTS
@SIGNS
def test_gradients_by_supports_are_those_of_the_formula(
    laid_out: str, positive: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """W is D, so that two gradients meet in one parameter; results differ by rounding."""
    lay_out(laid_out, monkeypatch)
    D = columns(16, 80)
    beta, thresholds = signals(D, 50), homotopy(1.0, 0.1, 12)
    weights = torch.randn(50, 80, generator=torch.Generator().manual_seed(3)).double()
    found = []
    for coded in (
        lambda b, A: istc(b, A, thresholds, positive=positive),
        lambda b, A: dictionary._istc(b, A, A, thresholds, positive),
    ):
        inputs = [beta.clone().requires_grad_(), D.clone().requires_grad_()]
        torch.autograd.backward((coded(*inputs) * weights).sum())
        found.append([value.grad for value in inputs])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


@LAYOUTS
def test_signals_without_any_atom_are_coded_by_nothing(
    laid_out: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lay_out(laid_out, monkeypatch)
    D = columns(8, 20)
    beta = torch.zeros(6, 8, dtype=torch.float64, requires_grad=True)
    z = istc(beta, D, homotopy(1.0, 0.1, 3))
    torch.autograd.backward(z.sum())
    assert not z.any()
    assert beta.grad is not None
    assert not beta.grad.any()


def test_constraints_hold_for_any_values_of_the_parameters() -> None:
    learnt = Dictionary(6, 15, free=True).double()
    with torch.no_grad():
        for parameter in learnt.parameters():
            parameter.normal_(std=3, generator=torch.Generator().manual_seed(2))
    before = [parameter.clone() for parameter in learnt.parameters()]
    D = learnt.D()
    torch.testing.assert_close(D.norm(dim=0), torch.ones(15, dtype=torch.float64))
    torch.testing.assert_close((learnt.W(D) * D).sum(0), torch.ones(15, dtype=torch.float64))
    learnt(torch.randn(4, 6, dtype=torch.float64), homotopy(1.0, 0.1, 5))
    for parameter, value in zip(learnt.parameters(), before, strict=True):
        assert torch.equal(parameter, value)  # nothing is renormalised in place


def test_a_free_analysis_begins_as_the_dictionary() -> None:
    learnt = Dictionary(6, 15, free=True)
    torch.testing.assert_close(learnt.W(learnt.D()), learnt.D())


def test_codes_keep_the_shape_of_the_signals() -> None:
    D = columns(8, 20)
    beta = signals(D, 12)
    flat = istc(beta, D, homotopy(1.0, 0.1, 6))
    assert torch.equal(istc(beta.view(3, 2, 2, 8), D, homotopy(1.0, 0.1, 6)).view(12, 20), flat)


CODERS = {
    "istc": partial(istc, thresholds=homotopy(2.0, 0.05, 15)),
    "fista": partial(fista, penalty=0.05, iterations=40),
}


@pytest.mark.parametrize("coded", CODERS)
def test_a_planted_dictionary_is_learnt_again(coded: str) -> None:
    """Positive codes of two of twelve orthonormal atoms; penalties bias what is found."""
    planted = torch.linalg.qr(columns(16, 12, seed=5)).Q
    generator = torch.Generator().manual_seed(6)
    z = torch.zeros(1500, 12, dtype=torch.float64)
    chosen = torch.rand(z.shape, generator=generator).topk(2).indices
    z.scatter_(1, chosen, 0.5 + torch.rand(1500, 2, generator=generator, dtype=torch.float64))
    coder = partial(CODERS[coded], positive=True)
    model = DictionaryLearning(16, coder, epochs=12, batch=300).fit(z @ planted.T)
    assert model.errors_[-1] < 0.2 * model.errors_[0]
    found = (planted.T @ model.atoms_).amax(1)
    assert int((found > 0.98).sum()) >= 10, found


def test_learning_is_the_same_for_the_same_seed() -> None:
    x = signals(columns(8, 20), 100)
    learnt = partial(DictionaryLearning, 10, CODERS["fista"], epochs=2, batch=30, seed=4)
    one, other = (learnt().fit(x) for _ in range(2))
    assert torch.equal(one.atoms_, other.atoms_)


def test_what_is_learnt_does_not_depend_on_units() -> None:
    x, unit = signals(columns(8, 20), 200), 1e-8
    one, other = (
        DictionaryLearning(10, partial(fista, penalty=0.1 * by, iterations=40)).fit(by * x)
        for by in (1.0, unit)
    )
    torch.testing.assert_close(other.atoms_, one.atoms_, rtol=0, atol=1e-9)


def test_what_cannot_be_coded_is_refused() -> None:
    D = columns(8, 20)
    with pytest.raises(ShapeMismatch, match=r"signals \(3, 7\)"):
        istc(torch.zeros(3, 7), D, homotopy(1, 0.1, 3))
    with pytest.raises(NotFitted):
        DictionaryLearning(3, CODERS["istc"]).transform(torch.zeros(2, 8))
    with pytest.raises(ShapeMismatch, match="D is"):
        Dictionary(4, 5, start=D)


@pytest.mark.parametrize(
    ("thresholds", "message"),
    [
        ([], "one an iteration"),
        (0.1, "one an iteration"),
        (torch.ones(3, 2), "one an iteration"),
        ([0.5, float("nan")], "0 or more"),
        (torch.tensor([0.5, -0.1]), "0 or more"),
    ],
)
def test_thresholds_are_a_list_of_numbers_above_0(thresholds: Any, message: str) -> None:
    D = columns(8, 8)
    with pytest.raises(InvalidParameter, match=message):
        istc(torch.zeros(40, 8).double(), D, thresholds)
    given = torch.tensor([0.5, 0.1], dtype=torch.float64)
    assert torch.equal(istc(D.T, D, [0.5, 0.1]), istc(D.T, D, given))


def test_compiled_loops_are_given_an_iteration() -> None:
    with pytest.raises(ValueError, match="0 iterations"):
        kernels.istc(EYE, EYE, torch.zeros(0), kernels.Coding(4, 4, 4, 0, True))


@LAYOUTS
def test_a_gradient_is_not_differentiated_again(
    laid_out: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hand-written gradient cannot be differentiated: the result would be 0."""
    lay_out(laid_out, monkeypatch)
    D = columns(8, 20).requires_grad_()
    z = istc(signals(D.detach(), 30), D, homotopy(1, 0.1, 3))
    with pytest.raises(NotImplementedError, match="soft_threshold"):
        torch.autograd.grad(z.sum(), D, create_graph=True)


@LAYOUTS
def test_codes_that_diverge_do_not_begin_again(
    laid_out: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They overflow, and NaN exceeds no threshold."""
    lay_out(laid_out, monkeypatch)
    D = columns(10, 200).float()
    beta, thresholds = signals(D, 60), torch.full((300,), 0.01)
    assert not dictionary._istc(beta, D, D, thresholds, False).isfinite().any()
    assert not istc(beta, D, thresholds, positive=False).isfinite().any()


EYE = torch.eye(4)
REFUSED: dict[str, tuple[Callable[[], object], str]] = {
    "rising": (lambda: homotopy(0.1, 1.0, 3), "thresholds fall"),
    "infinite": (lambda: homotopy(float("inf"), 1.0, 3), "thresholds fall"),
    "part of an iteration": (lambda: homotopy(1.0, 0.1, 2.5), "thresholds fall"),  # type: ignore[arg-type]
    "penalty": (lambda: fista(EYE, EYE, -0.1), r"penalty=-0\.1"),
    "iterations": (lambda: ista(EYE, EYE, 0.1, -1), "iterations=-1"),
    "step": (lambda: ista(EYE, EYE, 0.1, step=-1.0), r"step=-1\.0"),
    "no step": (lambda: fista(EYE, EYE, 0.1, step=float("nan")), "step=nan"),
    "no atoms": (lambda: istc(EYE, EYE[:, :0], [0.1]), "C and K 1 or more"),
    "precisions": (lambda: fista(EYE, EYE.double(), 0.1), "one precision"),
    "whole numbers": (lambda: istc(EYE.long(), EYE.long(), [0.1]), "one precision"),
    "zeros": (lambda: Dictionary(4, 5, start=torch.zeros(4, 5)), "none of them zero"),
    "of nothing": (lambda: Dictionary(4, 0), "atoms=0"),
    "learns nothing": (lambda: DictionaryLearning(0, CODERS["istc"]), "atoms=0"),
    "never": (lambda: DictionaryLearning(3, CODERS["istc"], epochs=0), "epochs=0"),
    "from nothing": (lambda: DictionaryLearning(3, CODERS["istc"], batch=0), "batch=0"),
    "forgets": (lambda: DictionaryLearning(3, CODERS["istc"], forget=1.5), r"forget=1\.5"),
}


@pytest.mark.parametrize("refused", REFUSED)
def test_numbers_that_mean_nothing_are_refused(refused: str) -> None:
    call, message = REFUSED[refused]
    with pytest.raises(InvalidParameter, match=message):
        call()


@pytest.mark.parametrize("coder", [partial(istc, thresholds=[0.5, 0.1]), partial(fista, penalty=1)])
def test_half_precision_codes_what_single_does(coder: Callable[..., Tensor]) -> None:
    D = columns(8, 20)
    beta = signals(D, 5)
    found = coder(beta.half(), D.half(), positive=True)
    assert found.dtype == torch.float16
    expected = coder(beta.half().float(), D.half().float(), positive=True)
    torch.testing.assert_close(found.float(), expected, rtol=0, atol=0.02)


@pytest.mark.parametrize("broken", [float("nan"), float("inf")])
def test_codes_of_what_is_no_number_are_none_either(broken: float) -> None:
    beta, D = torch.ones(2, 4), torch.eye(4)
    beta[1, 0] = broken
    z = istc(beta, D, homotopy(1, 0.1, 4))
    assert z[0].isfinite().all()
    assert z[1].isnan().any()
    assert istc(torch.ones(2, 4), D * broken, homotopy(1, 0.1, 4)).isnan().any()


def test_a_dictionary_of_zeros_codes_nothing_and_zeros_teach_none() -> None:
    assert not fista(torch.ones(2, 4), torch.zeros(4, 3), 0.1).any()
    learning = DictionaryLearning(2, partial(fista, penalty=0.1), epochs=1)
    for signals in (torch.zeros(5, 4), torch.full((5, 4), float("nan"))):
        with pytest.raises(InvalidParameter, match="finite, and some not zero"):
            learning.fit(signals)
    for signals in (torch.zeros(0, 4), torch.ones(2, 3, 4)):
        with pytest.raises(ShapeMismatch, match=r"\(sample, C\)"):
            learning.fit(signals)
