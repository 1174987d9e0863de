"""Which view is computed by which transform."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd
import torch

from storage import Dataset, InvalidRequest, Schema
from storage.documents import Document
from storage.molecules import Atoms
from storage.typing import Array
from tasks.kinds import LAYOUTS, views
from tasks.molecules import elements_of
from tasks.progress import caution
from wavemill.images import OPPONENTS, as_float, opponent
from wavemill.molecules.atomic_harmonics import AtomicHarmonics
from wavemill.molecules.atoms import Molecules
from wavemill.molecules.solid_harmonics import SolidHarmonicScattering
from wavemill.moments.phase_harmonics import PhaseHarmonicCovariance
from wavemill.scattering2d import Scattering2D
from wavemill.specs import (
    AtomicHarmonicsSpec,
    PhaseHarmonicsSpec,
    ScatteringSpec,
    SolidHarmonicsSpec,
    Spec,
    SpectrumSpec,
)
from wavemill.spectra import PowerSpectrum


@dataclass(frozen=True)
class View:
    """A kind of view: its spec, and how the operator is built for a dataset's schema.

    To add a transform: write it in ``wavemill/``, its spec in ``wavemill/specs/``, and one
    entry in :data:`VIEWS` and in :data:`tasks.kinds.LAYOUTS`.

    Attributes
    ----------
    defaults
        Parameters taken from the dataset, and those of the view's latest version, if there is one.
    """

    spec: type[Spec]
    build: Callable[[Any, Schema], torch.nn.Module]
    defaults: Callable[[Dataset, Document | None], Document] = lambda dataset, held: {}


def _scattering(spec: ScatteringSpec, schema: Schema) -> torch.nn.Module:
    return Scattering2D(
        _grid(schema),
        spec.J,
        spec.L,
        max_order=spec.max_order,
        nonlinearity=spec.nonlinearity,
        A=spec.A,
        padding=spec.padding,
        average=spec.average,
        dtype=getattr(torch, spec.dtype),
    )


def _phase_harmonics(spec: PhaseHarmonicsSpec, schema: Schema) -> torch.nn.Module:
    precision = getattr(torch, spec.dtype)
    return PhaseHarmonicCovariance(_grid(schema), spec.J, spec.L, spec.set, spec.lags, precision)


def _spectrum(spec: SpectrumSpec, schema: Schema) -> torch.nn.Module:
    dy, dx = spec.spacing
    return PowerSpectrum(_grid(schema), (dy, dx), getattr(torch, spec.dtype))


def _atomic_harmonics(spec: AtomicHarmonicsSpec, schema: Schema) -> torch.nn.Module:
    return AtomicHarmonics(**arguments(spec))


def _solid_harmonics(spec: SolidHarmonicsSpec, schema: Schema) -> torch.nn.Module:
    return SolidHarmonicScattering(**arguments(spec))


def arguments(spec: Spec) -> dict[str, Any]:
    """Return the fields of a spec as keywords of its transform, which has the same names."""
    values = {field.name: getattr(spec, field.name) for field in fields(spec)}
    return {**values, "dtype": getattr(torch, values["dtype"])}


def _grid(schema: Schema) -> tuple[int, int]:
    y, x = schema.shape
    return y, x


def _steps(dataset: Dataset, held: Document | None) -> Document:
    """Return the dataset's grid spacing."""
    return {"spacing": [abs(step) for step in dataset.schema.spacing]}


def _elements(dataset: Dataset, held: Document | None) -> Document:
    """Return the elements of the dataset; for an existing view, those that it began with."""
    if held is not None:
        return {name: value for name, value in held.items() if name == "elements"}
    return {"elements": list(elements_of(dataset.samples()["formula"]))}


VIEWS: dict[str, View] = {
    "spectrum": View(SpectrumSpec, _spectrum, _steps),
    "scattering": View(ScatteringSpec, _scattering),
    "phase-harmonics": View(PhaseHarmonicsSpec, _phase_harmonics),
    "solid-harmonics": View(SolidHarmonicsSpec, _solid_harmonics),
    "atomic-harmonics": View(AtomicHarmonicsSpec, _atomic_harmonics, _elements),
}


def view_spec(
    kind: str, parameters: Document, dataset: Dataset, held: Document | None = None
) -> Document:
    """Return the checked ``{kind, parameters, algorithm}`` of a view on a dataset.

    Parameters that are not given are taken from the dataset where possible: see `View`.

    Raises
    ------
    InvalidRequest
        If the kind is unknown.
    """
    if kind not in VIEWS:
        raise InvalidRequest(f"no view {kind!r}: choose one of {', '.join(VIEWS)}")
    view, layout = VIEWS[kind], dataset.schema.layout
    if layout not in LAYOUTS[kind]:
        raise InvalidRequest(
            f"view {kind!r} is of {' or '.join(LAYOUTS[kind])}, the dataset holds {layout}: "
            f"choose one of {', '.join(views(layout))}"
        )
    if layout != "images" and parameters.get("colours", "rgb") != "rgb":
        raise InvalidRequest(f"colours are of images, the dataset holds {layout}")
    return view.spec.from_parameters({**view.defaults(dataset, held), **parameters}).to_dict()


