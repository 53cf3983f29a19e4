"""Signing in, preferences, events, health, and the admin for support staff."""

from datetime import timedelta

import pytest
from django.contrib import admin as site
from django.urls import reverse
from django.utils import timezone

from backups.models import Database, Job, WorkerState
from everest import views
from everest.models import Event, User
from everest.people import RANKS
from tests.web import story
from tests.web.test_pages import admin_addresses


def test_signing_in_and_out(people, client):
    page = client.post(reverse("sign-in"), {"username": "viewer", "password": "wrong"})
    assert "user name or the password is wrong" in page.content.decode()
    assert client.post(reverse("sign-in"), {"username": "viewer", "password": "correct horse battery"}).url == reverse(
        "databases"
    )
    assert client.get(reverse("databases")).status_code == 200
    assert list(Event.objects.values_list("who", "action")) == [
        ("viewer", "signed in"),
        ("nobody", "failed to sign in"),
    ]
    client.post(reverse("sign-out"))
    assert client.get(reverse("databases")).status_code == 302


def test_a_person_without_a_role_reads_why(sign_in):
    page = sign_in("nobody").get(reverse("databases"))
    assert page.status_code == 403 and "needs the role Viewer" in page.content.decode()


def test_the_three_groups_exist_after_migrating(db):
    from django.contrib.auth.models import Group

    assert set(Group.objects.values_list("name", flat=True)) == set(RANKS)


def test_preferences_are_kept_and_judged(sign_in, people):
    client = sign_in("Viewer")
    assert (
        "not a time zone"
        in client.post(reverse("preferences"), {"time_zone": "Mars/Base", "theme": "dark"}).content.decode()
    )
    client.post(reverse("preferences"), {"time_zone": "America/New_York", "theme": "dark"})
    assert User.objects.filter(username="viewer", time_zone="America/New_York", theme="dark").exists()
    assert 'data-bs-theme="dark"' in client.get(reverse("events")).content.decode()


def test_changing_the_password_leaves_an_event(sign_in):
    old, new = "correct horse battery", "a better one by far"
    sign_in("Viewer").post(reverse("password"), {"old_password": old, "new_password1": new, "new_password2": new})
    assert Event.objects.filter(action="changed password", who="viewer").exists()


def test_events_are_found_by_every_word_and_cannot_be_changed(sign_in):
    Event.note("ada", "started backup", "shop", "to minio", "10.0.0.7")
    Event.note("olga", "deleted backup", "billing")
    client = sign_in("Viewer")
    found = [event.who for event in client.get(reverse("events"), {"q": "backup shop"}).context["page"]]
    assert found == ["ada"]
    with pytest.raises(TypeError):
        Event.objects.first().delete()


def test_a_search_shows_the_newest_events_page_by_page(sign_in, monkeypatch):
    for number in range(7):
        Event.note("ada", "started backup", f"shop {number}")
    monkeypatch.setattr(views, "PAGE", 2)
    monkeypatch.setattr(views, "FOUND", 5)
    client = sign_in("Viewer")
    pages = [client.get(reverse("events"), {"q": "shop", "page": number}) for number in (1, 2, 3)]
    assert [event.subject[-1] for each in pages for event in each.context["page"]] == ["6", "5", "4", "3", "2"]
    assert "The newest 5 events" in pages[0].content.decode()
    assert "The newest" not in client.get(reverse("events"), {"q": "shop 3"}).content.decode()


def test_an_event_says_who_what_and_from_where(world, sign_in):
    sign_in("Operator").post(reverse("backup-verify", args=[world.backup.pk]), REMOTE_ADDR="10.1.2.3")
    event = Event.objects.get(action="started verify")
    assert (event.who, event.subject, event.address) == ("operator", "shop / after-the-gap", "10.1.2.3")


def test_health_and_the_banner_follow_the_workers(sign_in, client):
    assert client.get(reverse("health")).status_code == 503
    assert "No worker has been seen" in sign_in("Viewer").get(reverse("databases")).content.decode()
    story.workers_at_work()
    assert client.get(reverse("health")).status_code == 200
    assert "No worker has been seen" not in client.get(reverse("databases")).content.decode()
    WorkerState.objects.update(seen_at=timezone.now() - timedelta(minutes=4))
    assert client.get(reverse("health")).status_code == 503


@pytest.fixture
def staff(people, client):
    people["Viewer"].is_staff = True
    people["Viewer"].save()
    client.force_login(people["Viewer"])
    return client


def test_support_staff_see_every_model_of_ours_and_change_none(world, staff):
    for url in admin_addresses():
        status = staff.get(url).status_code
        assert status == (403 if "/auth/" in url or "/user/" in url else 200), url
        if status == 200 and url.endswith("/change/"):
            assert staff.post(url, {}).status_code == 403, url
            assert staff.post(url.replace("/change/", "/delete/"), {"post": "yes"}).status_code == 403, url
        elif status == 200:
            assert staff.get(f"{url}add/").status_code == 403, url


