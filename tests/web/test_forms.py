"""What may be typed: each rule has a sentence beside its field, and what was typed is kept, but never a secret."""

from zoneinfo import ZoneInfo

import pytest
from django.core.exceptions import ValidationError
from django.urls import reverse

from backups.forms import BackupNowForm, DatabaseForm, HoursForm, ScheduleForm
from backups.models import Backup, Database, Job, Restore, Schedule
from backups.when import read_moment
from everest.forms import TypedNameForm
from everest.models import Event
from storages.forms import StorageForm
from storages.models import BackupStorage
from tests.web import story

CERTIFICATE = "-----BEGIN CERTIFICATE-----\nMII\n-----END CERTIFICATE-----"
S3 = {"name": "minio", "type": "s3", "bucket": "everest", "region": "eu-central-1", "endpoint": "https://s3.example.com",
      "access_key": "AKIA", "secret_key": "typed-secret", "verify_tls": "on"}  # fmt: skip
DATABASE = {"name": "shop", "host": "127.0.0.1", "port": 1, "user": "everest", "password": "hidden", "tls": "required"}


# -- Backup Storages


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", "Capital"), ("name", "1digit"), ("name", "ends-"), ("name", "under_score"),
        ("name", "x" * 23), ("name", ""),
        ("bucket", "ab"), ("bucket", "A-bucket"), ("bucket", "-bucket"), ("bucket", "a..b"),
        ("bucket", "192.168.0.1"), ("bucket", "b" * 64),
        ("endpoint", ""), ("endpoint", "s3.example.com"), ("endpoint", "ftp://s3.example.com"),
        ("endpoint", "https://"),
        ("endpoint", "https://s3.example.com/bucket"), ("endpoint", "https://a:b@s3.example.com"),
        ("endpoint", "https://h:99999"),
        ("region", ""), ("access_key", ""), ("secret_key", ""), ("prefix", "a/../b"), ("prefix", "a b"),
        ("ca_certificate", "hello"),
    ],
)  # fmt: skip
def test_a_storage_is_refused_beside_the_field(field, value, db):
    form = StorageForm({**S3, field: value})
    assert not form.is_valid() and list(form.errors) == [field]


def test_a_good_storage_passes_and_slashes_are_trimmed(db):
    form = StorageForm({**S3, "prefix": "/team/a/", "endpoint": "https://s3.example.com:9000/"})
    assert form.is_valid(), form.errors
    assert (form.cleaned_data["prefix"], form.cleaned_data["endpoint"]) == ("team/a", "https://s3.example.com:9000")


def test_the_same_place_twice_is_refused_naming_the_other(db):
    story.storage(bucket="everest", endpoint="https://s3.example.com")
    form = StorageForm({**S3, "name": "second"})
    assert "The storage minio uses" in str(form.errors["bucket"])
    assert StorageForm({**S3, "name": "second", "prefix": "other"}).is_valid()


@pytest.mark.parametrize("path", ["../outside", "/etc", ".", "a/../.."])
def test_a_local_folder_lies_below_the_root(path, db, local_root):
    form = StorageForm({"name": "disk", "type": "local", "bucket": path})
    assert not form.is_valid() and "below" in str(form.errors["bucket"])


def test_a_symbolic_link_does_not_lead_out_of_the_root(db, local_root):
    (local_root / "link").symlink_to("/etc")
    assert not StorageForm({"name": "disk", "type": "local", "bucket": "link/everest"}).is_valid()


def test_local_folders_can_be_switched_off(db, settings):
    settings.EVEREST_LOCAL_ROOT = ""
    assert "switched off" in str(StorageForm({"name": "disk", "type": "local", "bucket": "x"}).errors["bucket"])


def test_adding_a_local_storage_probes_saves_and_leaves_an_event(admin, local_root):
    response = admin.post(reverse("storage-add"), {"name": "disk", "type": "local", "bucket": "demo"})
    assert response.status_code == 302
    storage = BackupStorage.objects.get()
    assert (storage.health, storage.conditional_put, (local_root / "demo").is_dir()) == ("healthy", True, True)
    assert Event.objects.filter(action="added storage", subject="disk", who="administrator").exists()


