"""A statement's context as SQL: exact values, only differences, nothing of another series."""

from __future__ import annotations

import struct
from typing import Any

import pytest

from backups.engine.errors import Corrupt, Refused
from backups.engine.mysql.applier import zone_for
from backups.engine.mysql.context import Session, decimal, literal, text, variables, with_definer
from backups.engine.mysql.skipped import is_skipped
from backups.engine.mysql.statements import Query, UserVar

COLLATIONS = {
    8: ("latin1", "latin1_swedish_ci"),
    45: ("utf8mb4", "utf8mb4_general_ci"),
    2304: ("utf8mb4", "utf8mb4_uca1400_ai_ci"),
}


class All:
    """Every variable there could be."""

    def __contains__(self, name: object) -> bool:
        return True


def query(sql: bytes = b"INSERT INTO t VALUES (1)", schema: str = "shop", **status: Any) -> Query:
    return Query(schema, sql, 0, 7, 0, status)


def sent(session: Session, item: Query, timestamp: int = 100) -> str:
    return b"; ".join(session.prepare(item, timestamp, ())).decode()


@pytest.mark.parametrize(
    ("variable", "expected"),
    [
        (UserVar(b"a", None), "NULL"),
        (UserVar(b"a", b"\xe9'", 0, 8), "_latin1 X'e927' COLLATE latin1_swedish_ci"),
        (UserVar(b"a", b"", 0, 45), "_utf8mb4 X'' COLLATE utf8mb4_general_ci"),
        (UserVar(b"a", struct.pack("<d", 1 / 3), 1), "0.3333333333333333e0"),
        (UserVar(b"a", struct.pack("<d", 1e300), 1), "1e+300"),
        (UserVar(b"a", struct.pack("<d", -0.0), 1), "-0.0e0"),
        (UserVar(b"a", struct.pack("<q", -5), 2), "-5"),
        (UserVar(b"a", struct.pack("<Q", 2**64 - 1), 2, unsigned=True), "CAST(18446744073709551615 AS UNSIGNED)"),
        (UserVar(b"a", bytes([5, 3, 0x80 | 12, 0x01, 0x54]), 4), "CAST('12.340' AS DECIMAL(5,3))"),
    ],
)
def test_user_variables_keep_type_and_value(variable: UserVar, expected: str) -> None:
    assert literal(variable, COLLATIONS) == expected


def test_a_collation_that_the_target_lacks_is_refused() -> None:
    with pytest.raises(Refused, match="collation number 999"):
        literal(UserVar(b"a", b"x", 0, 999), COLLATIONS)


@pytest.mark.parametrize(
    ("raw", "precision", "scale", "expected"),
    [  # the manual's own example, and bounds
        ("810dfb38d204d2", 14, 4, "1234567890.1234"),
        ("7ef204c72dfb2d", 14, 4, "-1234567890.1234"),
        ("80", 1, 0, "0"),
        ("8005", 3, 0, "005"),
        ("80000001", 9, 9, "0.000000001"),
        ("7ffffffe", 9, 9, "-0.000000001"),
    ],
)
def test_decimals(raw: str, precision: int, scale: int, expected: str) -> None:
    assert decimal(bytes.fromhex(raw), precision, scale) == expected


def test_a_decimal_of_another_length_is_damage() -> None:
    with pytest.raises(Corrupt):
        decimal(b"\x80", 14, 4)


def test_only_what_differs_is_sent() -> None:
    session = Session("mysql", All(), "SYSTEM", COLLATIONS)
    first = sent(session, query(sql_mode=5, charset=(8, 8, 45)))
    assert "SESSION sql_mode = 5" in first
    assert "SESSION collation_server = 45" in first
    assert sent(session, query(sql_mode=5, charset=(8, 8, 45))) == ""
    changed = sent(session, query(sql_mode=6, charset=(8, 8, 45)), 101)
    assert changed == "SET SESSION timestamp = 101, SESSION sql_mode = 6"


def test_a_variable_that_the_target_lacks_is_left_out() -> None:
    session = Session("mysql", {"timestamp"}, "SYSTEM", COLLATIONS)
    assert sent(session, query(sql_mode=5)) == "SET SESSION timestamp = 100"


def test_microseconds_are_part_of_the_timestamp() -> None:
    assert variables(query(microseconds=42), 100, "mysql")["timestamp"] == "100.000042"
    assert variables(query(hrnow=420000), 100, "mariadb")["timestamp"] == "100.420000"


@pytest.mark.parametrize(("flags", "expected"), [(0, ("1", "1", "0")), (1 << 26 | 1 << 27 | 1 << 14, ("0", "0", "1"))])
def test_flags(flags: int, expected: tuple[str, ...]) -> None:
    found = variables(query(flags2=flags), 100, "mysql")
    assert (found["foreign_key_checks"], found["unique_checks"], found["sql_auto_is_null"]) == expected


