"""From an empty installation to two exact restores, by clicks alone: real MySQL, S3, workers and browser."""

import re
import socket

import pytest
from playwright.sync_api import expect

from backups.engine.mysql.grants import grant_statements
from everest.demo.manage import Manage
from everest.demo.servers import listening
from tests.browser.conftest import sign_in, watch
from tests.helpers import compare, dump_all, wait_for

PASSWORD = "correct horse battery"
SOON = 60_000  # milliseconds: what workers do on a busy machine
NAME = "everest_flow"


@pytest.fixture
def everest(tmp_path):
    """An empty installation with its web server and workers; the address it is served at."""
    manage = Manage(tmp_path, print)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    manage("migrate", "--verbosity=0")
    person = ("--noinput", "--username=ada", "--email=")
    manage("createsuperuser", *person, DJANGO_SUPERUSER_PASSWORD=PASSWORD)
    manage.start("web", "-m", "gunicorn", "everest.wsgi", "--threads=4", f"--bind=127.0.0.1:{port}")
    manage.start("worker", "manage.py", "worker")
    wait_for(lambda: manage.check_alive() or listening(port), 30)
    yield f"http://127.0.0.1:{port}"
    manage.end()
    for name in manage.started:  # shown where the test failed
        print(name, (tmp_path / f"{name}.log").read_text(errors="replace")[-4000:])


@pytest.fixture
def page(everest, chromium, complaints):
    page = watch(chromium.new_page(base_url=everest), complaints)
    page.set_default_timeout(20_000)
    sign_in(page, "ada", PASSWORD)
    return page


def run(server, *statements):
    with server.connect() as connection, connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)


def content(server):
    with server.connect() as connection:
        return dump_all(connection)


def open_shop(server):
    run(
        server,
        "CREATE DATABASE shop",
        "CREATE TABLE shop.customers (id INT PRIMARY KEY, name VARCHAR(40))",
        "CREATE TABLE shop.orders (id INT PRIMARY KEY AUTO_INCREMENT, customer INT, state ENUM('new','paid'))",
        "INSERT INTO shop.customers VALUES (1, 'Ada'), (2, 'Grace')",
    )


def trade(server):
    run(server, "INSERT INTO shop.orders (customer, state) VALUES (1, 'new'), (2, 'new')")
    run(server, "UPDATE shop.orders SET state = 'paid' WHERE customer = 1")


def test_the_documented_flow(page, mysql_source, mysql_target, s3):
    open_shop(mysql_source)
    add_storage_after_a_wrong_key(page, s3)
    add_database_after_a_failed_preflight(page, "shop", mysql_source)
    add_database(page, "shop-copy", mysql_target)
    create_schedule(page)
    back_up_now(page)
    switch_pitr_on(page)

    trade(mysql_source)
    before = content(mysql_source)
    run(mysql_source, "DROP TABLE shop.customers")
    see_the_rows_of_a_transaction(page)
    pick_the_drop(page)
    start_restore(page, "shop-copy")
    assert compare(before, content(mysql_target)) == []

    trade(mysql_source)
    pick_the_drop(page)
    start_restore(page, "shop", in_place=True)
    assert compare(before, content(mysql_source)) == []
    a_new_backup_is_taken_at_once(page)


def add_storage_after_a_wrong_key(page, s3):
    page.get_by_role("link", name="Add backup storage").click()
    page.locator("#id_name").fill("minio")
    page.get_by_label("Bucket Name").fill(s3.new_bucket())
    page.get_by_label("Region").fill(s3.region)
    page.get_by_label("Endpoint").fill(s3.endpoint)
    page.get_by_label("Force path-style").check()
    for secret in ("wrong", s3.secret_key):
        page.get_by_label("Access Key").fill(s3.access_key)
        page.get_by_label("Secret Key").fill(secret)
        page.get_by_role("button", name="Test and save").click()
        if secret == "wrong":
            expect(page.get_by_text("Not saved, as this does not work yet.")).to_be_visible(timeout=SOON)
            expect(page.get_by_label("Bucket Name")).not_to_have_value("")
    expect(page.get_by_text("minio works and is saved.")).to_be_visible(timeout=SOON)


def add_database_after_a_failed_preflight(page, name, server):
    """The account may only restore; the page says which GRANTs it lacks, and they are what is run."""
    make_account(server, "target")
    run(server, f"REVOKE SELECT ON *.* FROM {NAME}@'%'")
    fill_database(page, name, server)
    expect(page.get_by_text(re.compile(r"Not saved: \d+ checks? failed"))).to_be_visible(timeout=SOON)
    for text in page.locator(".checks pre").all_inner_texts():
        run(server, *(line.rstrip(";") for line in text.splitlines() if line.startswith("GRANT")))
    save_database(page)
    expect(page.get_by_text(f"{name} is saved.")).to_be_visible(timeout=SOON)


