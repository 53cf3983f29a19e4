"""Jobs do their work on real servers: backups, slices, moments, restores, deletions, and rows that come back."""

from __future__ import annotations

import time
from typing import Any

import pytest
from django.utils import timezone

from backups import catalog, leases, moments, queue, runs, shipping, ticking
from backups.engine.errors import Gap, NotCovered, Stopped
from backups.models import Backup, Database, Job, Restore, Schedule, Slice, Timeline
from backups.models.timeline import to_us
from everest.demo import accounts
from everest.models import Event
from storages.models import BackupStorage
from tests.helpers import compare, dump_all, wait_for

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def storage(settings: Any, tmp_path: Any) -> BackupStorage:
    settings.EVEREST_LOCAL_ROOT = tmp_path
    (tmp_path / "disk").mkdir()
    settings.EVEREST_LEASE_SECONDS = 3
    return BackupStorage.objects.create(name="disk", type="local", bucket="disk")


def register(server: Any, name: str, **fields: Any) -> Database:
    user, password = accounts.create(server, "source", "target")
    made = Database.objects.create(
        name=name, host=server.host, port=server.port, user=user, password=password, **fields
    )
    made.refresh_from_db()
    return made


def shop_of(server: Any, storage: BackupStorage) -> Database:
    sql(server, "CREATE DATABASE shop", "CREATE TABLE shop.orders (id INT PRIMARY KEY, what VARCHAR(20))")
    add(server, 1)
    return register(server, "shop", pitr=True, pitr_storage=storage, pitr_interval=1)


@pytest.fixture
def shop(mysql_source: Any, storage: BackupStorage) -> Database:
    return shop_of(mysql_source, storage)


@pytest.fixture
def other(mysql_target: Any, storage: BackupStorage) -> Database:
    return register(mysql_target, "other")


def sql(server: Any, *statements: str) -> None:
    with server.connect() as connection, connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)


def add(server: Any, number: int) -> None:
    sql(server, f"INSERT INTO shop.orders VALUES ({number}, 'order {number}')")


def content(server: Any) -> Any:
    with server.connect() as connection:
        return dump_all(connection)


def last_gtid(server: Any) -> str:
    with server.connect() as connection, connection.cursor() as cursor:
        cursor.execute("SELECT @@global.gtid_executed")
        source, _, numbers = cursor.fetchone()[0].rpartition(":")
        return f"{source}:{numbers.split('-')[-1]}"


def now_us(server: Any) -> int:
    with server.connect() as connection, connection.cursor() as cursor:
        cursor.execute("SELECT CAST(UNIX_TIMESTAMP(NOW(6)) * 1000000 AS SIGNED)")
        return cursor.fetchone()[0]


def done(job: Job) -> Job:
    job = queue.run_job_now(job)
    assert job.state == Job.SUCCEEDED, job.error
    return job


def back_up(database: Database, **options: Any) -> Backup:
    backup = database.backup_now(**options)
    done(backup.job)
    backup.refresh_from_db()
    assert backup.state == Backup.SUCCEEDED
    return backup


def restore(source: Database, target: Database, moment: str = "latest", replace: str = "", **options: Any) -> Restore:
    row = Restore.request(source, target, moment, "ann", **options)
    done(row.job)
    row.refresh_from_db()
    done(row.start(replace, "ann"))
    row.refresh_from_db()
    assert row.state == Restore.SUCCEEDED
    return row


def test_a_backup_and_its_slices_bring_another_server_to_the_latest_state(shop, other, mysql_source, mysql_target):
    backup = back_up(shop)
    assert (backup.rows, backup.timeline.number, shop.open_timeline) == (1, 1, backup.timeline)
    for number in range(2, 6):
        add(mysql_source, number)
    assert shipping.drain(shop, queue.Quiet()) >= 1
    row = restore(shop, other)
    assert not compare(content(mysql_source), content(mysql_target))
    assert row.result["transactions"] == 4 and row.plan["last"]["tables"] == ["shop.orders"]
    assert (row.touched, row.target_settings) == (True, {})


