"""Prefect flows: the same functions are the deployments and the Python API.

``from flows import ingest, features, fit`` gives the flows. They are loaded at first use,
because Prefect takes seconds to import and ``wavemill --help`` should not.
"""

import os

import lazy_loader as _lazy

for _name, _value in {  # before Prefect is imported, which reads its settings once
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",  # nothing is sent anywhere unless asked for
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "60",
}.items():
    os.environ.setdefault(_name, _value)

__getattr__, __dir__, __all__ = _lazy.attach_stub(__name__, __file__)
