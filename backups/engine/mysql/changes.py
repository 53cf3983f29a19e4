"""The rows that one transaction changed, before and after, from the slice that holds it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Literal

from backups.engine.errors import Corrupt
from backups.engine.mysql import events as ev
from backups.engine.mysql import rows, sqlfile, values
from backups.engine.mysql.events import Event
from backups.engine.mysql.rows import JSON, RowsHeader, TableMap
from backups.engine.mysql.values import ABSENT, NULL, Declared, Described, Value
from backups.engine.mysql.wrapped import payload_events, uncompressed

Known = Callable[[str, str], Sequence[Declared]]  # schema, table -> its columns, () where not known
_KINDS: tuple[Literal["insert", "update", "delete"], ...] = ("insert", "update", "delete")
_CREATE = b"CREATE TABLE `"


@dataclass(frozen=True, slots=True)
class RowChange:
    """One row.  before: None for an insert; after: None for a delete."""

    schema: str
    table: str
    kind: Literal["insert", "update", "delete"]
    columns: tuple[str, ...]
    before: tuple[Value, ...] | None
    after: tuple[Value, ...] | None


def changed_rows(
    chunks: Iterable[bytes], offset: int, length: int, known: Known, first: int = 0, count: int = 100
) -> list[RowChange]:
    """At most `count` rows of the transaction at offset and length of a slice, after leaving out `first` of them.

    chunks: the decompressed slice from its beginning.  Memory: one event and what is returned.
    """
    return list(islice(_rows(_of_transaction(chunks, offset, length), known, first), count))


def declarations(statements: Iterable[bytes]) -> dict[str, tuple[Declared, ...]]:
    """Columns of each table in the statements that make a backup's schema."""
    found = {}
    for statement in statements:
        if statement.startswith(_CREATE):
            name = statement[len(_CREATE) :].partition(b"` (")[0].decode(errors="replace").replace("``", "`")
            found[name] = values.declared(statement)
    return found


def declared_in(file: Iterable[bytes]) -> dict[str, tuple[Declared, ...]]:
    """As `declarations`, of a decompressed schema file of a backup."""
    return declarations(sqlfile.parse(file))


def _of_transaction(chunks: Iterable[bytes], offset: int, length: int) -> Iterator[Event]:
    """The slice's format description, then the transaction's events, unwrapped."""
    at = len(ev.MAGIC)
    for event in ev.read(chunks):
        if at >= offset + length:
            return
        if event.type == ev.FORMAT_DESCRIPTION:
            yield event
        elif at >= offset:
            yield from payload_events(event) if event.type == ev.TRANSACTION_PAYLOAD else (uncompressed(event),)
        at += event.size


def _rows(events: Iterable[Event], known: Known, skip: int) -> Iterator[RowChange]:
    tables: dict[int, TableMap] = {}
    mariadb = False
    for event in events:
        if event.type == ev.FORMAT_DESCRIPTION:
            mariadb = ev.format_description(event).mariadb
        elif event.type == ev.TABLE_MAP:
            table = rows.table_map(event)
            tables[table.table_id] = table
        elif event.type in ev.ROWS:
            head = rows.rows_header(event)
            if not head.width:
                continue  # a dummy that only ends a statement
            if head.table_id not in tables:
                raise Corrupt("A row event comes without the table map that it needs.")
            table = tables[head.table_id]
            columns = values.describe(table, known(table.schema, table.table), mariadb)
            for place in rows.images(event, table, head):
                if skip:
                    skip -= 1
                else:
                    yield _change(event, table, head, columns, place)


def _change(
    event: Event, table: TableMap, head: RowsHeader, columns: Sequence[Described], place: tuple[int, int, int]
) -> RowChange:
    start, middle, _ = place
    kind = _KINDS[rows.kind(event)]
    first = _image(head.body, start, head.columns, columns)
    second = None
    if kind == "update":
        partial: frozenset[int] = frozenset()
        if event.type == ev.PARTIAL_UPDATE_ROWS:
            partial, middle = _differences(head.body, middle, table)
        second = _image(head.body, middle, head.after, columns, partial)
    before, after = (None, first) if kind == "insert" else (first, second)
    return RowChange(table.schema, table.table, kind, tuple(one.name for one in columns), before, after)


def _differences(body: bytes, at: int, table: TableMap) -> tuple[frozenset[int], int]:
    """Which columns of an after image hold only what differs in their JSON, and where that image begins."""
    end = rows.value_options(body, at, table.json_columns)
    bits = body[end - (table.json_columns + 7) // 8 : end] if body[at] & 1 else b""
    documents = [number for number, kind in enumerate(table.types) if kind == JSON]
    return frozenset(number for n, number in enumerate(documents) if bits and bits[n >> 3] >> (n & 7) & 1), end


def _image(
    body: bytes, at: int, logged: bytes, columns: Sequence[Described], partial: frozenset[int] = frozenset()
) -> tuple[Value, ...]:
    """The values of one image, which has been walked over before."""
    present = [number for number in range(len(columns)) if logged[number >> 3] >> (number & 7) & 1]
    end = at + (len(present) + 7) // 8
    nulls, at = body[at:end], end
    found = [ABSENT] * len(columns)
    for n, number in enumerate(present):
        if nulls[n >> 3] >> (n & 7) & 1:
            found[number] = NULL
            continue
        end = _end(body, at, columns[number])
        raw = body[at:end]
        found[number] = values.unread(raw) if number in partial else values.read(columns[number], raw)
        at = end
    return tuple(found)


def _end(body: bytes, at: int, column: Described) -> int:
    kind = 254 if column.type in (247, 248) else column.type
    fixed, prefix = rows.width(kind, column.metadata)
    return at + fixed + prefix + int.from_bytes(body[at : at + prefix], "little")
