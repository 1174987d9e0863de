"""Maximum-entropy models of stationary fields: Gaussian, microcanonical, explicit energies."""

from wavemill.maxent.energy import Energy
from wavemill.maxent.gaussian import Gaussian
from wavemill.maxent.microcanonical import Microcanonical

__all__ = ["Energy", "Gaussian", "Microcanonical"]
