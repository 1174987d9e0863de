"""What a sample is made from: files and members of archives, or a derivation."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, Self

from storage import BadInput
from storage.keys import canonical, digest
from storage.sources import Unit
from tasks.text import keyed
from wavemill.specs import SimulationSpec

SIMULATE = "simulate:"
LISTED = 10


@dataclass(frozen=True)
class Simulated:
    """One realisation of a simulation, standing where a file would."""

    spec: SimulationSpec
    index: int

    @property
    def physics(self) -> dict[str, Any]:
        """The spec without the number of realisations, on which no realisation depends."""
        return replace(self.spec, n=type(self.spec)().n).to_dict()

    @property
    def identity(self) -> str:
        """A name that no other realisation has."""
        return f"{SIMULATE}{canonical(self.physics['parameters']).decode()}#{self.index}"

    @property
    def name(self) -> str:
        """Stem of the sample id."""
        return f"sim-{digest(canonical(self.physics))[:8]}-{self.index:05d}"

    @property
    def nbytes(self) -> int:
        """Bytes of the field."""
        return 4 * self.spec.N**2

    @property
    def fingerprint(self) -> str:
        """The derivation, which stands for the content."""
        return digest(canonical({"spec": self.physics, "index": self.index}))


Input = Unit | Simulated


def identity(item: Input) -> str:
    """Return what distinguishes an input from all others: the places it is read from."""
    if isinstance(item, Simulated):
        return item.identity
    return " + ".join(place(file.url, file.member) for file in item.files)


def place(url: str, member: str | None) -> str:
    """Return a file's address, within its archive if it has one."""
    return url if member is None else f"{url}!{member}"


def listed(items: Sequence[Input]) -> str:
    """Return the places of a part's inputs; if there are many, the first ones."""
    more = f" and {len(items) - LISTED} more" if len(items) > LISTED else ""
    return ", ".join(map(identity, items[:LISTED])) + more


def stamp(item: Input) -> str:
    """Return size and time of change or tag: while these stay, the content is taken to stay."""
    if isinstance(item, Simulated):
        return item.fingerprint
    return json.dumps([[file.size, file.mtime, file.etag] for file in item.files])


def realisations(source: str) -> list[Simulated]:
    """Return the realisations that ``simulate:KEY=VALUE,...`` asks for.

    Raises
    ------
    InvalidRequest
        If it cannot be read.
    """
    pairs = keyed(source.removeprefix(SIMULATE), source, "simulate:n=16,N=128")
    spec = SimulationSpec.from_parameters(pairs)
    return [Simulated(spec, index) for index in range(spec.n)]


def labelled(name: str, label: str) -> str:
    """Return the name of something within an input; the input itself has no label."""
    return f"{name}#{label}" if label else name


class Good(NamedTuple):
    """A future sample: its label within the input, its content, and its columns of the table."""

    label: str
    content: Any
    columns: Mapping[str, Any]


class Refusal(NamedTuple):
    """Why something in an input is not a sample; an error would keep its traceback alive."""

    label: str
    reason: str
    message: str

    @classmethod
    def of(cls, label: str, error: BadInput) -> Self:
        """Take the texts of an error."""
        return cls(label, error.reason, error.message)


@dataclass
class Decoded:
    """What one input held.

    Attributes
    ----------
    good, refused
        Its good frames, and why others are refused.
    rounding
        The largest part of a deviation that is lost in the stored type.
    """

    good: list[Good] = field(default_factory=list)
    refused: Sequence[Refusal] = ()
    rounding: float = 0.0
