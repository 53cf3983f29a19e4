"""What statements leave in a binary log: the text, and all of the session that its meaning depends on."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from backups.engine.errors import Corrupt
from backups.engine.mysql.events import (
    MARIA_ANNOTATE_ROWS,
    MARIA_QUERY_COMPRESSED,
    QUERY,
    Cursor,
    Event,
    inflate,
    parser,
    with_checksum,
)


@dataclass(frozen=True, slots=True)
class Query:
    """A statement with its session's context.

    status: flags2 (int), sql_mode (int), auto_increment (increment, offset), charset (client, connection, server
    collation ids), time_zone (text), catalog (text), lc_time_names (int), charset_database (int),
    table_map_for_update (int), invoker (user, host), updated_schemas (tuple), microseconds (int),
    explicit_defaults_for_timestamp (int), ddl_xid (int), default_collation_for_utf8mb4 (int),
    sql_require_primary_key (int), default_table_encryption (int), enable_cascade_triggers (int);
    MariaDB: hrnow (int, microseconds), xid (int),
    gtid_flags (int), character_set_collations (tuple of pairs).  A variable is there only where it was logged;
    "unknown" (its number) is there where one of a later server ended what could be read.
    """

    schema: str
    sql: bytes
    error_code: int
    thread_id: int
    exec_time: int
    status: dict[str, Any] = field(default_factory=dict)


QUERY_HEAD = struct.Struct("<IIBHH")


@parser
def query(event: Event) -> Query:
    """A QUERY event, MariaDB's compressed one too."""
    body = event.body
    thread_id, exec_time, schema_size, error_code, status_size = QUERY_HEAD.unpack_from(body)
    cursor = Cursor(body)
    cursor.at = QUERY_HEAD.size
    status = _status(Cursor(cursor.take(status_size)))
    schema = cursor.copy(schema_size).decode()
    cursor.take(1)
    sql = bytes(cursor.rest())
    if event.type == MARIA_QUERY_COMPRESSED:
        sql = inflate(memoryview(sql))
    return Query(schema, sql, error_code, thread_id, exec_time, status)


@parser
def sql(event: Event) -> bytes:
    """Only the text of a QUERY event: most are a BEGIN, and their context does not matter."""
    body = event.body
    _, _, schema_size, _, status_size = QUERY_HEAD.unpack_from(body)
    text = body[QUERY_HEAD.size + status_size + schema_size + 1 :]
    return inflate(text) if event.type == MARIA_QUERY_COMPRESSED else bytes(text)


_STATUS_NUMBERS = {
    0: ("flags2", 4), 1: ("sql_mode", 8), 7: ("lc_time_names", 2), 8: ("charset_database", 2),
    9: ("table_map_for_update", 8), 10: ("source_data_written", 4), 13: ("microseconds", 3),
    16: ("explicit_defaults_for_timestamp", 1), 17: ("ddl_xid", 8), 18: ("default_collation_for_utf8mb4", 2),
    19: ("sql_require_primary_key", 1), 20: ("default_table_encryption", 1), 128: ("hrnow", 3), 129: ("xid", 8),
    21: ("enable_cascade_triggers", 1),
}  # fmt: skip


def _status(cursor: Cursor) -> dict[str, Any]:
    status: dict[str, Any] = {}
    while cursor.left():
        code = cursor.number(1)
        if code in _STATUS_NUMBERS:
            name, size = _STATUS_NUMBERS[code]
            status[name] = cursor.number(size)
        elif code in _STATUS_READERS:
            name, reader = _STATUS_READERS[code]
            status[name] = reader(cursor)
        else:
            status["unknown"] = code
            break
    return status


def _old_catalog(cursor: Cursor) -> str:
    text = cursor.text()
    cursor.take(1)
    return text


def _schemas(cursor: Cursor) -> tuple[str, ...]:
    count = cursor.number(1)
    return tuple(_until_zero(cursor) for _ in range(count)) if count != 254 else ()  # 254: too many to be listed


