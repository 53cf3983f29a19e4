"""Capture from real servers: by MySQL's GTIDs, by file and position, by MariaDB's GTIDs."""

import itertools
import re
import threading
import time

import pytest

from backups.engine.errors import LeaseLost, Stopped, Transient
from backups.engine.mysql import stream
from backups.engine.mysql.events import MAGIC, read
from backups.engine.types import Quiet
from tests.helpers import wait_for
from tests.servers.capturing import Source, bytes_of, ddl, mysqlbinlog, transactions, used_up


@pytest.fixture(params=["mysql_source", "mysql_files", "mariadb_source"])
def source(request):
    one = Source(request.getfixturevalue(request.param), by_place=request.param == "mysql_files")
    one.run("CREATE TABLE t (id INT PRIMARY KEY AUTO_INCREMENT, v VARCHAR(2000))")
    yield one
    one.connection.close()


@pytest.fixture
def mysql(mysql_source):
    one = Source(mysql_source, by_place=False)
    one.run("CREATE TABLE t (id INT PRIMARY KEY AUTO_INCREMENT, v VARCHAR(2000))")
    yield one
    one.connection.close()


def log_bytes(source, first):
    """Everything the server's log files hold, from the first name on."""
    files = sorted((source.server.folder / "data").glob("binlog.[0-9]*"))
    return b"".join(path.read_bytes() for path in files if path.name >= first)


def test_a_drain_takes_every_transaction_in_order_and_chains(source):
    start = source.position()
    source.run("INSERT INTO t (v) VALUES ('a'), ('b')", "FLUSH BINARY LOGS", "UPDATE t SET v = 'c'")
    source.run("FLUSH BINARY LOGS", "DELETE FROM t", "DROP TABLE t")
    got = source.drain(start)
    assert [one.chunk.start for one in got] == [start, *(one.chunk.end for one in got[:-1])]
    counts = [(c.inserts, c.updates, c.deletes) for t in transactions(got) for c in t.changes if c.table == "t"]
    assert counts == [(2, 0, 0), (0, 2, 0), (0, 0, 2), (0, 0, 0)]
    assert ddl(got)[-1].startswith("DROP TABLE `t`")
    end, now = got[-1].chunk.end, source.position()
    assert [end[key] for key in ("server", "file", "gtids")] == [now[key] for key in ("server", "file", "gtids")]
    assert end["gtids"] or end["pos"] == now["pos"]
    assert source.caught_up == [end]


def test_archived_bytes_are_the_servers_own(source, tmp_path):
    start = source.position()
    source.run("BEGIN", "INSERT INTO t (v) VALUES (REPEAT('x', 2000)), ('y')", "UPDATE t SET v = 'z'", "COMMIT")
    source.run("CREATE TABLE u (a INT) ENGINE=MyISAM", "INSERT INTO u VALUES (1), (2)")
    got = source.drain(start)
    assert len(got) == 1 and got[0].data.startswith(MAGIC)
    assert bytes_of(got) in log_bytes(source, start["file"])
    (tmp_path / "slice").write_bytes(got[0].data)
    shown = mysqlbinlog(source, tmp_path / "slice", "--base64-output=DECODE-ROWS", "-v")
    logged = [len(re.findall(f"^### {verb} ", shown, re.MULTILINE)) for verb in ("INSERT INTO", "UPDATE")]
    changes = [change for t in transactions(got) for change in t.changes]
    assert logged == [sum(c.inserts for c in changes), sum(c.updates for c in changes)] == [4, 2]


def test_resuming_gives_only_what_is_new(source):
    source.run("INSERT INTO t (v) VALUES ('old')")
    start = source.position()
    assert source.drain(start) == [] and source.caught_up == [start]
    source.run("INSERT INTO t (v) VALUES ('first')")
    first = source.drain(start)
    source.run("INSERT INTO t (v) VALUES ('second')")
    second = source.drain(first[-1].chunk.end)
    assert len(transactions(first)) == len(transactions(second)) == 1
    assert second[0].chunk.start == first[0].chunk.end
    assert bytes_of(first + second) in log_bytes(source, start["file"])


