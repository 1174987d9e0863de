"""Errors of the mathematics, classed by what a caller does about them.

Each subclasses the built-in a caller already catches and survives pickling, because Dask
ships exceptions between processes.
"""


class WavemillError(Exception):
    """Anything that wavemill itself refuses or fails at."""


class InvalidParameter(WavemillError, ValueError):
    """A parameter is outside what the formula allows: change the parameter."""


class ShapeMismatch(InvalidParameter):
    """An array does not have the shape that the operator was built for: rebuild or reshape."""


class UnstableSimulation(WavemillError, ArithmeticError):
    """A time integration left the stable region: reduce the step or raise the resolution."""


class DivergentModel(WavemillError, ArithmeticError):
    """An energy does not grow in every direction, so that it has no density: use other moments."""


class NotFitted(WavemillError, AttributeError):
    """A model was asked for something it learns in ``fit``: call ``fit`` first."""
