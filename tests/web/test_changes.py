"""What changes something: it leaves an Event, once, whoever presses how often; and what moves by itself on a page."""

import re
from datetime import timedelta

import pytest
from django.urls import reverse
from django.utils import timezone

from backups.models import Backup, Database, Job, Restore
from backups.queue import JobRun
from everest.models import Event
from everest.templatetags.show import time_left
from tests.web import story
from tests.web.test_access import NEVER, PAGES, address

# What to post so that it does what it is for.
POSTED = {
    "sign-in": {"username": "viewer", "password": "correct horse battery"},
    "sign-out": {},
    "password": {"old_password": "correct horse battery", "new_password1": "a better one by far",
                 "new_password2": "a better one by far"},
    "preferences": {"time_zone": "Asia/Tokyo", "theme": "dark"},
    "storage-add": {"name": "new", "type": "local", "bucket": "new"},
    "storage-edit": {"name": "disk", "type": "local", "bucket": "demo", "description": "a shelf"},
    "storage-test": {}, "storage-delete": {},
    "database-add": {"name": "new", "host": "h", "port": 3306, "user": "u", "password": "p", "tls": "off"},
    "database-edit": {"name": "shop", "host": "h", "port": 3306, "user": "u", "tls": "off",
                      "client_certificate": "-----BEGIN CERTIFICATE-----"},
    "database-hours": {"production_hours": "08:00-18:00"},
    "database-check": {},
    "database-pitr": {"pitr": "on", "storage": "", "interval": 30},
    "database-delete": {"typed": "shop", "keep_data": "on"},
    "backup-now": {"name": "mine", "storage": ""},
    "backup-cancel": {}, "backup-verify": {}, "backup-pin": {"pinned": "1"},
    "backup-delete": {"typed": "after-the-gap"},
    "schedule-add": {"name": "new", "storage": "", "retention_copies": 1, "repeats": "daily", "time": "01:00",
                     "time_zone": "UTC"},
    "schedule-edit": {"name": "new", "storage": "", "retention_copies": 1, "repeats": "daily", "time": "01:00",
                      "time_zone": "UTC"},
    "schedule-switch": {"active": "0"}, "schedule-delete": {},
    "restore-wizard": {"moment": "latest", "target": ""},
    "restore-start": {"typed": "staging"}, "restore-cancel": {},
    "transactions-rows": {"number": "1"}, "catalogue": {},
    "job-cancel": {},
}  # fmt: skip
# Posted to, and nothing changes by it that anybody else could see.
LOOKED_AT = {"schedule-preview", "transactions", "transactions-older", "rows-more"}
READ_ONLY = {
    "home", "favicon", "health", "events", "storages", "databases", "databases-part", "database", "database-jobs",
    "database-settings", "backups", "restores", "backup", "backup-row", "backup-manifest", "restore", "restore-part",
    "restore-row", "job", "job-part", "transactions-found", "transactions-part", "rows", "rows-part",
}  # fmt: skip


def test_every_address_is_posted_to_or_only_looked_at():
    assert set(POSTED) | LOOKED_AT | READ_ONLY == set(PAGES)
    assert all(PAGES[name][1] is not NEVER for name in READ_ONLY)


@pytest.mark.parametrize("name", POSTED)
def test_every_change_leaves_an_event(name, world, admin, local_root, monkeypatch):
    monkeypatch.setattr(Database, "preflight", lambda self: [])
    (local_root / "new").mkdir()
    Job.objects.filter(database=world.target).delete()
    if name in ("backup-now", "database-delete"):
        Job.objects.all().delete()
        Backup.objects.filter(state__in=["running", "pending"]).update(state="failed")
    if name == "storage-delete":
        url = reverse(name, args=[world.spare.pk])
    else:
        url = address(name, world)
    data = dict(POSTED[name])
    data |= {"storage": world.storage.pk} if "storage" in data else {}
    data |= {"target": world.target.pk} if "target" in data else {}
    if name == "sign-in":
        admin.logout()
    before = Event.objects.count()
    response = admin.post(url, data)
    event = Event.objects.first()
    assert Event.objects.count() == before + 1, response.context and response.context["form"].errors
    assert event.who in ("administrator", "viewer") and event.action and event.subject and event.address == "127.0.0.1"


