"""Limited-memory BFGS that asks for one gradient at a time, so that many descents share each batch.

With the last m steps s and changes of gradient y, the direction ``-H g`` is the two-loop recursion,
run on coefficients: every vector in it is a combination of s, y and g, whose inner products are
all that the recursion needs. Each step of a descent reads its memory twice, whatever m.

A step t along d is accepted by the weak Wolfe conditions

    f(x + t d) <= f(x) + 1e-4 t f'(x; d) ,     f'(x + t d; d) >= 0.9 f'(x; d) ,

and found by bracketing. Sources: Nocedal and Wright, *Numerical optimization*, algorithm 7.4; Chen,
Wang and Zhou, *Large-scale L-BFGS using MapReduce*, NIPS 2014 (inner products); Lewis and Overton,
*Nonsmooth optimization via quasi-Newton methods*, Math. Program. 141, 135 (2013) (bracketing), as
moduli are not smooth at 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Self

import numpy as np
import torch
from torch import Tensor

MEMORY = 20  # pairs (s, y) kept
TRIALS = 20  # steps tried along one direction
DECREASE, CURVATURE = 1e-4, 0.9
SCALARS = (
    "loss",
    "slope",
    "step",
    "low",
    "high",
    "trials",
    "pairs",
    "least",
    "stopped",
    "restarts",
)

Evaluate = Callable[[Tensor], tuple[Tensor, Tensor]]


class Descent:
    """L-BFGS on one field.

    :attr:`trial` is where a loss and its gradient are wanted, :meth:`receive` takes them. When no
    step along a direction will do, the memory is dropped and descent restarts along the gradient;
    when that fails too, it has stopped.

    Parameters
    ----------
    start
        Where to begin, ``(y, x)`` or any shape, float64.
    dtype
        Precision of what is remembered.
    tolerance, gradient_tolerance
        Stop once the loss, or the norm of its gradient, is this small relative to the first.

    Attributes
    ----------
    best
        The field of the least loss seen.
    losses
        Loss at each gradient received.
    """

    def __init__(
        self,
        start: Tensor,
        dtype: torch.dtype = torch.float64,
        tolerance: float = 0.0,
        gradient_tolerance: float = 0.0,
    ) -> None:
        self.best = self.trial = self.x = start
        self.dtype, self.tolerance, self.gradient_tolerance = dtype, tolerance, gradient_tolerance
        self.losses: list[float] = []
        self.gradient = self.direction = torch.zeros_like(start, dtype=dtype)
        self.memory = torch.zeros(2 * MEMORY, start.numel(), dtype=dtype, device=start.device)
        self.products = np.zeros((2 * MEMORY, 2 * MEMORY))  # of s_0.. and y_0.. with each other
        self.first_norm = math.inf
        self.loss = self.least = math.inf
        self.slope = self.step = self.low = 0.0
        self.high = math.inf
        self.trials = self.pairs = self.restarts = 0
        self.stopped = False

    def receive(self, loss: float, gradient: Tensor) -> None:
        """Take the loss and its gradient at :attr:`trial`, and choose the next trial."""
        gradient = gradient.to(self.dtype)
        self.losses.append(loss)
        if loss < self.least:
            self.least, self.best = loss, self.trial
        if len(self.losses) == 1:
            self.loss, self.gradient, self.first_norm = loss, gradient, _norm(gradient)
            self._restart()
            return
        slope = _dot(gradient, self.direction)
        if self._too_high(loss):
            self.high = self.step
        elif slope < CURVATURE * self.slope:
            self.low = self.step
        else:
            self._accept(loss, gradient)
            return
        self._try_another(loss, slope)

    def state(self) -> dict[str, Tensor]:
        """Return everything that the rest of the descent depends on."""
        scalars = [float(getattr(self, name)) for name in (*SCALARS, "first_norm")]
        return {
            **{
                name: getattr(self, name)
                for name in ("x", "trial", "best", "gradient", "direction")
            },
            "memory": self.memory,
            "products": torch.from_numpy(self.products),
            "losses": torch.tensor(self.losses, dtype=torch.float64),
            "scalars": torch.tensor(scalars, dtype=torch.float64),
        }

    @classmethod
    def from_state(
        cls, state: Mapping[str, Tensor], tolerance: float = 0.0, gradient_tolerance: float = 0.0
    ) -> Self:
        """Continue from :meth:`state`, to the same fields."""
        held = {name: value.clone() for name, value in state.items()}
        descent = cls(held["x"], held["gradient"].dtype, tolerance, gradient_tolerance)
        for name in ("trial", "best", "gradient", "direction", "memory"):
            setattr(descent, name, held[name])
        descent.products = held["products"].cpu().numpy()
        descent.losses = held["losses"].tolist()
        for name, value in zip((*SCALARS, "first_norm"), held["scalars"].tolist(), strict=True):
            kind = type(getattr(descent, name))
            setattr(descent, name, kind(value))
        return descent

    def _too_high(self, loss: float) -> bool:
        noise = 4 * torch.finfo(self.dtype).eps * abs(self.loss)
        return not loss <= self.loss + DECREASE * self.step * self.slope + noise

    def _accept(self, loss: float, gradient: Tensor) -> None:
        """Move to the trial, remember the step, and set out anew."""
        slot = self.pairs % MEMORY
        self.memory[slot] = (self.step * self.direction).flatten()
        self.memory[MEMORY + slot] = (gradient - self.gradient).flatten()
        self.x, self.loss, self.gradient, self.restarts = self.trial, loss, gradient, 0
        self.pairs += 1
        small = loss <= self.tolerance * self.losses[0]
        if small or _norm(gradient) <= self.gradient_tolerance * self.first_norm:
            self.stopped = True
            return
        self._set_out(self._newton_direction(slot), 1.0)

    def _newton_direction(self, slot: int) -> Tensor:
        """Return ``-H g`` by the two-loop recursion on coefficients of s_0.., y_0.., g."""
        new = [self.memory[slot], self.memory[MEMORY + slot], self.gradient.flatten()]
        inner = (self.memory @ torch.stack(new, dim=1)).double().cpu().numpy()
        for place, column in ((slot, 0), (MEMORY + slot, 1)):
            self.products[place] = self.products[:, place] = inner[:, column]
        s = [(self.pairs - 1 - age) % MEMORY for age in range(min(self.pairs, MEMORY))]
        products, along_g = self.products, inner[:, 2]
        coefficients, of_g = np.zeros(2 * MEMORY), -1.0
        alpha = {}
        for i in s:
            y = MEMORY + i
            alpha[i] = (products[i] @ coefficients + of_g * along_g[i]) / products[i, y]
            coefficients[y] -= alpha[i]
        newest = MEMORY + slot
        scale = products[slot, newest] / products[newest, newest]
        coefficients, of_g = coefficients * scale, of_g * scale
        for i in reversed(s):
            y = MEMORY + i
            beta = (products[y] @ coefficients + of_g * along_g[y]) / products[i, y]
            coefficients[i] += alpha[i] - beta
        weights = torch.from_numpy(coefficients).to(self.memory)
        return (weights @ self.memory).view_as(self.gradient).add_(self.gradient, alpha=of_g)

    def _set_out(self, direction: Tensor, step: float) -> None:
        slope = _dot(self.gradient, direction)
        if not slope < 0:
            self._restart()
            return
        self.direction, self.slope = direction, slope
        self.low, self.high, self.trials = 0.0, math.inf, 0
        self._move(step)

    def _restart(self) -> None:
        """Drop the memory and go along the gradient; stop if that has just failed."""
        norm = _norm(self.gradient)
        self.restarts += 1
        if self.restarts > 1 or not 0 < norm < math.inf:
            self.stopped = True
            return
        self.pairs = 0
        self.memory.zero_()
        self.products[:] = 0
        self._set_out(-self.gradient, 1 / norm)

    def _try_another(self, loss: float, slope: float) -> None:
        """Choose a step within the bracket, by a parabola from what is known of one end."""
        self.trials += 1
        if self.trials == TRIALS:
            self._restart()
        elif self.high == math.inf:
            guess = (
                self.step * self.slope / (self.slope - slope) if slope > self.slope else math.inf
            )
            self._move(min(max(guess, 1.5 * self.step), 10 * self.step))
        elif self.low > 0 or not math.isfinite(loss):
            self._move((self.low + self.high) / 2)
        else:
            excess = loss - self.loss - self.slope * self.step
            guess = self.step * (-self.slope * self.step / (2 * excess)) if excess > 0 else 0.0
            self._move(min(max(guess, 0.1 * self.high), 0.7 * self.high))

    def _move(self, step: float) -> None:
        self.step = step
        self.trial = self.x + step * self.direction


def descend(
    descents: Sequence[Descent],
    evaluate: Evaluate,
    iterations: int,
    after: Callable[[list[int]], None] = lambda _: None,
) -> None:
    """Advance all descents together until each has stopped or taken ``iterations`` gradients.

    Parameters
    ----------
    descents
        One a field.
    evaluate
        Returns losses ``(n)`` and gradients ``(n, ...)`` of ``n`` trials.
    iterations
        Most gradients for each.
    after
        Called after each batch with the numbers of the descents that were in it.
    """
    while active := pending(descents, iterations):
        losses, gradients = evaluate(torch.stack([descents[number].trial for number in active]))
        for number, loss, gradient in zip(active, losses.tolist(), gradients, strict=True):
            descents[number].receive(loss, gradient)
        after(active)


def pending(descents: Sequence[Descent], iterations: int) -> list[int]:
    """Return the numbers of the descents that go on, whose trials are evaluated next."""
    return [
        number
        for number, descent in enumerate(descents)
        if not descent.stopped and len(descent.losses) < iterations
    ]


def _dot(a: Tensor, b: Tensor) -> float:
    return float(torch.dot(a.flatten(), b.flatten()))


def _norm(a: Tensor) -> float:
    return float(torch.linalg.vector_norm(a))
