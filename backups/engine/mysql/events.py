"""Binary log events as MySQL 8.0+ and MariaDB 10.6+ write them: bytes in, values out, no sockets, no files.

Layouts: MySQL's "Replication Protocol" in the Source Code Documentation (namespace mysql::binlog::event) and
MariaDB's "Replication Protocol" pages.  Whatever the bytes are, nothing but Corrupt comes out of here; a type
that is not known is data.
"""

from __future__ import annotations

import functools
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple, ParamSpec, TypeVar

import zstandard
from isal.isal_zlib import crc32

from backups.engine.errors import Corrupt

MAGIC = b"\xfebin"
HEADER = struct.Struct("<IBIIIH")  # timestamp, type, server id, size, end position, flags
HEADER_SIZE = 19
CHECKSUM_SIZE = 4

QUERY, STOP, ROTATE, INTVAR, APPEND_BLOCK = 2, 3, 4, 5, 9
RAND, USER_VAR, FORMAT_DESCRIPTION, XID = 13, 14, 15, 16
BEGIN_LOAD_QUERY, EXECUTE_LOAD_QUERY, TABLE_MAP = 17, 18, 19
WRITE_ROWS_V1, UPDATE_ROWS_V1, DELETE_ROWS_V1 = 23, 24, 25
INCIDENT, HEARTBEAT, IGNORABLE, ROWS_QUERY = 26, 27, 28, 29
WRITE_ROWS, UPDATE_ROWS, DELETE_ROWS = 30, 31, 32
GTID, ANONYMOUS_GTID, PREVIOUS_GTIDS = 33, 34, 35
XA_PREPARE, PARTIAL_UPDATE_ROWS, TRANSACTION_PAYLOAD, HEARTBEAT_V2, TAGGED_GTID = 38, 39, 40, 41, 42
MARIA_ANNOTATE_ROWS, MARIA_CHECKPOINT, MARIA_GTID, MARIA_GTID_LIST, MARIA_START_ENCRYPTION = 160, 161, 162, 163, 164
MARIA_QUERY_COMPRESSED = 165
# Compressed row events and what they are once unpacked.
MARIA_ROWS_COMPRESSED = {
    166: WRITE_ROWS_V1, 167: UPDATE_ROWS_V1, 168: DELETE_ROWS_V1, 169: WRITE_ROWS, 170: UPDATE_ROWS, 171: DELETE_ROWS,
}  # fmt: skip

WRITES = frozenset({WRITE_ROWS_V1, WRITE_ROWS, 166, 169})
UPDATES = frozenset({UPDATE_ROWS_V1, UPDATE_ROWS, PARTIAL_UPDATE_ROWS, 167, 170})
DELETES = frozenset({DELETE_ROWS_V1, DELETE_ROWS, 168, 171})
ROWS = WRITES | UPDATES | DELETES
GTIDS = frozenset({GTID, ANONYMOUS_GTID, TAGGED_GTID, MARIA_GTID})
# What belongs to a log file or a connection, not to the data: never part of a slice.
STRUCTURE = frozenset({
    STOP, ROTATE, FORMAT_DESCRIPTION, PREVIOUS_GTIDS, HEARTBEAT, HEARTBEAT_V2,
    MARIA_CHECKPOINT, MARIA_GTID_LIST, MARIA_START_ENCRYPTION,
})  # fmt: skip

FLAG_IN_USE = 0x1  # in a format description: the file was not closed cleanly, or is still written to
FLAG_ARTIFICIAL = 0x20  # made up for the connection, not in the file; its checksum is not to be trusted

P = ParamSpec("P")
R = TypeVar("R")


