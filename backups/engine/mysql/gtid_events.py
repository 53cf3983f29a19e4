"""The event that begins every transaction: its identity, its time and, on MySQL, its length."""

from __future__ import annotations

import struct
from functools import lru_cache
from typing import NamedTuple

from backups.engine.errors import Corrupt
from backups.engine.mysql.events import ANONYMOUS_GTID, MARIA_GTID, TAGGED_GTID, Cursor, Event, parser


class Gtid(NamedTuple):
    """A GTID event, MySQL's or MariaDB's.

    identity: "uuid:7", "uuid:tag:7", "0-1-7", or "" for an anonymous one.
    immediate_us, original_us: microseconds since the epoch; both the header's seconds for MariaDB.
    length: bytes of the whole transaction, this event included; 0 where the event does not say (MariaDB).
    """

    identity: str
    flags: int
    immediate_us: int
    original_us: int
    length: int
    last_committed: int = 0
    sequence_number: int = 0
    server_version: int = 0

    def time_us(self, replicated: bool) -> int:
        """Commit time.  On a replica the source's, which is `original`: anyone can set that, but only a replica has
        it from elsewhere, and clocks that disagree must not move a transaction into the future."""
        return min(self.immediate_us, self.original_us) if replicated else self.immediate_us


_GTID = struct.Struct("<B16sqBqq")
_HAS_SECOND_TIME = 1 << 55
_HAS_SECOND_VERSION = 1 << 31


@parser
def gtid(event: Event) -> Gtid:
    """Any of the four kinds of GTID event."""
    if event.type == MARIA_GTID:
        return maria_gtid(event).plain(event.timestamp)
    if event.type == TAGGED_GTID:
        return _tagged_gtid(event)
    body = event.body
    flags, uuid, number, kind, last_committed, sequence = _GTID.unpack_from(body)
    cursor = Cursor(body)
    cursor.at = _GTID.size
    if kind != 2:
        raise Corrupt(f"A GTID event of logical clock kind {kind}.")
    immediate = original = cursor.number(7)
    if immediate & _HAS_SECOND_TIME:
        immediate &= ~_HAS_SECOND_TIME
        original = cursor.number(7)
    length = cursor.packed()
    version = cursor.number(4) & ~_HAS_SECOND_VERSION if cursor.left() >= 4 else 0
    identity = "" if event.type == ANONYMOUS_GTID else f"{uuid_text(uuid)}:{number}"
    return Gtid(identity, flags, immediate, original, length, last_committed, sequence, version)


@lru_cache(maxsize=256)
def uuid_text(raw: bytes) -> str:
    text = raw.hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def _tagged_gtid(event: Event) -> Gtid:
    """mysql::serialization: version, size, last field that must be understood, then id and value of each field."""
    cursor = Cursor(event.body)
    cursor.varint(), cursor.varint(), cursor.varint()
    flags = last_committed = sequence = immediate = original = length = version = number = 0
    uuid, tag = b"", ""
    while cursor.left():
        kind = cursor.varint()
        if kind == 0:
            flags = cursor.varint()
        elif kind == 1:
            uuid = bytes(cursor.varint() for _ in range(16))
        elif kind == 2:
            number = _signed(cursor.varint())
        elif kind == 3:
            tag = cursor.copy(cursor.varint()).decode("ascii")
        elif kind == 4:
            last_committed = _signed(cursor.varint())
        elif kind == 5:
            sequence = _signed(cursor.varint())
        elif kind == 6:
            immediate = cursor.varint()
        elif kind == 7:
            original = cursor.varint()
        elif kind == 8:
            length = cursor.varint()
        elif kind == 9:
            version = cursor.varint()
        else:
            break  # later fields follow in order of their ids; what is needed lies before them
    if not uuid or not length:
        raise Corrupt("A tagged GTID event without uuid or length.")
    identity = f"{uuid_text(uuid)}:{tag}:{number}" if tag else f"{uuid_text(uuid)}:{number}"
    return Gtid(identity, flags, immediate, original or immediate, length, last_committed, sequence, version)


def _signed(value: int) -> int:
    return (value >> 1) ^ -(value & 1)


# MariaDB's flags
STANDALONE, GROUP_COMMIT, TRANSACTIONAL, DDL, PREPARED_XA, COMPLETED_XA = 1, 2, 4, 32, 64, 128


class MariaGtid(NamedTuple):
    """MariaDB's GTID event; xid: (format id, gtrid, bqual) of an XA branch that it prepares or completes."""

    domain: int
    server_id: int
    number: int
    flags: int
    xid: tuple[int, bytes, bytes] | None

    @property
    def identity(self) -> str:
        return f"{self.domain}-{self.server_id}-{self.number}"

    def plain(self, seconds: int) -> Gtid:
        return Gtid(self.identity, self.flags, seconds * 1_000_000, seconds * 1_000_000, 0)


@parser
def maria_gtid(event: Event) -> MariaGtid:
    cursor = Cursor(event.body)
    number, domain, flags = cursor.number(8), cursor.number(4), cursor.number(1)
    xid = None
    if flags & GROUP_COMMIT:
        cursor.take(8)
    if flags & (PREPARED_XA | COMPLETED_XA):
        form, first, second = cursor.number(4), cursor.number(1), cursor.number(1)
        xid = (form, cursor.copy(first), cursor.copy(second))
    return MariaGtid(domain, event.server_id, number, flags, xid)


@parser
def maria_gtid_list(event: Event) -> list[str]:
    """The newest GTIDs, one for each domain and server, in the files before this one."""
    cursor = Cursor(event.body)
    count = cursor.number(4) & 0x0FFFFFFF
    triples = [(cursor.number(4), cursor.number(4), cursor.number(8)) for _ in range(count)]
    return [f"{domain}-{server}-{number}" for domain, server, number in triples]
