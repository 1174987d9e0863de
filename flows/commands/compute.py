"""Commands that compute: ingest, features, fit, synthesize, predict, demo."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

import typer

from flows.commands.options import (
    STORE,
    AsJson,
    Cluster,
    Config,
    Device,
    Quiet,
    Settings,
    SingleWriter,
    StoreUrl,
    absolute,
    progress,
    settings,
    tell,
    warn,
)

ingest_app = typer.Typer(help="Make raw data into a dataset.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    app.add_typer(ingest_app, name="ingest")
    app.command()(features)
    app.command()(fit)
    app.command()(synthesize)
    app.command()(predict)
    app.command()(demo)


@ingest_app.command(
    epilog="Example: wavemill ingest turbulence 'runs/*.h5' --name flow --variable u --slice z:0 "
    "--derive vorticity --periodic"
)
def turbulence(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE...",
            help="Files, folders, globs, .zip, .tar(.gz), s3://..., or simulate:n=16,N=128.",
        ),
    ],
    name: Annotated[str, typer.Option("--name", help="Name of the dataset.")],
    variable: Annotated[
        str, typer.Option(help="Variable to read where a file holds several: u, or u,v to stack.")
    ] = "",
    components: Annotated[
        str, typer.Option(help="Names such as I,Q,U that mark files of one sample, or components.")
    ] = "",
    slice_: Annotated[
        str | None, typer.Option("--slice", help="AXIS:INDEX or AXIS:all, for 3D input.")
    ] = None,
    derive: Annotated[str | None, typer.Option(help="vorticity, from a velocity.")] = None,
    shape: Annotated[str | None, typer.Option(help="YxX of the samples to admit.")] = None,
    dtype: Annotated[str | None, typer.Option(help="float32 or float64, as stored.")] = None,
    spacing: Annotated[str | None, typer.Option(help="Grid spacing, DY,DX or one number.")] = None,
    periodic: Annotated[
        bool | None, typer.Option("--periodic/--no-periodic", help="Whether fields wrap around.")
    ] = None,
    part_size: Annotated[str, typer.Option(help="Arrays in a part, such as 128MiB.")] = "128MiB",
    strict: Annotated[
        bool, typer.Option(help="Fail rather than put bad inputs in quarantine.")
    ] = False,
    mirror: Annotated[bool, typer.Option(help="Withdraw samples whose source is gone.")] = False,
    rehash: Annotated[bool, typer.Option(help="Read known inputs again.")] = False,
    store: StoreUrl = STORE,
    cluster: Cluster = "local",
    single_writer: SingleWriter = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Ingest snapshots of fields; a second run reads only what is new or changed."""
    from flows.ingest import ingest
    from tasks.planning import IngestOptions

    if derive not in (None, "vorticity"):
        raise typer.BadParameter(f"{derive!r}: only vorticity is derived", param_hint="--derive")
    options = IngestOptions(
        variable=_names(variable),
        components=_names(components),
        slice=slice_,
        derive=derive,
        shape=_pair(shape, "x", int, "--shape"),
        dtype=_dtype(dtype),
        spacing=_pair(spacing, ",", float, "--spacing"),
        periodic=periodic,
        part_size=_bytes(part_size),
        strict=strict,
        mirror=mirror,
        rehash=rehash,
    )
    with progress(quiet or as_json):
        made = ingest(name, _absolute(sources), absolute(store, single_writer), options, cluster)
    _tell_ingested(name, made, as_json, quiet, f"wavemill features {name} --view scattering")


