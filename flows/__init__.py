"""Prefect flows: the same functions are the deployments and the Python API.

``from flows import ingest, features, fit`` gives the flows. They are loaded at first use,
because Prefect takes seconds to import and ``wavemill --help`` should not.
"""

from __future__ import annotations

import importlib
import os
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flows.compare_models import compare_models
    from flows.evaluate import evaluate
    from flows.features import features
    from flows.fit import fit
    from flows.generation import generation
    from flows.images import images
    from flows.ingest import ingest
    from flows.molecules import molecules
    from flows.turbulence import turbulence

__all__ = [
    "compare_models",
    "evaluate",
    "features",
    "fit",
    "generation",
    "images",
    "ingest",
    "molecules",
    "turbulence",
]

for _name, _value in {  # before Prefect is imported, which reads its settings once
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",  # nothing is sent anywhere unless somebody says so
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "60",
}.items():
    os.environ.setdefault(_name, _value)


class _Flows(ModuleType):
    """The package, in which the name of a flow's module means the flow."""

    def __setattr__(self, name: str, value: Any) -> None:
        is_module = name in __all__ and isinstance(value, ModuleType)
        super().__setattr__(name, getattr(value, name) if is_module else value)


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{name}"), name)


sys.modules[__name__].__class__ = _Flows
