"""The joint table of several judged models, and its report."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from storage import Artifact, InvalidRequest
from storage.artifacts import short
from storage.documents import now
from storage.typing import Array
from tasks import evaluation_figures
from tasks.evaluate import Scores, drawn_fields, portraits
from tasks.models import MODELS
from tasks.report import Picture, Section, Table, write_report
from tasks.text import keyed
from wavemill.evaluation import METRICS, Portrait

FIRST = ("eps", "spectrum", "pdf", "skewness", "flatness", "structure", "bispectrum")
CAPTIONS = {
    "maps": "Real and drawn fields on one colour scale.",
    "spectrum": "Power spectra, of tapered fields if they do not wrap; bands are one standard "
    "deviation over fields.",
    "pdf": "Distributions of values, all in standard deviations of the real fields about their "
    "mean; a normal law is dotted.",
    "structure": "Fourth structure function over the square of the second; dotted: Gaussian.",
    "minkowski": "Minkowski functionals of the sets above a threshold; bands as before.",
}


def parsed_models(texts: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return ``{name: {"kind": kind, parameter: value}}`` of ``[NAME=]KIND[:KEY=VALUE,...]``.

    Raises
    ------
    InvalidRequest
        If a text is not of that form, or a name occurs twice.
    """
    models: dict[str, dict[str, Any]] = {}
    for text in texts:
        head, _, tail = text.partition(":")
        name, separator, kind = head.partition("=")
        parameters = keyed(tail, text, "C=phase-harmonics:set=C")
        name = name if separator or not tail else text
        if not name or (separator and not kind):
            raise InvalidRequest(f"{text!r} is not [NAME=]KIND: write C=phase-harmonics:set=C")
        if name in models:
            raise InvalidRequest(f"two models are named {name!r}: name them, as C={text}")
        models[name] = {"kind": kind or head} | parameters
    return models


