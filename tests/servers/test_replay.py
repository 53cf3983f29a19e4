"""Replay of slices on MySQL: every kind of statement and session, compared object by object and row by row."""

from __future__ import annotations

from typing import Any

import pytest

from tests.helpers import compare
from tests.servers.replaying import Pair

SCHEMA = "CREATE DATABASE shop"
USE = "USE shop"
T = "CREATE TABLE t (id INT PRIMARY KEY AUTO_INCREMENT, v VARCHAR(200), n INT, at DATETIME(6), ts TIMESTAMP NULL)"


@pytest.fixture
def mysql(mysql_source: Any, mysql_target: Any) -> Pair:
    return Pair(mysql_source, mysql_target)


@pytest.fixture
def mariadb(mariadb_source: Any, mariadb_target: Any) -> Pair:
    return Pair(mariadb_source, mariadb_target)


def same(pair: Pair) -> None:
    pair.replay()
    first, second = pair.dumps()
    assert compare(first, second) == []
    assert first


def test_rows_of_many_transactions(mysql: Pair) -> None:
    mysql.run(SCHEMA, USE, T, *(f"INSERT INTO t (v, n) VALUES ('a{n}', {n})" for n in range(1200)))
    mysql.run(USE, "UPDATE t SET v = 'b' WHERE n % 3 = 0", "DELETE FROM t WHERE n % 5 = 0")
    same(mysql)
