"""The list of transactions and the rows of one: pages, and the Jobs behind them on a real server."""

import re
from datetime import timedelta

import pytest
from django.urls import reverse
from django.utils import timezone
from django.utils.html import escape

from backups import queue, shipping
from backups.engine.types import Quiet
from backups.models import Backup, Database, Job, Restore
from everest.demo import accounts
from everest.models import Event
from storages.models import BackupStorage
from tests.web import story


def test_a_search_is_a_job_and_its_page_waits_for_it(world, admin):
    asked = {"since": "2026-11-22 17:00:00", "until": "", "table": "`shop`.`orders`", "kind": "ddl", "target": "x"}
    response = admin.post(reverse("transactions", args=[world.source.pk]), asked)
    job = Job.objects.get(kind=Job.TRANSACTIONS, state=Job.PENDING)
    assert response.url == reverse("transactions-found", args=[job.pk])
    assert job.arguments == {
        "since_us": 1_795_366_800_000_000, "until_us": None, "table": "shop.orders", "kind": "ddl", "target": "x",
    }  # fmt: skip
    page = admin.get(response.url).content.decode()
    assert 'value="2026-11-22 17:00:00.000000"' in page and 'hx-trigger="every 1s"' in page
    assert re.search(r"<noscript><meta http-equiv=.refresh", page)


def test_a_wrong_filter_is_told_beside_its_field(world, admin):
    page = admin.post(reverse("transactions", args=[world.source.pk]), {"since": "yesterday"}).content.decode()
    assert "Write it as 2026-11-22" in page and 'value="yesterday"' in page
    assert not Job.objects.filter(kind=Job.TRANSACTIONS, state=Job.PENDING).exists()


def test_the_list_leads_to_the_wizard_with_the_transaction_picked(world, admin):
    page = admin.get(reverse("transactions-found", args=[world.list_job.pk])).content.decode()
    assert story.DROP in page and "247 deleted" in page and "hx-get" not in page.split('id="found"')[1]
    link = re.search(r'href="([^"]*)">Restore to just before this', page).group(1).replace("&amp;", "&")
    form = admin.get(link).context["form"]
    line = world.source.timelines.get(number=2)
    assert form.initial["moment"] == "before" and form.initial["before"] == f"{story.SERVER}:1200"
    data = {**form.initial, "target": str(world.target.pk)}
    admin.post(reverse("restore-wizard", args=[world.source.pk]), data)
    assert Restore.objects.latest("pk").timeline == line
    admin.post(reverse("restore-wizard", args=[world.source.pk]), data | {"before": f"{story.SERVER}:1100"})
    assert Restore.objects.latest("pk").timeline is None


def test_older_goes_on_where_the_page_ended(world, admin):
    admin.post(reverse("transactions-older", args=[world.list_job.pk]))
    job = Job.objects.filter(kind=Job.TRANSACTIONS, state=Job.PENDING).get()
    assert job.arguments["after"] == world.list_job.result["next"]


def test_rows_stand_side_by_side_and_are_never_markup(world, admin):
    page = admin.get(reverse("rows", args=[world.rows_job.pk])).content.decode()
    assert escape("<b>") in page and "<b>" not in page
    assert re.search(r'class="differs"><td[^>]*>what<', page) and not re.search(r'class="differs"><td[^>]*>id<', page)
    assert "Rows 1 to 2 of 250" in page and "cell-unread" in page and "those of the backup nightly" in page
    admin.post(reverse("rows-more", args=[world.rows_job.pk]), {"first": "2"})
    assert Job.objects.get(kind=Job.ROWS, state=Job.PENDING).arguments["first"] == 2


def test_looking_at_rows_leaves_an_event_and_a_forged_number_does_nothing(world, admin):
    url = reverse("transactions-rows", args=[world.list_job.pk])
    for number in ("2", "-1", "x", ""):
        admin.post(url, {"number": number})
    assert not Job.objects.filter(kind=Job.ROWS, state=Job.PENDING).exists()
    admin.post(url, {"number": "1"})
    job = Job.objects.get(kind=Job.ROWS, state=Job.PENDING)
    assert (
        job.arguments["transaction"]["identity"] == f"{story.SERVER}:1199"
        and job.arguments["list"] == world.list_job.pk
    )
    assert Event.objects.get(action="looked at rows").detail == f"{story.SERVER}:1199"


def test_viewers_do_not_read_rows_by_a_jobs_address(world, sign_in):
    viewer = sign_in("Viewer")
    assert viewer.get(reverse("job", args=[world.rows_job.pk]), follow=True).status_code == 403
    assert viewer.get(reverse("job-part", args=[world.rows_job.pk])).status_code == 404


def test_a_failed_look_says_why(world, admin):
    Job.objects.filter(pk=world.rows_job.pk).update(state="failed", error="The slice is no longer stored.", result=None)
    page = admin.get(reverse("rows", args=[world.rows_job.pk])).content.decode()
    assert "The slice is no longer stored." in page


