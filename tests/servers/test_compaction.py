"""Compacted and verbatim replay give the same rows, definitions and counters, and those of the source."""

from __future__ import annotations

from typing import Any

import pymysql
import pytest

from backups.engine.mysql import batch, stretch
from backups.engine.mysql.compaction import Changes
from backups.engine.mysql.replay import ReplayResult
from backups.engine.types import Quiet
from tests.helpers import compare, dump_all
from tests.servers.replaying import SCHEMA, USE, Pair, clean_schemas
from tests.servers.row_histories import RowHistory

SESSIONS = 120


@pytest.fixture(autouse=True)
def nothing_is_too_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch, "SMALL", 0)
    monkeypatch.setattr(batch, "FEW", 1)
    monkeypatch.setattr(stretch, "FEWEST", 1)
    monkeypatch.setattr(stretch, "FEW", 1)


BROKEN = (1064, 2006, 2013)  # a statement that is none, a connection that is gone


def run(pair: Pair, *statements: str) -> None:
    """One session; what the server refuses of it is left out."""
    with pair.source.connect(init_command="SET NAMES utf8mb4") as session, session.cursor() as cursor:
        for statement in statements:
            try:
                cursor.execute(statement)
            except pymysql.MySQLError as error:
                assert error.args[0] not in BROKEN, (statement, error)


def twice(pair: Pair, **options: Any) -> ReplayResult:
    """Replay compacted, then verbatim, and compare."""
    compacted = pair.replay(**options)
    with pair.target.connect() as connection:
        found = dump_all(connection)
        clean_schemas(connection)
    verbatim = pair.replay(compact=False)
    assert verbatim.conflicts == 0
    source, wanted = pair.dumps()
    assert compare(wanted, found) == []
    assert compare(without_counters(source), without_counters(found)) == []
    return compacted


def without_counters(dump: Any) -> Any:
    """A source's know of values that were rolled back."""
    for schema in dump.values():
        for table in schema["tables"].values():
            table["counter"] = None
    return dump


@pytest.mark.parametrize("seed", range(2))
def test_random_histories(pair: Pair, seed: int) -> None:
    history = RowHistory(pair.source.flavour, seed)
    run(pair, *history.schema())
    for session in history.sessions(SESSIONS):
        run(pair, *session)
    assert twice(pair).conflicts == 0


COUNTED = "CREATE TABLE t (id INT AUTO_INCREMENT PRIMARY KEY, u INT UNIQUE)"
NEXT_BATCH = "CREATE TABLE next_batch (a INT)"


class Told(Quiet):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def log(self, line: str) -> None:
        self.lines.append(line)


SWAP = ("UPDATE t SET u = 9 WHERE id = 1", "UPDATE t SET u = 1 WHERE id = 2", "UPDATE t SET u = 2 WHERE id = 1")


def test_a_swap_of_unique_values_meets_no_conflict(pair: Pair) -> None:
    pair.run(SCHEMA, USE, COUNTED, "INSERT INTO t VALUES (1, 1), (2, 2)", NEXT_BATCH, *SWAP)
    assert twice(pair).conflicts == 0


def test_a_conflict_is_replayed_as_it_was_logged_counted_and_told(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Changes, "_stays", lambda *_: True)
    pair.run(SCHEMA, USE, COUNTED, "INSERT INTO t VALUES (1, 1), (2, 2)", NEXT_BATCH, *SWAP)
    run = Told()
    assert twice(pair, run=run).conflicts == 1
    assert run.lines == [
        "1 times so far the target refused changes in their short form (error 1062): they were replayed one by one."
    ]


def test_a_number_that_was_given_out_is_not_given_again(pair: Pair) -> None:
    pair.run(SCHEMA, USE, COUNTED, "INSERT INTO t VALUES (1, 1)", NEXT_BATCH)
    pair.run(USE, "INSERT INTO t VALUES (7, 2), (500, 3)", "DELETE FROM t WHERE id = 500")
    twice(pair)
    with pair.target.connect() as connection:
        (table,) = [table for name, table in dump_all(connection)["shop"]["tables"].items() if name == "t"]
    assert table["counter"] == b"501"


def test_the_id_zero_stays_zero(pair: Pair) -> None:
    pair.run(
        SCHEMA,
        USE,
        COUNTED,
        NEXT_BATCH,
        "SET sql_mode = 'NO_AUTO_VALUE_ON_ZERO'",
        "INSERT INTO t VALUES (0, 1), (5, 2)",
    )
    twice(pair)


def test_a_counter_is_raised_whatever_character_set_the_last_statement_had(pair: Pair) -> None:
    named = ("CREATE DATABASE `日`", "CREATE TABLE `日`.t (id INT AUTO_INCREMENT PRIMARY KEY)")
    foreign = ("SET NAMES sjis", NEXT_BATCH, "SET NAMES utf8mb4")
    run(pair, SCHEMA, USE, *named, *foreign, "INSERT INTO `日`.t VALUES (7)", "DELETE FROM `日`.t")
    twice(pair)
