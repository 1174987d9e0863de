"""The Metropolis-adjusted Langevin algorithm (MALA), on fields of mean 0.

    y' = y - e grad E(y) + sqrt(2 e) n ,   accepted with probability min(1, p(y') q(y | y') / ...) .

Sources: Roberts and Tweedie, *Exponential convergence of Langevin distributions and their discrete
approximations*, Bernoulli 2, 341 (1996); for the acceptance aimed at, Roberts and Rosenthal,
*Optimal scaling of discrete approximations to Langevin diffusions*, J. R. Stat. Soc. B 60, 255
(1998).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from wavemill.errors import DivergentModel
from wavemill.maxent.samples import white_noise

ACCEPTANCE = 0.574  # at which MALA moves fastest in many dimensions
FAR = 5.0  # root mean square of y, 1 at the fitted spectrum, from which no chain comes back


class Chain:
    """One Markov chain; its step adapts while it warms up.

    Parameters
    ----------
    energy_and_gradient
        E of a field y and its gradient ``(y, x)``, float64.
    shape
        Grid ``(y, x)``.
    index, seed
        Of the chain: what it draws depends on both.
    """

    def __init__(
        self,
        energy_and_gradient: Callable[[Tensor], tuple[float, Tensor]],
        shape: tuple[int, int],
        index: int,
        seed: int,
    ) -> None:
        self._form = energy_and_gradient
        self.y = centred(white_noise(index, shape, seed))
        self._generator = torch.Generator().manual_seed((seed * 7_368_787 + index + 1) % 2**63)
        self.step = 0.5 / math.prod(shape) ** (1 / 3)
        self.energy, self.gradient = energy_and_gradient(self.y)
        self._moves = self._accepted = 0

    @property
    def acceptance(self) -> float:
        """Fraction of proposals accepted after warming up, while the step no longer adapts."""
        return self._accepted / max(self._moves, 1)

    def move(self, warming: bool) -> None:
        """Propose a step and accept it or stay.

        Raises
        ------
        DivergentModel
            If the chain has run off to infinity.
        """
        draw = torch.randn(self.y.shape, generator=self._generator, dtype=torch.float32)
        noise = centred(draw.double())
        proposal = self.y - self.step * self.gradient + math.sqrt(2 * self.step) * noise
        energy, gradient = self._form(proposal)
        back = (self.y - proposal + self.step * gradient).square().sum() / (4 * self.step)
        log_ratio = self.energy - energy - float(back) + float(noise.square().sum()) / 2
        probability = math.exp(min(0.0, log_ratio)) if math.isfinite(log_ratio) else 0.0
        chance = torch.rand((), generator=self._generator, dtype=torch.float32)
        accepted = float(chance) < probability
        if accepted:
            self.y, self.energy, self.gradient = proposal, energy, gradient
            self._refuse_the_far()
        self._count(accepted, probability, warming)

    def _count(self, accepted: bool, probability: float, warming: bool) -> None:
        if warming:
            self.step *= math.exp((probability - ACCEPTANCE) / 10)
            return
        self._moves += 1
        self._accepted += accepted

    def _refuse_the_far(self) -> None:
        size = float(self.y.square().mean().sqrt())
        if size > FAR:
            raise DivergentModel(
                f"a chain went to {size:.1f} times the fitted spectrum's amplitude: this energy "
                "has no density; choose fewer moments, or fit to more fields"
            )


def centred(y: Tensor) -> Tensor:
    """Return y without its mean, on which energies do not depend."""
    return y - y.mean()
