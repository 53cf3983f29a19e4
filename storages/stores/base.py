"""What the engine asks of a place that keeps objects, and how such a place fails."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """One line of a listing: key (without the storage's prefix), size in bytes, time of writing in UTC."""

    key: str
    size: int
    modified: datetime


class StoreError(Exception):
    """A store said no.  `hint` tells the person what to do next; `transient` that trying again may help."""

    transient = False

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} {self.hint}".strip()


class NotFound(StoreError):
    """There is no object under this key."""


class AlreadyExists(StoreError):
    """A conditional put lost: the key is taken."""


class Denied(StoreError):
    """Wrong keys, or an account that may not do this."""


class Unreachable(StoreError):
    """No answer, or one that says 'later'."""

    transient = True


class ObjectStore(Protocol):
    """A flat space of immutable objects.

    Keys are relative, of `a-z A-Z 0-9 . - _ /`, never beginning with a slash and never holding `..`.
    Every method raises StoreError and nothing else.  Methods may be called from several threads.
    """

    name: str
    conditional_put: bool

    def put(self, key: str, data: bytes, *, if_absent: bool = False) -> None:
        """Write one object whole and durably; with `if_absent` raise AlreadyExists where the key is taken."""

    def upload(self, key: str, parts: Iterable[bytes]) -> int:
        """Write one object of any size from parts of any size with bounded memory; return its bytes.

        Where `parts` raises, nothing is left under the key and what was sent is given up.
        """

    def get(self, key: str, offset: int = 0, length: int | None = None) -> bytes:
        """Bytes from `offset`, at most `length` of them; raise NotFound."""

    def list(self, prefix: str = "", after: str = "") -> Iterator[ObjectInfo]:
        """Objects whose key begins with `prefix` and sorts after `after`, in key order."""

    def delete(self, keys: Iterable[str]) -> None:
        """Remove objects; one that is already gone is no error."""
