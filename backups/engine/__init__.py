"""What knows how to back up and restore; a second engine is a sibling of `mysql` with the same functions."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

ENGINES = {"mysql": "backups.engine.mysql"}


def engine(name: str) -> ModuleType:
    """The module that holds an engine's functions."""
    return import_module(ENGINES[name])
