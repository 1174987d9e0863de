"""Regressions: features of molecules and a column of their table become an artifact."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch

from storage import Artifact, BadInput, Dataset, FeatureFrame, InvalidRequest, Store
from storage.documents import Document
from storage.keys import derivation_key, digest
from storage.molecules import Atoms
from storage.readers.molecules import Molecule, read_molecules
from storage.sources import read_units
from storage.typing import Array
from tasks import molecule_figures as figures
from tasks import regression_report as report
from tasks.artifacts import Contents, on_device, publish, spec_of, stored, weights_of
from tasks.inputs import labelled
from tasks.molecules import TO_KCAL, MoleculeOptions, atoms_of, elements_of
from tasks.progress import Reporter
from tasks.requests import FitOutcome, FitRequest, by_hash, rows_digest
from tasks.views import as_molecules, operator
from wavemill.molecules.atomic_kernel import AtomicKernel
from wavemill.molecules.atomic_products import AtomicProducts
from wavemill.molecules.regression import Composition, Multilinear, Ridge
from wavemill.specs import AtomicHarmonicsSpec, RegressionSpec

KIND = "regression"
ATOMIC = ("kernel", "products")  # these take the molecules themselves, not their stored features
SHELLS: dict[str, Any] = {  # shells around atoms, unless a view is given
    "radial": "shell",
    "sigma": 0.9,
    "octave": 0.25,
    "J": 9,
    "L": 5,
    "across": 8,
    "reach": 1.6,
    "steepness": 8.0,
}
FEWEST = 16  # molecules that a point of the learning curve needs


@dataclass(frozen=True)
class Data:
    """What a regression learns from and is judged by: samples in the order of a hash.

    Attributes
    ----------
    rows
        Sample table, the held-out ones last.
    train, test
        Positions in it.
    target
        One number a sample, in kcal/mol if it is an energy.
    """

    rows: pd.DataFrame
    train: slice
    test: slice
    target: Array
    unit: str


def fit(store: Store, dataset: str, request: FitRequest) -> FitOutcome:
    """Fit a regression unless the same fit is stored.

    Raises
    ------
    InvalidRequest
        If the view or the target is missing, or too few samples are selected.
    """
    source = store.dataset(dataset)
    spec = RegressionSpec.from_parameters(request.parameters)
    if request.target is None or (request.view is None and spec.model not in ATOMIC):
        raise InvalidRequest(
            "a regression needs --view and --target: see `wavemill show DATASET`; "
            f"--set model={' or '.join(ATOMIC)} needs no view"
        )
    if request.view is None:
        frame, rows = None, source.samples(request.selection)
        view = AtomicHarmonicsSpec(elements_of(rows["formula"]), **SHELLS).to_dict()
    else:
        frame = store.get_historical_features(dataset, request.view, request.selection)
        rows, view = frame.samples, frame.version.spec
    data = split(rows, source, request, spec)
    inputs = [
        dataset,
        rows_digest(data.rows),
        digest(data.target.tobytes()),
        view,
        request.target,
    ]
    key = derivation_key(spec.to_dict(), [*inputs, request.seed])
    found = stored(store, KIND, key)
    return found or _fit(store, source, frame, view, data, request, spec, key)


def split(rows: pd.DataFrame, source: Dataset, request: FitRequest, spec: RegressionSpec) -> Data:
    """Order samples by a hash of seed and id: the first are learnt from, the last held out.

    Raises
    ------
    InvalidRequest
        If there is no such column of numbers, or there are fewer than ten samples.
    """
    target = request.target or ""
    _check_numbers(rows, source, target)
    rows = by_hash(rows[np.isfinite(rows[target].astype(float))], request.seed)
    held = round(spec.test * len(rows)) if spec.test < 1 else int(spec.test)
    learnt = min(spec.train or len(rows), len(rows) - held)
    if learnt < 8 or held < 2:
        raise InvalidRequest(
            f"{len(rows)} samples are too few to hold out {held} (2 or more) and learn from 8 or "
            "more others: select more, or set test or train"
        )
    values, unit = target_of(rows, source, target)
    return Data(rows, slice(0, learnt), slice(len(rows) - held, len(rows)), values, unit)


def target_of(rows: pd.DataFrame, source: Dataset, target: str) -> tuple[Array, str]:
    """Return the numbers of a column, and their unit: kcal/mol for energies.

    Raises
    ------
    InvalidRequest
        If there is no such column of numbers.
    """
    _check_numbers(rows, source, target)
    unit = dict(source.schema.properties).get(target) or ""
    values = TO_KCAL.get(unit, 1.0) * rows[target].to_numpy(float)
    return values, "kcal/mol" if unit in TO_KCAL else unit


def _check_numbers(rows: pd.DataFrame, source: Dataset, target: str) -> None:
    if target not in rows or not pd.api.types.is_numeric_dtype(rows[target]):
        numbers = ", ".join(map(str, rows.select_dtypes("number")))
        raise InvalidRequest(
            f"no column {target!r} of numbers in {source.name}; there are {numbers}"
        )


class Predictor:
    """A regression and the transform that it needs, from molecules to numbers."""

    def __init__(
        self,
        spec: RegressionSpec,
        view: Document,
        source: Dataset,
        seed: int,
        device: str,
    ) -> None:
        self.transform = operator(view, source.schema, device)
        self.whole = spec.model in ATOMIC
        counts = len(self.transform.module.elements)
        self.model: Any
        match spec.model:
            case "composition":
                self.model = Composition(counts)
            case "ridge":
                self.model = Ridge(counts, spec.alpha)
            case "multilinear":
                self.model = Multilinear(counts, spec.order, spec.terms, spec.epochs, seed=seed)
            case "kernel":
                module = self.transform.module
                self.model = AtomicKernel(module, spec.landmarks, spec.zeta, spec.alpha, seed)
            case "products":
                module = self.transform.module
                self.model = AtomicProducts(module, spec.products, spec.order, spec.alpha, seed)

    def predict(self, atoms: Atoms) -> Array:
        """Return one number a molecule."""
        size = self.transform.batch(64 * 2**20)
        found, advance = [], Reporter("predict")
        with torch.no_grad():
            for start in range(0, len(atoms), size):
                stop = min(start + size, len(atoms))
                some = atoms.take(np.arange(start, stop))
                molecules = as_molecules(some)
                x = molecules if self.whole else self.transform.module(molecules)
                found.append(self.model.predict(x).cpu().numpy())
                advance(stop, len(atoms))
        return np.concatenate(found) if found else np.zeros(0)


def _fit(
    store: Store,
    source: Dataset,
    frame: FeatureFrame | None,
    view: Document,
    data: Data,
    request: FitRequest,
    spec: RegressionSpec,
    key: str,
) -> FitOutcome:
    target = on_device(data.target, request.device)
    x: Any
    if frame is None or spec.model in ATOMIC:
        x = as_molecules(source.read_atoms(data.rows))
    else:
        x = on_device(frame.read(data.rows), request.device)
    curve = []
    for count in sizes(data.train.stop, spec.halvings):  # ascending: the last learns from all
        model = Predictor(spec, view, source, request.seed, request.device).model
        model.fit(x[:count], target[:count], Reporter(f"fit {spec.model} to {count:,}").values)
        predicted = model.predict(x[data.test]).cpu().numpy()
        curve.append((count, float(np.abs(predicted - data.target[data.test]).mean())))
    test = _table(data, predicted)
    learning = pd.DataFrame(curve, columns=["molecules", "mae"])
    metrics = report.metrics_of(test) | {"composition_mae": _baseline(data)}
    learnt = data.rows[data.train]
    card = report.card(learnt, len(test), data.unit, request, spec, metrics, source)
    contents = Contents(
        metrics=metrics,
        samples=list(learnt["sample_id"]),
        weights=model.state(),
        files={
            "learning.csv": learning.to_csv(index=False).encode(),
            "predictions.csv": test.to_csv(index=False).encode(),
            "card.md": card.encode(),
        },
        pictures=report.pictures(test, request.target or "", data.unit)
        | {"learning": figures.learning(learning, data.unit)},
        said={
            "view": request.view,
            "view_spec": view,
            "target": request.target,
            "unit": data.unit,
            "elements": list(elements_of(learnt["formula"])),
        },
    )
    return publish(store, source, key, spec, request, contents)


def sizes(most: int, halvings: int) -> list[int]:
    """Return how many molecules the points of the learning curve learn from, ascending."""
    found = [most >> times for times in range(halvings, 0, -1)]
    return [count for count in found if count >= FEWEST] + [most]


def _baseline(data: Data) -> float:
    """Return the mean absolute error of the composition alone."""
    counts = {text: Counter(atoms_of(text)) for text in set(data.rows["formula"])}
    elements = sorted(set().union(*counts.values()))
    rows = [[counts[text][element] for element in elements] for text in data.rows["formula"]]
    x, y = torch.tensor(rows, dtype=torch.float64), torch.from_numpy(data.target)
    model = Composition(len(elements)).fit(x[data.train], y[data.train])
    return float((model.predict(x[data.test]) - y[data.test]).abs().mean())


def _table(data: Data, predicted: Array) -> pd.DataFrame:
    columns = ["sample_id", "formula", "n_atoms", "n_heavy"]
    rows = data.rows[data.test][columns].reset_index(drop=True)
    return rows.assign(truth=data.target[data.test], predicted=predicted)


def load(store: Store, artifact: Artifact, device: str) -> Predictor:
    """Return the fitted regression that an artifact holds, on a device.

    Raises
    ------
    InvalidRequest
        If it is of another algorithm.
    """
    manifest = artifact.manifest
    spec = spec_of(artifact, RegressionSpec.from_parameters)
    source = store.dataset(manifest["dataset"])
    state = weights_of(artifact, device)  # first: it refuses a device that does not exist
    predictor = Predictor(spec, manifest["view_spec"], source, manifest["seed"], device)
    predictor.model.load(state)
    return predictor


def predicted(store: Store, artifact: Artifact, source: str, device: str) -> pd.DataFrame:
    """Return the predictions for the molecules of a dataset or of files.

    What cannot be read in files is flagged, with the reason.
    """
    if source in store.datasets():
        dataset = store.dataset(source)
        rows = dataset.samples()
        named = rows[["sample_id", "formula"]]
        return predict(store, artifact, named, dataset.read_atoms(rows), device)
    rows, atoms, flags = _from_files(source)
    made = predict(store, artifact, rows, atoms, device)
    unit = artifact.manifest["unit"]
    bad = pd.DataFrame({"sample_id": list(flags), "unit": unit, "flag": list(flags.values())})
    bad = bad.assign(formula="", **{artifact.manifest["target"]: np.nan})
    return pd.concat([made, bad[list(made)]], ignore_index=True) if flags else made


def predict(
    store: Store, artifact: Artifact, rows: pd.DataFrame, atoms: Atoms, device: str
) -> pd.DataFrame:
    """Return ``sample_id, formula, <target>, unit, flag``; flagged rows have a target of NaN."""
    known = set(artifact.manifest["elements"])
    strange = [sorted({int(c) for c in charges} - known) for _, charges in atoms]
    good = np.array([not found for found in strange], dtype=bool)
    values = np.full(len(atoms), np.nan)
    values[good] = load(store, artifact, device).predict(atoms.take(np.flatnonzero(good)))
    flags = [f"elements never learnt from: {found}" if found else "" for found in strange]
    columns = {artifact.manifest["target"]: values, "unit": artifact.manifest["unit"]}
    return rows.reset_index(drop=True).assign(**columns, flag=flags)


def _from_files(source: str) -> tuple[pd.DataFrame, Atoms, dict[str, str]]:
    """Read every molecule of files; also return why others cannot be read, by name.

    Raises
    ------
    InvalidRequest
        If there is nothing to read.
    """
    names: list[str] = []
    molecules: list[Molecule] = []
    units = MoleculeOptions().find([source])
    flags = {item.name: f"{item.reason}: {item.message}" for item in units.refused}
    times = Counter(unit.name for unit in units)
    for unit, payload in read_units(units):
        name = unit.name if times[unit.name] == 1 else unit.files[0].name
        try:
            if isinstance(payload, BadInput):
                raise payload
            found = read_molecules(unit.files[0].name, payload[0])
        except BadInput as error:
            flags[name] = str(error)
            continue
        flags |= {labelled(name, index): str(error) for index, error in found.refused}
        names += [labelled(name, item.index) for item in found]
        molecules += found
    if not molecules and not flags:
        raise InvalidRequest(f"{source} is not a dataset here and holds no molecules")
    rows = {"sample_id": names, "formula": [item.formula for item in molecules]}
    return pd.DataFrame(rows), Atoms.of(molecules), flags
