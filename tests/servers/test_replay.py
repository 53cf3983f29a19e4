"""Replay of slices on MySQL: every kind of statement and session, compared object by object and row by row."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pymysql
import pytest

from backups.engine.errors import Corrupt, Refused, Stopped
from backups.engine.mysql import steps
from backups.engine.mysql.replay import ReplayResult, replay
from backups.engine.types import Quiet
from everest.demo.servers import Server
from tests.helpers import compare, dump_all, target_config
from tests.servers.replaying import Pair, Slices, clean_schemas, position
from tests.servers.sessions import SESSIONS

SCHEMA = "CREATE DATABASE shop"
USE = "USE shop"
CAPTURE_ACCOUNT = 2  # statements that make the account for the capture
ROWS = [
    "INSERT INTO t (v, n) VALUES ('a', 1), ('b', 2), ('c', 3)",
    "UPDATE t SET v = 'changed', n = n + 10, at = NOW(6) WHERE n > 1",
    "DELETE FROM t WHERE n = 1",
    "INSERT INTO t (v) VALUES ('last')",
]
T = "CREATE TABLE t (id INT PRIMARY KEY AUTO_INCREMENT, v VARCHAR(200), n INT, at DATETIME(6), ts TIMESTAMP NULL)"


@pytest.fixture
def mysql(mysql_source: Any, mysql_target: Any) -> Pair:
    return Pair(mysql_source, mysql_target)


@pytest.fixture
def mariadb(mariadb_source: Any, mariadb_target: Any) -> Pair:
    return Pair(mariadb_source, mariadb_target)


def same(pair: Pair) -> ReplayResult:
    result = pair.replay()
    first, second = pair.dumps()
    assert compare(first, second) == []
    assert first
    return result


def test_rows_of_many_transactions(mysql: Pair) -> None:
    mysql.run(SCHEMA, USE, T, *(f"INSERT INTO t (v, n) VALUES ('a{n}', {n})" for n in range(1050)))
    mysql.run(USE, "UPDATE t SET v = 'b' WHERE n % 3 = 0", "DELETE FROM t WHERE n % 5 = 0")
    same(mysql)


def run_all(pair: Pair) -> None:
    """Every group in a schema of its own."""
    for number, sessions in enumerate(SESSIONS.values()):
        name = f"shop{number}"
        pair.run(f"CREATE DATABASE {name}", f"USE {name}", T)
        for session in sessions:
            pair.run(*(named(statement, name) for statement in session), database=name)


def named(statement: str | bytes, schema: str) -> str | bytes:
    return statement if isinstance(statement, bytes) else re.sub(r"\bshop\b", schema, statement)


def test_every_session_on_mysql(mysql: Pair) -> None:
    run_all(mysql)
    result = same(mysql)
    assert result.skipped == 4 + CAPTURE_ACCOUNT
    assert result.statements > 100


def test_every_session_on_mariadb(mariadb: Pair) -> None:
    run_all(mariadb)
    assert same(mariadb).skipped == 4 + CAPTURE_ACCOUNT


def test_compressed_transactions(mysql: Pair) -> None:
    mysql.run(SCHEMA, USE, T, "SET binlog_transaction_compression = ON", *ROWS)
    same(mysql)


def test_tagged_gtids(mysql: Pair) -> None:
    mysql.run(SCHEMA, USE, T, "SET gtid_next = 'AUTOMATIC:everest'", *ROWS)
    same(mysql)
    assert any(":everest:" in identity for identity in mysql.slices.identities)


def test_partial_json_updates(mysql: Pair) -> None:
    mysql.run(
        SCHEMA, USE, "CREATE TABLE j (id INT PRIMARY KEY, d JSON)",
        "INSERT INTO j VALUES (1, JSON_OBJECT('a', REPEAT('x', 500), 'b', 1))",
        "SET binlog_row_value_options = PARTIAL_JSON, binlog_row_image = MINIMAL",
        "UPDATE j SET d = JSON_SET(d, '$.b', 2)", "UPDATE j SET d = JSON_REMOVE(d, '$.a')",
    )  # fmt: skip
    same(mysql)


def test_without_gtids(mysql_files: Any, mysql_target: Any) -> None:
    pair = Pair(mysql_files, mysql_target)
    pair.run(SCHEMA, USE, T, *ROWS, "FLUSH BINARY LOGS", "INSERT INTO t (v) VALUES ('in the next file')")
    result = same(pair)
    assert "binlog" in result.last


def test_every_transaction_is_a_moment(mysql: Pair) -> None:
    moments = []
    mysql.run(SCHEMA, USE, T)
    for statement in [*ROWS, "DROP TABLE t"]:
        mysql.run(USE, statement)
        with mysql.source.connect() as connection:
            moments.append((position(mysql.source), dump_all(connection)))
    mysql.capture(max_bytes=700)
    for moment, expected in moments:
        with mysql.target.connect() as connection:
            clean_schemas(connection)
            mysql.replay(stop=moment)
            assert compare(expected, dump_all(connection)) == []


def test_mariadb_of_its_own_kind(mariadb: Pair) -> None:
    mariadb.run(
        SCHEMA, USE, T, "CREATE SEQUENCE s START WITH 5", "DO NEXT VALUE FOR s", "DO NEXT VALUE FOR s",
        "CREATE TABLE h (a INT) WITH SYSTEM VERSIONING", "INSERT INTO h VALUES (1)", "UPDATE h SET a = 2", "DELETE FROM h",
        "SET system_versioning_alter_history = KEEP", "ALTER TABLE h ADD COLUMN b INT",
        "SET binlog_alter_two_phase = ON", "ALTER TABLE t ADD COLUMN c INT", "SET binlog_alter_two_phase = OFF",
        "SET check_constraint_checks = 0", "CREATE TABLE ch (a INT CHECK (a > 0))", "INSERT INTO ch VALUES (-1)",
        "SET check_constraint_checks = 1", "CREATE OR REPLACE TABLE ch (a INT, b INT)", "DROP TABLE IF EXISTS ch, nothing",
        "CREATE TABLE ifex (a INT)", "SET sql_if_exists = 1", "DROP TABLE nothing2, ifex",
        "SET binlog_format = MIXED", "INSERT INTO t (v) VALUES (UUID()), ('mixed')", "CREATE TEMPORARY TABLE tt (a INT)",
        "INSERT INTO tt VALUES (5)", "INSERT INTO t (n) SELECT a FROM tt",
    )  # fmt: skip
    same(mariadb)


def test_mariadb_compressed_events(mariadb: Pair) -> None:
    with mariadb.source.connect() as connection, connection.cursor() as cursor:
        cursor.execute("SET GLOBAL log_bin_compress = ON, log_bin_compress_min_len = 10")
        try:
            mariadb.run(
                SCHEMA, USE, T, f"INSERT INTO t (v) VALUES ('{'z' * 200}')", "UPDATE t SET n = 3", "DELETE FROM t"
            )
            mariadb.run(USE, *ROWS, "SET binlog_format = STATEMENT", f"INSERT INTO t (v) VALUES ('{'y' * 200}')")
        finally:
            cursor.execute("SET GLOBAL log_bin_compress = OFF, log_bin_compress_min_len = 256")
    same(mariadb)


@pytest.mark.parametrize("flavour", ["mysql", "mariadb"])
def test_load_data_of_a_statement_log(flavour: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    pair = request.getfixturevalue(flavour)
    file = tmp_path / "rows.txt"
    file.write_text("".join(f"{n}|line {n}\n" for n in range(12000)))
    load = f"LOAD DATA LOCAL INFILE '{file}' %s INTO TABLE t CHARACTER SET latin1 FIELDS TERMINATED BY '|' (id, v) SET n = id * 2"
    with pair.source.connect() as connection, connection.cursor() as cursor:
        cursor.execute("SET GLOBAL local_infile = ON")
    pair.run(
        SCHEMA, USE, T, "SET binlog_format = STATEMENT", load % "REPLACE", load % "IGNORE", "DELETE FROM t WHERE id % 7 = 0",
        load % "IGNORE", local_infile=True,
    )  # fmt: skip
    same(pair)


@pytest.mark.parametrize("flavour", ["mysql", "mariadb"])
def test_temporary_tables_live_over_all_slices(flavour: str, request: pytest.FixtureRequest) -> None:
    pair = request.getfixturevalue(flavour)
    pair.run(SCHEMA, USE, T)
    sessions = [pair.source.connect(database="shop") for _ in range(2)]
    for number, session in enumerate(sessions):
        for statement in (
            "SET binlog_format = STATEMENT",
            "CREATE TEMPORARY TABLE tmp (a INT)",
            f"INSERT INTO tmp VALUES ({number})",
        ):
            session.query(statement)
    pair.capture()
    pair.run("FLUSH BINARY LOGS")
    for session in sessions:
        session.query("INSERT INTO t (n) SELECT a FROM tmp")
    pair.capture()
    for session in sessions:
        session.close()
    same(pair)
    assert len(pair.slices.kept) >= 2


@pytest.mark.parametrize("flavour", ["mysql", "mariadb"])
def test_a_branch_counts_from_its_xa_commit_on(flavour: str, request: pytest.FixtureRequest) -> None:
    pair = request.getfixturevalue(flavour)
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


@pytest.mark.parametrize("flavour", ["mysql", "mariadb"])
def test_a_large_statement_is_cut_on_event_bounds(
    flavour: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = request.getfixturevalue(flavour)
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


def test_an_event_that_is_too_large_is_refused_with_the_setting(mysql: Pair) -> None:
    mysql.run(
        SCHEMA,
        USE,
        "CREATE TABLE b (id INT, v LONGBLOB)",
        "INSERT INTO b VALUES (1, REPEAT('x', 3000000))",
        "DELETE FROM b",
    )
    with mysql.target.connect() as connection, connection.cursor() as cursor:
        cursor.execute("SET GLOBAL max_allowed_packet = 2097152")
        try:
            with pytest.raises(Refused, match=r"holds a row event of 3,0.*Set max_allowed_packet on the target to 4,0"):
                mysql.replay()
        finally:
            cursor.execute("SET GLOBAL max_allowed_packet = 67108864")
        clean_schemas(connection)
    same(mysql)


def test_an_event_of_almost_three_quarters_of_the_packet_goes_through(mysql: Pair) -> None:
    mysql.run(
        SCHEMA, USE, "CREATE TABLE b (id INT, v LONGBLOB)", "INSERT INTO b VALUES (1, REPEAT('x', 3145728 - 2000))"
    )
    with mysql.target.connect() as connection, connection.cursor() as cursor:
        cursor.execute("SET GLOBAL max_allowed_packet = 4194304")
        try:
            same(mysql)
        finally:
            cursor.execute("SET GLOBAL max_allowed_packet = 67108864")


def test_changes_of_system_schemas_are_left_out(mysql: Pair) -> None:
    mysql.run(
        SCHEMA, USE, T, "CREATE TABLE mysql.everest_heartbeat (a INT)", "INSERT INTO mysql.everest_heartbeat VALUES (1)",
        "BEGIN", "INSERT INTO t (v) VALUES ('x')", "INSERT INTO mysql.everest_heartbeat VALUES (1)", "INSERT INTO t (v) VALUES ('y')", "COMMIT",
        "UPDATE t, mysql.everest_heartbeat SET t.n = 5, a = 7", "DROP TABLE mysql.everest_heartbeat",
    )  # fmt: skip
    assert same(mysql).skipped == 5 + CAPTURE_ACCOUNT


def test_nothing_reaches_the_targets_own_log(mysql: Pair) -> None:
    before = position(mysql.target)
    mysql.run(SCHEMA, USE, T, *ROWS)
    config = target_config(mysql.target)
    log_after_the_account = position(mysql.target)
    mysql.replay(config=config)
    assert before != log_after_the_account == position(mysql.target)


def test_a_failing_transaction_is_named(mysql: Pair) -> None:
    mysql.run(SCHEMA, USE, T)
    mysql.start = position(mysql.source)
    mysql.run(USE, "INSERT INTO t (v) VALUES ('x')")
    with pytest.raises(Refused, match=f"Transaction {'[0-9a-f-]+'}:[0-9]+ failed: .*Unknown database 'shop'"):
        mysql.replay()


def test_slices_that_do_not_join_are_refused(mysql: Pair) -> None:
    mysql.run(SCHEMA, USE, T, *ROWS)
    mysql.capture(max_bytes=700)
    assert len(mysql.slices.kept) > 3
    del mysql.slices.kept[2]
    with pytest.raises(Corrupt, match="does not begin where the one before it ends"):
        mysql.replay()


def test_slices_that_end_too_early_are_no_success(mysql: Pair) -> None:
    mysql.run(SCHEMA, USE, T, *ROWS)
    mysql.capture(max_bytes=700)
    end = mysql.slices.kept[-1][0].end
    slices = mysql.slices.kept[:-1]
    with pytest.raises(Corrupt, match="end before the moment"):
        replay(
            target_config(mysql.target),
            [(index, [data]) for index, data in slices],
            start=mysql.start,
            stop=end,
            run=Quiet(),
            source={},
        )


class StopAfter(Quiet):
    def __init__(self, seconds: float) -> None:
        self.at = time.monotonic() + seconds

    def should_stop(self) -> bool:
        return time.monotonic() > self.at


def test_a_stop_ends_a_long_statement(mysql: Pair) -> None:
    mysql.run(SCHEMA, USE, T, *ROWS)
    mysql.replay()
    mysql.start = position(mysql.source)
    mysql.run(USE, "UPDATE t SET n = 99")
    mysql.slices = Slices()
    with mysql.target.connect() as blocker:
        blocker.query("BEGIN")
        blocker.query("SELECT * FROM shop.t FOR UPDATE")
        began = time.monotonic()
        with pytest.raises(Stopped, match="told to stop"):
            mysql.replay(run=StopAfter(1))
        assert time.monotonic() - began < 8


def both(pair: Pair, *statements: str) -> None:
    for statement in statements:
        try:
            pair.run("SET binlog_format = STATEMENT", statement, database="shop")
        except pymysql.MySQLError as error:
            assert error.args[0] == 1062


@pytest.mark.parametrize("flavour", ["mysql", "mariadb"])
def test_a_statement_that_stopped_half_way_stops_there_again(flavour: str, request: pytest.FixtureRequest) -> None:
    pair = request.getfixturevalue(flavour)
    pair.run(SCHEMA, USE, "CREATE TABLE m (a INT PRIMARY KEY) ENGINE=MyISAM")
    both(pair, "INSERT INTO m VALUES (1), (2), (1), (3)", "INSERT INTO m VALUES (9)")
    same(pair)


@pytest.mark.parametrize("flavour", ["mysql", "mariadb"])
def test_a_default_schema_that_is_gone_stops_nothing(flavour: str, request: pytest.FixtureRequest) -> None:
    pair = request.getfixturevalue(flavour)
    pair.run(SCHEMA, "CREATE DATABASE gone")
    with pair.source.connect(database="gone") as session:
        pair.run("DROP DATABASE gone")
        session.query("CREATE TABLE shop.made (a INT)")
        session.query("CREATE DATABASE other")
        session.query("USE other")
        session.query("CREATE TABLE here (a INT)")
    same(pair)


@pytest.mark.parametrize("native", ["ON", "OFF"])
def test_cascades_are_applied_once_whoever_logs_them(
    native: str, new_server: Callable[..., Server], mysql_target: Server
) -> None:
    pair = Pair(new_server("mysql", options=(f"--innodb-native-foreign-keys={native}",)), mysql_target)
    pair.run(
        SCHEMA, USE, "CREATE TABLE p (id INT PRIMARY KEY, v INT)",
        "CREATE TABLE c (id INT PRIMARY KEY, p INT, FOREIGN KEY (p) REFERENCES p (id) ON DELETE CASCADE ON UPDATE CASCADE)",
        "INSERT INTO p VALUES (1, 1), (2, 2), (3, 3)", "INSERT INTO c VALUES (1, 1), (2, 1), (3, 2), (4, 3)",
        "UPDATE p SET id = 20 WHERE id = 2", "DELETE FROM p WHERE id = 1",
        "SET foreign_key_checks = 0", "DELETE FROM p WHERE id = 3",
    )  # fmt: skip
    same(pair)


def test_a_source_with_gtids_into_a_target_without(mysql_source: Server, mysql_files: Server) -> None:
    pair = Pair(mysql_source, mysql_files)
    pair.run(SCHEMA, USE, T, *ROWS)
    same(pair)


def test_tables_without_an_engine_get_the_sources(new_server: Callable[..., Server], mysql_target: Server) -> None:
    pair = Pair(new_server("mysql", options=("--default-storage-engine=MyISAM",)), mysql_target)
    pair.run(SCHEMA, USE, T, *ROWS)
    same(pair)


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
