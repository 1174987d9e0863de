"""A fit in a process of its own, to be killed: ``python classifier_driver.py STORE PARAMETERS``."""

from __future__ import annotations

import json
import sys

import torch

from storage import open_store
from tasks.classifier import fit
from tasks.requests import FitRequest


def request(parameters: dict[str, object]) -> FitRequest:
    """The same fit, here and in the tests."""
    return FitRequest("classifier", parameters, view="scattering", target="label")


def main(url: str, parameters: str) -> None:
    """Fit on one thread, so that sums are always taken in the same order."""
    torch.set_num_threads(1)
    fit(open_store(url), "stripes", request(json.loads(parameters)))


if __name__ == "__main__":
    main(*sys.argv[1:])
