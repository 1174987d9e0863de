"""Commands that amend a store: label, remove."""

from __future__ import annotations

from typing import Annotated

import typer

from flows.commands.options import (
    STORE,
    AsJson,
    Quiet,
    SingleWriter,
    StoreUrl,
    absolute,
    tell,
    warn,
)


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    app.command()(label)
    app.command()(remove)


def label(
    dataset: Annotated[str, typer.Argument(metavar="N", help="Name of the dataset.")],
    table: Annotated[str, typer.Argument(help="A .csv file with headings, or a .parquet file.")],
    on: Annotated[
        str | None,
        typer.Option(
            help="Column of sample ids or file names; by default sample_id, else the first."
        ),
    ] = None,
    store: StoreUrl = STORE,
    single_writer: SingleWriter = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Add the columns of a table to samples, as a new version; no array is copied.

    Example: wavemill label flow labels.csv --on file
    """
    from storage import open_store
    from tasks.labels import label as labelled

    opened = open_store(absolute(store, single_writer), writable=True, existing=True)
    with opened.lease(warn):
        made = labelled(opened, dataset, table, on)
    lines = [
        f"dataset {made.dataset} version {made.version}: {made.matched} of {made.rows} rows match "
        f"{made.reached} of {made.samples} samples",
        f"  columns: {', '.join(made.columns)}",
    ]
    tell(made, lines, as_json, quiet, f"wavemill show {dataset} --columns")


def remove(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="A dataset, dataset/view, or an artifact.")
    ],
    yes: Annotated[
        bool, typer.Option("--yes", help="Remove it, instead of only printing it.")
    ] = False,
    store: StoreUrl = STORE,
    single_writer: SingleWriter = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Remove a dataset with its views, a view, or an artifact from the listing; gc frees the room.

    Example: wavemill remove flow/scattering --yes
    """
    from storage import open_store
    from storage.removal import named, staying
    from storage.removal import remove as gone

    opened = open_store(absolute(store, single_writer), writable=True, existing=True)
    leaving = gone(opened, name) if yes else named(opened, name)
    others = [artifact.short for artifact in staying(opened, leaving)]
    lines = [f"{entry.what:9} {entry.name}, records: {len(entry.records)}" for entry in leaving]
    lines += [f"stays     {other}, which rests on it" for other in others]
    free = "wavemill gc --yes frees what nothing else names, a day after it was written"
    hint = free if yes else "the same with --yes removes them"
    tell({"removed": yes, "names": leaving, "staying": others}, lines, as_json, quiet, hint)
