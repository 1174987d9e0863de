"""Commands that serve: up."""

from __future__ import annotations

from typing import Annotated

import typer

from flows.commands.ingest import (
    Components,
    Derive,
    Fill,
    Periodic,
    Slice,
    Variable,
    reading,
)
from flows.commands.options import STORE, Cluster, Device, StoreUrl, absolute


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    app.command()(up)


def up(
    watch: Annotated[
        str | None,
        typer.Option(help="Folder or s3:// prefix whose new snapshots are ingested on schedule."),
    ] = None,
    name: Annotated[str, typer.Option(help="Name of their dataset.")] = "snapshots",
    every: Annotated[
        str | None, typer.Option(help="How often: 45s, 15m, 2h or 1d; by default nightly at 03:00.")
    ] = None,
    variable: Variable = "",
    components: Components = "",
    slice_: Slice = None,
    derive: Derive = None,
    fill: Fill = None,
    periodic: Periodic = None,
    port: Annotated[
        int,
        typer.Option(
            min=1, max=65535, help="Port of the Prefect server, or the next one that is free."
        ),
    ] = 4200,
    host: Annotated[
        str, typer.Option(help="Address to listen on; by default loopback.")
    ] = "127.0.0.1",
    store: StoreUrl = STORE,
    cluster: Cluster = "local",
    device: Device = "cpu",
) -> None:
    """Start a Prefect server, a worker, Dask and the schedules; print the UI's address.

    Example: wavemill up --watch ./snapshots --every 1h --variable sst --slice time:all
    """
    from flows.up import Service
    from flows.up import up as serve
    from tasks.fields import FieldOptions

    watched = absolute(watch) if watch else None
    flags = {**reading(variable, components, slice_, derive, fill), "periodic": periodic}
    FieldOptions(**flags).reading()  # refuses at once rather than at night
    options = {
        flag: list(value) if isinstance(value, tuple) else value
        for flag, value in flags.items()
        if value not in ((), None)
    }
    if options and watched is None:
        hint = f"--{min(options)}"
        raise typer.BadParameter(
            "needs --watch: it says how to read the files found there", param_hint=hint
        )
    serve(Service(absolute(store), port, host, cluster, device, watched, name, every, options))