def test_moments_by_time_and_gtid_are_exact(shop, other, mysql_source, mysql_target):
    back_up(shop)
    states = {}
    for number in (2, 3, 4):
        add(mysql_source, number)
        states[number] = content(mysql_source), now_us(mysql_source), last_gtid(mysql_source)
    shipping.drain(shop, queue.Quiet())
    restore(shop, other, "time", moment_us=states[3][1])
    assert not compare(states[3][0], content(mysql_target))
    row = restore(shop, other, "before", "other", moment_gtid=states[3][2])
    assert not compare(states[2][0], content(mysql_target))
    assert row.plan["next"]["identity"] == states[3][2]
    restore(shop, other, "gtid", "other", moment_gtid=states[4][2])
    assert not compare(states[4][0], content(mysql_target))


def test_a_backup_that_was_deleted_before_its_restore_was_planned_is_refused(shop, other):
    back_up(shop)
    row = Restore.request(shop, other, "backup", backup=back_up(shop))
    row.backup.delete()
    assert "was deleted meanwhile" in queue.run_job_now(row.job).error


def test_a_timeline_whose_backups_are_gone_is_refused_by_its_name(shop, other):
    timeline = back_up(shop).timeline
    row = Restore.request(shop, other, "latest", timeline=timeline)
    timeline.backups.all().delete()
    assert f"Nothing of {timeline} is restorable: it has no backup." in queue.run_job_now(row.job).error


def test_a_moment_out_of_range_is_refused_with_the_range(shop, other, mysql_source):
    back_up(shop)
    row = Restore.request(shop, other, "time", "ann", moment_us=to_us(timezone.now()) + 3_600_000_000)
    job = queue.run_job_now(row.job)
    row.refresh_from_db()
    assert job.state == Job.FAILED and "Restorable: 20" in row.error and row.plan is None
    with pytest.raises(NotCovered):
        moments.resolve(row)


def test_a_restore_in_place_keeps_the_old_history_and_begins_a_new_one(shop, mysql_source):
    back_up(shop)
    add(mysql_source, 2)
    before, gtid = content(mysql_source), last_gtid(mysql_source)
    sql(mysql_source, "DROP TABLE shop.orders")
    drop = last_gtid(mysql_source)
    shipping.drain(shop, queue.Quiet())
    row = restore(shop, shop, "before", "shop", moment_gtid=drop)
    assert not compare(before, content(mysql_source))
    assert row.plan["in_place"] and row.plan["last"]["identity"] == gtid
    old = shop.timelines.get(number=1)
    assert (old.end_reason, shop.open_timeline) == (Timeline.RESTORE, None)
    following = shop.backups.get(state=Backup.PENDING)
    done(following.job)
    assert (shop.open_timeline.number, shop.open_timeline.parent) == (2, old)
    add(mysql_source, 9)
    after = content(mysql_source)
    shipping.drain(shop, queue.Quiet())
    restore(shop, shop, "gtid", "shop", moment_gtid=drop)  # the old history, its DROP included
    assert "orders" not in str(content(mysql_source))
    done(shop.backups.get(state=Backup.PENDING).job)
    restore(shop, shop, "time", "shop", moment_us=shop.ranges()[1].last_us)
    assert not compare(after, content(mysql_source))


def test_recovery_switched_on_later_begins_at_the_newest_backup(shop, mysql_source):
    shop.set_pitr(False)
    back_up(shop, name="old")
    add(mysql_source, 3)
    back_up(shop, name="new")
    assert shop.open_timeline.start_position is None
    add(mysql_source, 2)
    shop.set_pitr(True)
    shipping.drain(shop, queue.Quiet())
    assert shop.open_timeline.start_position == shop.backups.get(name="new").position
    assert [span.first for span in shop.ranges()][-1] == shop.backups.get(name="new").view_at


def test_a_purged_log_is_a_gap_that_the_next_backup_mends(shop, mysql_source):
    back_up(shop)
    add(mysql_source, 2)
    shipping.drain(shop, queue.Quiet())
    kept = shop.ranges()[-1].last
    add(mysql_source, 3)
    sql(mysql_source, "FLUSH BINARY LOGS", "PURGE BINARY LOGS BEFORE NOW(6) + INTERVAL 1 DAY")
    with pytest.raises(Gap):
        shipping.drain(shop, queue.Quiet())
    shop.refresh_from_db()
    assert shop.gap().end_reason == Timeline.GAP and shop.ship_error and shop.open_timeline is None
    assert Event.objects.filter(subject__contains="timeline 1").exists()
    assert not leases.due().exists()
    back_up(shop)
    shop.refresh_from_db()
    assert shop.gap() is None and shop.ship_error == ""
    add(mysql_source, 4)
    shipping.drain(shop, queue.Quiet())
    first, second = shop.ranges()
    assert first.last <= kept < second.first and second.timeline.number == 2