def test_a_storage_that_does_not_answer_is_not_saved_and_keeps_what_was_typed(admin):
    page = admin.post(reverse("storage-add"), {**S3, "endpoint": "http://127.0.0.1:1", "description": "kept words"})
    text = page.content.decode()
    assert page.status_code == 200 and not BackupStorage.objects.exists()
    assert "Not saved" in text and "kept words" in text and "typed-secret" not in text


def test_an_edit_keeps_keys_left_empty_and_locks_the_place(world):
    form = StorageForm(
        {**S3, "name": "other", "bucket": "elsewhere", "access_key": "", "secret_key": ""},
        instance=world.spare,
        locked=True,
    )
    assert form.is_valid(), form.errors
    saved = form.save()
    saved.refresh_from_db()
    assert (saved.name, saved.bucket, saved.secret_key.reveal()) == ("spare", "everest-backups", story.SECRETS[1])


def test_a_failed_edit_leaves_the_stored_row_as_it_was(world, admin):
    admin.post(
        reverse("storage-edit", args=[world.spare.pk]), {**S3, "name": "spare", "endpoint": "http://127.0.0.1:2"}
    )
    world.spare.refresh_from_db()
    assert (world.spare.endpoint, world.spare.check_error) == ("http://127.0.0.1:1", "")


def test_a_used_storage_is_not_deleted_and_the_page_names_who_uses_it(world, admin):
    url = reverse("storage-delete", args=[world.storage.pk])
    page = admin.post(url)
    assert page.status_code == 409 and "shop: backups" in page.content.decode()
    assert admin.post(reverse("storage-delete", args=[world.spare.pk])).status_code == 302
    assert list(BackupStorage.objects.values_list("name", flat=True)) == ["disk"]


# -- Databases


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", ""), ("name", "-x"), ("name", "a/b"), ("host", "db:3306"), ("host", "http://db"),
        ("host", "a b"), ("port", 0), ("port", 70000),
        ("user", ""), ("ca_certificate", "x"), ("client_certificate", "x"),
        ("connections", 0), ("connections", 17), ("rate_limit", -1),
    ],
)  # fmt: skip
def test_a_database_is_refused_beside_the_field(field, value, db):
    form = DatabaseForm({**DATABASE, field: value})
    assert not form.is_valid() and field in form.errors


def test_a_backup_reads_with_four_connections_and_no_limit_unless_told_otherwise(db):
    plain = DatabaseForm(DATABASE).save()
    gentle = DatabaseForm({**DATABASE, "name": "gentle", "connections": 1, "rate_limit": 20}).save()
    assert [(one.connections, one.rate_limit) for one in (plain, gentle)] == [(4, None), (1, 20)]
    kept = DatabaseForm({**DATABASE, "name": "gentle", "rate_limit": 0}, instance=gentle).save()
    assert (kept.connections, kept.rate_limit) == (1, None)


def test_verify_is_the_default_where_a_ca_is_given(db):
    form = DatabaseForm({**DATABASE, "ca_certificate": CERTIFICATE})
    assert form.is_valid() and form.cleaned_data["tls"] == Database.VERIFY


def test_verify_without_a_ca_says_what_is_missing(db):
    assert "ca_certificate" in DatabaseForm({**DATABASE, "tls": "verify"}).errors


def test_client_certificate_and_key_belong_together(db):
    assert "client_key" in DatabaseForm({**DATABASE, "client_certificate": CERTIFICATE}).errors


def test_an_edit_keeps_the_password_left_empty(world):
    form = DatabaseForm({**DATABASE, "password": "", "client_certificate": CERTIFICATE}, instance=world.source)
    assert form.is_valid(), form.errors
    form.save()
    world.source.refresh_from_db()
    assert world.source.password.reveal() == story.SECRETS[2]
    assert world.source.client_key.reveal() == story.SECRETS[3]


def test_a_server_that_does_not_answer_is_not_saved_and_the_password_is_not_shown(admin):
    page = admin.post(reverse("database-add"), {**DATABASE, "password": "typed-password"}).content.decode()
    assert "Not saved" in page and not Database.objects.exists() and "typed-password" not in page
    assert 'value="everest"' in page


