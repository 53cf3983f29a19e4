"""Everything stored is read again on a schedule, and the page tells when and with what result."""

from datetime import timedelta

import pytest
from django.urls import reverse
from django.utils import timezone

from backups import ticking
from backups.models import Backup, Database, Job
from everest.models import Event

pytestmark = pytest.mark.django_db
DAY = timedelta(days=1)


def due():
    ticking.verify_databases()
    return [job.database.name for job in Job.objects.filter(kind=Job.VERIFY, state=Job.PENDING)]


@pytest.fixture
def source(world):
    Job.objects.all().delete()
    Database.objects.update(created_at=timezone.now() - 8 * DAY)
    return world.source


def test_what_was_never_verified_is_a_week_after_it_was_added(source):
    Database.objects.update(created_at=timezone.now() - 6 * DAY)
    assert due() == []
    Database.objects.update(created_at=timezone.now() - 8 * DAY)
    assert due() == [source.name]


def test_nothing_is_done_where_nothing_is_stored(source):
    Backup.objects.update(state=Backup.FAILED)
    assert due() == []


def test_it_is_verified_again_after_a_week(source):
    Database.objects.update(verified_at=timezone.now() - 6 * DAY)
    assert due() == []
    Database.objects.update(verified_at=timezone.now() - 8 * DAY)
    assert due() == [source.name]


def test_a_run_that_waits_or_has_just_failed_is_not_doubled(source):
    assert due() == due() == [source.name]
    Job.objects.update(state=Job.FAILED)
    assert due() == []
    Job.objects.update(created_at=timezone.now() - 2 * DAY)
    assert due() == [source.name]


def test_a_scheduled_run_reads_the_sample_that_is_set(source, settings):
    settings.EVEREST_VERIFY_SAMPLE = 5
    due()
    assert Job.objects.get(kind=Job.VERIFY).arguments == {"every": 5}


def test_none_is_done_where_it_is_switched_off(source, settings):
    settings.EVEREST_VERIFY_DAYS = 0
    assert due() == []


def test_the_page_tells_when_and_with_what_result(source, admin):
    url = reverse("database", args=[source.pk])
    assert "read again and proven every few days" in admin.get(url).content.decode()
    Database.objects.update(verified_at=timezone.now(), verified={"objects": 12, "size": 999, "problems": []})
    assert "12 objects, 999" in admin.get(url).content.decode()
    Database.objects.update(
        verified={"objects": 12, "size": 9, "problems": [{"key": "v1/x", "what": "It is damaged."}]}
    )
    assert "It is damaged." in admin.get(url).content.decode()


def test_a_storages_catalogue_is_read_by_one_job_and_noted(world, admin):
    url = reverse("catalogue", args=[world.storage.pk])
    pages = {admin.post(url).url for _ in range(2)}
    job = Job.objects.get(kind=Job.CATALOG)
    assert pages == {reverse("job", args=[job.pk])} and job.queue == Job.LONG
    assert Event.objects.filter(subject=str(world.storage), action__contains="catalogue").exists()
    assert "catalogue" in admin.get(pages.pop()).content.decode()