def parser(function: Callable[P, R]) -> Callable[P, R]:
    """Let a parser index and unpack as if the bytes were right: whatever that trips over is damage."""

    @functools.wraps(function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except (struct.error, IndexError, ValueError, zlib.error, zstandard.ZstdError) as error:
            raise Corrupt(f"A binlog event cannot be read ({function.__name__}: {error}).") from error

    return wrapper


class Event(NamedTuple):
    """One event.  raw: all its bytes with header and checksum; trailer: how many of them are checksum (4 or 0)."""

    type: int
    timestamp: int
    server_id: int
    size: int
    log_pos: int
    flags: int
    raw: memoryview
    trailer: int

    @property
    def body(self) -> memoryview:
        return self.raw[HEADER_SIZE : self.size - self.trailer]


class Cursor:
    """Reads a body from front to back; running over its end is Corrupt."""

    def __init__(self, view: memoryview) -> None:
        self.view = view
        self.at = 0

    def take(self, size: int) -> memoryview:
        end = self.at + size
        if size < 0 or end > len(self.view):
            raise Corrupt("A binlog event is shorter than it says.")
        self.at, start = end, self.at
        return self.view[start:end]

    def copy(self, size: int) -> bytes:
        return bytes(self.take(size))

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "little")

    def packed(self) -> int:
        """MySQL's length-encoded integer."""
        first = self.number(1)
        if first < 251:
            return first
        if first in (251, 255):
            raise Corrupt("A binlog event holds a number that is none.")
        return self.number({252: 2, 253: 3, 254: 8}[first])

    def varint(self) -> int:
        """mysql::serialization: as many low 1-bits in the first byte as bytes follow it."""
        first = self.number(1)
        following = (~first & (first + 1)).bit_length() - 1
        if following == 8:
            return self.number(8)
        value = first >> (following + 1)
        return value | self.number(following) << (7 - following)

    def text(self) -> str:
        """A text behind one byte of length."""
        return self.copy(self.number(1)).decode()

    def rest(self) -> memoryview:
        return self.take(len(self.view) - self.at)

    def left(self) -> int:
        return len(self.view) - self.at


# --- one event, many events ---------------------------------------------------------------------------------


def parse(raw: memoryview, trailer: int) -> Event:
    """The one event that these bytes are; Corrupt where the size in its header says otherwise."""
    if len(raw) < HEADER_SIZE:
        raise Corrupt(f"A binlog event of {len(raw)} bytes is no event.")
    timestamp, kind, server_id, size, log_pos, flags = HEADER.unpack_from(raw)
    if kind == FORMAT_DESCRIPTION:
        trailer = CHECKSUM_SIZE  # it carries one whatever its algorithm says
    if size != len(raw) or size < HEADER_SIZE + trailer:
        raise Corrupt(f"A binlog event of {len(raw)} bytes says that it has {size}.")
    return Event(kind, timestamp, server_id, size, log_pos, flags, raw, trailer)


def verify(event: Event) -> None:
    """Prove the event's own CRC-32; Corrupt where it is another."""
    if not event.trailer:
        return
    raw, end = event.raw, event.size - CHECKSUM_SIZE
    expected = int.from_bytes(raw[end:], "little")
    if event.type == FORMAT_DESCRIPTION and event.flags & FLAG_IN_USE:
        # The flag is set in the file in place, after the checksum was made without it.
        head = bytearray(raw[:HEADER_SIZE])
        head[17] &= ~FLAG_IN_USE & 0xFF
        actual = crc32(raw[HEADER_SIZE:end], crc32(head))
    else:
        actual = crc32(raw[:end])
    if actual != expected:
        raise Corrupt(f"A binlog event (type {event.type}, {event.size} bytes) does not match its checksum.")


def with_checksum(kind: int, source: Event, body: bytes | memoryview, trailer: int) -> Event:
    """`source` again with another type and body, size and CRC-32 made right (trailer 4) or left out (0)."""
    size = HEADER_SIZE + len(body) + trailer
    header = HEADER.pack(source.timestamp, kind, source.server_id, size, source.log_pos, source.flags)
    raw = b"".join((header, body))
    if trailer:
        raw += crc32(raw).to_bytes(CHECKSUM_SIZE, "little")
    return Event(kind, source.timestamp, source.server_id, size, source.log_pos, source.flags, memoryview(raw), trailer)


def split(chunks: Iterable[bytes]) -> Iterator[memoryview]:
    """Cut bytes that come in any portions into whole events, Corrupt if torn.  Memory: a portion or an event."""
    parts: list[bytes] = []
    have = 0
    need = HEADER_SIZE
    for chunk in chunks:
        parts.append(chunk)
        have += len(chunk)
        if have < need:
            continue
        whole = memoryview(b"".join(parts))
        at = 0
        need = HEADER_SIZE
        while have - at >= HEADER_SIZE:
            size = int.from_bytes(whole[at + 9 : at + 13], "little")
            if size < HEADER_SIZE:
                raise Corrupt(f"A binlog event says that it has {size} bytes.")
            if have - at < size:
                need = size
                break
            yield whole[at : at + size]
            at += size
        parts, have = [bytes(whole[at:])], have - at
    if have:
        raise Corrupt(f"A binlog ends inside an event: {have} bytes are too few.")