def test_another_server_under_the_same_name_ends_the_timeline(shop, other, mysql_target):
    back_up(shop)
    shop.host, shop.port, shop.user, shop.password = other.host, other.port, other.user, other.password
    shop.save()
    back_up(shop)
    first, second = shop.timelines.order_by("number")
    assert (first.end_reason, second.parent) == (Timeline.REPLACED, None)


def test_a_ship_run_serves_many_databases_and_lets_go(shop, other, mysql_source, mysql_target, storage, settings):
    settings.EVEREST_SHIP_SECONDS = 3
    sql(mysql_target, "CREATE DATABASE two", "CREATE TABLE two.rows_ (id INT PRIMARY KEY)")
    other.set_pitr(True, storage, 1)
    back_up(shop), back_up(other)
    add(mysql_source, 2)
    sql(mysql_target, "INSERT INTO two.rows_ VALUES (1)")
    shipping.ShipRun().run()
    for database in (shop, other):
        database.refresh_from_db()
        assert database.caught_up_at and database.ship_owner == "" and not database.ship_error
        assert Slice.objects.filter(timeline__database=database, count__gte=1).exists()


def test_a_slice_that_was_committed_and_not_noted_is_adopted(shop, mysql_source):
    back_up(shop)
    for number in (2, 3):
        add(mysql_source, number)
        shipping.drain(shop, queue.Quiet())
    before = list(Slice.objects.values_list("key", flat=True))
    Slice.objects.filter(key__in=before[-1:]).delete()
    shipping.drain(shop, queue.Quiet())
    assert list(Slice.objects.values_list("key", flat=True)) == before


def test_only_the_holder_of_the_lease_ships(shop, settings):
    settings.EVEREST_SHIP_SECONDS = 1
    back_up(shop)
    assert leases.claim(shop, "another")
    shipping.ShipRun().run()
    shop.refresh_from_db()
    assert shop.ship_owner == "another" and shop.caught_up_at is None


class Impatient(queue.Quiet):
    def should_stop(self) -> bool:
        return True


def test_shipping_by_hand_ends_once_another_worker_has_come_to_where_it_began(shop, mysql_source):
    back_up(shop)
    add(mysql_source, 2)
    shipping.drain(shop, queue.Quiet())
    Database.objects.update(caught_up_at=None)
    assert leases.claim(shop, "another")
    assert shipping.drain(shop, queue.Quiet()) == 0
    add(mysql_source, 3)
    with pytest.raises(Stopped):
        shipping.drain(shop, Impatient())


def test_an_unreachable_server_is_tried_again_later_and_later(shop, settings):
    settings.EVEREST_SHIP_SECONDS = 1
    back_up(shop)
    Database.objects.filter(pk=shop.pk).update(port=1)
    shipping.ShipRun().run()
    shop.refresh_from_db()
    assert "Nothing answers" in shop.ship_error and shop.ship_failures == 1 and shop.ship_retry_at > timezone.now()
    assert shop.open_timeline and not leases.due().exists()


def test_nothing_is_recoverable_beyond_what_was_seen(shop, mysql_source):
    back_up(shop)
    shipping.drain(shop, queue.Quiet())
    shop.refresh_from_db()
    seen = shop.caught_up_at
    assert shop.recoverable_to() == seen
    add(mysql_source, 2)
    assert shop.recoverable_to() == seen


def test_the_bucket_alone_brings_everything_back(shop, other, mysql_source, mysql_target, storage):
    Schedule.objects.create(database=shop, storage=storage, name="nightly", cron="0 1 * * *", time_zone="Europe/Berlin")
    pinned = back_up(shop)
    Backup.objects.filter(pk=pinned.pk).update(pinned=True)
    add(mysql_source, 2)
    shipping.drain(shop, queue.Quiet())
    catalog.write_description(shop)
    before, spans = catalog.describe(shop), [(span.first_us, span.last_us) for span in shop.ranges()]
    shop.forget()
    assert not Slice.objects.exists() and not Backup.objects.exists()
    report = catalog.rebuild(storage)
    assert (report.databases, report.timelines, report.backups) == (1, 1, 1) and report.slices >= 1
    again = Database.objects.get(name="shop")
    assert catalog.describe(again) == before and not again.password and again.status == Database.UNKNOWN
    assert [span.first_us for span in again.ranges()] == [first for first, _ in spans]
    restore(again, other)
    assert not compare(content(mysql_source), content(mysql_target))
    assert done(Job.rebuild_catalogue(storage, "ann")).result["backups"] == 1
    assert catalog.rebuild(storage).slices == report.slices == Slice.objects.count()


