"""Schedules run at the local time a person chose, daylight saving included."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest

from backups import schedules


def runs(cron, zone, after, count=3, start=None):
    after = after.replace(tzinfo=ZoneInfo(zone))
    found = schedules.next_runs(cron, zone, after, count, start)
    return [run.astimezone(ZoneInfo(zone)).strftime("%d %H:%M %z") for run in found]


def utc(*parts):
    return datetime(*parts, tzinfo=UTC)


@pytest.mark.parametrize(
    ("repeats", "at", "cron", "words"),
    [
        ("hourly", {"minute": 5}, "5 * * * *", "Hourly at minute 05"),
        ("daily", {"minute": 0, "hour": 1}, "0 1 * * *", "Daily at 01:00 Europe/Berlin"),
        ("weekly", {"minute": 30, "hour": 22, "weekday": 7}, "30 22 * * 7", "Weekly on Sunday at 22:30 Europe/Berlin"),
        (
            "monthly",
            {"minute": 0, "hour": 3, "day": "last"},
            "0 3 L * *",
            "Monthly on the last day at 03:00 Europe/Berlin",
        ),
        ("monthly", {"minute": 0, "hour": 3, "day": 15}, "0 3 15 * *", "Monthly on day 15 at 03:00 Europe/Berlin"),
    ],
)
def test_choices_compile_to_cron_and_back(repeats, at, cron, words):
    assert schedules.compile(repeats, **at) == cron
    assert schedules.parse(cron) == (repeats, at)
    assert schedules.describe(cron, "Europe/Berlin") == words


def test_any_cron_expression_is_described():
    assert schedules.parse("*/20 8-18 * * 1-5")[0] == "cron"
    assert "Europe/Berlin" in schedules.describe("*/20 8-18 * * 1-5", "Europe/Berlin")


@pytest.mark.parametrize("cron", ["", "* * * *", "0 0 31 2 *", "61 * * * *", "0 0 * * * *", "x * * * *"])
def test_senseless_expressions_are_refused_with_a_sentence(cron):
    with pytest.raises(ValueError, match=r"\.$"):
        schedules.compile("cron", cron=cron)


def test_unknown_zone_is_refused_with_a_sentence():
    with pytest.raises(ValueError, match="no time zone named 'Mars/Base'"):
        schedules.next_run("0 1 * * *", "Mars/Base", utc(2026, 1, 1))


def test_skipped_time_runs_when_the_gap_ends():
    # Berlin 2026-03-29: 02:00 becomes 03:00.  New York 2026-03-08.  Lord Howe 2026-10-04: 02:00 becomes 02:30.
    assert runs("30 2 * * *", "Europe/Berlin", datetime(2026, 3, 28, 12)) == [
        "29 03:00 +0200",
        "30 02:30 +0200",
        "31 02:30 +0200",
    ]
    assert runs("15 2 * * *", "America/New_York", datetime(2026, 3, 7, 12), 2) == ["08 03:00 -0400", "09 02:15 -0400"]
    assert runs("10 2 * * *", "Australia/Lord_Howe", datetime(2026, 10, 3, 12), 2) == [
        "04 02:30 +1100",
        "05 02:10 +1100",
    ]


def test_many_skipped_times_run_once_when_the_gap_ends():
    assert runs("*/15 2 * * *", "Europe/Berlin", datetime(2026, 3, 28, 12), 2) == ["29 03:00 +0200", "30 02:00 +0200"]


def test_repeated_time_runs_once_the_first_time():
    assert runs("30 2 * * *", "Europe/Berlin", datetime(2026, 10, 24, 12), 2) == ["25 02:30 +0200", "26 02:30 +0100"]
    assert runs("30 1 * * *", "America/New_York", datetime(2026, 10, 31, 12), 2) == ["01 01:30 -0400", "02 01:30 -0500"]
    assert runs("45 1 * * *", "Australia/Lord_Howe", datetime(2026, 4, 4, 12), 2) == [
        "05 01:45 +1100",
        "06 01:45 +1030",
    ]


def test_repeated_time_does_not_run_again_when_asked_in_between():
    between = schedules.next_run("30 2 * * *", "Europe/Berlin", utc(2026, 10, 25, 1, 10))  # 02:10, the second time
    assert between == utc(2026, 10, 26, 1, 30)


def test_hourly_runs_in_both_repeated_hours_and_skips_none():
    assert runs("30 * * * *", "Europe/Berlin", datetime(2026, 10, 25, 1, 45), 3) == [
        "25 02:30 +0200",
        "25 02:30 +0100",
        "25 03:30 +0100",
    ]
    assert runs("30 * * * *", "Europe/Berlin", datetime(2026, 3, 29, 1, 0), 2) == ["29 01:30 +0100", "29 03:30 +0200"]


def test_last_day_of_month_and_days_that_some_months_lack():
    assert runs("0 3 L * *", "UTC", datetime(2028, 2, 1), 2) == ["29 03:00 +0000", "31 03:00 +0000"]
    assert runs("0 3 31 * *", "UTC", datetime(2026, 4, 1), 2) == ["31 03:00 +0000", "31 03:00 +0000"]


def test_nothing_runs_before_its_start_and_the_start_itself_counts():
    start = utc(2026, 6, 1, 1)
    assert schedules.next_run("0 1 * * *", "UTC", utc(2026, 1, 1), start) == start
    assert schedules.next_run("0 1 * * *", "UTC", start, start) == utc(2026, 6, 2, 1)
