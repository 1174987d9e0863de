"""The feature store: immutable parts and published records, on a folder, S3 or memory."""

from storage.artifacts import Artifact
from storage.datasets import Change, Dataset
from storage.errors import (
    BadInput,
    Conflict,
    Damaged,
    InvalidRequest,
    NoRoom,
    NotFound,
    StorageError,
)
from storage.features import FeatureFrame
from storage.records import DatasetVersion, PartRef, Schema, ViewVersion
from storage.store import Store, open_store

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
    "NoRoom",
    "NotFound",
    "PartRef",
    "Schema",
    "StorageError",
    "Store",
    "ViewVersion",
    "open_store",
]