def test_a_deleted_backup_takes_only_what_nothing_needs(shop, mysql_source, tmp_path):
    first = back_up(shop)
    add(mysql_source, 2)
    shipping.drain(shop, queue.Quiet())
    second = back_up(shop)
    add(mysql_source, 3)
    shipping.drain(shop, queue.Quiet())
    assert first.losses()
    done(first.request_delete("ann"))
    assert list(shop.backups.all()) == [second]
    assert not list(tmp_path.rglob(f"{first.pk}/*"))
    assert [span.first for span in shop.ranges()] == [second.view_at]
    archive = shop.archive(shop.pitr_storage)
    keys = list(archive.slice_keys(str(second.timeline_id)))
    assert keys == list(Slice.objects.order_by("sequence").values_list("key", flat=True)) and len(keys) >= 1
    assert archive.read_database()["pins"] == []


def test_a_schedule_keeps_its_copies(shop, storage):
    schedule = Schedule.objects.create(
        database=shop, storage=storage, name="often", cron="* * * * *", retention_copies=1
    )
    for _ in range(2):
        Schedule.objects.update(next_run=timezone.now())
        ticking.start_schedules()
        done(schedule.backups.first().job)
        time.sleep(1.01)  # names of scheduled backups have seconds
    done(shop.jobs.filter(kind=Job.DELETE, state=Job.PENDING).get())
    assert schedule.backups.count() == 1


def test_verify_reads_everything_and_finds_damage(shop, mysql_source, tmp_path):
    back_up(shop)
    assert done(shop.verify("ann")).result["objects"] > 1
    shop.refresh_from_db()
    assert shop.verified["objects"] > 1 and shop.verified["problems"] == []
    victim = next(path for path in tmp_path.rglob("*.tsv.zst"))
    victim.chmod(0o644)
    victim.write_bytes(victim.read_bytes()[:-1] + b"x")
    job = queue.run_job_now(shop.verify("ann"))
    assert job.state == Job.FAILED and victim.name in job.error
    shop.refresh_from_db()
    assert shop.verified_at and [one["key"].endswith(victim.name) for one in shop.verified["problems"]] == [True]


def test_settings_of_a_target_go_back_after_a_restore_that_died(shop, other, mysql_target):
    row = Restore.objects.create(source=shop, target=other, moment="latest", state=Restore.RUNNING)
    runs.remember(row, {"event_scheduler": "ON"})
    runs.remember(row, {"event_scheduler": "OFF"})  # a second run finds what the first one set
    sql(mysql_target, "SET GLOBAL event_scheduler = OFF")
    row.settle(Restore.FAILED, "It died.")
    ticking.put_settings_back()
    ticking.put_settings_back()
    done(row.jobs.get(kind=Job.PUT_BACK))
    with mysql_target.connect() as connection, connection.cursor() as cursor:
        cursor.execute("SELECT @@global.event_scheduler")
        assert cursor.fetchone()[0] == "ON"
    row.refresh_from_db()
    assert row.target_settings == {} and "has been changed and is incomplete" in row.error


def test_a_backup_waits_for_a_restore_into_its_database(shop, other):
    Restore.objects.create(source=other, target=shop, moment="latest", state=Restore.RUNNING)
    job = queue.run_job_now(shop.backup_now().job)
    assert job.state == Job.PENDING and "waits" in job.log


def test_a_database_that_is_removed_with_its_data_leaves_nothing(shop, tmp_path):
    back_up(shop)
    job = shop.remove(keep_data=False, who="ann")
    queue.work(job, runs.BODIES[Job.DELETE])
    assert not Database.objects.filter(name="shop").exists()
    wait_for(lambda: not [path for path in (tmp_path / "disk").rglob("*") if path.is_file()], 1)