def _until_zero(cursor: Cursor) -> str:
    end = bytes(cursor.view[cursor.at :]).index(0)
    text = cursor.copy(end).decode()
    cursor.take(1)
    return text


def _alter_phase(cursor: Cursor) -> int:
    """MariaDB's ALTER TABLE in two phases: 2 started, 4 committed, 8 rolled back; these say which start they end."""
    phase = cursor.number(1)
    if phase & (4 | 8):
        cursor.take(8)
    return phase


_STATUS_READERS: dict[int, tuple[str, Callable[[Cursor], Any]]] = {
    2: ("catalog", _old_catalog),
    3: ("auto_increment", lambda cursor: (cursor.number(2), cursor.number(2))),
    4: ("charset", lambda cursor: (cursor.number(2), cursor.number(2), cursor.number(2))),
    5: ("time_zone", Cursor.text),
    6: ("catalog", Cursor.text),
    11: ("invoker", lambda cursor: (cursor.text(), cursor.text())),
    12: ("updated_schemas", _schemas),
    130: ("gtid_flags", _alter_phase),
    131: (
        "character_set_collations",
        lambda cursor: tuple((cursor.number(2), cursor.number(2)) for _ in range(cursor.number(1))),
    ),
}


@parser
def xid(event: Event) -> int:
    return Cursor(event.body).number(8)


class XaPrepare(NamedTuple):
    one_phase: bool
    format_id: int
    gtrid: bytes
    bqual: bytes


@parser
def xa_prepare(event: Event) -> XaPrepare:
    cursor = Cursor(event.body)
    one_phase, form, first, second = cursor.number(1), cursor.number(4), cursor.number(4), cursor.number(4)
    return XaPrepare(bool(one_phase), form, cursor.copy(first), cursor.copy(second))


@parser
def intvar(event: Event) -> tuple[str, int]:
    """("last_insert_id" or "insert_id", value)"""
    cursor = Cursor(event.body)
    kind = cursor.number(1)
    if kind not in (1, 2):
        raise Corrupt(f"An INTVAR event of kind {kind}.")
    return ("last_insert_id" if kind == 1 else "insert_id"), cursor.number(8)


@parser
def rand(event: Event) -> tuple[int, int]:
    cursor = Cursor(event.body)
    return cursor.number(8), cursor.number(8)


class UserVar(NamedTuple):
    """type: 0 string, 1 real, 2 integer, 4 decimal; value: its bytes as logged, None for NULL."""

    name: bytes
    value: bytes | None
    type: int = 0
    collation: int = 0
    unsigned: bool = False


@parser
def user_var(event: Event) -> UserVar:
    cursor = Cursor(event.body)
    name = cursor.copy(cursor.number(4))
    if cursor.number(1):
        return UserVar(name, None)
    kind, collation = cursor.number(1), cursor.number(4)
    value = cursor.copy(cursor.number(4))
    unsigned = bool(cursor.left() and cursor.number(1) & 1)
    return UserVar(name, value, kind, collation, unsigned)


@parser
def rows_query(event: Event) -> bytes:
    """The statement behind the row events that follow: informational, from MySQL or MariaDB (annotation)."""
    body = event.body
    return bytes(body if event.type == MARIA_ANNOTATE_ROWS else body[1:])


class LoadQuery(NamedTuple):
    """LOAD DATA of a statement log: the file's blocks came before; the statement's [start:end] names the file."""

    query: Query
    file_id: int
    start: int
    end: int
    duplicates: int


@parser
def load_query(event: Event) -> LoadQuery:
    body = event.body
    head = QUERY_HEAD.size
    cursor = Cursor(body[head:])
    fields = cursor.number(4), cursor.number(4), cursor.number(4), cursor.number(1)
    plain = with_checksum(QUERY, event, bytes(body[:head]) + bytes(cursor.rest()), 0)
    return LoadQuery(query(plain), *fields)


@parser
def load_block(event: Event) -> tuple[int, bytes]:
    """(file id, bytes) of a BEGIN_LOAD_QUERY or APPEND_BLOCK event."""
    cursor = Cursor(event.body)
    return cursor.number(4), bytes(cursor.rest())
