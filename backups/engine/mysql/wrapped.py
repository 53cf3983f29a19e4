"""Events that hold others: MySQL's transaction payload and MariaDB's compressed events."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import zstandard

from backups.engine.errors import Corrupt
from backups.engine.mysql.events import (
    MARIA_QUERY_COMPRESSED,
    MARIA_ROWS_COMPRESSED,
    QUERY,
    Cursor,
    Event,
    inflate,
    parse,
    parser,
    split,
    with_checksum,
)
from backups.engine.mysql.rows import rows_header
from backups.engine.mysql.statements import QUERY_HEAD


class Payload(NamedTuple):
    """Head of a transaction payload event; compression: 0 zstd, 255 none."""

    compression: int
    uncompressed_size: int
    data: memoryview


@parser
def payload(event: Event) -> Payload:
    cursor = Cursor(event.body)
    fields: dict[int, int] = {}
    while kind := cursor.packed():
        fields[kind] = Cursor(cursor.take(cursor.packed())).packed()
    data = cursor.rest()
    if fields.get(1, len(data)) != len(data):
        raise Corrupt(f"A transaction payload of {len(data)} bytes says that it has {fields[1]}.")
    compression = fields.get(2, 255)
    if compression not in (0, 255):
        raise Corrupt(f"A transaction payload of unknown compression {compression}.")
    return Payload(compression, fields.get(3, len(data)), data)


def payload_events(event: Event, trailer: int = 0) -> Iterator[Event]:
    """The events inside a TRANSACTION_PAYLOAD, one by one: memory is the largest of them.

    trailer: 4 to give each a checksum and the size that goes with it, as the server's BINLOG statement wants.
    """
    head = payload(event)
    for raw in split(_unpacked(head)):
        inner = parse(raw, 0)
        yield with_checksum(inner.type, inner, inner.body, trailer) if trailer else inner


def _unpacked(head: Payload) -> Iterator[bytes]:
    if head.compression == 255:
        yield bytes(head.data)
        return
    left = head.uncompressed_size
    try:
        with zstandard.ZstdDecompressor().stream_reader(head.data, read_across_frames=True) as reader:
            while block := reader.read(1 << 18):
                left -= len(block)
                if left < 0:
                    raise Corrupt("A transaction payload holds more than it says.")
                yield block
    except zstandard.ZstdError as error:
        raise Corrupt(f"A transaction payload cannot be unpacked ({error}).") from error
    if left:
        raise Corrupt(f"A transaction payload lacks {left} bytes.")


@parser
def uncompressed(event: Event) -> Event:
    """A MariaDB compressed event (165 to 171) as the plain one that it stands for; any other as it is."""
    if event.type == MARIA_QUERY_COMPRESSED:
        body = event.body
        _, _, schema_size, _, status_size = QUERY_HEAD.unpack_from(body)
        head = QUERY_HEAD.size + status_size + schema_size + 1
        return with_checksum(QUERY, event, bytes(body[:head]) + inflate(body[head:]), event.trailer)
    if event.type in MARIA_ROWS_COMPRESSED:
        body = event.body
        head = rows_header(event).offset
        kind = MARIA_ROWS_COMPRESSED[event.type]
        return with_checksum(kind, event, bytes(body[:head]) + inflate(body[head:]), event.trailer)
    return event
