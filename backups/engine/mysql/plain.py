"""The transactions that most are: BEGIN, row events, COMMIT; told and proven in one pass over their bytes.

For speed alone: whatever is the least bit unusual, or damaged, is left to the general way (steps.py).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple
from zlib import crc32

from backups.engine.errors import Corrupt
from backups.engine.mysql.events import (
    GTID,
    GTIDS,
    HEADER_SIZE,
    MARIA_ANNOTATE_ROWS,
    MARIA_GTID,
    MARIA_ROWS_COMPRESSED,
    QUERY,
    ROWS,
    ROWS_QUERY,
    TABLE_MAP,
    XID,
    Event,
    parse,
    verify,
)
from backups.engine.mysql.gtid_events import PREPARED_XA, STANDALONE, gtid, uuid_text
from backups.engine.mysql.rowbuffer import SYSTEM

HEAD = struct.Struct("<4xB4xI")  # of an event: type, size
_ROWS = ROWS - MARIA_ROWS_COMPRESSED.keys()
_COMMENTS = frozenset({ROWS_QUERY, MARIA_ANNOTATE_ROWS})
_FLAGS, _SCHEMA = 25, 27  # in table maps and row events: flags; in table maps: length of the schema's name, the name


class Plain(NamedTuple):
    """identity: as gtid() tells it.  rows: table maps and row events, whole statements.  events: so many row events."""

    identity: str
    rows: bytes
    events: int


def plain(raw: bytes, trailer: int) -> Plain | None:
    """A transaction, GTID event to XID, as its row events; None where it is anything else than plain."""
    begin = _begin(raw, trailer)
    if begin is None:
        return None
    identity, at, begun = begin
    view, end = memoryview(raw), len(raw)
    parts: list[bytes] = []
    start = count = 0  # start: of row events that lie side by side, 0 for none
    is_open = False  # a statement is
    while at + HEADER_SIZE + trailer <= end:
        kind, size = HEAD.unpack_from(raw, at)
        stop = at + size
        if stop > end or size < HEADER_SIZE + trailer or not _proven(raw, view, at, stop, trailer):
            return None
        if kind in _ROWS:
            count += 1
            is_open = not raw[at + _FLAGS] & 1
        elif kind == TABLE_MAP:
            if raw[at + _SCHEMA + 1 : at + _SCHEMA + 1 + raw[at + _SCHEMA]] in SYSTEM:
                return None
            is_open, start = True, start or at
        else:
            if start:
                parts.append(raw[start:at])
                start = 0
            if kind == XID:
                whole = stop == end and begun and count and not is_open
                return Plain(identity, b"".join(parts), count) if whole else None
            if kind == QUERY and not begun and raw[stop - trailer - 6 : stop - trailer] == b"\0BEGIN":
                begun = True
            elif kind not in _COMMENTS:
                return None
        at = stop
    return None


def _begin(raw: bytes, trailer: int) -> tuple[str, int, bool] | None:
    """Identity, where the GTID event ends, and whether it stands for BEGIN, too."""
    kind, size = HEAD.unpack_from(raw)
    view = memoryview(raw)
    if kind not in GTIDS or not HEADER_SIZE + trailer <= size <= len(raw) or not _proven(raw, view, 0, size, trailer):
        return None
    if kind == GTID and size >= HEADER_SIZE + 25 + trailer:
        return f"{uuid_text(raw[20:36])}:{int.from_bytes(raw[36:44], 'little', signed=True)}", size, False
    found = gtid(parse(view[:size], trailer))
    if kind == MARIA_GTID and found.flags & (STANDALONE | PREPARED_XA):
        return None
    return found.identity, size, kind == MARIA_GTID


def _proven(raw: bytes, view: memoryview, at: int, stop: int, trailer: int) -> bool:
    return not trailer or crc32(view[at : stop - 4]) == int.from_bytes(raw[stop - 4 : stop], "little")


def proven(raw: bytes, trailer: int) -> Iterator[Event]:
    """The events in bytes that hold nothing else, each proven by its checksum."""
    view, at = memoryview(raw), 0
    while at < len(raw):
        size = int.from_bytes(raw[at + 9 : at + 13], "little")
        if size < HEADER_SIZE or at + size > len(raw):
            raise Corrupt(f"A transaction does not hold what its index says, at byte {at} of {len(raw)}.")
        event = parse(view[at : at + size], trailer)
        verify(event)
        yield event
        at += size