# --- on a real server


@pytest.fixture(params=["mysql_source"])
def source(request):
    return request.getfixturevalue(request.param)


@pytest.fixture
def shop(transactional_db, source, settings, tmp_path):
    """A shop with a backup and a slice; what happened in it is what these tests look for."""
    settings.EVEREST_LOCAL_ROOT = tmp_path
    (tmp_path / "disk").mkdir()
    storage = BackupStorage.objects.create(name="disk", type="local", bucket="disk")
    ask(
        source,
        "CREATE DATABASE shop",
        "CREATE TABLE shop.orders (id INT UNSIGNED PRIMARY KEY, what VARCHAR(20), state ENUM('new','paid'))",
    )
    ask(source, "INSERT INTO shop.orders VALUES (4000000000, 'tea', 'new')")
    user, password = accounts.create(source, "source", "target")
    database = Database.objects.create(
        name="shop", host=source.host, port=source.port, user=user, password=password, pitr=True,
        pitr_storage=storage,
    )  # fmt: skip
    database.refresh_from_db()
    assert work(database.backup_now(ring=False).job).state == Job.SUCCEEDED
    return database


def ask(server, *statements):
    with server.connect() as connection, connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)


def work(job):
    job = queue.run_job_now(job)
    assert job.state == Job.SUCCEEDED, job.error
    return job


def look(database, **asked):
    return work(database.list_transactions(**asked)).result


@pytest.mark.parametrize("source", ["mysql_source", "mariadb_source"], indirect=True)
def test_a_mistake_is_found_and_its_rows_are_shown(shop, source):
    ask(source, "UPDATE shop.orders SET state = 'paid'", "DROP TABLE shop.orders")
    shipping.drain(shop, Quiet())
    drop, update = look(shop)["transactions"]
    assert drop["ddl"].startswith("DROP TABLE") and update["tables"] == [
        {"name": "shop.orders", "inserts": 0, "updates": 1, "deletes": 0}
    ]
    assert [one["identity"] for one in look(shop, kind="ddl")["transactions"]] == [drop["identity"]]
    assert look(shop, table="shop.other")["transactions"] == []
    assert look(shop, until_us=update["time_us"])["transactions"][-1] == update
    result = work(shop.show_rows(update)).result
    (row,) = result["rows"]
    assert (row["table"], row["kind"], result["names"]) == ("shop.orders", "update", Backup.objects.get().name)
    assert row["cells"] == [
        ["id", "4000000000", "", "4000000000", ""], ["what", "tea", "", "tea", ""], ["state", "new", "", "paid", ""],
    ]  # fmt: skip


def test_pages_follow_one_another_over_slices(shop, source, monkeypatch):
    from backups import history

    monkeypatch.setattr(history, "PAGE", 2)
    for number in range(1, 6):
        ask(source, f"INSERT INTO shop.orders VALUES ({number}, 'tea', 'new')")
        if number in (1, 4):
            shipping.drain(shop, Quiet())
    shipping.drain(shop, Quiet())
    seen, after = [], None
    while True:
        page = look(shop, after=after)
        seen += [one["identity"] for one in page["transactions"]]
        after = page["next"]
        if after is None:
            break
    numbers = [int(one.rpartition(":")[2]) for one in seen]
    assert len(numbers) == 5 and numbers == sorted(numbers, reverse=True)


def test_a_job_reads_so_many_slices_and_no_more(shop, source, monkeypatch):
    from backups import history

    monkeypatch.setattr(history, "MOST_SLICES", 1)
    for number in (1, 2):
        ask(source, f"INSERT INTO shop.orders VALUES ({number}, 'tea', 'new')")
        shipping.drain(shop, Quiet())
    first = look(shop, kind="delete")
    assert first["transactions"] == [] and first["looked"] == 1
    assert look(shop, kind="insert", after=first["next"])["transactions"][0]["rows"] == 1


def test_a_slice_that_is_gone_is_told(shop, source):
    ask(source, "DELETE FROM shop.orders")
    shipping.drain(shop, Quiet())
    (delete,) = look(shop)["transactions"]
    job = queue.run_job_now(shop.show_rows({**delete, "cursor": {**delete["cursor"], "sequence": 99}}))
    assert job.state == Job.FAILED and "no longer stored" in job.error


def test_rows_that_were_looked_at_are_forgotten_within_hours(world):
    from backups import ticking

    old = timezone.now() - timedelta(minutes=61)
    Job.objects.filter(pk__in=[world.rows_job.pk, world.verify_job.pk]).update(finished_at=old)
    ticking.prune()
    assert set(Job.objects.filter(pk__in=[world.rows_job.pk, world.verify_job.pk])) == {world.verify_job}
