"""Commands that look, check and clean: query, ls, show, verify, gc."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

import typer

from flows.commands.options import (
    STORE,
    AsJson,
    Quiet,
    StoreUrl,
    absolute,
    plain,
    tell,
    warn,
    written_here,
)

_LATER = ["width", "height", "format", "mode", "source", "index"]  # shown if labels leave room
_WIDTH = 8  # columns of a preview


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    app.command()(query)
    app.command("ls")(list_)
    app.command()(show)
    app.command()(verify)
    app.command()(gc)


def query(
    dataset: Annotated[str, typer.Argument(metavar="N", help="Name of the dataset.")],
    view: Annotated[
        str | None, typer.Option(help="Name of a view; without it, sample metadata.")
    ] = None,
    where: Annotated[
        str | None, typer.Option(help="SQL condition (DuckDB) on the table of samples.")
    ] = None,
    coefficients: Annotated[
        str | None, typer.Option(help="SQL condition (DuckDB) on the table of coefficients.")
    ] = None,
    as_of: Annotated[str | None, typer.Option(help="Dataset version, or RFC 3339 time.")] = None,
    to: Annotated[
        Path | None,
        typer.Option(
            "--to",
            callback=written_here,
            help="A .parquet or .csv file; with --view also a .nc, .zarr or .npz file.",
        ),
    ] = None,
    store: StoreUrl = STORE,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Select samples and coefficients; print ten rows or write them to a file.

    Example: wavemill query flow --view scattering --coefficients "order == 1" --to order1.parquet
    """
    from storage import open_store
    from storage.export import export

    opened = open_store(absolute(store), existing=True)
    if view is None:
        if coefficients is not None:
            raise typer.BadParameter(
                "needs a --view, whose coefficients these are", param_hint="--coefficients"
            )
        _samples(opened.dataset(dataset, as_of).samples(where), to, as_json, quiet)
        return
    frame = opened.get_historical_features(dataset, view, where, coefficients, as_of)
    if frame.missing:
        warn(
            f"{frame.missing} samples have no {view} yet: wavemill features {dataset} --view {view}"
        )
    count = {"samples": len(frame), "coefficients": len(frame.coefficients)}
    line = f"{count['samples']} samples, {count['coefficients']} coefficients"
    if to is not None:
        export(frame, to)
        tell({**count, "path": str(to)}, [f"wrote {to}: {line}"], as_json, quiet)
        return
    rows = frame.head(10).to_pandas().drop(columns=["source", "index", "sha256"], errors="ignore")
    _preview(rows, len(frame.coefficients), count, line, as_json, quiet)


def _samples(rows: Any, to: Path | None, as_json: bool, quiet: bool) -> None:
    """Print or write sample metadata."""
    from storage.export import replacing
    from storage.records import PLACES

    line, count = f"{len(rows)} samples", {"samples": len(rows)}
    rows = rows.drop(columns=list(PLACES), errors="ignore")
    if to is None:
        _preview(rows.head(10), 0, count, line, as_json, quiet)
        return
    writers = {".parquet": rows.to_parquet, ".csv": lambda path: rows.to_csv(path, index=False)}
    if to.suffix not in writers:
        raise typer.BadParameter(f"{to}: metadata goes to .parquet or .csv", param_hint="--to")
    with replacing(to) as partial:
        writers[to.suffix](partial)
    tell({**count, "path": str(to)}, [f"wrote {to}: {line}"], as_json, quiet)


