"""Statements that are sent before the answers to earlier ones have come."""

from __future__ import annotations

from functools import partial
from typing import Any

import pymysql

from backups.engine.mysql import pipeline
from backups.engine.mysql.pipeline import Pipeline
from backups.engine.mysql.server import connect, value
from everest.demo.servers import Server
from tests.helpers import target_config


def test_each_answer_is_judged_for_its_own_statement(mysql_target: Server) -> None:
    told: list[tuple[str, Any]] = []
    with connect(target_config(mysql_target)) as session:
        line = Pipeline(session)
        for sql in ("SET @a = 1", "SELECT nonsense", "SELECT 1 UNION SELECT 2", "SET @b = @a + 1"):
            line.send(sql, lambda error, sql=sql: told.append((sql, error and error.args[0])))  # type: ignore[misc]
        assert told == []
        line.settle()
        assert told == [
            ("SET @a = 1", None),
            ("SELECT nonsense", 1054),
            ("SELECT 1 UNION SELECT 2", None),
            ("SET @b = @a + 1", None),
        ]
        assert value(session, "SELECT @b") == 2


def test_a_statement_of_many_packets_among_others(mysql_target: Server) -> None:
    lengths: list[pymysql.MySQLError | None] = []
    with connect(target_config(mysql_target)) as session:
        line = Pipeline(session)
        line.send("SET @a = 'x'", lengths.append)
        line.send(b"SET @b = '" + b"y" * (17 << 20) + b"'", lengths.append)
        line.send("SET @c = LENGTH(@b)", lengths.append)
        line.run("SET @d = @c")
        assert lengths == [None, None, None]
        assert value(session, "SELECT @d") == 17 << 20


def test_no_more_answers_are_due_than_a_socket_keeps(mysql_target: Server) -> None:
    told: list[int] = []
    with connect(target_config(mysql_target)) as session:
        line = Pipeline(session)
        for number in range(pipeline.MOST + 1):
            line.send("DO 1", partial(lambda number, error: told.append(number), number))
        assert told == list(range(pipeline.MOST))


def test_a_server_that_waits_until_its_rows_are_read_is_sent_no_more(mysql_target: Server) -> None:
    """Else each would wait for the other."""
    told: list[int] = []
    many = " UNION ALL ".join(["SELECT REPEAT('x', 1000000)"] * 30)
    with connect(target_config(mysql_target)) as session:
        line = Pipeline(session)
        line.send(many, lambda error: told.append(1))
        line.send(b"SET @a = '" + b"y" * (17 << 20) + b"'", lambda error: told.append(2))
        assert told == [1]
        line.settle()
        assert told == [1, 2]