def test_a_log_without_checksums_is_resumed_in_the_middle_of_a_file(source):
    """The server sends a format description with position or birth cleared, and a checksum of before."""
    begin_anew = "RESET MASTER" if source.server.flavour == "mariadb" else "RESET BINARY LOGS AND GTIDS"
    try:
        source.run("SET GLOBAL binlog_checksum = NONE", begin_anew, "INSERT INTO t (v) VALUES ('old')")
        start = source.position()
        source.run("INSERT INTO t (v) VALUES ('first')")
        first = source.drain(start)
        source.run("INSERT INTO t (v) VALUES ('second')")
        second = source.drain(first[-1].chunk.end)
    finally:
        source.run("SET GLOBAL binlog_checksum = CRC32")
    for got in (first, second):
        (transaction,) = transactions(got)
        assert transaction.changes[0].inserts == 1
        assert sum(1 for _ in read([got[0].data])) > 2  # every checksum that a slice has is right


def test_chunks_are_cut_by_size_between_transactions(source):
    start = source.position()
    source.run(*["INSERT INTO t (v) VALUES (REPEAT('x', 1500))"] * 6)
    got = source.drain(start, max_bytes=4000)
    assert [len(one.chunk.transactions) for one in got] == [3, 3] or len(got) > 2
    assert len(transactions(got)) == 6
    assert all(one.chunk.start == before.chunk.end for before, one in itertools.pairwise(got))


def test_a_chunk_never_spans_two_log_files(source, tmp_path):
    start = source.position()
    source.run("SET GLOBAL binlog_checksum = NONE", "INSERT INTO t (v) VALUES ('bare')")
    source.run("SET GLOBAL binlog_checksum = CRC32", "INSERT INTO t (v) VALUES ('proven')")
    got = source.drain(start)
    assert [len(one.chunk.transactions) for one in got] == [1, 1]
    for number, one in enumerate(got):
        (tmp_path / str(number)).write_bytes(one.data)
        mysqlbinlog(source, tmp_path / str(number))


def test_tailing_ships_by_age_and_tells_when_it_has_caught_up(source):
    start = source.position()
    begun = time.monotonic()
    ages = []

    def write():
        wait_for(lambda: source.caught_up, 10)
        source.run("INSERT INTO t (v) VALUES ('live')")

    writer = threading.Thread(target=write)
    writer.start()
    got = []
    for chunk in source.chunks(start, drain=False, deadline=begun + 3.2, interval=0.3):
        ages.append(time.monotonic() - begun)
        got.append(used_up(chunk))
    writer.join()
    assert len(transactions(got)) == 1 and len(got) == 1
    assert source.caught_up[0] == start and source.caught_up[-1] == got[0].chunk.end
    assert ages[0] < 2.9 and 3.2 <= time.monotonic() - begun < 4.5


def test_nothing_counts_as_caught_up_while_it_is_not_shipped(source):
    start = source.position()
    source.run("INSERT INTO t (v) VALUES ('waits')")
    got = source.tail(start, 2.2, interval=60)
    assert len(transactions(got)) == 1  # cut at the end of the run
    assert source.caught_up == []


class Stopping(Quiet):
    def __init__(self):
        self.stop = False

    def should_stop(self):
        return self.stop


def test_a_stop_is_heard_within_a_second_and_ships_what_is_whole(source):
    start = source.position()
    source.run("INSERT INTO t (v) VALUES ('whole')")
    run, got, stopped = Stopping(), [], []

    def tail():
        try:
            for chunk in source.chunks(start, drain=False, run=run):
                got.append(used_up(chunk))
        except Stopped:
            stopped.append(time.monotonic())

    tailing = threading.Thread(target=tail)
    tailing.start()
    time.sleep(0.5)  # let it read; what follows proves the rest
    run.stop, asked = True, time.monotonic()
    tailing.join()
    assert stopped and stopped[0] - asked < 1
    assert len(transactions(got)) == 1


def test_the_same_replica_elsewhere_takes_over(source):
    start = source.position()
    older = source.chunks(start, drain=False, deadline=time.monotonic() + 20)
    errors = []

    def tail():
        try:
            list(older)
        except Exception as error:
            errors.append(error)

    tailing = threading.Thread(target=tail)
    tailing.start()
    wait_for(lambda: source.caught_up, 10)
    source.tail(start, 0.5)
    tailing.join(10)
    assert len(errors) == 1 and isinstance(errors[0], LeaseLost), errors


