"""Replay of slices on MySQL: every kind of statement and session, compared object by object and row by row."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pymysql
import pytest

from backups.engine.mysql import steps
from everest.demo.servers import Server
from tests.servers.replaying import CAPTURE_ACCOUNT, ROWS, SCHEMA, USE, Pair, T, same
from tests.servers.sessions import SESSIONS


def test_rows_of_many_transactions(mysql_pair: Pair) -> None:
    mysql_pair.run(SCHEMA, USE, T, *(f"INSERT INTO t (v, n) VALUES ('a{n}', {n})" for n in range(1050)))
    mysql_pair.run(USE, "UPDATE t SET v = 'b' WHERE n % 3 = 0", "DELETE FROM t WHERE n % 5 = 0")
    same(mysql_pair)


def run_all(pair: Pair) -> None:
    """Every group in a schema of its own."""
    for number, sessions in enumerate(SESSIONS.values()):
        name = f"shop{number}"
        pair.run(f"CREATE DATABASE {name}", f"USE {name}", T)
        for session in sessions:
            pair.run(*(named(statement, name) for statement in session), database=name)


def named(statement: str | bytes, schema: str) -> str | bytes:
    return statement if isinstance(statement, bytes) else re.sub(r"\bshop\b", schema, statement)


def test_every_session_on_mysql(mysql_pair: Pair) -> None:
    run_all(mysql_pair)
    result = same(mysql_pair)
    assert result.skipped == 4 + CAPTURE_ACCOUNT
    assert result.statements > 100


@pytest.mark.parametrize("name", ["mariadb", "mariadb_new"])
def test_every_session_on_mariadb(name: str, request: pytest.FixtureRequest) -> None:
    pair: Pair = request.getfixturevalue(f"{name}_pair")
    run_all(pair)
    assert same(pair).skipped == 4 + CAPTURE_ACCOUNT


def test_compressed_transactions(mysql_pair: Pair) -> None:
    mysql_pair.run(SCHEMA, USE, T, "SET binlog_transaction_compression = ON", *ROWS)
    same(mysql_pair)


def test_tagged_gtids(mysql_pair: Pair) -> None:
    mysql_pair.run(SCHEMA, USE, T, "SET gtid_next = 'AUTOMATIC:everest'", *ROWS)
    same(mysql_pair)
    assert any(":everest:" in identity for identity in mysql_pair.slices.identities)


def test_rows_of_another_clock_between_two_statements_of_one_second(pair: Pair) -> None:
    """BINLOG leaves its session at the time of the row events."""
    pair.run(SCHEMA, USE, "CREATE TABLE moments (id INT PRIMARY KEY, at DATETIME)", T)
    before = "SET timestamp = 1700000000, binlog_format = STATEMENT"
    pair.run(USE, before, "INSERT INTO moments VALUES (1, NOW())")
    pair.run(USE, "SET timestamp = 2140000000", *ROWS)
    pair.run(USE, before, "INSERT INTO moments VALUES (2, NOW())")
    same(pair)


def test_partial_json_updates(mysql_pair: Pair) -> None:
    mysql_pair.run(
        SCHEMA,
        USE,
        "CREATE TABLE j (id INT PRIMARY KEY, d JSON)",
        "INSERT INTO j VALUES (1, JSON_OBJECT('a', REPEAT('x', 500), 'b', 1))",
        "SET binlog_row_value_options = PARTIAL_JSON, binlog_row_image = MINIMAL",
        "UPDATE j SET d = JSON_SET(d, '$.b', 2)",
        "UPDATE j SET d = JSON_REMOVE(d, '$.a')",
    )
    same(mysql_pair)


MIXED_ENGINES = (
    "CREATE TABLE m (a INT) ENGINE=MyISAM",
    "SET binlog_format = STATEMENT",
    "BEGIN",
    "INSERT INTO t (v) VALUES ('undone')",
    "INSERT INTO m VALUES (1)",
    "ROLLBACK",
    "SET binlog_format = ROW",
)


def test_without_gtids(mysql_files: Server, mysql_target: Server) -> None:
    pair = Pair(mysql_files, mysql_target)
    pair.run(SCHEMA, USE, T, *ROWS, *MIXED_ENGINES, "FLUSH BINARY LOGS", "INSERT INTO t (v) VALUES ('next file')")
    result = same(pair)
    assert "binlog" in result.last


def test_mariadb_rows_behind_a_statement_of_sql_mode_oracle(mariadb_pair: Pair) -> None:
    """There, BEGIN opens a block."""
    package = "CREATE PACKAGE pack AS FUNCTION one RETURN INT; END"
    mariadb_pair.run(SCHEMA, USE, T, "SET sql_mode = 'ORACLE'", package, "INSERT INTO t (v) VALUES ('behind')")
    same(mariadb_pair)


def test_mariadb_of_its_own_kind(mariadb_pair: Pair) -> None:
    mariadb_pair.run(
        SCHEMA,
        USE,
        T,
        "CREATE SEQUENCE s START WITH 5",
        "DO NEXT VALUE FOR s",
        "DO NEXT VALUE FOR s",
        "CREATE TABLE h (a INT) WITH SYSTEM VERSIONING",
        "INSERT INTO h VALUES (1)",
        "UPDATE h SET a = 2",
        "DELETE FROM h",
        "SET system_versioning_alter_history = KEEP",
        "ALTER TABLE h ADD COLUMN b INT",
        "SET binlog_alter_two_phase = ON",
        "ALTER TABLE t ADD COLUMN c INT",
        "SET binlog_alter_two_phase = OFF",
        "SET check_constraint_checks = 0",
        "CREATE TABLE ch (a INT CHECK (a > 0))",
        "INSERT INTO ch VALUES (-1)",
        "SET check_constraint_checks = 1",
        "CREATE OR REPLACE TABLE ch (a INT, b INT)",
        "DROP TABLE IF EXISTS ch, nothing",
        "CREATE TABLE ifex (a INT)",
        "SET sql_if_exists = 1",
        "DROP TABLE nothing2, ifex",
        *MIXED_ENGINES,
        "SET binlog_format = MIXED",
        "INSERT INTO t (v) VALUES (UUID()), ('mixed')",
        "CREATE TEMPORARY TABLE tt (a INT)",
        "INSERT INTO tt VALUES (5)",
        "INSERT INTO t (n) SELECT a FROM tt",
    )
    same(mariadb_pair)


def test_mariadb_compressed_events(mariadb_pair: Pair) -> None:
    with mariadb_pair.source.connect() as connection, connection.cursor() as cursor:
        cursor.execute("SET GLOBAL log_bin_compress = ON, log_bin_compress_min_len = 10")
        try:
            mariadb_pair.run(
                SCHEMA, USE, T, f"INSERT INTO t (v) VALUES ('{'z' * 200}')", "UPDATE t SET n = 3", "DELETE FROM t"
            )
            mariadb_pair.run(USE, *ROWS, "SET binlog_format = STATEMENT", f"INSERT INTO t (v) VALUES ('{'y' * 200}')")
        finally:
            cursor.execute("SET GLOBAL log_bin_compress = OFF, log_bin_compress_min_len = 256")
    same(mariadb_pair)


def test_load_data_of_a_statement_log(pair: Pair, tmp_path: Path) -> None:
    file = tmp_path / "rows.txt"
    file.write_bytes(b"".join(b"%d|line \xe9 %d\n" % (n, n) for n in range(12000)))
    how = "CHARACTER SET latin1 FIELDS TERMINATED BY '|' (id, v) SET n = id * 2"
    load = f"LOAD DATA LOCAL INFILE '{file}' %s INTO TABLE t {how}"
    bare = load.replace("CHARACTER SET latin1", "")
    with pair.source.connect() as connection, connection.cursor() as cursor:
        cursor.execute("SET GLOBAL local_infile = ON")
    pair.run(
        SCHEMA,
        USE,
        T,
        "SET binlog_format = STATEMENT",
        load % "REPLACE",
        load % "IGNORE",
        "DELETE FROM t WHERE id % 7 = 0",
        load % "IGNORE",
        "SET collation_database = latin1_swedish_ci",
        bare % "REPLACE",
        local_infile=True,
    )
    same(pair)


def test_temporary_tables_live_over_all_slices(pair: Pair) -> None:
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


def test_changes_of_system_schemas_are_left_out(mysql_pair: Pair) -> None:
    mysql_pair.run(
        SCHEMA,
        USE,
        T,
        "CREATE TABLE mysql.everest_heartbeat (a INT)",
        "INSERT INTO mysql.everest_heartbeat VALUES (1)",
        "BEGIN",
        "INSERT INTO t (v) VALUES ('x')",
        "INSERT INTO mysql.everest_heartbeat VALUES (1)",
        "INSERT INTO t (v) VALUES ('y')",
        "COMMIT",
        "UPDATE t, mysql.everest_heartbeat SET t.n = 5, a = 7",
        "DROP TABLE mysql.everest_heartbeat",
    )
    assert same(mysql_pair).skipped == 5 + CAPTURE_ACCOUNT


def both(pair: Pair, *statements: str) -> None:
    for statement in statements:
        try:
            pair.run("SET binlog_format = STATEMENT", statement, database="shop")
        except pymysql.MySQLError as error:
            assert error.args[0] == 1062


def test_a_statement_that_stopped_half_way_stops_there_again(pair: Pair) -> None:
    pair.run(SCHEMA, USE, "CREATE TABLE m (a INT PRIMARY KEY) ENGINE=MyISAM")
    both(pair, "INSERT INTO m VALUES (1), (2), (1), (3)", "INSERT INTO m VALUES (9)")
    same(pair)


def test_a_default_schema_that_is_gone_stops_nothing(pair: Pair) -> None:
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
        SCHEMA,
        USE,
        "CREATE TABLE p (id INT PRIMARY KEY, v INT)",
        "CREATE TABLE c (id INT PRIMARY KEY, p INT,"
        " FOREIGN KEY (p) REFERENCES p (id) ON DELETE CASCADE ON UPDATE CASCADE)",
        "INSERT INTO p VALUES (1, 1), (2, 2), (3, 3)",
        "INSERT INTO c VALUES (1, 1), (2, 1), (3, 2), (4, 3)",
        "UPDATE p SET id = 20 WHERE id = 2",
        "DELETE FROM p WHERE id = 1",
        "SET foreign_key_checks = 0",
        "DELETE FROM p WHERE id = 3",
    )
    same(pair)


def test_a_foreign_key_on_a_key_that_is_not_unique(mysql_pair: Pair) -> None:
    mysql_pair.run(
        SCHEMA,
        USE,
        "SET restrict_fk_on_non_standard_key = 0",
        "CREATE TABLE p (id INT PRIMARY KEY, v INT, KEY (v))",
        "CREATE TABLE c (id INT PRIMARY KEY, p INT, FOREIGN KEY (p) REFERENCES p (v) ON DELETE CASCADE)",
        "INSERT INTO p VALUES (1, 1), (2, 2)",
        "INSERT INTO c VALUES (1, 1), (2, 2)",
        "DELETE FROM p WHERE id = 1",
    )
    same(mysql_pair)


@pytest.mark.parametrize("largest", [1, steps.GATHER_BYTES])
def test_children_outlive_a_replace_of_their_parent(
    largest: int, mysql_pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On MySQL's own replica they do not: its row is deleted and inserted there."""
    monkeypatch.setattr(steps, "GATHER_BYTES", largest)
    child = "CREATE TABLE {} (id INT PRIMARY KEY, p INT, FOREIGN KEY (p) REFERENCES p (id) {})"
    mysql_pair.run(
        SCHEMA,
        USE,
        "CREATE TABLE p (id INT PRIMARY KEY, v INT UNIQUE)",
        child.format("gone", "ON DELETE CASCADE ON UPDATE CASCADE"),
        child.format("emptied", "ON DELETE SET NULL ON UPDATE SET NULL"),
        child.format("held", ""),
        "INSERT INTO p VALUES (1, 1), (2, 2), (3, 3), (4, 4)",
        "INSERT INTO gone VALUES (1, 1), (2, 2), (3, 3)",
        "INSERT INTO emptied VALUES (1, 1), (2, 2), (4, 4)",
        "INSERT INTO held VALUES (1, 1)",
        "REPLACE INTO p VALUES (1, 9), (2, 8)",
        "REPLACE INTO p VALUES (2, 3)",
        "REPLACE INTO p VALUES (5, 4)",
        "UPDATE p SET id = 6 WHERE id = 2",
    )
    same(mysql_pair)


def test_a_source_with_gtids_into_a_target_without(mysql_source: Server, mysql_files: Server) -> None:
    pair = Pair(mysql_source, mysql_files)
    pair.run(SCHEMA, USE, T, *ROWS)
    same(pair)


def test_tables_without_an_engine_get_the_sources(new_server: Callable[..., Server], mysql_target: Server) -> None:
    pair = Pair(new_server("mysql", options=("--default-storage-engine=MyISAM",)), mysql_target)
    pair.run(SCHEMA, USE, T, *ROWS)
    same(pair)
