"""A report: one self-contained HTML file of pictures, tables and the commands behind them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from storage import Artifact, Store
from storage.documents import now
from storage.export import replacing
from storage.typing import Array
from tasks import figures, image_figures, molecule_figures
from tasks.figures import first_component, shown
from tasks.requests import spread
from wavemill.specs import GeneratorSpec

WIDE = 8  # columns
EXAMPLES = {
    "scattering": "order == 1",
    "phase-harmonics": "k1 == 0 and k2 == 1",
    "spectrum": "shell between 1 and 16",
}


@dataclass(frozen=True)
class Picture:
    """A PNG with its caption."""

    image: bytes
    caption: str

    @property
    def uri(self) -> str:
        """The picture within the page."""
        return figures.data_uri(self.image)


def held_pictures(artifact: Artifact, captions: Mapping[str, str]) -> list[Picture]:
    """Return those figures that an artifact holds: of a single sample some cannot be drawn."""
    paths = {f"figures/{name}.png": caption for name, caption in captions.items()}
    held = artifact.files()
    return [Picture(artifact.read(path), said) for path, said in paths.items() if path in held]


@dataclass(frozen=True)
class Cell:
    """One cell of a table."""

    text: str
    number: bool = False


@dataclass(frozen=True)
class Table:
    """Rows of values under named columns."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]

    @property
    def wide(self) -> bool:
        """Whether cells are small and wrapped, so that none lies beyond the page."""
        return len(self.columns) >= WIDE

    @classmethod
    def of(cls, records: Iterable[Mapping[Any, Any]]) -> Table:
        """Build from records with the same names."""
        listed = [dict(record) for record in records]
        columns = [str(name) for name in listed[0]] if listed else []
        return cls(columns, [[_cell(record[name]) for name in columns] for record in listed])


def _cell(value: Any) -> Cell:
    if isinstance(value, float):
        return Cell(f"{value:.4g}", True)
    if isinstance(value, int) and not isinstance(value, bool):
        return Cell(f"{value:,}", True)
    return Cell("" if value is None else str(value))


@dataclass(frozen=True)
class Section:
    """A heading with text, pictures, tables and commands."""

    title: str
    text: str = ""
    pictures: Sequence[Picture] = ()
    tables: Sequence[Table] = ()
    commands: Sequence[str] = field(default_factory=list)
    lead: bool = False


