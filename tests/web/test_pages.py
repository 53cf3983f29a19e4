"""Every page renders in every state, and none shows a secret or needs anything but our own files."""

import re

import pytest
from django.contrib import admin as site
from django.urls import reverse

from backups.models import Backup, Database, Job, Restore, Schedule
from everest.models import Event
from storages.models import BackupStorage
from tests.web import story
from tests.web.test_access import NEVER, PAGES

INLINE = re.compile(
    r"<script(?![^>]*\bsrc=)|<[^>]+\s(style|on[a-z]+)=|https?://(?!www\.w3\.org)[^\"' <]+\.(js|css|woff2?|png)", re.I
)
KINDS = {
    "storage": BackupStorage.objects, "source": Database.objects, "schedule": Schedule.objects,
    "backup": Backup.objects, "running": Backup.objects, "restore": Restore.objects, "backup_job": Job.objects,
    "verify_job": Job.objects.exclude(kind__in=Job.LOOKS), "list_job": Job.objects.filter(kind=Job.TRANSACTIONS),
    "rows_job": Job.objects.filter(kind=Job.ROWS),
}  # fmt: skip
LEAVES = {"health", "favicon", "sign-in", "home", "backup-manifest"}  # no page of ours behind these


def addresses():
    """Every page of every row that there is."""
    for name, (needs, may_get, _) in PAGES.items():
        if may_get is NEVER or name in LEAVES:
            continue
        rows = KINDS[needs[0]].all() if needs else [None]
        yield from (reverse(name, args=[row.pk] if row else []) for row in rows)


def admin_addresses():
    for model in site.site._registry:
        name = f"admin:{model._meta.app_label}_{model._meta.model_name}"
        yield reverse(f"{name}_changelist")
        if row := model._default_manager.first():
            yield reverse(f"{name}_change", args=[row.pk])


def test_every_page_of_every_state_renders_for_an_administrator(world, admin):
    for url in addresses():
        response = admin.get(url)
        assert response.status_code in (200, 302), url


@pytest.mark.parametrize("role", ["Viewer", "Operator"])
def test_every_page_of_every_state_renders_or_refuses_for_others(role, world, sign_in):
    client = sign_in(role)
    for url in addresses():
        assert client.get(url).status_code in (200, 302, 403), url


def test_every_page_renders_in_an_empty_installation(db, admin):
    for name, (needs, may_get, _) in PAGES.items():
        if not needs and may_get is not NEVER and name not in LEAVES:
            assert admin.get(reverse(name)).status_code == 200, name


def test_no_page_shows_a_secret(world, admin, people):
    Database.objects.update(client_certificate="-----BEGIN CERTIFICATE-----\nx")
    people["Administrator"].is_staff = people["Administrator"].is_superuser = True
    people["Administrator"].save()
    stored = [row.secret_key.stored for row in BackupStorage.objects.all()]
    stored += [value.stored for row in Database.objects.all() for value in (row.password, row.client_key)]
    for url in [*addresses(), *admin_addresses()]:
        page = admin.get(url).content.decode()
        assert [secret for secret in story.SECRETS + stored if secret and secret in page] == [], url


def test_pages_hold_nothing_inline_and_nothing_from_other_hosts(world, admin):
    for url in addresses():
        response = admin.get(url)
        assert INLINE.search(response.content.decode()) is None, url
        assert "script-src 'self'" in response["Content-Security-Policy"]
        assert response["Cache-Control"] == "no-store"


def test_a_get_changes_nothing(world, admin):
    def everything():
        models = (Database, Backup, Schedule, Restore, Job, BackupStorage, Event)
        return [list(model.objects.order_by("pk").values()) for model in models]

    before = everything()
    for url in addresses():
        admin.get(url)
    assert everything() == before


def test_times_are_in_the_persons_zone_with_utc_on_hover(world, admin, people):
    people["Administrator"].time_zone = "Asia/Tokyo"
    people["Administrator"].save()
    page = admin.get(reverse("backup", args=[world.backup.pk])).content.decode()
    assert " JST</time>" in page and ' UTC"' in page


def test_the_list_shows_where_there_is_a_gap(world, admin):
    Backup.objects.filter(timeline__number=2).delete()
    page = admin.get(reverse("databases")).content.decode()
    assert "<span>Gap</span>" in page
    page = admin.get(reverse("database", args=[world.source.pk])).content.decode()
    assert "There is a gap" in page and "Take a backup now" in page and "purged binlog.000003" in page


def test_a_gap_that_a_later_backup_has_mended_is_drawn_but_not_shouted(world, admin):
    page = admin.get(reverse("database", args=[world.source.pk])).content.decode()
    assert "There is a gap" not in page and 'class="gap"' in page