def test_deleting_a_database_needs_its_name_and_keeps_the_data_unless_told_otherwise(world, admin, monkeypatch):
    calls = []
    monkeypatch.setattr(Database, "remove", lambda self, keep_data, who: calls.append((self.name, keep_data)))
    url = reverse("database-delete", args=[world.target.pk])
    assert "This is not the name" in admin.post(url, {"typed": "shop", "keep_data": "on"}).content.decode()
    assert calls == []
    admin.post(url, {"typed": "staging", "keep_data": "on"})
    admin.post(url, {"typed": "staging"})
    assert calls == [("staging", True), ("staging", False)]


@pytest.mark.parametrize(("text", "good"), [("08:00-18:00", True), ("", True), ("8-18", False), ("25:00-26:00", False)])
def test_production_hours(text, good, world):
    assert HoursForm({"production_hours": text}, instance=world.source).is_valid() is good


def test_a_typed_name_is_exact():
    assert TypedNameForm({"typed": "shop"}, name="shop").is_valid()
    assert not TypedNameForm({"typed": "Shop"}, name="shop").is_valid()


# -- Backups, schedules, point-in-time recovery


def test_back_up_now_offers_a_name_and_starts_one_run(world, admin):
    Backup.objects.filter(pk=world.running.pk).update(state="succeeded")
    url = reverse("backup-now", args=[world.source.pk])
    form = admin.get(url).context["form"]
    assert form.initial["name"].startswith("backup-")
    assert admin.post(url, {"name": "mine", "storage": world.storage.pk}).status_code == 302
    assert Job.objects.get(backup__name="mine").kind == "backup"
    assert "already" in admin.post(url, {"name": "mine", "storage": world.storage.pk}).content.decode()
    second = admin.post(url, {"name": "another", "storage": world.storage.pk}).content.decode()
    assert "The backup mine of shop is not finished yet" in second and 'value="another"' in second


@pytest.mark.parametrize("name", ["", "-x", "a/b", "a" * 65, "nightly-2"])
def test_a_backups_name_is_refused(name, world):
    assert "name" in BackupNowForm({"name": name, "storage": world.storage.pk}, database=world.source).errors


SCHEDULE = {"name": "new", "retention_copies": 3, "repeats": "daily", "time": "01:30", "time_zone": "Europe/Berlin"}


@pytest.mark.parametrize(
    ("more", "cron"),
    [
        ({}, "30 1 * * *"),
        ({"repeats": "hourly", "minute": 5}, "5 * * * *"),
        ({"repeats": "weekly", "weekday": 7}, "30 1 * * 7"),
        ({"repeats": "monthly", "day": "last"}, "30 1 L * *"),
        ({"repeats": "cron", "cron_text": "*/10 2 * * *"}, "*/10 2 * * *"),
    ],
)
def test_repeats_compile_and_are_shown_again(more, cron, world):
    typed = {**SCHEDULE, "storage": world.storage.pk, "start": "2026-12-01 06:00", **more}
    form = ScheduleForm(typed, database=world.source)
    assert form.is_valid(), form.errors
    schedule = form.save()
    assert schedule.cron == cron and schedule.start_from.isoformat() == "2026-12-01T05:00:00+00:00"
    again = ScheduleForm(instance=Schedule.objects.get(pk=schedule.pk), database=world.source)
    assert {name: str(again.initial[name]) for name in more} == {name: str(value) for name, value in more.items()}
    assert again.initial["start"] == "2026-12-01 06:00"


@pytest.mark.parametrize(
    ("field", "more"),
    [
        ("name", {"name": "nightly"}), ("time", {"time": "25:00"}), ("time", {"time": ""}),
        ("minute", {"repeats": "hourly", "minute": 60}),
        ("cron_text", {"repeats": "cron", "cron_text": "* *"}),
        ("cron_text", {"repeats": "cron", "cron_text": "0 0 31 2 *"}),
        ("time_zone", {"time_zone": "Berlin"}), ("retention_copies", {"retention_copies": -1}),
        ("start", {"start": "soon"}),
    ],
)  # fmt: skip
def test_a_schedule_is_refused_beside_the_field(field, more, world):
    form = ScheduleForm({**SCHEDULE, "storage": world.storage.pk, **more}, database=world.source)
    assert list(form.errors) == [field]


