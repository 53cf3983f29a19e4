"""Timelines over what happens to servers: failover, a forked log, a purge while a backup runs, a slow storage."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from backups import queue, shipping
from backups.engine.errors import Gap, Transient
from backups.engine.mysql import dump
from backups.engine.types import Quiet
from backups.models import Database, Slice, Timeline
from everest.demo import accounts
from everest.demo.servers import Server
from storages.models import BackupStorage
from tests.helpers import compare, wait_for
from tests.servers.capturing import Source, transactions, used_up
from tests.servers.test_work import add, back_up, content, register, restore, sql

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def storage(settings: Any, tmp_path: Any) -> BackupStorage:
    settings.EVEREST_LOCAL_ROOT = tmp_path
    (tmp_path / "disk").mkdir()
    return BackupStorage.objects.create(name="disk", type="local", bucket="disk")


@pytest.fixture
def other(mysql_target: Server, storage: BackupStorage) -> Database:
    return register(mysql_target, "other")


def make_shop(server: Server, storage: BackupStorage) -> Database:
    sql(server, "CREATE DATABASE shop", "CREATE TABLE shop.orders (id INT PRIMARY KEY, what VARCHAR(20))")
    add(server, 1)
    return register(server, "shop", pitr=True, pitr_storage=storage, pitr_interval=1)


def drain(database: Database) -> None:
    database.refresh_from_db()
    shipping.drain(database, Quiet())


def test_the_address_may_point_to_a_replica_that_took_over(
    new_server: Callable[..., Server], mysql_target: Server, storage: BackupStorage, other: Database
) -> None:
    first, second = new_server("mysql"), new_server("mysql")
    sql(second, "RESET BINARY LOGS AND GTIDS")
    user, password = accounts.create(first, "source", "target")
    place = f"SOURCE_HOST = '127.0.0.1', SOURCE_PORT = {first.port}, SOURCE_AUTO_POSITION = 1, SOURCE_SSL = 1"
    sql(second, f"CHANGE REPLICATION SOURCE TO {place}, SOURCE_USER = '{user}', SOURCE_PASSWORD = '{password}'")
    sql(second, "START REPLICA")
    shop = make_shop(first, storage)
    back_up(shop)
    add(first, 2)
    drain(shop)
    add(first, 3)  # committed, not shipped, and on the replica
    wait_for(lambda: content(second) == content(first), 20)
    first.kill()
    sql(second, "STOP REPLICA", "RESET REPLICA ALL")
    Database.objects.filter(pk=shop.pk).update(port=second.port)
    add(second, 4)
    drain(shop)
    back_up(shop)
    assert shop.timelines.count() == 1 and shop.gap() is None
    restore(shop, other)
    assert not compare(content(second), content(mysql_target))


def test_a_forked_log_begins_a_new_timeline_and_the_old_one_stays_restorable(
    mysql_source: Server, mysql_target: Server, storage: BackupStorage, other: Database
) -> None:
    shop = make_shop(mysql_source, storage)
    back_up(shop)
    for number in (2, 3):
        add(mysql_source, number)
    drain(shop)
    before = content(mysql_source)
    sql(mysql_source, "RESET BINARY LOGS AND GTIDS")
    for number in (4, 5, 6, 7, 8, 9, 10, 11, 12):
        add(mysql_source, number)
    with pytest.raises(Gap):
        drain(shop)
    assert shop.gap().end_reason == Timeline.FORK
    back_up(shop)
    add(mysql_source, 13)
    drain(shop)
    assert shop.gap() is None and shop.open_timeline.number == 2
    row = restore(shop, other)
    assert not compare(content(mysql_source), content(mysql_target))
    restore(shop, other, "time", "other", moment_us=shop.ranges()[0].last_us)
    assert row.timeline is None and not compare(before, content(mysql_target))


def test_the_log_may_be_purged_while_a_backup_runs(
    mysql_source: Server, mysql_target: Server, storage: BackupStorage, other: Database
) -> None:
    """Shipping does not wait for the backup: what the server throws away meanwhile is in the bucket."""
    shop = make_shop(mysql_source, storage)
    sql(mysql_source, f"REVOKE BACKUP_ADMIN ON *.* FROM '{shop.user}'@'%'")  # its lock would keep the log

    class Meanwhile(Quiet):
        shipped = 0

        def log(self, line: str) -> None:
            if "read view is open" in line and not self.shipped:
                add(mysql_source, 2)
                drain(shop)
                self.shipped = Slice.objects.count()
                sql(mysql_source, "FLUSH BINARY LOGS", "PURGE BINARY LOGS BEFORE NOW(6) + INTERVAL 1 DAY")

    run = Meanwhile()
    backup = shop.backup_now()
    job = queue.run_job_now(backup.job, run)
    assert job.state == "succeeded", job.error
    assert run.shipped
    add(mysql_source, 3)
    drain(shop)
    assert shop.timelines.count() == 1 and shop.gap() is None
    restore(shop, other)
    assert not compare(content(mysql_source), content(mysql_target))


def test_a_server_that_a_slow_storage_kept_waiting_lets_go_and_nothing_is_lost(
    mysql_source: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server's own limit ends the session, so its log can be purged; the next run goes on behind the last slice."""
    monkeypatch.setattr(dump, "WRITE_TIMEOUT", 1)
    source = Source(mysql_source, by_place=False)
    source.run("CREATE TABLE t (id INT PRIMARY KEY AUTO_INCREMENT, v LONGTEXT)")
    start = source.position()
    source.run(*["INSERT INTO t (v) VALUES (REPEAT('x', 2000000))"] * 12)
    got: list[Any] = []
    with pytest.raises(Transient):
        for chunk in source.chunks(start, max_bytes=1 << 20):
            got.append(used_up(chunk))
            if len(got) == 1:
                wait_for(lambda: not dumping(source), 10)
    assert 1 <= len(transactions(got)) < 12
    rest = source.drain(got[-1].chunk.end)
    assert len(transactions(got + rest)) == 12
    assert rest[0].chunk.start == got[-1].chunk.end


def dumping(source: Source) -> bool:
    with source.connection.cursor() as cursor:
        cursor.execute("SELECT COUNT(*) FROM information_schema.processlist WHERE command LIKE 'Binlog Dump%'")
        return bool(cursor.fetchone()[0])
