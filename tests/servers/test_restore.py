"""Restore as one run: what it refuses before it touches anything, what it leaves behind, that it can be repeated."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pymysql
import pytest

from backups.engine import moments
from backups.engine.errors import Corrupt, Refused, Stopped
from backups.engine.mysql import target as targets
from backups.engine.mysql.restore import RestoreResult
from everest.demo.servers import Server
from tests.helpers import compare, dump_all, source_config, target_config, wait_for
from tests.servers.backups import Told
from tests.servers.history import STORAGE, History
from tests.servers.replaying import execute

GUARDED = ("read_only", "super_read_only", "event_scheduler", "local_infile", "log_bin_trust_function_creators")


@pytest.fixture
def history(mysql_source: Server, tmp_path: Path) -> History:
    """A backup and slices after it."""
    story = History(mysql_source, tmp_path)
    story.back_up()
    for n in range(30):
        story.execute(f"INSERT INTO log VALUES ('line {n}', {n})")
    story.execute("CREATE DATABASE later")
    story.execute("CREATE TABLE later.t (a INT)")
    story.ship()
    return story


def restore(history: History, target: Server, **options: Any) -> RestoreResult:
    return history.restore(target, history.moment(moments.latest), **options)


def content(server: Server) -> Any:
    with server.connect() as connection:
        return dump_all(connection)


def settings(server: Server) -> dict[str, str]:
    with server.connect() as connection, connection.cursor() as cursor:
        cursor.execute("SHOW GLOBAL VARIABLES WHERE Variable_name IN %s", (GUARDED,))
        return dict(cursor.fetchall())


def test_an_empty_target_takes_it_and_has_its_settings_back(history: History, mysql_target: Server) -> None:
    before, told = settings(mysql_target), Told()
    result = restore(history, mysql_target, replace=False, run=told)
    assert compare(content(history.server), content(mysql_target)) == []
    assert settings(mysql_target) == before
    assert (result.schemas, result.rows) == (1, 9)
    assert result.transactions == len(history.transactions)
    assert {"load", "replay"} <= {step for step, *_ in told.steps}


def test_the_application_is_kept_out_meanwhile(history: History, mysql_target: Server) -> None:
    seen: list[dict[str, str]] = []
    refused: list[int] = []
    config = target_config(mysql_target)
    execute(mysql_target, "CREATE USER app IDENTIFIED BY 'app'", "GRANT ALL ON shop.* TO app")
    execute(mysql_target, "SET GLOBAL event_scheduler = ON, super_read_only = ON")

    class Application(Told):
        def progress(self, *step: Any) -> None:
            seen.append(settings(mysql_target))
            try:
                execute(mysql_target, "INSERT INTO log VALUES ('mine', 1)", user="app", password="app", database="shop")
            except pymysql.MySQLError as error:
                refused.append(error.args[0])

    try:
        restore(history, mysql_target, config=config, run=Application())
        after = settings(mysql_target)
    finally:
        execute(mysql_target, "SET GLOBAL super_read_only = OFF", "SET GLOBAL read_only = OFF")
    assert {(one["read_only"], one["event_scheduler"]) for one in seen} == {("ON", "OFF")}
    assert len(refused) == len(seen)
    assert 1290 in refused
    assert (after["super_read_only"], after["read_only"], after["event_scheduler"]) == ("ON", "ON", "ON")
    assert compare(content(history.server), content(mysql_target)) == []


def test_schemas_of_the_target_are_named_and_kept_without_replace(history: History, mysql_target: Server) -> None:
    execute(
        mysql_target, "CREATE DATABASE precious", "CREATE TABLE precious.t (a INT)", "INSERT INTO precious.t VALUES (1)"
    )
    before, told = content(mysql_target), []
    with pytest.raises(Refused, match=r"not empty: precious \(about \d+ rows\).*Nothing was changed"):
        restore(history, mysql_target, replace=False, remember=told.append)
    assert content(mysql_target) == before
    assert told == []


def test_replacing_leaves_exactly_the_schemas_of_the_moment(history: History, mysql_target: Server) -> None:
    execute(mysql_target, "CREATE DATABASE precious", "CREATE DATABASE shop", "CREATE TABLE shop.old (a INT)")
    restore(history, mysql_target, replace=True)
    assert compare(content(history.server), content(mysql_target)) == []


def test_in_place(history: History) -> None:
    moment = history.moment(moments.latest)
    expected = content(history.server)
    history.execute("DROP TABLE orders")
    history.execute("CREATE DATABASE mistake")
    history.restore(history.server, moment)
    assert compare(expected, content(history.server)) == []


def test_another_flavour_is_refused(history: History, mariadb_target: Server) -> None:
    with pytest.raises(Refused, match=r"The backup is MySQL's and the target is MariaDB .* Nothing was changed"):
        restore(history, mariadb_target)


def test_an_older_series_is_refused(history: History, mysql_target: Server) -> None:
    history.manifests[0] = replace(history.manifests[0], version="99.1.0")
    with pytest.raises(Refused, match="the target is older"):
        restore(history, mysql_target)


def test_a_target_that_takes_names_otherwise_is_refused(history: History, mysql_target: Server) -> None:
    manifest = history.manifests[0]
    settings = {**manifest.settings, "lower_case_table_names": "1"}
    history.manifests[0] = replace(manifest, settings=settings)
    with pytest.raises(Refused, match=r"lower_case_table_names is 0 on the target and 1 at the source"):
        restore(history, mysql_target)


def test_a_target_with_replicas_or_that_is_one_is_refused(
    history: History, mysql_target: Server, new_server: Callable[..., Server]
) -> None:
    replica = new_server("mysql")
    account = source_config(mysql_target)
    login = f"SOURCE_USER='{account.user}', SOURCE_PASSWORD='{account.password}', GET_SOURCE_PUBLIC_KEY=1"
    place = f"SOURCE_HOST='127.0.0.1', SOURCE_PORT={mysql_target.port}, SOURCE_AUTO_POSITION=1"
    execute(replica, f"CHANGE REPLICATION SOURCE TO {place}, {login}", "START REPLICA IO_THREAD")
    config = target_config(mysql_target)
    wait_for(lambda: targets.inspect(config).replicas)
    with pytest.raises(Refused, match="The target has replicas"):
        restore(history, mysql_target)
    with pytest.raises(Refused, match="The target is itself a replica"):
        restore(history, replica)


@pytest.mark.parametrize("where", ["load", "replay"])
def test_a_stop_is_obeyed_and_leaves_the_settings_as_they_were(
    history: History, mysql_target: Server, where: str
) -> None:
    before = settings(mysql_target)
    with pytest.raises(Stopped, match="The target holds"):
        restore(history, mysql_target, run=Told(stop_at=where))
    assert settings(mysql_target) == before
    restore(history, mysql_target)
    assert compare(content(history.server), content(mysql_target)) == []


class KillsItself(Told):
    """kill -9 of the process at the first progress of a step."""

    def progress(self, step: str, done: int = 0, total: int = 0, unit: str = "") -> None:
        if step == self.stop_at:
            os.kill(os.getpid(), signal.SIGKILL)

    def should_stop(self) -> bool:
        return False


@pytest.mark.parametrize("step", ["load", "replay"])
def test_killed_in_the_middle_and_started_again(
    history: History, mysql_target: Server, tmp_path: Path, step: str
) -> None:
    before, config = settings(mysql_target), target_config(mysql_target)
    remembered = tmp_path / "remembered"

    def remember(values: dict[str, str]) -> None:
        if not remembered.exists():
            remembered.write_text(repr(values))

    def doomed() -> None:
        restore(history, mysql_target, config=config, remember=remember, run=KillsItself(step))

    process = multiprocessing.get_context("fork").Process(target=doomed)
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    assert settings(mysql_target)["read_only"] == "ON"
    restore(history, mysql_target, config=config, remember=remember, replace=True)
    targets.put_back(config, eval(remembered.read_text()))
    targets.put_back(config, eval(remembered.read_text()))
    assert settings(mysql_target) == before
    assert compare(content(history.server), content(mysql_target)) == []


def test_a_plan_for_another_backup_is_not_carried_out(history: History, mysql_target: Server) -> None:
    moment = history.moment(moments.latest)
    history.manifests[0] = replace(history.manifests[0], position={**history.manifests[0].position, "pos": 4})
    found = history.plan(moment)
    other = replace(history.manifests[0], backup=history.manifests[0].backup, position={"pos": 5})
    history.manifests[0] = other
    with pytest.raises(Corrupt, match="another backup"):
        from backups.engine.mysql.restore import restore as run

        run(
            target_config(mysql_target),
            found,
            other,
            {STORAGE: history.archive},
            replace=True,
            remember=print,
            run=Told(),
        )


def test_a_flipped_byte_in_a_slice_is_found_before_the_target_believes_it(
    history: History, mysql_target: Server, tmp_path: Path
) -> None:
    moment = history.moment(moments.latest)
    key = history.indexes[0].data.key
    path = next(tmp_path.rglob(Path(key).name))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(Corrupt):
        history.restore(mysql_target, moment)
