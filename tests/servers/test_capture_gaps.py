"""Logs that do not join on to what was shipped: named, never papered over."""

import time

import pytest

from backups.engine import mysql
from backups.engine.errors import Forked, Gap
from everest.demo import servers
from tests.conftest import installation
from tests.helpers import clean, wait_for
from tests.servers.capturing import Source, transactions, used_up

KINDS = {"gtid": ("mysql", True), "files": ("mysql", False), "mariadb": ("mariadb", True)}


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """Servers of this module, whose logs are thrown away as no other test could bear."""
    running = {}

    def get(name):
        if name not in running:
            flavour, gtid = KINDS[name.removeprefix("second ")]
            running[name] = servers.start(installation(flavour), tmp_path_factory.mktemp("own"), gtid=gtid)
        clean(running[name])
        source = Source(running[name], by_place=name == "files")
        reset(source)
        source.run("CREATE DATABASE IF NOT EXISTS c", "CREATE TABLE t (v INT)", "INSERT INTO t VALUES (0)")
        return source

    yield get
    for one in running.values():
        one.kill()


@pytest.fixture(params=KINDS)
def source(request, own):
    return own(request.param)


def reset(source):
    mariadb = source.server.flavour == "mariadb"
    source.run("RESET MASTER" if mariadb else "RESET BINARY LOGS AND GTIDS")


def purge(source):
    """Leave the newest log file only; MariaDB keeps one for a moment until its engines have synced."""
    source.run("FLUSH BINARY LOGS")
    newest = source.position()["file"]

    def gone():
        source.run(f"PURGE BINARY LOGS TO '{newest}'")
        with source.connection.cursor() as cursor:
            cursor.execute("SHOW BINARY LOGS")
            return cursor.fetchall()[0][0] == newest

    wait_for(gone, 10)


def shipped(source):
    """The end of a slice."""
    start = source.position()
    source.run("INSERT INTO t VALUES (1)", "INSERT INTO t VALUES (2)")
    return source.drain(start)[-1].chunk.end


def refused(source, start, kind):
    with pytest.raises(kind) as caught:
        source.drain(start)
    assert type(caught.value) is kind
    assert "backup" in caught.value.next_step
    return str(caught.value)


def test_purged_before_it_was_shipped(source):
    start = source.position()
    source.run("INSERT INTO t VALUES (1)", "INSERT INTO t VALUES (2)")
    missing = source.position()
    purge(source)
    message = refused(source, start, Gap)
    if source.by_place:
        assert f"{start['file']}:{start['pos']}" in message
    else:
        assert missing["gtids"].rpartition("-")[2] in message and "is missing" in message


def test_purged_after_it_was_shipped(source):
    source.run("INSERT INTO t VALUES (1)")
    purge(source)
    start = source.position()
    source.run("INSERT INTO t VALUES (2)")
    assert len(transactions(source.drain(start))) == 1


def test_a_first_start_from_nothing_where_the_log_no_longer_begins_at_the_beginning(source):
    start = source.position() | {"file": "binlog.000001", "pos": 4}
    start |= {} if source.by_place else {"gtids": ""}
    purge(source)
    refused(source, start, Gap)


def test_a_reset_log_is_not_the_shipped_one(source):
    source.run(*[f"INSERT INTO t VALUES ({n})" for n in range(20)])
    start = source.position()
    reset(source)
    source.run("INSERT INTO t VALUES (1)")
    refused(source, start, Gap if source.by_place else Forked)


def test_a_reset_log_that_has_grown_past_the_shipped_one_is_told_by_its_first_event(source):
    source.run("FLUSH BINARY LOGS")
    start = source.position() | {"file_id": "1-1-somewhere else"}
    source.run("INSERT INTO t VALUES (1)")
    refused(source, start, Gap if source.by_place else Forked)


def test_a_reset_log_whose_numbers_have_grown_past_the_shipped_ones_is_another_history(source):
    start = shipped(source)
    time.sleep(1.1)  # a file's birth is known to the second
    reset(source)
    source.run(*[f"INSERT INTO t VALUES ({n})" for n in range(30)])
    refused(source, start, Gap if source.by_place else Forked)


def test_a_reset_log_that_has_not_come_to_the_shipped_files_number_is_another_history(source):
    source.run("FLUSH BINARY LOGS", "FLUSH BINARY LOGS")
    start = shipped(source)
    reset(source)
    source.run(*[f"INSERT INTO t VALUES ({n})" for n in range(30)])
    refused(source, start, Gap if source.by_place else Forked)


def test_a_crash_that_lost_shipped_transactions_is_told_though_their_numbers_are_used_again(source):
    path = source.server.folder / "data" / source.position()["file"]
    kept = source.position()["pos"]
    start = shipped(source)
    source.server.kill()
    with path.open("r+b") as log:
        log.truncate(kept)  # what a crash with sync_binlog off leaves
    source.server.run()
    source.connection = source.server.connect(database="c")
    source.run(*[f"INSERT INTO t VALUES ({n})" for n in range(10)])
    refused(source, start, Gap if source.by_place else Forked)


