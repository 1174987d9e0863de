"""Parts on the workers of a scheduler, followed in the UI and the terminal."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tasks import show
from tasks.mapping import map_parts
from tasks.progress import Reporter


def mapped(
    work: Callable[[Any], Any],
    items: Sequence[Any],
    address: str,
    what: str,
    resources: dict[str, float] | None = None,
    named: Callable[[Any], str] = str,
) -> list[Any]:
    """Do as `map_parts`, with a link to the dashboard and a progress bar."""
    return map_parts(
        work,
        items,
        address=address,
        opened=show.dashboard,
        progress=Reporter(what),
        resources=resources,
        named=named,
    )
