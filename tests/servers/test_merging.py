"""Merged slices on real servers: one genuine binlog file, and restores to any moment inside it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import backups.engine.mysql as engine
from backups.engine import merging
from backups.engine.archive import Archive
from backups.engine.errors import Corrupt
from backups.engine.levels import Group
from backups.engine.slices import point, ship
from backups.engine.types import Quiet, SliceIndex
from everest.demo.servers import Server
from tests.servers.backups import archive_in
from tests.servers.capturing import Source, mysqlbinlog

TIMELINE = "00000000-0000-4000-8000-00000000000a"


class Shipped:
    """What a server logs, in slices of one transaction or two, and merged."""

    def __init__(self, server: Server, folder: Path, by_place: bool = False) -> None:
        self.source = Source(server, by_place)
        self.archive: Archive = archive_in(folder)
        self.start = self.source.position()

    def run(self, *statements: str) -> None:
        """Each statement in a slice of its own, if it is logged; read by a connection of its own, as runs do."""
        for statement in statements:
            self.source.run(statement)
            last = self.archive.last_slice(TIMELINE)
            chunks = self.source.chunks(last.end if last else self.start)
            ship(self.archive, TIMELINE, chunks, last, lambda index: None)

    def small(self) -> list[SliceIndex]:
        return list(self.archive.slices(TIMELINE))

    def merge(self, parts: list[SliceIndex], level: int = 1) -> SliceIndex | None:
        group = Group(level, tuple(point(one) for one in parts))
        return merging.merge(self.archive, group, engine, Quiet())

    def read(self, index: SliceIndex, path: Path, *options: str) -> str:
        """As the server's own program reads it."""
        path.write_bytes(b"".join(self.archive.read_data(index.data)))
        return mysqlbinlog(self.source, path, *options)


@pytest.fixture(params=["mysql", "mariadb", "files"])
def shipped(request: Any, tmp_path: Path) -> Shipped:
    """MySQL and MariaDB with GTIDs, and a MySQL without."""
    names = {"mysql": "mysql_source", "mariadb": "mariadb_source", "files": "mysql_files"}
    made = Shipped(request.getfixturevalue(names[request.param]), tmp_path / "store", request.param == "files")
    made.run("CREATE TABLE t (id INT PRIMARY KEY AUTO_INCREMENT, v VARCHAR(2000))")
    return made


def bytes_of(archive: Archive, indexes: list[SliceIndex]) -> list[bytes]:
    found = []
    for index in indexes:
        data = b"".join(archive.read_data(index.data))
        found += [data[one.offset : one.offset + one.length] for one in index.transactions]
    return found


def assert_whole(shipped: Shipped, made: SliceIndex, parts: list[SliceIndex]) -> None:
    """Every byte of every transaction, and all that the small ones' indexes say of it but its offset."""
    assert bytes_of(shipped.archive, [made]) == bytes_of(shipped.archive, parts)
    told = [[(one.identity, one.time_us, one.length, one.changes, one.ddl, one.xa) for one in index.transactions]
            for index in [made, *parts]]  # fmt: skip
    assert told[0] == [one for part in told[1:] for one in part]


def test_a_merged_slice_is_one_genuine_binlog_file(shipped: Shipped, tmp_path: Path) -> None:
    shipped.run(*(f"INSERT INTO t (v) VALUES ('merged {n}')" for n in range(5)), "ALTER TABLE t ADD n INT")
    parts = shipped.small()
    made = shipped.merge(parts)
    assert made and made.holds == len(parts) > 5
    assert_whole(shipped, made, parts)
    text = shipped.read(made, tmp_path / "one.binlog", "--base64-output=decode-rows", "-v")
    assert [n for n in range(5) if f"merged {n}" in text] == list(range(5)) and "ADD n INT" in text
    assert text.count("Start: binlog v 4") == 1


def test_log_files_of_one_kind_become_one_slice_where_gtids_name_transactions(
    shipped: Shipped, tmp_path: Path
) -> None:
    shipped.run("INSERT INTO t (v) VALUES ('before')", "FLUSH BINARY LOGS", "INSERT INTO t (v) VALUES ('after')")
    shipped.run("FLUSH BINARY LOGS", "INSERT INTO t (v) VALUES ('last')")
    parts = shipped.small()
    made = shipped.merge(parts)
    assert made
    assert_whole(shipped, made, parts[: made.holds])
    text = shipped.read(made, tmp_path / "one.binlog", "--base64-output=decode-rows", "-v")
    assert text.count("Start: binlog v 4") == 1 and "'before'" in text
    if shipped.source.by_place:  # one file: the place in it, by which a person finds a transaction, is there once
        assert made.end["file"] == parts[1].end["file"] and "'after'" not in text
    else:
        assert made.holds == len(parts) and "'after'" in text and "'last'" in text


@pytest.mark.parametrize("shipped", ["mysql", "mariadb"], indirect=True)
def test_a_log_with_another_checksum_is_not_joined_to_one_without(shipped: Shipped) -> None:
    shipped.run("INSERT INTO t (v) VALUES ('crc')")
    checked = len(shipped.small())
    shipped.run("SET GLOBAL binlog_checksum = NONE")
    try:
        shipped.run("INSERT INTO t (v) VALUES ('none')", "INSERT INTO t (v) VALUES ('none')")
    finally:
        shipped.run("SET GLOBAL binlog_checksum = CRC32")
    shipped.run("INSERT INTO t (v) VALUES ('crc again')")
    parts = shipped.small()
    made = shipped.merge(parts)
    assert made and made.holds == checked
    following = shipped.merge(parts[checked:])
    assert following
    assert_whole(shipped, following, parts[checked : checked + following.holds])


def test_a_merged_slice_proves_itself_event_by_event(shipped: Shipped) -> None:
    shipped.run(*(f"INSERT INTO t (v) VALUES ('merged {n}')" for n in range(3)))
    made = shipped.merge(shipped.small())
    assert made
    data = b"".join(shipped.archive.read_data(made.data))
    engine.prove(made, [data])
    one, two, *rest = made.transactions
    wrong = [
        replace(made, transactions=(one, *rest)),
        replace(made, transactions=(two, one, *rest)),
        replace(made, transactions=(replace(one, offset=one.offset + 1), two, *rest)),
        replace(made, transactions=(replace(one, length=one.length - 1), two, *rest)),
        replace(made, transactions=(replace(one, length=one.length + 1), two, *rest)),
        replace(made, raw_size=made.raw_size + 1),
    ]
    if not shipped.source.by_place:
        wrong.append(replace(made, transactions=(replace(one, identity=two.identity), two, *rest)))
    for index in wrong:
        with pytest.raises(Corrupt):
            engine.prove(index, [data])
    for place in range(0, len(data), 41):
        spoilt = data[:place] + bytes([data[place] ^ 4]) + data[place + 1 :]
        with pytest.raises(Corrupt):
            engine.prove(made, [spoilt])