def split_kind(name: str, parameters: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return a model's kind and the fields of its spec; its name is its kind unless given.

    Raises
    ------
    InvalidRequest
        If there is no such kind, or other rows of the table have that name.
    """
    if name.split(",")[0] == "real" or " [" in name:
        raise InvalidRequest(
            f"no model may be called {name!r}, which is a name of rows of real fields or of one "
            "component: choose another name"
        )
    kind = str(parameters.get("kind", name))
    if kind not in MODELS:
        raise InvalidRequest(f"no model {kind!r}: choose one of {', '.join(MODELS)}")
    return kind, {key: value for key, value in parameters.items() if key != "kind"}


def joint_table(evaluations: Mapping[str, Artifact]) -> Scores:
    """Return rows of real fields, then of models; the real ones are from the first judgement."""
    rows: Scores = {}
    for name, artifact in evaluations.items():
        table: Scores = json.loads(artifact.read("metrics.json"))
        made = {row: scores for row, scores in table.items() if row.split(" [")[0] == "model"}
        rows |= {real: scores for real, scores in table.items() if real not in made and not rows}
        rows |= {row.replace("model", name, 1): scores for row, scores in made.items()}
    return rows


def records(table: Scores) -> list[dict[str, Any]]:
    """Return a row for each set of fields and a column for each metric: mean and scatter."""
    columns = _columns(table)
    return [
        {"fields": name} | {metric: _shown(scores, metric) for metric in columns}
        for name, scores in table.items()
    ]


def _columns(table: Scores) -> list[str]:
    """Return the metrics that occur; a scatter is shown beside its mean."""
    found = set().union(*table.values())
    return [metric for metric in METRICS if metric in found and not metric.endswith("_scatter")]


def _shown(scores: Mapping[str, float], metric: str) -> str:
    if metric not in scores:
        return ""
    value, scatter = float(scores[metric]), scores.get(f"{metric}_scatter")
    number = f"{value:.0f}" if value.is_integer() else f"{value:.3g}"  # counts are not rounded
    return number + ("" if scatter is None else f" ± {scatter:.2g}")


def lines(table: Scores) -> list[str]:
    """Return the table as text for a terminal, its leading columns."""
    found = set().union(*table.values())
    columns = [name for name in FIRST if name in found]
    columns = columns or [name for name in table["model"] if " " not in name]  # not of a group
    shown = [["", *columns]]
    shown += [[name, *(_shown(row, column) for column in columns)] for name, row in table.items()]
    widths = [max(len(row[i]) for row in shown) for i in range(len(shown[0]))]
    return [
        "  ".join(
            cell.rjust(w) if i else cell.ljust(w)
            for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in shown
    ]


def joint_pictures(evaluations: Mapping[str, Artifact]) -> dict[str, bytes]:
    """Return pictures of the real fields and of every model, on the same axes."""
    fields: dict[str, Array] = {}
    made: dict[str, Portrait] = {}
    for name, artifact in evaluations.items():
        real, drawn = drawn_fields(artifact)
        real_portrait, portrait = portraits(artifact)
        fields.setdefault("real", real)
        made.setdefault("real", real_portrait)
        fields[name], made[name] = drawn, portrait
    periodic = bool(next(iter(evaluations.values())).manifest["schema"]["periodic"])
    return evaluation_figures.pictures(fields, made, periodic)


def comparison_report(
    evaluations: Mapping[str, Artifact], drawn: Mapping[str, bytes], target: Path
) -> Path:
    """Write the page on one or several judged models, with their joint pictures."""
    table = joint_table(evaluations)
    pictures = {name: Picture(image, CAPTIONS[name]) for name, image in drawn.items()}
    first = next(iter(evaluations.values())).manifest
    sections = [
        Section("Real and drawn fields", pictures=[pictures.pop("maps")], lead=True),
        _scores(table, first),
        Section("Curves", pictures=list(pictures.values())),
        _lineage(evaluations),
    ]
    subtitle = (
        f"dataset {first['dataset']} version {first['dataset_version']}, written {now()[:19]}Z"
    )
    return write_report(target, "Models judged on held-out fields", subtitle, sections)


def _scores(table: Scores, first: Mapping[str, Any]) -> Section:
    turns = first["turns"]
    same = f" ({first['same']} that are, by another name, do not)" if first["same"] else ""
    one, *others = first["schema"]["components"]
    of = f" Pictures, and rows without a component in brackets, are of {one}." if others else ""
    text = (
        f"{first['samples']} real fields that no model was fitted to judge{same}. A distance is "
        f"the mean over {turns['times']} turns, ± their standard deviation: in each, as many "
        f"fields of the row, drawn or real ({turns['fields']}; of 'one map' 1), are compared with "
        f"the same {turns['others']} other real ones. It is 0 at best, and large for few fields: "
        "a model is worth what the row of as many real fields says. (Turns share drawn fields "
        "where fewer are drawn than all take, and ± is smaller then.) Skewness and "
        "flatness are means over all fields of a row, ± their standard deviation. Foveal matrix: "
        f"J = {first['scales']} scales.{of}"
    )
    meaning = [{"metric": name, "what": METRICS[name]} for name in _columns(table)]
    return Section("Scores", text, tables=[Table.of(records(table)), Table.of(meaning)])


def _lineage(evaluations: Mapping[str, Artifact]) -> Section:
    rows = [
        {
            "model": name,
            "artifact": short(made.manifest["model"]["kind"], made.manifest["model"]["key"]),
            "parameters": json.dumps(made.manifest["model"]["spec"]["parameters"]),
            "fitted to": made.manifest["fitted"],
            "drawn": made.manifest["spec"]["parameters"].get("samples", 10),
            "judged by": made.manifest["samples"],
            "seed": made.manifest["seed"],
            "evaluation": made.short,
        }
        for name, made in evaluations.items()
    ]
    commands = list(dict.fromkeys(map(_command, evaluations.values())))
    return Section("Lineage", tables=[Table.of(rows)], commands=commands)


def _command(evaluation: Artifact) -> str:
    """Return the command that makes an evaluation again."""
    made = evaluation.manifest
    model = f"{made['model']['kind']}/{made['model']['key'][:12]}"
    words = ["wavemill", "evaluate", model, made["dataset"]]
    words += ["--where", made["selection"]] if made["selection"] else []
    words += ["--seed", str(made["seed"])] if made["seed"] else []
    for name, value in made["spec"]["parameters"].items():
        words += ["--set", f"{name}={value}"]
    return shlex.join(words)
