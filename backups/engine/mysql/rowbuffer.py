"""Row events gathered for BINLOG statements: cut on event bounds, each piece whole statements for the server."""

from __future__ import annotations

import zlib
from typing import NamedTuple

from backups.engine.mysql.events import CHECKSUM_SIZE, Event
from backups.engine.mysql.rows import STATEMENT_END
from backups.engine.mysql.server import SYSTEM_SCHEMAS

SYSTEM = frozenset(name.encode() for name in SYSTEM_SCHEMAS)
_TABLE_ID = slice(19, 25)  # first field of table maps and row events
FLAGS = 25  # after it, in both
_SCHEMA = 27  # in table maps: length, then name


def table_id(event: Event) -> bytes:
    return bytes(event.raw[_TABLE_ID])


def schema_of(event: Event) -> bytes:
    """The schema in a table map."""
    size = event.raw[_SCHEMA]
    return bytes(event.raw[_SCHEMA + 1 : _SCHEMA + 1 + size])


def ends_statement(event: Event) -> bool:
    return bool(event.raw[FLAGS] & STATEMENT_END)


class Part(NamedTuple):
    raw: bytes | memoryview
    trailer: int


class RowBuffer:
    """Row events in log order.

    The server keeps the tables of table maps open until a row event says that its statement ends; so what is taken
    out must end with such an event, and what follows of a statement that was cut needs its table maps again.
    """

    def __init__(self) -> None:
        self.size = 0
        self._parts: list[Part] = []
        self._maps: list[Part] = []  # of the statement under way
        self._start = 0  # where its first table map lies in _parts
        self._has_rows = False  # whether _parts holds row events of it

    def __bool__(self) -> bool:
        return bool(self._parts)

    @property
    def maps_size(self) -> int:
        return sum(len(part.raw) for part in self._maps)

    def add_map(self, event: Event) -> None:
        if not self._maps:
            self._start = len(self._parts)
        part = Part(event.raw, event.trailer)
        self._maps.append(part)
        self._add(part)

    def add_rows(self, event: Event) -> None:
        self._add(Part(event.raw, event.trailer))
        self._has_rows = True
        if ends_statement(event):
            self._ended()

    def end_statement(self) -> None:
        """The statement under way, if there is one, ends here although its last event is left out."""
        if not self._maps:
            return
        if self._has_rows:
            self._parts[-1] = with_statement_end(self._parts[-1])
        else:
            self._cut(self._start)
        self._ended()

    def take(self) -> bytes:
        """All there is, as whole statements; of a statement under way the table maps stay for what is to come."""
        if self._maps and not self._has_rows:
            self._cut(self._start)
        elif self._maps:
            self._parts[-1] = with_statement_end(self._parts[-1])
        taken = b"".join(part.raw for part in self._parts)
        self._parts = list(self._maps)
        self.size = self.maps_size
        self._start, self._has_rows = 0, False
        return taken

    def _add(self, part: Part) -> None:
        self._parts.append(part)
        self.size += len(part.raw)

    def _cut(self, at: int) -> None:
        self.size -= sum(len(part.raw) for part in self._parts[at:])
        del self._parts[at:]

    def _ended(self) -> None:
        self._maps, self._has_rows = [], False


def with_statement_end(part: Part) -> Part:
    """The row event again with the flag that ends its statement, its checksum made right."""
    raw = bytearray(part.raw)
    add_flag(raw, 0, len(raw), STATEMENT_END, part.trailer)
    return Part(bytes(raw), part.trailer)


def add_flag(raw: bytearray, at: int, stop: int, flag: int, trailer: int) -> None:
    """Set a flag of the row event that lies there, and make its checksum right, if it has one."""
    raw[at + FLAGS] |= flag
    if trailer:
        end = stop - CHECKSUM_SIZE
        raw[end:stop] = zlib.crc32(memoryview(raw)[at:end]).to_bytes(CHECKSUM_SIZE, "little")
