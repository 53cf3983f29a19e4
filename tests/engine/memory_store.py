"""An object store in memory, with faults on demand: for tests that run in milliseconds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime

from storages.stores.base import AlreadyExists, NotFound, ObjectInfo


class MemoryStore:
    """`before(action, key)` is called first of all and may raise what a store would; `calls` says what was asked."""

    name = "memory"

    def __init__(self, conditional_put: bool = True) -> None:
        self.conditional_put = conditional_put
        self.objects: dict[str, bytes] = {}
        self.calls: list[tuple[str, str]] = []
        self.before: Callable[[str, str], None] = lambda action, key: None

    def put(self, key: str, data: bytes, *, if_absent: bool = False) -> None:
        self._asked("put", key)
        if if_absent and key in self.objects:
            raise AlreadyExists(f"{key} is taken.")
        self.objects[key] = bytes(data)

    def upload(self, key: str, parts: Iterable[bytes]) -> int:
        self._asked("upload", key)
        data = b"".join(parts)
        self.objects[key] = data
        return len(data)

    def get(self, key: str, offset: int = 0, length: int | None = None) -> bytes:
        self._asked("get", key)
        if key not in self.objects:
            raise NotFound(f"{key} is not there.")
        return self.objects[key][offset:][:length]

    def list(self, prefix: str = "", after: str = "") -> Iterator[ObjectInfo]:
        self._asked("list", prefix)
        for key, data in sorted(self.objects.items()):
            if key.startswith(prefix) and key > after:
                yield ObjectInfo(key, len(data), datetime.now(UTC))

    def delete(self, keys: Iterable[str]) -> None:
        for key in keys:
            self._asked("delete", key)
            self.objects.pop(key, None)

    def tidy(self, prefix: str, before: datetime) -> int:
        self._asked("tidy", prefix)
        return 0

    def _asked(self, action: str, key: str) -> None:
        self.calls.append((action, key))
        self.before(action, key)
