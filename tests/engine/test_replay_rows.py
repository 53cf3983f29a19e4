"""Row events gathered and cut: what BINLOG gets is always whole statements with their table maps."""

from __future__ import annotations

import zlib

from backups.engine.mysql.cascades import without_cascades
from backups.engine.mysql.events import DELETE_ROWS, HEADER, TABLE_MAP, WRITE_ROWS, Event, parse
from backups.engine.mysql.rowbuffer import RowBuffer, ends_statement, schema_of


def event(kind: int, table: int, flags: int = 0, rest: bytes = b"") -> Event:
    body = table.to_bytes(6, "little") + flags.to_bytes(2, "little") + rest
    raw = HEADER.pack(1, kind, 1, 23 + len(body), 0, 0) + body
    return parse(memoryview(raw + zlib.crc32(raw).to_bytes(4, "little")), 4)


def table_map(table: int, schema: bytes = b"shop") -> Event:
    return event(TABLE_MAP, table, 1, bytes([len(schema)]) + schema + b"\0")


def rows(table: int, end: bool = True, rest: bytes = b"row") -> Event:
    return event(WRITE_ROWS, table, int(end), rest)


def described(raw: bytes) -> str:
    """"m7" for a table map of table 7, "r7" for a row event, "r7." for one that ends its statement."""
    found, at = [], 0
    while at < len(raw):
        size = int.from_bytes(raw[at + 9 : at + 13], "little")
        item = parse(memoryview(raw)[at : at + size], 4)
        assert zlib.crc32(item.raw[:-4]).to_bytes(4, "little") == item.raw[-4:]
        kind = "m" if item.type == TABLE_MAP else "r"
        found.append(f"{kind}{item.raw[19]}" + ("." if kind == "r" and ends_statement(item) else ""))
        at += size
    return " ".join(found)


def filled(*events: Event) -> RowBuffer:
    buffer = RowBuffer()
    for item in events:
        (buffer.add_map if item.type == TABLE_MAP else buffer.add_rows)(item)
    return buffer


def test_whole_statements_stay_as_they_are() -> None:
    buffer = filled(table_map(1), rows(1), table_map(2), rows(2, end=False), rows(2))
    assert described(buffer.take()) == "m1 r1. m2 r2 r2."
    assert not buffer
    assert buffer.size == 0


def test_a_statement_that_is_cut_ends_and_goes_on_with_its_table_maps() -> None:
    buffer = filled(table_map(1), table_map(2), rows(1, end=False), rows(2, end=False))
    assert described(buffer.take()) == "m1 m2 r1 r2."
    assert buffer.size == buffer.maps_size
    buffer.add_rows(rows(2))
    assert described(buffer.take()) == "m1 m2 r2."
    assert not buffer


def test_table_maps_wait_for_their_rows() -> None:
    buffer = filled(table_map(1), rows(1), table_map(2))
    assert described(buffer.take()) == "m1 r1."
    buffer.add_rows(rows(2))
    assert described(buffer.take()) == "m2 r2."


def test_an_end_that_is_left_out_goes_to_the_event_before_it() -> None:
    buffer = filled(table_map(1), rows(1, end=False))
    buffer.end_statement()
    assert described(buffer.take()) == "m1 r1."


def test_a_statement_of_which_nothing_is_left_takes_its_maps_along() -> None:
    buffer = filled(table_map(1), rows(1), table_map(2))
    buffer.end_statement()
    assert described(buffer.take()) == "m1 r1."
    assert not buffer


def test_the_end_of_no_statement_changes_nothing() -> None:
    buffer = filled(table_map(1), rows(1))
    buffer.end_statement()
    assert described(buffer.take()) == "m1 r1."


def test_the_schema_of_a_table_map() -> None:
    assert schema_of(table_map(1, b"mysql")) == b"mysql"


def test_rows_whose_cascades_are_logged_check_no_foreign_keys() -> None:
    """0x10: logged by a server that logs cascades; 2: check none.  Flags of a table map mean something else."""
    maps, parent, child = table_map(1), event(DELETE_ROWS, 1, 0x11), event(DELETE_ROWS, 2, 0x12)
    native, none = event(DELETE_ROWS, 1, 1), event(TABLE_MAP, 1, 0x11, b"\4shop\0")
    told = b"".join(item.raw for item in (maps, event(DELETE_ROWS, 1, 0x13), child, native, none))
    assert without_cascades(b"".join(item.raw for item in (maps, parent, child, native, none)), 4) == told
    assert without_cascades(told, 4) is told
