"""Showing in the terminal and the Prefect UI how far a step has come, and what to beware of."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from logging import Logger, LoggerAdapter
from typing import TypeVar
from uuid import UUID

Listener = Callable[[str, int, int, str], None]
Hearer = Callable[[str], None]
Member = TypeVar("Member")

_listeners: list[Listener] = []
_hearers: list[Hearer] = []
_INTERVAL = 1.0


def listening(listener: Listener) -> contextlib.AbstractContextManager[None]:
    """Call ``listener(what, done, total, remark)`` as steps of this process advance."""
    return _among(_listeners, listener)


def hearing(hearer: Hearer) -> contextlib.AbstractContextManager[None]:
    """Call ``hearer(message)`` with each :func:`caution` of steps of this process."""
    return _among(_hearers, hearer)


@contextlib.contextmanager
def _among(members: list[Member], member: Member) -> Iterator[None]:
    members.append(member)
    try:
        yield
    finally:
        members.remove(member)


def caution(message: str) -> None:
    """Warn of something about a result, in the terminal and in the log of a Prefect run."""
    for hearer in _hearers:
        hearer(message)
    if (log := log_of_run()) is not None:
        log.warning("%s", message)


def log_of_run() -> Logger | LoggerAdapter[Logger] | None:
    """Return the log of the Prefect run that this is part of, if any."""
    if "prefect" not in sys.modules:  # workers do not need it either, and it takes a second to load
        return None
    from prefect.exceptions import MissingContextError
    from prefect.logging import get_run_logger

    try:
        return get_run_logger()
    except MissingContextError:
        return None


class Reporter:
    """Reports one step's progress, at most about once a second and always at its end."""

    def __init__(self, what: str) -> None:
        self.what = what
        self.artifact: UUID | None = None
        self.last = 0.0

    def __call__(self, done: int, total: int, remark: str = "") -> None:
        """Report that ``done`` of ``total`` are done."""
        if time.monotonic() - self.last < _INTERVAL and done < total:
            return
        self.last = time.monotonic()
        log = log_of_run()
        if done >= total and log is not None:
            log.info("%s: %d of %d %s", self.what, done, total, remark)
        for listener in _listeners:
            listener(self.what, done, total, remark)
        if log is not None:
            self._show(100.0 * done / max(total, 1), remark)

    def values(self, done: int, total: int, values: dict[str, float]) -> None:
        """Report the same with numbers, as models do while they fit or sample."""
        self(done, total, ", ".join(f"{name} {value:.3g}" for name, value in values.items()))

    def _show(self, percent: float, remark: str) -> None:
        from prefect.artifacts import create_progress_artifact, update_progress_artifact

        description = f"{self.what} {remark}".strip()
        if self.artifact is None:
            key = "".join(c if c.isalnum() else "-" for c in self.what.lower()).strip("-")
            made = create_progress_artifact(percent, key=key or None, description=description)
            self.artifact = made if isinstance(made, UUID) else None
        else:
            update_progress_artifact(self.artifact, percent, description=description)