def write_report(target: Path, title: str, subtitle: str, sections: Sequence[Section]) -> Path:
    """Write the page; an existing one is replaced once the new one is whole."""
    environment = Environment(
        loader=PackageLoader("tasks"),
        autoescape=select_autoescape(default=True, default_for_string=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template("report.html.j2").render(
        title=title, subtitle=subtitle, sections=sections
    )
    with replacing(target) as partial:
        partial.write_text(page, encoding="utf-8")
    return target


def turbulence_report(
    store: Store,
    dataset: str,
    artifacts: Sequence[Artifact],
    syntheses: Mapping[str, Array],
    target: Path,
    learnt: Sequence[Artifact],
) -> Path:
    """Write the report on a dataset of fields, its views and the models fitted on it.

    Regressions, classifiers and generators ``learnt`` in the same store have their own chapters.
    """
    sections = [
        _synthesis(store, dataset, syntheses),
        _statistics(store, dataset, syntheses, artifacts),
        _dataset(store, dataset),
        *(_view(store, dataset, view) for view in store.views(dataset)),
        _lineage(artifacts),
        *(CHAPTERS[artifact.kind](store, artifact) for artifact in learnt),
    ]
    subtitle = f"dataset {dataset} in {store.url}, written {now()[:19]}Z"
    return write_report(target, "Turbulence, and what models make of it", subtitle, sections)


def _synthesis(store: Store, dataset: str, syntheses: Mapping[str, Array]) -> Section:
    """Show a real field beside one of each model."""
    panels = {f"real: {name}": field for name, field in shown(store.dataset(dataset), 1).items()}
    panels |= {f"{kind} model": first_component(drawn)[0] for kind, drawn in syntheses.items()}
    picture = Picture(
        figures.fields(panels),
        "A field of the dataset, and new fields drawn from models fitted on it, on one colour "
        "scale. A Gaussian model has the right spectrum and no structures; phase harmonics bring "
        "back what the phases hold.",
    )
    return Section("Real and synthesised fields", pictures=[picture], lead=True)


def _statistics(
    store: Store, dataset: str, syntheses: Mapping[str, Array], artifacts: Sequence[Artifact]
) -> Section:
    source = store.dataset(dataset)
    held = source.samples()
    real = first_component(source.read(held.iloc[spread(len(held), 64)]))
    groups = {"data": real, **{k: first_component(v) for k, v in syntheses.items()}}
    pictures = [
        Picture(
            figures.spectra(groups, source.schema.periodic),
            "Power spectra, of tapered fields if they do not wrap; bands are one standard "
            "deviation.",
        ),
        Picture(
            figures.distributions(groups),
            "Distributions of values, all in standard deviations of the data about their mean; a "
            "normal law is dotted.",
        ),
    ]
    metrics = {a.kind: json.loads(a.read("metrics.json")) for a in artifacts}
    rows = [
        {
            "statistic": name,
            "data": next(iter(metrics.values())).get(f"data_{name}"),
            **{kind: values.get(f"synthesis_{name}") for kind, values in metrics.items()},
        }
        for name in ("std", "skewness", "flatness")
        if metrics
    ]
    text = "Flatness is 3 for a Gaussian field; intermittent fields exceed it."
    return Section("Statistics", text, pictures, [Table.of(rows)])


def _dataset(store: Store, name: str) -> Section:
    rows = [
        {
            "version": v.version,
            "published": v.published[:19] + "Z",
            "samples": v.count,
            "parts": len(v.parts),
            "shape": v.schema.size,
            "components": ", ".join(v.schema.components),
        }
        for v in store.versions(name)
    ]
    first = store.dataset(name).samples().head(5)
    provenance = first[["sample_id", "source", "sha256"]].assign(
        sha256=first["sha256"].str.slice(0, 12), source=first["source"].str.slice(0, 90)
    )
    tables = [Table.of(rows), Table.of(provenance.to_dict("records"))]
    return Section(
        f"Dataset {name}",
        "Versions, and where the first samples come from.",
        tables=tables,
        commands=[f"wavemill show {name}", f"wavemill query {name}"],
    )


def _view(store: Store, dataset: str, name: str) -> Section:
    version = store.view(dataset, name)
    frame = store.get_historical_features(dataset, name)
    values = frame.to_xarray()[spread(len(frame), 64)].values
    row = {
        "kind": version.spec["kind"],
        "parameters": json.dumps(version.spec["parameters"]),
        "features a sample": "x".join(map(str, version.row_shape)),
        "samples": len(frame),
        "parts": len(version.parts),
    }
    picture = Picture(
        figures.coefficients(frame.coefficients, values), f"{name}: mean over samples."
    )
    example = EXAMPLES.get(version.spec["kind"])
    where = f'--coefficients "{example}" ' if example else ""
    command = f"wavemill query {dataset} --view {name} {where}--to {name}.parquet"
    return Section(f"View {name}", "", [picture], [Table.of([row])], [command])


def regression_chapter(store: Store, artifact: Artifact) -> Section:
    """Show what was learnt about a property of molecules, and how wrong it is."""
    name, target = artifact.manifest["dataset"], artifact.manifest["target"]
    metrics, unit = json.loads(artifact.read("metrics.json")), artifact.manifest["unit"]
    pictures = [
        Picture(
            molecule_figures.population(store.dataset(name).samples()),
            f"The molecules of dataset {name}.",
        ),
        Picture(artifact.read("figures/parity.png"), f"{target} of molecules not learnt from."),
        Picture(
            artifact.read("figures/learning.png"), "Errors fall with the molecules learnt from."
        ),
    ]
    rows = {
        "learnt from": artifact.manifest["samples"],
        f"mean absolute error, {unit}": metrics["mae"],
        "of the composition alone": metrics["composition_mae"],
        "artifact": artifact.short,
    }
    command = f"wavemill predict {artifact.short} molecule.xyz --to predicted.csv"
    title = f"Molecules: {target.replace('_', ' ')} from geometry"
    return Section(title, "", pictures, [Table.of([rows])], [command])


def classifier_chapter(store: Store, artifact: Artifact) -> Section:
    """Show images, what the classifier confuses, and its sparse codes where it has any."""
    name, metrics = artifact.manifest["dataset"], json.loads(artifact.read("metrics.json"))
    captions = {
        "confusion": "What images not learnt from were taken for.",
        "codes": "Some of them, how many atoms are active where, and their mean codes.",
    }
    sheet = image_figures.contact_sheet(store.dataset(name))
    pictures = [
        Picture(sheet, f"The images of dataset {name}."),
        *held_pictures(artifact, captions),
    ]
    row = {
        "learnt from": artifact.manifest["samples"],
        "held out": int(metrics["held_out"]),
        "right of those, %": 100 * metrics["top1"],
        "artifact": artifact.short,
    }
    command = f"wavemill predict {artifact.short} folder/ --to classes.csv"
    title = f"Images: {artifact.manifest['target']} from scattering and sparse codes"
    return Section(title, "", pictures, [Table.of([row])], [command])


def generator_chapter(store: Store, artifact: Artifact) -> Section:
    """Show what codes give back, what lies between them, and what is drawn."""
    name, metrics = artifact.manifest["dataset"], json.loads(artifact.read("metrics.json"))
    spec = GeneratorSpec.from_parameters(artifact.manifest["spec"]["parameters"])
    points = spec.crop**2 or np.prod(store.dataset(name).schema.shape)
    captions = {
        "reconstruct": "Samples not learnt from, what their codes give, and that refined until it "
        "has these codes.",
        "interpolate": "A row a path: from one sample to the next, through codes between theirs.",
        "noise": "Drawn: codes are white Gaussian noise.",
    }
    pictures = held_pictures(artifact, captions)
    row = {
        "learnt from": artifact.manifest["samples"],
        "numbers a code": spec.dimension,
        "points a sample": int(points),
        "PSNR of samples learnt from, dB": metrics.get("train_psnr"),
        "of others": metrics.get("test_psnr"),
        "artifact": artifact.short,
    }
    command = f"wavemill generate {artifact.short} --from interpolate --to paths.png"
    return Section(
        f"Generation: {name} from white noise", "", pictures, [Table.of([row])], [command]
    )


CHAPTERS = {
    "regression": regression_chapter,
    "classifier": classifier_chapter,
    "generator": generator_chapter,
}


def _lineage(artifacts: Sequence[Artifact]) -> Section:
    rows = [
        {
            "artifact": a.short,
            "from": f"{a.manifest['dataset']} version {a.manifest['dataset_version']}",
            "parameters": json.dumps(a.manifest["spec"]["parameters"]),
            "seed": a.manifest["seed"],
            "torch": a.manifest["provenance"]["torch"],
            "published": a.manifest["published"][:19] + "Z",
        }
        for a in artifacts
    ]
    commands = [f"wavemill synthesize {a.short} -n 4 --to {a.kind}.png" for a in artifacts]
    return Section("Artifacts and their lineage", "", (), [Table.of(rows)], commands)
