"""Commands that serve: up."""

from __future__ import annotations

from typing import Annotated

import typer

from flows.commands.options import STORE, Cluster, StoreUrl, absolute


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    app.command()(up)


def up(
    port: Annotated[
        int, typer.Option(help="Of the Prefect server; the next free one if taken.")
    ] = 4200,
    host: Annotated[
        str, typer.Option(help="Address to listen on; loopback unless told.")
    ] = "127.0.0.1",
    store: StoreUrl = STORE,
    cluster: Cluster = "local",
) -> None:
    """Start a Prefect server, a worker, Dask and the schedules; print the UI's address.

    Example: wavemill up --store ./wavemill-store
    """
    from flows.up import up as serve

    raise typer.Exit(serve(absolute(store), port=port, host=host, cluster=cluster))
