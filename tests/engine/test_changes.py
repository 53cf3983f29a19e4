"""Rows before and after, read from bytes that real servers logged (tests/golden/make.py says what is in them)."""

from __future__ import annotations

from pathlib import Path

import pytest

from backups.engine.mysql import changes, values
from backups.engine.mysql.events import GTID, MAGIC, TAGGED_GTID, read
from backups.engine.mysql.gtid_events import gtid
from backups.engine.mysql.values import Declared, Described

GOLDEN = Path(__file__).parent.parent / "golden"
NAMES = [
    "id", "ti", "si", "mi", "bi", "f", "d", "de", "de2", "b1", "b12", "y", "da", "t", "t3", "dt", "dt6", "ts", "ts5",
    "c", "cu", "vb", "v", "vl", "bin", "e", "s", "tt", "tx", "mb", "lb", "j", "g",
]  # fmt: skip
WRITTEN = {
    "id": "1", "ti": "1", "si": "2", "mi": "3", "bi": "4", "f": "1.5", "d": "2.5", "de": "12345.6780000", "de2": "99",
    "b1": "1", "b12": "101010101010", "y": "2024", "da": "2024-01-02", "t": "-10:11:12", "t3": "10:11:12.123",
    "dt": "2024-01-02 03:04:05", "dt6": "2024-01-02 03:04:05.123456", "ts": "2024-01-02 03:04:05 UTC",
    "ts5": "2024-01-02 03:04:05.12345 UTC", "c": "ab", "cu": "äöü", "v": "vvv", "vl": "x" * 290, "e": "a", "s": "x,z",
    "tt": "tt", "tx": "t" * 300,
}  # fmt: skip
LABELS = {"e": ("a", "b"), "s": ("x", "y", "z")}


def all_rows(name, known=lambda schema, table: (), **paging):
    data = (GOLDEN / f"{name}.binlog").read_bytes()
    return changes.changed_rows([data], len(MAGIC), len(data), known, **({"count": 10_000} | paging))


def declared(width):
    def known(schema, table):
        more = [f"more{n}" for n in range(width - len(NAMES))]
        return [Declared(name, labels=LABELS.get(name, ())) for name in NAMES + more] if table == "t" else ()

    return known


@pytest.mark.parametrize(("name", "width"), [("mysql-9.7", 37), ("mariadb-10.11", 38)])
def test_every_type_is_shown_as_it_was_written(name, width):
    row = all_rows(name, declared(width))[0]
    assert (row.schema, row.table, row.kind, row.before) == ("g", "t", "insert", None)
    shown = dict(zip(row.columns, row.after, strict=True))
    assert {name: shown[name].text for name in WRITTEN} == WRITTEN
    assert '"cccccccccccccccccccccccc"' in shown["j"].text


def test_a_vector_is_its_numbers_and_binary_columns_are_bytes():
    row = all_rows("mysql-9.7", declared(37))[0]
    shown = dict(zip(row.columns, row.after, strict=True))
    assert shown["more0"].text == "[1, 2, 3, 4]"
    assert shown["vb"] == ("0x7662", "bytes") and shown["mb"] == ("0x6d62", "bytes")


def test_without_names_columns_are_numbered_and_labels_too():
    row = all_rows("mysql-9.7")[0]
    assert row.columns[:2] == ("column 1", "column 2")
    assert row.after[25].text == "label 1" and row.after[26].text == "labels, as bits: 5"


def test_an_update_stands_beside_what_was_there():
    update = next(row for row in all_rows("mysql-9.7", declared(37)) if row.kind == "update")
    differing = [
        (name, before.text, after.text)
        for name, before, after in zip(update.columns, update.before, update.after, strict=True)
        if before != after
    ]
    assert differing[:2] == [("ti", "1", "2"), ("v", "vvv", "k")]


