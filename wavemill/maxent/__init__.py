"""Maximum-entropy models of stationary fields: Gaussian, and microcanonical phase-harmonic."""

from wavemill.maxent.gaussian import Gaussian
from wavemill.maxent.microcanonical import Microcanonical

__all__ = ["Gaussian", "Microcanonical"]