def test_a_draft_that_two_people_start_runs_once(world, admin):
    Job.objects.filter(database=world.target).delete()
    url = reverse("restore-start", args=[world.restores["draft"].pk])
    answers = [admin.post(url, {"typed": "staging"}, follow=True).content.decode() for _ in range(2)]
    assert Job.objects.filter(kind=Job.RESTORE, database=world.target).count() == 1
    assert "was started already" in answers[1]


def test_verify_pressed_twice_is_one_job(world, admin):
    url = reverse("backup-verify", args=[world.backup.pk])
    assert admin.post(url).url == admin.post(url).url


def test_a_pinned_backup_stays_until_the_pin_is_removed(world, admin):
    url = reverse("backup-pin", args=[world.backup.pk])
    delete = reverse("backup-delete", args=[world.backup.pk])
    for _ in range(2):
        admin.post(url, {"pinned": "1"})
    assert "is pinned. Remove the pin first" in admin.get(delete).content.decode()
    admin.post(delete, {"typed": world.backup.name})
    world.backup.refresh_from_db()
    assert world.backup.pinned and world.backup.state == Backup.SUCCEEDED
    admin.post(url, {"pinned": "0"})
    admin.post(delete, {"typed": world.backup.name})
    world.backup.refresh_from_db()
    assert world.backup.state == Backup.DELETING


def test_the_polled_parts_hold_what_the_pages_hold(world, admin):
    rows = admin.get(reverse("databases-part"), {"q": "stag"}).content.decode()
    assert ">staging</a>" in rows and ">shop</a>" not in rows and "?q=stag&amp;status=" in rows
    part = admin.get(reverse("database-jobs", args=[world.source.pk])).content.decode()
    assert part.count('hx-swap-oob="true"') == 3
    for name in ("jobs", "last-backups", "pitr", "database-status"):
        assert f'id="{name}"' in part
        assert f'id="{name}"' in admin.get(reverse("database", args=[world.source.pk])).content.decode()
    running = admin.get(reverse("restore-row", args=[world.restores["running"].pk])).content.decode()
    done = admin.get(reverse("restore-row", args=[world.restores["succeeded"].pk])).content.decode()
    assert "hx-get" in running and "hx-get" not in done and "Succeeded" in done


def test_polled_parts_hold_no_field_that_a_person_types_into(world, admin):
    """What a poll replaces must not be what somebody fills in."""
    parts = {
        "databases-part": [], "database-jobs": [world.source.pk], "backup-row": [world.running.pk],
        "restore-row": [world.restores["running"].pk], "job-part": [world.backup_job.pk],
        "restore-part": [world.restores["running"].pk], "transactions-part": [world.list_job.pk],
    }  # fmt: skip
    for name, args in parts.items():
        page = admin.get(reverse(name, args=args)).content.decode()
        assert not re.search(r"<(input(?![^>]*hidden)|select|textarea|details)", page), name


def test_a_poll_after_the_session_has_ended_leaves_the_page_as_it_is(world, client):
    response = client.get(reverse("database-jobs", args=[world.source.pk]), headers={"HX-Request": "true"})
    assert response.status_code == 286 and response.headers["HX-Reswap"] == "none" and not response.content


def test_deleting_a_database_says_what_goes_with_its_data(world, admin):
    page = admin.get(reverse("database-delete", args=[world.source.pk])).content.decode()
    assert "3 backups and 20 slices" in page and re.search(r"name=.keep_data.[^>]*checked", page)


def test_a_restore_that_was_cancelled_says_what_state_its_target_is_in(world):
    for touched, words in ((True, "has been changed and is incomplete"), (False, "was not changed")):
        restore = story.restore(world.source, world.target, "running", touched=touched)
        restore.settle(Restore.CANCELLED, "Cancelled.")
        restore.refresh_from_db()
        assert words in restore.error


def test_how_long_a_step_still_takes_is_judged_by_its_speed():
    def left(seconds, **progress):
        since = (timezone.now() - timedelta(seconds=seconds)).isoformat()
        return time_left({"done": 10, "total": 40, "since": since} | progress)

    assert left(60) == "3 min"
    assert [left(1), left(60, done=0), left(60, total=0), left(60, done=40), time_left({})] == [""] * 5


def test_a_step_begins_when_its_name_changes(world):
    run = JobRun(world.backup_job, "x")
    for step, done in (("rows", 1), ("rows", 2), ("load", 1)):
        run.progress(step, done)
        since = run._news()["progress"]["since"]
        if done == 1:
            began = since
        assert since == began
