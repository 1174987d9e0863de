"""Models: fitted, each kind by its own function."""

from __future__ import annotations

from collections.abc import Callable

from prefect import get_run_logger, task

from storage import Store, open_store
from tasks import classifier, dictionary, generation, regression, show
from tasks.fit import fit
from tasks.requests import FitOutcome, FitRequest, check_split
from tasks.together import fit_together

FITS: dict[str, Callable[[Store, str, FitRequest], FitOutcome]] = {  # others are of fields
    classifier.KIND: classifier.fit,
    dictionary.KIND: dictionary.fit,
    generation.KIND: generation.fit,
    regression.KIND: regression.fit,
}


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
    get_run_logger().info("model %s", outcome)
    return outcome
