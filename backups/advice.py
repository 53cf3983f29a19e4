"""What a person should know before a schedule is made: none of it forbids anything."""

from datetime import timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

from django.db.models import Avg, F

LOOK_AHEAD = 7  # runs: a week of daily ones


def warnings(schedule) -> list[str]:
    """Sentences about production hours and about other backups at the same time."""
    runs = schedule.next_runs(LOOK_AHEAD)
    found = (in_production(schedule, runs), overlaps(schedule, runs), surplus(schedule))
    return [sentence for sentence in found if sentence]


def surplus(schedule):
    """Fewer copies than there are: retention takes the oldest away."""
    if schedule._state.adding or not schedule.retention_copies:
        return ""
    taken = schedule.backups.filter(state="succeeded", pinned=False).order_by("-view_at")
    too_many = list(taken[schedule.retention_copies :])
    if not too_many:
        return ""
    names = ", ".join(backup.name for backup in too_many[:5]) + (" and more" if len(too_many) > 5 else "")
    count = len(too_many)
    return f"{count} of its backups are more than that and will be deleted, with the moments that need them: {names}."


def in_production(schedule, runs):
    hours = schedule.database.production_hours
    if not hours:
        return ""
    first, last = hours.split("-")
    for run in runs:
        clock = f"{run.astimezone(ZoneInfo(schedule.time_zone)):%H:%M}"
        if first <= clock < last or (first > last and not last <= clock < first):
            return f"Runs at {clock}, within the production hours {hours} that the database's Settings name."
    return ""


def overlaps(schedule, runs):
    usual = usual_duration(schedule.database)
    if any(later - run < usual for run, later in pairwise(runs)):
        return (
            f"A backup usually takes {minutes(usual)}, longer than the time between two runs: runs would be left out."
        )
    for other in schedule.database.schedules.filter(active=True).exclude(pk=schedule.pk):
        theirs = other.next_runs(LOOK_AHEAD)
        if any(abs(run - their) < max(usual, timedelta(minutes=1)) for run in runs for their in theirs):
            return f"Overlaps the schedule {other.name} ({other.describe()}): both backups would run at once."
    return ""


def usual_duration(database) -> timedelta:
    taken = database.backups.filter(state="succeeded", started_at__isnull=False).aggregate(
        usual=Avg(F("finished_at") - F("started_at"))
    )
    return taken["usual"] or timedelta(0)


def minutes(duration):
    return f"{max(round(duration.total_seconds() / 60), 1)} min"
