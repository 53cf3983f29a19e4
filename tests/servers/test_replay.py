"""Replay of slices on MySQL: every kind of statement and session, compared object by object and row by row."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

import pytest

from backups.engine.errors import Corrupt, Refused, Stopped
from backups.engine.mysql import steps
from backups.engine.mysql.replay import ReplayResult, replay
from backups.engine.types import Quiet
from tests.helpers import compare, dump_all, target_config
from tests.servers.replaying import Pair, Slices, clean_schemas, position

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


SESSIONS: dict[str, list[list[str | bytes]]] = {
    "sql_mode": [
        ["SET sql_mode = 'ANSI_QUOTES,PIPES_AS_CONCAT'", """CREATE TABLE "q" (a VARCHAR(9) DEFAULT 'x')"""],
        ["SET sql_mode = ''", "CREATE TABLE loose (d DATE DEFAULT '0000-00-00', n TINYINT)", "INSERT INTO loose (n) VALUES (999)"],
        ["SET sql_mode = 'ANSI_QUOTES'", """CREATE VIEW vq AS SELECT "a" FROM "q" """],
        ["SET sql_mode = 'NO_BACKSLASH_ESCAPES'", r"CREATE TABLE slash (a VARCHAR(9) DEFAULT '\x') COMMENT 'a\b'"],
    ],
    "latin1": [["SET NAMES latin1", b"CREATE TABLE `caf\xe9` (a VARCHAR(9) DEFAULT '\xe9' COMMENT '\xe9t\xe9')"]],
    "sjis": [
        [
            "SET NAMES sjis",
            b"CREATE TABLE sj (a VARCHAR(9) CHARACTER SET sjis DEFAULT '\x83\x5c\x83\x5c' COMMENT '\x95\x5c')",
            b"CREATE PROCEDURE sp() SELECT '\x83\x5c'",
        ]
    ],
    "utf8 names": [["SET NAMES utf8mb4", "CREATE DATABASE `ümläut`", "USE `ümläut`", "CREATE TABLE `tä ble` (a INT) COMMENT '\U0001f600'"]],
    "time zones": [
        ["SET time_zone = '+05:00'", "INSERT INTO t (at) VALUES ('2020-01-01 12:00:00')"],
        ["SET time_zone = '+05:00'", "ALTER TABLE t MODIFY at TIMESTAMP(6) NULL"],
        ["SET time_zone = '-03:30'", "CREATE TABLE z (a TIMESTAMP DEFAULT '2020-06-01 00:00:00')"],
        ["ALTER TABLE t MODIFY at DATETIME(6)"],
    ],
    "collation of the server": [
        ["SET collation_server = utf8mb4_bin", "CREATE DATABASE other", "CREATE TABLE other.x (a VARCHAR(3))"],
        ["SET collation_connection = latin1_german1_ci", "CREATE VIEW lv AS SELECT 'a' AS a, 'b' = 'B' AS b"],
    ],
    "foreign keys": [
        ["SET foreign_key_checks = 0", "CREATE TABLE child (p INT, FOREIGN KEY (p) REFERENCES parent (id) ON DELETE CASCADE)"],
        ["CREATE TABLE parent (id INT PRIMARY KEY)", "INSERT INTO parent VALUES (1), (2), (3)"],
        ["INSERT INTO child VALUES (1), (1), (2)", "DELETE FROM parent WHERE id = 1"],
        ["SET foreign_key_checks = 0", "INSERT INTO child VALUES (77)", "DROP TABLE parent"],
    ],
    "auto increment": [
        ["SET auto_increment_increment = 10, auto_increment_offset = 3", "INSERT INTO t (v) VALUES ('a'), ('b')"],
        ["INSERT INTO t (v) VALUES ('c')", "DELETE FROM t WHERE v = 'c'"],
        ["ALTER TABLE t AUTO_INCREMENT = 500"],
    ],
    "savepoints": [
        [
            "BEGIN", "INSERT INTO t (v) VALUES ('kept')", "SAVEPOINT a", "INSERT INTO t (v) VALUES ('undone')",
            "SAVEPOINT `b c`", "UPDATE t SET v = 'undone too'", "ROLLBACK TO a", "INSERT INTO t (v) VALUES ('after')",
            "COMMIT",
        ]
    ],
    "not transactional": [
        ["CREATE TABLE m (a INT) ENGINE=MyISAM", "INSERT INTO m VALUES (1), (2)", "UPDATE m SET a = 5 WHERE a = 1"],
        ["BEGIN", "INSERT INTO m VALUES (9)", "ROLLBACK"],
    ],
    "xa": [
        ["XA START 'one','b',7", "INSERT INTO t (v) VALUES ('xa one')", "XA END 'one','b',7", "XA PREPARE 'one','b',7"],
        ["INSERT INTO t (v) VALUES ('between')", "XA COMMIT 'one','b',7"],
        ["XA START X'00ff27'", "INSERT INTO t (v) VALUES ('gone')", "XA END X'00ff27'", "XA PREPARE X'00ff27'", "XA ROLLBACK X'00ff27'"],
        ["XA START 'p'", "INSERT INTO t (v) VALUES ('one phase')", "XA END 'p'", "XA COMMIT 'p' ONE PHASE"],
    ],
    "create select": [
        ["INSERT INTO t (v) VALUES ('a'), ('b')", "CREATE TABLE copy1 SELECT * FROM t", "CREATE TABLE copy2 (PRIMARY KEY (id)) AS SELECT id, v FROM t"],
        ["CREATE TABLE empty_copy SELECT * FROM t WHERE id < 0", "CREATE TABLE alike LIKE t"],
    ],
    "many tables": [
        ["CREATE TABLE a (id INT, v INT)", "CREATE TABLE b (id INT, v INT)", "INSERT INTO a VALUES (1,1),(2,2)", "INSERT INTO b VALUES (1,1),(2,2)"],
        ["UPDATE a, b SET a.v = 10, b.v = 20 WHERE a.id = b.id", "DELETE a, b FROM a JOIN b ON a.id = b.id WHERE a.id = 2"],
        ["RENAME TABLE a TO a2, b TO a", "DROP TABLE a, a2"],
    ],
    "programs": [
        ["CREATE TABLE log (a INT)", "CREATE TRIGGER tr AFTER INSERT ON t FOR EACH ROW INSERT INTO log VALUES (NEW.id)"],
        ["INSERT INTO t (v) VALUES ('fires'), ('twice')"],
        ["CREATE PROCEDURE p() BEGIN INSERT INTO t (v) VALUES ('from p'); UPDATE t SET n = 1; END", "CALL p()"],
        ["CREATE FUNCTION f() RETURNS INT DETERMINISTIC MODIFIES SQL DATA BEGIN INSERT INTO log VALUES (-1); RETURN 5; END", "SELECT f()"],
        ["CREATE DEFINER = nobody@nowhere VIEW dv AS SELECT 1 AS one", "ALTER VIEW dv AS SELECT 2 AS two"],
        ["CREATE EVENT e ON SCHEDULE EVERY 1 DAY STARTS '2030-01-01 00:00:00' DO INSERT INTO log VALUES (1)"],
        ["ALTER EVENT e ON SCHEDULE EVERY 2 DAY STARTS '2031-01-01 00:00:00'", "ALTER PROCEDURE p COMMENT 'c'"],
        ["CREATE TRIGGER tr0 AFTER INSERT ON t FOR EACH ROW PRECEDES tr SET @x = 1", "DROP FUNCTION f"],
    ],
    "partitions": [
        ["CREATE TABLE part (a INT, b INT) PARTITION BY RANGE (a) (PARTITION p0 VALUES LESS THAN (10), PARTITION p1 VALUES LESS THAN (20))"],
        ["INSERT INTO part VALUES (1,1), (11,2)", "UPDATE part SET a = 12 WHERE a = 1", "ALTER TABLE part ADD PARTITION (PARTITION p2 VALUES LESS THAN (30))"],
        ["CREATE TABLE ex (a INT, b INT)", "INSERT INTO ex VALUES (12, 5)", "ALTER TABLE part EXCHANGE PARTITION p1 WITH TABLE ex", "ALTER TABLE part TRUNCATE PARTITION p1"],
        ["INSERT INTO part VALUES (25, 25)"],
    ],
    "ddl": [
        ["ALTER TABLE t ADD COLUMN c INT DEFAULT 7 FIRST, ALGORITHM=INSTANT", "ALTER TABLE t ADD KEY (v), ADD COLUMN g INT AS (n * 2) STORED"],
        ["INSERT INTO t (n) VALUES (4)", "TRUNCATE TABLE t", "INSERT INTO t (n) VALUES (6)", "ALTER TABLE t DROP COLUMN c", "UPDATE t SET n = 8"],
        ["CREATE DATABASE second", "RENAME TABLE t TO second.moved", "USE second", "INSERT INTO moved (n) VALUES (5)", "DROP DATABASE shop"],
    ],
    "schema gone": [["CREATE DATABASE gone", "USE gone", "CREATE TABLE x (a INT)", "DROP DATABASE gone", "CREATE TABLE shop.after_it (a INT)"]],
    "minimal images": [
        ["SET binlog_row_image = MINIMAL", "INSERT INTO t (v) VALUES ('m'), ('n')", "UPDATE t SET n = 3 WHERE v = 'm'", "DELETE FROM t WHERE v = 'n'"],
        ["SET binlog_row_image = NOBLOB", "UPDATE t SET v = 'o' WHERE n = 3"],
    ],
    "statement format": [
        ["SET binlog_format = STATEMENT", "INSERT INTO t (v, at, ts) VALUES ('now', NOW(6), NOW())", "INSERT INTO t (v) VALUES (LAST_INSERT_ID())", "UPDATE t SET n = RAND() * 1000"],
        ["SET binlog_format = STATEMENT", "SET TIMESTAMP = 1234567890.123456", "INSERT INTO t (v, at) VALUES ('then', NOW(6))", "SET @u = 18446744073709551615, @d = 12.340, @n = NULL, @f = 1e0 / 3, @s = _latin1 X'e9', @neg = -5, @dd = -1234567890123.000000001"],
        [
            "SET binlog_format = STATEMENT", "SET @u = 18446744073709551615, @d = 12.340, @n = NULL, @f = 1e0 / 3, @s = _latin1 X'e9', @neg = -5, @dd = -1234567890123.000000001",
            "CREATE TABLE vars (a VARCHAR(60), b VARCHAR(60), c VARCHAR(60), d DOUBLE, e VARCHAR(9), f BIGINT, g DECIMAL(40,20))",
            "INSERT INTO vars VALUES (@u, @d, @n, @f, @s, @neg, @dd)", "INSERT INTO vars (a, b) VALUES (@u - 1, @dd * 3)",
        ],
        ["SET binlog_format = STATEMENT, lc_time_names = 'de_DE'", "INSERT INTO t (v) VALUES (DAYNAME('2024-01-01'))"],
        ["SET binlog_format = STATEMENT", "CREATE TEMPORARY TABLE tmp (a INT)", "INSERT INTO tmp VALUES (1), (2)", "INSERT INTO t (n) SELECT a FROM tmp", "DROP TEMPORARY TABLE tmp"],
        ["SET binlog_format = STATEMENT", "INSERT INTO t (v) VALUES (CONNECTION_ID())"],
        ["SET binlog_format = STATEMENT, sql_mode = ''", "INSERT INTO t (v, n) VALUES ('bad', 'not a number')"],
        ["SET binlog_format = STATEMENT, foreign_key_checks = 0, unique_checks = 0, sql_auto_is_null = 1", "INSERT INTO t (v) VALUES ('flags')"],
    ],
    "accounts": [
        ["CREATE USER someone IDENTIFIED BY 'secret-word'", "GRANT SELECT ON shop.* TO someone", "/* hi */ ALTER USER someone ACCOUNT LOCK", "INSERT INTO t (v) VALUES ('x')", "DROP USER someone"],
    ],
}  # fmt: skip


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
