"""Commands that ingest: turbulence, molecules, images."""

from __future__ import annotations

import pkgutil
import re
from glob import has_magic
from pathlib import Path
from typing import Annotated, Any

import typer

from flows.commands.options import (
    STORE,
    AsJson,
    Cluster,
    Quiet,
    SingleWriter,
    StoreUrl,
    absolute,
    flowing,
    tell,
    warn,
)

OPTIONS = {  # by name: they are loaded while Prefect's server starts
    "turbulence": "tasks.fields:FieldOptions",
    "molecules": "tasks.molecules:MoleculeOptions",
    "images": "tasks.images:ImageOptions",
}

ingest_app = typer.Typer(help="Make raw data into a dataset.", no_args_is_help=True)

Name = Annotated[str, typer.Option("--name", help="Name of the dataset.")]
Strict = Annotated[bool, typer.Option(help="Fail on bad inputs instead of quarantining them.")]
Mirror = Annotated[bool, typer.Option(help="Withdraw samples whose source is gone.")]
Rehash = Annotated[bool, typer.Option(help="Read known inputs again.")]

Variable = Annotated[
    str, typer.Option(help="Variable to read where a file holds several: u, or u,v to stack.")
]
Components = Annotated[
    str, typer.Option(help="I,Q,U, say: marks of the files of one sample, or components of a file.")
]
Slice = Annotated[
    str | None,
    typer.Option(
        "--slice",
        help="Planes of 3D input: AXIS:INDEX, AXIS:FIRST-LAST or AXIS:all; commas between axes.",
    ),
]
Derive = Annotated[
    str | None, typer.Option(help="What to compute and store instead: vorticity, of a velocity.")
]
Fill = Annotated[
    str | None,
    typer.Option(help="For missing values: mean or a number; without it such fields are refused."),
]
Periodic = Annotated[
    bool | None, typer.Option("--periodic/--no-periodic", help="Whether fields wrap around.")
]


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    app.add_typer(ingest_app, name="ingest")


@ingest_app.command(
    epilog="Example: wavemill ingest turbulence 'runs/*.h5' --name flow --variable u --slice z:0 "
    "--derive vorticity --periodic"
)
def turbulence(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE...",
            help="Files, folders, globs (quoted), .zip, .tar(.gz), s3://..., https://..., or "
            "simulate:n=16,N=128.",
        ),
    ],
    name: Name,
    variable: Variable = "",
    components: Components = "",
    slice_: Slice = None,
    derive: Derive = None,
    fill: Fill = None,
    shape: Annotated[str | None, typer.Option(help="Size YxX of the samples to admit.")] = None,
    dtype: Annotated[str | None, typer.Option(help="Stored precision: float32 or float64.")] = None,
    spacing: Annotated[str | None, typer.Option(help="Grid spacing: DY,DX or one number.")] = None,
    periodic: Periodic = None,
    part_size: Annotated[
        str, typer.Option(help="Size of a part's arrays, such as 128MiB.")
    ] = "128MiB",
    strict: Strict = False,
    mirror: Mirror = False,
    rehash: Rehash = False,
    store: StoreUrl = STORE,
    cluster: Cluster = "local",
    single_writer: SingleWriter = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Ingest snapshots of fields; a second run reads only what is new or changed."""
    given = {
        **reading(variable, components, slice_, derive, fill),
        "shape": _pair(shape, "x", int, "--shape"),
        "dtype": _dtype(dtype),
        "spacing": _pair(spacing, ",", float, "--spacing"),
        "periodic": periodic,
        "part_size": _bytes(part_size),
        "strict": strict,
        "mirror": mirror,
        "rehash": rehash,
    }
    url = absolute(store, single_writer)
    _ingest("turbulence", given, name, sources, url, cluster, as_json, quiet)


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
    name: Name,
    table: Annotated[
        str | None,
        typer.Option(help="Table of properties, joined by id, or by order if it has no ids."),
    ] = None,
    target: Annotated[
        list[str], typer.Option(help="Columns to take, each [NAME=]COLUMN[:UNIT]; repeatable.")
    ] = [],  # noqa: B006  (Typer copies it)
    exclude: Annotated[
        list[str], typer.Option(help="File whose first column lists ids to leave out; repeatable.")
    ] = [],  # noqa: B006
    atomise: Annotated[
        list[str],
        typer.Option(help="Energy NAME[:UNIT] to make NAME_atom from, in kcal/mol; repeatable."),
    ] = [],  # noqa: B006
    atomref: Annotated[
        str | None, typer.Option(help="Table of the energies of free atoms; by default QM9's.")
    ] = None,
    part_size: Annotated[str, typer.Option(help="Size of a part's files, such as 8MiB.")] = "8MiB",
    strict: Strict = False,
    mirror: Mirror = False,
    rehash: Rehash = False,
    store: StoreUrl = STORE,
    cluster: Cluster = "local",
    single_writer: SingleWriter = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Ingest molecules; a second run reads only what is new or changed."""
    given = {
        "table": table and _absolute([table])[0],
        "target": tuple(target),
        "exclude": tuple(_absolute(exclude)),
        "atomref": atomref and _absolute([atomref])[0],
        "atomise": tuple(atomise),
        "part_size": _bytes(part_size),
        "strict": strict,
        "mirror": mirror,
        "rehash": rehash,
    }
    url = absolute(store, single_writer)
    _ingest("molecules", given, name, sources, url, cluster, as_json, quiet)