def test_what_a_minimal_image_leaves_out_is_said():
    minimal = [row for row in all_rows("mysql-9.7") if row.kind == "update" and row.before[1].kind == "absent"]
    assert len(minimal) == 3 and minimal[0].after[1].text == "3"


def test_json_differences_are_bytes_and_take_nothing_else_with_them():
    partial = [
        row for row in all_rows("mysql-9.7") if row.table == "t" and row.after and row.after[31].kind == "unread"
    ]
    assert len(partial) == 3 and partial[0].after[0].text == "1"


def test_compressed_transactions_are_unpacked():
    rows = all_rows("mysql-9.7")
    assert [row.kind for row in rows if row.table == "t" and row.after and row.after[2].text == "9"] == ["update"] * 3


def test_a_hundred_at_a_time():
    rows = all_rows("mysql-9.7")
    assert all_rows("mysql-9.7", first=3, count=5) == rows[3:8]
    assert all_rows("mysql-9.7", first=len(rows)) == []


def test_only_the_transaction_asked_for_is_read():
    data = (GOLDEN / "mysql-9.7.binlog").read_bytes()
    at, found = len(MAGIC), []
    for event in read([data]):
        if event.type in (GTID, TAGGED_GTID):
            found += changes.changed_rows([data], at, gtid(event).length, lambda schema, table: ())
        at += event.size
    assert found == all_rows("mysql-9.7")


def test_a_declaration_of_another_width_names_nothing():
    assert all_rows("mysql-9.7", declared(36))[0].columns[0] == "column 1"


def column(kind, metadata=0, **more):
    return Described("x", kind, metadata, **({"unsigned": False, "charset": None, "labels": ()} | more))


@pytest.mark.parametrize(
    ("described", "raw", "text"),
    [
        (column(18), b"\x80\0\0\0\0", "0000-00-00 00:00:00"),
        (column(17), b"\0\0\0\0", "0000-00-00 00:00:00"),
        (column(10), b"\0\0\0", "0000-00-00"),
        (column(13), b"\0", "0000"),
        (column(19, 3), (0x800000_0000 - (0x00A2CC_0000 + 1230)).to_bytes(5, "big"), "-10:11:12.123"),
        (column(4), b"\xcd\xcc\xcc\x3d", "0.1"),
        (column(3, unsigned=True), b"\xff\xff\xff\xff", "4294967295"),
        (column(3), b"\xff\xff\xff\xff", "-1"),
        (column(247, labels=("a", "b")), b"\0", ""),
    ],
)
def test_what_the_library_leaves_out(described, raw, text):
    assert values.read(described, raw).text == text


@pytest.mark.parametrize(
    ("described", "raw"),
    [
        (column(15, 20), b"\2\xff\xfe"),
        (column(15, 20), b"\2a\0"),
        (column(245, 4), b"\3\0\0\0\x00\1\0"),
        (column(99), b"\1"),
    ],
)
def test_a_value_that_cannot_be_read_is_shown_as_bytes(described, raw):
    assert values.read(described, raw) == ("0x" + raw.hex(), "unread")


def test_a_long_value_is_cut_and_says_how_long_it_is():
    value = values.read(column(252, 3), (5000).to_bytes(3, "little") + b"x" * 5000)
    assert len(value.text) < 2100 and value.text.endswith("(5,000 characters)")


def test_columns_as_a_backup_declares_them():
    statement = (
        b"CREATE TABLE `a``b` (\n  `id` int unsigned NOT NULL,\n  `we``ird` enum('a','it''s, b') DEFAULT NULL,\n"
        b"  `raw` varbinary(20) DEFAULT NULL,\n  PRIMARY KEY (`id`)\n) ENGINE=InnoDB"
    )
    found = changes.declarations([b"SET x", statement])
    assert found == {
        "a`b": (
            Declared("id", unsigned=True),
            Declared("we`ird", labels=("a", "it's, b")),
            Declared("raw", binary=True),
        )
    }
