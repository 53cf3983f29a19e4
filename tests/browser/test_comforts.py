"""The pages without JavaScript, by keyboard, in the dark, on paper; and nothing typed is lost to an update."""

import re

import pytest
from django.urls import reverse
from playwright.sync_api import expect

from backups.models import Backup, Job, Restore, Schedule
from tests.browser.conftest import sign_in, watch
from tests.web import story


@pytest.fixture
def shop(transactional_db):
    storage, database = story.storage(), story.database()
    story.history(database, storage)
    story.database("staging")
    return database


@pytest.fixture
def visit(live_server, settings, chromium, complaints):
    """A function that opens a page for a signed-in administrator, with options of a browser's context."""
    settings.SESSION_COOKIE_SECURE = settings.CSRF_COOKIE_SECURE = False
    story.workers_at_work()
    story.person("ada", "Administrator", time_zone="Europe/Berlin")

    def opened(**options):
        page = watch(chromium.new_context(base_url=live_server.url, **options).new_page(), complaints)
        sign_in(page, "ada", "correct horse battery")
        return page

    return opened


def test_the_main_flow_works_without_javascript(visit, shop):
    page = visit(java_script_enabled=False)
    page.get_by_role("link", name="shop", exact=True).click()
    page.get_by_role("link", name="Backups 3").click()
    page.get_by_text("Create backup").click()
    page.get_by_role("link", name="Now", exact=True).click()
    page.get_by_label("Backup name").fill("plain")
    page.get_by_role("button", name="Create", exact=True).click()
    expect(page.get_by_role("row", name=re.compile("Pending.*plain"))).to_be_visible()
    page.get_by_text("Create backup").click()
    page.get_by_role("link", name="Schedule", exact=True).click()
    page.get_by_label("Repeats").select_option("monthly")
    page.get_by_label("Day of the month").select_option("last")
    page.get_by_role("button", name="Create", exact=True).click()
    expect(page.get_by_text("Monthly on the last day at 01:00 Europe/Berlin").first).to_be_visible()
    assert Schedule.objects.get().cron == "0 1 L * *"

    page.get_by_role("link", name="Restore", exact=True).click()
    page.locator("#id_time").fill("2000-01-01 00:00:00")
    page.get_by_role("button", name="Review").click()
    expect(page.get_by_text("Choose this above, or empty the field")).to_be_visible()
    page.get_by_label("Date and time", exact=True).check()
    page.get_by_role("button", name="Review").click()
    expect(page.get_by_text("That moment is not recoverable. Recoverable:")).to_be_visible()
    expect(page.locator("#id_time")).to_have_value("2000-01-01 00:00:00")
    page.get_by_role("button", name="Pick from the list of transactions").click()
    page.wait_for_url(re.compile("/transactions/"))
    assert page.locator("noscript meta[http-equiv=refresh]").count() == 1  # the page loads itself anew
    expect(page.get_by_text("Reading what happened")).to_be_visible()

    found = story.listed(shop)
    Job.objects.filter(kind=Job.TRANSACTIONS, state="pending").update(state="succeeded", result=found.result)
    expect(page.get_by_text("DROP TABLE `customers`")).to_be_visible(timeout=10_000)
    page.get_by_role("link", name="Restore to just before this").first.click()
    page.get_by_role("button", name="Review").click()
    expect(page.get_by_text("Looking up the exact transaction")).to_be_visible()
    restore = Restore.objects.get()
    assert (restore.moment, restore.moment_gtid) == ("before", f"{story.SERVER}:1200")
    Restore.objects.update(plan=story.PLAN)
    page.reload()
    page.get_by_label("Type staging to confirm").fill("staging")
    page.get_by_role("button", name="Start restore").click()
    expect(page.get_by_role("button", name="Cancel restore")).to_be_visible()


