"""Settings from the environment.  A value that makes no sense stops the start with a sentence."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from django.core.exceptions import ImproperlyConfigured

YES, NO = ("1", "true", "yes", "on"), ("0", "false", "no", "off")


def text(name: str, default: str = "") -> str:
    return os.environ.get(name, default).strip()


def flag(name: str, default: bool) -> bool:
    value = text(name).lower()
    if not value:
        return default
    if value not in YES + NO:
        raise ImproperlyConfigured(f"{name} is {value!r}; it must be 1 or 0.")
    return value in YES


def number(name: str, default: float, least: float = 0) -> float:
    value = text(name)
    try:
        parsed = float(value) if value else default
    except ValueError:
        raise ImproperlyConfigured(f"{name} is {value!r}; it must be a number.") from None
    if parsed < least:
        raise ImproperlyConfigured(f"{name} is {value}; it must be at least {least:g}.")
    return parsed


def words(name: str, default: str = "") -> list[str]:
    """Values separated by commas."""
    return [word.strip() for word in text(name, default).split(",") if word.strip()]


def kept(name: str, path: Path, make: Callable[[], str]) -> str:
    """A secret from the environment, else from a file that only its owner can read, made on first use."""
    if value := text(name):
        return value
    if not path.exists():
        _create(path, make())
    return path.read_text().strip()


def _create(path: Path, value: str) -> None:
    """Write durably and never over another process's file: the first one to link wins."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(handle, "w") as file:
            file.write(value + "\n")
            file.flush()
            os.fsync(file.fileno())
        os.link(temporary, path)
    except FileExistsError:
        pass
    finally:
        temporary.unlink()
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def database(name: str, sqlite: Path) -> dict[str, Any]:
    """Django's DATABASES entry from a URL such as postgresql://user:password@host:5432/everest."""
    url = urlsplit(text(name))
    if not url.scheme:
        return sqlite_database(sqlite)
    engines = {"postgresql": "postgresql", "postgres": "postgresql", "mysql": "mysql"}
    if url.scheme not in engines or not url.path.strip("/"):
        raise ImproperlyConfigured(f"{name} must look like postgresql://user:password@host:port/name (or mysql://).")
    return {
        "ENGINE": f"django.db.backends.{engines[url.scheme]}",
        "NAME": url.path.strip("/"),
        "USER": unquote(url.username or ""),
        "PASSWORD": unquote(url.password or ""),
        "HOST": url.hostname or "",
        "PORT": url.port or "",
        "CONN_HEALTH_CHECKS": True,
        "CONN_MAX_AGE": 60,
    }


def sqlite_database(path: Path) -> dict[str, Any]:
    """Several processes write: WAL lets readers go on, and a write transaction takes its lock when it begins."""
    return {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": path,
        "OPTIONS": {
            "timeout": 30,
            "transaction_mode": "IMMEDIATE",
            "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; PRAGMA foreign_keys=ON",
        },
        # A file, not memory: threads of a test have their own connections.
        "TEST": {"NAME": path.with_name(f"test-{os.getpid()}.sqlite3")},
    }