def test_the_live_sentence_lists_three_runs_and_warns(world, admin):
    Database.objects.update(production_hours="08:00-18:00")
    url = reverse("schedule-preview", args=[world.source.pk])
    page = admin.post(url, {**SCHEDULE, "storage": world.storage.pk, "time": "09:00"}).content.decode()
    assert "Daily at 09:00 Europe/Berlin" in page and page.count("<li>") == 3 and "production hours" in page
    page = admin.post(url, {**SCHEDULE, "storage": world.storage.pk, "time": "01:00"}).content.decode()
    assert "Overlaps the schedule nightly" in page
    assert Schedule.objects.count() == 1


def test_pausing_and_deleting_a_schedule(world, admin):
    for _ in range(2):  # two people press Pause
        admin.post(reverse("schedule-switch", args=[world.schedule.pk]), {"active": "0"})
    world.schedule.refresh_from_db()
    assert not world.schedule.active and world.schedule.next_run is None
    admin.post(reverse("schedule-switch", args=[world.schedule.pk]), {"active": "1"})
    admin.post(reverse("schedule-delete", args=[world.schedule.pk]))
    assert not Schedule.objects.exists()
    assert {"paused schedule", "resumed schedule", "deleted schedule"} <= set(
        Event.objects.values_list("action", flat=True)
    )


def test_switching_pitr_off_asks_first(world, admin):
    url = reverse("database-pitr", args=[world.source.pk])
    values = {"storage": world.storage.pk, "interval": 30}
    assert "Switch point-in-time recovery off?" in admin.post(url, values).content.decode()
    assert Database.objects.get(pk=world.source.pk).pitr
    admin.post(url, {**values, "confirmed": "1"})
    assert not Database.objects.get(pk=world.source.pk).pitr
    admin.post(url, {**values, "pitr": "on"})
    source = Database.objects.get(pk=world.source.pk)
    assert (source.pitr, source.pitr_interval, source.pitr_storage) == (True, 30, world.storage)


@pytest.mark.parametrize("interval", ["0", "3601", "x"])
def test_an_interval_out_of_bounds_is_refused(interval, world, admin):
    page = admin.post(
        reverse("database-pitr", args=[world.source.pk]),
        {"pitr": "on", "storage": world.storage.pk, "interval": interval},
    )
    assert page.context["form"].errors["interval"]


def test_deleting_a_backup_spells_out_what_is_lost_and_needs_its_name(world, admin):
    url = reverse("backup-delete", args=[world.backup.pk])
    page = admin.get(url).content.decode()
    assert "Every moment from" in page and "46.1 MiB are freed: the backup" in page and "8 slices that no other" in page
    assert "This is not the name" in admin.post(url).content.decode()
    assert admin.post(url, {"typed": world.backup.name}).status_code == 302
    world.backup.refresh_from_db()
    assert world.backup.state == "deleting"


# -- Restores


def wizard(client, world, **typed):
    url = reverse("restore-wizard", args=[world.source.pk])
    return client.post(url, {"moment": "latest", "target": str(world.target.pk), **typed})


def test_the_wizard_makes_a_plan_request_and_changes_nothing_else(world, admin):
    before = Restore.objects.count()
    response = wizard(admin, world, moment="gtid", gtid=f"{story.SERVER}:7")
    restore = Restore.objects.get(pk=response.url.split("/")[-2])
    assert (restore.state, restore.moment_gtid, restore.target) == ("draft", f"{story.SERVER}:7", world.target)
    assert Restore.objects.count() == before + 1 and restore.job.kind == "resolve"


