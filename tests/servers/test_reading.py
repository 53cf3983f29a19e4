"""Rows read by several processes: the same backup as by one, and nothing of it where one of them fails."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pymysql
import pytest

from backups.engine.errors import Refused, Stopped, Transient
from backups.engine.forks import Shared
from backups.engine.mysql import ranges, reading
from backups.engine.mysql.line import Silent
from backups.engine.mysql.ranges import Changed
from backups.engine.mysql.reading import Reading
from everest.demo.servers import Server
from tests.bench.measures import tree
from tests.helpers import compare, dump_all, source_config, target_config, wait_for
from tests.servers.backups import Told, archive_in, back_up, put_back, script
from tests.servers.test_snapshot import FLAVOURS, pair

PROCESSES = 3
here = os.getpid()


@pytest.fixture(autouse=True)
def _processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables in ranges for each of several processes, on whatever machine this is.  Who does not stop is not ended."""
    monkeypatch.setattr(reading, "cores", lambda: PROCESSES)
    monkeypatch.setattr(reading, "GRACE", 10**9)
    monkeypatch.setattr(ranges, "RANGE", 1 << 13)
    monkeypatch.setattr(ranges, "SMALL", 1 << 13)


@pytest.fixture
def forked_part(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], Any]], None]:
    """Have something done in a fork whenever it has read a range, before it tells of it."""
    whole = Reading._part

    def before(act: Callable[[], Any]) -> None:
        def part(self: Reading, *arguments: Any) -> None:
            whole(self, *arguments)
            if os.getpid() != here:
                act()

        monkeypatch.setattr(Reading, "_part", part)

    return before


def fill(server: Server, tables: int = 4) -> None:
    script(server, ["CREATE DATABASE shop"])
    for n in range(tables):
        script(server, [f"CREATE TABLE shop.t{n} (id INT PRIMARY KEY, v VARCHAR(200), j JSON)"])
        values = ", ".join(f"({id}, REPEAT('{n}', 150), '[{id}]')" for id in range(400))
        script(server, [f"INSERT INTO shop.t{n} VALUES {values}", f"ANALYZE TABLE shop.t{n}"])


@FLAVOURS
def test_several_processes_make_one_backup(
    flavour: str,
    request: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    forked_part: Callable[[Callable[[], Any]], None],
) -> None:
    source, target = pair(request, flavour)
    fill(source)
    script(source, ["ALTER TABLE shop.t3 ENGINE = MyISAM"])  # is read under the lock, by this process
    pids = tmp_path / "pids"
    pids.mkdir()
    whole = Shared.next

    def next_one(self: Shared) -> int | None:
        """This process begins once each fork has read something."""
        if os.getpid() == here and len(self._sums) == PROCESSES:
            wait_for(lambda: len(list(pids.iterdir())) == PROCESSES - 1)
        return whole(self)

    def note() -> None:
        (pids / str(os.getpid())).touch()
        wait_for(lambda: len(list(pids.iterdir())) == PROCESSES - 1)

    forked_part(note)
    monkeypatch.setattr(Shared, "next", next_one)
    archive, run = archive_in(tmp_path / "store"), Told()
    manifest = back_up(source_config(source, tls="off"), archive, threads=4, run=run)
    assert [len(table.objects) > 2 for table in manifest.schemas[0].tables] == [True, True, True, False]
    read = sum(len(b"".join(archive.read_data(ref))) for table in manifest.schemas[0].tables for ref in table.objects)
    assert max(done for step, done, _, _ in run.steps if step == "rows") == read
    put_back(target_config(target, tls="off"), target, archive, manifest)
    assert compare(dump_all(source.connect()), dump_all(target.connect())) == []


def test_tls_sessions_are_used_by_one_process_each(mysql_source: Server, mysql_target: Server, tmp_path: Path) -> None:
    fill(mysql_source)
    archive = archive_in(tmp_path)
    manifest = back_up(source_config(mysql_source, tls="required"), archive, threads=4)
    put_back(target_config(mysql_target, tls="off"), mysql_target, archive, manifest)
    assert compare(dump_all(mysql_source.connect()), dump_all(mysql_target.connect())) == []


