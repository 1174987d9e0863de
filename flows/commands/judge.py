"""Commands that judge models: evaluate, compare."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flows.commands.options import (
    STORE,
    AsJson,
    Cluster,
    Config,
    Device,
    Quiet,
    Seed,
    Settings,
    SingleWriter,
    StoreUrl,
    absolute,
    expect_dataset,
    flowing,
    plain,
    settings,
    tell,
    written_here,
)


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    app.command()(evaluate)
    app.command()(compare)


def evaluate(
    artifact: Annotated[str, typer.Argument(help="Key, unique prefix, or kind/dataset@latest.")],
    dataset: Annotated[str, typer.Argument(metavar="N", help="Name of the dataset.")],
    where: Annotated[
        str | None, typer.Option(help="SQL condition (DuckDB): which samples to judge by.")
    ] = None,
    to: Annotated[
        Path, typer.Option("--to", callback=written_here, help="The HTML page to write.")
    ] = Path("report.html"),
    seed: Seed = 0,
    pairs: Settings = [],  # noqa: B006
    config: Config = None,
    store: StoreUrl = STORE,
    cluster: Cluster = "threads",
    device: Device = "cpu",
    single_writer: SingleWriter = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Judge a fitted model on samples it was not fitted to.

    Models of fields are judged by samples drawn from them, beside scores of real fields;
    classifiers and regressions by answers that are known; generators by their reconstructions.

    Example: wavemill evaluate phase-harmonics/flow@latest flow --set samples=4, or
    wavemill evaluate classifier/cifar10@latest cifar10 --where "split = 'test'"
    """
    from tasks.comparison import lines

    url, page = absolute(store, single_writer), str(to.absolute())
    parameters = settings(pairs, config)
    expect_dataset(url, dataset)
    with flowing(quiet or as_json):
        from flows.evaluate import evaluate as flow

        made = flow(
            artifact,
            dataset,
            store=url,
            parameters=parameters,
            where=where,
            seed=seed,
            device=device,
            report=page,
            cluster=cluster,
        )
    state = "judged" if made.written else "was judged already"
    shown = [f"{made.model} {state}: {made.short}", *lines(made.table)]
    tell({"report": page, **plain(made)}, [*shown, f"report: {page}"], as_json, quiet)


def compare(
    dataset: Annotated[str, typer.Argument(metavar="N", help="Name of the dataset.")],
    models: Annotated[
        list[str],
        typer.Option("--models", help="[NAME=]KIND[:KEY=VALUE,...]; repeatable."),
    ],
    where: Annotated[
        str | None, typer.Option(help="SQL condition (DuckDB): which samples to learn from.")
    ] = None,
    train: Annotated[
        int, typer.Option(min=1, help="Without --where: learn from the first so many samples.")
    ] = 1,
    to: Annotated[
        Path, typer.Option("--to", callback=written_here, help="The HTML page to write.")
    ] = Path("report.html"),
    seed: Seed = 0,
    pairs: Settings = [],  # noqa: B006
    config: Config = None,
    store: StoreUrl = STORE,
    cluster: Cluster = "threads",
    device: Device = "cpu",
    single_writer: SingleWriter = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Fit several models to the same samples and judge them on the others, in one table.

    Example: wavemill compare flow --models gaussian --models C=phase-harmonics:set=C,J=4
    """
    from tasks.comparison import lines, parsed_models

    url, page = absolute(store, single_writer), str(to.absolute())
    parameters = settings(pairs, config)
    expect_dataset(url, dataset)
    with flowing(quiet or as_json):
        from flows.compare_models import compare_models

        table = compare_models(
            dataset,
            store=url,
            models=parsed_models(models),
            where=where,
            train=train,
            parameters=parameters,
            seed=seed,
            device=device,
            report=page,
            cluster=cluster,
        )
    tell({"report": page, "table": table}, [*lines(table), f"report: {page}"], as_json, quiet)
