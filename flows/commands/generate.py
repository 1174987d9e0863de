"""The command that generates: generate."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flows.commands.options import (
    STORE,
    AsJson,
    Device,
    Quiet,
    Seed,
    StoreUrl,
    absolute,
    progress,
    tell,
    written_here,
)


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command()(generate)


def generate(
    artifact: Annotated[str, typer.Argument(help="Key, unique prefix, or kind/dataset@latest.")],
    to: Annotated[Path, typer.Option("--to", callback=written_here, help="A .png or .npy file.")],
    source: Annotated[
        str, typer.Option("--from", help="noise, interpolate, reconstruct or variants.")
    ] = "noise",
    n: Annotated[
        int, typer.Option("-n", min=1, help="Number of draws, or of samples to start from.")
    ] = 8,
    where: Annotated[
        str | None,
        typer.Option(
            help="SQL condition (DuckDB): which samples; by default those it was judged by."
        ),
    ] = None,
    seed: Seed = 0,
    refine: Annotated[
        int,
        typer.Option(min=0, help="Gradients that bring images nearer to their codes, such as 60."),
    ] = 0,
    device: Device = "cpu",
    store: StoreUrl = STORE,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Make images from noise or from the codes of samples, as a table of pictures.

    Example: wavemill generate generator/photos@latest --from interpolate -n 5 --to paths.png
    """
    from storage import open_store
    from tasks.generation import FORMATS, GenerateRequest, make, write

    if to.suffix not in FORMATS:
        raise typer.BadParameter(f"{to}: choose one of {' '.join(FORMATS)}", param_hint="--to")
    with progress(quiet or as_json):
        request = GenerateRequest(artifact, source, n, seed, where, refine, device)
        table = make(open_store(absolute(store)), request)
    write(table, to)
    shape = "x".join(map(str, table.shape))
    tell({"path": str(to), "shape": table.shape}, [f"wrote {to}: {shape}"], as_json, quiet)
