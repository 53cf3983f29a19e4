"""When a transaction counts: by its commit, in UTC, whatever the clocks of statements, sessions and servers say."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from backups.engine import moments
from everest.demo.servers import Server
from tests.helpers import compare
from tests.servers.history import History
from tests.servers.test_restore import content


def now_us() -> int:
    return time.time_ns() // 1000


def next_second() -> None:
    """MariaDB knows seconds only."""
    time.sleep(1.1 - time.time() % 1)


def check(history: History, target: Server, time_us: int, expected: Any) -> None:
    history.restore(target, history.moment(moments.at_time, time_us))
    assert compare(expected, content(target)) == []


def test_a_transaction_counts_from_its_commit_on(mysql_source: Server, mysql_target: Server, tmp_path: Path) -> None:
    """Its events carry the time of their statements, which lies before what others committed meanwhile."""
    history = History(mysql_source, tmp_path)
    history.back_up()
    with mysql_source.connect(database="shop") as slow:
        slow.query("BEGIN")
        slow.query("INSERT INTO log VALUES ('slow', 1)")
        next_second()
        history.execute("INSERT INTO log VALUES ('quick', 2)")
        between, expected = now_us(), content(mysql_source)
        next_second()
        slow.query("COMMIT")
    history.execute("INSERT INTO log VALUES ('after', 3)")
    history.ship()
    check(history, mysql_target, between, expected)
    quick, late, after = (item for item in history.transactions if item.changes)
    assert quick.time_us <= between < late.time_us <= after.time_us


@pytest.mark.parametrize("flavour", ["mysql", "mariadb"])
@pytest.mark.parametrize("wrong", [86_400, 2_000_000_000])
def test_a_session_whose_clock_is_wrong_moves_no_moment(
    flavour: str, wrong: int, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    source, target = (request.getfixturevalue(f"{flavour}_{role}") for role in ("source", "target"))
    history = History(source, tmp_path)
    history.back_up()
    for n in range(5):
        history.execute(f"INSERT INTO log VALUES ('before', {n})")
    with source.connect(database="shop") as session:
        session.query(f"SET timestamp = {wrong}")
        session.query("INSERT INTO log VALUES ('lost in time', 0)")
    for n in range(5):
        history.execute(f"INSERT INTO log VALUES ('after', {n})")
    moment, expected = now_us(), content(source)
    next_second()
    for n in range(5):
        history.execute(f"INSERT INTO log VALUES ('too late', {n})")
    history.ship()
    check(history, target, moment, expected)


def test_zones_of_server_and_session_move_no_moment(
    new_server: Callable[..., Server], mysql_target: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TZ", "Asia/Kathmandu")
    source = new_server("mysql", options=("--default-time-zone=-07:00",))
    history = History(source, tmp_path)
    began = now_us()
    manifest = history.back_up()
    history.execute("INSERT INTO log VALUES ('in', 1)")
    moment, expected = now_us(), content(source)
    time.sleep(0.01)
    history.execute("INSERT INTO log VALUES ('out', 2)")
    history.ship()
    assert began <= manifest.view_us <= next(item.time_us for item in history.transactions if item.changes) <= moment
    check(history, mysql_target, moment, expected)
