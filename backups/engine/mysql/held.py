"""Events that are put aside until it is known what becomes of them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from tempfile import SpooledTemporaryFile
from typing import IO

from backups.engine.mysql.events import HEADER, HEADER_SIZE, QUERY, Event
from backups.engine.mysql.statements import sql

IN_MEMORY = 1 << 20  # of a held branch or of a LOAD DATA file; the rest lies in an unnamed temporary file
_SAVEPOINT = re.compile(rb"(?i)(RELEASE\s+)?SAVEPOINT\b")
_BACK_TO = re.compile(rb"(?i)ROLLBACK\s+(WORK\s+)?TO\b")


def temporary() -> IO[bytes]:
    return SpooledTemporaryFile(max_size=IN_MEMORY)


class Held:
    """Events put aside, in memory as long as they are few."""

    def __init__(self, place: str) -> None:
        self.place = place
        self._file = temporary()

    def add(self, event: Event) -> None:
        self._file.write(bytes([event.trailer]))
        self._file.write(event.raw)

    def events(self) -> Iterator[Event]:
        self._file.seek(0)
        while head := self._file.read(1 + HEADER_SIZE):
            timestamp, kind, server_id, size, log_pos, flags = HEADER.unpack_from(head, 1)
            raw = memoryview(head[1:] + self._file.read(size - HEADER_SIZE))
            yield Event(kind, timestamp, server_id, size, log_pos, flags, raw, head[0])

    def close(self) -> None:
        self._file.close()


def without_savepoints(events: Iterable[Event]) -> Iterator[Event]:
    """A transaction that never goes back to its savepoints needs none, and can be gathered then.

    What follows the first one is kept in memory until it is known, up to IN_MEMORY bytes.
    """
    found = iter(events)
    for event in found:
        if event.type == QUERY and _SAVEPOINT.match(sql(event)):
            yield from _until_known(event, found)
        else:
            yield event


def _until_known(first: Event, events: Iterator[Event]) -> Iterator[Event]:
    kept, size = [first], 0
    for event in events:
        kept.append(event)
        size += event.size
        if size > IN_MEMORY or (event.type == QUERY and _BACK_TO.match(sql(event))):
            yield from kept
            yield from events
            return
    yield from (event for event in kept if event.type != QUERY or not _SAVEPOINT.match(sql(event)))
