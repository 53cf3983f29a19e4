"""Merging as workers do it: what a person can look up and restore stays the same while small slices go."""

from __future__ import annotations

import random
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from django.utils import timezone

from backups import catalog, history, merging, moments, queue, shipping, ticking
from backups.models import Backup, Database, Job, Restore, Slice
from storages.models import BackupStorage
from tests.helpers import compare
from tests.servers.test_work import add, back_up, content, done, register, restore, shop_of, sql, storage

pytestmark = pytest.mark.django_db(transaction=True)
__all__ = ["storage"]

SERVERS = {"mysql": ("mysql_source", "mysql_target"), "mariadb": ("mariadb_source", "mariadb_target")}


@pytest.fixture(autouse=True)
def tomorrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """For merging it is the day after: every window is over."""
    later = SimpleNamespace(now=lambda: timezone.now() + timedelta(days=2))
    monkeypatch.setattr(merging, "timezone", later)


@pytest.fixture(params=["mysql", "mariadb"])
def servers(request: Any) -> Any:
    return [request.getfixturevalue(name) for name in SERVERS[request.param]]


@pytest.fixture
def shop(mysql_source: Any, storage: BackupStorage) -> Database:
    """A shop with a backup and five slices after it."""
    made = shop_of(mysql_source, storage)
    back_up(made)
    for number in range(2, 7):
        add(mysql_source, number)
        shipping.drain(made, queue.Quiet())
    return made


def merge(database: Database) -> str:
    """One run as a worker does it; its error."""
    job = Job.enqueue(Job.MERGE, database=database, ring=False)
    assert queue.work(job, merging.merge)
    left = Job.objects.filter(pk=job.pk).first()
    return left.error if left else ""


def kept(database: Database) -> list[tuple[int, int, int]]:
    """(level, first, last sequence) of each row; the bucket has the same."""
    rows = list(Slice.objects.filter(timeline__database=database).order_by("level", "sequence"))
    listed = [info.key for info in database.archive(database.pitr_storage).objects() if "/index/" in info.key]
    assert sorted(row.key for row in rows) == sorted(listed)
    return [(row.level, row.sequence, row.sequence + row.holds - 1) for row in rows]


def told(database: Database) -> list[Any]:
    return [(one.identity, one.time_us, one.changes) for _, one in moments.transactions(database, 0, 2**62)]


def test_every_moment_inside_a_merged_slice_is_restored_row_by_row(servers, storage):
    source, target = servers
    shop, other = shop_of(source, storage), register(target, "other")
    back_up(shop)
    states = []
    for number in range(2, 12):
        add(source, number)
        if number % 4 == 0:
            sql(source, f"UPDATE shop.orders SET what = 'paid' WHERE id < {number}")
        if number == 7:
            sql(source, "FLUSH BINARY LOGS")
        shipping.drain(shop, queue.Quiet())
        states.append(content(source))
    before, spans = told(shop), [(span.first_us, span.last_us) for span in shop.ranges()]
    assert not merge(shop) and len(kept(shop)) > 9
    assert not merge(shop)
    newest = max(last for _, _, last in kept(shop))
    assert kept(shop) == [(0, newest, newest), (3, 0, newest)]
    assert told(shop) == before and [(span.first_us, span.last_us) for span in shop.ranges()] == spans
    assert done(shop.verify("ann")).result["objects"] > 2
    added = [one[0] for one in before if any(change.inserts for change in one[2])]
    for number in sorted(random.sample(range(len(added) - 1), 3)):
        restore(shop, other, "before", "other", moment_gtid=added[number + 1])
        assert not compare(states[number], content(target)), number
    restore(shop, other, "latest", "other")
    assert not compare(states[-1], content(target))


def test_shipping_goes_on_after_everything_was_merged(shop, mysql_source):
    for _ in range(2):
        assert not merge(shop)
    add(mysql_source, 7)
    assert shipping.drain(shop, queue.Quiet()) == 1
    assert not merge(shop)
    *small, large = kept(shop)
    assert small == [(0, large[2] + 1, large[2] + 1)] and large[:2] == (3, 0)
    assert len(shop.ranges()) == 1


def test_runs_leave_no_jobs_and_say_when_the_next_is_due(shop):
    for _ in range(2):
        shop.refresh_from_db()
        assert shop.merge_due_at
        merge(shop)
    shop.refresh_from_db()
    assert shop.merge_due_at is None and not shop.jobs.filter(kind=Job.MERGE).exists()


