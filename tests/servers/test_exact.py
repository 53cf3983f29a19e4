"""Exactness: restores to noted moments of a server that several writers change, every table compared."""

from __future__ import annotations

import time
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from backups.engine import moments
from backups.engine.types import Moment, Transaction
from everest.demo.servers import Server
from tests.helpers import compare, dump_all
from tests.servers.history import History, Noted, Writers

BLUNDERS = {
    "dropped": "DROP TABLE dropped",
    "truncated": "TRUNCATE TABLE truncated",
    "emptied": "DELETE FROM emptied",
    "customers": "UPDATE customers SET name = 'same', a = 0, b = 0, c = NULL, d = 1.5, e = REPEAT('x', 9)",
}


class Told:
    """A history with what was noted in it, by name."""

    def __init__(self, history: History) -> None:
        self.history = history
        self.noted: dict[str, Noted] = {}


def told(server: Server, folder: Path) -> Told:
    """Two backups, the second under load; moments a second apart and within one; blunders; slices over all of it."""
    story = Told(History(server, folder))
    history, noted = story.history, story.noted
    with Writers(server) as writers:
        time.sleep(0.3)
        with writers.paused():
            history.back_up()
            noted["before the first slice"] = history.note()
        time.sleep(0.5)
        history.ship()
        with writers.paused():
            noted["first"] = history.note()
        time.sleep(max(0.0, noted["first"].time_us / 1e6 + 1 - time.time()))
        with writers.paused():
            noted["a second later"] = history.note()
        history.back_up()
        time.sleep(0.2)
        with writers.paused():
            time.sleep(1 - time.time() % 1)  # a new second begins
            history.execute("INSERT INTO log VALUES ('before the edge', 1)")
            noted["within a second"] = history.note()
            history.execute("INSERT INTO log VALUES ('behind the edge', 2)")
        time.sleep(0.2)
        for table, blunder in BLUNDERS.items():
            with writers.paused():
                noted[table] = history.note()
                history.execute(blunder)
    noted["latest"] = history.note()
    history.ship()
    return story


def weight(item: Transaction, table: str) -> int:
    """How much of a blunder a transaction is; writers touch few customers at once, and never the other three."""
    changes = [change for change in item.changes if change.table == table]
    ddl = item.ddl.startswith(("DROP", "TRUNCATE")) and 10**6
    return max((ddl + change.deletes + change.updates for change in changes), default=0)


def moment_of(story: Told, name: str, by_time: bool) -> Moment:
    history = story.history
    if name == "latest":
        return history.moment(moments.latest)
    if name in BLUNDERS:
        found = max(history.transactions, key=lambda item: weight(item, name))
        return history.moment(moments.before_gtid, found.identity)
    if by_time:
        return history.moment(moments.at_time, story.noted[name].time_us)
    return Moment(story.noted[name].position, None, None)


def check(story: Told, target: Server, moment: Moment, expected: Noted, backup: str = "") -> None:
    result = story.history.restore(target, moment, backup)
    assert result.last == (moment.last.identity if moment.last and result.transactions else result.last)
    with target.connect() as connection:
        found = dump_all(connection)
    assert compare(without_counters(expected.content), without_counters(found)) == []
    for name, table in found["shop"]["tables"].items():
        if table["counter"]:  # ids that a ROLLBACK burnt are in no log, but no used one is given out again
            ids = [int(row[0]) for row in table["rows"]]
            assert (
                max(ids, default=0) < int(table["counter"]) <= int(expected.content["shop"]["tables"][name]["counter"])
            )


def without_counters(content: Any) -> Any:
    content = deepcopy(content)
    for table in content["shop"]["tables"].values():
        del table["counter"]
    return content


@pytest.mark.parametrize(("source", "target"), [("mariadb_source", "mariadb_target"), ("mysql_files", "mysql_target")])
def test_to_every_noted_place(source: str, target: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """Where commit times are not exact, or there are no GTIDs: moments are given by their place in the log."""
    to = request.getfixturevalue(target)
    story = told(request.getfixturevalue(source), tmp_path)
    for name, expected in story.noted.items():
        check(story, to, moment_of(story, name, by_time=False), expected)


def test_mysql_to_every_noted_moment(mysql_source: Server, mysql_target: Server, tmp_path: Path) -> None:
    story = told(mysql_source, tmp_path)
    history = story.history
    seconds = {item.time_us // 10**6 for index in history.indexes for item in index.transactions}
    assert len(history.points) > 5
    assert len(seconds) >= 3
    for name, expected in story.noted.items():
        check(story, mysql_target, moment_of(story, name, by_time=True), expected)
    expected = story.noted["within a second"]
    later = history.moment(moments.at_time, expected.time_us)
    first, second = (manifest.backup for manifest in history.manifests)
    assert history.plan(later).backup.id == second
    check(story, mysql_target, later, expected, backup=first)
