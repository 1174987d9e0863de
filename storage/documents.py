"""Sealed JSON documents and numbered, append-only logs of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, SupportsIndex

from storage.backends import Backend
from storage.errors import Damaged, Newer, NotFound
from storage.keys import canonical, digest

FORMAT = 1  # raised when older versions would misread what is written
Document = dict[str, Any]
AsOf = SupportsIndex | str | datetime | None  # the number of a version, a time, or the newest


def now() -> str:
    """Return the present as RFC 3339 in UTC with microseconds, which sorts as text."""
    return datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def seal(document: Mapping[str, Any]) -> bytes:
    """Serialise a document with its format and its own checksum: any flipped byte shows."""
    return _sealed({**document, "format": FORMAT})


def _sealed(document: Mapping[str, Any]) -> bytes:
    body = {name: value for name, value in document.items() if name != "seal"}
    sealed = {**body, "seal": digest(canonical(body))}
    return (json.dumps(sealed, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode()


def unseal(data: bytes, path: str) -> Document:
    """Parse a sealed document.

    Raises
    ------
    Damaged
        If it is not JSON or a byte of it is not the one that was written.
    Newer
        If a newer version wrote it, in a format that this one does not know.
    """
    try:
        document = json.loads(data)
        intact = _sealed(document) == data
        format_ = int(document.get("format", FORMAT))  # the first documents do not say
    except (ValueError, TypeError, AttributeError) as error:
        raise Damaged(
            f"{path} is not a readable document ({error}): run `wavemill verify`"
        ) from error
    if format_ > FORMAT:
        raise Newer(
            f"{path} was written by a newer wavemill, in format {format_}; this one reads up to "
            f"{FORMAT}: upgrade it"
        )
    if not intact:
        raise Damaged(f"{path} differs from what was written: run `wavemill verify`")
    return dict(document)


def read_checked(backend: Backend, path: str, sha256: str) -> bytes:
    """Read an object and check that it is the one that was written.

    Raises
    ------
    Damaged
        If it is missing or its bytes changed.
    """
    try:
        data = backend.read(path)
    except FileNotFoundError:
        raise Damaged(f"{path} is missing: run `wavemill verify`") from None
    if digest(data) != sha256:
        raise Damaged(f"{path} differs from what was written: run `wavemill verify`")
    return data


def read_document(backend: Backend, path: str) -> Document:
    """Read and check one sealed document."""
    return unseal(backend.read(path), path)


class Log:
    """Documents ``1.json, 2.json, ...`` of one folder; each is published once, never changed."""

    def __init__(self, backend: Backend, folder: str) -> None:
        self.backend = backend
        self.folder = folder

    def numbers(self) -> list[int]:
        """Return the numbers present, ascending (the oldest may have been collected)."""
        names = (name.removesuffix(".json") for name in self.backend.names(self.folder))
        return sorted(int(name) for name in names if name.isdecimal())

    def path(self, number: int) -> str:
        """Return where document ``number`` lies."""
        return f"{self.folder}/{number}.json"

    def read(self, number: int) -> Document:
        """Return document ``number``.

        Raises
        ------
        NotFound
            If it was never published, or has been collected.
        """
        try:
            return read_document(self.backend, self.path(number))
        except FileNotFoundError:
            present = ", ".join(map(str, self.numbers())) or "none"
            raise NotFound(f"{self.folder} has no version {number}; present: {present}") from None

    def latest(self) -> Document | None:
        """Return the newest document, or None when there is none."""
        numbers = self.numbers()
        return self.read(numbers[-1]) if numbers else None

    def as_of(self, when: AsOf) -> Document | None:
        """Return the document of version ``when``, or the newest published at that time."""
        if when is None:
            return self.latest()
        if (number := version_number(when)) is not None:
            return self.read(number)
        moment = timestamp(when)
        for number in reversed(self.numbers()):
            document = self.read(number)
            if timestamp(document["published"]) <= moment:
                return document
        return None

    def publish(
        self,
        build: Callable[[Document | None], Document | None],
        before: Callable[[], int] = lambda: 0,
    ) -> Document | None:
        """Publish the successor that ``build`` makes of the newest document.

        The first one is numbered after those that were retired, and after ``before``.

        A writer that loses the race to a number rereads and builds again, so that ``build``
        merges rather than overwrites. ``None`` from ``build`` means that there is nothing
        new to say; the newest document is then returned.
        """
        while True:
            latest = self.latest()
            body = build(latest)
            if body is None:
                return latest
            number = 1 + (latest["version"] if latest else max(before(), self._retired()))
            document = {**body, "version": number, "published": now()}
            data = seal(document)
            if self.backend.create(self.path(number), data):
                return unseal(data, self.path(number))

    def retire(self) -> None:
        """Remove every document, oldest first, so that no number is given a second time.

        The mark that keeps the last number is written before anything goes.
        """
        numbers = self.numbers()
        if numbers:
            self.backend.create(f"{self._marks}/{numbers[-1]}", b"")
        for number in numbers:
            self.backend.delete([self.path(number)])

    @property
    def _marks(self) -> str:
        return f"removed/{self.folder}"

    def _retired(self) -> int:
        return max(Log(self.backend, self._marks).numbers(), default=0)


def version_number(when: AsOf) -> int | None:
    """Return the number of a version, None if it is asked for otherwise."""
    if isinstance(when, str):
        return int(when) if when.isdecimal() else None
    return when.__index__() if isinstance(when, SupportsIndex) else None


def timestamp(text: object) -> datetime:
    """Parse an RFC 3339 time; without an offset it is taken as UTC."""
    try:
        moment = datetime.fromisoformat(str(text))
    except ValueError:
        raise NotFound(
            f"{text!r} is neither a version number nor a time such as 2026-05-01T12:00:00Z"
        ) from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