@ingest_app.command(
    epilog="Example: wavemill ingest images ILSVRC2012_img_train.tar --name imagenet --size 224"
)
def images(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE...",
            help="Folders (a class each), globs, .zip, .tar(.gz), a tar of tars, shards, "
            "CIFAR's .bin, s3://..., or sklearn:digits.",
        ),
    ],
    name: Name,
    size: Annotated[
        str | None,
        typer.Option(
            help="Size YxX, or one side; by default the images' own if all agree, else 224."
        ),
    ] = None,
    fit: Annotated[
        str | None, typer.Option(help="crop (resize, then cut out the centre), stretch, or exact.")
    ] = None,
    resize: Annotated[
        str | None, typer.Option(help="Size YxX to cover before the crop; by default --size.")
    ] = None,
    keep_encoded: Annotated[
        bool, typer.Option("--keep-encoded", help="Keep the encoded bytes as well.")
    ] = False,
    split: Annotated[
        str | None,
        typer.Option(
            help="Split of all images: train, validation or test; by default from their paths."
        ),
    ] = None,
    annotations: Annotated[
        list[str], typer.Option(help="Table of labels or attributes by file name; repeatable.")
    ] = [],  # noqa: B006  (Typer copies it)
    classes: Annotated[
        str | None, typer.Option(help="List of classes in the order of their indices.")
    ] = None,
    label_order: Annotated[
        str | None, typer.Option(help="Order of ILSVRC2012's validation labels: sorted or devkit.")
    ] = None,
    mix: Annotated[
        bool,
        typer.Option(
            "--mix", help="Order by a hash of names, so that every shard is a random choice."
        ),
    ] = False,
    part_size: Annotated[
        str, typer.Option(help="Size of a part's arrays, such as 64MiB.")
    ] = "64MiB",
    strict: Strict = False,
    mirror: Mirror = False,
    rehash: Rehash = False,
    store: StoreUrl = STORE,
    cluster: Cluster = "local",
    single_writer: SingleWriter = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Ingest labelled images; a second run reads only what is new or changed."""
    given = {
        "size": _pair(size, "x", int, "--size"),
        "fit": fit,
        "cover": _pair(resize, "x", int, "--resize"),
        "keep_encoded": keep_encoded,
        "split": split,
        "annotations": tuple(_absolute(annotations)),
        "classes": classes and _absolute([classes])[0],
        "label_order": label_order,
        "mix": mix,
        "part_size": _bytes(part_size),
        "strict": strict,
        "mirror": mirror,
        "rehash": rehash,
    }
    url = absolute(store, single_writer)
    _ingest("images", given, name, sources, url, cluster, as_json, quiet)


def _ingest(
    kind: str,
    given: dict[str, Any],
    name: str,
    sources: list[str],
    url: str,
    cluster: str,
    as_json: bool,
    quiet: bool,
) -> None:
    """Run the flow and say what it made."""
    from storage.addresses import checked_name

    checked_name(name)
    sources = _absolute(sources)
    _expect(sources)
    with flowing(quiet or as_json):
        options = pkgutil.resolve_name(OPTIONS[kind])(**given)
        from flows.ingest import ingest

        made = ingest(name, sources, url, options, cluster)
    for unit, reason, message in made.refused[:10]:
        warn(f"quarantined ({reason}): {unit}: {message}")
    if len(made.refused) > 10:
        warn(f"and {len(made.refused) - 10} more: wavemill show {name} --quarantine")
    view = "atomic-harmonics" if kind == "molecules" else "scattering"
    hint = f"wavemill features {name} --view {view}"
    tell(made, _ingest_lines(made), as_json, quiet, hint)


def _ingest_lines(made: Any) -> list[str]:
    ignored = ", ".join(f"{count} {suffix}" for suffix, count in made.ignored.items())
    lines = [
        f"dataset {made.dataset} version {made.version}: {made.samples} samples",
        f"  {made.added} new, {made.replaced} replaced, {made.unchanged} unchanged, "
        f"{made.withdrawn} withdrawn, {made.restored} restored, "
        f"{sum(made.quarantined.values())} quarantined",
        f"  {made.parts_written} parts written, {made.parts_reused} reused",
    ]
    return [*lines, f"  ignored: {ignored}"] if ignored else lines


def reading(
    variable: str, components: str, slice_: str | None, derive: str | None, fill: str | None
) -> dict[str, Any]:
    """Return the options that choose what is read in files of fields."""
    if derive not in (None, "vorticity"):
        raise typer.BadParameter(f"{derive!r}: only vorticity is derived", param_hint="--derive")
    return {
        "variable": _names(variable),
        "components": _names(components),
        "slice": slice_,
        "derive": derive,
        "fill": fill,
    }


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _absolute(sources: list[str]) -> list[str]:
    """Return sources with absolute paths."""
    from storage.addresses import without_secrets

    return [
        without_secrets(source)
        if ":" in source.split("/")[0]
        else str(Path(source).expanduser().absolute())
        for source in sources
    ]


def _expect(sources: list[str]) -> None:
    """Refuse files that do not exist, before a flow starts Prefect's server for nothing."""
    for source in sources:
        if source.startswith("/") and not has_magic(source) and not Path(source).exists():
            from storage.sources.filesystem import expand

            expand(source)  # which raises


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