def add_database(page, name, server):
    make_account(server, "source", "target")
    fill_database(page, name, server)
    expect(page.get_by_text(f"{name} is saved.")).to_be_visible(timeout=SOON)


def make_account(server, *roles):
    run(server, f"CREATE USER {NAME}@'%' IDENTIFIED BY '{PASSWORD}'")
    for role in roles:
        run(server, *grant_statements(server.flavour, (9, 7, 0), role, f"'{NAME}'@'%'"))


def fill_database(page, name, server):
    page.get_by_role("navigation", name="Main").get_by_role("link", name="Databases").click()
    page.get_by_role("link", name="Add database").click()
    page.locator("#id_name").fill(name)
    page.get_by_label("Host").fill(server.host)
    page.get_by_label("Port").fill(str(server.port))
    page.locator("#id_user").fill(NAME)
    save_database(page)


def save_database(page):
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Check and add").click()


def open_database(page, name, tab):
    page.get_by_role("navigation", name="Main").get_by_role("link", name="Databases").click()
    page.get_by_role("link", name=name, exact=True).click()
    page.get_by_role("navigation", name="Tabs of").get_by_role("link", name=tab).click()


def create_schedule(page):
    open_database(page, "shop", "Backups")
    page.get_by_text("Create backup").click()
    page.get_by_role("link", name="Schedule", exact=True).click()
    page.get_by_label("Retention copies").fill("7")
    page.get_by_label("Repeats").select_option("weekly")
    expect(page.locator("#preview")).to_contain_text("Weekly on Monday at 01:00 UTC")
    expect(page.locator("#preview li")).to_have_count(3)
    page.get_by_role("button", name="Create", exact=True).click()
    expect(page.get_by_text("1 active schedule")).to_be_visible()
    expect(page.get_by_role("row", name=re.compile("schedule-1 Weekly on Monday"))).to_be_visible()


def back_up_now(page):
    open_database(page, "shop", "Backups")
    page.get_by_text("Create backup").click()
    page.get_by_role("link", name="Now", exact=True).click()
    page.get_by_label("Backup name").fill("first")
    page.get_by_role("button", name="Create", exact=True).click()
    expect(page.get_by_role("row", name=re.compile("Succeeded.*first.*on demand"))).to_be_visible(timeout=SOON)


def switch_pitr_on(page):
    open_database(page, "shop", "Overview")
    page.get_by_role("link", name="Switch on").click()
    page.get_by_label("Upload interval").fill("1")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_text("Point-in-time recovery is on.")).to_be_visible()


def listed(page, kind, words):
    """Look the list of transactions up until it holds these words: slices arrive within seconds."""
    open_database(page, "shop", "Restores")
    page.get_by_role("link", name="Restore", exact=True).first.click()
    page.get_by_role("button", name="Pick from the list of transactions").click()
    page.get_by_label("Kind").select_option(kind)
    row = page.get_by_role("row", name=re.compile(words)).first
    answer = page.locator("#found table, #found .empty, #found .banner")

    def found():
        page.get_by_role("button", name="Show", exact=True).click()
        expect(answer.first).to_be_visible(timeout=SOON)
        return row.count()

    wait_for(found, 60, pause=0.5)
    return row


def see_the_rows_of_a_transaction(page):
    listed(page, "update", "shop.orders").get_by_role("button", name="Show rows").click()
    change = page.locator("tr.differs")
    expect(change.first).to_have_text(re.compile(r"state\s*new\s*paid"), timeout=SOON)


def pick_the_drop(page):
    listed(page, "ddl", "DROP TABLE").get_by_role("link", name="Restore to just before this").click()
    expect(page.get_by_label("Just before a GTID")).to_be_checked()


def start_restore(page, target, in_place=False):
    option = page.locator("#id_target option").filter(has_text=re.compile(rf"^{target} \("))
    page.locator("#id_target").select_option(value=option.get_attribute("value"))
    page.get_by_role("button", name="Review").click()
    start = page.get_by_role("button", name="Start restore")
    expect(start).to_be_visible(timeout=SOON)
    expect(page.get_by_text("DROP TABLE").first).to_be_visible()
    if in_place:
        expect(page.get_by_text("this is the server that the backup came from")).to_be_visible()
        start.click()
        expect(page.get_by_text(f"Type the name {target}")).to_be_visible()
        page.get_by_label(f"Type {target} to confirm").fill(target)
    page.get_by_role("button", name="Start restore").click()
    done = page.get_by_text(f"{target} is at the moment that was asked for.")
    expect(done).to_be_visible(timeout=2 * SOON)


def a_new_backup_is_taken_at_once(page):
    open_database(page, "shop", "Backups")
    expect(page.get_by_role("row", name=re.compile("Succeeded"))).to_have_count(2, timeout=SOON)
