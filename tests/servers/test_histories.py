"""Timelines over what happens to servers: failover, a forked log, a purge while a backup runs, a slow storage."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from backups import catalog, leases, queue, shipping, sweeping, ticking
from backups.engine.errors import Gap, Transient
from backups.engine.mysql import dump
from backups.engine.types import Quiet
from backups.models import Backup, Database, Job, Schedule, Slice, Timeline
from everest.demo import accounts
from everest.demo.servers import Server
from storages.models import BackupStorage
from storages.stores import Denied
from storages.stores.local import LocalStore
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


def test_a_log_that_is_reset_between_the_backup_and_the_first_slice_is_a_fork(
    mysql_source: Server, storage: BackupStorage
) -> None:
    shop = make_shop(mysql_source, storage)
    back_up(shop)
    time.sleep(1.1)  # a log file's birth is known to the second
    sql(mysql_source, "RESET BINARY LOGS AND GTIDS")
    for number in range(2, 20):
        add(mysql_source, number)
    with pytest.raises(Gap):
        drain(shop)
    assert shop.gap().end_reason == Timeline.FORK


def test_a_backup_after_a_reset_that_shipping_has_not_seen_lies_on_a_timeline_of_its_own(
    mysql_source: Server, mysql_target: Server, storage: BackupStorage, other: Database
) -> None:
    shop = make_shop(mysql_source, storage)
    back_up(shop)
    for number in range(2, 20):
        add(mysql_source, number)
    drain(shop)
    before = content(mysql_source)
    sql(mysql_source, "RESET BINARY LOGS AND GTIDS")
    add(mysql_source, 20)
    assert back_up(shop).timeline.number == 2
    assert shop.timelines.get(number=1).end_reason == Timeline.FORK
    restore(shop, other, "latest", timeline=shop.timelines.get(number=1))
    assert not compare(before, content(mysql_target))


def test_log_that_was_shipped_since_the_last_backup_may_be_purged(mysql_source: Server, storage: BackupStorage) -> None:
    shop = make_shop(mysql_source, storage)
    back_up(shop)
    add(mysql_source, 2)
    drain(shop)
    sql(mysql_source, "FLUSH BINARY LOGS", "PURGE BINARY LOGS BEFORE NOW(6) + INTERVAL 1 DAY")
    assert back_up(shop).timeline.number == 1 and shop.open_timeline.number == 1


def test_a_backup_during_which_the_log_is_reset_starts_again_on_a_new_timeline(
    mysql_source: Server, storage: BackupStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = make_shop(mysql_source, storage)
    back_up(shop)
    add(mysql_source, 2)
    drain(shop)
    write = catalog.write_description

    def reset_first(database: Database) -> None:
        monkeypatch.setattr(catalog, "write_description", write)
        sql(mysql_source, "RESET BINARY LOGS AND GTIDS")
        write(database)

    monkeypatch.setattr(catalog, "write_description", reset_first)
    second = shop.backup_now("second", ring=False)
    job = second.jobs.get()
    assert queue.run_job_now(job).state == Job.PENDING
    assert not list(shop.archive(storage).backups(str(shop.timelines.get(number=1).pk)))[1:]
    assert queue.run_job_now(job).state == Job.SUCCEEDED
    second.refresh_from_db()
    assert second.timeline.number == 2


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


def test_a_backup_that_a_gap_overtook_is_followed_by_another_at_once(
    mysql_source: Server, mysql_target: Server, storage: BackupStorage, other: Database
) -> None:
    shop = make_shop(mysql_source, storage)
    back_up(shop)
    sql(mysql_source, f"REVOKE BACKUP_ADMIN ON *.* FROM '{shop.user}'@'%'")
    add(mysql_source, 2)

    class Meanwhile(Quiet):
        def log(self, line: str) -> None:
            if "read view is open" in line:
                add(mysql_source, 3)
                sql(mysql_source, "FLUSH BINARY LOGS", "PURGE BINARY LOGS BEFORE NOW(6) + INTERVAL 1 DAY")
                with pytest.raises(Gap):
                    drain(shop)

    overtaken = shop.backup_now()
    assert queue.run_job_now(overtaken.job, Meanwhile()).state == "succeeded"
    assert shop.gap()
    queue.run_job_now(shop.backups.get(state="pending").job)
    add(mysql_source, 4)
    drain(shop)
    assert shop.gap() is None and shop.open_timeline.number == 2
    assert not shop.backups.filter(state="pending").exists()
    restore(shop, other)
    assert not compare(content(mysql_source), content(mysql_target))


def test_installations_and_databases_of_one_name_share_a_bucket_and_never_mix(
    mysql_source: Server, mysql_target: Server, new_server: Callable[..., Server], storage: BackupStorage
) -> None:
    """The first installation's rows are gone when the second registers a server of the same name."""
    mine = make_shop(mysql_source, storage)
    back_up(mine)
    add(mysql_source, 2)
    drain(mine)
    first, known = content(mysql_source), mine.pk
    mine.forget()
    theirs = make_shop(mysql_target, storage)
    for number in (20, 21):
        add(mysql_target, number)
        gone = back_up(theirs)
        drain(theirs)
    queue.run_job_now(gone.request_delete("ann"))
    assert catalog.rebuild(storage).databases == 2
    again = Database.objects.get(name="shop-2")
    assert (again.pk, again.paused, theirs.backups.count()) == (known, True, 1)
    third = new_server("mysql")
    target = register(third, "third")
    restore(again, target)
    assert not compare(first, content(third))
    restore(theirs, target, replace="third")
    assert not compare(content(mysql_target), content(third))


