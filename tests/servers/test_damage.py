"""A server's log that is damaged, torn or incomplete by its own word: never taken as good."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pymysql
import pytest

from backups.engine.errors import Corrupt, Gap
from everest.demo.servers import Server
from tests.servers.capturing import Captured, Source, transactions, used_up

FLAVOURS = pytest.mark.parametrize("flavour", ["mysql", "mariadb"])


@pytest.fixture
def source(new_server: Callable[..., Server], flavour: str) -> Iterator[Source]:
    one = Source(new_server(flavour), by_place=False)
    one.run("CREATE TABLE t (id INT PRIMARY KEY AUTO_INCREMENT, v VARCHAR(2000))")
    yield one
    one.connection.close()


def log_file(source: Source) -> Path:
    return Path(source.server.folder / "data" / source.position()["file"])


def until(source: Source, start: dict[str, object], error: type[Exception]) -> tuple[list[Captured], str]:
    """What was whole before the error, and the error's text."""
    got: list[Captured] = []
    with pytest.raises(error) as caught:
        for chunk in source.chunks(start):
            got.append(used_up(chunk))
    assert type(caught.value) is error
    return got, str(caught.value)


@FLAVOURS
def test_a_flipped_byte_in_the_servers_log_is_named_with_its_place(source: Source) -> None:
    start = source.position()
    source.run("INSERT INTO t (v) VALUES ('whole')")
    place = source.position()
    source.run(f"INSERT INTO t (v) VALUES ('{'x' * 500}')", "INSERT INTO t (v) VALUES ('after')")
    path = log_file(source)
    data = bytearray(path.read_bytes())
    data[data.index(b"x" * 500) + 250] ^= 1
    path.write_bytes(data)
    got, message = until(source, start, Corrupt)
    assert len(transactions(got)) == 1
    assert int(re.findall(r"position (\d+)", message)[0]) >= place["pos"] and place["file"] in message


@FLAVOURS
def test_a_torn_last_event_is_no_transaction(source: Source) -> None:
    """A server may cut its log there (and may still know that the GTID is gone), or leave the torn event in place."""
    start = source.position()
    source.run("INSERT INTO t (v) VALUES ('whole')", "INSERT INTO t (v) VALUES ('torn')")
    path = log_file(source)
    source.server.kill()
    with path.open("r+b") as log:
        log.truncate(path.stat().st_size - 5)
    source.server.run()
    source.connection = source.server.connect(database="c")
    got: list[Captured] = []
    with suppress(Gap, Corrupt):
        for chunk in source.chunks(start):
            got.append(used_up(chunk))
    assert len(transactions(got)) <= 1
    assert b"torn" not in b"".join(one.data for one in got)


@FLAVOURS
def test_an_incident_ends_what_is_recoverable(source: Source) -> None:
    """A statement that is done and does not fit into its cache: the server logs that it lost it."""
    start = source.position()
    source.run("INSERT INTO t (v) VALUES ('whole')", "CREATE TABLE m (v LONGTEXT) ENGINE = MyISAM")
    source.run("SET GLOBAL max_binlog_stmt_cache_size = 4096, GLOBAL binlog_stmt_cache_size = 4096")
    with source.server.connect(database="c") as session, session.cursor() as cursor, pytest.raises(pymysql.MySQLError):
        cursor.execute("INSERT INTO m SELECT REPEAT('x', 50000) FROM t")
    got, message = until(source, start, Gap)
    assert len(transactions(got)) == 2
    assert "incident" in message and start["file"] in message
