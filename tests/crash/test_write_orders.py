"""A process that dies after each step of each write order (FORMAT.md): nothing committed is lost, nothing is half.

Steps are what changes the bucket: a put, an upload, one deleted key.  Each order is carried out again and again, and
dies one step later each time, until it comes to its end; after each death it is carried out as a restart would.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest
from django.utils import timezone

from backups import catalog, moments, queue, runs, shipping, ticking
from backups.engine import layout, retention
from backups.engine.archive import Archive
from backups.models import Backup, Database, Job, Slice
from storages.models import BackupStorage
from storages.stores import open_store
from tests.helpers import compare
from tests.servers.test_work import add, back_up, content, other, register, restore, shop, sql, storage

__all__ = ["other", "shop", "storage"]

pytestmark = pytest.mark.django_db(transaction=True)
FOR_EVER = 10**6


class Died(BaseException):
    """The process is no more: nobody catches this."""


class Life:
    """How many steps are left; `steps` are those that were taken."""

    def __init__(self) -> None:
        self.left = FOR_EVER
        self.steps: list[str] = []

    def step(self, what: str) -> None:
        """Before one is taken."""
        if not self.left:
            raise Died(what)
        self.left -= 1
        self.steps.append(what)


class MortalStore:
    """A store whose process may die between any two changes; a dead one changes nothing more."""

    def __init__(self, store: Any, life: Life) -> None:
        self.store, self.life = store, life

    def __getattr__(self, name: str) -> Any:
        return getattr(self.store, name)

    def put(self, key: str, data: bytes, *, if_absent: bool = False) -> None:
        self.life.step(f"put {key}")
        self.store.put(key, data, if_absent=if_absent)

    def upload(self, key: str, parts: Iterable[bytes]) -> int:
        self.life.step(f"upload {key}")
        size: int = self.store.upload(key, parts)
        return size

    def delete(self, keys: Iterable[str]) -> None:
        for key in keys:
            self.life.step(f"delete {key}")
            self.store.delete([key])

    def tidy(self, prefix: str, before: datetime) -> int:
        count: int = self.store.tidy(prefix, before)
        return count


@pytest.fixture
def life(monkeypatch: pytest.MonkeyPatch) -> Life:
    life = Life()
    monkeypatch.setattr(BackupStorage, "open_store", lambda self: MortalStore(open_store(self.config()), life))
    return life


def deaths(life: Life, act: Callable[[], Any]) -> Iterator[int]:
    """Let `act` die after 0, 1, 2 ... steps; after each death the caller restarts.  Ends where it lives to its end."""
    for steps in range(100):
        life.left = steps
        try:
            act()
        except Died:
            life.left = FOR_EVER
            yield steps
            continue
        finally:
            life.left = FOR_EVER
        assert steps, "there was no step to die after"
        return
    raise AssertionError("it never comes to its end")


def restart(job: Job) -> Job:
    """As the next worker does, once the lease of the dead one is over."""
    Job.objects.filter(pk=job.pk, state=Job.RUNNING).update(lease_until=timezone.now() - timedelta(seconds=1))
    Database.objects.update(ship_lease_until=None)
    ticking.reclaim_jobs()
    job.refresh_from_db()
    queue.work(job, runs.BODIES[job.kind])
    return Job.objects.filter(pk=job.pk).first() or job  # one that deletes its database goes with it


def named(archive: Archive, marker: str) -> set[str]:
    key = layout.parse(marker)
    assert key
    if key.kind == "manifest":
        return {ref.key for ref in archive.read_manifest(key.timeline, key.backup).data()}
    return {archive.read_slice(marker).data.key}


def unreferenced(database: Database, age: timedelta) -> set[str]:
    """What retention would give up as orphans if everything were so old."""
    archive = database.archive(database.pitr_storage)
    return set(retention.orphans(archive.objects(), lambda marker: named(archive, marker), timezone.now() + age))


def consistent(database: Database) -> None:
    """Everything that is committed can be read; young data without a marker waits, old data is swept, no more."""
    assert queue.run_job_now(database.verify("test")).state == Job.SUCCEEDED
    archive = database.archive(database.pitr_storage)
    assert not unreferenced(database, timedelta(days=6))
    markers = [info.key for info in archive.objects() if layout.parse(info.key).kind in ("manifest", "index")]
    needed = {key for marker in markers for key in named(archive, marker)}
    data = {info.key for info in archive.objects() if layout.parse(info.key).kind.endswith(" data")}
    assert needed <= data
    assert unreferenced(database, timedelta(days=8)) == data - needed


def test_a_backup_dies_after_each_step(shop, life):
    names = []

    def take() -> None:
        names.append(shop.backup_now(f"number-{len(names)}", ring=False))
        queue.run_job_now(names[-1].job)

    for _ in deaths(life, take):
        assert restart(names[-1].job).state == Job.SUCCEEDED
        consistent(shop)
    assert set(shop.backups.values_list("state", flat=True)) == {Backup.SUCCEEDED}
    archive = shop.archive(shop.pitr_storage)
    assert sorted(archive.backups(str(shop.open_timeline.pk))) == sorted(str(one.pk) for one in names)
    assert len(names) > 4  # description, schema, rows, programs or accounts, manifest


def test_shipping_dies_after_each_step(shop, life, other, mysql_source, mysql_target):
    back_up(shop)
    count = 1

    def ship() -> None:
        nonlocal count
        for _ in range(2):
            count += 1
            add(mysql_source, count)
        shipping.drain(shop, queue.Quiet())

    for _ in deaths(life, ship):
        Database.objects.update(ship_lease_until=None)
        shipping.drain(shop, queue.Quiet())
        consistent(shop)
    listed = [one.identity for _, one in moments.transactions(shop, 0, 2**62) if one.changes]
    assert len(listed) == len(set(listed)) == count - 1
    restore(shop, other)
    assert not compare(content(mysql_source), content(mysql_target))


def test_a_slice_that_was_committed_and_whose_row_was_not_written_is_found(shop, life, mysql_source, monkeypatch):
    """The step between the bucket and the catalogue."""
    back_up(shop)
    add(mysql_source, 2)

    def die(*_: Any) -> None:
        raise Died("before the row")

    with monkeypatch.context() as patch, pytest.raises(Died):
        patch.setattr(Slice, "record", die)
        shipping.drain(shop, queue.Quiet())
    shipping.drain(shop, queue.Quiet())
    keys = list(shop.archive(shop.pitr_storage).slice_keys(str(shop.open_timeline.pk)))
    assert keys == list(Slice.objects.values_list("key", flat=True)) and keys
    consistent(shop)


def test_a_deletion_dies_after_each_step(shop, life, other, mysql_source, mysql_target):
    back_up(shop)
    going: list[Job] = []

    def ask() -> None:
        """The oldest backup may go, with slices that only it needs."""
        add(mysql_source, len(going) + 2)
        shipping.drain(shop, queue.Quiet())
        back_up(shop)
        going.append(shop.backups.order_by("created_at").first().request_delete("test"))

    ask()
    for _ in deaths(life, lambda: queue.run_job_now(going[-1])):
        assert restart(going[-1]).state == Job.SUCCEEDED
        assert not Backup.objects.filter(state=Backup.DELETING).exists()
        consistent(shop)
        ask()
    assert shop.backups.count() == 1 and len(going) > 5
    restore(shop, other)
    assert not compare(content(mysql_source), content(mysql_target))


def test_the_description_is_the_old_one_or_the_new_one(shop, life):
    back_up(shop)
    archive = shop.archive(shop.pitr_storage)

    def describe() -> None:
        Database.objects.update(name="another")
        shop.refresh_from_db()
        catalog.write_description(shop)

    for _ in deaths(life, describe):
        assert archive.read_database()["name"] == "shop"
    assert archive.read_database()["name"] == "another"


def test_reading_the_catalogue_dies_before_each_row(shop, storage, mysql_source, monkeypatch):
    """It writes rows only: what it has not come to is brought by the next reading."""
    back_up(shop)
    add(mysql_source, 2)
    shipping.drain(shop, queue.Quiet())
    back_up(shop)
    spans = [(span.first_us, span.last_us) for span in shop.ranges()]
    rows = catalog.describe(shop)
    shop.forget()
    for name in ("_timelines", "_backups", "_slices"):

        def die(*_: Any) -> None:
            raise Died("in the middle")

        with monkeypatch.context() as patch, pytest.raises(Died):
            patch.setattr(catalog, name, die)
            catalog.rebuild(storage)
    catalog.rebuild(storage)
    again = Database.objects.get(name="shop")
    assert catalog.describe(again) == rows
    assert [first for first, _ in spans] == [span.first_us for span in again.ranges()]


def test_deleting_everything_dies_after_each_step(storage, life, mysql_source, tmp_path):
    sql(mysql_source, "CREATE DATABASE shop", "CREATE TABLE shop.orders (id INT PRIMARY KEY, what VARCHAR(20))")
    shop = register(mysql_source, "shop", pitr=True, pitr_storage=storage, pitr_interval=1)
    back_up(shop)
    add(mysql_source, 1)
    shipping.drain(shop, queue.Quiet())
    job = shop.remove(keep_data=False)
    for _ in deaths(life, lambda: restart(job)):
        assert Job.objects.filter(pk=job.pk).exists()
    assert not Database.objects.exists()
    assert not [path for path in (tmp_path / "disk").rglob("*") if path.is_file()]
