from .compare_models import compare_models
from .evaluate import evaluate
from .features import features
from .fit import fit
from .generation import generation
from .images import images
from .ingest import ingest
from .molecules import molecules
from .turbulence import turbulence

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
