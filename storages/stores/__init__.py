"""Where bytes go: one contract (base.py), kept by an S3 bucket and by a local folder."""

from __future__ import annotations

from storages.stores.base import (
    AlreadyExists,
    Conflict,
    Denied,
    NotFound,
    ObjectInfo,
    ObjectStore,
    StoreConfig,
    StoreError,
    Unreachable,
    Untrusted,
)
from storages.stores.local import LocalStore
from storages.stores.probe import ProbeResult, ProbeStep, probe
from storages.stores.s3 import S3Store

__all__ = [
    "AlreadyExists",
    "Conflict",
    "Denied",
    "NotFound",
    "ObjectInfo",
    "ObjectStore",
    "ProbeResult",
    "ProbeStep",
    "StoreConfig",
    "StoreError",
    "Unreachable",
    "Untrusted",
    "open_store",
    "probe",
]


def open_store(config: StoreConfig) -> ObjectStore:
    """The store that `config` describes.  Nothing is asked of it yet; raise StoreError where a setting is unusable."""
    return LocalStore(config) if config.type == "local" else S3Store(config)
