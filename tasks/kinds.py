"""The kinds of models and of views: what help, refusals and hints say about them.

Help is made from this, so nothing heavy is imported here. Their code is in
:data:`tasks.models.MODELS`, :data:`tasks.steps.FITS` and :data:`tasks.views.VIEWS`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class ModelKind:
    """What there is to know about a kind of model.

    Attributes
    ----------
    hint
        A command for a model ``{0}`` fitted to the dataset ``{1}``.
    takes
        Which of the options that not every fit takes: ``--view``, ``--target``.
    fields
        Whether it is a model of fields, whose samples are drawn and judged.
    scored
        Whether it is scored sample by sample: by known answers, or by what it makes of samples.
    slow
        Whether a sample takes seconds to minutes, so that workers share samples out.
    resumes
        Whether a sample can continue from a checkpoint.
    together
        Whether all workers of a cluster can train one.
    """

    hint: str = "synthesize {0} -n 4 --to synthesis.png"
    takes: tuple[str, ...] = ()
    fields: bool = False
    scored: bool = False
    slow: bool = False
    resumes: bool = False
    together: bool = False


_PREDICTED = "evaluate {0} {1}, or wavemill predict {0} FILES --to f.csv"

MODEL_KINDS: dict[str, ModelKind] = {
    "gaussian": ModelKind(fields=True),
    "phase-harmonics": ModelKind(fields=True, slow=True, resumes=True),
    "energy": ModelKind(fields=True, slow=True),
    "regression": ModelKind(_PREDICTED, ("--view", "--target"), scored=True),
    "classifier": ModelKind(_PREDICTED, ("--view", "--target"), scored=True, together=True),
    "dictionary": ModelKind("show {0}", ("--view",)),
    "generator": ModelKind("generate {0} --from reconstruct --to pictures.png", scored=True),
}

LAYOUTS: dict[str, tuple[str, ...]] = {  # the data that each kind of view takes
    "spectrum": ("fields",),
    "scattering": ("fields", "images"),
    "phase-harmonics": ("fields",),
    "solid-harmonics": ("molecules",),
    "atomic-harmonics": ("molecules",),
}


def models(those: Callable[[ModelKind], bool]) -> list[str]:
    """Return the names of some kinds of models."""
    return [name for name, kind in MODEL_KINDS.items() if those(kind)]


def views(layout: str) -> list[str]:
    """Return the names of the kinds of views of some data."""
    return [name for name, layouts in LAYOUTS.items() if layout in layouts]


def either(names: Iterable[str]) -> str:
    """Return names as in ``a, b or c``."""
    *others, last = names
    return f"{', '.join(others)} or {last}" if others else last


MODELS_HELP = f"{either(MODEL_KINDS)}."
TARGET_HELP = f"Column that a {either(models(lambda kind: '--target' in kind.takes))} learns."
TOGETHER_HELP = (
    f"Where a {either(models(lambda kind: kind.together))} is trained: local:N is N processes "
    "together."
)
VIEWS_HELP = f"{either(views('fields'))}; of images {either(views('images'))}; of molecules "
VIEWS_HELP += f"{either(views('molecules'))}."
