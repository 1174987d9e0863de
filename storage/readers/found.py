"""What a reader of any kind of data gives: the good things of a file, and the others."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

from storage.errors import BadInput

Item = TypeVar("Item")


class Found(list[Item]):
    """The good things of a file; the others are in ``refused``.

    Attributes
    ----------
    refused : list of (str, BadInput)
        Index and reason of what cannot become samples.
    """

    def __init__(
        self, good: Iterable[Item] = (), refused: Iterable[tuple[str, BadInput]] = ()
    ) -> None:
        super().__init__(good)
        self.refused = list(refused)
