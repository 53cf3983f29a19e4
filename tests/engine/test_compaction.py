"""Compaction of row events made by hand: what is left of many changes, and what cannot be compacted."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import Any

import pytest

from backups.engine.errors import Corrupt
from backups.engine.mysql.batch import Batch, How, pieces
from backups.engine.mysql.compaction import Changes, Shape, split
from backups.engine.mysql.events import DELETE_ROWS, HEADER, TABLE_MAP, UPDATE_ROWS, WRITE_ROWS, parse
from backups.engine.mysql.plain import plain, proven
from backups.engine.mysql.rows import images, rows_header, table_map

Row = tuple[int, str | None]  # id INT, v VARCHAR(20)
SHAPE = Shape(width=2, key=(0,))
NAME = ("shop", "t")


def event(kind: int, body: bytes) -> bytes:
    raw = HEADER.pack(7, kind, 1, 23 + len(body), 0, 0) + body
    return raw + zlib.crc32(raw).to_bytes(4, "little")


def mapped(table: int = 9, name: bytes = b"t") -> bytes:
    names = b"\x04shop\0" + bytes([len(name)]) + name + b"\0"
    return event(TABLE_MAP, table.to_bytes(6, "little") + b"\1\0" + names + b"\2\x03\x0f\2\x14\0\2")


def image(row: Row) -> bytes:
    number, text = row
    if text is None:
        return b"\2" + struct.pack("<i", number)
    return b"\0" + struct.pack("<i", number) + bytes([len(text)]) + text.encode()


def changed(kind: int, *rows: Row, table: int = 9, flags: int = 1, columns: bytes = b"\xff") -> bytes:
    head = (
        table.to_bytes(6, "little")
        + flags.to_bytes(2, "little")
        + b"\2\0\2"
        + columns * (2 if kind == UPDATE_ROWS else 1)
    )
    return event(kind, head + b"".join(map(image, rows)))


def inserted(*rows: Row, **how: Any) -> bytes:
    return changed(WRITE_ROWS, *rows, **how)


def updated(before: Row, after: Row, **how: Any) -> bytes:
    return changed(UPDATE_ROWS, before, after, **how)


def deleted(*rows: Row, **how: Any) -> bytes:
    return changed(DELETE_ROWS, *rows, **how)


def batch(*transactions: bytes, shape: Shape | How = SHAPE, monkeypatch: pytest.MonkeyPatch) -> Batch:
    monkeypatch.setattr("backups.engine.mysql.batch.SMALL", 0)
    found = Batch(lambda schema, table: shape, set(), 4)
    for raw in transactions:
        found.add(mapped() + raw)
    return found


def left(changes: Changes | None, largest: int = 1 << 20) -> list[Any]:
    """(kind, rows) of each event, which must be a whole statement with its table map."""
    assert changes
    return [described(raw) for raw in changes.events(changes.net(), largest)]


def described(raw: bytes) -> tuple[str, list[Row]]:
    head, rows = proven(raw, 4)
    assert head.type == TABLE_MAP and rows_header(rows).flags == 1
    body = rows_header(rows).body
    found = [
        cut for start, middle, end in images(rows, table_map(head)) for cut in (body[start:middle], body[middle:end])
    ]
    return {WRITE_ROWS: "+", UPDATE_ROWS: "~", DELETE_ROWS: "-"}[rows.type], [row(cut) for cut in found if cut]


def row(cut: bytes) -> Row:
    number = struct.unpack_from("<i", cut, 1)[0]
    return number, None if cut[0] & 2 else cut[6:].decode()


A, B, C, OTHER = (1, "a"), (1, "b"), (1, None), (2, "a")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ([inserted(A), updated(A, B)], [("+", [B])]),
        ([updated(A, B), updated(B, C)], [("~", [A, C])]),
        ([updated(A, B), updated(B, A)], []),
        ([inserted(A), deleted(A)], []),
        ([deleted(A), inserted(B)], [("~", [A, B])]),
        ([updated(A, B), deleted(B)], [("-", [A])]),
        ([updated(A, OTHER)], [("-", [A]), ("+", [OTHER])]),
        ([updated(A, OTHER), inserted(B)], [("~", [A, B]), ("+", [OTHER])]),
        ([updated(A, OTHER), updated(OTHER, B)], [("~", [A, B])]),
        ([inserted((3, "x"), (-1, "y"), (256, "z"))], [("+", [(3, "x"), (256, "z"), (-1, "y")])]),
    ],
)
def test_what_is_left(changes: list[bytes], expected: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    assert left(batch(*changes, monkeypatch=monkeypatch).tables[NAME]) == expected


def test_a_row_whose_unique_columns_change_makes_room_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """a and b swap their values: an update of either would meet the other one."""
    swap = [updated((1, "a"), (1, "x")), updated((2, "b"), (2, "a")), updated((1, "x"), (1, "b"))]
    found = batch(*swap, shape=SHAPE._replace(unique=(1,)), monkeypatch=monkeypatch)
    assert left(found.tables[NAME]) == [("-", [(1, "a"), (2, "b")]), ("+", [(1, "b"), (2, "a")])]


def test_a_key_may_lie_behind_what_varies_in_length(monkeypatch: pytest.MonkeyPatch) -> None:
    """The key is v: rows are the same whatever their number is."""
    found = batch(
        updated((1, "k"), (2, "k")), updated((2, "k"), (3, "k")), shape=Shape(2, (1,)), monkeypatch=monkeypatch
    )
    assert left(found.tables[NAME]) == [("~", [(1, "k"), (3, "k")])]


@pytest.mark.parametrize(
    "changes",
    [
        [inserted(A), inserted(B)],
        [deleted(A), deleted(A)],
        [updated(A, B), deleted(A)],
        [deleted(A), updated(A, B)],
        [inserted(A, columns=b"\xfe")],
        [inserted(A), deleted(A, columns=b"\xfd")],
    ],
    ids=["twice", "gone", "another image", "of none", "without a column", "other columns"],
)
def test_what_does_not_fit_together_is_left_as_it_was_logged(
    changes: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = batch(*changes, monkeypatch=monkeypatch)
    assert found.tables[NAME] is None and found.unfit == {NAME} and not found.compacted
    assert b"".join(found.verbatim(None, 1 << 20)) == b"".join(mapped() + raw for raw in changes)


def test_the_largest_number_that_was_given_out_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    counted = SHAPE._replace(counter=0)
    changes = batch(
        inserted((1, "a"), (8, "b"), (5, "c")), deleted((8, "b")), shape=counted, monkeypatch=monkeypatch
    ).tables[NAME]
    assert changes and changes.lost(changes.net()) == 8
    changes = batch(inserted((8, "b")), updated((8, "b"), (8, "c")), shape=counted, monkeypatch=monkeypatch).tables[
        NAME
    ]
    assert changes and changes.lost(changes.net()) == 0


def test_a_number_that_an_update_changes_is_left_as_it_was_logged(monkeypatch: pytest.MonkeyPatch) -> None:
    assert batch(updated(A, OTHER), shape=SHAPE._replace(counter=0), monkeypatch=monkeypatch).tables[NAME] is None


def test_unique_checks_are_never_relaxed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert left(batch(inserted(A, flags=5), monkeypatch=monkeypatch).tables[NAME]) == [("+", [A])]


def test_an_update_too_large_for_one_event_is_two(monkeypatch: pytest.MonkeyPatch) -> None:
    changes = batch(updated((1, "a" * 20), (1, "b" * 20)), monkeypatch=monkeypatch).tables[NAME]
    assert left(changes, largest=150) == [("-", [(1, "a" * 20)]), ("+", [(1, "b" * 20)])]


def test_damage_inside_rows_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = inserted((1, "abc"))
    short = whole[:9] + (len(whole) - 1).to_bytes(4, "little") + whole[13:-5] + b"\0\0\0\0"
    with pytest.raises(Corrupt, match="ends inside a row"):
        batch(short, monkeypatch=monkeypatch)


def test_tables_in_order_come_out_of_the_log_beside_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backups.engine.mysql.batch.SMALL", 0)
    found = Batch(lambda schema, table: SHAPE if table == "t" else How.IN_ORDER, set(), 4)
    both = mapped() + mapped(4, b"u")
    found.add(both + inserted(A, flags=0) + inserted(B, table=4))
    found.add(both + inserted(OTHER, flags=0) + inserted(C, table=4, flags=0) + deleted(C, table=4))
    assert found.compacted
    assert left(found.tables[NAME]) == [("+", [A, OTHER])]
    pieces = list(found.verbatim([("shop", "u")], 1))
    assert [described(raw) for raw in pieces] == [("+", [B]), ("+", [C]), ("-", [C])]


def test_a_batch_with_a_table_that_cannot_be_rolled_back_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not batch(inserted(A), shape=How.ALONE, monkeypatch=monkeypatch).compacted


def test_few_changes_are_not_worth_a_look() -> None:
    found = Batch(lambda schema, table: pytest.fail("looked"), set(), 4)
    found.add(mapped() + inserted(A))
    assert not found.compacted


def test_the_log_of_a_batch_goes_over_into_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backups.engine.mysql.batch.IN_MEMORY", 100)
    found = Batch(None, set(), 4)
    parts = [mapped() + inserted((n, "x" * n)) for n in range(12)]
    for raw in parts:
        found.add(raw)
    assert list(found.verbatim(None, 0)) == parts == list(found.verbatim(None, 0))
    found.close()


def test_pieces_are_whole() -> None:
    def parts() -> Iterator[bytes]:
        yield from (b"aa", b"bb", b"ccccc", b"d")

    assert list(pieces(parts(), 4)) == [b"aabb", b"ccccc", b"d"]


GTID = event(33, b"\0" + bytes(range(16)) + (7).to_bytes(8, "little") + b"\2" + bytes(24))
BEGIN = event(2, bytes(13) + b"\0BEGIN")
XID = event(16, bytes(8))


def test_a_plain_transaction() -> None:
    comment = event(29, b"\0# what was run")
    found = plain(GTID + BEGIN + comment + mapped() + inserted(A) + comment + mapped() + deleted(A) + XID, 4)
    assert found and found.identity == "00010203-0405-0607-0809-0a0b0c0d0e0f:7"
    assert (found.rows, found.events) == (mapped() + inserted(A) + mapped() + deleted(A), 2)


@pytest.mark.parametrize(
    "raw",
    [
        GTID + BEGIN + mapped() + inserted(A),
        GTID + BEGIN + mapped() + inserted(A, flags=0) + XID,
        GTID + BEGIN + mapped() + inserted(A) + mapped() + XID,
        GTID + BEGIN + XID,
        GTID + mapped() + inserted(A) + XID,
        GTID + BEGIN + mapped() + inserted(A) + event(2, bytes(13) + b"\0SAVEPOINT `a`") + XID,
        GTID + BEGIN + mapped() + inserted(A) + XID + mapped(),
        GTID + BEGIN + mapped() + inserted(A)[:-1] + b"?" + XID,
        GTID + BEGIN + mapped().replace(b"\4shop", b"\5mysql") + inserted(A) + XID,
        (GTID + BEGIN + mapped() + inserted(A) + XID)[:-3],
        BEGIN + mapped() + inserted(A) + XID,
    ],
    ids=["no end", "open statement", "lonely map", "no rows", "no BEGIN", "savepoint", "more", "damaged", "system",
         "torn", "no GTID"],
)  # fmt: skip
def test_whatever_is_unusual_is_not_plain(raw: bytes) -> None:
    assert plain(raw, 4) is None


def test_events_are_split_as_they_are() -> None:
    raw = mapped() + inserted(A)
    assert [item.type for item in split(raw, 4)] == [TABLE_MAP, WRITE_ROWS]
    assert parse(memoryview(mapped()), 4) == next(split(raw, 4))
