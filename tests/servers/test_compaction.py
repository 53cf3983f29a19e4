"""Compacted and verbatim replay give the same rows, definitions and counters, and those of the source."""

from __future__ import annotations

import pymysql
import pytest

from backups.engine.mysql import batch
from backups.engine.mysql.replay import ReplayResult
from tests.helpers import compare, dump_all
from tests.servers.replaying import Pair, clean_schemas
from tests.servers.row_histories import RowHistory

SESSIONS = 150


@pytest.fixture(autouse=True)
def nothing_is_too_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch, "SMALL", 0)


def run(pair: Pair, *statements: str) -> None:
    """One session; what the server refuses of it is left out."""
    with pair.source.connect(init_command="SET NAMES utf8mb4") as session, session.cursor() as cursor:
        for statement in statements:
            try:
                cursor.execute(statement)
            except pymysql.MySQLError as error:
                assert error.args[0] in REFUSED, (statement, error)


# Duplicates, foreign keys, values out of range, columns that are not there or not to be set, no such savepoint ...
REFUSED = (1062, 1451, 1452, 1264, 1690)


def twice(pair: Pair) -> ReplayResult:
    """Replay compacted, then verbatim, and compare."""
    compacted = pair.replay()
    with pair.target.connect() as connection:
        found = dump_all(connection)
        clean_schemas(connection)
    verbatim = pair.replay(compact=False)
    assert verbatim.conflicts == 0
    source, wanted = pair.dumps()
    assert compare(wanted, found) == []
    assert compare(without_counters(source), without_counters(found)) == []
    return compacted


def without_counters(dump):
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
