"""What the engine asks of a place that keeps objects, and how such a place fails."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

MAX_KEY = 800  # characters; with the longest prefix still below the 1,024 bytes that S3 allows
_KEY = re.compile(r"[A-Za-z0-9._-]+(/[A-Za-z0-9._-]+)*")


@dataclass(frozen=True, slots=True)
class StoreConfig:
    """Where a store is and how to sign in.

    type: "s3" or "local".  bucket: for a local folder its absolute path.
    ca_certificate: PEM text; where it is given, it alone is trusted.
    conditional_put: what `probe` found out and the caller remembered.
    """

    type: str
    name: str
    bucket: str
    region: str = ""
    endpoint: str = ""
    access_key: str = ""
    secret_key: str = field(default="", repr=False)
    verify_tls: bool = True
    ca_certificate: str = field(default="", repr=False)
    path_style: bool = False
    prefix: str = ""
    conditional_put: bool = False


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
    """No answer, or one that says 'later', or one that no store gives; the store's own few tries are used up."""

    transient = True


class Conflict(Unreachable):
    """Another write to this key is under way: whether it is taken shows at the next try."""


class Untrusted(StoreError):
    """The endpoint answers, but TLS with it fails."""


def is_key(key: str) -> bool:
    """Whether `key` keeps the rules of ObjectStore; a listing leaves out what does not, as it is another's."""
    return bool(_KEY.fullmatch(key)) and ".." not in key and "." not in key.split("/") and len(key) <= MAX_KEY


def check_key(key: str) -> str:
    """Return `key`, or raise StoreError where it breaks the rules."""
    if not is_key(key):
        raise StoreError(f"{key[:MAX_KEY]!r} is not a legal object key.", hint="This is a fault of Everest: report it.")
    return key


def key_prefix(config: StoreConfig) -> str:
    """What stands before each key: empty, or ending in exactly one slash."""
    bare = config.prefix.strip("/")
    if bare and not is_key(bare):
        raise StoreError(f"The prefix {bare[:MAX_KEY]!r} is not legal.", hint="Use letters, digits and . - _ / only.")
    return f"{bare}/" if bare else ""


class ObjectStore(Protocol):
    """A flat space of immutable objects.

    Keys are relative, of `a-z A-Z 0-9 . - _ /`, at most MAX_KEY characters; no part between slashes is
    empty or `.`, and none holds `..` (`check_key`).  A key is never also the folder of another.
    Every method raises StoreError and nothing else, but for what `parts` raises itself.
    Methods may be called from several threads.
    """

    name: str
    conditional_put: bool

    def check(self) -> None:
        """Prove that the bucket or folder is there and may be listed."""

    def put(self, key: str, data: bytes, *, if_absent: bool = False) -> None:
        """Write one object whole and durably; with `if_absent` raise AlreadyExists where the key is taken."""

    def upload(self, key: str, parts: Iterable[bytes]) -> int:
        """Write one object of any size from parts of any size with bounded memory; return its bytes.

        Where `parts` raises, nothing is left under the key and what was sent is given up.
        """

    def get(self, key: str, offset: int = 0, length: int | None = None) -> bytes:
        """Bytes from `offset`, at most `length` of them; raise NotFound."""

    def list(self, prefix: str = "", after: str = "") -> Iterator[ObjectInfo]:
        """Objects whose key begins with `prefix` and sorts after `after`, in key order; others' keys left out."""

    def delete(self, keys: Iterable[str]) -> None:
        """Remove objects; one that is already gone is no error."""

    def tidy(self, prefix: str, before: datetime) -> int:
        """Give up what writes below `prefix` left that began before a time and never ended; return how many."""
