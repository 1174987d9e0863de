from .artifacts import Artifact
from .datasets import Change, Dataset
from .errors import (
    BadInput,
    Conflict,
    Damaged,
    InvalidRequest,
    Newer,
    NoRoom,
    NotFound,
    StorageError,
)
from .features import FeatureFrame
from .records import DatasetVersion, PartRef, Schema, ViewVersion
from .store import Store, open_store

__all__ = [
    "Artifact",
    "BadInput",
    "Change",
    "Conflict",
    "Damaged",
    "Dataset",
    "DatasetVersion",
    "FeatureFrame",
    "InvalidRequest",
    "Newer",
    "NoRoom",
    "NotFound",
    "PartRef",
    "Schema",
    "StorageError",
    "Store",
    "ViewVersion",
    "open_store",
]
