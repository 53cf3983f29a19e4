"""A real browser on real pages: sign in, add a local storage, see it listed."""

import re

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import sign_in, watch
from tests.web import story


@pytest.fixture
def page(live_server, settings, tmp_path, chromium, complaints):
    """A signed-in administrator's page."""
    settings.EVEREST_LOCAL_ROOT = tmp_path
    settings.SESSION_COOKIE_SECURE = settings.CSRF_COOKIE_SECURE = False
    story.workers_at_work()
    story.person("ada", "Administrator", time_zone="Europe/Berlin")
    page = watch(chromium.new_page(base_url=live_server.url), complaints)
    sign_in(page, "ada", "correct horse battery")
    return page


def test_from_an_empty_installation_to_a_storage_that_works(page):
    expect(page.get_by_role("heading", name="First steps")).to_be_visible()
    page.get_by_role("link", name="Add backup storage").click()
    page.get_by_label("Name", exact=False).first.fill("Demo")
    page.get_by_label("Type").select_option("local")
    expect(page.get_by_label("Secret Key")).to_be_hidden()
    page.get_by_label("Bucket Name").fill("demo")
    page.get_by_role("button", name="Test and save").click()
    expect(page.get_by_text("Use lowercase letters, digits and hyphens")).to_be_visible()
    expect(page.get_by_label("Bucket Name")).to_have_value("demo")

    page.get_by_label("Name", exact=False).first.fill("demo")
    page.get_by_role("button", name="Test and save").click()
    expect(page.get_by_text("demo works and is saved.")).to_be_visible()
    expect(page.get_by_role("row", name=re.compile("Local folder demo.*Healthy"))).to_be_visible()

    page.get_by_label("Menu of demo").click()
    page.get_by_role("button", name="Test connection").click()
    expect(page.get_by_role("heading", name="Test of demo")).to_be_visible()
    expect(page.get_by_text("Passed").first).to_be_visible()


def test_a_row_menu_opens_by_keyboard_and_closes_by_escape(page):
    story.storage()
    page.goto("/settings/storages/")
    menu = page.get_by_label("Menu of minio")
    menu.focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("link", name="Edit")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("link", name="Edit")).to_be_hidden()
    expect(menu).to_be_focused()


def test_the_schedule_form_says_what_it_means_while_it_is_typed(page):
    database = story.database()
    story.storage()
    page.goto(f"/databases/{database.pk}/schedules/add/")
    expect(page.locator("#preview")).to_contain_text("Daily at 01:00 Europe/Berlin")
    page.get_by_label("Repeats").select_option("weekly")
    expect(page.locator("#preview")).to_contain_text("Weekly on Monday at 01:00 Europe/Berlin")
    page.locator("#id_time").fill("02:45")
    expect(page.locator("#preview")).to_contain_text("02:45")


def test_a_click_on_the_timeline_fills_the_moment_in(page):
    storage, database = story.storage(), story.database()
    story.history(database, storage)
    page.goto(f"/databases/{database.pk}/restore/")
    page.locator("svg[data-pick]").click()
    expect(page.get_by_label("Date and time", exact=True)).to_be_checked()
    expect(page.locator("#id_time")).to_have_value(re.compile(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d$"))


def test_a_running_backup_moves_by_itself_and_an_open_menu_stays_open(page):
    storage, database = story.storage(), story.database()
    backup = story.backup(database, storage, "live", state="running", view_at=None, finished_at=None)
    page.goto(f"/databases/{database.pk}/backups/")
    expect(page.get_by_text("In progress")).to_be_visible()
    page.get_by_label("Menu of live").click()
    type(backup).objects.filter(pk=backup.pk).update(state="succeeded")
    expect(page.get_by_text("Succeeded")).to_be_visible()
    expect(page.get_by_role("link", name="Details and log")).to_be_visible()