@ingest_app.command(
    epilog="Example: wavemill ingest molecules dsgdb9nsd.xyz.tar.bz2 --name qm9 "
    "--exclude uncharacterized.txt"
)
def molecules(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE...",
            help="Files, folders, globs, .zip, .tar(.gz, .bz2), s3://..., qm9: (downloads it), "
            "or ase:g2.",
        ),
    ],
    name: Annotated[str, typer.Option("--name", help="Name of the dataset.")],
    table: Annotated[
        str | None, typer.Option(help="Properties, joined by id, or by position without ids.")
    ] = None,
    target: Annotated[
        list[str], typer.Option(help="Columns to take, each [NAME=]COLUMN[:UNIT]; repeatable.")
    ] = [],  # noqa: B006  (Typer copies it)
    exclude: Annotated[
        list[str], typer.Option(help="A file with ids to leave out in its first column.")
    ] = [],  # noqa: B006
    atomise: Annotated[
        list[str], typer.Option(help="Energy in hartree to make <NAME>_atom of, in kcal/mol.")
    ] = [],  # noqa: B006
    atomref: Annotated[
        str | None, typer.Option(help="Energies of free atoms; QM9's unless given.")
    ] = None,
    part_size: Annotated[str, typer.Option(help="Files in a part, such as 8MiB.")] = "8MiB",
    strict: Annotated[
        bool, typer.Option(help="Fail rather than put bad inputs in quarantine.")
    ] = False,
    mirror: Annotated[bool, typer.Option(help="Withdraw samples whose source is gone.")] = False,
    rehash: Annotated[bool, typer.Option(help="Read known inputs again.")] = False,
    store: StoreUrl = STORE,
    cluster: Cluster = "local",
    single_writer: SingleWriter = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Ingest molecules; a second run reads only what is new or changed."""
    from flows.ingest import ingest
    from tasks.molecules import MoleculeOptions

    options = MoleculeOptions(
        table=table and _absolute([table])[0],
        target=tuple(target),
        exclude=tuple(_absolute(exclude)),
        atomref=atomref and _absolute([atomref])[0],
        atomise=tuple(atomise),
        part_size=_bytes(part_size),
        strict=strict,
        mirror=mirror,
        rehash=rehash,
    )
    with progress(quiet or as_json):
        made = ingest(name, _absolute(sources), absolute(store, single_writer), options, cluster)
    _tell_ingested(name, made, as_json, quiet, f"wavemill features {name} --view atomic-harmonics")


def _tell_ingested(name: str, made: Any, as_json: bool, quiet: bool, hint: str) -> None:
    for unit, reason, message in made.refused[:10]:
        warn(f"quarantined ({reason}): {unit}: {message}")
    if len(made.refused) > 10:
        warn(f"and {len(made.refused) - 10} more: wavemill show {name} --quarantine")
    tell(made, _ingest_lines(made), as_json, quiet, hint)


def _ingest_lines(made: Any) -> list[str]:
    ignored = ", ".join(
        f"{count} {suffix or 'without extension'}" for suffix, count in made.ignored.items()
    )
    lines = [
        f"dataset {made.dataset} version {made.version}: {made.samples} samples",
        f"  {made.added} new, {made.unchanged} unchanged, {made.withdrawn} withdrawn, "
        f"{made.restored} restored, {sum(made.quarantined.values())} quarantined",
        f"  {made.parts_written} parts written, {made.parts_reused} reused",
    ]
    return [*lines, f"  ignored by their extension: {ignored}"] if ignored else lines


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _absolute(sources: list[str]) -> list[str]:
    return [
        source if ":" in source.split("/")[0] else str(Path(source).expanduser().absolute())
        for source in sources
    ]


def _dtype(text: str | None) -> str | None:
    if text not in (None, "float32", "float64"):
        raise typer.BadParameter(f"{text!r}: float32 or float64", param_hint="--dtype")
    return text


def _pair(text: str | None, separator: str, kind: Any, option: str) -> Any:
    """Read ``AxB`` or one number for both."""
    if text is None:
        return None
    pieces = text.split(separator)
    try:
        values = tuple(kind(piece) for piece in pieces)
    except ValueError:
        values = ()
    if len(values) not in (1, 2):
        raise typer.BadParameter(f"{text!r} is not A{separator}B", param_hint=option)
    return values * 2 if len(values) == 1 else values


def _bytes(text: str) -> int:
    units = {
        "": 1,
        "b": 1,
        "kib": 2**10,
        "mib": 2**20,
        "gib": 2**30,
        "kb": 10**3,
        "mb": 10**6,
        "gb": 10**9,
    }
    match = re.fullmatch(r"([\d.]+)\s*([a-z]*)", text.strip().lower())
    if match is None or match[2] not in units:
        raise typer.BadParameter(f"{text!r} is not a size such as 128MiB", param_hint="--part-size")
    return max(1, int(float(match[1]) * units[match[2]]))


def features(
    dataset: Annotated[str, typer.Argument(metavar="N", help="Name of the dataset.")],
    view: Annotated[str, typer.Option("--view", help="spectrum, scattering or phase-harmonics.")],
    name: Annotated[
        str | None, typer.Option("--as", help="Name of the view; its kind unless given.")
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
    from flows.features import features as flow

    with progress(quiet or as_json):
        url = absolute(store, single_writer)
        made = flow(dataset, view, url, name, settings(pairs, config), cluster, device)
    shape = "x".join(map(str, made.row_shape))
    lines = [
        f"view {name or view} version {made.version} on {dataset} version {made.dataset_version}: "
        f"{shape} features a sample in {len(made.parts)} parts"
    ]
    hint = f"wavemill query {dataset} --view {name or view}, or wavemill fit gaussian {dataset}"
    tell(made, lines, as_json, quiet, hint)


def fit(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL", help="gaussian, phase-harmonics, energy, regression or generator."
        ),
    ],
    dataset: Annotated[str, typer.Argument(metavar="N", help="Name of the dataset.")],
    where: Annotated[
        str | None, typer.Option(help="DuckDB expression over sample metadata.")
    ] = None,
    split: Annotated[str | None, typer.Option(help="COLUMN=VALUE that selects samples.")] = None,
    view: Annotated[str | None, typer.Option(help="Features for a regression.")] = None,
    target: Annotated[str | None, typer.Option(help="Column that a regression learns.")] = None,
    seed: Annotated[int, typer.Option(help="Of everything random.")] = 0,
    pairs: Settings = [],  # noqa: B006
    config: Config = None,
    store: StoreUrl = STORE,
    device: Device = "cpu",
    single_writer: SingleWriter = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Fit a model on selected samples; the same fit again is read, not computed.

    Example: wavemill fit phase-harmonics flow --where "sample_id = 'run-01'"
    """
    from flows.fit import fit as flow

    with progress(quiet or as_json):
        url = absolute(store, single_writer)
        parameters = settings(pairs, config)
        made = flow(model, dataset, url, parameters, where, split, seed, device, view, target)
    state = "fitted" if made.written else "was fitted already"
    lines = [f"{made.kind}/{made.key[:12]} {state}"]
    lines += [f"  {key} {value:.6g}" for key, value in sorted(made.metrics.items())]
    reference = f"{made.kind}/{made.key[:12]}"
    hint = f"wavemill synthesize {reference} -n 4 --to synthesis.png"
    if model == "generator":
        hint = f"wavemill generate {reference} --from reconstruct --to pictures.png"
    if model == "regression":
        hint = f"wavemill predict {reference} {dataset} --to predictions.csv"
    tell(made, lines, as_json, quiet, hint)


