"""Standardised features in batches: kept in memory if they fit, else read group by group."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from storage.typing import Array
from wavemill.dictionaries.team import Team
from wavemill.dictionaries.training import generator_seed

BUDGET = 4 * 2**30  # bytes of standardised features held at once
BLOCK = 32  # rows that stay together when a group is chosen: neighbours lie in one chunk
READ = 512
Read = Callable[[Array], Array]


@dataclass
class LabelledFeatures:
    """Features and classes of some samples.

    Attributes
    ----------
    read
        Returns the features of rows by number. Rows of side s, such as mirror images, begin at
        ``s len(labels)``, with the samples in the same order.
    labels
        A class for each row.
    standardisation
        Applied to what is read.
    sides
        How many versions of its features each sample has.
    budget
        Bytes that may be held.
    changed
        Returns a function that reads an epoch's samples, if each epoch changes them at random;
        then they are not held.
    """

    read: Read
    labels: Tensor
    standardisation: Callable[[Tensor], Tensor]
    sides: int = 1
    budget: int = BUDGET
    changed: Callable[[int], Read] | None = None
    _kept: Tensor | None = field(default=None, repr=False)

    def __len__(self) -> int:
        return len(self.labels)

    def features(self, rows: Array) -> Tensor:
        """Return standardised features ``(n, channel, y, x)`` of rows."""
        if self._kept is not None:
            return self._kept[torch.from_numpy(rows)]
        return self._through(self.read, rows)

    def _through(self, read: Read, rows: Array) -> Tensor:
        found: Tensor | None = None
        order = np.argsort(rows % len(self), kind="stable")  # neighbours lie in one chunk
        for start in range(0, len(rows), READ):
            places = order[start : start + READ]
            part = self.standardisation(torch.from_numpy(read(rows[places])))
            if found is None:  # gigabytes: joining parts at the end would take twice as much
                found = part.new_empty((len(rows), *part.shape[1:]))
            found[torch.from_numpy(places)] = part
        assert found is not None
        return found

    def keep(self) -> bool:
        """Hold everything, if it fits; say whether it does."""
        if self._kept is None and len(self):
            one, rows = self.features(np.arange(1)), self._rows
            if one.numel() * one.element_size() * rows <= self.budget:
                kept = one.new_empty((rows, *one.shape[1:]))
                for start in range(0, rows, READ):
                    some = np.arange(start, min(start + READ, rows))
                    kept[start : start + len(some)] = self.features(some)
                self._kept = kept
        return self._kept is not None

    @property
    def _rows(self) -> int:
        return len(self) * self.sides

    def ordered(self, batch: int = 256) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield all samples in their order, once for each side."""
        for start in range(0, self._rows, batch):
            rows = np.arange(start, min(start + batch, self._rows))
            yield self.features(rows), self.labels[rows % len(self)]

    def shuffled(
        self, batch: int, seed: int, epoch: int, team: Team | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield all samples once, each from a random side, in an order of this epoch's own.

        A member of a team is given its share of every batch. A group's last batch is left out if it
        has one sample, which no batch norm could take, or is too small for the team.
        """
        team = team or Team()
        generator = np.random.default_rng(generator_seed(seed, epoch))
        read = self.read if self.changed is None else self.changed(epoch)
        for group in self._groups(generator):
            rows = group
            if self.sides > 1:
                rows = rows + len(self) * generator.integers(0, self.sides, len(rows))
            whole = [rows[start : start + batch] for start in range(0, len(rows), batch)]
            mine = [part[team.share] for part in whole if len(part) >= max(2, team.size)]
            if self._kept is not None:
                yield from ((self._kept[part], self.labels[part % len(self)]) for part in mine)
            elif mine:
                x = self._through(read, np.concatenate(mine))
                for part, values in zip(mine, torch.split(x, list(map(len, mine))), strict=True):
                    yield values, self.labels[part % len(self)]

    def _groups(self, generator: np.random.Generator) -> Iterator[Array]:
        """Yield rows in random order: all at once if held, else in groups of blocks that fit.

        Groups are of equal size: classes may follow one another in the store, and a small last
        group would hold few of them, from which batch norms would then take their statistics.
        """
        if self.changed is None and self.keep():
            yield generator.permutation(len(self))
            return
        together = max(1, self.budget // self._bytes() // BLOCK)
        blocks = generator.permutation(-(-len(self) // BLOCK))
        for chosen in np.array_split(blocks, -(-len(blocks) // together)):
            rows = (np.sort(chosen)[:, None] * BLOCK + np.arange(BLOCK)).ravel()
            yield generator.permutation(rows[rows < len(self)])

    def _bytes(self) -> int:
        one = self.features(np.arange(1))
        return int(one.numel() * one.element_size())

    def steps(self, batch: int) -> int:
        """Return at most how many batches an epoch has."""
        return -(-len(self) // batch)
