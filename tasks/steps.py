"""The Prefect tasks: each opens the store, calls, writes, and returns something small."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from prefect import get_run_logger, task

from storage import InvalidRequest, Store, ViewVersion, open_store
from storage.documents import Document
from storage.export import export
from storage.sources import Discovery
from tasks import classifier, dictionary, draws, generation, regression, scores, show
from tasks import features as feature_tasks
from tasks import ingest as ingest_tasks
from tasks.comparison import comparison_report, joint_pictures, joint_table
from tasks.evaluate import (
    EvaluationOutcome,
    EvaluationRequest,
    Scores,
    evaluate,
    lacking_draws,
)
from tasks.features import FeatureOutcome
from tasks.fit import drawn_at_fit, fit
from tasks.ingest import PartOutcome
from tasks.inputs import listed
from tasks.kinds import models
from tasks.mapping import map_parts
from tasks.options import Options
from tasks.planning import Plan, batches, choose_schema, find_inputs, plan
from tasks.progress import Reporter
from tasks.publish import IngestSummary, publish
from tasks.report import turbulence_report
from tasks.requests import FitOutcome, FitRequest, check_split
from tasks.together import fit_together
from tasks.views import operator, view_spec

FITS: dict[str, Callable[[Store, str, FitRequest], FitOutcome]] = {  # those of their own kind
    classifier.KIND: classifier.fit,
    dictionary.KIND: dictionary.fit,
    generation.KIND: generation.fit,
    regression.KIND: regression.fit,
}


@task(name="plan ingestion")
def plan_ingest(
    url: str, dataset: str, sources: Sequence[str], options: Options
) -> tuple[Plan, Discovery]:
    """Find the inputs and compare them with what the dataset holds."""
    store = open_store(url)
    inputs, discovery = find_inputs(sources, options)
    schema = choose_schema(store, dataset, inputs, options, discovery)
    return plan(store, dataset, schema, inputs, options), discovery


@task(name="ingest parts")
def ingest_parts(url: str, address: str, planned: Plan, options: Options) -> list[PartOutcome]:
    """Read the fresh inputs on the workers, one Dask task a part."""
    groups = batches(planned, options)
    work = partial(ingest_tasks.ingest_part, url, planned.schema, options)
    fresh = [planned.known_of(group) for group in groups]
    return _mapped(work, fresh, address, "ingest parts", named=lambda part: listed(part[0]))


@task(name="publish dataset")
def publish_dataset(
    url: str,
    dataset: str,
    planned: Plan,
    outcomes: list[PartOutcome],
    discovery: Discovery,
    options: Options,
) -> IngestSummary:
    """Publish one dataset version and show it."""
    store = open_store(url)
    held = store.dataset(dataset).version.version if dataset in store.datasets() else None
    summary = publish(store, dataset, planned, outcomes, discovery, options)
    show.dataset(store, summary, summary.version != held)
    get_run_logger().info("dataset %s: %s", dataset, _described(summary))
    return summary


@task(name="plan features")
def plan_features(
    url: str, dataset: str, kind: str, name: str, parameters: dict[str, Any]
) -> tuple[Document, list[FeatureOutcome], list[Any]]:
    """Return the spec, the parts that the view holds, and those it lacks."""
    store = open_store(url)
    source = store.dataset(dataset)
    version, latest = source.version, store.view_versions(dataset, name).latest()
    held = latest["spec"]["parameters"] if latest is not None else None
    spec = view_spec(kind, parameters, source, held)
    operator(spec, version.schema)  # refuses what cannot be built, before any worker starts
    store.bind_view(dataset, name, spec)
    known = feature_tasks.known_parts(store, dataset, name)
    parts = [part for part in version.parts if part.live]
    held = [known[part.key] for part in parts if part.key in known]
    return spec, held, [part for part in parts if part.key not in known]


@task(name="compute features")
def compute_features(
    url: str, address: str, dataset: str, spec: Document, parts: list[Any], device: str
) -> list[FeatureOutcome]:
    """Transform parts on the workers, one Dask task a part."""
    source = open_store(url).dataset(dataset)
    work = partial(feature_tasks.compute_part, url, spec, source.schema, device)
    resources = {"GPU": 1.0} if device == "cuda" else None
    try:
        what = f"features {spec['kind']}"
        return _mapped(work, parts, address, what, resources, lambda part: f"part {part.key}")
    except feature_tasks.NotFinite as error:
        rows = source.samples()
        row = rows[(rows["part"] == error.part) & (rows["row"] == error.row)].iloc[0]
        raise InvalidRequest(error.of(f"{row['sample_id']} of {dataset}")) from None


@task(name="publish view")
def publish_view(
    url: str, dataset: str, name: str, spec: Document, outcomes: list[FeatureOutcome]
) -> ViewVersion:
    """Publish one view version and show it."""
    store = open_store(url)
    current = store.dataset(dataset)
    held = store.view_versions(dataset, name).numbers()
    version = feature_tasks.publish(
        store, dataset, name, spec, current.version.version, outcomes, current.schema
    )
    written = sum(outcome.written for outcome in outcomes)
    show.view(store, name, dataset, version, written, version.version not in held)
    get_run_logger().info("view %s of %s: %s", name, dataset, _described(version))
    return version


@task(name="fit model")
def fit_model(
    url: str, dataset: str, request: FitRequest, address: str | None = None
) -> FitOutcome:
    """Fit a model, a classifier on all workers of a scheduler if one is given, and show it."""
    store = open_store(url)
    check_split(store.dataset(dataset), request.split)
    if address is not None:
        outcome = fit_together(url, dataset, request, address)
    else:
        outcome = FITS.get(request.kind, fit)(store, dataset, request)
    show.artifact(store.artifact_at(outcome.kind, outcome.key), outcome.metrics, outcome.written)
    get_run_logger().info("model %s", _described(outcome))
    return outcome


@task(name="choose samples")
def first_samples(url: str, dataset: str, count: int) -> str:
    """Return an expression that selects the first samples of a dataset."""
    ids = open_store(url).dataset(dataset).samples()["sample_id"].head(count)
    quoted = ", ".join("'" + str(name).replace("'", "''") + "'" for name in ids)
    return f"sample_id IN ({quoted})"


@task(name="plan draws")
def plan_draws(url: str, dataset: str, request: EvaluationRequest) -> tuple[str, str, list[range]]:
    """Return kind and key of the model judged, and the samples of it that workers may draw."""
    model, groups = lacking_draws(open_store(url), dataset, request)
    return model.kind, model.key, groups


@task(name="draw samples")
def draw_samples(
    url: str, address: str, kind: str, key: str, request: EvaluationRequest, groups: list[range]
) -> None:
    """Draw samples of a model on the workers, one Dask task a group."""
    model = open_store(url).artifact_at(kind, key)
    work, resources = draws.shared_out(url, model, request.seed, request.device)
    _mapped(work, groups, address, f"synthesize {kind}", resources)


@task(name="evaluate model")
def evaluate_model(url: str, dataset: str, request: EvaluationRequest) -> EvaluationOutcome:
    """Judge a model on samples that it was not fitted to, and show it."""
    store = open_store(url)
    outcome = evaluate(store, dataset, request)
    artifact = store.artifact_at(outcome.kind, outcome.key)
    model = artifact.manifest["model"]["kind"]
    name = f"evaluation {model} {dataset}"
    if show.due(name, outcome.written):
        show.scores(name, joint_table({model: artifact}))
        show.pictures(f"{model} {dataset} evaluation", artifact)
    get_run_logger().info("evaluation %s", _described(outcome))
    return outcome


@task(name="judged how")
def is_scored(url: str, artifact: str) -> bool:
    """Say whether an artifact is scored sample by sample, or draws fields that are judged."""
    return open_store(url).artifact(artifact).kind in models(lambda kind: kind.scored)


@task(name="score samples")
def score_samples(
    url: str, dataset: str, request: EvaluationRequest, report: str | None
) -> EvaluationOutcome:
    """Score a classifier, regression or generator; show it, and write a page if asked for."""
    store = open_store(url)
    outcome = scores.score(store, dataset, request)
    artifact = store.artifact_at(outcome.kind, outcome.key)
    name = f"{artifact.manifest['model']['kind']} {dataset}"
    if show.due(f"scores {name}", outcome.written):
        show.table(f"scores {name}", scores.records(outcome.table), "On samples not learnt from")
        show.pictures(f"{name} scores", artifact)
    get_run_logger().info("scores %s", _described(outcome))
    if report is not None:
        scores.report(store, outcome, Path(report))
    return outcome


@task(name="compare models")
def draw_comparison(
    url: str, dataset: str, judged: Mapping[str, EvaluationOutcome], report: str | None
) -> Scores:
    """Set judged models side by side: in the UI, and in a page if one is asked for."""
    store = open_store(url)
    found = {name: store.artifact_at(made.kind, made.key) for name, made in judged.items()}
    table = joint_table(found)
    show.scores(f"comparison {dataset}", table)
    pictures = joint_pictures(found)
    for name, image in pictures.items():
        show.picture(f"{name} comparison {dataset}", image, f"{name}: real fields and models")
    if report is not None:
        comparison_report(found, pictures, Path(report))
    return table


def _mapped(
    work: Callable[[Any], Any],
    items: Sequence[Any],
    address: str,
    what: str,
    resources: dict[str, float] | None = None,
    named: Callable[[Any], str] = str,
) -> list[Any]:
    return map_parts(
        work,
        items,
        address=address,
        opened=show.dashboard,
        progress=Reporter(what),
        resources=resources,
        named=named,
    )


@task(name="query")
def demo_queries(url: str, dataset: str, folder: str) -> list[str]:
    """Write the answers to two questions, one by meaning and one by id."""
    store = open_store(url)
    frame = store.get_historical_features(
        dataset, "scattering", coefficients="order == 1 and j1 = 0"
    )
    target = export(frame, Path(folder) / "first-order.parquet")
    ids = list(frame.samples["sample_id"][:2])
    online = store.get_online_features(dataset, ids, "spectrum").to_pandas()
    return [
        f"{target}: {len(frame)} samples by {len(frame.coefficients)} coefficients",
        f"online: {len(online)} samples by {online.shape[1]} columns",
    ]


@task(name="draw report")
def draw_report(
    url: str,
    dataset: str,
    fits: Sequence[FitOutcome],
    folder: str,
    learnt: Sequence[FitOutcome] = (),
) -> str:
    """Write ``report.html`` on a dataset, its views, models of it, and what was learnt beside."""
    store = open_store(url)
    artifacts = [store.artifact_at(outcome.kind, outcome.key) for outcome in fits]
    others = [store.artifact_at(outcome.kind, outcome.key) for outcome in learnt]
    syntheses = {artifact.kind: drawn_at_fit(artifact) for artifact in artifacts}
    target = Path(folder) / "report.html"
    return str(turbulence_report(store, dataset, artifacts, syntheses, target, others))


def describe(made: dict[str, Any]) -> list[str]:
    """Say in a line each what a run of the turbulence flow made."""
    return [f"{name}: {_described(value)}" for name, value in made.items()]


def _described(value: Any) -> str:
    match value:
        case IngestSummary():
            return f"{value.samples} samples in version {value.version}, {value.added} new"
        case ViewVersion():
            return f"{'x'.join(map(str, value.row_shape))} a sample, {len(value.parts)} parts"
        case FitOutcome():
            return f"{value.short} {'fitted' if value.written else 'kept'}"
        case EvaluationOutcome():
            state = "judged" if value.written else "was judged already"
            name, first = next(iter(value.table["model"].items()))
            return f"{value.model} {state}: {name} {first:.3f}"
        case _:
            return str(value)
