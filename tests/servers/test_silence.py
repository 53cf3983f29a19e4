"""A server that says nothing is waited for as long as it lives, and left once it answers nobody."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pymysql
import pytest
from pymysql.constants import CLIENT

from backups.engine.errors import Transient
from backups.engine.mysql import indexes, line, packets, server, tsv
from backups.engine.mysql.server import Connection, ServerConfig, connect, explain, value
from backups.engine.types import Quiet
from everest.demo.servers import Server, free_port
from tests.helpers import compare, source_config, target_config, wait_for
from tests.servers.backups import archive_in, back_up, put_back, script
from tests.servers.replaying import Pair

FLAVOURS = pytest.mark.parametrize("flavour", ["mysql", "mariadb"])
ENDLESS = "SELECT SLEEP(1000)"


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(line, "SILENCE", 0.6)
    monkeypatch.setattr(line, "LOOK", 0.1)
    monkeypatch.setattr(indexes, "POLL_SECONDS", 0.1)
    monkeypatch.setattr(packets, "POLL_SECONDS", 0.1)
    monkeypatch.setattr(server, "ANSWER", 0.5)


class Stopper:
    """Stops servers as a debugger or a machine without memory does; they go on when the test is over."""

    def __init__(self) -> None:
        self.pids: set[int] = set()

    def stop(self, one: Server) -> None:
        self.pids.add(one.pid)
        os.kill(one.pid, signal.SIGSTOP)
        stats = Path(f"/proc/{one.pid}/task").glob("*/stat")
        for stat in stats:
            wait_for(lambda stat=stat: not stat.exists() or stat.read_text().rpartition(") ")[2][0] == "T")

    def go_on(self) -> None:
        for pid in self.pids:
            os.kill(pid, signal.SIGCONT)
        self.pids.clear()


@pytest.fixture
def stopper() -> Iterator[Stopper]:
    made = Stopper()
    yield made
    made.go_on()


@pytest.fixture
def pair(flavour: str, request: Any) -> Pair:
    found: Pair = request.getfixturevalue(f"{flavour}_pair")
    return found


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """What servers that were silent said when they were asked."""
    said: list[bool] = []
    answers = server._answers

    def noted(config: ServerConfig) -> bool:
        said.append(answers(config))
        return said[-1]

    monkeypatch.setattr(server, "_answers", noted)
    return said


@FLAVOURS
@pytest.mark.parametrize("tls", ["required", "off"])
def test_a_statement_that_is_silent_for_long_is_waited_for(pair: Pair, tls: str, asked: list[bool]) -> None:
    with closing(connect(source_config(pair.source, tls=tls))) as connection:
        assert value(connection, "SELECT SLEEP(2)") == 0
        assert asked and all(asked)
        assert value(connection, "SELECT 1") == 1
        assert list(tsv.select(connection, "SELECT SLEEP(1), 'x'", lambda: None)) == [(b"0\tx\n", 1)]
        assert value(connection, "SELECT 2") == 2


def query(config: ServerConfig, connection: Connection, began: Callable[[], None]) -> None:
    connection._execute_command(3, ENDLESS)
    began()
    connection._read_query_result()


def rows(config: ServerConfig, connection: Connection, began: Callable[[], None]) -> None:
    list(tsv.select(connection, ENDLESS, began))


def index(config: ServerConfig, connection: Connection, began: Callable[[], None]) -> None:
    indexes._patiently(config, connection, ENDLESS, began)


def load(config: ServerConfig, connection: Connection, began: Callable[[], None]) -> None:
    def lines() -> Iterator[bytes]:
        yield b"1\t1\n"
        began()
        while True:
            yield b"2\t%b\n" % (b"x" * 300_000)

    tsv.load(connection, "LOAD DATA LOCAL INFILE 'x' INTO TABLE s.t", lines())


@FLAVOURS
@pytest.mark.parametrize("tls", ["required", "off"])
@pytest.mark.parametrize("work", [query, rows, index, load])
def test_a_server_that_stands_still_is_left(pair: Pair, stopper: Stopper, tls: str, work: Any) -> None:
    script(pair.target, ["SET GLOBAL local_infile = ON", "CREATE DATABASE s", "CREATE TABLE s.t (id INT, v LONGTEXT)"])
    config = target_config(pair.target, tls=tls)
    connection = connect(config, client_flag=CLIENT.LOCAL_FILES)
    with pytest.raises(pymysql.MySQLError) as caught:
        work(config, connection, lambda: stopper.stop(pair.target))
    told = explain(caught.value, "It")
    assert isinstance(told, Transient) and "the server hangs, it has said nothing for" in str(told)
    connection._force_close()
    stopper.go_on()
    with closing(connect(config)) as connection:
        assert value(connection, "SELECT COUNT(*) FROM s.t") == 0


class Stopping(Quiet):
    """Stops a server once a run has come to a step."""

    def __init__(self, step: str, stop: Callable[[], None]) -> None:
        self.step, self.stop = step, stop

    def progress(self, step: str, done: int = 0, total: int = 0, unit: str = "") -> None:
        if step == self.step:
            self.stop()


@FLAVOURS
def test_a_backup_and_a_restore_of_a_server_that_stands_still_end(pair: Pair, stopper: Stopper, tmp_path: Path) -> None:
    script(pair.source, [
        "CREATE DATABASE s",
        "CREATE TABLE s.t (id INT PRIMARY KEY, v LONGTEXT) AS SELECT 1 AS id, REPEAT('x', 3000000) AS v",
        *(f"INSERT INTO s.t VALUES ({number}, REPEAT('y', 3000000))" for number in range(2, 8)),
        "CREATE VIEW s.w AS SELECT id FROM s.t",
    ])  # fmt: skip
    archive = archive_in(tmp_path / "bucket")
    config = source_config(pair.source)
    with pytest.raises(Transient, match="Reading from the server failed: the server hangs"):
        back_up(config, archive, run=Stopping("rows", lambda: stopper.stop(pair.source)))
    stopper.go_on()
    manifest = back_up(config, archive)
    with pytest.raises(Transient, match="the server hangs"):
        run = Stopping("load", lambda: stopper.stop(pair.target))
        put_back(target_config(pair.target), pair.target, archive, manifest, run=run)
    stopper.go_on()
    put_back(target_config(pair.target), pair.target, archive, manifest, replace=True)
    assert compare(*pair.dumps()) == []


def test_only_silence_is_no_answer(mysql_source: Server, stopper: Stopper) -> None:
    config = source_config(mysql_source)
    assert server._answers(config) and server._answers(replace(config, password="wrong"))
    assert not server._answers(replace(config, port=free_port()))
    script(mysql_source, [f"ALTER USER '{config.user}'@'%' WITH MAX_USER_CONNECTIONS 1"])
    with closing(connect(config)):
        assert server._answers(config)
    stopper.stop(mysql_source)
    assert not server._answers(config)
