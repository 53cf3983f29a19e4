"""Where a replay ends, what it refuses, and what it leaves alone: every transaction is a moment."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from backups.engine.errors import Corrupt, Gap, Refused, Stopped
from backups.engine.mysql import steps
from backups.engine.mysql.gtid import DomainSet
from backups.engine.mysql.replay import replay
from backups.engine.mysql.server import value
from backups.engine.types import Quiet
from everest.demo.servers import Server
from tests.helpers import compare, dump_all, target_config, wait_for
from tests.servers.replaying import CAPTURE_ACCOUNT, ROWS, SCHEMA, USE, Pair, Slices, T, clean_schemas, position, same


def test_every_transaction_is_a_moment(mysql_pair: Pair) -> None:
    moments = []
    mysql_pair.run(SCHEMA, USE, T)
    for statement in [*ROWS, "DROP TABLE t"]:
        mysql_pair.run(USE, statement)
        with mysql_pair.source.connect() as connection:
            moments.append((position(mysql_pair.source), dump_all(connection)))
    mysql_pair.capture(max_bytes=700)
    for moment, expected in moments:
        with mysql_pair.target.connect() as connection:
            clean_schemas(connection)
            mysql_pair.replay(stop=moment)
            assert compare(expected, dump_all(connection)) == []


def test_a_branch_counts_from_its_xa_commit_on(pair: Pair) -> None:
    pair.run(SCHEMA, USE, T)
    branch = "X'00ff'"
    pair.run(
        f"XA START {branch}",
        "INSERT INTO t (v) VALUES ('branch')",
        f"XA END {branch}",
        f"XA PREPARE {branch}",
        database="shop",
    )
    pair.run(USE, "INSERT INTO t (v) VALUES ('other')")
    moment = position(pair.source)
    pair.run(f"XA COMMIT {branch}")
    result = pair.replay(stop=moment)
    assert result.prepared == ("X'00ff',X'',1",)
    with pair.target.connect() as connection:
        assert values(connection) == ["other"]
        clean_schemas(connection)
        assert pair.replay().prepared == ()
        assert sorted(values(connection)) == ["branch", "other"]


def values(connection: Any) -> list[str]:
    with connection.cursor() as cursor:
        cursor.execute("SELECT v FROM shop.t ORDER BY id")
        return [value for (value,) in cursor.fetchall()]


def test_a_large_statement_is_cut_on_event_bounds(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps, "GATHER_BYTES", 20_000)
    pair.run(SCHEMA, USE, T, "CREATE TABLE u LIKE t")
    for _ in range(3):
        pair.run(USE, "INSERT INTO t (v, n) VALUES " + ",".join(f"(REPEAT('{n % 10}', 190), {n})" for n in range(1000)))
    pair.run(
        USE,
        "INSERT INTO u SELECT * FROM t",
        "UPDATE t, u SET t.v = 'both', u.v = 'both' WHERE t.id = u.id",
        "CREATE TABLE w SELECT * FROM u",
        "DELETE FROM t WHERE n % 2",
    )
    same(pair)


def test_an_event_that_is_too_large_is_refused_with_the_setting(mysql_pair: Pair) -> None:
    mysql_pair.run(
        SCHEMA,
        USE,
        "CREATE TABLE b (id INT, v LONGBLOB)",
        "INSERT INTO b VALUES (1, REPEAT('x', 3000000))",
        "DELETE FROM b",
    )
    with mysql_pair.target.connect() as connection, connection.cursor() as cursor:
        cursor.execute("SET GLOBAL max_allowed_packet = 2097152")
        try:
            with pytest.raises(Refused, match=r"holds a row event of 3,0.*Set max_allowed_packet on the target to 4,0"):
                mysql_pair.replay()
        finally:
            cursor.execute("SET GLOBAL max_allowed_packet = 67108864")
        clean_schemas(connection)
    same(mysql_pair)


def test_an_event_of_almost_three_quarters_of_the_packet_goes_through(mysql_pair: Pair) -> None:
    mysql_pair.run(
        SCHEMA, USE, "CREATE TABLE b (id INT, v LONGBLOB)", "INSERT INTO b VALUES (1, REPEAT('x', 3145728 - 2000))"
    )
    with mysql_pair.target.connect() as connection, connection.cursor() as cursor:
        cursor.execute("SET GLOBAL max_allowed_packet = 4194304")
        try:
            same(mysql_pair)
        finally:
            cursor.execute("SET GLOBAL max_allowed_packet = 67108864")


def test_nothing_reaches_the_targets_own_log(mysql_pair: Pair) -> None:
    before = position(mysql_pair.target)
    mysql_pair.run(SCHEMA, USE, T, *ROWS)
    config = target_config(mysql_pair.target)
    log_after_the_account = position(mysql_pair.target)
    mysql_pair.replay(config=config)
    assert before != log_after_the_account == position(mysql_pair.target)


def test_a_failing_transaction_is_named(mysql_pair: Pair) -> None:
    mysql_pair.run(SCHEMA, USE, T)
    mysql_pair.start = position(mysql_pair.source)
    mysql_pair.run(USE, "INSERT INTO t (v) VALUES ('x')")
    with pytest.raises(Refused, match=f"Transaction {'[0-9a-f-]+'}:[0-9]+ failed: .*Unknown database 'shop'"):
        mysql_pair.replay()


def test_a_failing_transaction_is_named_among_those_that_were_sent_with_it(mysql_pair: Pair) -> None:
    hidden = ("SET sql_log_bin = 0", "CREATE TABLE u (a INT)", "SET sql_log_bin = 1", "SET binlog_format = STATEMENT")
    changes = ("INSERT INTO t (v) VALUES ('a')", "INSERT INTO u VALUES (1)", "INSERT INTO t (v) VALUES ('b')")
    mysql_pair.run(SCHEMA, USE, T, *hidden, *changes)
    place = mysql_pair.capture().identities[-2 - CAPTURE_ACCOUNT]
    with pytest.raises(Refused, match=f"Transaction {place} failed: .*shop.u' doesn't exist") as raised:
        mysql_pair.replay()
    assert raised.value.meaning.startswith("The target holds the snapshot, and no transaction after it for certain")


def test_nothing_that_was_sent_goes_on_after_a_failure(mysql_pair: Pair) -> None:
    hidden = ("SET sql_log_bin = 0", "CREATE TABLE u (a INT)", "SET sql_log_bin = 1", "SET binlog_format = STATEMENT")
    with mysql_pair.source.connect() as connection:
        here = value(connection, "SELECT @@server_id")
    sleeps = f"INSERT INTO t (v) VALUES (IF(@@server_id = {here}, 'a', SLEEP(60)))"
    mysql_pair.run(SCHEMA, USE, T, *hidden, "INSERT INTO u VALUES (1)", sleeps)
    with pytest.raises(Refused, match=r"shop\.u' doesn't exist"):
        mysql_pair.replay()
    with mysql_pair.target.connect() as connection:
        sleeping = "SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE INFO LIKE 'INSERT INTO t%'"
        wait_for(lambda: value(connection, sleeping) == 0)


def test_slices_that_do_not_join_are_refused(mysql_pair: Pair) -> None:
    mysql_pair.run(SCHEMA, USE, T, *ROWS)
    mysql_pair.capture(max_bytes=700)
    assert len(mysql_pair.slices.kept) > 3
    del mysql_pair.slices.kept[2]
    with pytest.raises(Corrupt, match="does not begin where the one before it ends"):
        mysql_pair.replay()


def test_slices_that_end_too_early_are_no_success(mysql_pair: Pair) -> None:
    mysql_pair.run(SCHEMA, USE, T, *ROWS)
    mysql_pair.capture(max_bytes=700)
    end = mysql_pair.slices.kept[-1][0].end
    slices = mysql_pair.slices.kept[:-1]
    with pytest.raises(Corrupt, match="end before the moment"):
        replay(
            target_config(mysql_pair.target),
            [(index, [data]) for index, data in slices],
            start=mysql_pair.start,
            stop=end,
            run=Quiet(),
            source={},
        )


@pytest.mark.parametrize("more", [ROWS, []])
def test_slices_whose_numbers_go_back_are_not_taken_for_what_the_target_holds(
    more: list[str], mariadb_pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such were shipped once."""
    mariadb_pair.run(SCHEMA, USE, T, *ROWS)
    low = int(position(mariadb_pair.source)["gtids"].rpartition("-")[2]) - 1
    mariadb_pair.run(USE, "SET server_id = 4242", f"SET gtid_seq_no = {low}", *ROWS[:1])
    mariadb_pair.run(USE, *more)
    with monkeypatch.context() as patch:
        patch.setattr(DomainSet, "add", lambda self, identity: self.last.update(DomainSet.parse(identity).last))
        mariadb_pair.capture()
    with pytest.raises(Gap, match="out of order: 0-4242-"):
        mariadb_pair.replay()