def test_the_tick_starts_what_is_due_once(shop):
    ticking.tick()
    merging.start_due()
    assert shop.jobs.filter(kind=Job.MERGE).count() == 1
    done_with = shop.jobs.get(kind=Job.MERGE)
    queue.work(done_with, merging.merge)
    merging.start_due()
    assert shop.jobs.filter(kind=Job.MERGE).count() == 1  # to give the small ones up
    Database.objects.update(paused=True)
    shop.jobs.all().delete()
    merging.start_due()
    assert not shop.jobs.filter(kind=Job.MERGE).exists()


def victim(database: Database, root: Any) -> Any:
    """The file of a merged slice's data."""
    row = Slice.objects.get(timeline__database=database, level=3)
    archive = database.archive(database.pitr_storage)
    path = next(root.rglob(archive.read_slice(row.key).data.key.rpartition("/")[2]))
    path.chmod(0o644)
    return path


def test_a_damaged_merged_slice_is_noticed_before_the_small_ones_go(shop, tmp_path, mysql_source, mysql_target):
    merge(shop)
    small = [one for one in kept(shop) if one[0] == 0]
    path = victim(shop, tmp_path)
    path.write_bytes(path.read_bytes()[:-9] + b"x" * 9)
    assert not merge(shop)
    assert [one for one in kept(shop) if one[0] == 0] == small
    restore(shop, register(mysql_target, "other"))
    assert not compare(content(mysql_source), content(mysql_target))
    for _ in range(2):
        assert not merge(shop)
    assert [one[0] for one in kept(shop)] == [0, 3] and done(shop.verify("ann"))


@pytest.mark.parametrize("found_by", ["restore", "verify"])
def test_a_damaged_merged_slice_gives_way_to_the_small_ones(shop, tmp_path, mysql_source, mysql_target, found_by):
    merge(shop)
    other = register(mysql_target, "other")
    row = Restore.request(shop, other, "latest", "ann")
    done(row.job)
    row.refresh_from_db()
    path = victim(shop, tmp_path)
    path.write_bytes(path.read_bytes()[:-9] + b"x" * 9)
    job = shop.verify("ann") if found_by == "verify" else row.start("", "ann")
    assert path.name in queue.run_job_now(job).error
    assert {one[0] for one in kept(shop)} == {0}
    restore(shop, other, "latest", "other")
    assert not compare(content(mysql_source), content(mysql_target))


def test_damage_where_the_small_ones_are_gone_is_told_and_nothing_more_goes(shop, tmp_path):
    merge(shop)
    first = Slice.objects.filter(timeline__database=shop, level=0).first()
    shop.archive(shop.pitr_storage).give_up(slices=[first.point()])
    first.delete()
    path = victim(shop, tmp_path)
    path.write_bytes(path.read_bytes()[:-9] + b"x" * 9)
    before = kept(shop)
    assert "damaged" in merge(shop) and kept(shop) == before
    assert "damaged" in shop.merge_failure().error


class Killed(BaseException):
    pass


@pytest.mark.parametrize("step", ["commit", "indexes", "data"])
def test_a_run_that_is_killed_is_finished_by_the_next(shop, monkeypatch, step):
    """After the large one's commit, after the small ones' indexes went, after their data went: no row was touched."""
    if step != "commit":
        merge(shop)
    before = told(shop)
    with monkeypatch.context() as patched:
        if step == "commit":
            patched.setattr(Slice, "record", classmethod(lambda *args: (_ for _ in ()).throw(Killed())))
        else:
            kill_after(patched, {"indexes": 1, "data": 2}[step])
        with pytest.raises(Killed):
            merging.merge(Job(kind=Job.MERGE, database=shop), queue.Quiet())
    assert told(shop) == before and shop.ranges()
    for _ in range(2):
        assert not merge(shop)
    assert [one[0] for one in kept(shop)] == [0, 3] and told(shop) == before
    assert done(shop.verify("ann"))


def kill_after(patched: Any, deletions: int) -> None:
    from backups.engine.archive import Archive

    delete, done_with = Archive._delete, []

    def counted(self: Any, keys: Any) -> None:
        if len(done_with) == deletions:
            raise Killed
        done_with.append(1)
        delete(self, keys)
        if len(done_with) == deletions:
            raise Killed

    patched.setattr(Archive, "_delete", counted)