def test_a_broken_connection_keeps_what_is_whole_and_may_be_tried_again(source):
    start = source.position()
    source.run("INSERT INTO t (v) VALUES ('whole')")
    got, errors = [], []

    def tail():
        try:
            for chunk in source.chunks(start, drain=False, deadline=time.monotonic() + 20):
                got.append(used_up(chunk))
        except Exception as error:
            errors.append(error)

    def dumping():
        with source.connection.cursor() as cursor:
            cursor.execute("SELECT id FROM information_schema.processlist WHERE command LIKE 'Binlog Dump%'")
            return [row[0] for row in cursor.fetchall()]

    tailing = threading.Thread(target=tail)
    tailing.start()
    thread = wait_for(dumping, 10)[0]
    time.sleep(0.7)  # let it read
    source.run(f"KILL {thread}")
    tailing.join(10)
    assert len(transactions(got)) == 1
    assert len(errors) == 1 and isinstance(errors[0], Transient), errors


def test_a_large_transaction_streams_in_a_chunk_of_its_own(source, monkeypatch, tmp_path):
    monkeypatch.setattr(stream, "LARGE", 1 << 20)
    start = source.position()
    limit = "cte_max_recursion_depth" if source.server.flavour == "mysql" else "max_recursive_iterations"
    source.run(f"SET SESSION {limit} = 5000")
    many = "WITH RECURSIVE n AS (SELECT 1 AS i UNION ALL SELECT i + 1 FROM n WHERE i < 2500) SELECT i"
    source.run("INSERT INTO t (v) VALUES ('before')")
    source.run(f"INSERT INTO t (id, v) {many} + 100, REPEAT('x', 2000) FROM n")
    source.run("INSERT INTO t (v) VALUES ('after')")
    got, pieces = [], []
    for chunk in source.chunks(start):
        parts = list(chunk.payload)
        pieces.append(max(map(len, parts)))
        chunk.payload = parts
        got.append(used_up(chunk))
    assert [[t.changes[0].inserts for t in one.chunk.transactions] for one in got] == [[1], [2500], [1]]
    assert max(pieces) < 2.5 * stream.PIECE
    assert all(one.chunk.start == before.chunk.end for before, one in itertools.pairwise(got))
    assert bytes_of(got) in log_bytes(source, start["file"])
    (tmp_path / "large").write_bytes(got[1].data)
    mysqlbinlog(source, tmp_path / "large")


def test_without_gtids_an_empty_new_log_file_moves_the_position(mysql_files):
    source = Source(mysql_files, by_place=True)
    start = source.position()
    source.run("FLUSH BINARY LOGS", "FLUSH BINARY LOGS")
    got = source.drain(start)
    assert len(got) == 1 and got[0].chunk.transactions == []
    assert got[0].chunk.end["file"] == source.position()["file"] != start["file"]
    assert source.drain(got[0].chunk.end) == []


def test_with_gtids_an_empty_new_log_file_is_nothing(mysql):
    start = mysql.position()
    mysql.run("FLUSH BINARY LOGS")
    assert mysql.drain(start) == []


def test_compressed_and_tagged_transactions_are_archived_as_they_are(mysql, tmp_path):
    start = mysql.position()
    mysql.run("SET binlog_transaction_compression = ON", "INSERT INTO t (v) VALUES (REPEAT('x', 2000)), ('y')")
    mysql.run("SET binlog_transaction_compression = OFF, gtid_next = 'AUTOMATIC:some_tag'", "DELETE FROM t")
    mysql.run("SET gtid_next = 'AUTOMATIC'")
    got = mysql.drain(start)
    first, second = transactions(got)
    assert first.changes[0].inserts == 2 and second.changes[0].deletes == 2
    assert first.length < 1000 and ":some_tag:" in second.identity
    assert ":some_tag:1" in got[-1].chunk.end["gtids"]
    assert bytes_of(got) in log_bytes(mysql, start["file"])
    (tmp_path / "slice").write_bytes(got[0].data)
    assert "Transaction_Payload" in mysqlbinlog(mysql, tmp_path / "slice")
    assert mysql.drain(got[-1].chunk.end) == []  # the request's set has tags


def test_mysql_times_lie_between_the_clocks_around_them(mysql):
    start = mysql.position()
    before = time.time_ns() // 1000
    mysql.run("SET timestamp = 86400", "INSERT INTO t (v) VALUES ('long ago')", "SET timestamp = DEFAULT")
    mysql.run("SET original_commit_timestamp = 1000", "DELETE FROM t", "SET original_commit_timestamp = DEFAULT")
    after = time.time_ns() // 1000
    times = [t.time_us for t in transactions(mysql.drain(start))]
    assert before <= times[0] < times[1] <= after