@pytest.mark.parametrize(
    "typed", [{"moment": "time"}, {"moment": "gtid"}, {"moment": "before"}, {"moment": "time", "time": "yesterday"}]
)
def test_the_wizard_asks_for_what_is_missing_beside_the_field(typed, world, admin):
    assert typed["moment"] in wizard(admin, world, **typed).context["form"].errors


def test_a_moment_out_of_range_says_which_range_is_good_and_keeps_what_was_typed(world, admin):
    page = wizard(admin, world, moment="time", time="2001-01-01 00:00:00")
    assert "Recoverable: " in page.context["form"].errors["time"][0]
    assert 'value="2001-01-01 00:00:00"' in page.content.decode()


def test_starting_over_what_a_target_holds_needs_its_name(world, admin):
    url = reverse("restore-start", args=[world.restores["draft"].pk])
    Job.objects.filter(kind="restore").update(state="succeeded")
    page = admin.post(url, {"typed": "nope"})
    assert page.status_code == 200 and "shop_staging" in page.content.decode()
    assert admin.post(url, {"typed": "staging"}).status_code == 302
    assert Restore.objects.get(pk=world.restores["draft"].pk).state == "pending"
    assert "started already" in admin.post(url, {"typed": "staging"}, follow=True).content.decode()
    assert Job.objects.filter(kind="restore", restore=world.restores["draft"]).count() == 1
    assert Event.objects.filter(action="started restore", subject="shop into staging").count() == 1


@pytest.mark.parametrize("role, accounts", [("Administrator", True), ("Operator", False)])
def test_accounts_are_put_back_only_for_who_administers(role, accounts, world, sign_in):
    Job.objects.filter(kind="restore").update(state="succeeded")
    asked = {"typed": "staging", "accounts": "on", "verbatim": "on"}
    sign_in(role).post(reverse("restore-start", args=[world.restores["draft"].pk]), asked)
    started = Restore.objects.get(pk=world.restores["draft"].pk)
    assert (started.state, started.accounts, started.verbatim) == ("pending", accounts, True)


def test_a_draft_is_put_away_by_cancel(world, admin):
    admin.post(reverse("restore-cancel", args=[world.restores["draft"].pk]))
    assert not Restore.objects.filter(pk=world.restores["draft"].pk).exists()


BERLIN = ZoneInfo("Europe/Berlin")


@pytest.mark.parametrize(
    ("text", "microseconds"),
    [
        ("1970-01-01 01:00:00", 0),
        ("1970-01-01 01:00", 0),
        ("1970-01-01T01:00:00.25", 250_000),
        ("1970-01-01 01:00:00.000001", 1),
        ("1970-01-01 00:00:01Z", 1_000_000),
        ("1970-01-01 00:00:01 utc", 1_000_000),
        ("1970-01-01 02:00:00+02:00", 0),
        ("2026-10-25 02:30:00+0200", 1_792_888_200_000_000),
        ("2026-10-25 02:30:00+01:00", 1_792_891_800_000_000),
    ],
)
def test_a_moment_is_read_to_the_microsecond(text, microseconds):
    assert read_moment(text, BERLIN) == microseconds


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("2026-10-25 02:30:00", "twice"), ("2026-03-29 02:30:00", "skipped"), ("2026-02-30 00:00:00", "no such date"),
        ("soon", "Write it as"), ("2026-01-01 24:00:00", "no such date"), ("2026-01-01", "Write it as"),
        ("", "Write it as"),
    ],
)  # fmt: skip
def test_a_moment_that_is_none_says_why(text, words):
    with pytest.raises(ValidationError, match=words):
        read_moment(text, BERLIN)


def test_fewer_copies_than_there_are_name_the_backups_that_go(world, admin):
    Backup.objects.filter(name__in=["nightly-2", "after-the-gap"]).update(schedule=world.schedule)
    url = reverse("schedule-preview", args=[world.source.pk])
    data = {**SCHEDULE, "storage": world.storage.pk, "schedule": str(world.schedule.pk)}
    assert "will be deleted" not in admin.post(url, data).content.decode()
    page = admin.post(url, {**data, "retention_copies": 1}).content.decode()
    assert "1 of its backups are more than that and will be deleted" in page and "need them: after-the-gap." in page