def test_a_superuser_may_not_change_runs_either(world, staff, people):
    people["Viewer"].is_superuser = True
    people["Viewer"].save()
    url = reverse("admin:backups_restore_change", args=[world.restores["draft"].pk])
    assert staff.get(url).status_code == 200 and staff.post(url, {"state": "running"}).status_code == 403


def test_secrets_are_fields_of_no_admin():
    from everest.secrets import SecretField

    for model, page in site.site._registry.items():
        hidden = [field.name for field in model._meta.fields if isinstance(field, SecretField)]
        assert set(hidden) <= set(page.exclude or []), model


def test_django_q_has_no_page():
    assert [model for model in site.site._registry if model._meta.app_label == "django_q"] == []


def test_every_model_of_ours_has_a_page():
    from django.apps import apps

    ours = {model for app in ("everest", "storages", "backups") for model in apps.get_app_config(app).get_models()}
    assert ours <= set(site.site._registry)


def test_those_who_are_not_staff_have_no_admin(world, sign_in):
    assert sign_in("Administrator").get("/admin/backups/job/").status_code == 302


def test_a_database_named_in_the_admin_is_found(world, staff):
    assert Database.objects.get(name="shop").name in staff.get("/admin/backups/database/?q=shop").content.decode()


def act(client, model, action, *rows, **more):
    data = {"action": action, "_selected_action": [row.pk for row in rows], **more}
    return client.post(reverse(f"admin:backups_{model}_changelist"), data, follow=True).content.decode()


def test_staff_retry_what_failed_after_they_were_asked(world, staff):
    job = story.job("backup", "failed", database=world.source, backup=world.failed)
    assert "Do this work again?" in act(staff, "job", "retry", job)
    assert not Job.objects.filter(kind="backup", state="pending").exists()
    assert not Event.objects.filter(action="retry").exists()
    act(staff, "job", "retry", job, confirmed="1")
    again = Job.objects.get(kind="backup", state="pending")
    world.failed.refresh_from_db()
    assert (again.backup, world.failed.state) == (world.failed, "pending")
    assert Event.objects.get(action="retry").who == "viewer"
    assert "is being retried already" in act(staff, "job", "retry", job, confirmed="1")


def test_a_restore_is_reviewed_anew_instead_of_retried(world, staff):
    job = story.job("restore", "failed", database=world.target, restore=world.restores["failed"])
    assert "choose Restore again" in act(staff, "job", "retry", job, confirmed="1")
    assert not Job.objects.filter(kind="restore", state="pending").exists()


def test_staff_cancel_what_runs(world, staff):
    act(staff, "job", "cancel", world.backup_job, confirmed="1")
    world.backup_job.refresh_from_db()
    assert world.backup_job.cancel_requested and Event.objects.filter(action="cancel", who="viewer").exists()
    assert "had finished already" in act(staff, "job", "cancel", world.verify_job, confirmed="1")


def test_staff_release_the_lease_of_a_silent_worker_alone(world, staff):
    job, now = world.backup_job, timezone.now()
    Job.objects.filter(pk=job.pk).update(owner="x", heartbeat=now, lease_until=now + timedelta(minutes=1))
    assert "not held by a silent worker" in act(staff, "job", "release_lease", job, confirmed="1")
    Job.objects.filter(pk=job.pk).update(heartbeat=now - timedelta(seconds=40))
    act(staff, "job", "release_lease", job, confirmed="1")
    job.refresh_from_db()
    assert (job.state, job.owner) == ("pending", "")


def test_staff_release_the_lease_of_a_shipper(world, staff):
    Database.objects.filter(pk=world.source.pk).update(ship_owner="x", ship_lease_until=timezone.now())
    act(staff, "database", "release_ship_lease", world.source, confirmed="1")
    world.source.refresh_from_db()
    assert world.source.ship_owner == "" and Event.objects.filter(action="release ship lease").exists()


def test_staff_do_not_see_rows_that_others_looked_at(world, staff):
    page = staff.get(reverse("admin:backups_job_change", args=[world.rows_job.pk])).content.decode()
    assert "0xff" not in page and story.SERVER not in page


@pytest.mark.parametrize(("behind", "seen"), [(True, "10.1.2.3"), (False, "127.0.0.1")])
def test_the_address_is_the_one_that_can_be_believed(behind, seen, world, sign_in, settings):
    settings.EVEREST_BEHIND_PROXY = behind
    headers = {"X-Forwarded-For": "6.6.6.6, 10.1.2.3"}
    sign_in("Operator").post(reverse("backup-verify", args=[world.backup.pk]), headers=headers)
    assert Event.objects.get(action="started verify").address == seen
