from .compare_models import compare_models
from .demo import demo
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
    "demo",
    "evaluate",
    "features",
    "fit",
    "generation",
    "images",
    "ingest",
    "molecules",
    "turbulence",
]