def _preview(
    rows: Any, features: int, count: dict[str, int], line: str, as_json: bool, quiet: bool
) -> None:
    """Print some rows: first what describes the samples, then the first of the features."""
    records = [plain(record) for record in rows.to_dict("records")]
    names = list(rows)[: len(rows.columns) - features]
    named = f"columns: {', '.join(names)}" + (f" and {features} coefficients" if features else "")
    hidden = ["sha256", *(["index"] if "index" in rows and not rows["index"].any() else [])]
    names = sorted((name for name in names if name not in hidden), key=_LATER.__contains__)
    names = names[: max(_WIDTH - features, _WIDTH // 2)]
    names += list(rows)[len(rows.columns) - features :][: _WIDTH - len(names)]
    shown = rows[names].astype(dict.fromkeys(rows[names].select_dtypes("float16"), "float32"))
    table = shown.to_string(index=False, max_colwidth=40).split("\n") if records else []
    table += [named] if records else []
    hint = "--to FILE writes all of them" if records else ""
    tell({**count, "rows": records}, [line, *table], as_json, quiet, hint)


def list_(store: StoreUrl = STORE, as_json: AsJson = False, quiet: Quiet = False) -> None:
    """List datasets, views and artifacts.

    Example: wavemill ls --store s3://bucket/turbulence
    """
    from storage import open_store
    from tasks.inspect import listing

    opened = open_store(absolute(store), existing=True)
    found = listing(opened)
    lines = [_line(kind, entry) for kind, entries in found.items() for entry in entries]
    tell(found, lines or [f"{opened.url} is empty"], as_json, quiet)


def _line(kind: str, entry: dict[str, Any]) -> str:
    from storage.artifacts import short

    match kind:
        case "datasets":
            return (
                f"dataset   {entry['name']} version {entry['version']}: "
                f"{entry['samples']} samples of {entry['shape']}"
            )
        case "views":
            return (
                f"view      {entry['dataset']}/{entry['name']} version {entry['version']}: "
                f"{entry['features']} features, {_given(entry['kind'], entry['parameters'])}"
            )
        case _:
            name = short(entry["kind"], entry["key"])
            said = [entry["published"], entry["model"], _given("", entry["metric"])]
            return f"artifact  {name} on {entry['dataset']}, {', '.join(filter(None, said))}"


def _given(kind: str, values: dict[str, Any]) -> str:
    """Return names and values in a short line."""
    pairs = [f"{name}={value:.4g}" if isinstance(value, float) else f"{name}={value}"
             for name, value in values.items()]  # fmt: skip
    return " ".join(filter(None, [kind, *pairs]))


def show(
    key: Annotated[
        str, typer.Argument(help="A dataset, dataset/view, an artifact, or the key of a part.")
    ],
    columns: Annotated[
        bool,
        typer.Option("--columns", help="Describe the columns of a dataset's table of samples."),
    ] = False,
    quarantine: Annotated[bool, typer.Option(help="List the refused inputs of a dataset.")] = False,
    store: StoreUrl = STORE,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Show a record or a manifest: schema, parts, spec, lineage.

    Example: wavemill show gaussian/flow@latest
    """
    from storage import open_store
    from tasks.inspect import columns as contents
    from tasks.inspect import describe, quarantined

    opened = open_store(absolute(store), existing=True)
    if columns:
        held = contents(opened.dataset(key))
        tell(held, [_column_line(entry) for entry in held], as_json, quiet)
        return
    if quarantine:
        rows = quarantined(opened, key)
        lines = [f"{row['reason']:12} {row['unit']}: {row['message']}" for row in rows]
        tell(rows, lines or ["nothing is in quarantine"], as_json, quiet)
        return
    found = describe(opened, key)
    lines = [f"{name}: {value}" for name, value in plain(found).items()]
    tell(found, lines, as_json, quiet)


def _column_line(entry: dict[str, Any]) -> str:
    """Say what a column holds: its type, how many values there are, their range or commonest."""
    said = f"{entry['column']:20} {entry['type']:8} {entry['known']} known"
    said += f", {entry['missing']} missing" if entry["missing"] else ""
    if not entry["known"]:
        return said
    if "commonest" in entry:
        repeated = entry["different"] < entry["known"]
        values = [f"{v} ({count})" if repeated else v for v, count in entry["commonest"].items()]
        return ", ".join([f"{said}, {entry['different']} different:", *values]).replace(":,", ":")
    ends: dict[str, Any] = {name: entry[name] for name in ("min", "mean", "max") if name in entry}
    return f"{said}: {_given('', ends)} {entry['unit']}".rstrip()


def verify(
    key: Annotated[
        str | None,
        typer.Argument(help="A dataset, or the beginning of keys; by default everything."),
    ] = None,
    repair: Annotated[
        bool, typer.Option(help="Remove what is damaged, so that it can be made anew.")
    ] = False,
    store: StoreUrl = STORE,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Check every checksum; exit 1 if anything is damaged, saying what to recompute.

    Example: wavemill verify
    """
    from storage import open_store
    from storage.verify import repair as clear
    from storage.verify import verify as check

    opened = open_store(absolute(store), existing=True)
    checked: list[str] = []
    findings = list(check(opened, key, checked.append))
    if repair:
        clear(opened, findings)
    done = "removed" if repair else "--repair removes"
    lines = [
        f"{finding.path}: {finding.problem}; {finding.remedy}"
        + (f"; {done} {finding.versions}" if finding.versions else "")
        for finding in findings
    ]
    hint = "" if repair or not findings else "wavemill verify --repair, then the commands above"
    lines.append(f"{len(checked)} objects checked, {len(findings)} damaged")
    if not findings:
        lines = [f"every object is as it was written: {len(checked)} checked"]
    tell(findings, lines, as_json, quiet, hint)
    if findings and not repair:
        raise typer.Exit(1)


def gc(
    keep_versions: Annotated[
        int | None, typer.Option(min=1, help="Newest versions to keep.")
    ] = None,
    keep_days: Annotated[
        float | None, typer.Option(min=0, help="Keep versions of the last so many days.")
    ] = None,
    grace: Annotated[
        str,
        typer.Option(help="Remove nothing younger: 45s, 15m, 2h or 1d; a plain number is hours."),
    ] = "1d",
    yes: Annotated[
        bool, typer.Option("--yes", help="Remove it, instead of only printing it.")
    ] = False,
    store: StoreUrl = STORE,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Remove what no version refers to; without --yes, only print it.

    Example: wavemill gc --keep-versions 10 --yes
    """
    from flows.durations import seconds
    from storage import open_store
    from storage.collect import Retention, collect

    young = timedelta(seconds=seconds(grace, "--grace", "h"))
    opened = open_store(absolute(store), writable=True, existing=True)
    retention = Retention(keep_versions, keep_days)
    removals = collect(opened, retention, young, delete=yes)
    size = sum(removal.size for removal in removals)
    lines = [f"{removal.why:26} {removal.path}" for removal in removals]
    lines.append(f"{len(removals)} objects, {size / 2**20:.1f} MiB{' removed' if yes else ''}")
    hint = "" if yes or not removals else "the same with --yes removes them"
    tell(removals, lines, as_json, quiet, hint)
