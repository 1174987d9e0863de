"""From SOURCE arguments to the ordered list of what samples are read from."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from storage.sources import rows
from storage.sources.archives import kind, list_members
from storage.sources.files import SourceFile, Unit
from storage.sources.filesystem import Entry, Listing, expand
from storage.text import writable


@dataclass(frozen=True)
class Refused:
    """What was found but cannot be read as asked: it belongs in quarantine.

    Parameters
    ----------
    name
        Relative to the source, like the names of units.
    url
        Of the file or of the archive.
    reason, message
        As in `storage.errors.BadInput`.
    """

    name: str
    url: str
    reason: str
    message: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", writable(self.name))
        object.__setattr__(self, "url", writable(self.url))


class Discovery(list[Unit]):
    """The units found, sorted by name; also what was refused and how much was ignored.

    Attributes
    ----------
    refused : list of Refused
        Damaged archives, unsafe members, incomplete stacks of components.
    ignored : dict of str to int
        Number of files of each unknown extension.
    tables : list of SourceFile
        Files beside the samples that describe them, such as tables of labels.
    """

    def __init__(
        self,
        units: Iterable[Unit] = (),
        refused: Iterable[Refused] = (),
        ignored: dict[str, int] | None = None,
        tables: Iterable[SourceFile] = (),
    ) -> None:
        super().__init__(units)
        self.refused = list(refused)
        self.ignored = dict(ignored or {})
        self.tables = list(tables)


def discover(
    sources: Sequence[str], *, extensions: Collection[str], components: Sequence[str] = ()
) -> Discovery:
    """Find what samples are read from.

    Parameters
    ----------
    sources
        Files, folders (searched recursively, hidden files left out), globs, archives
        (``.zip .tar .tar.gz .tar.bz2 .tar.xz``), local or remote (``s3://``).
    extensions
        What counts as an input. A file named by itself is taken whatever it is called.
    components
        Names that mark the files of one sample: with ``("I", "Q")`` the files ``I_7.npy``
        and ``Q_7.npy`` are the unit ``7``. Files that carry none of the names stay alone, and so do
        all if only one of the names occurs: it then belongs to the files' own names, and each
        file holds all components.

    Returns
    -------
    Discovery
        A list of `Unit`, each file once, with unique names, sorted by them.

    Raises
    ------
    storage.errors.InvalidRequest
        If a source does not exist, matches nothing or cannot be listed.
    """
    known = tuple(extension.lower() for extension in extensions)
    files, refused, ignored = find_files(sources, known)
    units, incomplete = _stack(files, tuple(components), known)
    return Discovery(unique_units(units), refused + incomplete, ignored)


def find_files(
    sources: Sequence[str], known: tuple[str, ...]
) -> tuple[list[SourceFile], list[Refused], Counter[str]]:
    """Return the files with known endings, each once, what was refused, and what was ignored."""
    files: dict[tuple[str, str | None], SourceFile] = {}
    refused: list[Refused] = []
    ignored: Counter[str] = Counter()
    for source in sources:
        listing = expand(source)
        for file in _files_of(listing, known, refused):
            if file.name.lower().endswith(known) or (listing.named and file.member is None):
                files.setdefault((file.url, file.member), file)
            else:
                suffix = writable(PurePosixPath(file.name).suffix.lower())
                ignored[suffix or "without extension"] += 1
    for key, file in list(files.items()):
        if writable(file.url + file.name) != file.url + file.name:
            refused.append(Refused(file.name, file.url, "name", "is not in UTF-8: rename it"))
            del files[key]
    return list(files.values()), refused, ignored


def _files_of(
    listing: Listing, known: tuple[str, ...], refused: list[Refused]
) -> Iterator[SourceFile]:
    for entry in listing.entries:
        url = f"{listing.folder}/{entry.path}{listing.query}"
        if entry.folder or not _is_container(entry.path, known):
            yield SourceFile(
                url, None, entry.path, entry.size, entry.mtime, entry.etag, folder=entry.folder
            )
        else:
            yield from _members_of(url, entry, listing.named, known, refused)


def _is_container(path: str, known: tuple[str, ...]) -> bool:
    """Say whether a file holds others; files of rows count only where they are asked for."""
    return kind(path) is not None or (rows.kind(path) is not None and path.lower().endswith(known))


def _members_of(
    url: str, archive: Entry, named: bool, known: tuple[str, ...], refused: list[Refused]
) -> Iterator[SourceFile]:
    prefix = "" if named else f"{archive.path}/"
    members, refusals = list_members(url)
    for name, error in refusals:
        if not name or name.lower().endswith(known) or kind(name):
            shown = f"{prefix}{name}" if name else archive.path
            refused.append(Refused(shown, url, error.reason, error.message))
    for member in members:
        yield SourceFile(
            url,
            member.path,
            f"{prefix}{member.path}",
            member.size,
            archive.mtime,
            archive.etag,
            member.offset,
            member.folder,
        )


def _stack(
    files: Iterable[SourceFile], components: tuple[str, ...], known: tuple[str, ...]
) -> tuple[list[Unit], list[Refused]]:
    """Join the files of one sample: the same name but for the component's."""
    stems = [(stem_of(file.name, known), file) for file in files]
    marks = [
        _split_component(stem, components) if len(components) > 1 else None for stem, _ in stems
    ]
    if len({found[0] for found in marks if found}) < 2:
        return [Unit(stem, (file,)) for stem, file in stems], []
    units: list[Unit] = []
    stacks: dict[str, list[tuple[str, SourceFile]]] = defaultdict(list)
    for (stem, file), found in zip(stems, marks, strict=True):
        if found is None:
            units.append(Unit(stem, (file,)))
        else:
            stacks[found[1]].append((found[0], file))
    incomplete = []
    for name, parts in stacks.items():
        by_component = dict(parts)
        if len(parts) == len(components) == len(by_component):
            units.append(Unit(name, tuple(by_component[c] for c in components)))
        else:
            incomplete.append(_incomplete(name, parts, components))
    return units, incomplete


def _incomplete(
    name: str, parts: list[tuple[str, SourceFile]], components: tuple[str, ...]
) -> Refused:
    found = ", ".join(sorted(f"{component} ({file.name})" for component, file in parts))
    message = f"{name} needs one file for each of {','.join(components)}; there is {found}"
    return Refused(name, parts[0][1].url, "components", message)


def _split_component(stem: str, components: tuple[str, ...]) -> tuple[str, str] | None:
    """Return the component that a name carries and the name without it.

    ``I_7`` and ``7-I`` carry ``I``; so does ``I7`` if no name is set off more clearly; and
    ``I/7`` where the file's own name carries none.
    """
    *folders, name = stem.split("/")
    choices = "|".join(re.escape(c) for c in sorted(components, key=len, reverse=True))
    for pattern in (
        rf"(?<![A-Za-z0-9])({choices})(?![A-Za-z0-9])",
        rf"(?<![A-Za-z])({choices})(?![A-Za-z])",
    ):
        match = re.search(pattern, name)
        if match:
            around = (name[: match.start()].rstrip("._- "), name[match.end() :].lstrip("._- "))
            rest = "_".join(part for part in around if part)
            return match[1], "/".join([*folders, rest] if rest else folders) or "_".join(components)
    for depth, folder in enumerate(folders):
        if folder in components:
            return folder, "/".join([*folders[:depth], *folders[depth + 1 :], name])
    return None


def stem_of(name: str, known: tuple[str, ...]) -> str:
    """Return a name without its extension."""
    for extension in sorted(known, key=len, reverse=True):
        if name.lower().endswith(extension):
            return name[: -len(extension)]
    return PurePosixPath(name).with_suffix("").as_posix()


def unique_units(units: Iterable[Unit]) -> list[Unit]:
    """Return units sorted by unique names: told apart by extension, else by folders."""
    groups: dict[str, list[Unit]] = defaultdict(list)
    for unit in units:
        groups[unit.name].append(unit)
    taken = {name for name, group in groups.items() if len(group) == 1}
    result: list[Unit] = []
    for group in groups.values():
        names = [group[0].name] if len(group) == 1 else _told_apart(group, taken)
        taken.update(names)
        result.extend(Unit(name, unit.files) for name, unit in zip(names, group, strict=True))
    return sorted(result, key=lambda unit: unit.name)


def _told_apart(group: list[Unit], taken: set[str]) -> list[str]:
    parents = [_parents(unit) for unit in group]
    candidates = [[unit.name + PurePosixPath(unit.files[0].name).suffix for unit in group]]
    for level in range(1, max(map(len, parents)) + 1):
        candidates.append(
            ["/".join([*above[-level:], u.name]) for above, u in zip(parents, group, strict=True)]
        )
    for names in candidates:
        if len(set(names)) == len(names) and taken.isdisjoint(names):
            return names
    return ["/".join([*a, u.files[0].name]) for a, u in zip(parents, group, strict=True)]


def _parents(unit: Unit) -> list[str]:
    """Return the folders above what the unit's name covers, archives among them."""
    file = unit.files[0]
    place = file.url if file.member is None else f"{file.url}/{file.member}"
    return place.removesuffix(file.name).strip("/").split("/")