def test_nothing_goes_while_a_restore_or_a_verification_reads(shop, mysql_target):
    merge(shop)
    before = kept(shop)
    row = Restore.request(shop, register(mysql_target, "other"), "latest", "ann")
    done(row.job)
    Restore.objects.filter(pk=row.pk).update(state=Restore.RUNNING)
    merge(shop)
    assert kept(shop) == before
    Restore.objects.filter(pk=row.pk).update(state=Restore.FAILED)
    job = shop.verify("ann", ring=False)
    Job.objects.filter(pk=job.pk).update(state=Job.RUNNING)
    merge(shop)
    assert kept(shop) == before
    Job.objects.filter(pk=job.pk).update(state=Job.FAILED)
    merge(shop)
    assert len(kept(shop)) == 2


def test_nothing_goes_before_plans_with_the_small_ones_are_over(shop, monkeypatch):
    merge(shop)
    before = kept(shop)
    monkeypatch.setattr(merging, "timezone", timezone)
    merge(shop)
    assert kept(shop) == before
    shop.refresh_from_db()
    assert timezone.now() < shop.merge_due_at <= Slice.objects.get(level=3).parts_go_at


def test_the_bucket_alone_brings_merged_slices_back(shop, storage, mysql_source, mysql_target):
    merge(shop)
    first = Slice.objects.filter(timeline__database=shop, level=0).order_by("sequence")[1]
    shop.archive(storage).give_up(slices=[first.point()])  # a run was killed here
    catalog.write_description(shop)
    before, spans = told(shop), [(span.first_us, span.last_us) for span in shop.ranges()]
    shop.forget()
    catalog.rebuild(storage)
    again = Database.objects.get(name="shop")
    assert told(again) == before and [span.first_us for span in again.ranges()] == [one for one, _ in spans]
    assert kept(again)
    restore(again, register(mysql_target, "other"))
    assert not compare(content(mysql_source), content(mysql_target))


def test_pages_of_a_list_go_on_while_its_slices_are_merged(shop, monkeypatch):
    monkeypatch.setattr(history, "PAGE", 2)
    everything = [one[0] for one in told(shop)][::-1]
    seen, after = [], None
    for _ in range(4):
        page = done(shop.list_transactions(after=after)).result
        seen += page["transactions"]
        after = page["next"]
        merge(shop)
        if after is None:
            break
    assert [one["identity"] for one in seen] == everything
    rows = [done(shop.show_rows(one)).result["rows"] for one in seen if one["rows"]]
    assert [row["cells"][0][3] for (row,) in rows] == ["6", "5", "4", "3", "2"]


def test_a_look_that_reads_no_further_goes_on_there(shop, monkeypatch):
    monkeypatch.setattr(history, "MOST_SLICES", 2)
    first = done(shop.list_transactions(kind="delete")).result
    assert first["transactions"] == [] and first["next"]
    for _ in range(2):
        merge(shop)
    rest = done(shop.list_transactions(kind="insert", after=first["next"])).result
    assert [one["identity"] for one in rest["transactions"]] == [one[0] for one in told(shop)][::-1][2:]


def test_a_log_that_begins_anew_is_seen_once(shop, mysql_source):
    """Slices that are no one binlog file with what is before them are marked, and not tried again."""
    sql(mysql_source, "SET GLOBAL binlog_checksum = NONE")
    try:
        for number in (7, 8):
            add(mysql_source, number)
            shipping.drain(shop, queue.Quiet())
    finally:
        sql(mysql_source, "SET GLOBAL binlog_checksum = CRC32")
    before = told(shop)
    for _ in range(3):
        assert not merge(shop)
    assert [one[0] for one in kept(shop)] == [0, 3, 3] and told(shop) == before
    assert [row.apart for row in Slice.objects.filter(level=3).order_by("sequence")] == [False, True]
    assert done(shop.verify("ann"))
    assert Backup.objects.count() == 1


def test_a_slice_is_never_merged_into_another_storage(shop, storage, mysql_source, mysql_target, tmp_path):
    (tmp_path / "second").mkdir()
    second = BackupStorage.objects.create(name="second", type="local", bucket="second")
    shop.set_pitr(True, second, 1)
    for number in (7, 8, 9):
        add(mysql_source, number)
        shipping.drain(shop, queue.Quiet())
    for _ in range(2):
        assert not merge(shop)
    rows = Slice.objects.filter(level=3).order_by("sequence")
    assert [row.storage for row in rows] == [storage, second] and Slice.objects.count() == 3
    assert done(shop.verify("ann"))
    restore(shop, register(mysql_target, "other"))
    assert not compare(content(mysql_source), content(mysql_target))
