"""Sparse codes in a dictionary: Lasso by ISTA and FISTA, homotopy by ISTC, and learning of D.

A signal beta of C channels is coded by z of K atoms, beta ~ D z, where D has unit columns:

    Lasso   min over z of  |beta - D z|^2 / 2 + penalty |z|_1
    ISTA    z <- T(z + step D^T (beta - D z), step penalty)          step < 2 / |D|^2
    ISTC    z <- T(z + W^T (beta - D z), lambda_n),   n = 1 .. N,    lambda_n falling to lambda_N

``T`` is soft thresholding, two-sided or keeping positive codes only. W is D, or free with
``diag(W^T D) = 1``. ISTC is not Lasso: it follows thresholds downwards in steps of length 1, with
which ISTA would diverge for a redundant D.

Signals are ``(..., C)``, codes ``(..., K)``, dictionaries ``(C, K)``.

Source: Daubechies, Defrise and De Mol, Comm. Pure Appl. Math. 57, 1413 (2004); Beck and Teboulle,
SIAM J. Imaging Sci. 2, 183 (2009); Zarka, Thiry, Angles and Mallat, ICLR 2020 (ISTC, theorem 3.1);
Mairal, Bach, Ponce and Sapiro, ICML 2009 (learning).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from numbers import Integral
from typing import Self

import torch
from torch import Tensor, nn

from wavemill.devices import beside_default
from wavemill.dictionaries.active_sets import coded_by_supports
from wavemill.errors import InvalidParameter, NotFitted, ShapeMismatch
from wavemill.operators import must_be_tensor
from wavemill.progress import Progress

Coder = Callable[[Tensor, Tensor], Tensor]
_BLOCK = 1 << 19  # entries of codes computed at a time on a CPU: they stay in its caches
_ROUNDING = 1e-12  # part of A_kk; a new atom shorter than that is rounding error
_DEAD = 1e-6  # an atom used less than this, relative to the mean, is drawn anew


def soft_threshold(v: Tensor, threshold: Tensor | float, positive: bool) -> Tensor:
    """Return ``sign(v) max(|v| - threshold, 0)``, or ``max(v - threshold, 0)`` if ``positive``."""
    if positive:
        return torch.relu(v - threshold)
    return v.sign() * torch.relu(v.abs() - threshold)


@beside_default
def homotopy(first: float, last: float, iterations: int) -> Tensor:
    """Return ``lambda_n = first (last / first)^(n / N)``, n = 1 .. N, in float64.

    Raises
    ------
    InvalidParameter
        Unless ``first >= last > 0`` are finite and there is an iteration.
    """
    if not math.inf > first >= last > 0 or not _is_count(iterations, 1):
        raise InvalidParameter(f"thresholds fall from {first=} to {last=} > 0 in {iterations=} > 0")
    n = torch.arange(1, iterations + 1, dtype=torch.float64)
    thresholds: Tensor = first * (last / first) ** (n / iterations)
    return thresholds


@beside_default
def ista(
    beta: Tensor,
    D: Tensor,
    penalty: float,
    iterations: int = 100,
    *,
    positive: bool = False,
    step: float | None = None,
) -> Tensor:
    """Return the Lasso's code after some iterations, of both signs unless ``positive``.

    The step is ``1 / |D|^2`` unless given. In half precision that norm alone is in float32.

    Raises
    ------
    InvalidParameter
        If the penalty or the number of iterations is negative, the step is not above 0, or signals
        and dictionary do not fit together.
    """
    step = _step(beta, D, penalty, iterations, step)
    z = beta.new_zeros(*beta.shape[:-1], D.shape[1])
    for _ in range(iterations):
        z = soft_threshold(z + step * (beta - z @ D.T) @ D, step * penalty, positive)
    return z


@beside_default
def fista(
    beta: Tensor,
    D: Tensor,
    penalty: float,
    iterations: int = 100,
    *,
    positive: bool = False,
    step: float | None = None,
) -> Tensor:
    """Return the Lasso's code as :func:`ista` does, but in fewer iterations.

    It has both signs unless ``positive``. With Nesterov's momentum the error falls as
    1 / iterations^2.
    """
    step, t = _step(beta, D, penalty, iterations, step), 1.0
    z = ahead = beta.new_zeros(*beta.shape[:-1], D.shape[1])
    for _ in range(iterations):
        following = soft_threshold(
            ahead + step * (beta - ahead @ D.T) @ D, step * penalty, positive
        )
        t, before = (1 + math.sqrt(1 + 4 * t * t)) / 2, t
        ahead = following + (before - 1) / t * (following - z)
        z = following
    return z


def _step(beta: Tensor, D: Tensor, penalty: float, iterations: int, step: float | None) -> float:
    _check(beta, D, D)
    if not 0 <= penalty < math.inf or not _is_count(iterations, 0):
        raise InvalidParameter(f"{penalty=} and {iterations=} must be 0 or more, and finite")
    if step is not None:
        if not 0 < step < math.inf:
            raise InvalidParameter(f"{step=} must be above 0 and finite, or None for 1 / |D|^2")
        return step
    wide = D.detach().to(torch.promote_types(D.dtype, torch.float32))
    norm = float(torch.linalg.matrix_norm(wide, 2))
    return 1 / norm**2 if norm else 0.0  # with a dictionary of zeros every code stays 0


@beside_default
def istc(
    beta: Tensor,
    D: Tensor,
    thresholds: Tensor | Sequence[float],
    W: Tensor | None = None,
    *,
    positive: bool = True,
) -> Tensor:
    """Return ISTC's code from z = 0, one iteration for each threshold; positive by default.

    On a CPU the work is proportional to the size of the supports (:mod:`.active_sets`), elsewhere
    to that of the dictionary. Both have gradients in beta, D, W and the thresholds, on a CPU only
    first ones: for second derivatives there, write the iteration above with :func:`soft_threshold`.

    Parameters
    ----------
    beta
        Signals ``(..., C)``.
    D, W
        Synthesis and analysis ``(C, K)``; W is D unless given.
    thresholds
        ``lambda_1 .. lambda_N``, as from :func:`homotopy`.
    positive
        Whether codes are kept above 0, which `ista` and `fista` do not do by default.

    Raises
    ------
    ShapeMismatch, InvalidParameter
        If signals and dictionary do not fit together, or if thresholds are missing, negative or not
        finite.
    """
    W = D if W is None else W
    _check(beta, D, W)
    thresholds = torch.as_tensor(thresholds, dtype=beta.dtype, device=beta.device)
    _check_thresholds(thresholds.detach())
    signals = beta.reshape(-1, len(D))
    if beta.device.type != "cpu" or not _are_finite(signals, D, W):
        return _istc(signals, D, W, thresholds, positive).reshape(*beta.shape[:-1], D.shape[1])
    blocks = torch.split(signals, max(1, _BLOCK // D.shape[1]))
    z = torch.cat(coded_by_supports(blocks, D, W, thresholds, positive))
    return z.reshape(*beta.shape[:-1], D.shape[1])


def _are_finite(*values: Tensor) -> bool:
    """Say whether all values are finite: in the comparisons that find supports, others become 0."""
    return all(math.isfinite(float(each.detach().sum())) for each in values)


def _istc(beta: Tensor, D: Tensor, W: Tensor, thresholds: Tensor, positive: bool) -> Tensor:
    z = soft_threshold(beta @ W, thresholds[0], positive)
    for threshold in thresholds[1:]:
        z = soft_threshold(z + (beta - z @ D.T) @ W, threshold, positive)
    return z


def _check(beta: Tensor, D: Tensor, W: Tensor) -> None:
    for one in (beta, D, W):
        must_be_tensor(one)
    fit = D.ndim == 2 and D.shape == W.shape and beta.shape[-1:] == D.shape[:1]
    if not fit or not D.numel():
        raise ShapeMismatch(
            f"signals {tuple(beta.shape)}, D {tuple(D.shape)}, W {tuple(W.shape)}: give (..., C) "
            "and twice (C, K), C and K 1 or more"
        )
    if not beta.dtype.is_floating_point or not beta.dtype == D.dtype == W.dtype:
        raise InvalidParameter(
            f"signals are {beta.dtype}, D {D.dtype}, W {W.dtype}: give real numbers of one "
            "precision, as by x.to(D)"
        )


def _check_thresholds(thresholds: Tensor) -> None:
    if thresholds.ndim != 1 or not len(thresholds):
        raise ShapeMismatch(
            f"thresholds {tuple(thresholds.shape)}: give (N,), one an iteration, as homotopy does"
        )
    if not bool(((thresholds >= 0) & thresholds.isfinite()).all()):
        raise InvalidParameter(f"thresholds must be 0 or more, and finite, got {thresholds}")


def _is_count(value: object, least: int) -> bool:
    return isinstance(value, Integral) and int(value) >= least


@beside_default
def lasso_violation(
    beta: Tensor, D: Tensor, z: Tensor, penalty: float, positive: bool = False
) -> Tensor:
    """Return how far each code ``(...)`` is from the Lasso's conditions (Karush, Kuhn, Tucker).

    Codes may have both signs unless ``positive``, which those of :func:`istc` are by default.
    With ``c = D^T (beta - D z)`` the conditions are ``c = penalty sign(z)`` on the support, and
    elsewhere ``|c| <= penalty``, or ``c <= penalty`` for positive codes.
    """
    _check(beta, D, D)
    correlation = (beta - z @ D.T) @ D
    on = (correlation - penalty * z.sign()).abs()
    off = torch.relu((correlation if positive else correlation.abs()) - penalty)
    wrong = torch.relu(-z) if positive else torch.zeros_like(z)
    return torch.maximum(torch.where(z != 0, on, off), wrong).amax(-1)


class Dictionary(nn.Module):
    """D with unit columns and W with ``diag(W^T D) = 1``, whatever the parameters V and U are.

        D = V / |V|,      W = U + D (1 - <U, D>)      column by column

    Parameters
    ----------
    channels, atoms
        C and K.
    free
        Whether W is a parameter of its own; it begins as D.
    start
        D to begin from, ``(C, K)``; independent normal values unless given.

    Raises
    ------
    InvalidParameter
        If there is no channel or atom, or a column of ``start`` has no direction.
    """

    def __init__(
        self, channels: int, atoms: int, free: bool = False, start: Tensor | None = None
    ) -> None:
        super().__init__()
        if not _is_count(channels, 1) or not _is_count(atoms, 1):
            raise InvalidParameter(f"{channels=} and {atoms=} must be 1 or more")
        start = torch.randn(channels, atoms) if start is None else start.detach()
        if start.shape != (channels, atoms):
            raise ShapeMismatch(f"D is {tuple(start.shape)}, not {(channels, atoms)}")
        lengths = start.to(torch.promote_types(start.dtype, torch.float32)).norm(dim=0)
        if not start.dtype.is_floating_point or not bool(
            ((lengths > 0) & lengths.isfinite()).all()
        ):
            raise InvalidParameter("columns of D must be real and finite, and none of them zero")
        self.V = nn.Parameter((start / lengths).to(start.dtype))
        self.U = nn.Parameter(self.V.detach().clone()) if free else None

    def D(self) -> Tensor:  # noqa: N802  (the field's name)
        """Return the synthesis ``(C, K)``."""
        return nn.functional.normalize(self.V, dim=0)

    def W(self, D: Tensor) -> Tensor:  # noqa: N802
        """Return the analysis ``(C, K)`` that belongs to ``D = self.D()``."""
        return D if self.U is None else self.U + D * (1 - (self.U * D).sum(0))

    def forward(self, beta: Tensor, thresholds: Tensor, positive: bool = True) -> Tensor:
        """Return ISTC codes ``(..., K)``, positive by default, of signals ``(..., C)``."""
        D = self.D()
        return istc(beta, D, thresholds, self.W(D), positive=positive)


class DictionaryLearning:
    """D learnt by reconstruction: codes, then atoms one after another in closed form.

    With ``A = sum z z^T`` and ``B = sum beta z^T`` over the batches so far, in which older batches
    count less and less, atom k becomes ``B_k - (D A)_k + D_k A_kk`` scaled to unit length: the best
    choice while the other atoms stay (Mairal et al., algorithm 2).

    Parameters
    ----------
    atoms
        K, the number of atoms.
    coder
        Returns the codes of signals in a dictionary: `fista` or `istc` with their parameters. ISTC
        costs less, but diverges where atoms are too coherent for its thresholds.
    epochs, batch
        Passes over the signals, and signals coded between two updates.
    forget
        Factor that older sums are multiplied by at each batch.
    seed
        Seed of the signals that atoms begin as, and of the order of all signals.

    Raises
    ------
    InvalidParameter
        If there are no atoms, epochs or signals in a batch, or ``forget`` is not in [0, 1].
    """

    def __init__(
        self,
        atoms: int,
        coder: Coder,
        *,
        epochs: int = 5,
        batch: int = 4096,
        forget: float = 0.9,
        seed: int = 0,
    ) -> None:
        if not all(_is_count(count, 1) for count in (atoms, epochs, batch)):
            raise InvalidParameter(f"{atoms=}, {epochs=} and {batch=} must be 1 or more")
        if not 0 <= forget <= 1:
            raise InvalidParameter(f"{forget=} must be in [0, 1]")
        self.atoms, self.coder, self.seed = atoms, coder, seed
        self.epochs, self.batch, self.forget = epochs, batch, forget

    def fit(self, x: Tensor, progress: Progress | None = None) -> Self:
        """Learn from signals ``(sample, C)``; ``errors_`` is the mean squared error by epoch.

        Raises
        ------
        InvalidParameter
            If there are no signals, or they are not finite, or all zero.
        """
        must_be_tensor(x)
        if not x.is_floating_point() or x.ndim != 2 or not x.numel():
            raise ShapeMismatch(
                f"signals are real (sample, C) of one or more, got {x.dtype} of {tuple(x.shape)}"
            )
        x = x.detach()
        if not bool(x.isfinite().all()) or not bool(x.any()):
            raise InvalidParameter("signals must be finite, and some not zero: leave others out")
        generator = torch.Generator().manual_seed(self.seed)
        self.atoms_: Tensor = self._drawn(x, self.atoms, generator)
        A, B = x.new_zeros(self.atoms, self.atoms), torch.zeros_like(self.atoms_)
        self.errors_: list[float] = []
        for epoch in range(self.epochs):
            error = 0.0
            for rows in torch.split(torch.randperm(len(x), generator=generator), self.batch):
                beta = x[rows]
                z = self.transform(beta)
                error += float((beta - z @ self.atoms_.T).square().sum())
                A, B = self.forget * A + z.T @ z, self.forget * B + beta.T @ z
                self._update(A, B, x, generator)
            self.errors_.append(error / x.numel())
            if progress is not None:
                progress(epoch + 1, self.epochs, {"error": self.errors_[-1]})
        return self

    def transform(self, x: Tensor) -> Tensor:
        """Return the codes ``(..., K)`` of signals ``(..., C)``."""
        if not hasattr(self, "atoms_"):
            raise NotFitted("DictionaryLearning has learnt nothing yet: call fit first")
        return self.coder(x, self.atoms_)

    def _drawn(self, x: Tensor, count: int, generator: torch.Generator) -> Tensor:
        rows = torch.randint(len(x), (count,), generator=generator)
        noise = torch.randn(count, x.shape[1], generator=generator, dtype=x.dtype)
        scale = 1e-3 * float(x.square().mean().sqrt())  # so that no two atoms are equal
        drawn = x[rows] + scale * noise
        atoms: Tensor = (drawn / drawn.norm(dim=1, keepdim=True)).T
        return atoms

    def _update(self, A: Tensor, B: Tensor, x: Tensor, generator: torch.Generator) -> None:
        used = A.diagonal() > _DEAD * A.diagonal().mean()
        D = self.atoms_
        for k in used.nonzero()[:, 0].tolist():
            atom = B[:, k] - D @ A[:, k] + D[:, k] * A[k, k]
            length = atom.norm()
            if length > _ROUNDING * A[k, k]:  # otherwise no direction is left
                D[:, k] = atom / length
        D[:, ~used] = self._drawn(x, int((~used).sum()), generator)