def _after_magic(chunks: Iterable[bytes]) -> Iterator[bytes]:
    head = b""
    seen = False
    for chunk in chunks:
        if seen:
            yield chunk
            continue
        head += chunk
        if len(head) >= len(MAGIC):
            seen = True
            if not head.startswith(MAGIC):
                raise Corrupt("This is no binlog file: it does not begin with its magic number.")
            yield head[len(MAGIC) :]
    if not seen:
        raise Corrupt("This is no binlog file: it is too short.")


def read(chunks: Iterable[bytes]) -> Iterator[Event]:
    """The events of one binlog file or slice, its format description first, each proven by its checksum."""
    trailer = 0
    first = True
    for raw in split(_after_magic(chunks)):
        item = parse(raw, trailer)
        if item.type == FORMAT_DESCRIPTION:
            trailer = format_description(item).trailer
        elif first:
            raise Corrupt("A binlog file does not begin with a format description.")
        first = False
        verify(item)
        yield item
    if first:
        raise Corrupt("A binlog file ends before its format description.")


# --- bodies -------------------------------------------------------------------------------------------------


class FormatDescription(NamedTuple):
    """What begins every log file.  checksum: 0 none, 1 CRC-32; created: 0 unless the server started with this file."""

    version: int
    server_version: str
    created: int
    post_header_lengths: bytes
    checksum: int

    @property
    def trailer(self) -> int:
        return CHECKSUM_SIZE if self.checksum else 0

    @property
    def mariadb(self) -> bool:
        return "MariaDB" in self.server_version


@parser
def format_description(event: Event) -> FormatDescription:
    """Corrupt where the checksum algorithm is not known: nothing after it could be read."""
    cursor = Cursor(event.body)
    version = cursor.number(2)
    server_version = cursor.copy(50).rstrip(b"\0").decode("ascii")
    created = cursor.number(4)
    if cursor.number(1) != HEADER_SIZE:
        raise Corrupt("A format description with another header length than 19.")
    lengths = cursor.copy(cursor.left() - 1)
    checksum = cursor.number(1)
    if version != 4 or checksum not in (0, 1):
        raise Corrupt(f"A format description of version {version} with checksum algorithm {checksum}.")
    return FormatDescription(version, server_version, created, lengths, checksum)


def as_written(event: Event) -> Event:
    """A format description that came over a connection, proven, and with a checksum that can be proven again.

    For a place in the middle of a file a server clears birth and, without GTIDs, position in it; without checksums in
    the log it leaves this one as it was.
    """
    description = format_description(event)
    if description.checksum or (event.log_pos and description.created):
        verify(event)
        return event
    closed = event._replace(flags=event.flags & ~FLAG_IN_USE)
    return with_checksum(FORMAT_DESCRIPTION, closed, event.body, CHECKSUM_SIZE)


def file_id(event: Event) -> str:
    """What tells a log file from another of the same name: the birth, server id and version of its first event."""
    return f"{event.timestamp}-{event.server_id}-{format_description(event).server_version}"


@parser
def rotate(event: Event) -> tuple[str, int]:
    """The next log file and the position in it."""
    cursor = Cursor(event.body)
    position = cursor.number(8)
    return bytes(cursor.rest()).decode(), position


@parser
def heartbeat(event: Event) -> tuple[str, int]:
    """The log file and position where the server waits."""
    if event.type == HEARTBEAT:
        return bytes(event.body).decode(), event.log_pos
    cursor = Cursor(event.body)
    name, position = "", event.log_pos
    while cursor.left() and (kind := cursor.packed()):
        value = cursor.take(cursor.packed())
        if kind == 1:
            name = bytes(value).decode()
        elif kind == 2:
            position = Cursor(value).packed()
    return name, position


@parser
def incident(event: Event) -> tuple[int, str]:
    cursor = Cursor(event.body)
    number = cursor.number(2)
    return number, cursor.text()


@parser
def inflate(data: memoryview) -> bytes:
    """Unpack MariaDB's compressed part: 0x80 | algorithm << 4 | n, the size in n bytes big-endian, zlib data."""
    head = data[0]
    count = head & 0x07
    if not head & 0x80 or head & 0x70 or not 1 <= count <= 4:
        raise Corrupt("A compressed MariaDB event of unknown form.")
    size = int.from_bytes(data[1 : 1 + count], "big")
    machine = zlib.decompressobj()
    result = machine.decompress(data[1 + count :], size + 1)
    if len(result) != size or not machine.eof:
        raise Corrupt("A compressed MariaDB event does not hold what it says.")
    return result