def test_log_files_past_999999_stay_in_order(source):
    mariadb = source.server.flavour == "mariadb"
    source.run("RESET MASTER TO 999999" if mariadb else "RESET BINARY LOGS AND GTIDS TO 999999")
    start = source.position()
    source.run("INSERT INTO t VALUES (1)", "FLUSH BINARY LOGS", "INSERT INTO t VALUES (2)")
    got = source.drain(start)
    assert [one.chunk.start["file"].rpartition(".")[2] for one in got] == ["999999", "1000000"]
    assert mysql.at_or_before(start, got[0].chunk.end)
    assert mysql.at_or_before(got[0].chunk.end, got[1].chunk.end)
    assert not mysql.at_or_before(got[1].chunk.end, got[0].chunk.end)
    source.run("INSERT INTO t VALUES (3)")
    assert len(transactions(source.drain(got[1].chunk.end))) == 1


def test_lost_transactions_are_a_fork(source):
    start = source.position()
    if source.by_place:
        start["pos"] += 1000
        assert "not the file" in refused(source, start, Gap)
    elif source.server.flavour == "mariadb":
        start["gtids"] = f"0-{source.server.port}-99"
        assert f"0-{source.server.port}-99" in refused(source, start, Forked)
    else:
        start["gtids"] = f"{start['server']}:1-99"
        assert "lost" in refused(source, start, Forked)


def test_another_server_is_refused(source, request):
    name = {"mysql": "mysql_files" if source.by_place else "mysql_source", "mariadb": "mariadb_source"}
    other = Source(request.getfixturevalue(name[source.server.flavour]), by_place=source.by_place)
    other.run("CREATE TABLE x (a INT)", *["INSERT INTO x VALUES (1)"] * 9)
    assert "another" in refused(other, source.position(), Forked)


@pytest.fixture
def replica(own):
    """A source and a real replica of it, and a function that waits until the replica has everything."""
    first, second = own("gtid"), own("second gtid")
    first.run("CREATE USER r@'%' IDENTIFIED BY 'r'", "GRANT REPLICATION SLAVE ON *.* TO r@'%'", "DROP TABLE t")
    second.run("DROP DATABASE c")
    reset(second)
    for_source = f"SOURCE_HOST = '127.0.0.1', SOURCE_PORT = {first.server.port}, SOURCE_AUTO_POSITION = 1"
    second.run(f"CHANGE REPLICATION SOURCE TO {for_source}, SOURCE_USER = 'r', SOURCE_PASSWORD = 'r', SOURCE_SSL = 1")
    second.run("START REPLICA")
    yield first, second, lambda: wait_for(lambda: second.position()["gtids"] == first.position()["gtids"], 20)
    second.run("STOP REPLICA", "RESET REPLICA ALL")


def test_a_failover_to_a_replica_goes_on_with_the_sources_times(replica):
    first, second, in_step = replica
    start = first.position()
    first.run("CREATE TABLE t (v INT)", "INSERT INTO t VALUES (1)", "INSERT INTO t VALUES (2)")
    in_step()
    shipped, there = first.drain(start), second.drain(start)
    assert transactions(shipped) and [(t.identity, t.time_us) for t in transactions(there)] == [
        (t.identity, t.time_us) for t in transactions(shipped)
    ]
    second.run("INSERT INTO c.t VALUES (3), (4)")
    got = second.drain(shipped[-1].chunk.end)
    assert [t.changes[0].inserts for t in transactions(got)] == [2]
    assert got[0].chunk.start == shipped[-1].chunk.end
    assert got[-1].chunk.end["server"] != start["server"]
    assert shipped[-1].chunk.end["gtids"] in got[-1].chunk.end["gtids"]


def test_gtids_that_were_switched_off_are_a_gap(own):
    source = own("gtid")
    start = source.position()
    source.run("SET GLOBAL gtid_mode = ON_PERMISSIVE")
    try:
        assert "gtid_mode" in refused(source, start, Gap)
    finally:
        source.run("SET GLOBAL gtid_mode = ON")


def test_a_domain_that_nobody_told_of_is_a_gap(own):
    source = own("mariadb")
    start = source.position()
    source.run("SET gtid_domain_id = 7", "INSERT INTO t VALUES (1)", "SET gtid_domain_id = 0")
    assert len(transactions(source.drain(start))) == 1
    purge(source)
    assert "7-" in refused(source, start, Gap)


def another_writes(source, back):
    """As a second server that writes in the same domain at the same time: its numbers go back by so much."""
    number = int(source.position()["gtids"].rpartition("-")[2]) - back
    source.run("SET server_id = 4242", f"SET gtid_seq_no = {number}", "INSERT INTO t VALUES (9)")


@pytest.mark.parametrize("back", [0, 2])
def test_numbers_that_go_back_end_what_can_be_recovered(back, own):
    source, kept = own("mariadb"), []
    start = source.position()
    source.run("INSERT INTO t VALUES (1)", "INSERT INTO t VALUES (2)")
    there = source.position()
    another_writes(source, back)
    source.run("INSERT INTO t VALUES (3)")
    with pytest.raises(Gap, match="out of order: 0-4242-"):
        kept.extend(used_up(chunk) for chunk in source.chunks(start))
    end = kept[-1].chunk.end
    assert len(transactions(kept)) == 2
    assert (end["pos"], end["gtids"]) == (there["pos"], there["gtids"])
    refused(source, end, Gap)


def test_numbers_that_went_back_before_a_look_are_no_other_history(own):
    source = own("mariadb")
    start = source.position()
    another_writes(source, 1)
    assert "out of order" in refused(source, start, Gap)


def test_a_server_that_never_wrote_what_was_shipped_is_one(own):
    source = own("mariadb")
    start = source.position()
    number = int(start["gtids"].rpartition("-")[2]) + 5
    refused(source, start | {"gtids": f"0-{source.server.port}-{number}"}, Forked)
