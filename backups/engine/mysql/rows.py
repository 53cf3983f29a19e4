"""Row events: the table they are about and the images in them, walked by length, never decoded."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

from backups.engine.errors import Corrupt
from backups.engine.mysql.events import PARTIAL_UPDATE_ROWS, UPDATES, WRITES, Cursor, Event, parser

JSON = 245
_ENUM, _SET, _STRING = 247, 248, 254
_FIXED = {1: 1, 2: 2, 3: 4, 4: 4, 5: 8, 6: 0, 7: 4, 8: 8, 9: 3, 10: 3, 11: 3, 12: 8, 13: 1, 14: 3, 244: 1}
_FRACTIONAL = {17: 4, 18: 5, 19: 3}  # TIMESTAMP, DATETIME, TIME and two decimals a byte
# VARCHAR, BIT, MariaDB's compressed VARCHAR, NEWDECIMAL, ENUM, SET, VAR_STRING, STRING
_TWO_BYTES = frozenset({15, 16, 141, 246, _ENUM, _SET, 253, _STRING})
# FLOAT, DOUBLE, the fractional ones, MariaDB's compressed BLOB, VECTOR, JSON, the BLOBs, GEOMETRY
_ONE_BYTE = frozenset({4, 5, 17, 18, 19, 140, 242, JSON, 249, 250, 251, 252, 255})
_LENGTH_PREFIXED = frozenset({140, 242, JSON, 249, 250, 251, 252, 255})
_TYPED_ARRAY = 20
_DECIMAL_DIGITS = (0, 1, 1, 2, 2, 3, 3, 4, 4, 4)

# How long a column's value is: (bytes, 0) if fixed, (0, size of the length in front of it) else.
Width = tuple[int, int]
# Over an image: its steps up to each value with a length, and the bytes after the last.
Way = tuple[list[Width], int]


class TableMap(NamedTuple):
    """metadata: one value for each column, both bytes little-endian where a type has two; null_bits: can be NULL;
    optional: the rest, as logged (signedness, charsets, names, primary key ... where binlog_row_metadata has them)."""

    table_id: int
    flags: int
    schema: str
    table: str
    types: bytes
    metadata: tuple[int, ...]
    null_bits: bytes
    optional: bytes

    @property
    def json_columns(self) -> int:
        return self.types.count(JSON)


@parser
def table_map(event: Event) -> TableMap:
    return table_of(bytes(event.body))


# The same few table maps come before nearly every row event.
@lru_cache(maxsize=4096)
@parser
def table_of(body: bytes) -> TableMap:
    """A table map's body, without its checksum."""
    cursor = Cursor(memoryview(body))
    table_id, flags = cursor.number(6), cursor.number(2)
    schema = cursor.copy(cursor.packed()).decode()
    cursor.take(1)
    table = cursor.copy(cursor.packed()).decode()
    cursor.take(1)
    types = cursor.copy(cursor.packed())
    metadata = _metadata(types, Cursor(cursor.take(cursor.packed())))
    null_bits = cursor.copy((len(types) + 7) // 8)
    return TableMap(table_id, flags, schema, table, types, metadata, null_bits, bytes(cursor.rest()))


def _metadata(types: bytes, cursor: Cursor) -> tuple[int, ...]:
    values = []
    for kind in types:
        if kind == _TYPED_ARRAY:
            raise Corrupt("A table map holds a typed array, which no table can.")
        values.append(cursor.number(2) if kind in _TWO_BYTES else cursor.number(1) if kind in _ONE_BYTE else 0)
    return tuple(values)


def width(kind: int, metadata: int) -> Width:
    """How a value of this column type is laid out in a row image."""
    if kind in _FIXED:
        return _FIXED[kind], 0
    if kind in _FRACTIONAL:
        return _FRACTIONAL[kind] + (metadata + 1) // 2, 0
    if kind in _LENGTH_PREFIXED:
        if not 1 <= metadata <= 4:
            raise Corrupt(f"A table map with a length of {metadata} bytes for a column of type {kind}.")
        return 0, metadata
    if kind in (15, 141, 253):
        return 0, 1 if metadata < 256 else 2
    if kind == 16:
        return (metadata >> 8) + ((metadata & 0xFF) + 7) // 8, 0
    if kind == 246:
        return _decimal(metadata & 0xFF, metadata >> 8), 0
    if kind in (_ENUM, _SET):
        return metadata >> 8, 0
    if kind == _STRING:
        return _string(metadata & 0xFF, metadata >> 8)
    raise Corrupt(f"A table map with an unknown column type {kind}.")


def _decimal(precision: int, scale: int) -> int:
    if scale > precision:
        raise Corrupt("A table map with an impossible DECIMAL.")
    whole, part = precision - scale, scale
    return whole // 9 * 4 + _DECIMAL_DIGITS[whole % 9] + part // 9 * 4 + _DECIMAL_DIGITS[part % 9]


def _string(first: int, second: int) -> Width:
    """CHAR, BINARY, ENUM and SET share a type; lengths over 255 hide two bits in the real type, inverted."""
    if first & 0x30 != 0x30:
        length = second | ((first & 0x30) ^ 0x30) << 4
        return 0, 1 if length < 256 else 2
    if first in (_ENUM, _SET):
        return second, 0
    return 0, 1


# Flags of a row event
STATEMENT_END, NO_FOREIGN_KEY_CHECKS, RELAXED_UNIQUE_CHECKS, COMPLETE_ROWS, CASCADES_LOGGED = 1, 2, 4, 8, 0x10


class RowsHeader(NamedTuple):
    """Head of a row event.  offset: where the first image begins in the body.

    columns, after: bitmaps of the columns in the (before) image, and in an update's after image.
    extra: the header's extra bytes (partition ids and such), as logged.  body: the event's, which holds the images.
    """

    table_id: int
    flags: int
    extra: bytes
    width: int
    columns: bytes
    after: bytes
    offset: int
    body: bytes


_HEAD = struct.Struct("<IHH")  # table id in 6 bytes, flags
_VERSION_1 = frozenset({23, 24, 25, 166, 167, 168})


@parser
def rows_header(event: Event) -> RowsHeader:
    body = bytes(event.body)
    low, high, flags = _HEAD.unpack_from(body)
    extra, at = b"", _HEAD.size
    if event.type not in _VERSION_1:
        size = body[8] | body[9] << 8  # counts itself
        if size < 2:
            raise Corrupt("A row event with an impossible extra header.")
        at += size
        extra = body[10:at]
    width, at = _packed(body, at)
    size = (width + 7) // 8
    after = at + size * (2 if event.type in UPDATES else 1)
    if after > len(body):
        raise Corrupt("A row event ends inside its header.")
    return RowsHeader(low | high << 32, flags, extra, width, body[at : at + size], body[at + size : after], after, body)


def _packed(body: bytes, at: int) -> tuple[int, int]:
    """A length-encoded integer and what follows it."""
    if body[at] < 251:  # nearly always
        return body[at], at + 1
    cursor = Cursor(memoryview(body))
    cursor.at = at
    return cursor.packed(), cursor.at


class Walker:
    """Steps over the images of one table's rows.

    The way over an image depends on its NULL bits alone, so it is worked out once for each pattern and kept:
    a list of (bytes to skip, size of the length that follows).
    """

    KEPT = 4096

    def __init__(self, types: bytes, metadata: tuple[int, ...], columns: bytes) -> None:
        self.widths = [
            width(kind, detail)
            for number, (kind, detail) in enumerate(zip(types, metadata, strict=True))
            if columns[number >> 3] >> (number & 7) & 1
        ]
        self.null_size = (len(self.widths) + 7) // 8
        self.ways: dict[bytes, Way] = {}

    def skip(self, body: bytes, at: int) -> int:
        """Where the image that begins at `at` ends (may lie beyond the body: the caller's count will not fit)."""
        start = at + self.null_size
        if start > len(body):
            raise Corrupt("A row event ends inside a row.")
        nulls = body[at:start]
        way = self.ways.get(nulls)
        if way is None:
            way = self.way(nulls)
        at = start
        for fixed, prefix in way[0]:
            at += fixed
            end = at + prefix
            if end > len(body):
                raise Corrupt("A row event ends inside a row.")
            at = end + int.from_bytes(body[at:end], "little")
        return at + way[1]

    def way(self, nulls: bytes) -> Way:
        steps: list[Width] = []
        run = 0
        for number, (fixed, prefix) in enumerate(self.widths):
            if nulls[number >> 3] >> (number & 7) & 1:
                continue
            run += fixed
            if prefix:
                steps.append((run, prefix))
                run = 0
        if len(self.ways) >= self.KEPT:
            self.ways.clear()
        self.ways[nulls] = steps, run
        return steps, run


# Tables come again and again with the same columns; working out a walker costs more than most row events.
walker = lru_cache(maxsize=1024)(Walker)


def images(event: Event, table: TableMap, head: RowsHeader | None = None) -> Iterator[tuple[int, int, int]]:
    """(start, start of the after image, end) of each row in the event's body, which must be an unpacked one.

    For writes and deletes the middle is the end.  Corrupt where images and event do not end together.
    """
    head = head or rows_header(event)
    if head.width != len(table.types):
        raise Corrupt(f"A row event of {head.width} columns follows a table map of {len(table.types)}.")
    body = head.body
    first = walker(table.types, table.metadata, head.columns)
    second = walker(table.types, table.metadata, head.after) if head.after else None
    partial = table.json_columns if event.type == PARTIAL_UPDATE_ROWS else 0
    at, end = head.offset, len(body)
    while at < end:
        start = at
        at = middle = first.skip(body, at)
        if second:
            if event.type == PARTIAL_UPDATE_ROWS:
                at = value_options(body, at, partial)
            at = second.skip(body, at)
        if at > end or at == start:
            raise Corrupt("A row event ends inside a row.")
        yield start, middle, at


def value_options(body: bytes, at: int, json_columns: int) -> int:
    """Step over what says which JSON values of an after image are differences."""
    options, at = _packed(body, at)
    return at + (json_columns + 7) // 8 if options & 1 else at


@parser
def count(event: Event, table: TableMap, head: RowsHeader | None = None) -> int:
    """Rows in an unpacked row event, exactly."""
    return sum(1 for _ in images(event, table, head))


def kind(event: Event) -> int:
    """0 for inserts, 1 for updates, 2 for deletes."""
    return 0 if event.type in WRITES else 1 if event.type in UPDATES else 2
