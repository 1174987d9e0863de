"""Commands that compute: features, fit, synthesize, predict, demo."""

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
    progress,
    settings,
    tell,
    warn,
    written_here,
)
from tasks.kinds import MODEL_KINDS, MODELS_HELP, TARGET_HELP, TOGETHER_HELP, VIEWS_HELP


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    app.command()(features)
    app.command()(fit)
    app.command()(synthesize)
    app.command()(predict)
    app.command()(demo)


def features(
    dataset: Annotated[str, typer.Argument(metavar="N", help="Name of the dataset.")],
    view: Annotated[str, typer.Option("--view", help=VIEWS_HELP)],
    name: Annotated[
        str | None, typer.Option("--as", help="Name of the view; by default its kind.")
    ] = None,
    pairs: Settings = [],  # noqa: B006  (Typer copies it)
    config: Config = None,
    store: StoreUrl = STORE,
    cluster: Cluster = "local",
    device: Device = "cpu",
    single_writer: SingleWriter = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Compute a view on a dataset; only parts that lack it are computed.

    Example: wavemill features flow --view scattering --set J=5
    """
    url = absolute(store, single_writer)
    parameters = settings(pairs, config)
    expect_dataset(url, dataset)
    with flowing(quiet or as_json):
        from flows.features import features as flow

        made = flow(
            dataset,
            view,
            store=url,
            name=name,
            parameters=parameters,
            cluster=cluster,
            device=device,
        )
    shape = "x".join(map(str, made.row_shape))
    lines = [
        f"view {name or view} version {made.version} on {dataset} version {made.dataset_version}: "
        f"{shape} features a sample in {len(made.parts)} parts"
    ]
    hint = f"wavemill query {dataset} --view {name or view}, or wavemill fit --help"
    tell(made, lines, as_json, quiet, hint)


def fit(
    model: Annotated[str, typer.Argument(metavar="MODEL", help=MODELS_HELP)],
    dataset: Annotated[str, typer.Argument(metavar="N", help="Name of the dataset.")],
    where: Annotated[
        str | None, typer.Option(help="SQL condition (DuckDB) on the table of samples.")
    ] = None,
    split: Annotated[str | None, typer.Option(help="COLUMN=VALUE that selects samples.")] = None,
    view: Annotated[
        str | None, typer.Option(help="Features to learn from: a view, or KIND:KEY=VALUE,...")
    ] = None,
    target: Annotated[str | None, typer.Option(help=TARGET_HELP)] = None,
    seed: Seed = 0,
    pairs: Settings = [],  # noqa: B006
    config: Config = None,
    store: StoreUrl = STORE,
    cluster: Annotated[str, typer.Option(help=TOGETHER_HELP)] = "threads",
    device: Device = "cpu",
    single_writer: SingleWriter = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Fit a model to selected samples; a fit that is stored is not computed again.

    Example: wavemill fit phase-harmonics flow --where "sample_id = 'run-01'"
    """
    kind = MODEL_KINDS.get(model)
    for option, given in (("--view", view), ("--target", target)):
        if given is not None and kind is not None and option not in kind.takes:
            raise typer.BadParameter(f"{model} takes none", param_hint=option)
    url = absolute(store, single_writer)
    parameters = settings(pairs, config)
    expect_dataset(url, dataset)
    with flowing(quiet or as_json):
        from flows.fit import fit as flow

        made = flow(
            model,
            dataset,
            store=url,
            parameters=parameters,
            where=where,
            split=split,
            seed=seed,
            device=device,
            view=view,
            target=target,
            cluster=cluster,
        )
    state = "fitted" if made.written else "was fitted already"
    lines = [f"{made.short} {state}"]
    lines += [f"  {key} {value:.6g}" for key, value in sorted(made.metrics.items())]
    hint = MODEL_KINDS[made.kind].hint.format(made.short, dataset)
    tell(made, lines, as_json, quiet, f"wavemill {hint}")


def synthesize(
    artifact: Annotated[str, typer.Argument(help="Key, unique prefix, or kind/dataset@latest.")],
    to: Annotated[
        Path, typer.Option("--to", callback=written_here, help="A .npy, .zarr or .png file.")
    ],
    n: Annotated[int, typer.Option("-n", min=1, help="How many samples.")] = 1,
    seed: Seed = 0,
    cluster: Cluster = "threads",
    device: Device = "cpu",
    store: StoreUrl = STORE,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Draw samples from a fitted model; with --cluster local, several at once.

    Example: wavemill synthesize gaussian/flow@latest -n 4 --to synthesis.png
    """
    from tasks.output import FORMATS, write_fields

    if to.suffix not in FORMATS:
        raise typer.BadParameter(f"{to}: choose one of {' '.join(FORMATS)}", param_hint="--to")
    with flowing(quiet or as_json):
        from flows.draws import synthesize as draw

        samples = draw(absolute(store), artifact, n, seed, device, cluster)
    write_fields(samples, to)
    shape = "x".join(map(str, samples.shape))
    tell({"path": str(to), "shape": samples.shape}, [f"wrote {to}: {shape}"], as_json, quiet)


def predict(
    artifact: Annotated[str, typer.Argument(help="Key, unique prefix, or kind/dataset@latest.")],
    source: Annotated[str, typer.Argument(help="A file, folder or archive; or a dataset.")],
    to: Annotated[
        Path, typer.Option("--to", callback=written_here, help="A .csv or .parquet file.")
    ],
    device: Device = "cpu",
    store: StoreUrl = STORE,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Predict with a regression or a classifier; samples that it cannot judge are flagged.

    Example: wavemill predict regression/qm9@latest molecule.xyz --to energies.csv, or
    wavemill predict classifier/cifar10@latest folder/ --to classes.csv
    """
    from storage import open_store
    from tasks.prediction import predict_to

    if to.suffix not in (".csv", ".parquet"):
        raise typer.BadParameter(f"{to}: choose .csv or .parquet", param_hint="--to")
    with progress(quiet or as_json):
        rows = predict_to(open_store(absolute(store)), artifact, source, to, device)
    flagged = int((rows["flag"] != "").sum())
    if flagged:
        warn(f"{flagged} of {len(rows)} samples are not predicted: see the column flag")
    preview = rows.head(5).to_string(index=False).split("\n")
    tell(
        {"path": str(to), "samples": len(rows), "flagged": flagged},
        [*preview, f"wrote {to}: {len(rows) - flagged} of {len(rows)} samples predicted"],
        as_json,
        quiet,
    )


def demo(
    to: Annotated[
        Path,
        typer.Option("--to", callback=written_here, help="Folder of the store and the report."),
    ] = Path("wavemill-demo"),
    cluster: Cluster = "local",
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Run the main job on embedded data, from simulated turbulence to a report.

    Example: wavemill demo
    """
    with flowing(quiet or as_json):
        from flows.demo import demo as flow

        made = flow(str(to.absolute()), cluster)
    lines = [*made["lines"], f"report: {made['report']}"]
    tell(
        made, lines, as_json, quiet, "open the report, then `wavemill up` for schedules and the UI"
    )
