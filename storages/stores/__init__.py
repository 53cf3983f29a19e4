"""Where bytes go: one contract (base.py), kept by an S3 bucket and by a local folder."""

from __future__ import annotations

import os
import threading
from weakref import WeakValueDictionary

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
    "preload",
    "probe",
]


# A client of S3 takes megabytes: whoever works on one storage in one process shares it, while anybody does.
_shared: WeakValueDictionary[tuple[int, StoreConfig], S3Store] = WeakValueDictionary()
_sharing = threading.Lock()


def open_store(config: StoreConfig) -> ObjectStore:
    """The store that `config` describes.  Nothing is asked of it yet; raise StoreError where a setting is unusable."""
    if config.type == "local":
        return LocalStore(config)
    key = os.getpid(), config  # connections do not survive a fork
    with _sharing:
        store = _shared.get(key)
        if store is None:
            store = _shared[key] = S3Store(config)
        return store


def preload() -> None:
    """Load what every client of S3 needs, so that processes that fork from here on share its memory."""
    S3Store(StoreConfig(type="s3", name="", bucket="none", access_key="none", secret_key="none"))