def test_the_list_counts_the_schedules_that_are_active(world, admin):
    story.schedule(world.source, world.storage, name="paused", active=False)
    page = admin.get(reverse("databases")).context["page"]
    assert {one.name: one.active_schedules for one in page} == {"shop": 1, "staging": 0}


@pytest.mark.parametrize("trouble", [{"status": "down"}, {"ship_error": "The storage does not answer."}])
def test_databases_in_trouble_come_first(trouble, db, admin):
    names = ["a", "b", "c"]
    for name in names:
        story.database(name)
    Database.objects.filter(name="c").update(**trouble)
    page = admin.get(reverse("databases")).context["page"]
    assert [one.name for one in page] == ["c", "a", "b"]


def test_databases_are_found_by_words_and_status(world, admin):
    def found(query):
        page = admin.get(reverse("databases") + query).content.decode()
        return [name for name in ("shop", "staging") if f">{name}</a>" in page]

    assert found("") == ["shop", "staging"]
    assert found("?q=stag") == ["staging"]
    assert found("?q=9.7+shop") == ["shop"]
    assert found("?status=down") == []


def test_the_empty_page_is_a_checklist(db, admin):
    page = admin.get(reverse("databases")).content.decode()
    assert "First steps" in page and reverse("storage-add") in page
    story.storage()
    assert "(done)" in admin.get(reverse("databases")).content.decode()


def test_a_running_backup_polls_its_row_and_a_finished_one_does_not(world, admin):
    url = reverse("backup-row", args=[world.running.pk])
    assert f'hx-get="{url}"' in admin.get(url).content.decode()
    Backup.objects.filter(pk=world.running.pk).update(state="succeeded")
    assert "hx-get" not in admin.get(url).content.decode()


def test_a_review_polls_until_it_is_resolved_then_leaves_the_page_alone(world, admin):
    waiting = admin.get(reverse("restore-part", args=[world.restores["resolving"].pk]))
    assert "hx-get" in waiting.content.decode() and "HX-Refresh" not in waiting.headers
    ready = admin.get(reverse("restore-part", args=[world.restores["draft"].pk]))
    assert "hx-get" not in ready.content.decode() and ready.headers["HX-Refresh"] == "true"


def test_the_review_names_both_transactions_and_what_is_lost(world, admin):
    page = admin.get(reverse("restore", args=[world.restores["draft"].pk])).content.decode()
    for words in (":1199", ":1200", "DROP TABLE `customers`", "shop_staging", "120 400", "Type staging to confirm"):
        assert words in page


def test_change_leads_back_to_the_wizard_with_the_moment_filled_in(world, admin):
    drafts = [
        story.restore(world.source, world.target, moment="time", moment_us=1_795_370_401_123_456),
        story.restore(world.source, world.target, moment="before", moment_gtid="uuid:9"),
    ]
    values = []
    for draft in drafts:
        page = admin.get(reverse("restore", args=[draft.pk])).content.decode()
        link = re.search(r'href="([^"]*)">Change<', page).group(1).replace("&amp;", "&")
        values.append(admin.get(link).context["form"].initial)
    assert values[0]["time"] == "2026-11-22 18:00:01.123456" and values[1]["before"] == "uuid:9"


def test_the_wizard_shows_ranges_and_keeps_what_a_link_asked_for(world, admin):
    url = reverse("restore-wizard", args=[world.source.pk])
    page = admin.get(f"{url}?moment=backup&backup={world.backup.pk}&target={world.target.pk}").content.decode()
    assert re.search(r'value="backup"[^>]*checked', page)
    assert f'value="{world.backup.pk}" selected' in page and f'value="{world.target.pk}" selected' in page
    assert 'data-pick="id_time"' in page


def test_the_wizard_offers_the_newest_backups_and_an_older_one_that_was_chosen(world, admin, monkeypatch):
    monkeypatch.setattr("backups.restore_forms.MOST", 1)
    *_, oldest = names = [one.name for one in world.source.backups.filter(state="succeeded").order_by("-view_at")]
    url = reverse("restore-wizard", args=[world.source.pk])

    def offered(**asked):
        form = admin.get(url, asked).context["form"]
        assert "An older one has Restore" in str(form["backup"].help_text)
        return [label.partition(",")[0] for _, label in form["backup"].field.choices]

    assert offered() == offered(backup="no backup") == names[:1] != [oldest]
    assert offered(backup=world.source.backups.get(name=oldest).pk) == [names[0], oldest]


def test_a_running_restore_names_its_steps_and_the_one_it_is_at(world, admin):
    Job.objects.filter(pk=world.restore_job.pk).update(progress={"step": "load", "done": 1, "total": 2, "unit": "rows"})
    page = admin.get(reverse("restore", args=[world.restores["running"].pk])).content.decode()
    assert re.findall(r'<li class="(done|now|next)"', page) == ["done", "now", "next"]
    assert re.search(r'class="now" aria-current="step">\s*Load the backup', page)