class StopAfter(Quiet):
    def __init__(self, seconds: float) -> None:
        self.at = time.monotonic() + seconds

    def should_stop(self) -> bool:
        return time.monotonic() > self.at


def test_a_stop_ends_a_long_statement(mysql_pair: Pair) -> None:
    mysql_pair.run(SCHEMA, USE, T, *ROWS)
    mysql_pair.replay()
    mysql_pair.start = position(mysql_pair.source)
    mysql_pair.run(USE, "UPDATE t SET n = 99")
    mysql_pair.slices = Slices()
    with mysql_pair.target.connect() as blocker:
        blocker.query("BEGIN")
        blocker.query("SELECT * FROM shop.t FOR UPDATE")
        began = time.monotonic()
        with pytest.raises(Stopped, match="told to stop"):
            mysql_pair.replay(run=StopAfter(1))
        assert time.monotonic() - began < 8


def test_the_sources_system_zone_is_not_guessed(
    new_server: Callable[..., Server], mysql_target: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TZ", "Europe/Berlin")
    pair = Pair(new_server("mysql"), mysql_target)
    pair.run(SCHEMA, USE, T, "INSERT INTO t (at) VALUES ('2020-06-01 12:00:00')")
    moment = position(pair.source)
    pair.run(USE, "ALTER TABLE t MODIFY at TIMESTAMP NULL")
    pair.replay(stop=moment)
    with mysql_target.connect() as connection:
        clean_schemas(connection)
    with pytest.raises(Refused, match="depends on the source's system time zone"):
        pair.replay()


def test_a_slice_that_is_not_what_its_index_says_is_refused(mysql_pair: Pair) -> None:
    mysql_pair.run(SCHEMA, USE, T, *ROWS)
    ((index, data),) = mysql_pair.capture().kept
    first, second, *rest = index.transactions
    swapped = (replace(first, identity=second.identity), replace(second, identity=first.identity), *rest)
    cut = (replace(first, length=first.length + 1), second, *rest)
    for transactions in (swapped, cut):
        mysql_pair.slices.kept = [(replace(index, transactions=transactions), data)]
        with pytest.raises(Corrupt, match=r"where its index says|does not hold what its index says"):
            replay(
                target_config(mysql_pair.target),
                mysql_pair.slices,
                start=mysql_pair.start,
                stop=index.end,
                run=Quiet(),
                source={},
            )