def test_what_was_rebuilt_from_a_bucket_rests(mysql_source: Server, storage: BackupStorage) -> None:
    shop = make_shop(mysql_source, storage)
    Schedule.objects.create(database=shop, storage=storage, name="often", cron="* * * * *")
    back_up(shop)
    catalog.write_description(shop)
    before = shop.archive(storage).read_database()
    shop.forget()
    catalog.rebuild(storage)
    again = Database.objects.get()
    Schedule.objects.update(next_run=timezone.now())
    Database.objects.update(name="renamed", created_at=timezone.now() - timedelta(days=99))
    ticking.start_schedules(), ticking.check_databases()
    assert again.pitr and again.paused and not leases.due().exists() and not Job.objects.exists()
    again.refresh_from_db()
    catalog.write_description(again)
    assert again.archive(storage).read_database() == before


def test_deletions_that_are_refused_are_shown_once_and_tried_again_later(
    mysql_source: Server, storage: BackupStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = make_shop(mysql_source, storage)
    schedule = Schedule.objects.create(
        database=shop, storage=storage, name="often", cron="* * * * *", retention_copies=1
    )
    back_up(shop)
    for _ in range(2):
        back_up(shop, schedule=schedule, name="x")
        Backup.objects.filter(name__startswith="often").update(name=uuid.uuid4().hex)

    def refuse(store: LocalStore, keys: Iterable[str]) -> None:
        raise Denied("The bucket keeps every object for 30 days.", hint="Wait.")

    with monkeypatch.context() as locked:
        locked.setattr(LocalStore, "delete", refuse)
        sweep = queue.run_job_now(Job.objects.get(kind=Job.DELETE))
        assert sweep.state == Job.FAILED and "for 30 days" in sweep.error and "disk" in sweep.error
        marked = shop.backups.get(state=Backup.DELETING)
        assert "for 30 days" in marked.error and shop.backups.count() == 3
        sweeping.enqueue(shop)
        assert not Job.objects.filter(kind=Job.DELETE, state=Job.PENDING).exists()
    Job.objects.update(finished_at=timezone.now() - timedelta(days=2))
    sweeping.enqueue(shop)
    assert queue.run_job_now(Job.objects.get(kind=Job.DELETE, state=Job.PENDING)).state == Job.SUCCEEDED
    assert shop.backups.count() == 2