def synthesize(
    artifact: Annotated[str, typer.Argument(help="Key, unique prefix, or kind/dataset@latest.")],
    to: Annotated[Path, typer.Option("--to", help="A .npy, .zarr or .png file.")],
    n: Annotated[int, typer.Option("-n", min=1, help="How many samples.")] = 1,
    seed: Annotated[int, typer.Option(help="Of the samples.")] = 0,
    store: StoreUrl = STORE,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Draw samples from a fitted model.

    Example: wavemill synthesize gaussian/flow@latest -n 4 --to synthesis.png
    """
    from storage import open_store
    from tasks.fit import synthesize as draw
    from tasks.output import FORMATS, write_fields

    if to.suffix not in FORMATS:
        raise typer.BadParameter(f"{to}: choose one of {' '.join(FORMATS)}", param_hint="--to")
    with progress(quiet or as_json):
        samples = draw(open_store(absolute(store)), artifact, n, seed)
    write_fields(samples, to)
    shape = "x".join(map(str, samples.shape))
    tell({"path": str(to), "shape": samples.shape}, [f"wrote {to}: {shape}"], as_json, quiet)


def predict(
    artifact: Annotated[str, typer.Argument(help="Key, unique prefix, or kind/dataset@latest.")],
    source: Annotated[str, typer.Argument(help="A file, folder or archive; or a dataset.")],
    to: Annotated[Path, typer.Option("--to", help="A .csv or .parquet file.")],
    store: StoreUrl = STORE,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Predict of molecules what a regression has learnt; elements it never saw are flagged.

    Example: wavemill predict regression/qm9@latest molecule.xyz --to energies.csv
    """
    from storage import open_store
    from tasks.regression import predict_to

    if to.suffix not in (".csv", ".parquet"):
        raise typer.BadParameter(f"{to}: choose .csv or .parquet", param_hint="--to")
    with progress(quiet or as_json):
        rows = predict_to(open_store(absolute(store)), artifact, source, to)
    flagged = int((rows["flag"] != "").sum())
    if flagged:
        warn(f"{flagged} of {len(rows)} molecules are not predicted: see the column flag")
    preview = rows.head(5).to_string(index=False)
    tell(
        {"path": str(to), "molecules": len(rows), "flagged": flagged},
        [preview, f"wrote {to}: {len(rows)} molecules"],
        as_json,
        quiet,
    )


def demo(
    to: Annotated[Path, typer.Option("--to", help="Folder of the store and the report.")] = Path(
        "wavemill-demo"
    ),
    cluster: Cluster = "local",
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Run the main job on embedded data, from simulated turbulence to a report.

    Example: wavemill demo
    """
    from flows.demo import demo as flow

    with progress(quiet or as_json):
        made = flow(str(to.absolute()), cluster)
    lines = [*made["lines"], f"report: {made['report']}"]
    tell(
        made, lines, as_json, quiet, "open the report, then `wavemill up` for schedules and the UI"
    )
