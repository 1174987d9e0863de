"""The feature store: immutable parts and published records, on a folder, S3 or memory."""

import lazy_loader as _lazy

__getattr__, __dir__, __all__ = _lazy.attach_stub(__name__, __file__)