def mind_borders(kind: str, dataset: Dataset) -> None:
    """Warn if a view takes fields to wrap around that do not."""
    if kind in _WRAPPING and not dataset.schema.periodic:
        caution(
            f"{dataset.name} is not periodic: {kind} takes opposite borders to meet, and the jump "
            "there for fine scales; if it is, ingest it with --periodic"
        )


_WRAPPING = ("spectrum", "phase-harmonics")
_MOST = 2**20  # samples in a batch
_SIGNED = {"k1", "k2", "shift_y", "shift_x"}  # where -1 is a value; elsewhere it stands for none


class Operator:
    """A transform ready to run on one device, kept by the worker between parts."""

    def __init__(self, spec: Document, schema: Schema, device: str) -> None:
        view = VIEWS[spec["kind"]]
        typed = view.spec.from_parameters(spec["parameters"])
        self.computed = str(getattr(typed, "dtype", "float32"))
        self.dtype = str(getattr(typed, "stored", None) or self.computed)
        self.device = torch.device(device)
        self.module: Any = view.build(typed, schema).to(self.device).eval()
        self.components = schema.components if schema.layout != "molecules" else ("",)
        self.images = schema.layout == "images"
        self.opponent = getattr(typed, "colours", "rgb") == "opponent"
        if self.opponent:
            self.components = tuple(OPPONENTS)
        self.mirrored = bool(getattr(typed, "mirrored", False))

    @property
    def coefficients(self) -> pd.DataFrame:
        """One row a coefficient: a name, then what it means."""
        table = pd.DataFrame(self.module.coefficients)
        if len(self.components) > 1:
            tables = dict.fromkeys(self.components, table)
            table = pd.concat(tables, names=["component"]).reset_index("component")
            table = table.reset_index(drop=True)
        return pd.concat([pd.Series(_names(table), name="name"), table], axis=1)

    def memory(self, samples: int) -> int:
        """Return a bound on the bytes that transforming so many samples takes."""
        fields = samples * len(self.components)
        copies = 2 * self.images + 2 * self.opponent  # v and v / 255; colours, then reordered
        floats = 4 * copies * fields * math.prod(self.module.shape) if copies else 0
        return int(self.module.memory(fields)) + floats

    def batch(self, budget: int) -> int:
        """Return the largest power of two of samples that fit into ``budget`` bytes, at least 1."""
        size = 1
        while size < _MOST and self.memory(2 * size) <= budget:
            size *= 2
        return size

    @torch.inference_mode()
    def __call__(self, samples: Array) -> Array:
        """Transform samples as stored to ``(sample, coefficient[, y, x])``."""
        return self.features(torch.from_numpy(np.ascontiguousarray(samples))).cpu().numpy()

    def features(self, samples: torch.Tensor) -> torch.Tensor:
        """Transform ``(sample[, component], y, x)``, or images ``(sample, y, x, rgb)``.

        Raises
        ------
        InvalidRequest
            If a coefficient is too large for the precision in which it is to be stored.
        """
        x = samples.to(self.device)
        x = (as_float(x) if self.images else x).to(getattr(torch, self.computed))
        x = opponent(x) if self.opponent else x
        y: torch.Tensor = self.module(x.flip(-1) if self.mirrored else x)
        y = y.flatten(1, 2) if len(self.components) > 1 else y
        if self.dtype == "float16" and y.abs().max() > torch.finfo(torch.float16).max:
            raise InvalidRequest("coefficients exceed what float16 holds: --set stored=float32")
        return y.to(getattr(torch, self.dtype))

    @torch.inference_mode()
    def of_molecules(self, atoms: Atoms) -> Array:
        """Transform molecules to ``(sample, coefficient)``."""
        y: torch.Tensor = self.module(as_molecules(atoms))
        return y.cpu().numpy()


def as_molecules(atoms: Atoms) -> Molecules:
    """Return stored molecules as the mathematics takes them."""
    charges = torch.from_numpy(atoms.charges.astype("int64"))
    return Molecules(torch.from_numpy(atoms.positions), charges, torch.from_numpy(atoms.offsets))


@lru_cache(maxsize=4)
def _kept(spec: str, schema: Schema, device: str) -> Operator:
    return Operator(json.loads(spec), schema, device)


def operator(spec: Document, schema: Schema, device: str = "cpu") -> Operator:
    """Return the operator for a spec, built once in a process."""
    return _kept(json.dumps(spec, sort_keys=True), schema, device)


def _names(table: pd.DataFrame) -> list[str]:
    """Return names such as ``order=1,j1=0,l1=3``: the columns that apply."""

    def applies(column: object, value: object) -> bool:
        return value != "" and (value != -1 or column in _SIGNED)

    return [
        ",".join(f"{column}={value}" for column, value in row.items() if applies(column, value))
        for row in table.to_dict("records")
    ]
