"""What every reader gives: what is good in a file, and what is not."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

from storage.errors import BadInput

Item = TypeVar("Item")


class Found(list[Item]):
    """A list of what is good in a file; what is not is in ``refused``.

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