def test_a_form_is_filled_in_and_sent_by_keyboard_alone(visit, shop):
    page = visit()
    page.goto(reverse("backup-now", args=[shop.pk]))
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to content")).to_be_focused()
    page.get_by_label("Backup name").focus()
    page.keyboard.press("Control+A")
    page.keyboard.type("by-hand")
    outline = page.get_by_label("Backup name").evaluate(
        "e => getComputedStyle(e).boxShadow + getComputedStyle(e).outline"
    )
    assert "rgb" in outline
    page.keyboard.press("Enter")
    expect(page.get_by_role("row", name=re.compile("Pending.*by-hand"))).to_be_visible()


def test_typing_a_time_chooses_it(visit, shop):
    page = visit()
    page.goto(reverse("restore-wizard", args=[shop.pk]))
    expect(page.get_by_label("Latest possible")).to_be_checked()
    page.locator("#id_time").press_sequentially("2026")
    expect(page.get_by_label("Date and time", exact=True)).to_be_checked()


def test_updates_touch_nothing_that_is_typed_opened_or_focused(visit, shop):
    story.restore(shop, shop, "running")
    page = visit()
    page.clock.install()
    page.goto("/databases/")
    page.get_by_label("Search databases").fill("sta")
    link = page.get_by_role("link", name="staging", exact=True)
    link.focus()
    with page.expect_response(re.compile("/databases/part/")):
        page.clock.fast_forward("00:31")
    expect(link).to_be_focused()
    expect(page.get_by_label("Search databases")).to_have_value("sta")

    page.goto(reverse("database", args=[shop.pk]))
    page.get_by_text("2 ranges can be restored to").click()
    with page.expect_response(re.compile("/jobs/")):
        page.clock.fast_forward("00:04")
    expect(page.locator("details li").first).to_be_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_theme_follows_the_system_and_texts_are_readable(scheme, visit, shop):
    page = visit(color_scheme=scheme)
    page.goto(reverse("database", args=[shop.pk]))
    expect(page.locator("html")).to_have_attribute("data-bs-theme", scheme)
    for selector in ("h1", ".muted", ".panel h2", ".status", ".tabs a", ".btn-primary", ".btn-quiet"):
        assert contrast(page, selector) >= 4.5, selector


CONTRAST = """selector => {
  const numbers = text => (text.match(/[\\d.]+/g) || []).map(Number);
  const light = ([r, g, b]) => [r, g, b].map(v => v / 255)
    .map(v => v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
  const element = document.querySelector(selector);
  let ground = element, colour;
  do { colour = numbers(getComputedStyle(ground).backgroundColor); ground = ground.parentElement; }
  while (ground && colour.length === 4 && colour[3] === 0);
  const [a, b] = [light(numbers(getComputedStyle(element).color)), light(colour)].sort((x, y) => y - x);
  return (a + .05) / (b + .05);
}"""


def contrast(page, selector):
    """WCAG's ratio of an element's text to what lies behind it."""
    return page.evaluate(CONTRAST, selector)


def test_a_result_is_printed_without_the_frame(visit, shop):
    done = story.restore(shop, shop, "succeeded")
    page = visit()
    page.goto(reverse("restore", args=[done.pk]))
    expect(page.get_by_role("button", name="Print")).to_be_visible()
    page.emulate_media(media="print")
    expect(page.get_by_role("navigation", name="Main")).to_be_hidden()
    expect(page.get_by_role("button", name="Check now")).to_be_hidden()
    expect(page.get_by_text("is at the moment that was asked for")).to_be_visible()


def test_nothing_is_wider_than_a_narrow_window(visit, shop):
    listed, draft = story.listed(shop), story.restore(shop, shop)
    page = visit(viewport={"width": 400, "height": 800})
    for name, pk in [("database", shop.pk), ("backups", shop.pk), ("restore-wizard", shop.pk), ("restores", shop.pk),
                     ("transactions-found", listed.pk), ("restore", draft.pk)]:  # fmt: skip
        page.goto(reverse(name, args=[pk]))
        assert page.evaluate("document.documentElement.scrollWidth") <= 400, name
    assert Backup.objects.count() == 3
