"""A machine whose clock was wrong is gone: what it wrote into the future holds nobody up, and claims nothing."""

from datetime import timedelta

import pytest
from django.utils import timezone

from backups import leases, shipping, ticking
from backups.models import Database, Job, Timeline, WorkerState
from backups.models.timeline import to_us
from storages.models import BackupStorage

LATER = timedelta(hours=2)


@pytest.fixture
def shop(db):
    storage = BackupStorage.objects.create(name="disk", type="local", bucket="disk")
    shop = Database.objects.create(name="shop", host="127.0.0.1", pitr=True, pitr_storage=storage)
    Timeline.objects.create(database=shop, number=1, started_at=timezone.now(), start_position={"file": "f"})
    return shop


def test_a_lease_that_ends_in_hours_is_anybodys(shop):
    ahead = timezone.now() + LATER
    Database.objects.update(ship_owner="gone", ship_lease_until=ahead, ship_retry_at=ahead)
    assert list(leases.due()) == [shop]
    assert leases.claim(shop, "next")
    assert not leases.claim(shop, "another")


def test_a_job_whose_lease_ends_in_hours_is_taken_again(shop):
    job = Job.enqueue(Job.CHECK, database=shop, ring=False)
    assert job.claim()
    Job.objects.update(lease_until=timezone.now() + LATER, rung_at=timezone.now() + LATER)
    ticking.reclaim_jobs()
    job.refresh_from_db()
    assert job.state == Job.PENDING
    Job.objects.update(rung_at=timezone.now() + LATER)
    ticking.ring_pending_jobs()
    job.refresh_from_db()
    assert job.rung_at < timezone.now() + timedelta(seconds=1)


@pytest.mark.django_db
def test_a_tick_in_the_future_does_not_stop_the_next():
    WorkerState.seen(WorkerState.TICK)
    assert not WorkerState.win(WorkerState.TICK, 20)
    WorkerState.objects.update(seen_at=timezone.now() + LATER)
    assert WorkerState.win(WorkerState.TICK, 20)
    assert not WorkerState.win(WorkerState.TICK, 20)


def test_up_to_when_nothing_is_missing_is_told_by_the_servers_clock(shop):
    timeline, place = shop.open_timeline, {"file": "f"}
    seen = timezone.now() - LATER
    voyage = shipping.Voyage(shop, timeline, place, lambda position: to_us(seen))
    voyage.caught_up(place)
    shop.refresh_from_db()
    assert shop.caught_up_at == seen


def test_a_server_that_has_more_by_now_is_not_caught_up_with(shop):
    voyage = shipping.Voyage(shop, shop.open_timeline, {"file": "f"}, lambda position: None)
    voyage.caught_up({"file": "f"})
    shop.refresh_from_db()
    assert shop.caught_up_at is None
