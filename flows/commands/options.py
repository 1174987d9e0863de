"""Options that several commands share, and how results are printed."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import json
import logging
import math
import re
import signal
import sys
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

StoreUrl = Annotated[
    str,
    typer.Option(
        "--store", envvar="WAVEMILL_STORE", help="Folder, s3://bucket/prefix or memory://name."
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress, no hints.")]
Cluster = Annotated[
    str,
    typer.Option(
        envvar="WAVEMILL_CLUSTER", help="threads, local[:N], cuda, tcp://HOST:PORT or kubernetes."
    ),
]
Device = Annotated[Literal["cpu", "cuda"], typer.Option(help="Where to compute.")]
Seed = Annotated[int, typer.Option(min=0, max=2**53 - 1, help="Seed of everything random.")]
Settings = Annotated[
    list[str],
    typer.Option("--set", help="Parameter of the transform or model, KEY=VALUE; repeatable."),
]
Config = Annotated[
    Path | None, typer.Option("--config", help="TOML file of such parameters; --set overrides it.")
]
SingleWriter = Annotated[
    bool,
    typer.Option(
        "--single-writer", help="For a store without exclusive creation: nobody else writes to it."
    ),
]

STORE = "./wavemill-store"
_CONTROLS = re.compile(
    r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)


def absolute(store: str, single_writer: bool = False) -> str:
    """Return the store's URL; a folder's path is made absolute."""
    from storage.addresses import without_secrets
    from storage.backends import SINGLE_WRITER

    url = without_secrets(store) if "://" in store else str(Path(store).expanduser().absolute())
    return url + SINGLE_WRITER if single_writer else url


def settings(pairs: Sequence[str], config: Path | None) -> dict[str, Any]:
    """Return the parameters of ``--config`` and ``--set``."""
    values: dict[str, Any] = {}
    if config is not None:
        try:
            values |= tomllib.loads(config.read_text("utf-8-sig"))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise typer.BadParameter(f"{config}: {error}", param_hint="--config") from None
        _check_whole_numbers(values)
    for pair in pairs:
        name, separator, value = pair.partition("=")
        if not separator:
            raise typer.BadParameter(f"{pair!r} is not KEY=VALUE", param_hint="--set")
        values[name] = value
    return values


def _check_whole_numbers(values: Mapping[str, Any]) -> None:
    """Refuse numbers that Prefect's list of runs could not show again."""
    for name, value in values.items():
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, Mapping):
                _check_whole_numbers(item)
            elif isinstance(item, int) and not -(2**63) <= item < 2**63:
                raise typer.BadParameter(f"{name}={item} has over 64 bits", param_hint="--config")


def plain(value: Any) -> Any:
    """Return a result as JSON values; numbers that are not finite are null."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(name): plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None  # JSON has no such numbers
    return value if isinstance(value, str | int | float | bool | None) else str(value)


def printable(text: str) -> str:
    """Return text with escapes for what moves the cursor, sets a title or reverses writing.

    Names of files, and what is in them, come from anywhere.
    """
    return _CONTROLS.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def tell(result: Any, lines: Sequence[str], as_json: bool, quiet: bool, hint: str = "") -> None:
    """Print a result: as JSON, or as lines and what to do next."""
    if as_json:
        print(json.dumps(plain(result), indent=1, sort_keys=True))
        return
    for line in lines:
        print(printable(line))
    if hint and not quiet:
        print(printable(f"next: {hint}"))


def warn(message: str) -> None:
    """Print a warning to the terminal."""
    print(printable(f"warning: {message}"), file=sys.stderr)


def expect_dataset(store: str, name: str) -> None:
    """Refuse a dataset that does not exist, before a flow starts Prefect's server for nothing."""
    from storage import open_store

    open_store(store).dataset(name)


def written_here(to: Path | None) -> Path | None:
    """Refuse a URL as the file to write: as a path it would name a folder ``s3:``."""
    if to is not None and to.parts and to.parts[0].endswith(":"):
        raise typer.BadParameter(
            f"{to} is not a path on this machine: write the file here, then copy it"
        )
    return to


@contextlib.contextmanager
def progress(quiet: bool) -> Iterator[None]:
    """Show bars for the steps of what runs within the block.

    Warnings of these steps are printed, each once, even if ``quiet``.
    """
    from tasks.progress import hearing

    with _unseen_logs(), hearing(cache(warn)), contextlib.nullcontext() if quiet else _bars():
        yield


@contextlib.contextmanager
def _unseen_logs() -> Iterator[None]:
    """Keep the logs of runs out of the terminal, unless Prefect's level of logging was set."""
    runs = [logging.getLogger(f"prefect.{kind}_runs") for kind in ("flow", "task")]
    shown = [logger.propagate for logger in runs]
    for logger in runs:
        logger.propagate &= logging.getLogger("prefect").level < logging.CRITICAL
    try:
        yield
    finally:
        for logger, propagate in zip(runs, shown, strict=True):
            logger.propagate = propagate


@contextlib.contextmanager
def flowing(quiet: bool) -> Iterator[None]:
    """Do the same as `progress` for a flow, which needs Prefect's server.

    Import the flow within the block, while the server starts. A signal stops flow and command.
    """
    from flows.server import prefect_server

    with prefect_server():
        importlib.import_module("prefect.main")  # it sets up the logging
        _keep_our_handler()
        with progress(quiet):
            yield


@contextlib.contextmanager
def _bars() -> Iterator[None]:
    if not sys.stderr.isatty():
        yield
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from tasks.progress import listening

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[remark]}"),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        known: dict[str, Any] = {}

        def listen(what: str, done: int, total: int, remark: str) -> None:
            if what not in known:
                known[what] = bars.add_task(what, total=total, remark="")
            bars.update(known[what], completed=done, total=total, remark=remark)

        with listening(listen):
            yield


def _keep_our_handler() -> None:
    """Have Prefect's flow engine install the command's handler of SIGTERM in place of its own.

    Its own would for minutes ask a temporary server that the same signal may have ended.
    """
    from prefect.utilities import engine

    if callable(ours := signal.getsignal(signal.SIGTERM)):
        engine._prefect_sigterm_handler = ours  # type: ignore[assignment]