def test_what_only_forks_noticed_of_ranges_is_asked_of_the_table(
    mysql_source: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(mysql_source, tables=2)
    for n in range(2):
        decimal = "JSON_ARRAY(CAST('1.50' AS DECIMAL(5,2)))"
        script(mysql_source, [f"UPDATE shop.t{n} SET j = {decimal} WHERE id % 20 = 0"])
    script(mysql_source, ["ALTER TABLE shop.t1 ENGINE = MyISAM"])  # was asked before there were forks
    whole = Shared.next

    def by_forks(self: Shared) -> int | None:
        return None if os.getpid() == here and len(self._sums) == PROCESSES else whole(self)

    monkeypatch.setattr(Shared, "next", by_forks)
    manifest = back_up(source_config(mysql_source, tls="off"), archive_in(tmp_path), threads=4)
    assert [line[:18] for line in manifest.inexact] == ["20 rows of shop.t0", "20 rows of shop.t1"]


def refuse() -> None:
    raise Refused("The bucket is full.", meaning="Nothing was kept.", next_step="Make room.")


def hang() -> None:
    raise Silent(130)


def lose_the_server() -> None:
    raise pymysql.err.OperationalError(2013, "Lost connection")


@pytest.mark.parametrize(
    ("act", "error", "said"),
    [
        (refuse, Refused, "The bucket is full. Nothing was kept. Make room."),
        (hang, Transient, "Reading from the server failed: the server hangs"),
        (lose_the_server, Transient, "Reading from the server failed: the connection to the server broke"),
        (lambda: os.kill(os.getpid(), signal.SIGKILL), Transient, "ended from outside"),
    ],
)
def test_a_fork_that_fails_fails_the_backup(
    act: Callable[[], Any], error: type[Exception], said: str, mysql_source: Server, tmp_path: Path, forked_part: Any
) -> None:
    fill(mysql_source)
    forked_part(act)
    archive, before = archive_in(tmp_path), children()
    with pytest.raises(error, match=said):
        back_up(source_config(mysql_source, tls="off"), archive, threads=4)
    assert list(archive.manifests()) == [] and children() == before


def is_first(file: Path) -> bool:
    """Of all processes and threads that ask."""
    try:
        file.touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def children() -> set[int]:
    return set(tree(os.getpid()))


def test_a_fork_that_meets_a_change_starts_the_backup_again(
    mysql_source: Server, tmp_path: Path, forked_part: Any
) -> None:
    fill(mysql_source)
    once = tmp_path / "once"

    def change() -> None:
        if is_first(once):
            raise Changed("shop.t1 was changed by DDL.")

    forked_part(change)
    run = Told()
    manifest = back_up(source_config(mysql_source, tls="off"), archive_in(tmp_path / "store"), threads=4, run=run)
    assert manifest.rows == 1600 and "shop.t1 was changed by DDL. The backup starts again." in run.lines


def test_a_stop_reaches_forks_while_this_process_only_waits(mysql_source: Server, tmp_path: Path, at_work: Any) -> None:
    fill(mysql_source)
    started = at_work(lambda reading: reading.poll())
    with pytest.raises(Stopped):
        back_up(source_config(mysql_source, tls="off"), archive_in(tmp_path / "store"), threads=4, run=Asked(started))


def test_a_fork_that_does_not_stop_is_ended(
    mysql_source: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_work: Any
) -> None:
    fill(mysql_source)
    monkeypatch.setattr(reading, "GRACE", 0.1)
    started, before = at_work(lambda _: signal.pause()), children()
    with pytest.raises(Stopped):
        back_up(source_config(mysql_source, tls="off"), archive_in(tmp_path / "store"), threads=4, run=Asked(started))
    assert children() == before


class Asked(Told):
    """To stop, once this file is there; told to the thread alone that waits for forks."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.file = file

    def should_stop(self) -> bool:
        return threading.current_thread() is threading.main_thread() and self.file.exists()


@pytest.fixture
def at_work(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[Callable[[Reading], Any]], Path]:
    """Have forks do nothing but this, for ever; a file that is there once they do."""
    whole, started = Reading._part, tmp_path / "started"

    def instead(act: Callable[[Reading], Any]) -> Path:
        def part(self: Reading, *arguments: Any) -> None:
            if os.getpid() == here:
                return whole(self, *arguments)
            started.touch()
            while True:
                act(self)

        monkeypatch.setattr(Reading, "_part", part)
        return started

    return instead


def test_the_death_of_one_stops_the_others(mysql_source: Server, tmp_path: Path, at_work: Any) -> None:
    fill(mysql_source)
    first = tmp_path / "first"

    def die_or_wait(reading: Reading) -> None:
        if is_first(first):
            os.kill(os.getpid(), signal.SIGKILL)
        reading.poll()

    at_work(die_or_wait)
    with pytest.raises(Transient, match="ended from outside"):
        back_up(source_config(mysql_source, tls="off"), archive_in(tmp_path / "store"), threads=4)


def test_nothing_more_is_begun_once_another_has_failed() -> None:
    begun: list[int] = []
    one = Reading(None, None, None, Told())  # type: ignore[arg-type]
    with Shared(3) as one.shared:
        one.shared.fail()
        with pytest.raises(Stopped):
            one._work([1, 2, 3], lambda _, number: begun.append(number), None)  # type: ignore[arg-type]
    assert begun == []


def test_a_forks_error_is_told_though_another_of_its_threads_does_not_stop(
    mysql_source: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_work: Any
) -> None:
    fill(mysql_source)
    monkeypatch.setattr(reading, "cores", lambda: 2)
    at_work(lambda _: refuse() if is_first(tmp_path / "first") else signal.pause())
    with pytest.raises(Refused, match="The bucket is full"):
        back_up(source_config(mysql_source, tls="off"), archive_in(tmp_path / "store"), threads=4)


def test_ddl_on_a_large_table_that_was_read_does_not_begin_the_backup_again(
    mysql_source: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is asked of it any more.  On MariaDB it waits for the reading transaction."""
    fill(mysql_source)
    config = source_config(mysql_source, tls="off")
    script(mysql_source, [f"REVOKE BACKUP_ADMIN ON *.* FROM '{config.user}'@'%'"])
    gather = Reading._gather

    def truncated(self: Reading, *arguments: Any) -> None:
        script(mysql_source, ["TRUNCATE shop.t1"])
        gather(self, *arguments)

    monkeypatch.setattr(Reading, "_gather", truncated)
    run = Told()
    assert back_up(config, archive_in(tmp_path), threads=4, run=run).rows == 1600
    assert not [line for line in run.lines if "again" in line]


@pytest.mark.parametrize("lost", [0, 1, 5])
def test_a_range_that_nobody_read_is_noticed(
    lost: int, mysql_source: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(mysql_source)
    whole = Shared.next
    monkeypatch.setattr(Shared, "next", lambda self: whole(self) if (number := whole(self)) == lost else number)
    archive = archive_in(tmp_path)
    with pytest.raises(RuntimeError, match="other ranges than it has"):
        back_up(source_config(mysql_source, tls="off"), archive, threads=4)
    assert list(archive.manifests()) == []


def test_one_process_reads_where_a_rate_is_given_or_a_lock_is_held(
    mysql_source: Server, tmp_path: Path, forked_part: Any
) -> None:
    fill(mysql_source)
    forked_part(refuse)
    archive = archive_in(tmp_path)
    assert back_up(source_config(mysql_source, tls="off"), archive, threads=4, rate=10**9).rows == 1600
    for n in range(4):
        script(mysql_source, [f"ALTER TABLE shop.t{n} ENGINE = MyISAM"])
    assert back_up(source_config(mysql_source, tls="off"), archive, threads=4).rows == 1600