@pytest.mark.parametrize(
    ("source", "target", "expected"),
    [
        ("CET", "CET", "SYSTEM"),
        ("UTC", "CET", "+00:00"),
        ("CET", "UTC", None),
        ("Europe/Berlin", "UTC", "Europe/Berlin"),
        ("+02:00", "UTC", "+02:00"),
        ("", "UTC", "SYSTEM"),
    ],
)
def test_the_system_zone_is_never_guessed(source: str, target: str, expected: str | None) -> None:
    assert zone_for(source, target) == expected


def test_a_system_zone_without_an_equal_is_refused_where_it_matters() -> None:
    session = Session("mysql", All(), None, COLLATIONS)
    sent(session, query())
    with pytest.raises(Refused, match="system time zone"):
        sent(session, query(time_zone="SYSTEM"))


def test_names_in_the_log_cannot_become_sql() -> None:
    with pytest.raises(Corrupt):
        text("UTC', sql_log_bin = '1")


def test_a_user_variable_of_any_name_is_set_in_a_charset_that_has_it() -> None:
    session = Session("mysql", All(), "SYSTEM", COLLATIONS)
    list(session.prepare(query(charset=(8, 8, 8)), 100, ()))
    name = "größe".encode()
    from backups.engine.mysql.events import HEADER, USER_VAR, parse

    body = len(name).to_bytes(4, "little") + name + b"\1"
    event = parse(memoryview(HEADER.pack(0, USER_VAR, 1, 19 + len(body), 0, 0) + body), 0)
    statements = [statement.decode() for statement in session.prepare(query(charset=(8, 8, 8)), 100, [event])]
    assert statements == [
        "SET SESSION character_set_client = utf8mb4",
        "SET @`größe` = NULL",
        "SET SESSION character_set_client = latin1",
    ]


def test_a_clients_character_set_goes_by_name() -> None:
    """MariaDB 11.8's default collation has a number that it does not take for a character set."""
    session = Session("mariadb", All(), "SYSTEM", COLLATIONS)
    (statement,) = session.prepare(query(charset=(2304, 2304, 45)), 100, ())
    assert b"character_set_client" not in statement and b"collation_connection = 2304" in statement
    (statement,) = session.prepare(query(charset=(8, 8, 8)), 100, ())
    assert b"character_set_client = latin1" in statement


def test_an_altered_event_keeps_the_account_that_altered_it() -> None:
    item = query(b"/* x */ alter event e disable", invoker=("o`dd", "%"))
    assert with_definer(item) == b"/* x */ alter DEFINER=`o``dd`@`%` event e disable"
    assert with_definer(query(b"ALTER TABLE event ADD a INT", invoker=("a", "b"))) == b"ALTER TABLE event ADD a INT"


@pytest.mark.parametrize(
    "sql",
    [
        b"CREATE USER a", b"/* why */ drop user a", b"-- note\nGRANT SELECT ON *.* TO a", b"REVOKE ALL ON *.* FROM a",
        b"SET PASSWORD FOR a = 'x'", b"SET DEFAULT ROLE ALL TO a", b"FLUSH PRIVILEGES", b"RENAME USER a TO b",
        b"CREATE OR REPLACE USER a", b"/*!50001 ALTER USER a ACCOUNT LOCK */", b"DROP ROLE r",
        b"INSERT INTO mysql.user VALUES (1)", b"UPDATE LOW_PRIORITY `mysql`.`user` SET a = 1",
        b"DELETE FROM mysql . db",
        b"CREATE TABLE IF NOT EXISTS mysql.x (a INT)", b"DROP TABLE `mysql`.`x`", b"TRUNCATE mysql.general_log",
    ],
)  # fmt: skip
def test_accounts_and_system_schemas_are_left_out(sql: bytes) -> None:
    assert is_skipped(query(sql))


def test_a_bare_name_belongs_to_the_default_schema() -> None:
    assert is_skipped(query(b"INSERT INTO user VALUES (1)", "mysql"))
    assert not is_skipped(query(b"INSERT INTO user VALUES (1)", "shop"))


@pytest.mark.parametrize(
    "sql",
    [
        b"INSERT INTO t SELECT * FROM mysql.user", b"CREATE TABLE user (a INT)", b"CREATE TABLE grants (a INT)",
        b"CREATE DATABASE mysql2", b"ALTER TABLE t COMMENT 'GRANT'", b"CREATE VIEW v AS SELECT * FROM mysql.user",
        b"INSERT INTO t VALUES ('mysql.user')", b"UPDATE shop.mysql SET a = 1", b"CREATE TABLE `mysql` (a INT)",
        b"CREATE TEMPORARY TABLE mysql.t (a INT)",
    ],
)  # fmt: skip
def test_everything_else_is_not(sql: bytes) -> None:
    assert not is_skipped(query(sql))
