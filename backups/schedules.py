"""When schedules run.  Pure: cron expressions and zones in, UTC times out.

The rule for daylight saving: a local time that is skipped runs when the gap ends; one that is repeated runs once,
the first time; a schedule of every hour (hour field `*`) runs in both.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError

REPEATS = [
    ("hourly", "Hourly"),
    ("daily", "Daily"),
    ("weekly", "Weekly"),
    ("monthly", "Monthly"),
    ("cron", "Cron expression"),
]
DAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
LAST = "last"


def compile(
    repeats: str, *, minute: int = 0, hour: int = 0, weekday: int = 1, day: int | str = 1, cron: str = ""
) -> str:
    """One cron expression for the five choices.  weekday: 1 is Monday, 7 Sunday.  day: 1 to 31, or "last"."""
    expressions = {
        "hourly": f"{minute} * * * *",
        "daily": f"{minute} {hour} * * *",
        "weekly": f"{minute} {hour} * * {weekday}",
        "monthly": f"{minute} {hour} {'L' if day == LAST else day} * *",
        "cron": " ".join(cron.split()),
    }
    expression = expressions[repeats]
    validate(expression)
    return expression


def parse(cron: str) -> tuple[str, dict]:
    """The choice that `compile` made this expression from, and its arguments."""
    minute, hour, day, month, weekday = cron.split()
    if month == "*" and minute.isdigit():
        if (hour, day, weekday) == ("*", "*", "*"):
            return "hourly", {"minute": int(minute)}
        if hour.isdigit():
            time = {"minute": int(minute), "hour": int(hour)}
            if (day, weekday) == ("*", "*"):
                return "daily", time
            if day == "*" and weekday.isdigit():
                return "weekly", {**time, "weekday": int(weekday) or 7}
            if weekday == "*" and (day.isdigit() or day == "L"):
                return "monthly", {**time, "day": LAST if day == "L" else int(day)}
    return "cron", {"cron": cron}


def validate(cron: str) -> None:
    """Raise ValueError with a sentence where the expression never runs or makes no sense."""
    if len(cron.split()) != 5:
        raise ValueError("A cron expression has five fields: minute, hour, day of month, month, day of week.")
    try:
        next(CronSim(cron, datetime(2024, 1, 1)))
    except CronSimError as error:
        raise ValueError(f"This cron expression cannot be read: {error}.") from None
    except StopIteration:
        raise ValueError("This cron expression never comes true.") from None


def zone_named(name: str) -> ZoneInfo:
    """Raise ValueError with a sentence where there is no such zone."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(f"There is no time zone named {name!r}. Use a name such as Europe/Berlin.") from None


def next_run(cron: str, zone: str, after: datetime, start: datetime | None = None) -> datetime:
    """The first run later than `after` and not before `start`, in UTC."""
    if start is not None:
        after = max(after, start - timedelta(microseconds=1))
    return next(_runs(cron, zone_named(zone), after.astimezone(UTC)))


def next_runs(cron: str, zone: str, after: datetime, count: int, start: datetime | None = None) -> list[datetime]:
    runs: list[datetime] = []
    for _ in range(count):
        after = next_run(cron, zone, after, start)
        runs.append(after)
    return runs


def _runs(cron: str, zone: ZoneInfo, after: datetime) -> Iterator[datetime]:
    local = after.astimezone(zone)
    if cron.split()[1] == "*":
        candidates = (run.astimezone(UTC) for run in CronSim(cron, local))
    else:
        candidates = (at_local(run, zone) for run in CronSim(cron, local.replace(tzinfo=None)))
    return (run for run in candidates if run > after)


def at_local(naive: datetime, zone: ZoneInfo) -> datetime:
    """The instant of a wall-clock time: the first of two, the gap's end for one that is skipped."""
    while True:
        instant = naive.replace(tzinfo=zone).astimezone(UTC)
        if instant.astimezone(zone).replace(tzinfo=None) == naive:
            return instant
        naive += timedelta(minutes=1)


def describe(cron: str, zone: str) -> str:
    """ "Daily at 01:00 Europe/Berlin" """
    repeats, at = parse(cron)
    if repeats == "hourly":
        return f"Hourly at minute {at['minute']:02d}"
    if repeats == "cron":
        return f"{CronSim(cron, datetime(2024, 1, 1)).explain()}, {zone}"
    time = f"at {at['hour']:02d}:{at['minute']:02d} {zone}"
    if repeats == "daily":
        return f"Daily {time}"
    if repeats == "weekly":
        return f"Weekly on {DAYS[at['weekday'] - 1]} {time}"
    return f"Monthly on {'the last day' if at['day'] == LAST else 'day ' + str(at['day'])} {time}"
